"""The follower of a discovery cache file in a process of its own, set up as the gateway does it.

    python -m benchmarks.following CACHE AUTHORIZED [--ticks]

prints a line when it is ready, and answers each line that it reads from stdin with one of JSON:
``load`` reads the file for the first time, ``look`` looks at it again, ``find`` looks actions up,
and ``least`` does what anyone must who reads such a file, in a plain loop over public packages.

With ``--ticks`` a timer runs every millisecond and measures how late it is. That costs CPU, so
another process tells what a load costs.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from gateway.discovery import make_source
from gateway.lifecycle import GC_THRESHOLD
from gateway.settings import Settings
from scamp.discovery import DiscoverySource, Registry

TICK: Final = 0.001
LOOKUPS: Final = 1_000
REPEATED: Final = 100
REST: Final = 0.2
"""Seconds for what is done when the index is there: what it replaced is freed."""

Told = dict[str, float]
"""Seconds, by what they were taken for."""


class Ticks:
    """A timer that is told how late it was, without the time for which this thread was ready and
    other processes had the core: what schedstat calls run delay. The rest is ours."""

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self._handle: asyncio.TimerHandle | None = None
        self.longest = 0.0

    def start(self) -> None:
        self.longest = 0.0
        self._next(asyncio.get_running_loop(), self._run_delay())

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _run_delay(self) -> float:
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9

    def _next(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        due = time.perf_counter() + TICK
        self._handle = loop.call_later(TICK, self._tick, loop, due, delay)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float, before: float) -> None:
        late, delay = time.perf_counter() - due, self._run_delay()
        self.longest = max(self.longest, late - (delay - before))
        self._next(loop, delay)


async def follow(cache: Path, authorized: Path, *, ticking: bool) -> None:
    registry = Registry()
    settings = Settings(
        discovery_source="cache",
        discovery_cache=cache,
        authorized_services=authorized,
        discovery_max_age=86_400.0,
        discovery_poll_interval=60.0,  # it is asked to look
    )
    source = make_source(settings, registry, lambda report: None)
    ticks = Ticks() if ticking else None
    gc.collect()  # as before the gateway loads its index
    gc.set_threshold(GC_THRESHOLD)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        told: Told
        if line == "find":
            told = _find(registry)
        elif line == "least":
            told = _least(cache)
        else:
            told = await _looked(source, ticks, first=line == "load")
        refused = sum(source.status.rejected.values())
        print(json.dumps({"services": len(registry.services()), "refused": refused, **told}))
        sys.stdout.flush()
    await source.stop()


async def _looked(source: DiscoverySource, ticks: Ticks | None, *, first: bool) -> Told:
    if ticks is not None:
        ticks.start()
    await asyncio.sleep(10 * TICK)
    began, loop = time.perf_counter(), time.thread_time()
    await (source.start() if first else source.refresh())
    told = {"wall": time.perf_counter() - began, "loop": time.thread_time() - loop}
    if first:
        gc.freeze()
    await asyncio.sleep(REST)
    if ticks is not None:
        ticks.stop()
        told["stall"] = ticks.longest
    return told


def _find(registry: Registry) -> Told:
    """Seconds for a lookup: of actions that nobody has asked for, and of the same again."""
    known = [offers[0].action for offers in islice(registry.actions(), LOOKUPS)]
    wanted = [(action.sector, action.spelling, action.version) for action in known]
    began = time.thread_time()
    for sector, spelling, version in wanted:
        registry.find(sector, spelling, version)
    first = time.thread_time()
    for _ in range(REPEATED):
        for sector, spelling, version in wanted:
            registry.find(sector, spelling, version)
    again = time.thread_time()
    return {
        "first": (first - began) / len(wanted),
        "again": (again - first) / len(wanted) / REPEATED,
    }


def _least(cache: Path) -> Told:
    """Parse every record's JSON, and check its signature. Certificates are read once."""
    keys: dict[bytes, Any] = {}
    count = 0
    for record in cache.read_bytes().split(b"\n%%%\n")[1:]:
        text, pem, signature = record.strip().split(b"\n\n")
        orjson.loads(text)
        if pem not in keys:
            keys[pem] = x509.load_pem_x509_certificate(pem).public_key()
        key: rsa.RSAPublicKey = keys[pem]
        key.verify(base64.b64decode(signature), text, padding.PKCS1v15(), hashes.SHA256())
        count += 1
    return {"records": float(count)}


if __name__ == "__main__":
    uvloop.run(follow(Path(sys.argv[1]), Path(sys.argv[2]), ticking="--ticks" in sys.argv[3:]))
