"""Instances behind proxies, the discovery file that leads to them, and what happens to them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import ROOT
from scamp.testing import Accepting, FaultProxy

LONGEST_STOP: Final = 2.5
"""Seconds that an instance is stopped for at most."""
START_LIMIT: Final = 30.0


class Instance:
    """A process and the proxy in front of it, whose address is announced."""

    def __init__(self, folder: Path, number: int, kind: str) -> None:
        self.proxy = FaultProxy(("127.0.0.1", 1))
        self.record = b""
        self.busy = False
        """It is just being killed or stopped."""
        self._folder = folder
        self._log = folder / f"instance-{number}.log"
        self._kind = kind
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the process; afterwards it serves, and `record` is what it announces."""
        command = (sys.executable, "-m", "tests.soak.faulty_service")
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *(str(self._folder), self.proxy.uri, self._kind),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                cwd=ROOT,
                limit=2**20,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_LIMIT):
            told = json.loads(await self._process.stdout.readline())
        self.record = base64.b64decode(told["record"])
        self.proxy.target = ("127.0.0.1", told["port"])
        self.proxy.accepting = Accepting.SERVING

    async def kill(self) -> None:
        """``kill -9``; then nothing listens there."""
        if self._process is not None:
            self.proxy.accepting = Accepting.REFUSING
            self._process.kill()
            await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)


class FaultyMesh:
    """Use it with ``async with``. Each call of `fault` makes one thing go wrong."""

    def __init__(self, folder: Path, kind: str, instances: int, rng: random.Random) -> None:
        self.cache: Path = folder / "cache"
        self.instances: list[Instance] = [
            Instance(folder, number, kind) for number in range(instances)
        ]
        self.faults: Counter[str] = Counter()
        self._rng = rng
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn: list[Callable[[], Coroutine[Any, Any, None]]] = []

    async def __aenter__(self) -> FaultyMesh:
        for instance in self.instances:
            await self._stack.enter_async_context(instance.proxy)
            self._stack.push_async_callback(instance.kill)
            await instance.start()
        self.write()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    # -- faults -------------------------------------------------------------------------

    def fault(self) -> None:
        """Begin the next fault: all kinds take turns, in an order of chance. None is waited for."""
        if not self._turn:
            self._turn = [self._kill, self._stop, self._reset, self._cut, self._rewrite]
            self._rng.shuffle(self._turn)
        task = asyncio.create_task(self._turn.pop()())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def heal(self) -> None:
        """Wait until what goes wrong has ended, and put the rest right."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        for instance in self.instances:
            instance.proxy.heal()
            for connection in instance.proxy.connections:  # cuts that have not come to it
                connection.reset()
        self.write()

    def _one(self) -> Instance:
        """One that nothing is done to just now, if there is one."""
        return self._rng.choice(self._free() or self.instances)

    def _free(self) -> list[Instance]:
        return [one for one in self.instances if not one.busy]

    async def _kill(self) -> None:
        instance = self._one()
        if instance.busy:
            return  # all are: enough is going wrong
        self.faults["kill"] += 1
        instance.busy = True
        await instance.kill()
        await instance.start()
        instance.busy = False
        self.write()

    async def _stop(self) -> None:
        instance = self._one()
        if instance.busy:
            return
        self.faults["stop"] += 1
        instance.busy = True
        instance.send(signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.2, LONGEST_STOP))
        instance.send(signal.SIGCONT)
        instance.busy = False

    async def _reset(self) -> None:
        self.faults["reset"] += 1
        self.faults["reset_connections"] += self._one().proxy.reset()

    async def _cut(self) -> None:
        """Every connection somewhere else, this way or that, ended or reset."""
        self.faults["cut"] += 1
        for connection in self._one().proxy.connections:
            pipe = self._rng.choice(
                (connection.to_client, connection.to_client, connection.to_service)
            )
            size = int(10 ** self._rng.uniform(0, 5))
            pipe.cut_after(size, reset=self._rng.random() < 0.5)
            self.faults["cut_connections"] += 1

    # -- the discovery file -------------------------------------------------------------

    def write(self) -> None:
        """Write it as it must be."""
        self._replace(self._content())

    def _content(self, without: Instance | None = None) -> bytes:
        records = [one.record for one in self.instances if one is not without]
        return b"".join(b"\n%%%\n" + record for record in records)

    def _replace(self, content: bytes) -> None:
        made = self.cache.with_suffix(".new")
        made.write_bytes(content)
        made.replace(self.cache)

    async def _rewrite(self) -> None:
        """One of many things that become of such files; after a while it is as it was."""
        what = self._rng.choice(
            (
                self.write,
                self._damaged,
                self._flipped,
                self._truncated,
                self._truncated_in_place,
                self._emptied,
                self._removed,
                self._stale,
                self._without_one,
                self._twice,
            )
        )
        self.faults[f"cache{what.__name__}" if what != self.write else "cache_same"] += 1
        what()
        await asyncio.sleep(self._rng.uniform(0.5, 3.0))
        self.write()

    def _damaged(self) -> None:
        content = bytearray(self._content())
        for _ in range(20):
            content[self._rng.randrange(len(content))] = self._rng.randrange(256)
        self._replace(bytes(content))

    def _flipped(self) -> None:
        """One bit: one record is no longer signed."""
        content = bytearray(self._content())
        content[self._rng.randrange(len(content))] ^= 1
        self._replace(bytes(content))

    def _truncated(self) -> None:
        content = self._content()
        self._replace(content[: self._rng.randrange(len(content))])

    def _truncated_in_place(self) -> None:
        os.truncate(self.cache, self._rng.randrange(1, self.cache.stat().st_size))

    def _emptied(self) -> None:
        self._replace(b"")

    def _removed(self) -> None:
        self.cache.unlink()

    def _stale(self) -> None:
        long_ago = time.time() - 7 * 86_400
        os.utime(self.cache, (long_ago, long_ago))

    def _without_one(self) -> None:
        self._replace(self._content(self._one()))

    def _twice(self) -> None:
        self._replace(self._content() + self._content())
