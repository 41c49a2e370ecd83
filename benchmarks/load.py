"""The generator of our own: so many keep-alive clients, each sending its next request when the last
was answered.

    python -m benchmarks.load TARGET.json --clients 64

prints a line when it is ready, and for each number of seconds that it reads from stdin a JSON line
with what happened. Every answer is compared with the body that was sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import uvloop

from benchmarks.http1 import Connection, Target, all_requests
from benchmarks.processes import Process


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `failures` are answers that were not an echo, and connections that broke."""

    requests: int
    failures: int
    seconds: float


class PythonLoad:
    """The generator of this module, at the other end of a pipe."""

    name = "benchmarks.load"

    def __init__(self, process: Process) -> None:
        self._process = process

    def run(self, seconds: float) -> Outcome:
        return Outcome(**json.loads(self._process.ask(str(seconds))))


class _Clients:
    """All clients, and what they count together in a run."""

    def __init__(self, target: Target, clients: int) -> None:
        self._target = target
        self._wires = cycle(all_requests(target))
        self._pool = [Connection(self._answered) for _ in range(clients)]
        self._requests = 0
        self._failures = 0
        self._busy = 0
        self._going = False
        self._idle = asyncio.Event()

    async def run(self, seconds: float) -> Outcome:
        for client in self._pool:
            if not client.connected:
                await client.connect(self._target.url)
        self._requests = self._failures = 0
        self._busy = len(self._pool)
        self._going = True
        self._idle.clear()
        began = time.monotonic()
        for client in self._pool:
            client.ask(next(self._wires))
        await asyncio.wait((asyncio.ensure_future(self._idle.wait()),), timeout=seconds)
        self._going = False
        await self._idle.wait()
        return Outcome(self._requests, self._failures, time.monotonic() - began)

    def _answered(self, client: Connection, status: int, body: bytes) -> None:
        self._requests += status > 0
        self._failures += status != 200 or body != self._target.body
        if self._going and client.connected:
            client.ask(next(self._wires))
            return
        self._busy -= 1
        if not self._busy:
            self._idle.set()


async def _serve(target: Target, clients: int) -> None:
    load, loop = _Clients(target, clients), asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(asdict(await load.run(float(line)))), flush=True)


@click.command()
@click.argument("target", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--clients", default=64, show_default=True)
def main(**given: Any) -> None:
    """Load TARGET with POST requests whose answer is to be the body that was sent."""
    uvloop.run(_serve(Target.read(given["target"]), given["clients"]))


if __name__ == "__main__":
    main()
