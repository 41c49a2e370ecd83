"""JSON Schemas that services give of their actions, made fit for a document.

Whoever may announce an action may write its schema, so it is not taken over but built anew: known
keywords with values of the right kind, references that lead somewhere, a bounded size. What has
anything else in it is left out as a whole; half a schema would say something that nobody meant.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import orjson

from gateway.openapi.defaults import Defaults
from scamp.limits import KIB

MAX_SCHEMA: Final = 64 * KIB
"""Bytes of one schema; pydantic's of a hundred fields has 10 KiB."""

MAX_NODES: Final = 2000
"""Schemas within one schema."""

MAX_DEPTH: Final = 32
"""Schemas within schemas; tools follow them by recursion."""

MAX_TEXT: Final = 1000
"""Characters of a title or description within a schema; the rest is cut off."""

MAX_PATTERN: Final = 500
"""Characters of a regular expression."""

Schema: TypeAlias = "dict[str, Any] | bool"

_TYPES: Final = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_POINTER: Final = re.compile(r"#/(?:\$defs|definitions)/([^/]+)")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WIDE: Final = re.compile(
    r"\\(?:u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[7-9A-Fa-f][0-9A-Fa-f]|N\{[^}]*\}|[0-3][0-7]{2})"
    r"|\\?[^\x00-\x7f]|(?P<plain>\\?[\x00-\x7f])",
    re.DOTALL,
)
warnings.filterwarnings("ignore", category=FutureWarning, module=re.escape(__name__))
ROOT: Final = ""
"""The name of a schema itself among its definitions, none of which may have it."""


class UnfitError(ValueError):
    """A schema that cannot be taken over."""


def plain_text(text: str, limit: int) -> str:
    """`text` without control characters, cut off at `limit` characters."""
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# -- reading one ------------------------------------------------------------------------


@dataclass(slots=True)
class Part:
    """A schema or one of its definitions, references still within itself."""

    schema: Schema
    refs: list[tuple[dict[str, Any], str, str]] = field(default_factory=list)
    """Who refers: the object, its key, and the definition's name; `ROOT` is the whole."""


def read_schema(text: bytes) -> dict[str, Part]:
    """The schema and its definitions by name, the whole itself as ``""``. Raises UnfitError."""
    if len(text) > MAX_SCHEMA:
        raise UnfitError(f"larger than {MAX_SCHEMA} bytes")
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise UnfitError(f"not JSON: {exc}") from exc
    return _Reader().read(given)


class _Reader:
    """Reads one schema, counting."""

    def __init__(self) -> None:
        self._nodes = 0
        self._defaults = Defaults()
        self._part = Part(True)
        self._name = ROOT
        self._at_once: dict[str, set[str]] = {}
        """Definitions by those that apply them to the same value: a circle would never end."""

    def read(self, given: object) -> dict[str, Part]:
        definitions: dict[str, Any] = {}
        if isinstance(given, dict):
            for keyword in ("$defs", "definitions"):
                definitions |= _mapping(given.get(keyword, {}))
        parts: dict[str, Part] = {}
        for name, value in ((ROOT, given), *definitions.items()):
            self._name, self._part = name, Part(True)
            self._at_once[name] = set()
            self._part.schema = self._schema(value, 0, at_once=True)
            if name in parts:
                raise UnfitError("a definition without a name")
            parts[name] = self._part
        if any(name not in parts for part in parts.values() for _, _, name in part.refs):
            raise UnfitError("a reference that leads nowhere")
        try:
            TopologicalSorter(self._at_once).prepare()
        except CycleError as exc:
            raise UnfitError("a schema that is defined by itself") from exc
        return parts

    def _schema(self, given: object, depth: int, *, at_once: bool) -> Schema:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise UnfitError("too many schemas in one")
        if isinstance(given, bool):
            return given
        made: dict[str, Any] = {}
        for keyword, value in _mapping(given).items():
            if keyword == "$ref":
                self._refer(made, keyword, value, at_once=at_once)
            elif keyword == "discriminator":
                made[keyword] = self._discriminator(value)
            elif keyword in _SCHEMA:
                inner = at_once and keyword in _SAME_VALUE
                made[keyword] = self._schema(value, depth + 1, at_once=inner)
            elif keyword in _SCHEMAS:
                inner = at_once and keyword in _SAME_VALUE
                made[keyword] = [
                    self._schema(one, depth + 1, at_once=inner) for one in _some(value)
                ]
            elif keyword in _SCHEMA_MAP:
                inner = at_once and keyword in _SAME_VALUE
                made[keyword] = {
                    _regex(name) if keyword == "patternProperties" else name: self._schema(
                        one, depth + 1, at_once=inner
                    )
                    for name, one in _mapping(value).items()
                }
            elif keyword in _VALUES:
                made[keyword] = _VALUES[keyword](value)
            elif keyword in _REFUSED:
                raise UnfitError(f"{keyword} is not understood")
        if "default" in made and not self._defaults.fit(made["default"], made):
            del made["default"]
        return made

    def _refer(self, holder: dict[str, Any], key: str, value: object, *, at_once: bool) -> None:
        name = ROOT
        if value != "#":
            match = _POINTER.fullmatch(unquote(_text(value)))
            if match is None:
                raise UnfitError("a reference to elsewhere")
            name = match[1].replace("~1", "/").replace("~0", "~")
        holder[key] = f"#/$defs/{name}"
        self._part.refs.append((holder, key, name))
        if at_once:
            self._at_once[self._name].add(name)

    def _discriminator(self, given: object) -> dict[str, Any]:
        known = _mapping(given)
        made: dict[str, Any] = {"propertyName": _text(known.get("propertyName"))}
        mapping: dict[str, Any] = {}
        for value, target in _mapping(known.get("mapping", {})).items():
            self._refer(mapping, value, target, at_once=False)
        return {**made, "mapping": mapping} if mapping else made


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnfitError("not an object where one has to be")
    return value


def _some(value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UnfitError("not a list with something in it where one has to be")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UnfitError("not a text where one has to be")
    return value


def _shown(value: object) -> str:
    return plain_text(_text(value), MAX_TEXT)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnfitError("not true or false where it has to be")
    return value


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError("not a number where one has to be")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UnfitError("not a count where one has to be")
    return value


def _step(value: object) -> int | float:
    if _number(value) <= 0:
        raise UnfitError("multipleOf is not above 0")
    return _number(value)


def _types(value: object) -> str | list[str]:
    if isinstance(value, list):
        names = sorted({_text(one) for one in _some(value)})
        if not _TYPES.issuperset(names):
            raise UnfitError("a type that there is not")
        return names
    if _text(value) not in _TYPES:
        raise UnfitError("a type that there is not")
    return _text(value)


def _names(value: object) -> list[str]:
    if not isinstance(value, list):
        raise UnfitError("not a list where one has to be")
    return sorted({_text(one) for one in value})


def _names_by_name(value: object) -> dict[str, list[str]]:
    return {name: _names(one) for name, one in _mapping(value).items()}


def _regex(value: object) -> str:
    pattern = _text(value)
    if len(pattern) > MAX_PATTERN:
        raise UnfitError("a regular expression that is too long")
    try:
        re.compile(_narrowed(pattern))
    except FutureWarning:  # where warnings are errors: of a set that Python may read anew one day
        pass
    except (re.error, OverflowError, RecursionError) as exc:
        raise UnfitError("a regular expression that is none") from exc
    return pattern


def _narrowed(pattern: str) -> str:
    """An expression of the same shape in ASCII, in which all other characters are one.

    Python goes through every character of a range when it compiles a set: with ranges over all of
    Unicode 500 characters take more than a second.
    """
    return _WIDE.sub(lambda found: found["plain"] or "\x7f", pattern)


def _any(value: object) -> object:
    """A value that stands for itself; tools may follow a ``$ref`` in it all the same."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if "$ref" in one:
                raise UnfitError("a value with a reference in it")
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return value


_SCHEMA: Final = frozenset(
    (
        *("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames"),
        *("then", "unevaluatedItems", "unevaluatedProperties"),
    )
)
_SCHEMAS: Final = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_SCHEMA_MAP: Final = frozenset(("dependentSchemas", "patternProperties", "properties"))
_SAME_VALUE: Final = frozenset(
    ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
)
_REFUSED: Final = frozenset(
    ("$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveRef", "id")
)
_VALUES: Final[Mapping[str, Callable[[object], object]]] = {
    **dict.fromkeys(("title", "description"), _shown),
    **dict.fromkeys(("contentEncoding", "contentMediaType", "format"), _text),
    **dict.fromkeys(("deprecated", "readOnly", "uniqueItems", "writeOnly"), _flag),
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"), _number),
    **dict.fromkeys(("maxContains", "maxItems", "maxLength", "maxProperties"), _count),
    **dict.fromkeys(("minContains", "minItems", "minLength", "minProperties"), _count),
    **dict.fromkeys(("enum", "examples"), lambda value: _any(_some(value))),
    **dict.fromkeys(("const", "default"), _any),
    "multipleOf": _step,
    "pattern": _regex,
    "required": _names,
    "dependentRequired": _names_by_name,
    "type": _types,
}
