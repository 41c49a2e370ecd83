"""The OpenAPI document: out of actions, routes and what services say, into bytes. Pure.

Equal input gives equal bytes, in whatever order it comes. Names, texts and schemas may be by
strangers: what would make a document invalid is left out, and how much under ``x-scamp-left-out``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from gateway.openapi.components import Components
from gateway.openapi.documentation import NOTHING, Sections
from gateway.openapi.operations import (
    Described,
    Facts,
    describe,
    is_addressable,
    native_item,
    native_path,
    security_schemes,
)
from gateway.openapi.responses import HEADERS, PARAMETERS, PROBLEM, PROBLEM_SCHEMA, responses
from gateway.openapi.routed import route_operations
from gateway.routes.model import Route
from gateway.strangers import is_meta
from gateway.translate import Announced
from scamp.discovery.model import action_key
from scamp.discovery.pace import no_pause

VERSION: Final = "3.1.0"

PathItems = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Operations by path and method (in lower case) of what is served besides actions."""

_ABOUT: Final = (
    "Actions of services, as they are announced right now. An action takes a JSON object as the "
    "body of a POST; one that reads takes it as the query of a GET as well. What goes wrong is "
    "told as `application/problem+json`."
)


def build(
    actions: Iterable[Announced],
    facts: Facts,
    *,
    routes: Sequence[tuple[Route, Announced]] = (),
    sections: Sections | None = None,
    own: PathItems | None = None,
    left_out: int = 0,
    pause: Callable[[], None] = no_pause,
) -> bytes:
    """The document as JSON, sorted and without a newline at its end.

    `routes` stand in the order of their file and come with the actions that they lead to; `own` are
    path items of the gateway's own; `left_out` counts actions that there are besides `actions`.
    Takes some 200 µs per action; to be called in a thread when there are many. `pause` is called
    between small steps.
    """
    return _Builder(facts, sections or {}, pause).build(actions, routes, own or {}, left_out)


class _Builder:
    """One document in the making."""

    def __init__(self, facts: Facts, sections: Sections, pause: Callable[[], None]) -> None:
        self._facts = facts
        self._pause = pause
        self._sections = sections
        self._components = Components()
        self._paths: dict[str, orjson.Fragment] = {}
        self._ids: set[str] = set()
        self._tags: set[str] = set()
        self._left_out: Counter[str] = Counter()
        self._described: dict[str, Described] = {}

    def build(
        self,
        actions: Iterable[Announced],
        routes: Sequence[tuple[Route, Announced]],
        own: PathItems,
        left_out: int,
    ) -> bytes:
        self._left_out["actions"] = left_out
        self._components.schemas[PROBLEM_SCHEMA] = PROBLEM
        for action in sorted(actions, key=_order):
            if is_addressable(action.sector, action.spelling, action.version):
                self._add(native_path(action), native_item(self._of(action), self._facts))
        self._add_routes(routes)
        for path, item in sorted(own.items()):
            self._add(path, {method: dict(operation) for method, operation in item.items()})
            self._tags.update(tag for one in item.values() for tag in one.get("tags", ()))
        self._left_out["schemas"] = self._components.left_out
        return orjson.dumps(self._document(), option=orjson.OPT_SORT_KEYS)

    def _add(self, path: str, item: dict[str, dict[str, Any]]) -> None:
        """Put a path item in, as text: nothing large is left to be written at the end."""
        for _, operation in sorted(item.items()):
            if operation.get("operationId") in self._ids:
                del operation["operationId"]  # none is needed, but two may not be the same
            self._ids.add(operation.get("operationId", ""))
        self._paths[path] = orjson.Fragment(orjson.dumps(item, option=orjson.OPT_SORT_KEYS))
        self._pause()

    def _document(self) -> dict[str, Any]:
        left_out = {what: count for what, count in self._left_out.items() if count}
        facts = self._facts
        return {
            "openapi": VERSION,
            "info": {"title": facts.title, "version": facts.version, "description": _ABOUT},
            "servers": [{"url": "/"}],
            "tags": [{"name": name} for name in sorted(self._tags)],
            "paths": self._paths,
            "components": {
                "schemas": self._components.schemas,
                "responses": responses(),
                "parameters": PARAMETERS,
                "headers": HEADERS,
                "securitySchemes": security_schemes(facts),
            },
            **({"x-scamp-left-out": left_out} if left_out else {}),
        }

    def _of(self, action: Announced) -> Described:
        key = action_key(action.sector, action.spelling, action.version)
        described = self._described.get(key)
        if described is None:
            section = self._sections.get(key, NOTHING)
            described = self._described[key] = describe(action, section, self._components)
            self._tags.add(action.spelling.rpartition(".")[0])
        return described

    def _add_routes(self, routes: Iterable[tuple[Route, Announced]]) -> None:
        """Templates that differ only in the names or types of their parameters are one path here;
        the widest counts, and gives the names."""
        paths: dict[tuple[str, ...], Route] = {}
        items: dict[str, dict[str, Any]] = {}
        for route, action in sorted(routes, key=lambda one: _narrow(one[0])):
            first = paths.setdefault(_structure(route), route)
            names = {
                one.name: other.name
                for one, other in zip(route.segments, first.segments, strict=True)
                if one.name
            }
            item = items.setdefault(first.plain_template, {})
            operations = route_operations(route, self._of(action), names, self._facts)
            for method, operation in operations:
                if method in item:
                    self._left_out["routes"] += 1
                else:
                    item[method] = operation
        for path, item in sorted(items.items()):
            if item:
                self._add(path, item)


def _order(action: Announced) -> tuple[bool, bool, str, str, int]:
    """As `sight.select`: what everybody may offer comes last, also for the room for schemas."""
    sector, meta = action.sector.lower(), is_meta(action.offers[0].action)
    return (meta, sector != "main", sector, action.spelling.lower(), action.version)


def _structure(route: Route) -> tuple[str, ...]:
    """What is left of a template without the names: empty for a parameter, as no text is."""
    return tuple("" if one.name else one.text for one in route.segments)


def _narrow(route: Route) -> int:
    """How many parameters do not take any text."""
    return sum(one.type != "string" for one in route.segments if one.name)
