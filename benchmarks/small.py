"""CPU per small request: the gateway with everything on, beside a bare aiohttp echo."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, Options, Series, ratios
from benchmarks.load import ClientLoad, Target, aimed
from benchmarks.mesh import gateway
from benchmarks.processes import Process, module, started

BODY: Final = b'{"sku":"A-1001","quantity":3,"note":"echo"}'
WARM_UP: Final = 1.0
"""Seconds of load before the first sample: connections, caches, the ticket's first check."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two servers, with its load and what was measured."""

    process: Process
    load: ClientLoad
    cpu: Series
    rate: Series

    def sample(self, seconds: float) -> None:
        before = self.process.cpu()
        outcome = self.load.run(seconds)
        used = self.process.cpu() - before
        if outcome.failures:
            raise RuntimeError(f"{self.cpu.name}: {outcome.failures} of {outcome.requests} failed")
        self.cpu.samples.append(used / outcome.requests * 1e6)
        self.rate.samples.append(outcome.requests / outcome.seconds)


def measure(options: Options) -> Figure:
    """Pairs of runs, the one that comes first taking turns."""
    with tempfile.TemporaryDirectory(prefix="scamp-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        front = stack.enter_context(
            gateway(
                folder,
                cache=options.upstream_cache,
                authorized=options.upstream_authorized,
                actions=(options.action,),
            )
        )
        bare = stack.enter_context(started(module("benchmarks.bare"), folder / "bare.log"))

        def side(name: str, process: Process, target: Target) -> _Side:
            load = stack.enter_context(aimed(target, options.clients, options.generator, folder))
            return _Side(
                process, load, Series(name, "us"), Series(f"{name}, rate", "1/s", digits=0)
            )

        url = f"{front.url}/api/{options.action}"
        ours = side("scamp-gateway", front.process, Target(url, BODY, (front.authorization,)))
        beside = side("bare aiohttp", bare, Target(bare.said, BODY))
        for one in (ours, beside):
            one.load.run(WARM_UP)
        for pair in range(options.pairs):
            for one in (ours, beside) if pair % 2 == 0 else (beside, ours):
                one.sample(options.seconds)
        return Figure(
            "small",
            f"CPU per request, JSON echo of {len(BODY)} bytes, {options.clients} keep-alive "
            f"clients, {options.pairs} pairs of {options.seconds:g} s, load from {ours.load.name}",
            [ours.cpu, beside.cpu, ratios("ratio", ours.cpu, beside.cpu), ours.rate, beside.rate],
        )
