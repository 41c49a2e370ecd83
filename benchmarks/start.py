"""From nothing to the first answer: time that passes, and CPU."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from benchmarks.figures import Figure, Options, Series
from benchmarks.processes import Serving
from benchmarks.sides import turns
from benchmarks.stand import BODY, ECHO, bare, stand

IMPORTS: Final = "import aiohttp.web, uvloop"
"""The least that anything on aiohttp needs."""

READY: Final = "until it says that it is ready"
ANSWERED: Final = "until the first answer is here"
ENDED: Final = "until it has ended"
CPU: Final = "CPU by then"

Times = dict[str, float]
"""Seconds, by row."""


def measure(options: Options) -> Figure:
    """Files are in the page cache, and modules are compiled: everyone starts once before."""
    with stand(options) as here:
        behind = here.mesh(silent=options.announced - 1)
        sides: dict[str, Callable[[], Times]] = {
            "scamp-gateway": partial(_served, behind.gateway),
            "web.Application": partial(_served, partial(bare, here.folder / "bare.log")),
            f"python -c '{IMPORTS}'": _imported,
        }
        rows = {
            name: {row: Series(row, "ms", digits=0, side=name) for row in start()}
            for name, start in sides.items()
        }
        for name in turns(list(sides), options.pairs):
            for row, seconds in sides[name]().items():
                rows[name][row].samples.append(seconds * 1000)
    return Figure(
        "start",
        f"Cold start with {options.announced} services in the cache",
        [series for found in rows.values() for series in found.values()],
    )


def _served(start: Callable[[], AbstractContextManager[Serving]]) -> Times:
    began = time.monotonic()
    with start() as server:
        ready = time.monotonic() - began
        _ask(server)
        return {
            READY: ready,
            ANSWERED: time.monotonic() - began,
            CPU: server.process.cpu(),
        }


def _imported() -> Times:
    before, began = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    ended, after = time.monotonic() - began, os.times()
    used = after.children_user + after.children_system
    return {ENDED: ended, CPU: used - before.children_user - before.children_system}


def _ask(server: Serving) -> None:
    """Raises RuntimeError for an answer that is no echo."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    try:
        connection.request("POST", f"/api/{ECHO}", BODY, dict(server.headers))
        answer = connection.getresponse()
        if (answer.status, answer.read()) != (200, BODY):
            raise RuntimeError(f"{server.url} answered {answer.status}")
    finally:
        connection.close()
