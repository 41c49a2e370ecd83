"""CPU per request, and memory, when very many are under way at once."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.figures import Figure, Options, Series
from benchmarks.processes import Serving
from benchmarks.sides import Side, cpu, how, measured, rates, times
from benchmarks.stand import BODY, FROM_ONE_ADDRESS, SEVERAL, stand
from benchmarks.work import WAIT
from scamp.limits import KIB


def measure(options: Options) -> Figure:
    """Everyone waits as long: the service behind the gateway, and the bare echo itself."""
    # wrk does not wait for the answers to its last requests, and these are many here.
    with stand(replace(options, generator="python")) as here:
        behind, many = here.mesh(services=SEVERAL), options.crowd
        servers: dict[str, Serving] = {
            "scamp-gateway": here.gateway(behind, *FROM_ONE_ADDRESS),
            "web.Application": here.bare(),
        }
        sides = [
            here.side(name, server, action="Bench.wait", clients=many)
            for name, server in servers.items()
        ]
        resident = [side.process.forget_peak() for side in sides]
        measured(sides, options.pairs, options.seconds)
        used = cpu(sides)
        grown = [_grown(side, before, many) for side, before in zip(sides, resident, strict=True)]
        return Figure(
            "crowd",
            f"CPU per request, JSON echo of {len(BODY)} bytes that waits for {WAIT:g} s, "
            + how(sides[0], many, options.pairs, options.seconds),
            [*used, *times(*used), *grown, *rates(sides)],
            ["Not one request failed: one that does ends the benchmark."],
        )


def _grown(side: Side, before: int, many: int) -> Series:
    per_request = (side.process.peak() - before) / many / KIB
    return Series("peak memory per request under way", "KiB", [per_request], side=side.name)
