"""What one worker knows of itself now, as numbers that add up: the part that it gives to
``/overview``.

Nothing is computed until somebody looks. Objects that belong to the loop are looked at in the loop,
for as long as that takes; counters, which are most of it, are read by a thread.
"""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from gateway.clients import Clients
from gateway.counting import buckets_of, count_of
from gateway.events.hub import Hub
from gateway.front import Front
from gateway.metrics import ActionSeries, Metrics, Tally
from gateway.reloads import ReloadLog
from scamp.client import InstanceView, Requester

Part: TypeAlias = dict[str, Any]
"""What one worker tells. JSON has it as it is:

``counters`` and ``gauges``: numbers by name; ``responses``: requests answered by ``4xx service``
(status class and source); ``histograms``: as `buckets_of`; ``started``: seconds since 1970;
``actions``: by label, as `of_tally`; ``instances``: as `InstanceView`; ``reloads``: as `Reloads`.
"""

_STATM: Final = Path("/proc/self/statm")


class Reader:
    """Reads the parts of one gateway. To be used in its event loop."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        requester: Requester,
        front: Front,
        clients: Clients,
        hub: Hub,
        reloads: ReloadLog,
        access_log_dropped: Callable[[], int],
    ) -> None:
        self._metrics = metrics
        self._requester = requester
        self._front = front
        self._clients = clients
        self._hub = hub
        self._reloads = reloads
        self._dropped = access_log_dropped
        self._tallies = _Tallies()
        self._asked = 0
        self._reading = threading.Lock()  # not asyncio's: who is cancelled leaves a thread behind
        self._started = time.time()

    async def part(self) -> Part:
        """Everything as of now. Cancelling is safe."""
        views = self._requester.instances()
        series = self._metrics.all_series()
        told = {
            "counters": self._counters(),
            "gauges": self._gauges(views),
            "shed": {**self._front.shed, **self._requester.stats.shed},
            "reloads": [_plain(one) for one in self._reloads.all()],
        }
        self._asked += 1
        return await asyncio.to_thread(self._rest, told, views, self._asked, series)

    def _counters(self) -> dict[str, float]:
        stats, clients = self._requester.stats, self._clients
        return {
            "attempts": stats.attempts,
            "retries": sum(stats.retries.values()),
            "retries_denied": stats.retries_denied,
            "connects": stats.connects,
            "connect_failures": sum(stats.connect_failures.values()),
            "connections_lost": stats.lost_in_use,
            "clients_accepted": clients.accepted,
            "clients_refused": sum(clients.refused.values()),
            "log_lines_dropped": self._dropped(),
        }

    def _gauges(self, views: Iterable[InstanceView]) -> dict[str, float]:
        waiting = connections = 0
        for view in views:
            waiting += view.waiting
            connections += view.connections
        return {
            "in_flight": self._front.in_flight,
            "waiting": waiting,
            "connections": connections,
            "clients": self._clients.open,
            "clients_limit": self._clients.limits.connections,
            "streams": self._hub.streams,
            "retry_budget": self._requester.retries_left,
        }

    def _rest(
        self, told: Part, views: list[InstanceView], asked: int, series: list[ActionSeries]
    ) -> Part:
        counted = self._metrics
        with self._reading:
            actions, sums = self._tallies.read(asked, series)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        told["counters"] |= {
            "answers_cut": count_of(counted.cut),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "bytes_in": sums.bytes_in,
            "bytes_out": sums.bytes_out,
        }
        told["gauges"]["memory"] = _resident()
        return {
            **told,
            "started": self._started,
            "responses": sums.responses,
            "actions": actions,
            "histograms": {
                "whole": sums.whole,
                "upstream": sums.upstream,
                "own": buckets_of(counted.own),
                "queued": buckets_of(counted.queued),
                "lag": buckets_of(counted.lag),
            },
            "instances": [_plain(view) for view in views],
        }


class _Tallies:
    """The numbers of all actions, and their sums, which do not go back when an action goes."""

    def __init__(self) -> None:
        # At most as many as `metrics` keeps series; those that have gone are in the sums.
        self._kept: dict[ActionSeries, _Kept] = {}
        self._gone = _Sums()
        self._asked = 0
        self._told: tuple[dict[str, list[Any]], _Sums] = {}, _Sums()

    def read(self, asked: int, series: list[ActionSeries]) -> tuple[dict[str, list[Any]], _Sums]:
        """`asked` counts questions: who comes late gets what was told to the one after, since
        its `series` may be among those that have gone by now."""
        if asked < self._asked:
            return self._told
        self._asked = asked
        kept = {one: _look(one, self._kept.pop(one, None)) for one in series}
        for gone in self._kept.values():
            self._gone.add(gone.tally)
        self._kept = kept
        sums = self._gone.copy()
        for found in kept.values():
            sums.add(found.tally)
        actions = {one.label: of_tally(found.tally) for one, found in kept.items() if found.count}
        self._told = actions, sums
        return self._told


@dataclass(frozen=True, slots=True)
class _Kept:
    count: float
    tally: Tally
    settled: bool
    """It was read twice: a request may be counted in one family and not yet in the next."""


def _look(series: ActionSeries, before: _Kept | None) -> _Kept:
    """Most actions of a large mesh are silent most of the time, and need not be read again."""
    count = series.answered
    same = before is not None and before.count == count
    if before is not None and same and before.settled:
        return before
    return _Kept(count, series.tally(), same)


class _Sums:
    def __init__(self) -> None:
        self.responses: dict[str, float] = {}
        self.bytes_in = 0.0
        self.bytes_out = 0.0
        self.whole: list[float] = []
        self.upstream: list[float] = []

    def copy(self) -> _Sums:
        new = copy(self)
        new.responses = self.responses.copy()
        return new

    def add(self, tally: Tally) -> None:
        for (_, status_class, source), count in tally.requests.items():
            key = f"{status_class} {source}"
            self.responses[key] = self.responses.get(key, 0) + count
        self.bytes_in += tally.bytes_in
        self.bytes_out += tally.bytes_out
        self.whole = added(self.whole, tally.duration)
        self.upstream = added(self.upstream, tally.upstream)


def added(one: list[float], other: list[float]) -> list[float]:
    """Element by element; what is empty adds nothing."""
    if not one or not other:
        return list(one or other)
    return [left + right for left, right in zip(one, other, strict=True)]


def of_tally(tally: Tally) -> list[Any]:
    """Requests, those answered 4xx, those answered 5xx, bytes both ways, and the buckets of how
    long they took."""
    requests = bad = failed = 0.0
    for (_, status_class, _), count in tally.requests.items():
        requests += count
        bad += count if status_class == "4xx" else 0
        failed += count if status_class == "5xx" else 0
    return [requests, bad, failed, tally.bytes_in + tally.bytes_out, tally.duration]


def _plain(one: Any) -> dict[str, Any]:
    """A flat dataclass; asdict would copy each value deeply."""
    return {name: getattr(one, name) for name in type(one).__slots__}


def _resident() -> float:
    """Bytes of memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        return 0.0
