"""The follower of a discovery cache file in a process of its own, set up as the gateway does it.

``python -m benchmarks.following CACHE AUTHORIZED [--ticks]`` loads the file when it reads ``load``
from stdin, looks at it again at ``look``, and measures lookups at ``find SECTOR ACTION``: a line of
JSON for each. With ``--ticks`` a timer runs every millisecond and measures how late it is, which
costs CPU: so what a load costs and how it stalls the loop are told by different processes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from gateway.discovery import make_source
from gateway.lifecycle import GC_THRESHOLD
from gateway.settings import Settings
from scamp.discovery import DiscoverySource, LoadReport, Registry

TICK: Final = 0.001
LOOKUPS: Final = 100_000


class Ticks:
    """A timer that is told how late it was, in seconds, the operating system's part left out.

    That part is the time for which this thread was ready to run and another process had the core:
    what schedstat calls run delay.
    """

    def __init__(self) -> None:
        self._file = open("/proc/thread-self/schedstat", "rb", buffering=0)  # noqa: SIM115
        self._handle: asyncio.TimerHandle | None = None
        self.longest = self.longest_own = self.longest_collection = 0.0
        gc.callbacks.append(self._collected)
        self._collecting = 0.0

    def start(self) -> None:
        self.longest = self.longest_own = self.longest_collection = 0.0
        loop = asyncio.get_running_loop()
        self._next(loop, self._waited())

    def stop(self) -> None:
        assert self._handle is not None
        self._handle.cancel()

    def _waited(self) -> float:
        return int(os.pread(self._file.fileno(), 100, 0).split()[1]) / 1e9

    def _next(self, loop: asyncio.AbstractEventLoop, waited: float) -> None:
        due = time.perf_counter() + TICK
        self._handle = loop.call_later(TICK, self._tick, loop, due, waited)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float, before: float) -> None:
        late, waited = time.perf_counter() - due, self._waited()
        self.longest = max(self.longest, late)
        self.longest_own = max(self.longest_own, late - (waited - before))
        self._next(loop, waited)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "stop":
            self.longest_collection = max(self.longest_collection, now - self._collecting)
        self._collecting = now


async def follow(cache: Path, authorized: Path, *, ticking: bool) -> None:
    registry = Registry()
    settings = Settings(
        discovery_source="cache",
        discovery_cache=cache,
        authorized_services=authorized,
        discovery_max_age=86_400.0,
        discovery_poll_interval=60.0,  # looks are asked for
    )
    reports: list[LoadReport] = []
    source = make_source(settings, registry, reports.append)
    ticks = Ticks() if ticking else None
    gc.collect()  # as in `Lifecycle.start`
    gc.set_threshold(GC_THRESHOLD)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while words := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        if words[0] == "find":
            found = _find(registry, words[1], words[2])
        else:
            found = await _looked(source, ticks, first=words[0] == "load")
            found |= {"services": len(registry.services()), "generation": registry.generation}
            found |= {"verified": reports.pop().verified if reports else 0}
        print(json.dumps(found), flush=True)
    await source.stop()


async def _looked(source: DiscoverySource, ticks: Ticks | None, *, first: bool) -> dict[str, Any]:
    if ticks is not None:
        ticks.start()
        await asyncio.sleep(10 * TICK)
    began = time.perf_counter(), time.process_time(), time.thread_time()
    await (source.start() if first else source.refresh())
    wall, cpu, loop = (
        now - then
        for now, then in zip(
            (time.perf_counter(), time.process_time(), time.thread_time()), began, strict=True
        )
    )
    if first:
        gc.freeze()
    found = {"wall": wall, "cpu": cpu, "loop": loop}
    # What is left behind is freed by the worker a little later.
    await asyncio.sleep(0.2)
    found["after"] = time.process_time() - began[1]
    if ticks is not None:
        ticks.stop()
        found |= {
            "stall": ticks.longest,
            "own": ticks.longest_own,
            "collection": ticks.longest_collection,
        }
    return found


def _find(registry: Registry, sector: str, action: str) -> dict[str, float]:
    began = time.thread_time()
    for _ in range(LOOKUPS):
        registry.find(sector, action)
    return {"seconds": (time.thread_time() - began) / LOOKUPS}


if __name__ == "__main__":
    uvloop.run(follow(Path(sys.argv[1]), Path(sys.argv[2]), ticking="--ticks" in sys.argv[3:]))
