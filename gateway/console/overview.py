"""What ``/overview`` answers: the state of a gateway in one piece, cut to what a page can show."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.console.merging import merged
from gateway.console.reading import Part
from gateway.counting import BUCKETS
from gateway.exposition import build_version
from scamp.discovery import Announcement, DiscoveryStatus
from scamp.discovery.model import count_actions
from scamp.logs import redact

MAX_INSTANCES: Final = 100
MAX_SERVICES: Final = 100
MAX_ACTIONS: Final = 50
MAX_REJECTED: Final = 50
"""Rows of each table. Nobody reads more, and a page that is drawn anew every second has to stay
small; a filter shows the rest."""

MAX_TEXT: Final = 300
"""Characters of what strangers wrote."""

MAX_FILTER: Final = 100
"""Characters of a filter."""

COMPARED: Final = 5.0
"""Seconds that lie at least between what actions are compared with and now, to tell which are busy:
several who look must not take each other's differences away."""

_ORDER: Final = ("out", "warming", "up", "leaving", "idle")
"""States of instances: what an operator has to see comes first."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What there is to show. `parts` are those of workers that live, and of those that are gone;
    `births` are the numbers of the processes whose counters are in it."""

    parts: list[Part]
    births: tuple[int, ...]
    workers: dict[str, Any]
    checks: list[dict[str, Any]]
    clock: float = field(default_factory=time.monotonic)
    """When that was so: it may be shown a little later."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """The index and where it comes from, as of now."""

    services: Collection[Announcement]
    status: DiscoveryStatus
    source: str


class Overview:
    """Makes the answers of one process. To be used by one thread at a time."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._lately: dict[str, float] = {}
        self._looked = 0.0

    def compose(
        self,
        gathered: Gathered,
        mesh: Mesh,
        gateway: Mapping[str, Any],
        wanted: str = "",
    ) -> dict[str, Any]:
        """The answer. `gateway` is what stands there besides what is found here; rows have
        `wanted` in them, whatever the case."""
        wanted = wanted[:MAX_FILTER].casefold().strip()
        total, now = merged(gathered.parts), time.time()
        status = mesh.status
        return {
            "at": now,
            "clock": gathered.clock,
            "counted_by": list(gathered.births),
            "gateway": {
                "version": build_version(),
                "python": platform.python_version(),
                "state": state_of(gathered.checks),
                "checks": gathered.checks,
                "workers": gathered.workers,
                "started": min(
                    (one["started"] for one in gathered.parts if "started" in one), default=None
                ),
                **gateway,
            },
            "discovery": {
                "source": mesh.source,
                "loaded": status.loaded,
                "stale": status.stale,
                "age": status.age(now),
                "accepted": status.accepted,
                "kept": status.kept,
                "unauthorized": status.unauthorized,
                "loads": status.loads,
                "failed_loads": status.failed_loads,
                "last_error": _told(status.last_error),
            },
            **{name: total[name] for name in ("counters", "gauges", "shed", "responses")},
            "bounds": BUCKETS,
            "histograms": total["histograms"],
            "instances": _instances(mesh.services, total["instances"], wanted),
            "services": _services(mesh.services, wanted),
            "actions": self._actions(total["actions"], wanted),
            "rejected": _rejected(status, wanted),
            "reloads": [{**one, "error": _told(one["error"])} for one in total["reloads"]],
        }

    def _actions(self, actions: dict[str, list[Any]], wanted: str) -> dict[str, Any]:
        """The busiest first: those with the most requests since a while ago."""
        counts = {label: numbers[0] for label, numbers in actions.items()}
        now = time.monotonic()
        if now - self._looked >= COMPARED:
            self._before, self._lately, self._looked = self._lately, counts, now
        before = self._before
        found = sorted(
            (label for label in actions if wanted in label.casefold()),
            key=lambda label: (before.get(label, 0) - counts[label], -counts[label], label),
        )
        rows = [
            {
                "action": label,
                "requests": (numbers := actions[label])[0],
                "4xx": numbers[1],
                "5xx": numbers[2],
                "bytes": numbers[3],
                "duration": numbers[4],
            }
            for label in found[:MAX_ACTIONS]
        ]
        return _table(rows, len(found), total=len(actions))


def state_of(checks: Iterable[Mapping[str, Any]]) -> str:
    """``ready``, ``not ready``, ``draining`` or ``replaced``, by the conditions of being ready."""
    bad = {check["name"] for check in checks if not check["ok"]}
    if any(check["name"] == "replaced" for check in checks):
        return "replaced"
    if "draining" in bad:
        return "draining"
    return "not ready" if bad else "ready"


def _told(text: str | None) -> str | None:
    """What others chose: cut, and no ticket."""
    return None if text is None else redact(text)[:MAX_TEXT]


def _table(rows: list[dict[str, Any]], found: int, **more: Any) -> dict[str, Any]:
    return {**more, "found": found, "shown": rows, "more": found - len(rows)}


# -- instances --------------------------------------------------------------------------


def _instances(
    services: Iterable[Announcement],
    views: Mapping[tuple[str, str], Mapping[str, Any]],
    wanted: str,
) -> dict[str, Any]:
    """Whoever is announced, with what is known of it once requests have gone there."""
    states = dict.fromkeys(_ORDER, 0)
    found = []
    total = 0
    for service in services:
        view = views.get(service.key)
        state = _state(service, view)
        states[state] += 1
        total += 1
        if not wanted or wanted in f"{service.identity} {service.host}:{service.port}".casefold():
            # Not by what is busy: rows that change places every second cannot be read.
            found.append((_ORDER.index(state), service.identity, service, state, view))
    found.sort(key=lambda one: one[:2])
    rows = [_instance(service, state, view) for *_, service, state, view in found[:MAX_INSTANCES]]
    return _table(rows, len(found), total=total, states=states)


def _state(service: Announcement, view: Mapping[str, Any] | None) -> str:
    """``out`` for any worker counts: each finds out by itself, and the others will."""
    if view is not None and view["state"] == "out":
        return "out"
    if service.weight <= 0:
        return "leaving"
    if view is None:
        return "idle"
    return "warming" if view["share"] < 1 else "up"


def _instance(service: Announcement, state: str, view: Mapping[str, Any] | None) -> dict[str, Any]:
    row = {
        "service": _told(service.name),
        "identity": _told(service.identity),
        "sector": _told(service.sector),
        "fingerprint": service.fingerprint,
        "address": _told(f"{service.host}:{service.port}"),
        "weight": float(service.weight),
        "state": state,
    }
    if view is not None:
        row |= {
            name: view[name]
            for name in (
                *("seconds", "retry_in", "failures", "in_flight", "waiting", "connections"),
                *("share", "peer", "workers", "out"),
            )
        }
        row["last_error"] = _told(view["last_error"])
    return row


# -- the rest ---------------------------------------------------------------------------


def _services(services: Iterable[Announcement], wanted: str) -> dict[str, Any]:
    """Instances of the same name are one service."""
    groups: dict[tuple[str, str], list[int]] = {}
    for service in services:
        group = groups.setdefault((service.name, service.sector), [0, 0])
        group[0] += 1
        group[1] = max(group[1], count_actions(service))
    found = sorted(key for key in groups if wanted in key[0].casefold())
    rows = [
        {
            "service": _told(name),
            "sector": _told(sector),
            "instances": groups[name, sector][0],
            "actions": groups[name, sector][1],
        }
        for name, sector in found[:MAX_SERVICES]
    ]
    actions = sum(count for _, count in groups.values())
    return _table(rows, len(found), total=len(groups), actions=actions)


def _rejected(status: DiscoveryStatus, wanted: str) -> dict[str, Any]:
    found = [
        one for one in status.rejected_records if not wanted or wanted in " ".join(one).casefold()
    ]
    rows = [
        {"identity": _told(identity), "reason": reason, "detail": _told(detail)}
        for identity, reason, detail in found[:MAX_REJECTED]
    ]
    total = sum(status.rejected.values())
    # Only the first of them are known by name.
    found_in_all = len(found) if wanted else max(total, len(found))
    return _table(rows, found_in_all, total=total, reasons=dict(status.rejected))
