"""Routes that lead nowhere, or not where they seem to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from gateway.actions import Sectors
from gateway.audit import codes
from gateway.audit.access import subject_of
from gateway.audit.model import Audited, Finding
from gateway.routes.match import BY_WIDTH, Matcher, by_method, convert
from gateway.routes.model import ParameterType, Route, Segment

MAX_TAKERS: Final = 20
"""Other routes that are looked for per route."""

MAX_STEPS: Final = 2000
"""Steps of looking for them: templates can be made that overlap in very many ways."""

_RUN: Final = frozenset(
    ("text/html", "text/xml", "application/xml", "text/javascript", "application/javascript")
)

_MAX_BOOLS: Final = 6
_DISJOINT: Final = frozenset({"bool", "int"}), frozenset({"bool", "number"})


def nowhere(audited: Audited) -> Iterator[Finding]:
    """Routes that cannot be called now."""
    for entry in audited.view.routes:
        if not entry.broken:
            continue
        code = codes.ROUTE_NOWHERE if entry.action is None else codes.ROUTE_GET_WRITES
        yield Finding(code, subject_of(entry), f"{entry.origin[0]}: {entry.problem}.")


def into_sectors(audited: Audited) -> Iterator[Finding]:
    """Routes whose action cannot be called by its name."""
    exposed = Sectors(audited.settings.sectors)
    for entry in audited.view.routes:
        action = entry.action
        if action is not None and action.sector not in exposed:
            says = f"{entry.origin[0]}: leads to {action.label}; exposed: {', '.join(exposed)}."
            yield Finding(codes.ROUTE_BYPASSES_SECTOR, subject_of(entry), says)


def pages(audited: Audited) -> Iterator[Finding]:
    """Routes whose replies browsers run in our origin."""
    for entry in audited.view.routes:
        route = entry.route
        if route is None or route.produces is None:
            continue
        media_type = route.produces
        if media_type in _RUN or media_type.endswith("+xml"):
            says = f"{route.origin}: replies are {media_type}."
            yield Finding(codes.ROUTE_PAGES, subject_of(entry), says)


def overlaps(audited: Audited) -> Iterator[Finding]:
    """Routes of whose URLs others take some, or all."""
    table = audited.mesh.routes
    matcher = Matcher(table)
    trees: dict[str, _Node] = {}
    for route in table.routes:
        for method in route.methods:
            trees.setdefault(method, _Node()).put(route)
    literals = {segment.text for route in table.routes for segment in route.segments}
    for route in table.routes:
        for method in route.methods:
            yield from _overlap(route, method, trees[method], matcher, literals)


def _overlap(
    route: Route, method: str, tree: _Node, matcher: Matcher, literals: set[str]
) -> Iterator[Finding]:
    takers = _Takers(route).find(tree)
    if not takers:
        return
    subject = f"{method} {route.template}"
    shown = ", ".join(f"{other.template} ({other.origin})" for other in takers[:2])
    more = len(takers) - 2
    if more > 0:
        shown += f" and {'at least ' if len(takers) == MAX_TAKERS else ''}{more} more"
    if _reachable(route, method, matcher, literals):
        says = f"{route.origin}: some of its URLs go to {shown}."
        yield Finding(codes.ROUTE_OVERLAPS, subject, says)
    else:
        says = f"{route.origin}: all of its URLs go to {shown}."
        yield Finding(codes.ROUTE_SHADOWED, subject, says)


# -- which routes go before another -----------------------------------------------------


@dataclass(slots=True)
class _Node:
    below: dict[tuple[str, str], _Node] = field(default_factory=dict)
    """By literal text, or type of parameter, as in `Route.shape`."""
    route: Route | None = None

    def put(self, route: Route) -> None:
        node = self
        for step in route.shape:
            node = node.below.setdefault(step, _Node())
        node.route = route


class _Takers:
    """Finds routes that are better fits than `route` for some URL that both fit.

    The first segment in which two templates differ decides which is the better.
    """

    def __init__(self, route: Route) -> None:
        self._segments = route.segments
        self._found: list[Route] = []
        self._steps = 0

    def find(self, tree: _Node) -> list[Route]:
        self._walk(tree, 0, ahead=False)
        return self._found

    def _walk(self, node: _Node, at: int, *, ahead: bool) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS or len(self._found) == MAX_TAKERS:
            return
        if at == len(self._segments):
            if ahead and node.route is not None:
                self._found.append(node.route)
            return
        own = self._segments[at]
        steps = node.below if own.name else [(own.text, ""), *(("", kind) for kind in BY_WIDTH)]
        for text, kind in steps:
            below = node.below.get((text, kind))
            worse = _rank(kind) - _rank(own.type if own.name else "")
            if below is not None and (ahead or worse <= 0) and _overlapping(own, text, kind):
                self._walk(below, at + 1, ahead=ahead or worse < 0)


def _rank(kind: str) -> int:
    """Literal text first, then types as the matcher tries them."""
    return ("", *BY_WIDTH).index(kind)


def _overlapping(own: Segment, text: str, kind: str) -> bool:
    """Whether some text fits both."""
    if own.name and kind:
        return frozenset({own.type, kind}) not in _DISJOINT
    if own.name:
        return convert(text, own.type) is not None
    if kind:
        return convert(own.text, kind) is not None  # type: ignore[arg-type]  # a type's name
    return own.text == text


# -- whether anything is left -----------------------------------------------------------


def _reachable(route: Route, method: str, matcher: Matcher, literals: set[str]) -> bool:
    """Whether some URL gets to the route.

    A text that is no literal of any route fits parameters only, and of those the template's own are
    the narrowest; so only parameters with few values can be used up by others.
    """
    choices = [_samples(segment, literals) for segment in route.segments]
    if sum(len(some) > 1 for some in choices) > _MAX_BOOLS:
        return True
    for texts in product(*choices):
        best = by_method(matcher.find("/" + "/".join(texts))).get(method)
        if best is not None and best.route is route:
            return True
    return False


def _samples(segment: Segment, literals: set[str]) -> tuple[str, ...]:
    if not segment.name:
        return (segment.text,)
    if segment.type == "bool":
        return ("true", "false")
    form: dict[ParameterType, str] = {"int": "{}", "number": "{}.5", "string": "{} "}
    number = 0
    while (text := form[segment.type].format(number)) in literals:
        number += 1
    return (text,)
