"""Memory for each client that is connected, and for each request that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.figures import Figure, Options, Series
from benchmarks.http1 import Connection, Target, request_bytes
from benchmarks.processes import Process, Serving
from benchmarks.sides import turns
from benchmarks.stand import BODY, ECHO, FROM_ONE_ADDRESS, SEVERAL, bare, stand
from benchmarks.work import HOLD
from scamp.limits import KIB, MIB

ROUNDS: Final = 3
"""At most: each takes a new process."""

LOOK: Final = 0.1
"""Seconds between two looks at what is resident."""

PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Taken:
    """Bytes that are resident: at the start, with idle clients, and at most while all waited."""

    start: int
    idle: int
    held: int


class _Clients:
    """Connections of which each asks once, all of them answered or not."""

    def __init__(self, server: Serving) -> None:
        self._url = server.url
        self._wires = {
            action: request_bytes(Target(f"{server.url}/api/{action}", BODY, server.headers))
            for action in (ECHO, "Bench.hold")
        }
        self._left = 0
        self._failures = 0
        self.answered = asyncio.Event()
        self.all: list[Connection] = []

    async def join(self) -> None:
        """One more, that has asked once."""
        self.all.append(Connection(self._answered))
        await self.all[-1].connect(self._url)
        await self.ask(self.all[-1:], ECHO)

    async def ask(self, of: list[Connection], action: str) -> None:
        """Raises RuntimeError when one gets no echo."""
        self._left = len(of)
        self.answered.clear()
        for one in of:
            one.ask(self._wires[action])
        async with asyncio.timeout(PATIENCE):
            await self.answered.wait()
        if self._failures:
            raise RuntimeError(f"{self._failures} of {len(of)} failed")

    def _answered(self, _: Connection, status: int, body: bytes) -> None:
        self._failures += (status, body) != (200, BODY)
        self._left -= 1
        if not self._left:
            self.answered.set()


async def _taken(server: Serving, many: int) -> _Taken:
    clients, process = _Clients(server), server.process
    await clients.join()
    start = process.resident()
    for _ in range(many):
        await clients.join()
    idle = process.resident()
    waiting = asyncio.ensure_future(clients.ask(clients.all[1:], "Bench.hold"))
    held = await _highest(process, waiting)
    for one in clients.all:
        one.close()
    return _Taken(start, idle, held)


async def _highest(process: Process, until: asyncio.Future[None]) -> int:
    """What was resident at most until then."""
    highest = 0
    while not until.done():
        highest = max(highest, process.resident())
        await asyncio.wait([until], timeout=LOOK)
    await until
    return highest


def measure(options: Options) -> Figure:
    """A new process in each round, since memory that was once resident may stay so."""
    rounds, many = min(ROUNDS, options.pairs), options.crowd
    with stand(options) as here:
        behind = here.mesh(services=SEVERAL)
        sides: dict[str, Callable[[], AbstractContextManager[Serving]]] = {
            "scamp-gateway": partial(behind.gateway, *FROM_ONE_ADDRESS),
            "web.Application": partial(bare, here.folder / "bare.log"),
        }
        found: dict[str, list[_Taken]] = {name: [] for name in sides}
        for name in turns(list(sides), rounds):
            with sides[name]() as server:
                found[name].append(asyncio.run(_taken(server, many)))
    rows: dict[str, tuple[str, Callable[[_Taken], float]]] = {
        "one client, before": ("MiB", lambda one: one.start / MIB),
        "each idle client": ("KiB", lambda one: (one.idle - one.start) / many / KIB),
        "each request under way, its client included": (
            "KiB",
            lambda one: (one.held - one.start) / many / KIB,
        ),
    }
    return Figure(
        "memory",
        f"Resident memory, {many:,} clients on kept connections, each of which asked once, then "
        f"{many:,} requests that wait for {HOLD:g} s; new processes each time",
        [
            Series(row, unit, [of(one) for one in taken], side=name)
            for row, (unit, of) in rows.items()
            for name, taken in found.items()
        ],
    )
