"""A harness for what services say of themselves, and for the document that comes of it."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.actions import Announced, announced
from gateway.openapi.document import build
from gateway.openapi.operations import Facts
from gateway.openapi.sections import MAX_DESCRIPTION, MAX_SUMMARY, read_documentation
from scamp.discovery import Action, Announcement, Offer

_ACTIONS: Final = tuple(Action("main", "A", name, 1, ("read",), ("json",)) for name in "bcd")
_SERVICE: Final = Announcement(
    *("s", "F", "main", 1, 5.0, "u", "h", 1), ("json",), _ACTIONS, 1.0
)  # fmt: skip
_ANNOUNCED: Final[list[Announced]] = [
    announced([Offer(_SERVICE, action)], 75.0) for action in _ACTIONS
]

DOCUMENTATIONS: Final = (
    b'{"service":"s","sector":"main","actions":[{"name":"A.b","version":1,"summary":"Does it",'
    b'"request":{"type":"object","properties":{"x":{"type":"string","pattern":"^a+$"}},'
    b'"required":["x"],"title":"T"},"reply":{"$defs":{"N":{"properties":{"n":{"$ref":"#/$defs/N"}'
    b'}}},"anyOf":[{"$ref":"#/$defs/N"},{"type":"null"}]}}]}',
    b'{"actions":[{"name":"A.c","version":1,"reply":{"enum":[1,"a",null],"title":"T"}},'
    b'{"name":"A.d","description":"Long","request":{"items":{"$ref":"#"},"type":["array"]}}]}',
)


def documentation(data: bytes) -> None:
    """Whatever is said, the document is JSON whose references all lead somewhere."""
    sections = read_documentation(data, _SERVICE)
    assert len(sections) <= len(_ACTIONS)
    for section in sections.values():
        assert len(section.summary) <= MAX_SUMMARY
        assert len(section.description) <= MAX_DESCRIPTION
    text = build(_ANNOUNCED, Facts(), sections=sections)
    assert text == build(reversed(_ANNOUNCED), Facts(), sections=sections)
    document = orjson.loads(text)
    left: list[Any] = [document]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if "$ref" in one:
                at: Any = document
                for step in one["$ref"].removeprefix("#/").split("/"):
                    at = at[step]
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
