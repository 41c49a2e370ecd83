"""What a second worker brings."""

from __future__ import annotations

from typing import Final

from benchmarks.figures import Figure, Options, Series
from benchmarks.sides import cpu, how, measured, rates, times
from benchmarks.stand import BODY, stand

SERVICES: Final = 2
"""So that what is behind is not what bounds it."""

FASTER: Final = 1.8
"""Times the requests of one worker, where two cores are free for two."""

EQUAL: Final = 1.1
"""Times the CPU of one worker that a request may cost with two, where they are not."""


def measure(options: Options) -> Figure:
    with stand(options) as here:
        behind = here.mesh(services=SERVICES)
        two, one = here.gateway(behind, "--workers", "2"), here.gateway(behind)
        sides = [
            here.side("2 workers", two, clients=2 * options.clients),
            here.side("1 worker", one),
        ]
        measured(sides, options.pairs, options.seconds)
        used, answered = cpu(sides), rates(sides)
        (costs,), (brings,) = times(*used), times(*answered)
        costs.name, brings.name = "times the CPU of 1 worker", "times the requests of 1 worker"
        return Figure(
            "workers",
            f"JSON echo of {len(BODY)} bytes, {SERVICES} services, for each worker "
            + how(sides[0], options.clients, options.pairs, options.seconds),
            [*used, costs, *answered, brings],
            [_verdict(brings, costs)],
        )


def _verdict(brings: Series, costs: Series) -> str:
    """Which of the two that are demanded holds here."""
    if brings.median >= FASTER:
        return f"Two workers answer at least {FASTER} times the requests of one."
    if costs.median <= EQUAL:
        return (
            "No two cores are free for two workers here, beside load and services: a request "
            f"costs the same CPU with two workers (at most {EQUAL} times)."
        )
    return f"Neither {FASTER} times the requests, nor the same CPU per request."
