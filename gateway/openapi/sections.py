"""What ``_meta.documentation`` says of actions, read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.openapi.schemas import MAX_SCHEMA, plain_text
from scamp.discovery import Announcement
from scamp.discovery.model import action_key, packed_actions

MAX_SUMMARY: Final = 200
MAX_DESCRIPTION: Final = 4000
"""Characters that are taken of each; the rest is cut off."""


@dataclass(frozen=True, slots=True)
class Section:
    """What is said of one action. Schemas are JSON, not looked at yet."""

    summary: str = ""
    description: str = ""
    request: bytes | None = None
    reply: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        schemas = len(self.request or b"") + len(self.reply or b"")
        return schemas + 2 * (len(self.summary) + len(self.description))


NOTHING: Final = Section()
Sections = Mapping[str, Section]
"""By `action_key`."""


def read_documentation(body: bytes, service: Announcement) -> dict[str, Section]:
    """The sections on actions that `service` announces; all else is passed over."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    entries = given.get("actions") if isinstance(given, dict) else None
    if not isinstance(entries, list):
        return {}
    sector = given.get("sector", service.sector)
    items = iter(packed_actions(service))
    own = {
        action_key(one[0], f"{one[1]}.{one[2]}", one[3])
        for one in zip(items, items, items, items, items, items, strict=True)
    }
    found: dict[str, Section] = {}
    for entry in entries:
        if isinstance(entry, dict):
            key = _key_of(entry, sector)
            if key in own and (section := _section(entry)) != NOTHING:
                found.setdefault(key, section)
    return found


def _key_of(entry: Mapping[str, Any], sector: object) -> str:
    name, version = entry.get("name"), entry.get("version", 1)
    return action_key(str(entry.get("sector", sector)), str(name), version)


def _section(entry: Mapping[str, Any]) -> Section:
    return Section(
        _text(entry.get("summary"), MAX_SUMMARY),
        _text(entry.get("description"), MAX_DESCRIPTION),
        _schema(entry.get("request")),
        _schema(entry.get("reply")),
    )


def _text(value: object, limit: int) -> str:
    return plain_text(value.strip(), limit) if isinstance(value, str) else ""


def _schema(value: object) -> bytes | None:
    if not isinstance(value, dict | bool):
        return None
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:  # it reads what is nested deeper than it can write
        return None
    return text if len(text) <= MAX_SCHEMA else None


def merged(snapshot: Iterable[Sections]) -> Sections:
    """One mapping out of all; the first that says something of an action counts."""
    found: dict[str, Section] = {}
    for sections in snapshot:
        for key, section in sections.items():
            found.setdefault(key, section)
    return found
