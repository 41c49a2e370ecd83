"""Where the schemas of a document are, and under which names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import orjson

from gateway.openapi.schemas import ROOT, Part, Schema, UnfitError, read_schema
from scamp.limits import MIB

MAX_ALL_SCHEMAS: Final = 8 * MIB
"""Bytes of all schemas of one document."""

MAX_STEPS: Final = 10_000
"""How many others the definitions of one schema lead to, all of them together: each is compared
with all that it leads to. A hundred may all lead to each other."""

STEP_COST: Final = 16
"""Bytes of the room for schemas that one of these takes, since it takes time."""

_NOT_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_PREFIX: Final = "#/components/schemas/"


class Components:
    """``components/schemas`` of one document: definitions with names that are theirs alone.

    Equal definitions of one namespace are one. Which of two different ones keeps the plain name
    depends on the order in which they come, and on nothing else.
    """

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}
        self.left_out = 0
        """Schemas that were no good or for which there was no room."""
        self._digests: dict[str, str] = {}
        self._size = 0

    def add(self, text: bytes | None, namespace: str, name: str) -> Schema | None:
        """What stands for the schema `text` where it is used; None when it is left out.

        An object becomes a component, named for its title or else `name`; anything else stands
        where it is used, with its definitions as components.
        """
        if text is None:
            return None
        try:
            parts = self._read(text)
        except UnfitError:
            self.left_out += 1
            return None
        return self._place(parts, namespace, name)

    def _read(self, text: bytes) -> dict[str, Part]:
        """Counts also what turns out to be no good: reading it has taken its time."""
        if self._size + len(text) > MAX_ALL_SCHEMAS:
            raise UnfitError("no room")
        self._size += len(text)
        parts = read_schema(text)
        steps = _steps(parts)
        self._size += STEP_COST * steps
        if steps > MAX_STEPS:
            raise UnfitError("too many definitions that lead to each other")
        return parts

    def resolve(self, schema: Schema | None) -> dict[str, Any]:
        """The schema itself where `schema` is a reference that `add` gave; empty for none."""
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        found = self.schemas[reference.removeprefix(_PREFIX)] if reference else schema
        return found if isinstance(found, dict) else {}

    def _place(self, parts: dict[str, Part], namespace: str, name: str) -> Schema:
        root = parts[ROOT]
        schema = root.schema
        reached = _reach(parts, ROOT)
        hoisted = sorted(reached - {ROOT})
        if isinstance(schema, dict) and ("properties" in schema or _refers(parts, reached, ROOT)):
            hoisted.append(ROOT)
        title = schema.get("title", name) if isinstance(schema, dict) else name
        places = {
            one: self._name_for(parts, one, namespace, one or title or name) for one in hoisted
        }
        for one in reached:
            for holder, key, target in parts[one].refs:
                holder[key] = f"{_PREFIX}{places[target]}"
        for one in hoisted:
            self.schemas[places[one]] = _untitled(parts[one].schema)
        return {"$ref": f"{_PREFIX}{places[ROOT]}"} if ROOT in places else schema

    def _name_for(self, parts: dict[str, Part], part: str, namespace: str, name: str) -> str:
        content = {one: parts[one].schema for one in _reach(parts, part) if one != part}
        digest = sha256(
            orjson.dumps([parts[part].schema, content], option=orjson.OPT_SORT_KEYS)
        ).hexdigest()[:16]
        full = f"{namespace}.{_NOT_NAME.sub('_', name)[:80]}"
        if self._digests.setdefault(full, digest) != digest:
            full = f"{full}-{digest}"
            self._digests[full] = digest
        return full


def _untitled(schema: Schema) -> Schema:
    """A component has its name; by their titles generators would take two for one."""
    if isinstance(schema, bool):
        return schema
    return {keyword: value for keyword, value in schema.items() if keyword != "title"}


def _reach(parts: Mapping[str, Part], start: str) -> set[str]:
    """Everything that `start` refers to, over any number of steps, and itself."""
    found, left = {start}, [start]
    while left:
        for _, _, name in parts[left.pop()].refs:
            if name not in found:
                found.add(name)
                left.append(name)
    return found


def _steps(parts: Mapping[str, Part]) -> int:
    """How much there is to `_reach`, from all parts together; stops soon after `MAX_STEPS`."""
    steps = 0
    for one in parts:
        steps += len(_reach(parts, one))
        if steps > MAX_STEPS:
            break
    return steps


def _refers(parts: Mapping[str, Part], among: Iterable[str], target: str) -> bool:
    return any(name == target for one in among for _, _, name in parts[one].refs)
