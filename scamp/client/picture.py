"""What a subscriber knows: the newest value under each code and key, and what it was not yet told.

Without I/O. A picture never mixes two connections: the values that a new one begins with are
gathered apart, and when they are complete they replace the old ones in one step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from scamp.errors import RemoteProtocolError
from scamp.limits import MAX_SUBSCRIBED, MAX_SUBSCRIBED_KEYS
from scamp.wire.subdata import NULL, Record

_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Changed:
    """A value that is new or another than before. `value` is parsed JSON, None when it is gone."""

    code: str
    key: str
    value: Any

    @property
    def deleted(self) -> bool:
        """True when the service has taken the value back."""
        return self.value is None


class _Values:
    """Canonical JSON by code and key, bounded."""

    __slots__ = ("by_name", "size")

    def __init__(self) -> None:
        self.by_name: dict[_Name, bytes] = {}
        self.size = 0

    def put(self, name: _Name, value: bytes) -> bool:
        """Set or delete; False when nothing changes. Raises RemoteProtocolError at a limit."""
        old = self.by_name.get(name)
        if value == (NULL if old is None else old):
            return False
        if old is not None:
            self.size -= _cost(name, old)
            del self.by_name[name]
        if value != NULL:
            self.by_name[name] = value
            self.size += _cost(name, value)
            if len(self.by_name) > MAX_SUBSCRIBED_KEYS:
                raise RemoteProtocolError(f"more than {MAX_SUBSCRIBED_KEYS} values")
            if self.size > MAX_SUBSCRIBED:
                raise RemoteProtocolError(f"more than {MAX_SUBSCRIBED} bytes of values")
        return True


def _cost(name: _Name, value: bytes) -> int:
    return len(name[0]) + len(name[1]) + len(value)


class Picture:
    """The values of one subscription, over all its connections."""

    def __init__(self, codes: Iterable[str]) -> None:
        self._codes = frozenset(codes)
        self._values = _Values()
        self._fresh: _Values | None = None
        self._untold: OrderedDict[_Name, None] = OrderedDict()
        self._told: set[_Name] = set()

    # -- from the service ---------------------------------------------------------------

    def begin(self) -> None:
        """A new connection: until `complete` all records are those that it begins with."""
        self._fresh = _Values()

    def apply(self, records: Iterable[Record]) -> int:
        """What an event said; returns how many records are none of ours.

        Raises RemoteProtocolError when there is more than a subscription may hold.
        """
        strange = 0
        for record in records:
            name = (record.code, record.key)
            if record.code not in self._codes:
                strange += 1
            elif self._fresh is not None:
                self._fresh.put(name, record.value)
            elif self._values.put(name, record.value):
                self._note(name)
        return strange

    def complete(self) -> None:
        """All values of now are here. Those that differ from what was known are changes."""
        fresh, self._fresh = self._fresh, None
        if fresh is None:
            return
        old, self._values = self._values, fresh
        for name in old.by_name:
            if name not in fresh.by_name:
                self._note(name)
        for name, value in fresh.by_name.items():
            if old.by_name.get(name) != value:
                self._note(name)

    def _note(self, name: _Name) -> None:
        if name in self._values.by_name or name in self._told:
            self._untold[name] = None
            # What is told last was published last, unless so much waits that most of it is values
            # that are gone: then each keeps its place, or they could be put off, and pile up, for
            # ever.
            if len(self._untold) <= MAX_SUBSCRIBED_KEYS:
                self._untold.move_to_end(name)
        else:
            self._untold.pop(name, None)  # came and went before anybody was told

    # -- for the subscriber -------------------------------------------------------------

    def next_change(self) -> Changed | None:
        """The change that was noted first, with the value of now; None when all were told."""
        if not self._untold:
            return None
        name, _ = self._untold.popitem(last=False)
        value = self._values.by_name.get(name)
        if value is None:
            self._told.discard(name)
        else:
            self._told.add(name)
        return Changed(*name, None if value is None else orjson.loads(value))

    @property
    def untold(self) -> int:
        """Changes that `next_change` would give."""
        return len(self._untold)

    def value(self, code: str, key: str) -> Any:
        """The value, or None."""
        value = self._values.by_name.get((code, key))
        return None if value is None else orjson.loads(value)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """All values by code and key; a copy."""
        found: dict[str, dict[str, Any]] = {}
        for (code, key), value in self._values.by_name.items():
            found.setdefault(code, {})[key] = orjson.loads(value)
        return found

    def __len__(self) -> int:
        return len(self._values.by_name)
