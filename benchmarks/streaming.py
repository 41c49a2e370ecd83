"""Large bodies up and down: how fast, for how much CPU, and how much memory they move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from benchmarks.figures import Figure, Options, Series
from benchmarks.memory import LIMIT, Moved, checksum
from benchmarks.memory import measure as move
from benchmarks.processes import Serving
from benchmarks.sides import times, turns
from benchmarks.stand import WITHOUT_NGINX, stand
from scamp.limits import MIB

MOVES: Final = {"up": "upload", "down": "download"}
ROUNDS: Final = 3
"""At most: each body is large."""

MEGABYTE: Final = 1_000_000
FAST: Final = 150
PER_CORE: Final = "for each second of CPU"
GREW: Final = "peak memory grew by"


def measure(options: Options) -> Figure:
    """One body at a time, from a client in a process of its own to a service in another one.

    The gateway is a new one for each body, so that its memory is that of this body alone.
    """
    rounds, size = min(ROUNDS, options.pairs), options.size
    checksum(size)  # takes a second, once
    series: list[Series] = []
    with stand(options) as here:
        sides: dict[str, Callable[[], AbstractContextManager[Serving]]]
        sides = {"scamp-gateway": here.mesh().gateway}
        if (proxy := here.nginx()) is not None:
            sides["nginx"] = lambda: nullcontext(proxy)
        for way, name in MOVES.items():
            found: dict[str, list[Moved]] = {side: [] for side in sides}
            for side in turns(list(sides), rounds):
                with sides[side]() as server:
                    found[side].append(move(server, name, size))
            series += _rows(way, found)
    return Figure(
        "streaming",
        f"A body of {size // MIB:,} MiB each way, one at a time",
        series,
        [_verdict(series), *([] if proxy is not None else [WITHOUT_NGINX])],
    )


def _rows(way: str, found: dict[str, list[Moved]]) -> list[Series]:
    rows: dict[str, tuple[str, int, Callable[[Moved], float]]] = {
        "speed": ("MB/s", 0, lambda one: one.size / one.seconds / MEGABYTE),
        PER_CORE: ("MB/s", 0, lambda one: one.size / one.cpu / MEGABYTE),
        "CPU per MB": ("ms", 2, lambda one: one.cpu / (one.size / MEGABYTE) * 1000),
        GREW: ("MiB", 1, lambda one: one.growth / MIB),
    }
    series = {
        (row, side): Series(f"{way}: {row}", unit, [of(one) for one in moved], digits, side)
        for row, (unit, digits, of) in rows.items()
        for side, moved in found.items()
    }
    ours, *others = (series["CPU per MB", side] for side in found)
    return [*series.values(), *times(ours, *others, case=f"{way}: ")]


def _verdict(series: Sequence[Series]) -> str:
    """What is demanded of the gateway, and whether it is so."""
    ours = [one for one in series if one.side == "scamp-gateway"]
    slowest = min(one.median for one in ours if one.name.endswith(PER_CORE))
    growth = max(max(one.samples) for one in ours if one.name.endswith(GREW))
    return (
        f"Demanded: {FAST} MB/s each way on one core, which is {_so(slowest >= FAST)}, and less "
        f"than {LIMIT // MIB} MiB more of memory, which is {_so(growth < LIMIT)}."
    )


def _so(held: bool) -> str:
    return "so" if held else "NOT so"
