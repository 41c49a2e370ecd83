"""Requests through a gateway that knows thousands of services, while what they announce changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, cycle
from typing import Final

from benchmarks.announced import AnnouncedMesh
from benchmarks.figures import Figure, Options, Series, percentile
from benchmarks.http1 import Target
from benchmarks.latency import ABOUT_LATENESS, PACED_ROUNDS, SHARES
from benchmarks.mesh import Gateway
from benchmarks.pace import PacedLoad
from benchmarks.sides import turns
from benchmarks.stand import BODY, ECHO, stand
from scamp.discovery import split_records

EVERY: Final = 1.0
"""Seconds from one change to the next; the gateway looks as often."""

VERSIONS: Final = 2
"""Of a file in which all records are renewed, signed before: to sign takes longer than to check."""

RATE: Final = 500

ABOUT: Final = (
    "Every second the cache file is written anew: as it was; with one record changed; with all "
    "records renewed. Behind the gateway is one service, the others are announced and not there."
)


@dataclass(slots=True)
class _Side:
    """One thing that becomes of the file all the time."""

    name: str
    change: Callable[[], object]
    latencies: list[list[float]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, load: PacedLoad, front: Gateway, rate: int, seconds: float) -> None:
        before = front.process.cpu()
        with _again_and_again(self.change):
            told = load.run(rate, seconds)
        if told.failures:
            raise RuntimeError(f"{self.name}: {told.failures} of {len(told.latencies)} failed")
        self.cpu.append((front.process.cpu() - before) / seconds * 1e3)
        self.latencies.append(sorted(told.latencies))
        self.late.append(percentile(sorted(told.lateness), SHARES["p99.9"]) * 1e3)

    def series(self) -> Iterator[Series]:
        for name, share in {**SHARES, "the longest": 1.0}.items():
            values = [percentile(one, share) * 1e3 for one in self.latencies]
            yield Series(name, "ms", values, 2, self.name)
        yield Series("p99.9 sent late", "ms", self.late, 2, self.name)
        yield Series("CPU of the gateway per second", "ms", self.cpu, 1, self.name)


def measure(options: Options) -> Figure:
    """As `latency`, with the largest of the meshes."""
    services, rate = max(options.meshes), min(RATE, *options.rates)
    with stand(options) as here:
        behind = here.mesh()
        mesh = AnnouncedMesh(
            services,
            here.folder,
            split_records(behind.cache.read_bytes()),
            (here.folder / "authorized_services").read_text(),
        )
        renewed = [mesh.renew_all() for _ in range(VERSIONS)]
        mesh.begin()
        front = here.gateway(replace(behind, cache=mesh.cache, authorized=mesh.authorized))
        load = here.paced(Target(f"{front.url}/api/{ECHO}", BODY, front.headers))
        places, versions = count(), cycle(renewed)
        sides = [
            _Side("nothing changes", lambda: None),
            _Side("written anew", mesh.write),
            _Side("one record changed", lambda: mesh.change(next(places) % services)),
            _Side("all records renewed", lambda: mesh.renew_all(next(versions))),
        ]
        load.run(rate, min(EVERY, options.paced))
        for side in turns(sides, min(PACED_ROUNDS, options.pairs)):
            side.run(load, front, rate, options.paced)
    return Figure(
        "changing",
        f"Latency at {rate:,} requests a second, with {services:,} services in a discovery cache "
        "file that changes all the time",
        [series for side in sides for series in side.series()],
        [ABOUT, ABOUT_LATENESS],
    )


@contextmanager
def _again_and_again(change: Callable[[], object]) -> Iterator[None]:
    """Do it every second, in a thread, for the block. Raises what it raises."""
    over = threading.Event()
    failed: list[BaseException] = []

    def go_on() -> None:
        try:
            while not over.wait(EVERY):
                change()
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]
