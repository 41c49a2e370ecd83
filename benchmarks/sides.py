"""The frame of every figure: sides that take turns, and what each of them used.

What counts is what the operating system says of a side's process and its children, between the
start and the end of a run. The side that comes first changes from round to round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from benchmarks.figures import Series, ratios
from benchmarks.load import Outcome
from benchmarks.processes import Process

WARM_UP: Final = 1.0
"""Seconds of load before the first sample: connections, caches, the ticket's first check."""

T = TypeVar("T")


class ClientLoad(Protocol):
    """A generator that is aimed at one target."""

    name: str

    def run(self, seconds: float) -> Outcome:
        """Load the target for `seconds`, and say how it went when the last answer is here."""


def turns(sides: Sequence[T], rounds: int) -> Iterator[T]:
    """Each side once in a round, another one first each time."""
    for number in range(rounds):
        first = number % len(sides)
        yield from (*sides[first:], *sides[:first])


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: what was answered, and seconds of CPU that the side and what is behind it used."""

    requests: int
    seconds: float
    cpu: float
    user: float
    system: float
    behind: float


@dataclass(slots=True)
class Side:
    """A server under load. The CPU of the processes `behind` it is told, and not counted."""

    name: str
    process: Process
    load: ClientLoad
    behind: tuple[Process, ...] = ()
    samples: list[Sample] = field(default_factory=list)

    def run(self, seconds: float) -> Sample:
        """Raises RuntimeError if one request failed: what failed may have been cheap."""
        before, behind = self._used(), self._behind()
        outcome = self.load.run(seconds)
        if outcome.failures or not outcome.requests:
            raise RuntimeError(f"{self.name}: {outcome.failures} of {outcome.requests} failed")
        cpu, user, system = (a - b for a, b in zip(self._used(), before, strict=True))
        behind = self._behind() - behind
        return Sample(outcome.requests, outcome.seconds, cpu, user, system, behind)

    def series(
        self, name: str, unit: str, of: Callable[[Sample], float], digits: int = 1
    ) -> Series:
        return Series(name, unit, [of(one) for one in self.samples], digits, self.name)

    def _used(self) -> tuple[float, float, float]:
        return self.process.cpu(), *self.process.times()

    def _behind(self) -> float:
        return sum(process.cpu() for process in self.behind)


def measured(sides: Sequence[Side], rounds: int, seconds: float) -> None:
    """Warm all of them up, then take a sample of each in every round."""
    for side in sides:
        side.run(min(WARM_UP, seconds))
    for side in turns(sides, rounds):
        side.samples.append(side.run(seconds))


def how(side: Side, clients: int, rounds: int, seconds: float) -> str:
    """Under which load that was, for the line above a table."""
    runs = "1 run" if rounds == 1 else f"{rounds} runs"
    return f"{clients:,} keep-alive clients, {runs} of {seconds:g} s, load from {side.load.name}"


def cpu(sides: Sequence[Side], case: str = "") -> list[Series]:
    """What each side used for a request."""
    return [
        side.series(f"{case}CPU per request", "µs", lambda one: one.cpu / one.requests * 1e6)
        for side in sides
    ]


def times(ours: Series, *others: Series, case: str = "") -> list[Series]:
    """Ours as a multiple of each of the others."""
    return [ratios(f"{case}times {other.side}", ours, other) for other in others]


def parts(sides: Sequence[Side]) -> list[Series]:
    """Of what the CPU of each side is made up, what is used behind it, and how fast it went."""
    rows: list[Series] = []
    for side in sides:
        rows += [
            side.series("of it user", "µs", lambda one: one.user / one.requests * 1e6),
            side.series("of it system", "µs", lambda one: one.system / one.requests * 1e6),
        ]
    rows += [
        side.series("CPU of what is behind", "µs", lambda one: one.behind / one.requests * 1e6)
        for side in sides
        if side.behind
    ]
    return [*rows, *rates(sides)]


def rates(sides: Sequence[Side]) -> list[Series]:
    """How many requests were answered in a second. Says as much of the load as of the sides."""
    return [
        side.series("requests", "1/s", lambda one: one.requests / one.seconds, 0) for side in sides
    ]
