"""The parts of several workers as those of one gateway. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.console.reading import Part, added
from gateway.families import PREFIX
from gateway.workers.merge import Packed

_SUMMED: Final = ("counters", "gauges", "responses", "shed")
_MAX_ERROR: Final = 300
"""Characters of a reason that are shown; the log has all of it."""


def merged(parts: Iterable[Part]) -> Part:
    """What the workers counted together; an instance that several know is one."""
    total: Part = {name: {} for name in _SUMMED}
    histograms: dict[str, list[float]] = {}
    actions: dict[str, list[Any]] = {}
    reloads: dict[str, dict[str, Any]] = {}
    instances: list[list[dict[str, Any]]] = []
    for part in parts:
        for name in _SUMMED:
            _add(total[name], part.get(name, {}))
        for name, buckets in part["histograms"].items():
            histograms[name] = added(histograms.get(name, []), buckets)
        for label, numbers in part["actions"].items():
            actions[label] = _action(actions.get(label), numbers)
        for one in part.get("reloads", ()):
            reloads[one["what"]] = _reload(reloads.get(one["what"]), one)
        instances.append(part.get("instances", []))
    return {
        **total,
        "histograms": histograms,
        "actions": actions,
        "reloads": list(reloads.values()),
        "instances": _instances(instances),
    }


def _add(total: dict[str, float], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        total[name] = total.get(name, 0) + value


def _action(before: list[Any] | None, numbers: list[Any]) -> list[Any]:
    if before is None:
        return numbers
    plain = [one + other for one, other in zip(before[:4], numbers[:4], strict=True)]
    return [*plain, added(before[4], numbers[4])]


def _reload(before: dict[str, Any] | None, one: dict[str, Any]) -> dict[str, Any]:
    """All workers read the same files: the one that fared worst tells, and the latest time counts.
    Each load was one load, however many workers did it."""
    error = one["error"] and one["error"][:_MAX_ERROR]
    if before is None:
        return {**one, "error": error}
    return {
        "what": one["what"],
        "ok": max(before["ok"], one["ok"]),
        "failed": max(before["failed"], one["failed"]),
        "last_ok": max(before["last_ok"] or 0, one["last_ok"] or 0) or None,
        "last_failed": max(before["last_failed"] or 0, one["last_failed"] or 0) or None,
        "error": before["error"] or error,
    }


def _instances(seen: Iterable[list[dict[str, Any]]]) -> dict[tuple[str, str], dict[str, Any]]:
    """By fingerprint and identity. `workers` have a view of it, and of these it is out for `out`:
    each finds out by itself."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for views in seen:
        for view in views:
            key = (view["fingerprint"], view["identity"])
            before = found.get(key)
            found[key] = _first(view) if before is None else _both(before, view)
    return found


def _first(view: dict[str, Any]) -> dict[str, Any]:
    error = view["last_error"] and view["last_error"][:_MAX_ERROR]
    return {**view, "last_error": error, "workers": 1, "out": int(view["state"] == "out")}


def _both(one: dict[str, Any], view: dict[str, Any]) -> dict[str, Any]:
    other = _first(view)
    # The worst is what somebody has to know; of two that are alike the one that is so for longer.
    worst = max(one, other, key=lambda each: (each["state"] == "out", each["seconds"]))
    sums = {name: one[name] + other[name] for name in
            ("in_flight", "waiting", "connections", "workers", "out")}  # fmt: skip
    return {
        **worst,
        **sums,
        "share": min(one["share"], other["share"]),
        "failures": max(one["failures"], other["failures"]),
        "last_error": worst["last_error"] or one["last_error"] or other["last_error"],
    }


# -- workers that are gone --------------------------------------------------------------

_COUNTERS: Final = {
    f"{PREFIX}upstream_attempts": "attempts",
    f"{PREFIX}retries": "retries",
    f"{PREFIX}retries_denied": "retries_denied",
    f"{PREFIX}connects": "connects",
    f"{PREFIX}connect_failures": "connect_failures",
    f"{PREFIX}answers_cut": "answers_cut",
    f"{PREFIX}request_body_bytes": "bytes_in",
    f"{PREFIX}response_body_bytes": "bytes_out",
}

_HISTOGRAMS: Final = {
    f"{PREFIX}request_duration_seconds": "whole",
    f"{PREFIX}upstream_duration_seconds": "upstream",
    f"{PREFIX}own_duration_seconds": "own",
    f"{PREFIX}queue_duration_seconds": "queued",
    f"{PREFIX}event_loop_lag_seconds": "lag",
}


def of_families(families: Iterable[Packed]) -> Part:
    """What is left of workers that are gone, of what they had written down for ``/metrics``."""
    part: Part = {"counters": {}, "responses": {}, "histograms": {}, "actions": {}}
    for name, _, _, samples in families:
        if name in _COUNTERS:
            values = {_COUNTERS[name]: sum(value or 0 for _, _, value in samples)}
            _add(part["counters"], values)
        elif name in _HISTOGRAMS:
            part["histograms"][_HISTOGRAMS[name]] = _buckets(samples)
        elif name == f"{PREFIX}requests":
            for _, labels, value in samples:
                key = f"{labels['status_class']} {labels['source']}"
                _add(part["responses"], {key: value or 0})
    return part


def _buckets(samples: Iterable[tuple[str, dict[str, str], float | None]]) -> list[float]:
    """Of all actions together. Prometheus' buckets hold what is below their bound, each."""
    below: dict[float, float] = {}
    for name, labels, value in samples:
        if name.endswith("_bucket"):
            bound = float(labels["le"])
            below[bound] = below.get(bound, 0) + (value or 0)
    counts = [below[bound] for bound in sorted(below)]
    return [count - before for before, count in zip([0, *counts], counts, strict=False)]
