"""One worker among several: what it tells the others of itself, and what it tells of all of them.

They ask each other over Unix sockets in a directory that nobody else can enter: one word, and an
answer in JSON. Whichever worker takes a request on the admin listener asks the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, Literal, Protocol, cast, get_args

import orjson
from prometheus_client import Metric, ProcessCollector

from gateway.access_log import AccessLog
from gateway.admin import Check, State
from gateway.console.console import Console
from gateway.console.overview import Mesh
from gateway.console.reading import Part
from gateway.exposition import counters, gauges, rendered, unhurried
from gateway.settings import Settings
from gateway.sources import Loaded, configuration
from gateway.workers.ledger import Ledger
from gateway.workers.merge import Packed, merged, metrics, packed, without
from gateway.workers.overall import Overall, checks_of
from scamp.discovery import DiscoveryStatus, Registry

log = logging.getLogger("gateway.workers")

ANSWER_LIMIT: Final = 3.0
"""Seconds in which another worker has to answer. Scrapers and probes wait for little more."""

MAX_ANSWER: Final = 256 << 20
"""Bytes of an answer: the counters of the greatest number of actions are a tenth of it."""

WRITE_INTERVAL: Final = 5.0
"""Least seconds between two looks at what was counted, for the case that we die."""

WRITE_SHARE: Final = 50
"""It is written so seldom that it takes no more than one part in this many of our time."""

_START: Final = "process_start_time_seconds"

Question = Literal["metrics", "state", "overview"]


class OwnState(State, Protocol):
    """What a worker knows of itself."""

    replaced: bool
    """Another gateway answers for all of us."""

    async def families(self) -> list[Metric]:
        """All that is counted."""
        ...

    async def part(self) -> Part:
        """What this worker gives to ``/overview``."""
        ...

    def mesh(self) -> Mesh:
        """The index and where it comes from."""
        ...

    def about(self) -> dict[str, Any]:
        """What ``/overview`` has of the gateway besides what is counted."""
        ...


class Team:
    """For worker `number` (from 1) of `count`. `loaded` are the settings as they were given."""

    def __init__(
        self, loaded: Loaded, ledger: Ledger, *, number: int, count: int, birth: int
    ) -> None:
        self.loaded = loaded
        self.number = number
        self.count = count
        self.ledger = ledger
        self._birth = birth
        self._own: OwnState | None = None
        self._server: asyncio.Server | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._failing = False

    def access_log(self, settings: Settings) -> AccessLog:
        """One whose lines do not mix with those of the others."""
        lock = self.ledger.directory / "access-log.lock"
        return AccessLog.configured(settings, worker=self.number, lock=lock)

    def state_of_all(self, own: OwnState) -> State:
        """What admin pages show: of all workers, as `own` shows it of this one."""
        self._own = own
        return StateOfAll(self, own)

    async def start(self) -> None:
        """Answer the others from now on, and write down what is counted."""
        self._server = await asyncio.start_unix_server(self._answer, self._path(self.number))
        self._keeper = asyncio.create_task(self._keep(), name="gateway ledger")

    async def close(self) -> None:
        """Write what was counted in the end. May be called though `start` was not."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            await self.counted()
        if self._server is not None:
            self._server.close()

    def _path(self, number: int) -> str:
        return str(self.ledger.directory / f"{number}.sock")

    async def _keep(self) -> None:
        while True:
            began = time.monotonic()
            await self.counted()
            took = time.monotonic() - began
            await asyncio.sleep(max(WRITE_INTERVAL, took * WRITE_SHARE))

    async def counted(self) -> list[Packed]:
        """What this worker has counted. It is in the ledger before anybody sees it: what was told
        once is not taken back, unless it could not be written and we die."""
        assert self._own is not None  # noqa: S101 - `state_of_all` comes first
        async with self._writing:
            families = await self._own.families()
            return await asyncio.to_thread(self._written, families)

    def _written(self, families: list[Metric]) -> list[Packed]:
        told = packed(unhurried(families))
        try:
            self.ledger.write(self._birth, told)
        except OSError as exc:
            if not self._failing:
                log.warning("what was counted cannot be written: %s", exc)
            self._failing = True
        else:
            self._failing = False
        return told

    # -- being asked --------------------------------------------------------------------

    async def told(self, question: Question) -> Any:
        """What this worker answers to the others, itself among them."""
        assert self._own is not None  # noqa: S101 - `state_of_all` comes first
        if question == "metrics":
            return {"birth": self._birth, "families": await self.counted()}
        checks = [asdict(one) for one in await self._own.checks()]
        if question == "overview":
            return {"birth": self._birth, "part": await self._own.part(), "checks": checks}
        return {
            "checks": checks,
            "connections": await self._own.connections(),
            "under_way": await self._own.under_way(),
        }

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = (await reader.readline()).strip().decode("ascii", "replace")
            if question in get_args(Question):
                async with asyncio.timeout(ANSWER_LIMIT):  # nobody waits any longer
                    told = await self.told(cast(Question, question))
                    writer.write(await asyncio.to_thread(orjson.dumps, told))
                    await writer.drain()
        except OSError as exc:
            log.warning("another worker got no answer: %s", exc)
        finally:
            writer.close()

    # -- asking -------------------------------------------------------------------------

    async def ask(self, question: Question, limit: float | None = None) -> dict[int, Any]:
        """The answers of all workers by number; of those that gave none within `limit` seconds
        (ANSWER_LIMIT), None. Cancelling is safe."""
        numbers = range(1, self.count + 1)
        limit = ANSWER_LIMIT if limit is None else limit
        answers = await asyncio.gather(*(self._ask(number, question, limit) for number in numbers))
        return dict(zip(numbers, answers, strict=True))

    async def _ask(self, number: int, question: Question, limit: float) -> Any:
        try:
            async with asyncio.timeout(limit):
                if number == self.number:
                    return await self.told(question)
                return await self._asked(number, question)
        except (OSError, ValueError):  # also that the time is over, and half an answer
            return None

    async def _asked(self, number: int, question: Question) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._path(number), limit=1 << 20)
        try:
            writer.write(question.encode() + b"\n")
            answer = bytearray()
            while piece := await reader.read(1 << 20):
                answer += piece
                if len(answer) > MAX_ANSWER:
                    raise ValueError("an answer without an end")
            return await asyncio.to_thread(orjson.loads, answer)
        finally:
            writer.close()


class StateOfAll:
    """The `admin.State` of a gateway with several workers.

    The index is the same for all, so that this one's stands for it.
    """

    def __init__(self, team: Team, own: OwnState) -> None:
        self._team = team
        self._own = own
        self.registry: Registry = own.registry
        self._console = Console(Overall(team).gather, own.mesh, own.about)

    def discovery(self) -> DiscoveryStatus:
        """This worker's latest snapshot."""
        return self._own.discovery()

    def configuration(self) -> Mapping[str, Any]:
        """The settings as they were given, and not what is this worker's share of them."""
        return configuration(self._team.loaded)

    def exposed(self, sector: str) -> bool:
        """Whether actions of the sector are reachable over HTTP."""
        return self._own.exposed(sector)

    async def under_way(self) -> int:
        """Public requests under way in all workers."""
        answers = await self._team.ask("state")
        return sum(answer["under_way"] for answer in answers.values() if answer)

    async def connections(self) -> list[dict[str, Any]]:
        """Every instance that requests have gone to, once for each worker from which they did."""
        answers = await self._team.ask("state")
        return [
            {"worker": number, **one}
            for number, answer in answers.items()
            if answer
            for one in answer["connections"]
        ]

    async def checks(self) -> list[Check]:
        """Each condition is good when it is with every worker, and all of them must answer, unless
        another gateway does."""
        answers = await self._team.ask("state")
        if self._own.replaced:
            return await self._own.checks()
        return checks_of(answers)

    async def overview(self, wanted: str) -> dict[str, Any]:
        """As `Overview.compose`, of all workers."""
        return await self._console.overview(wanted)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """One exposition for all workers, those that are gone included."""
        answers = await self._team.ask("metrics")
        return await asyncio.to_thread(self._exposition, answers, accept)

    def _exposition(self, answers: dict[int, Any], accept: str) -> tuple[bytes, str]:
        parts = {one["birth"]: one["families"] for one in answers.values() if one}
        # Of one that has just died or does not answer, what it wrote last.
        parts = {**self._team.ledger.living(), **parts}
        dead = self._team.ledger.dead()
        alive = [families for birth, families in parts.items() if birth not in dead.births]
        gone = without(dead.families, self._gone())
        families = metrics(merged([*alive, gone]))
        families = [_of_master(one) if one.name == _START else one for one in families]
        answering = sum(bool(one) for one in answers.values())
        families += [
            gauges("workers", {"answering": answering, "silent": len(answers) - answering}),
            counters("worker_ends", dead.ends),
        ]
        return rendered(families, accept)

    def _gone(self) -> Callable[[str], bool]:
        """Tells of an action's label that nobody announces it now."""
        find = self.registry.find

        def gone(label: str) -> bool:
            name, _, version = label.rpartition("~")
            if not version.isdigit():
                return False  # no action, or one of the labels that stand for others
            sector, _, action = name.rpartition(":")
            return not find(sector or "main", action, int(version))

        return gone


def _of_master(worker: Metric) -> Metric:
    """When the gateway was started: that a worker is replaced is no restart of it."""
    ours = ProcessCollector(pid=os.getppid, registry=None).collect()
    return next((one for one in ours if one.name == _START), worker)
