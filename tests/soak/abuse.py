"""One attacker after the other against a real gateway, and honest clients beside it all the time.

What has to hold: every honest call is answered, and rightly; memory and descriptors of the gateway
stay below what docs/limits.md promises; in the end nothing is left of any of it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import psutil

from benchmarks import mesh
from benchmarks.processes import Process, module, started
from soaking import Options, Outcome

MEMORY_CAP: Final = 512
"""MiB of resident memory, the promise of docs/limits.md for the usual limits."""

CLIENTS: Final = 8


@dataclass(frozen=True, slots=True)
class Attack:
    """One order to the attacker: in full, and where time is short."""

    name: str
    number: int
    seconds: float
    short_number: int
    short_seconds: float


ATTACKS: Final = (
    Attack("slowloris", 4_000, 60, 200, 2),
    Attack("slow_body", 2_000, 90, 200, 2),
    Attack("huge_headers", 10_000, 0, 200, 0),
    Attack("one_address", 10_000, 5, 1_500, 0.5),
    Attack("connections", 12_000, 20, 1_500, 0.5),
    Attack("distinct", 1_000_000, 0, 8_000, 0),
)

HASTE: Final = (
    *("--header-timeout", "1", "--body-idle-timeout", "1", "--max-connections", "1000"),
    *("--max-connections-per-address", "600", "--upstream-idle-timeout", "2"),
)
"""Settings with which the limits are met within the time of a test."""


class Honest:
    """Clients that keep calling, each with a connection that it keeps or a new one every time."""

    def __init__(self, gateway: mesh.Gateway) -> None:
        self._gateway = gateway
        self._tasks: list[asyncio.Task[None]] = []
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0

    def start(self) -> None:
        for number in range(CLIENTS):
            self._tasks.append(asyncio.create_task(self._call(number, stay=number % 4 != 0)))

    async def more_than(self, before: int) -> None:
        """Return once so many calls were answered, or one was not."""
        await _until(lambda: self.counts["honest"] > before or bool(self.wrong))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.wrong.append(f"an honest client failed: {result!r}")

    async def _call(self, number: int, *, stay: bool) -> None:
        connector = aiohttp.TCPConnector(limit=1, force_close=not stay)
        headers = {"Content-Type": "application/json", **dict([self._gateway.authorization])}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
            for turn in range(1 << 30):
                body = json.dumps({"client": number, "turn": turn, "fill": "x" * (turn % 999)})
                began = time.monotonic()
                await self._ask(http, body)
                self.slowest = max(self.slowest, time.monotonic() - began)
                await asyncio.sleep(0.02)

    async def _ask(self, http: aiohttp.ClientSession, body: str) -> None:
        for _ in range(20):
            try:
                async with http.post(f"{self._gateway.url}/api/Bench.echo", data=body) as answer:
                    text = await answer.text()
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                self.counts["reconnected"] += 1  # idle, and closed as the request went out
                continue
            except aiohttp.ClientError as exc:
                self.wrong.append(f"an honest call failed: {exc!r}")
                return
            if answer.status == 503 and json.loads(text)["code"] == "too_many_connections":
                self.counts["told_to_wait"] += 1
                await asyncio.sleep(float(answer.headers["Retry-After"]))
                continue
            if answer.status == 200 and text == body:
                self.counts["honest"] += 1
            else:
                self.wrong.append(f"an honest call was answered {answer.status} {text[:200]}")
            return
        self.wrong.append("an honest call found no way in")


class Watch:
    """The greatest that memory (MiB) and descriptors of a process came to."""

    def __init__(self, process: Process) -> None:
        self._process = psutil.Process(process.popen.pid)
        self.memory = self.descriptors = 0

    def look(self) -> tuple[int, int]:
        memory = self._process.memory_info().rss >> 20
        descriptors = self._process.num_fds()
        self.memory = max(self.memory, memory)
        self.descriptors = max(self.descriptors, descriptors)
        return memory, descriptors

    async def keep_looking(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.05)


@contextmanager
def attacker(options: Options, gateway: mesh.Gateway) -> Iterator[Callable[[Attack], Counter[str]]]:
    """The attacker's process; what is given gives it an order, and blocks until that is done."""
    command = module("tests.soak.attacker", gateway.url, gateway.ticket)
    with started(command, options.folder / "attacker.log") as process:
        stdin, stdout = process.popen.stdin, process.popen.stdout
        assert stdin is not None
        assert stdout is not None

        def order(attack: Attack) -> Counter[str]:
            number = attack.number if options.full else attack.short_number
            seconds = attack.seconds if options.full else attack.short_seconds
            stdin.write(f"{attack.name} {number} {seconds}\n".encode())
            stdin.flush()
            return Counter(json.loads(stdout.readline()))

        yield order


async def abuse(options: Options) -> Outcome:
    """The scenario; in full some ten minutes, whatever `minutes` says."""
    random.seed(options.seed)
    outcome = Outcome()
    arguments = () if options.full else HASTE
    with mesh.gateway(options.folder, arguments=arguments) as gateway:
        honest, watch = Honest(gateway), Watch(gateway.process)
        honest.start()
        await honest.more_than(50)
        outcome.counts["memory_before"], descriptors = watch.look()
        looking = asyncio.create_task(watch.keep_looking())
        try:
            with attacker(options, gateway) as order:
                for attack in ATTACKS:
                    before = honest.counts["honest"]
                    told = await asyncio.to_thread(order, attack)
                    await honest.more_than(before)
                    _note(outcome, attack, told)
                    outcome.counts[f"{attack.name}_memory"] = watch.look()[0]
            # After a crowd the requests of the honest may each have a connection to the service.
            await _until(lambda: watch.look()[1] <= descriptors + CLIENTS + 4)
        finally:
            looking.cancel()
            await honest.stop()
        outcome.counts.update(honest.counts)
        outcome.counts["slowest_ms"] = round(honest.slowest * 1000)
        outcome.counts["memory_peak"] = watch.memory
        outcome.counts["descriptors_peak"] = watch.descriptors
        outcome.counts["descriptors_after"] = watch.look()[1] - descriptors
    errors = (options.folder / "gateway.log").read_text().count('"level": "ERROR"')
    outcome.require(not errors, f"the gateway logged {errors} errors")
    outcome.wrong += honest.wrong[:20]
    outcome.require(watch.memory <= MEMORY_CAP, f"memory came to {watch.memory} MiB")
    return outcome


def _note(outcome: Outcome, attack: Attack, told: Counter[str]) -> None:
    for what, count in sorted(told.items()):
        outcome.counts[f"{attack.name}_{what}"] = count
    expected = {"slowloris": "408", "slow_body": "408", "huge_headers": "431", "one_address": "503"}
    if attack.name in expected:
        status = expected[attack.name]
        outcome.require(told[status] > 0, f"{attack.name}: nobody was told {status}")
    outcome.require(told["200"] == 0, f"{attack.name}: {told['200']} were served")


async def _until(held: Callable[[], bool], timeout: float = 120.0) -> None:
    """`timeout` is more than any connection may be idle."""
    async with asyncio.timeout(timeout):
        while not held():  # noqa: ASYNC110 - other processes have no event for us
            await asyncio.sleep(0.02)
