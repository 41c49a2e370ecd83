"""What kind of peer an instance is, learned from its replies."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING

from scamp.limits import MAX_TRAITS

InstanceKey = tuple[str, str]
"""Fingerprint and identity: one process of a service."""


class PeerKind(Enum):
    """How a peer treats `request_id`, and so how many requests it may be given at once."""

    UNKNOWN = "unknown"
    """No reply seen yet: one request per connection."""
    ECHOES = "echoes"
    """Replies carry our ids: many requests per connection."""
    RENUMBERS = "renumbers"
    """Replies are numbered by the peer: one request at a time per connection, for ever."""

    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


class TraitStore:
    """Remembers the kind of each instance for its later connections, bounded by MAX_TRAITS."""

    def __init__(self, capacity: int = MAX_TRAITS) -> None:
        self._capacity = capacity
        self._kinds: OrderedDict[InstanceKey, PeerKind] = OrderedDict()

    def kind(self, key: InstanceKey) -> PeerKind:
        """What was learned of the instance; UNKNOWN when nothing, or long ago."""
        return self._kinds.get(key, PeerKind.UNKNOWN)

    def learn(self, key: InstanceKey, kind: PeerKind) -> None:
        """Remember; UNKNOWN forgets."""
        self._kinds.pop(key, None)
        if kind is PeerKind.UNKNOWN:
            return
        self._kinds[key] = kind
        if len(self._kinds) > self._capacity:
            self._kinds.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kinds)
