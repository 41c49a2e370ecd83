"""Which route takes a request, what the action gets, and why others do not take it. Pure.

Says what `Front` and `Routing` do, from a `Surface` instead of a running gateway; a test holds the
two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Final

import orjson

from gateway import catalogue
from gateway.actions import METHODS, Target
from gateway.problems import Problem
from gateway.routes.compose import compose, members_of, passes_through
from gateway.routes.match import Match, Matcher, by_method, convert
from gateway.routes.model import WHOLE_BODY, ParameterType, Route, RouteTable
from gateway.surface import Entry, Surface
from gateway.translate import native_path, native_target, query_fields, split_target

MAX_CONSIDERED: Final = 8
"""Routes that are named besides the one that takes the request."""

_FAR: Final = 3
"""From so many differences on a route was not meant."""

_WANTED: Final[dict[ParameterType, str]] = {
    "string": "a text",
    "int": "a whole number of at most 18 digits",
    "number": "a number as in JSON",
    "bool": "true or false",
}

_OPTIONS: Final = "no matter; the gateway answers with the methods that there are"


@dataclass(frozen=True, slots=True)
class Considered:
    """A route that does not take the request."""

    route: Route
    why: str


@dataclass(slots=True)
class Explanation:
    """What becomes of one request. `status` is what the gateway would answer by itself; None when
    it calls the action."""

    method: str
    path: str
    status: int | None = None
    code: str = ""
    says: str = ""
    entry: Entry | None = None
    """What takes it."""
    values: dict[str, Any] = field(default_factory=dict)
    """Path parameters by name."""
    members: dict[str, Any] | None = None
    """What path, query and defaults put into the action's JSON object."""
    body: str = ""
    """What becomes of the request's body."""
    considered: tuple[Considered, ...] = ()


def explain(request: str, view: Surface, table: RouteTable) -> Explanation:
    """What becomes of ``METHOD /path?query``; GET when there is only a path.

    Raises ValueError when it does not read so.
    """
    first, _, rest = request.strip().partition(" ")
    method, target = (first.upper(), rest.strip()) if rest else ("GET", first)
    if method not in METHODS:
        raise ValueError(f"{method[:40]!r} is no method; there are {', '.join(METHODS)}")
    if " " in target or not target.startswith(("/", "http://", "https://")):
        raise ValueError("write it as METHOD /path?query")
    found = Explanation(method, target.partition("?")[0])
    try:
        found.path, query = split_target(target)
        _decide(found, query, view, table)
    except Problem as problem:
        _refuse(found, problem)
    return found


def _refuse(found: Explanation, problem: Problem) -> None:
    found.status, found.code, found.says = problem.status, problem.kind.code, problem.detail


def _decide(found: Explanation, query: str, view: Surface, table: RouteTable) -> None:
    matches = Matcher(table).find(found.path)
    chosen = by_method(matches).get(found.method)
    found.considered = tuple(_considered(found, matches, chosen, table))
    if _is_own(found, view):
        found.considered = ()  # whatever the file says: routes cannot have these paths
        return
    if matches:
        _by_route(found, query, matches, view)
    else:
        _by_name(found, query, view)


def _is_own(found: Explanation, view: Surface) -> bool:
    for entry in view.own:
        below = entry.url.partition("{")[0]
        if found.path == entry.url or (below != entry.url and found.path.startswith(below)):
            found.entry = entry
            if found.method not in (*entry.methods, "OPTIONS"):
                _not_taken(found, entry.methods)
            return True
    return False


# -- routes -----------------------------------------------------------------------------


def _by_route(found: Explanation, query: str, matches: tuple[Match, ...], view: Surface) -> None:
    entries = {entry.route: entry for entry in view.routes}
    best = by_method(matches)
    usable = {
        method: match for method, match in best.items() if _usable(entries[match.route], method)
    }
    chosen = best.get(found.method)
    if not usable or (chosen is not None and _is_missed(entries[chosen.route])):
        entry = entries[(chosen or matches[0]).route]
        found.entry = entry
        raise Problem(catalogue.UNKNOWN_ACTION, f"{_sentence(entry.problem)}")
    if found.method == "OPTIONS":
        found.entry = entries[(chosen or matches[0]).route]
        found.body = _OPTIONS
        return
    if found.method not in usable:
        found.entry = None if chosen is None else entries[chosen.route]
        _not_taken(found, tuple(method for method in METHODS if method in usable))
        return
    match = usable[found.method]
    found.entry = entries[match.route]
    names = [parameter.name for parameter in match.route.path_parameters]
    found.values = dict(zip(names, match.values, strict=True))
    members = members_of(match.route, match.values, query)
    found.members = orjson.loads(compose(match.route, members, b""))
    found.body = _body_of(match.route)


def _is_missed(entry: Entry) -> bool:
    return entry.action is None and entry.route is not None and entry.route.expected


def _usable(entry: Entry, method: str) -> bool:
    action = entry.action
    return action is not None and action.runs(method)


def _body_of(route: Route) -> str:
    if route.body is None:
        return "none; a request with one is refused"
    if passes_through(route):
        return "goes through as it comes"
    if route.body == WHOLE_BODY:
        return "a JSON object; these members are added to it, defaults where it has none"
    return f"any JSON value; it becomes the member {route.body!r}"


# -- names ------------------------------------------------------------------------------


def _by_name(found: Explanation, query: str, view: Surface) -> None:
    target = native_target(found.path)
    if target is None:
        raise Problem(catalogue.UNKNOWN_PATH, "No route takes this path, and nothing else does.")
    wanted = native_path(target.sector, target.action, target.version).lower()
    entry = next((one for one in (*view.actions, *view.aliases) if one.url.lower() == wanted), None)
    if entry is None:
        raise Problem(catalogue.UNKNOWN_ACTION, _missing(target, view))
    found.entry = entry
    if found.method == "OPTIONS":
        found.body = _OPTIONS
    elif found.method not in entry.methods:
        _not_taken(found, entry.methods)
    elif found.method in ("GET", "HEAD"):
        found.members, found.body = query_fields(query), "none; a request with one is refused"
    elif found.method == "DELETE":
        found.members = query_fields(query)
        found.body = "goes through as it comes; the query counts where there is none"
    else:
        found.body = "goes through as it comes; the query does not count"


def _missing(target: Target, view: Surface) -> str:
    if target.sector.lower() in view.hidden:
        return f"Sector {target.sector} is not exposed."
    return f"No service announces {target}."


def _not_taken(found: Explanation, methods: tuple[str, ...]) -> None:
    found.status, found.code = 405, catalogue.METHOD_NOT_ALLOWED.code
    why = f" {_sentence(found.entry.problem)}" if found.entry and found.entry.problem else ""
    are = "is" if len(methods) == 1 else "are"
    found.says = f"{found.method} is not taken here; {', '.join(methods)} {are}.{why}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# -- the others -------------------------------------------------------------------------


def _considered(
    found: Explanation, matches: tuple[Match, ...], chosen: Match | None, table: RouteTable
) -> Iterator[Considered]:
    """Routes that fit as well, then those that almost do, the nearest first."""
    taken = 0
    for match in matches:
        if match.route is (chosen.route if chosen else None):
            continue
        if match.route.takes(found.method):
            why = "fits too; a literal segment goes first, then the narrower type"
        else:
            why = f"takes {', '.join(match.route.methods)} only"
        yield Considered(match.route, why)
        taken += 1
        if taken == MAX_CONSIDERED:
            return
    parts = found.path.split("/")[1:]
    near = []
    for number, route in enumerate(table.routes):
        misses = list(_misses(route, parts))
        other_method = not route.takes(found.method)
        other_length = len(route.segments) != len(parts)
        if chosen is not None and (other_method or other_length):
            continue  # nobody expects it to take what another takes
        if 0 < len(misses) < min(_FAR, max(len(parts), 2)):
            alike = SequenceMatcher(None, found.path, route.template).ratio()
            near.append((len(misses), other_length, other_method, -alike, number, misses[0]))
    for _, _, other_method, _, number, why in sorted(near)[: MAX_CONSIDERED - taken]:
        route = table.routes[number]
        methods = f"; and takes {', '.join(route.methods)} only" if other_method else ""
        yield Considered(route, f"{why}{methods}")


def _misses(route: Route, parts: list[str]) -> Iterator[str]:
    """What keeps a route from taking a path, one reason after the other."""
    surplus = len(parts) - len(route.segments)
    if surplus:
        if surplus == 1 and parts[-1] == "":
            yield "the path ends in a slash"
        else:
            yield f"has {_count(len(route.segments))}, the path {len(parts)}"
        for _ in range(abs(surplus) - 1):
            yield ""
    for segment, part in zip(route.segments, parts, strict=False):
        if not segment.name:
            if segment.text != part:
                case = ": case counts" if segment.text.lower() == part.lower() else ""
                yield f"{part!r} is not {segment.text!r}{case}"
        elif not part or convert(part, segment.type) is None:
            yield f"{part!r} is not {_WANTED[segment.type]}, as {segment} wants"


def _count(segments: int) -> str:
    return f"{segments} segment{'' if segments == 1 else 's'}"
