"""From the text of a routes file to a `RouteTable`: all of it, or every reason why not."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gateway.ratelimit.rate import Rate
from gateway.routes.entries import (
    ALL,
    Query,
    QueryEntry,
    ResourceEntry,
    RouteEntry,
    RoutesFile,
    Shared,
)
from gateway.routes.explain import explain
from gateway.routes.model import (
    WHOLE_BODY,
    Parameter,
    Route,
    RouteTable,
    Segment,
)
from gateway.routes.places import Places
from gateway.routes.template import BadEntry, member_of, path_parameters_of, segments_of, target_of
from gateway.translate import JSON_TYPE
from scamp.errors import ConfigError

MAX_FILE: Final = 4 << 20
"""A routes file larger than this is not read."""

MAX_ROUTES: Final = 10_000
"""Routes in one file; each costs some KiB, and a line in every description."""

MAX_TOLD: Final = 100
"""Mistakes that are named one by one."""

MAX_NESTED: Final = 32
"""Tables and arrays in each other, in defaults; JSON is not written at any depth."""

_WITH_BODY: Final = frozenset(("POST", "PUT", "PATCH"))
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

_WORDS: Final = (("path", segments_of), ("action", partial(target_of, "action")))
"""Keys with a grammar of their own, and what reads it."""

_ANYTHING: Final[Query] = {ALL: QueryEntry()}

_VERBS: Final = (
    # verb, alias, methods, below the id, status
    ("list", "_read", ("GET",), False, 200),
    ("create", "_create", ("POST",), False, 201),
    ("read", "_read", ("GET",), True, 200),
    ("update", "_update", ("PUT", "PATCH"), True, 200),
    ("destroy", "_destroy", ("DELETE",), True, 200),
)


def load_routes(path: Path) -> RouteTable:
    """Read a routes file; blocks. Raises `ConfigError`, one ``FILE:LINE: reason`` per line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
    if len(content) > MAX_FILE:
        raise ConfigError(f"{path}: larger than {MAX_FILE} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8, at byte {exc.start}") from exc
    return parse_routes(text, str(path))


def parse_routes(text: str, name: str = "routes") -> RouteTable:
    """The routes of a text; `name` is that of the file, for messages. Raises `ConfigError`."""
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        place = _TOML_PLACE.search(str(exc))
        line = place[1] if place and place[1] else len(text.splitlines())
        raise ConfigError(f"{name}:{line}: {_TOML_PLACE.sub('', str(exc))}") from exc
    except ValueError as exc:  # Python does not read numbers of thousands of digits
        raise ConfigError(f"{name}: a number has too many digits") from exc
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None
    loader = _Loader(name, Places(text))
    loader.take(parsed)
    if problems := loader.told():
        told = [f"{name}:{line}: {reason}" for line, reason in problems[:MAX_TOLD]]
        if len(problems) > MAX_TOLD:
            told.append(f"{name}: and {len(problems) - MAX_TOLD} more like these")
        raise ConfigError("\n".join(told))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return RouteTable(tuple(loader.routes), digest)


class _Loader:
    """Collects routes, and every problem instead of the first one."""

    def __init__(self, name: str, places: Places) -> None:
        self.routes: list[Route] = []
        self.problems: list[tuple[int, str]] = []
        """Each with its line."""
        self._name = name
        self._places = places
        self._taken: dict[tuple[str, tuple[tuple[str, str], ...]], Route] = {}

    def take(self, parsed: dict[str, Any]) -> None:
        """Everything of the file, in its order. What is wrong with one entry hides nothing that is
        wrong with another, nor with its path and action."""
        refused = self._refused(parsed)
        for index, entry in self._entries(parsed, "routes", refused):
            route = RouteEntry.model_validate(entry)
            with self._noting("routes", index):
                self._add(self._route(route, self._origin("routes", index)))
        for index, entry in self._entries(parsed, "resources", refused):
            resource = ResourceEntry.model_validate(entry)
            with self._noting("resources", index):
                self._add(self._resource(resource, self._origin("resources", index)))

    def _refused(self, parsed: dict[str, Any]) -> set[tuple[str | int, ...]]:
        """Tables, and entries by table and number, that are not of the form."""
        try:
            RoutesFile.model_validate(parsed)
        except ValidationError as exc:
            self.problems += explain(exc, self._places)
            return {error["loc"][:2] for error in exc.errors(include_url=False)}
        return set()

    def _entries(
        self, parsed: dict[str, Any], table: str, refused: set[tuple[str | int, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """Those whose form, path and action are good, with their numbers."""
        if (table,) in refused:
            return
        for index, entry in enumerate(parsed.get(table, ())):
            told = len(self.problems)
            for key, read in _WORDS:
                if isinstance(entry, dict) and isinstance(text := entry.get(key), str):
                    with self._noting(table, index):
                        read(text)
            if told == len(self.problems) and (table, index) not in refused:
                yield index, entry

    def _origin(self, table: str, index: int) -> str:
        return f"{self._name}:{self._places.line(table, index)}"

    def told(self) -> list[tuple[int, str]]:
        """All problems in the order of the file."""
        return sorted(self.problems, key=lambda problem: problem[0])

    @contextmanager
    def _noting(self, table: str, index: int) -> Iterator[None]:
        try:
            yield
        except BadEntry as exc:
            self.problems.append((self._places.line(table, index, exc.key), str(exc)))

    def _add(self, routes: Iterator[Route]) -> None:
        for route in routes:
            if len(self.routes) >= MAX_ROUTES:
                raise BadEntry("path", f"more than {MAX_ROUTES} routes in one file")
            for method in route.methods:
                other = self._taken.setdefault((method, route.shape), route)
                if other is not route:
                    raise BadEntry(
                        "path",
                        f"{method} {route.template} is taken by {other.template} at {other.origin}",
                    )
            self.routes.append(route)

    # -- routes -------------------------------------------------------------------------

    def _route(self, entry: RouteEntry, origin: str) -> Iterator[Route]:
        segments = segments_of(entry.path)
        target = target_of("action", entry.action)
        path = path_parameters_of(segments, entry.members)
        for method in dict.fromkeys(entry.method):
            body = entry.body or (WHOLE_BODY if method in _WITH_BODY else None)
            if method == "GET" and body is not None:
                raise BadEntry("body", "a GET has no body")
            query = entry.query
            if query is None:
                query = {} if body is not None else _ANYTHING
            route = Route(
                methods=(method,),
                segments=segments,
                target=target,
                origin=origin,
                path_parameters=path,
                query_parameters=_query_parameters(query),
                body=body,
                envelope=entry.envelope,
                consumes=tuple(entry.consumes),
                produces=entry.produces,
                status=entry.status,
                summary=entry.summary,
            )
            yield _checked(_shared(route, entry))

    # -- resources ----------------------------------------------------------------------

    def _resource(self, entry: ResourceEntry, origin: str) -> Iterator[Route]:
        collection = segments_of(entry.path)
        if any(segment.name == entry.id for segment in collection):
            raise BadEntry("id", f"{{{entry.id}}} is in the path already")
        item = (*collection, Segment(name=entry.id, type=entry.id_type))
        for verb, alias, methods, below, status in _VERBS:
            chosen = getattr(entry, "list_" if verb == "list" else verb)
            if chosen is False:
                continue
            segments = item if below else collection
            with_body = methods[0] in _WITH_BODY
            query = entry.query if entry.query is not None and verb == "list" else None
            if query is None:
                query = {} if with_body else _ANYTHING
            route = Route(
                methods=methods,
                segments=segments,
                target=member_of(entry, verb, chosen or alias),
                origin=origin,
                path_parameters=path_parameters_of(segments, {}),
                query_parameters=_query_parameters(query),
                body=WHOLE_BODY if with_body else None,
                status=status,
                expected=chosen is not None,
            )
            yield _checked(_shared(route, entry))


def _shared(route: Route, entry: Shared) -> Route:
    return replace(
        route,
        timeout=entry.timeout,
        retry=entry.retry,
        ticket=entry.ticket,
        rate=_rate(entry.rate) if entry.rate is not None else None,
        defaults=_plain(entry.defaults),
        description=entry.description,
    )


def _rate(text: str) -> Rate:
    try:
        return Rate.parse(text)
    except ValueError as exc:
        raise BadEntry("rate", f"{text!r}: {exc}") from None


def _plain(defaults: dict[str, Any]) -> dict[str, Any]:
    """TOML has dates, and numbers that are none; JSON has not."""
    for name, value in defaults.items():
        if not _is_json(value):
            raise BadEntry("defaults", f"{name}: not a value that JSON has")
    return defaults


def _is_json(value: object, depth: int = 0) -> bool:
    if depth > MAX_NESTED:
        return False
    if isinstance(value, dict):
        return all(_is_json(one, depth + 1) for one in value.values())
    if isinstance(value, list):
        return all(_is_json(one, depth + 1) for one in value)
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")
    if isinstance(value, int):
        return abs(value) < 1 << 63
    return isinstance(value, str)


def _checked(route: Route) -> Route:
    """What the parts of a route do to each other."""
    members = [one.member for one in (*route.path_parameters, *(route.query_parameters or ()))]
    if route.body not in (None, WHOLE_BODY):
        members.append(str(route.body))
    for member, count in Counter(members).items():
        if count > 1:
            raise BadEntry("path", f"the member {member!r} is given twice")
    if route.body is None and (route.consumes or route.envelope not in (None, "json")):
        raise BadEntry(
            "consumes" if route.consumes else "envelope", "there is no body that it is for"
        )
    raw = route.envelope not in (None, "json") or not all(map(_is_json_type, route.consumes))
    if raw and (members or route.defaults or route.query_parameters is None):
        raise BadEntry(
            "consumes" if route.consumes else "envelope",
            "a body that is not JSON goes through as it is: there is no place for path and query "
            "parameters, defaults or a member",
        )
    return route


def _is_json_type(media_type: str) -> bool:
    return media_type == JSON_TYPE or media_type.endswith("+json")


# -- parts ------------------------------------------------------------------------------


def _query_parameters(query: Query) -> tuple[Parameter, ...] | None:
    if ALL in query:
        return None
    return tuple(
        Parameter(name, one.member or name, one.type, one.required, one.many, one.description)
        for name, one in query.items()
    )
