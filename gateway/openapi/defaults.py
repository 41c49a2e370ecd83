"""Whether the defaults in a schema fit it, so far as that is plain to see. Pure.

One that does not fit makes the whole document invalid, for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

MAX_CHECKS: Final = 5000
"""Keywords and choices that are looked at for all defaults of one schema, some milliseconds."""

_NO_MATTER: Final = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly")
)
_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}
_LIMITS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "minimum": lambda value, wanted: bool(value >= wanted),
    "maximum": lambda value, wanted: bool(value <= wanted),
    "exclusiveMinimum": lambda value, wanted: bool(value > wanted),
    "exclusiveMaximum": lambda value, wanted: bool(value < wanted),
}
_SIZES: Final[Mapping[str, tuple[type, bool]]] = {
    "minLength": (str, True),
    "maxLength": (str, False),
    "minItems": (list, True),
    "maxItems": (list, False),
    "minProperties": (dict, True),
    "maxProperties": (dict, False),
}


class Defaults:
    """Looks at the defaults of one schema."""

    def __init__(self) -> None:
        self._left = MAX_CHECKS

    def fit(self, value: Any, schema: dict[str, Any] | bool) -> bool:
        """Whether `value` fits a schema as `schemas` makes them; False also where that takes more
        than a look, such as following a reference."""
        if isinstance(schema, bool):
            return schema
        return all(self._keyword(name, value, wanted) for name, wanted in schema.items())

    def _keyword(self, name: str, value: Any, wanted: Any) -> bool:
        self._left -= 1
        if self._left < 0:
            return False
        if name in _LIMITS:
            return not _TYPES["number"](value) or _LIMITS[name](value, wanted)
        if name in _SIZES:
            kind, least = _SIZES[name]
            size = len(value) if isinstance(value, kind) else wanted  # type: ignore[arg-type]  # has one
            return bool(size >= wanted if least else size <= wanted)
        return name in _NO_MATTER or self._shape(name, value, wanted)

    def _shape(self, name: str, value: Any, wanted: Any) -> bool:
        if name == "type":
            return any(_TYPES[one](value) for one in ([wanted] if type(wanted) is str else wanted))
        if name in ("enum", "const"):
            choices = wanted if name == "enum" else [wanted]
            self._left -= len(choices)
            return any(_text(one) == _text(value) for one in choices)
        if name == "anyOf":
            return any(self.fit(value, one) for one in wanted)
        if name == "items":
            return not isinstance(value, list) or all(self.fit(one, wanted) for one in value)
        if name == "required":
            return not isinstance(value, dict) or all(one in value for one in wanted)
        return name == "properties" and (
            not isinstance(value, dict)
            or all(self.fit(one, wanted[key]) for key, one in value.items() if key in wanted)
        )


def _text(value: Any) -> bytes:
    """In Python 1, 1.0 and true are equal."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
