"""What is known of one subscription, in the order in which it changed. Without I/O.

This is state, not a log: of each key there is the newest value alone, and that at the place of its
last change. So whoever has seen everything up to a position has missed exactly what stands behind
it, and what waits for a slow reader is a position, not a queue. Values that are gone keep a place
too, `MAX_GONE` of them; who has not seen those that were forgotten must begin afresh.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.events.topic import Topic

MEDIA_TYPE: Final = "text/event-stream"

MAX_VALUES: Final = 10_000
"""Values held: a browser has to take all of them at once, and our own services publish no more."""

MAX_HELD: Final = 4 * 1024 * 1024
"""Bytes of all values held, as events. Every browser that comes is sent all it asked for."""

MAX_GONE: Final = 1_000
"""Values that are gone and still remembered, so that who was away for a moment learns of it; fewer
where `MAX_HELD` is reached."""

PIECE: Final = 64 * 1024
"""Bytes handed to a connection at a time: what is in hand for one that does not take them."""

NOWHERE: Final = -1
"""The position of one who has seen nothing."""

_ID: Final = re.compile(r"(?P<epoch>[0-9a-f]{16})-(?P<position>[0-9]{1,15})")

_Name = tuple[str, str]


class TooManyValues(Exception):
    """More than `MAX_VALUES` or `MAX_HELD`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key's last change. `text` is the event; `value` where in it the JSON of the value is,
    None when it is gone."""

    position: int
    text: bytes
    value: slice | None


class Values:
    """The values of one subscription. Ids of its events are of no use with any other."""

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(8)
        self._entries: OrderedDict[_Name, Entry] = OrderedDict()  # by position
        self._gone: OrderedDict[_Name, None] = OrderedDict()  # likewise
        self._size = 0
        self.position = 0
        """Of the last change."""
        self.floor = 0
        """Of the last change that was forgotten."""

    def __len__(self) -> int:
        """Values, without those that are gone."""
        return len(self._entries) - len(self._gone)

    # -- changes ------------------------------------------------------------------------

    def put(self, code: str, key: str, value: Any) -> None:
        """Set a value; None deletes. Raises TooManyValues: then nothing here is of use."""
        name = (code, key)
        old = self._entries.pop(name, None)
        if old is not None:
            self._size -= len(old.text)
        self.position += 1
        entry = self._entries[name] = self._entry(code, key, value)
        self._size += len(entry.text)
        self._gone.pop(name, None)
        if value is None:
            self._gone[name] = None
        while self._gone and (len(self._gone) > MAX_GONE or self._size > MAX_HELD):
            self._forget()
        if len(self) > MAX_VALUES or self._size > MAX_HELD:
            raise TooManyValues

    def _forget(self) -> None:
        name, _ = self._gone.popitem(last=False)
        entry = self._entries.pop(name)
        self._size -= len(entry.text)
        self.floor = entry.position

    def _entry(self, code: str, key: str, value: Any) -> Entry:
        head = b'id: %b\nevent: change\ndata: {"code":%b,"key":%b,' % (
            self.event_id(self.position).encode(),
            orjson.dumps(code),
            orjson.dumps(key),
        )
        if value is None:
            return Entry(self.position, head + b'"deleted":true}\n\n', None)
        text = b'%b"value":%b}\n\n' % (head, orjson.dumps(value))
        return Entry(self.position, text, slice(len(head) + len(b'"value":'), -len(b"}\n\n")))

    # -- positions ----------------------------------------------------------------------

    def event_id(self, position: int) -> str:
        """What a client is given for a position."""
        return f"{self._epoch}-{position}"

    def resume(self, event_id: str) -> int:
        """The position that an id stands for; `NOWHERE` when it is none of ours, or too old."""
        match = _ID.fullmatch(event_id)
        if match is None or match["epoch"] != self._epoch:
            return NOWHERE
        position = int(match["position"])
        return position if position <= self.position and self.covers(position) else NOWHERE

    def covers(self, position: int) -> bool:
        """Whether everything that one at `position` has missed is still known."""
        return position >= self.floor

    # -- what is told -------------------------------------------------------------------

    def after(self, position: int) -> list[Entry]:
        """What changed after `position`, oldest first, as far as it makes one `PIECE`."""
        missed: list[Entry] = []
        for entry in reversed(self._entries.values()):
            if entry.position <= position:
                break
            missed.append(entry)
        size, wanted = 0, 0
        for entry in reversed(missed):
            size, wanted = size + len(entry.text), wanted + 1
            if size >= PIECE:
                break
        return missed[::-1][:wanted]

    def snapshot(self, topic: Topic) -> Iterator[bytes]:
        """The event with all values, in pieces; those of when each piece is asked for.

        It stands for the position at the first piece: what changes meanwhile is told once more.
        """
        names = orjson.dumps({"service": topic.service, "sector": topic.sector})[:-1]
        event_id = self.event_id(self.position).encode()
        keys: dict[str, list[str]] = {code: [] for code in topic.codes}
        for (code, key), entry in self._entries.items():
            if entry.value is not None:
                keys[code].append(key)
        parts = [b'id: %b\nevent: snapshot\ndata: %b,"codes":{' % (event_id, names)]
        size = 0
        for number, code in enumerate(topic.codes):
            parts += [b"," if number else b"", orjson.dumps(code), b":{"]
            comma = b""
            for key in keys.pop(code):
                value = self._value((code, key))
                if value is None:
                    continue
                parts += [comma, orjson.dumps(key), b":", value]
                comma = b","
                size += len(value)
                if size >= PIECE:
                    yield b"".join(parts)
                    parts, size = [], 0
            parts.append(b"}")
        yield b"".join((*parts, b"}}\n\n"))

    def _value(self, name: _Name) -> bytes | None:
        entry = self._entries.get(name)
        return None if entry is None or entry.value is None else entry.text[entry.value]


def bare_event(name: str, event_id: str) -> bytes:
    """An event without values. Without data a browser would not tell its script of it."""
    return f"id: {event_id}\nevent: {name}\ndata: {{}}\n\n".encode()
