"""Clients of a gateway while things go wrong behind it, and what each answer has to be."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

from gateway.catalogue import CATALOGUE
from scamp.limits import KIB, MAX_INFLIGHT, MIB
from tests.soak.faulty_service import answer_to, make_body

PATIENCE: Final = 60.0
"""Seconds in which every request must have ended in some way: twice what its action may take."""

NEVER_SENT: Final = frozenset(
    ("connect_failed", "connect_timeout", "no_usable_instance", "queue_timeout", "saturated")
)
MAYBE_SENT: Final = frozenset(("connection_lost", "reply_timeout", "upstream_stalled"))
"""Codes of failures that the contract names for these faults."""

MAX_TOLD: Final = 10
"""Sentences of one kind; the rest is counted."""


@dataclass(slots=True)
class Tally:
    """What became of all requests."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    """Writes that were answered as executed."""
    not_sent: set[str] = field(default_factory=set)
    """Writes that were answered as never sent."""

    def blame(self, what: str, sentence: str) -> None:
        """Something that must not be."""
        self.counts[what] += 1
        if self.counts[what] <= MAX_TOLD:
            self.wrong.append(f"{what}: {sentence}")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `size` of its body and `reply` in bytes."""

    name: str
    read: bool
    size: int
    reply: int

    @property
    def safe(self) -> bool:
        """It may not fail whatever happens, but for a cut of a reply that has begun to go out."""
        return self.read and self.size <= MAX_INFLIGHT

    @property
    def kind(self) -> str:
        """For the counts."""
        if not self.safe:
            return "read_large" if self.read else "write"
        return "read" if self.reply <= MAX_INFLIGHT else "read_long"

    def __str__(self) -> str:
        kind = "read" if self.read else "write"
        return f"{kind} {self.name} of {self.size} bytes for {self.reply}"


def size_by_chance(rng: random.Random) -> int:
    """Mostly small, up to 1 MiB."""
    largest = rng.choice((2 * KIB,) * 6 + (MAX_INFLIGHT,) * 2 + (MIB,) * 2)
    return rng.randrange(64, largest)


class Clients:
    """`number` of them, each sending its next request when it knows what became of the last."""

    def __init__(self, url: str, headers: dict[str, str], number: int, rng: random.Random) -> None:
        self.tally = Tally()
        self.stopping = False
        self._url = url
        self._headers = headers
        self._number = number
        self._rng = rng
        self._ids = itertools.count()

    async def run(self) -> None:
        """Until `stopping`, and every request has ended."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(
                timeout=timeout,
                connector=connector,
                headers={**self._headers, "Content-Type": "application/json"},
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(self._number):
                group.create_task(self._client(session))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self.stopping:
            await self._ask(session, self._next())

    def _next(self) -> Asked:
        rng = self._rng
        name = f"{next(self._ids):08d}"
        return Asked(name, rng.random() < 0.6, size_by_chance(rng), size_by_chance(rng))

    async def _ask(self, session: aiohttp.ClientSession, asked: Asked) -> None:
        tally = self.tally
        tally.counts["requests"] += 1
        body = make_body(asked.name, asked.size, asked.reply)
        action = "Soak.read" if asked.read else "Soak.write"
        status, got = 0, b""
        try:
            async with session.post(f"{self._url}/api/{action}", data=body) as response:
                status = response.status
                got = await response.read()
        except TimeoutError:
            tally.blame("hung", f"{asked} had no end within {PATIENCE:g} s (status {status})")
        except aiohttp.ClientError as exc:
            self._was_cut(asked, status, exc)
        else:
            if status == 200:
                self._answered(asked, body, got)
            else:
                self._failed(asked, status, got)

    def _answered(self, asked: Asked, body: bytes, got: bytes) -> None:
        expected = answer_to(body)
        if got == expected:
            self.tally.counts[f"ok_{asked.kind}"] += 1
            if not asked.read:
                self.tally.done.add(asked.name)
        elif expected.startswith(got):
            self.tally.blame("truncated", f"{asked} got {len(got)} bytes that looked whole")
        else:
            self.tally.blame("wrong", f"{asked} got something else: {got[:40]!r}")

    def _was_cut(self, asked: Asked, status: int, exc: Exception) -> None:
        """The connection ended before the answer did."""
        if status != 200:
            self.tally.blame("unanswered", f"{asked}: {exc!r} (status {status})")
        elif asked.safe and asked.reply <= MAX_INFLIGHT:
            self.tally.blame("failed_reads", f"{asked} was cut: {exc!r}")
        else:
            self.tally.counts[f"cut_{asked.kind}"] += 1

    def _failed(self, asked: Asked, status: int, got: bytes) -> None:
        problem: dict[str, Any] = orjson.loads(got)
        code = problem["code"]
        if asked.safe:
            self.tally.blame("failed_reads", f"{asked}: {problem}")
        elif code not in NEVER_SENT | MAYBE_SENT or CATALOGUE[code].status != status:
            self.tally.blame("unnamed", f"{asked}: {status} {problem}")
        else:
            self.tally.counts[f"{asked.kind}_{code}"] += 1
            if not asked.read and code in NEVER_SENT:
                self.tally.not_sent.add(asked.name)
