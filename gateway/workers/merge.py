"""What several workers count, made into what one gateway has counted. Pure.

Counters and histograms are added up. What is true of one moment, a gauge, has a rule of its own
(`families`): connections are added, of ages the greatest counts, of what must be good the worst.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import Any, Final, TypeAlias

from prometheus_client import Metric
from prometheus_client.samples import Sample

from gateway.families import FAMILIES, OTHER, Merge
from gateway.metrics import MAX_ACTIONS

Packed: TypeAlias = tuple[str, str, str, list[tuple[str, dict[str, str], float | None]]]
"""A family as JSON carries it: name, type, text, and samples of name, labels and value."""

Rule: TypeAlias = Callable[[float, float], float]

_ADDED: Final = frozenset({"counter", "histogram"})

_RULES: Final[Mapping[Merge, Rule]] = {"sum": add, "greatest": max, "least": min}

GAUGES: Final[Mapping[str, Rule]] = {
    family.name: _RULES[family.merge] for family in FAMILIES.values() if family.kind == "gauge"
}
"""How the values of two workers become one. A gauge that is not here is the greatest: no rule
makes up less."""


def packed(families: Iterable[Metric]) -> list[Packed]:
    """`families` as JSON can carry them. What is no number becomes null."""
    return [
        (
            family.name,
            family.type,
            family.documentation,
            [(one.name, one.labels, one.value) for one in family.samples],
        )
        for family in families
    ]


def lasting(families: Iterable[Packed]) -> list[Packed]:
    """What is left of a worker that is gone: its counters and histograms."""
    return [family for family in families if family[1] in _ADDED]


def merged(parts: Iterable[Iterable[Packed]]) -> list[Packed]:
    """The families of several workers as those of one, in the order in which they first appear."""
    found: dict[str, tuple[Packed, dict[Any, float | None]]] = {}
    for part in parts:
        for family in part:
            name, kind, text, samples = family
            if name not in found:
                found[name] = ((name, kind, text, []), {})
            values = found[name][1]
            rule = add if kind in _ADDED else GAUGES.get(name, max)
            for sample, labels, value in samples:
                key = (sample, *labels.items())
                before = values.get(key)
                if before is None or value is None:
                    values[key] = value if before is None else before
                else:
                    values[key] = rule(before, value)
    return [
        (name, kind, text, [(key[0], dict(key[1:]), value) for key, value in values.items()])
        for (name, kind, text, _), values in found.values()
    ]


def metrics(families: Iterable[Packed]) -> list[Metric]:
    """`families` as the library has them."""
    made = []
    for name, kind, text, samples in families:
        metric = Metric(name, text, kind)
        metric.samples = [
            Sample(sample, labels, math.nan if value is None else value)
            for sample, labels, value in samples
        ]
        made.append(metric)
    return made


def capped(families: Iterable[Packed], limit: int = MAX_ACTIONS) -> list[Packed]:
    """With series of at most `limit` actions; those of further ones are added to ``_other``.

    For what is kept of workers that are gone: it would grow as actions come and go.
    """
    families = list(families)
    actions: dict[str, None] = {}
    for _, _, _, samples in families:
        for _, labels, _ in samples:
            if "action" in labels:
                actions[labels["action"]] = None
    kept = {OTHER, *list(actions)[:limit]}
    if len(actions) <= limit:
        return families
    return merged(
        [(name, kind, text, [(sample, _relabelled(labels, kept), value)])]
        for name, kind, text, samples in families
        for sample, labels, value in samples
    )


def _relabelled(labels: dict[str, str], kept: set[str]) -> dict[str, str]:
    if labels.get("action", OTHER) in kept:
        return labels
    return {**labels, "action": OTHER}


def without(families: Iterable[Packed], gone: Callable[[str], bool]) -> list[Packed]:
    """Without the series of actions that are `gone`."""
    return [
        (name, kind, text, [one for one in samples if not gone(one[1].get("action", ""))])
        for name, kind, text, samples in families
    ]
