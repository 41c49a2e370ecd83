"""Latency that the gateway adds at fixed rates, beside direct calls of the same service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from benchmarks.figures import Figure, Options, Series, percentile
from benchmarks.http1 import Target
from benchmarks.pace import PacedLoad
from benchmarks.sides import turns
from benchmarks.stand import BODY, ECHO, stand

SHARES: Final = {"p50": 0.50, "p99": 0.99, "p99.9": 0.999}
PACED_ROUNDS: Final = 2
WARM_UP: Final = 1.0
"""Seconds."""

ABOUT_LATENESS: Final = (
    "Latency is counted from the time at which a request was due, and so contains the generator's "
    "own lateness, on both sides: `sent late` is that alone."
)


@dataclass(slots=True)
class _Side:
    """One way to the service."""

    name: str
    load: PacedLoad
    runs: list[tuple[list[float], list[float]]] = field(default_factory=list)
    """Ordered latencies and lateness of each run."""

    def run(self, rate: int, seconds: float) -> None:
        told = self.load.run(rate, seconds)
        if told.failures:
            raise RuntimeError(f"{self.name}: {told.failures} of {len(told.latencies)} failed")
        self.runs.append((sorted(told.latencies), sorted(told.lateness)))

    def series(self, name: str, share: float) -> Series:
        return self._of(name, [percentile(latencies, share) for latencies, _ in self.runs])

    def lateness(self, name: str) -> Series:
        return self._of(name, [percentile(late, SHARES["p99"]) for _, late in self.runs])

    def _of(self, name: str, seconds: list[float]) -> Series:
        return Series(name, "ms", [one * 1000 for one in seconds], 2, self.name)


def measure(options: Options) -> Figure:
    """The generator of `benchmarks.pace`, once with HTTP and once with our own SCAMP client."""
    rounds, series = min(PACED_ROUNDS, options.pairs), []
    with stand(options) as here:
        behind = here.mesh()
        front = here.gateway(behind)
        over_http = Target(f"{front.url}/api/{ECHO}", BODY, front.headers)
        direct = Target(f"scamp://mesh/{ECHO}", BODY, tickets=(front.ticket,))
        sides = [
            _Side("scamp-gateway", here.paced(over_http)),
            _Side("direct", here.paced(direct, behind.folder)),
        ]
        for rate in options.rates:
            for side in sides:
                side.load.run(rate, min(WARM_UP, options.paced))
                side.runs.clear()
            for side in turns(sides, rounds):
                side.run(rate, options.paced)
            series += _rows(rate, *sides)
    return Figure(
        "latency",
        f"JSON echo of {len(BODY)} bytes at fixed rates, {options.paced:g} s at a time, "
        "over the gateway and beside it from a Python client to the service itself",
        series,
        [ABOUT_LATENESS],
    )


def _rows(rate: int, ours: _Side, direct: _Side) -> list[Series]:
    rows: list[Series] = []
    for label, share in SHARES.items():
        name = f"{rate:,} a second: {label}"
        pair = ours.series(name, share), direct.series(name, share)
        differences = [a - b for a, b in zip(pair[0].samples, pair[1].samples, strict=True)]
        rows += [*pair, Series(name, "ms", differences, 2, "added")]
    return [*rows, *(side.lateness(f"{rate:,} a second: p99 sent late") for side in (ours, direct))]
