"""What pydantic found wrong in a routes file, in our words and with the line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel, ValidationError

from gateway.routes.entries import QueryEntry, ResourceEntry, RouteEntry, RoutesFile
from gateway.routes.places import Places
from gateway.sources import suggest

_MISSING: Final = "is missing"


def explain(exc: ValidationError, places: Places) -> Iterator[tuple[int, str]]:
    """A line and a reason for each thing."""
    for error in exc.errors(include_url=False, include_context=False):
        loc = error["loc"]
        message = error["msg"].removeprefix("Value error, ")
        keys = [str(part) for part in loc if isinstance(part, str)]
        if len(loc) < 2 or not isinstance(loc[1], int):
            line, known = places.top.get(keys[0], 1), list(RoutesFile.model_fields)
        else:
            line = places.line(keys[0], loc[1], keys[1] if len(keys) > 1 else None)
            known = _keys_of(RouteEntry if keys[0] == "routes" else ResourceEntry)
        if error["type"] == "extra_forbidden":
            key = keys[-1]
            hint = suggest(key, known if len(keys) <= 2 else _keys_of(QueryEntry))
            yield line, f"there is no key {key!r}{hint}"
        else:
            shown = ".".join(keys[1:]) or keys[0]
            if error["type"] == "missing":
                message = _MISSING
            yield line, f"{shown}: {message[:1].lower()}{message[1:]}"


def _keys_of(entry: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in entry.model_fields.items()]
