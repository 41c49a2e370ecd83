"""Workers that are killed again and again under load, and what is seen of it from outside.

Of the requests only those break that a killed worker had on its connections; those that wait for it
are answered by its successor; and no counter goes back, whoever tells it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

import aiohttp

from crew import Crew, crew
from soaking import Options, Outcome
from stand import stand

CLIENTS: Final = 12
KILLS_PER_MINUTE: Final = 30
SHORT: Final = 3
"""Kills at the size of the tests."""

_COUNTERS: Final = ("_total", "_bucket", "_count", "_sum")


async def scenario(options: Options) -> Outcome:
    """Three workers, one of which is killed every 2 s or as soon as all serve again."""
    outcome = Outcome()
    kills = round(options.minutes * KILLS_PER_MINUTE) if options.full else SHORT
    async with stand(options.folder) as mesh, crew(mesh, "--workers", "3") as gateway:
        load = Load(gateway, outcome)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
            jobs = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]
            jobs += [asyncio.create_task(load.scraper()) for _ in range(2)]
            try:
                await _kill(gateway, http, load, kills, random.Random(options.seed))  # noqa: S311
            finally:
                load.stop.set()
                await asyncio.gather(*jobs)
            samples = await gateway.metrics(http)
        ends = samples['scamp_gateway_worker_ends_total{cause="died"}']
        outcome.require(ends == kills, f"{kills} workers were killed, {ends:g} are told")
        broken = outcome.counts["broken"]
        outcome.require(broken <= kills * CLIENTS, f"{broken} requests broke for {kills} workers")
        outcome.require(len(gateway.workers()) == 3, "not all workers were replaced")
    return outcome


async def _kill(
    gateway: Crew, http: aiohttp.ClientSession, load: Load, kills: int, chance: random.Random
) -> None:
    for _ in range(kills):
        await load.answered(30)
        chance.choice(gateway.workers()).kill()
        load.counts["kills"] += 1
        await load.answered(30)
        await gateway.all_ready(http)


class Load:
    """Clients, half of them with a connection for each request, and those who watch."""

    def __init__(self, gateway: Crew, outcome: Outcome) -> None:
        self.stop = asyncio.Event()
        self.counts: Counter[str] = outcome.counts
        self._gateway = gateway
        self._outcome = outcome
        self._more = asyncio.Condition()

    async def answered(self, number: int) -> None:
        """Wait for so many answers from now on."""
        enough = self.counts["answered"] + number
        async with self._more:
            await self._more.wait_for(lambda: self.counts["answered"] >= enough)

    async def client(self, number: int) -> None:
        """Ask until told to stop. What has no answer is broken or, when nobody took it, wrong."""
        connector = aiohttp.TCPConnector(force_close=number % 2 == 0)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            while not self.stop.is_set():
                try:
                    async with http.get(f"{self._gateway.public}/api/Test.Gate.open") as answer:
                        right = answer.status == 200 and await answer.json() == {"open": True}
                except aiohttp.ClientConnectorError as exc:
                    self._outcome.require(False, f"nobody listened: {exc}")
                except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                    self.counts["broken"] += 1
                except TimeoutError:
                    self._outcome.require(False, "a request was never answered")
                else:
                    self._outcome.require(right, f"wrong answer: {answer.status}")
                    async with self._more:
                        self.counts["answered"] += 1
                        self._more.notify_all()

    async def scraper(self) -> None:
        """Look at the metrics until told to stop."""
        last: dict[str, float] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
            while not self.stop.is_set():
                try:
                    now = await self._gateway.metrics(http)
                except aiohttp.ClientError:
                    continue  # it was the killed one that we had asked
                self.counts["scrapes"] += 1
                for name, value in last.items():
                    if name.partition("{")[0].endswith(_COUNTERS) and now.get(name, -1) < value:
                        self._outcome.require(False, f"{name} went from {value} to {now.get(name)}")
                last = now
