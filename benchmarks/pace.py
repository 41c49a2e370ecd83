"""Requests at a fixed rate, whatever becomes of those before: no coordinated omission.

    python -m benchmarks.pace TARGET.json             over HTTP
    python -m benchmarks.pace TARGET.json --mesh FOLDER    to the service itself, over SCAMP

prints a line when it is ready, and for each ``RATE SECONDS`` that it reads from stdin a JSON line.
Each request has its time from the beginning. Latency is counted from then on, also when it was sent
later: because the generator was, or because every connection was waiting for an answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Protocol

import click
import uvloop

from benchmarks.http1 import Connection, Target, request_bytes
from benchmarks.processes import Process
from scamp import Requester, ScampError
from scamp.discovery import CacheFollower, Registry

CONNECTIONS: Final = 64
GRACE: Final = 30.0
"""Seconds for the last answers."""

LEAD: Final = 0.05
"""Seconds before the first request's time."""


@dataclass(slots=True)
class Paced:
    """One run, in seconds: how long each answer took, and how much too late each was sent."""

    latencies: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    failures: int = 0


class PacedLoad:
    """The generator of this module, at the other end of a pipe."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def run(self, rate: int, seconds: float) -> Paced:
        return Paced(**json.loads(self._process.ask(f"{rate} {seconds}")))


class Caller(Protocol):
    """A way to send requests."""

    def send(self, intended: float) -> None:
        """Send one now, and tell the `Run` when it is answered."""


class Run:
    """What is known of one run while it goes on."""

    def __init__(self) -> None:
        self.told = Paced()
        self._left = 0
        self._done = asyncio.Event()

    async def go(self, caller: Caller, rate: int, seconds: float) -> Paced:
        self.told, self._left = Paced(), max(1, round(rate * seconds))
        self._done.clear()
        loop = asyncio.get_running_loop()

        def fire(intended: float) -> None:
            self.told.lateness.append(time.perf_counter() - intended)
            caller.send(intended)

        def keep_time(count: int) -> None:
            # A thread that sleeps is late by some 0.1 ms; timers of a loop are by up to 1 ms.
            began = time.perf_counter() + LEAD
            for number in range(count):
                intended = began + number / rate
                if (early := intended - time.perf_counter()) > 0:
                    time.sleep(early)
                loop.call_soon_threadsafe(fire, intended)

        thread = threading.Thread(target=keep_time, args=(self._left,), daemon=True)
        thread.start()
        await asyncio.wait_for(self._done.wait(), seconds + GRACE)
        thread.join()
        return self.told

    def answered(self, intended: float, *, right: bool) -> None:
        self.told.latencies.append(time.perf_counter() - intended)
        self.told.failures += not right
        self._left -= 1
        if not self._left:
            self._done.set()


class OverHttp:
    """Kept connections with one request at a time; what finds none free waits for one."""

    def __init__(self, target: Target, run: Run) -> None:
        self._wire = request_bytes(target)
        self._body = target.body
        self._run = run
        self._free: deque[Connection] = deque()
        self._waiting: deque[float] = deque()

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target, run: Run) -> AsyncIterator[OverHttp]:
        caller = cls(target, run)
        for _ in range(CONNECTIONS):
            connection = Connection(caller._answered)
            await connection.connect(target.url)
            caller._free.append(connection)
        yield caller
        for connection in caller._free:
            connection.close()

    def send(self, intended: float) -> None:
        if self._free:
            self._ask(self._free.popleft(), intended)
        else:
            self._waiting.append(intended)

    def _ask(self, connection: Connection, intended: float) -> None:
        connection.intended = intended
        connection.ask(self._wire)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        self._run.answered(connection.intended, right=status == 200 and body == self._body)
        if not connection.connected:
            return
        if self._waiting:
            self._ask(connection, self._waiting.popleft())
        else:
            self._free.append(connection)


class OverScamp:
    """Our own client library, without the gateway."""

    def __init__(self, requester: Requester, target: Target, run: Run) -> None:
        self._requester = requester
        self._action = target.url.rpartition("/")[2]
        self._ticket = target.tickets[0]
        self._body = target.body
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target, run: Run, folder: Path) -> AsyncIterator[OverScamp]:
        registry = Registry()
        authorized = folder / "authorized_services"
        follower = CacheFollower(folder / "cache", registry, authorized_path=authorized)
        await follower.refresh()
        async with Requester(registry) as requester:
            yield cls(requester, target, run)
        await follower.stop()

    def send(self, intended: float) -> None:
        task = asyncio.ensure_future(self._call(intended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, intended: float) -> None:
        try:
            reply = await self._requester.request(self._action, self._body, ticket=self._ticket)
            right = await reply.read_all() == self._body
        except ScampError:
            right = False
        self._run.answered(intended, right=right)


async def _serve(target: Target, folder: Path | None) -> None:
    run, loop = Run(), asyncio.get_running_loop()
    sys.setswitchinterval(0.0002)  # the thread that keeps the time is not to wait for the loop,
    gc.disable()  # nor a request for the collector of a generator
    opened = OverHttp.open(target, run) if folder is None else OverScamp.open(target, run, folder)
    async with opened as caller:
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            rate, seconds = line.split()
            print(json.dumps(asdict(await run.go(caller, int(rate), float(seconds)))), flush=True)


@click.command()
@click.argument("target", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--mesh", "folder", type=click.Path(file_okay=False, path_type=Path))
def main(target: Path, folder: Path | None) -> None:
    """Send POST requests as TARGET has them, at rates that are read from stdin."""
    uvloop.run(_serve(Target.read(target), folder))


if __name__ == "__main__":
    main()
