"""Whether the ``default`` of a schema fits it, which validators of documents insist on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

_ANNOTATIONS: Final = frozenset(
    ("default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly")
)
_CHECKED: Final = _ANNOTATIONS | {"enum", "maximum", "minimum", "type"}
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


def default_fits(schema: Mapping[str, Any]) -> bool:
    """Whether the default is certain to fit; what takes a validator to tell does not count as such.

    `schema` is well formed and has one.
    """
    value = schema["default"]
    if not _CHECKED.issuperset(schema):
        return False
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(type(value) in _TYPES[kind] for kind in kinds):  # True is no number
        return False
    if "enum" in schema and orjson.dumps(value) not in map(orjson.dumps, schema["enum"]):
        return False
    if type(value) in _TYPES["number"]:
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True
