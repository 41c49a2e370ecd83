"""What is alive on the network, from announcements as they are heard: the rules, without I/O.

**Known by** fingerprint and identity; the newest announcement of a service counts. It lives 2.1 of
its intervals from when it was *heard* (an interval below `MIN_INTERVAL` or above `MAX_INTERVAL`
counts as that), whatever clock the service has. A record that is heard again byte for byte, as
JavaScript repeats its packets, is not verified again.

**Replay**: a record older than the newest of its service is refused, remembered when the service is
gone too. `loader.REPLAY_TOLERANCE` is granted for Go, which steps back within a second; but not
to a service that has left, or its last words before leaving would call it back. (A service that
died without a word can be kept alive by whoever repeats its last packet. Nobody can tell that from
a JavaScript service, which does the same.)

**Leaving** is weight 0, whatever actions are announced: the service is gone at once.

**Time in which nobody listened** counts for no service's death: when more than `MAX_GAP` passes
between two calls, all lives are longer by that much.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from scamp import limits
from scamp.discovery.announcement import identity_hint, parse_announcement, parse_renewed
from scamp.discovery.cachefile import SEPARATOR
from scamp.discovery.loader import REPLAY_TOLERANCE
from scamp.discovery.model import Announcement, count_actions, held_actions
from scamp.discovery.pace import no_pause
from scamp.discovery.registry import Key
from scamp.errors import AnnouncementError

LIFETIME: Final = 2.1
"""Intervals for which an announcement is good. Protocol: section 6."""

MIN_INTERVAL: Final = 1.0
MAX_INTERVAL: Final = 3600.0
"""Seconds. Services announce every 2.5 or 5; a service that says less or more than these is taken
to have said these."""

MAX_GAP: Final = 3.0
"""Seconds between two calls after which it is us who were away, not the services."""


class Kind(enum.Enum):
    """What came of an announcement."""

    NEW = "new"
    CHANGED = "changed"
    RENEWED = "renewed"  # nothing but the time differs
    REPEATED = "repeated"  # the very same record
    LEFT = "left"  # it was known, and is leaving
    AWAY = "away"  # it is leaving, and was not known (any more)
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Heard:
    """One announcement that was accepted. `before` is what was known of the service."""

    kind: Kind
    service: Announcement
    before: Announcement | None = None


@dataclass(slots=True)
class _Held:
    raw: bytes
    service: Announcement
    newest: float
    expires: float


@dataclass(frozen=True, slots=True)
class _Past:
    """A service that is gone: the newest timestamp that it had, and whether it said goodbye."""

    newest: float
    left: bool


_NEVER: Final = _Past(-math.inf, False)


class LiveIndex:
    """The services that are alive. Pure: `now` is in seconds of any clock that never steps back.

    To be used by one thread at a time. At most `limits.MAX_SERVICES` services with
    `limits.MAX_ACTIONS` actions and `limits.MAX_CACHE_FILE` bytes are held: those that are there
    stay, new ones are refused. `pause` is called while there is much to read.
    """

    def __init__(self, pause: Callable[[], None] = no_pause) -> None:
        self._pause = pause
        self._held: dict[Key, _Held] = {}
        self._by_raw: dict[bytes, Key] = {}
        self._by_identity: dict[str, Key] = {}
        self._past: dict[Key, _Past] = {}
        self._actions = 0
        self._size = 0
        self._next = math.inf
        self._last: float | None = None
        self.verified: int = 0
        """Records whose signature was checked."""

    def __len__(self) -> int:
        return len(self._held)

    def services(self) -> Collection[Announcement]:
        """All that are alive."""
        return [held.service for held in self._held.values()]

    def records(self) -> list[bytes]:
        """Their records as they were signed, in an order that does not depend on who spoke
        first."""
        return [self._held[key].raw for key in sorted(self._held)]

    @property
    def next_expiry(self) -> float:
        """When to call `expire` next; nothing expires before. Infinite when nothing can."""
        return self._next

    def hear(self, raw: bytes, now: float) -> Heard:
        """Take a record. Checks its signature, unless it is known byte for byte.

        Raises `AnnouncementError`, with reason ``replay`` for one that is too old, ``limit`` for
        one that has no room, and as `parse_announcement` does.
        """
        self._wake(now)
        key = self._by_raw.get(raw)
        if key is not None:
            held = self._held[key]
            self._keep_until(held, now)
            return Heard(Kind.REPEATED, held.service, held.service)
        service = self._verify(raw)
        self._refuse_replay(service)
        if service.weight == 0:
            return self._leave(service)
        return self._take(raw, service, now)

    def expire(self, now: float) -> tuple[Heard, ...]:
        """Take out those that were silent for too long."""
        self._wake(now)
        if now < self._next:
            return ()
        silent = [key for key, held in self._held.items() if held.expires <= now]
        gone = tuple(Heard(Kind.EXPIRED, service, service) for service in map(self._remove, silent))
        self._next = min((held.expires for held in self._held.values()), default=math.inf)
        return gone

    # -- steps --------------------------------------------------------------------------

    def _wake(self, now: float) -> None:
        gap = 0.0 if self._last is None else now - self._last
        self._last = now
        if gap > MAX_GAP:
            for held in self._held.values():
                held.expires += gap
            self._next += gap

    def _verify(self, raw: bytes) -> Announcement:
        self.verified += 1
        key = self._by_identity.get(identity_hint(raw) or "")
        if key is not None:
            known = self._held[key]
            renewed = parse_renewed(raw, known.raw, known.service)
            if renewed is not None:
                return renewed
        service = parse_announcement(raw, pause=self._pause)
        if SEPARATOR in b"\n%b\n" % raw:
            # Cannot be in a record that parses; but a cache file would be torn apart by it.
            raise AnnouncementError("malformed", "contains the cache file's separator")
        return service

    def _refuse_replay(self, service: Announcement) -> None:
        held = self._held.get(service.key)
        if held is not None:
            behind, tolerance = held.newest - service.timestamp, REPLAY_TOLERANCE
        else:
            past = self._past.get(service.key, _NEVER)
            behind, tolerance = past.newest - service.timestamp, 0.0
            if service.weight == 0:
                tolerance = REPLAY_TOLERANCE
            elif past.left and behind == 0:
                raise AnnouncementError("replay", "from the moment at which the service left")
        if behind > tolerance:
            raise AnnouncementError("replay", f"{behind:.1f} s older than the newest heard")

    def _leave(self, service: Announcement) -> Heard:
        key = service.key
        before = self._remove(key) if key in self._held else None
        self._remember(key, service.timestamp, left=True)
        return Heard(Kind.AWAY if before is None else Kind.LEFT, service, before)

    def _take(self, raw: bytes, service: Announcement, now: float) -> Heard:
        key = service.key
        held = self._held.get(key)
        actions, size = count_actions(service), len(raw)
        if held is not None:
            actions, size = actions - count_actions(held.service), size - len(held.raw)
        self._refuse_excess(actions, size, new=held is None)
        self._actions += actions
        self._size += size
        self._by_raw[raw] = key
        if held is None:
            self._past.pop(key, None)
            held = _Held(raw, service, service.timestamp, 0.0)
            self._held[key] = held
            self._by_identity[service.identity] = key
            self._keep_until(held, now)
            return Heard(Kind.NEW, service)
        before = held.service
        del self._by_raw[held.raw]
        held.raw, held.service = raw, service
        held.newest = max(held.newest, service.timestamp)
        self._keep_until(held, now)
        same = _says_the_same(before, service)
        return Heard(Kind.RENEWED if same else Kind.CHANGED, service, before)

    def _refuse_excess(self, actions: int, size: int, *, new: bool) -> None:
        if new and len(self._held) >= limits.MAX_SERVICES:
            raise AnnouncementError("limit", f"more than {limits.MAX_SERVICES} services")
        if actions > 0 and self._actions + actions > limits.MAX_ACTIONS:
            raise AnnouncementError("limit", f"more than {limits.MAX_ACTIONS} actions in all")
        if size > 0 and self._size + size > limits.MAX_CACHE_FILE:
            raise AnnouncementError("limit", f"more than {limits.MAX_CACHE_FILE} bytes in all")

    def _keep_until(self, held: _Held, now: float) -> None:
        interval = min(max(held.service.interval, MIN_INTERVAL), MAX_INTERVAL)
        held.expires = now + LIFETIME * interval
        self._next = min(self._next, held.expires)

    def _remove(self, key: Key) -> Announcement:
        held = self._held.pop(key)
        del self._by_raw[held.raw]
        identity = held.service.identity
        if self._by_identity.get(identity) == key:
            del self._by_identity[identity]
        self._actions -= count_actions(held.service)
        self._size -= len(held.raw)
        # Not the newest: the same record is good again when the service is only late.
        self._remember(key, held.service.timestamp, left=False)
        return held.service

    def _remember(self, key: Key, timestamp: float, *, left: bool) -> None:
        """What a service that is gone must not be older than. The longest gone are forgotten."""
        before = self._past.pop(key, _NEVER)
        self._past[key] = _Past(max(timestamp, before.newest), left or before.left)
        if len(self._past) > limits.MAX_TIMESTAMPS:
            del self._past[next(iter(self._past))]


def _says_the_same(old: Announcement, new: Announcement) -> bool:
    return (
        old.uri == new.uri
        and old.weight == new.weight
        and old.sector == new.sector
        and old.interval == new.interval
        and old.envelopes == new.envelopes
        and held_actions(old) == held_actions(new)
    )


def restore(
    index: LiveIndex,
    records: Iterable[bytes],
    now: float,
    pause: Callable[[], None] = no_pause,
) -> dict[str, int]:
    """Take records that were good when they were kept, such as those of a cache file.

    Each is verified, and lives as if it had been heard now. Returns how many were refused, by
    reason. `pause` is called between records.
    """
    refused: Counter[str] = Counter()
    for raw in records:
        try:
            index.hear(raw, now)
        except AnnouncementError as exc:
            refused[exc.reason] += 1
        pause()
    return dict(refused)
