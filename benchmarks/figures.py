"""What a measurement gives: series of samples, their medians and spread, as rows and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from scamp.limits import MIB, TICKET_CACHE


@dataclass(frozen=True, slots=True)
class Options:
    """What all figures go by. `upstream_cache` names a discovery cache file of services to use in
    place of our own, which offer `action` and echo; its authorized_services may be given too."""

    pairs: int = 5
    seconds: float = 4.0
    clients: int = 64
    generator: str = "auto"
    upstream_cache: Path | None = None
    upstream_authorized: Path | None = None
    action: str = "Bench.echo"
    crowd: int = 2000
    """Connections, where there are many."""
    size: int = 1024 * MIB
    """Bytes of a body that streams."""
    tickets: int = TICKET_CACHE + 2000
    """That are used in turn: when one's turn comes again, the gateway has forgotten it."""
    announced: int = 50
    """Services in the cache of a gateway that starts."""
    meshes: tuple[int, ...] = (50, 500, 5000)
    """Services in discovery cache files."""
    rates: tuple[int, ...] = (500, 1000)
    """Requests a second."""
    paced: float = 10.0
    """Seconds of each run at such a rate. There are `PACED_ROUNDS`, one when `pairs` is 1."""


QUICK: Final[dict[str, Any]] = {
    "pairs": 1,
    "seconds": 0.2,
    "clients": 8,
    "generator": "python",
    "crowd": 50,
    "size": 4 * MIB,
    "tickets": 100,
    "announced": 5,
    "meshes": (3, 6),
    "rates": (100,),
    "paced": 0.3,
}
"""Options with which every figure is made once, and says nothing. wrk has no run below a second."""


@dataclass(slots=True)
class Series:
    """Samples of one thing on one side, in the order in which they were taken.

    Series of the same name stand in one row, a column for each `side`.
    """

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    digits: int = 1
    side: str = ""

    @property
    def median(self) -> float:
        return median(self.samples)

    def cell(self) -> str:
        """Median, and in brackets the lowest and the highest sample if there are several."""
        middle, low, high = (
            f"{number:,.{self.digits}f}"
            for number in (self.median, min(self.samples), max(self.samples))
        )
        return middle if len(self.samples) == 1 else f"{middle} ({low} to {high})"

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "side": self.side,
            "unit": self.unit,
            "median": self.median,
            "lowest": min(self.samples),
            "highest": max(self.samples),
            "samples": self.samples,
            "digits": self.digits,
        }


@dataclass(slots=True)
class Figure:
    """One thing that was measured, with what was measured beside it."""

    name: str
    about: str
    series: list[Series]
    notes: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each name, a column for each side, in the order in which they first come."""
        sides = _each(series.side for series in self.series)
        found = {(series.name, series.unit): dict.fromkeys(sides, "") for series in self.series}
        for series in self.series:
            found[series.name, series.unit][series.side] = series.cell()
        heads = sides if sides != [""] else ["median (lowest to highest)"]
        body = [(name, *cells.values(), unit) for (name, unit), cells in found.items()]
        return [("", *heads, "unit"), *body]

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "about": self.about,
            "series": [series.facts() for series in self.series],
            "notes": self.notes,
        }


def read_figure(facts: dict[str, Any]) -> Figure:
    """The figure of which these are the facts."""
    kept = ("name", "unit", "samples", "digits", "side")
    series = [Series(**{name: one[name] for name in kept}) for one in facts["series"]]
    return Figure(facts["name"], facts["about"], series, facts["notes"])


def ratios(name: str, ours: Series, beside: Series) -> Series:
    """Sample by sample, since what was measured next to each other met the same machine."""
    pairs = zip(ours.samples, beside.samples, strict=True)
    quotients = [one / other for one, other in pairs]
    return Series(name, "x", quotients, digits=2, side=ours.side)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of `ordered` numbers that at least this share of them does not exceed."""
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


def _each(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
