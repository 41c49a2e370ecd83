"""Which routes a path means. Pure; built once per routes file.

A literal segment goes before a parameter, and of parameters the narrower type before the wider:
``/skus/new``, ``/skus/{id:int}`` and ``/skus/{code}`` live side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.endpoints import is_reserved
from gateway.routes.model import ParameterType, Route, RouteTable

_INT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,2})?")
_BOOLS: Final = {"true": True, "false": False}

BY_WIDTH: Final[tuple[ParameterType, ...]] = ("bool", "int", "number", "string")
"""Narrow types first; every text is a string."""


def convert(text: str, to: ParameterType) -> Any:
    """The JSON value that a text stands for; None when it is not of that type.

    ``int``: up to 18 digits, so that it is exact in every peer's integers; ``number``: as in JSON;
    ``bool``: ``true`` or ``false``.
    """
    if to == "string":
        return text
    if to == "bool":
        return _BOOLS.get(text)
    if to == "int":
        return int(text) if _INT.fullmatch(text) else None
    return float(text) if _NUMBER.fullmatch(text) else None


@dataclass(frozen=True, slots=True)
class Match:
    """One route whose template fits, and the values of its parameters in their order."""

    route: Route
    values: tuple[Any, ...]


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameters: dict[ParameterType, _Node] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)

    def below(self) -> Iterator[tuple[ParameterType, _Node]]:
        for kind in BY_WIDTH:
            if kind in self.parameters:
                yield kind, self.parameters[kind]


class Matcher:
    """Finds routes by path. A path costs at most as many steps as there are segments in all
    templates together, whatever it looks like."""

    def __init__(self, table: RouteTable) -> None:
        self._root = _Node()
        for route in table.routes:
            node = self._root
            for segment in route.segments:
                if segment.name:
                    node = node.parameters.setdefault(segment.type, _Node())
                else:
                    node = node.literals.setdefault(segment.text, _Node())
            node.routes.append(route)

    def find(self, path: str) -> tuple[Match, ...]:
        """All routes for a decoded path, whatever their methods; the best fit first. None for those
        that are the gateway's own."""
        if is_reserved(path):
            return ()
        return tuple(self._walk(self._root, path.split("/")[1:], 0, ()))

    def _walk(
        self, node: _Node, segments: list[str], at: int, values: tuple[Any, ...]
    ) -> Iterator[Match]:
        if at == len(segments):
            for route in node.routes:
                yield Match(route, values)
            return
        text = segments[at]
        literal = node.literals.get(text)
        if literal is not None:
            yield from self._walk(literal, segments, at + 1, values)
        if not text:
            return
        for kind, below in node.below():
            value = convert(text, kind)
            if value is not None:
                yield from self._walk(below, segments, at + 1, (*values, value))


def by_method(matches: tuple[Match, ...]) -> Mapping[str, Match]:
    """The best match for each method, HEAD by its own GET."""
    found: dict[str, Match] = {}
    for match in matches:
        for method in match.route.all_methods:
            found.setdefault(method, match)
    return found
