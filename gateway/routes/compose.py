"""The body of a call, put together from path, query, body and defaults. Pure.

Where only the body counts it is not looked at and may stream. Otherwise it has to be held and
checked: what a stranger wrote must not reach over the members that the URL gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from gateway import catalogue
from gateway.problems import Problem
from gateway.routes.match import convert
from gateway.routes.model import WHOLE_BODY, Parameter, Route
from gateway.translate import query_fields

_TYPES: Final = {
    "int": "a whole number",
    "number": "a number",
    "bool": "true or false",
}


def members_of(route: Route, values: tuple[Any, ...], query: str) -> dict[str, Any]:
    """The members that the URL gives. Raises Problem (bad_query)."""
    members = _query_members(route, query)
    by_path = {one.member: one for one in route.path_parameters}
    twice = by_path.keys() & members.keys()
    if twice or (twice := _alike(members, by_path)):
        told = ", ".join(sorted(twice))
        raise Problem(catalogue.BAD_QUERY, f"{told[:100]} is given by the path; leave it out.")
    for parameter, value in zip(route.path_parameters, values, strict=True):
        members[parameter.member] = value
    return members


def _alike(given: Iterable[str], wanted: Iterable[str]) -> set[str]:
    """Those of `given` that differ from one of `wanted` in case alone: services in Go and C# take
    them for the same, and of two the last counts."""
    exact = set(wanted)
    folded = {name.casefold() for name in exact}
    if not folded:
        return set()
    return {name for name in given if name not in exact and name.casefold() in folded}


def _query_members(route: Route, query: str) -> dict[str, Any]:
    if route.query_parameters is None:
        return dict(query_fields(query))
    known = {parameter.name: parameter for parameter in route.query_parameters}
    if not known:
        return {}
    given = query_fields(query)
    members: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise Problem(
                catalogue.BAD_QUERY,
                f"There is no query parameter {name[:100]!r}; there are {', '.join(known)}.",
            )
        members[known[name].member] = _typed(known[name], value)
    for name, parameter in known.items():
        if parameter.required and name not in given:
            raise Problem(catalogue.BAD_QUERY, f"The query parameter {name!r} is missing.")
    return members


def _typed(parameter: Parameter, value: str | list[str]) -> Any:
    texts = value if isinstance(value, list) else [value]
    if len(texts) > 1 and not parameter.many:
        raise Problem(catalogue.BAD_QUERY, f"{parameter.name!r} is given more than once.")
    found = [convert(text, parameter.type) for text in texts]
    if None in found:
        wanted = _TYPES[parameter.type]
        raise Problem(catalogue.BAD_QUERY, f"{parameter.name!r} is {wanted}.")
    return found if parameter.many else found[0]


def passes_through(route: Route) -> bool:
    """Whether the body goes to the service as it comes, because nothing is added to it."""
    return route.body == WHOLE_BODY and not (
        route.path_parameters or route.query_parameters is None
        or route.query_parameters or route.defaults
    )  # fmt: skip


def compose(route: Route, members: Mapping[str, Any], body: bytes) -> bytes:
    """The JSON object for the action. `members` are those of `members_of`.

    What the body says keeps its spelling, numbers too. A member that is given by the URL may be in
    the body as well if it says the same. Raises Problem (bad_body).
    """
    given = {**route.defaults, **members}
    if route.body is None or not body:
        return orjson.dumps(given)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Problem(catalogue.BAD_BODY, f"The body is not JSON: {exc}.") from None
    if route.body != WHOLE_BODY:
        if route.body in members:
            what = f"{route.body} is given by the body; leave it out of the query."
            raise Problem(catalogue.BAD_QUERY, what)
        given.pop(route.body, None)
        return _joined(orjson.dumps({route.body: 0})[:-2] + body + b"}", orjson.dumps(given))
    if not isinstance(value, dict):
        raise Problem(catalogue.BAD_BODY, "The body is a JSON object here.")
    if alike := _alike(value, members):
        told = min(alike)[:100]
        raise Problem(
            catalogue.BAD_BODY, f"The URL says what the body's {told!r} is; leave it out."
        )
    twice = members.keys() & value.keys()
    if twice:
        _check_same(body, {name: members[name] for name in sorted(twice)})
    added = orjson.dumps({name: one for name, one in given.items() if name not in value})
    return _joined(body, added) if value else added


def _joined(first: bytes, second: bytes) -> bytes:
    """The text of one object from those of two, the first not empty."""
    return first if second == b"{}" else first.rstrip()[:-1] + b"," + second[1:]


def _check_same(body: bytes, members: Mapping[str, Any]) -> None:
    """Each of these is in the body once, and the same: parsers differ in which of two they take."""
    outermost: list[tuple[str, Any]] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outermost[:] = pairs  # inner objects end before the one that they are in
        return dict(pairs)

    try:
        json.loads(body, object_pairs_hook=remember)
    except (ValueError, RecursionError):
        raise Problem(catalogue.BAD_BODY, "The body is nested too deeply.") from None
    for name, wanted in members.items():
        given = [value for key, value in outermost if key == name]
        if len(given) != 1 or type(given[0]) is not type(wanted) or given[0] != wanted:
            raise Problem(
                catalogue.BAD_BODY,
                f"The body's {name[:100]!r} differs from what the URL says; leave it out.",
            )
