"""What it costs to load and to follow a discovery cache file, and how the event loop fares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.announced import ACTIONS, INSTANCES, KEYS, AnnouncedMesh
from benchmarks.figures import Figure, Options, Series, ratios
from benchmarks.processes import Process, module, started
from benchmarks.stand import stand
from scamp.limits import MIB

LEAST: Final = "orjson and cryptography in a loop: CPU"

ABOUT_FILES: Final = (
    f"Services have {ACTIONS} actions of their own each. {INSTANCES} share a certificate, and all "
    f"certificates are of {KEYS} keys, because thousands of keys take minutes to make."
)
ABOUT_STALLS: Final = (
    "`longest stall` is how late the latest of timers was that are due every millisecond, without "
    "the time for which another process had the core. `least` is what anyone must do who reads the "
    "file: parse all JSON, check all signatures."
)


@dataclass(slots=True)
class _Size:
    """One size of mesh, and what was measured of it, by row."""

    mesh: AnnouncedMesh
    rows: dict[str, Series] = field(default_factory=dict)
    signed: tuple[bytes, ...] = ()

    def steps(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        """What is told to the follower, one after another, and what becomes of the file before."""
        mesh, middle = self.mesh, len(self.mesh) // 2
        yield "first load", "load", mesh.begin
        yield "unchanged, touched", "look", mesh.touch
        yield "unchanged, written anew", "look", mesh.write
        yield "one record renewed", "look", lambda: mesh.renew(middle)
        yield "one record changed", "look", lambda: mesh.change(middle)
        yield "all records renewed", "look", self._renew_all

    def note(self, name: str, value: float, unit: str = "ms", digits: int = 1) -> None:
        empty = Series(name, unit, digits=digits, side=f"{len(self.mesh):,} services")
        self.rows.setdefault(name, empty).samples.append(value)

    def _renew_all(self) -> None:
        self.signed = self.mesh.renew_all(self.signed)


def measure(options: Options) -> Figure:
    """Each step in two processes: one tells what it costs, the other how it stalls the loop."""
    with stand(options) as here:
        sizes = [_Size(AnnouncedMesh(services, here.folder)) for services in options.meshes]
        for _ in range(options.pairs):
            for size in sizes:
                _measure(size, here.folder)
    series = [one for size in sizes for one in _with_ratios(size.rows)]
    return Figure(
        "cache", "Discovery cache files of several sizes", series, [ABOUT_FILES, ABOUT_STALLS]
    )


def _measure(size: _Size, folder: Path) -> None:
    mesh = size.mesh
    follower = module("benchmarks.following", mesh.cache, mesh.authorized)
    with (
        started(follower, folder / "cost.log") as cost,
        started([*follower, "--ticks"], folder / "stall.log") as stall,
    ):
        empty = cost.resident()
        for name, line, change in size.steps():
            change()
            cpu, told = _asked(cost, line)
            size.note(f"{name}: CPU", cpu * 1e3)
            size.note(f"{name}: of it on the event loop", told["loop"] * 1e3, digits=2)
            size.note(f"{name}: until it is in force", told["wall"] * 1e3)
            _, told = _asked(stall, line)
            size.note(f"{name}: longest stall", told["stall"] * 1e3)
            if (told["services"], told["refused"]) != (len(mesh), 0):
                raise RuntimeError(f"{name}: {told} of {len(mesh)} services")
            if line == "load":
                size.note("memory that the index takes", (cost.resident() - empty) / MIB, "MiB")
        _, told = _asked(cost, "find")
        size.note("lookup of an action, the first", told["first"] * 1e9, "ns", 0)
        size.note("lookup of an action, again", told["again"] * 1e9, "ns", 0)
        cpu, _ = _asked(stall, "least")
        size.note(LEAST, cpu * 1e3)


def _asked(process: Process, line: str) -> tuple[float, dict[str, Any]]:
    before = process.cpu()
    told = json.loads(process.ask(line))
    return process.cpu() - before, told


def _with_ratios(rows: dict[str, Series]) -> Iterator[Series]:
    """The rows, and how often the least fits into what has every signature to check."""
    yield from rows.values()
    for name in ("first load", "all records renewed"):
        yield ratios(f"{name}: times the least", rows[f"{name}: CPU"], rows[LEAST])
