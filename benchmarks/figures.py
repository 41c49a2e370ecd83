"""What a measurement gives: series of samples, their medians and spread, as a table and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

PACKAGES: Final = ("scamp-gateway", "aiohttp", "uvloop", "orjson", "cryptography")


@dataclass(frozen=True, slots=True)
class Options:
    """What all figures go by. `upstream_cache` names a discovery cache file of services to use in
    place of our own, which offer `action` and echo; its authorized_services may be given too."""

    pairs: int = 5
    seconds: float = 5.0
    clients: int = 64
    generator: str = "auto"
    upstream_cache: Path | None = None
    upstream_authorized: Path | None = None
    action: str = "Bench.echo"


@dataclass(slots=True)
class Series:
    """Samples of one thing, in the order in which they were taken."""

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    digits: int = 1

    @property
    def median(self) -> float:
        return median(self.samples)

    def row(self) -> tuple[str, ...]:
        numbers = (self.median, min(self.samples), max(self.samples))
        return (self.name, *(f"{number:.{self.digits}f}" for number in numbers), self.unit)

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "lowest": min(self.samples),
            "highest": max(self.samples),
            "samples": self.samples,
        }


@dataclass(slots=True)
class Figure:
    """One thing that was measured, with what was measured beside it."""

    name: str
    about: str
    series: list[Series]
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        rows = [("", "median", "lowest", "highest", "unit"), *(s.row() for s in self.series)]
        lines = [f"{self.name}: {self.about}", "", *columns(rows)]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "about": self.about,
            "series": [series.facts() for series in self.series],
            "notes": self.notes,
        }


def ratios(name: str, ours: Series, beside: Series) -> Series:
    """Sample by sample, since what was measured next to each other met the same machine."""
    pairs = zip(ours.samples, beside.samples, strict=True)
    return Series(name, "x", [one / other for one, other in pairs], digits=2)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned columns: the first and the last to the left, numbers to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def environment() -> dict[str, Any]:
    """Where, when and with what: without it a figure cannot be compared with another."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
    }
