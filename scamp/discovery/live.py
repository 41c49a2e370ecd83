"""What is alive on the network, from announcements as they are heard: the rules, without I/O.

**Known by** fingerprint and identity; the newest announcement of a service counts. It lives 2.1 of
its intervals from when it was *heard* (an interval below `MIN_INTERVAL` or above `MAX_INTERVAL`
counts as that), whatever clock the service has. A record that is heard again byte for byte, as
JavaScript repeats its packets, is not verified again.

**Replay**: a record older than the newest of its service is refused, by the rules of `replay`,
remembered when the service is gone too. A service that has left may not step back at all, or its
last words before leaving would call it back. (A service that died without a word can be kept alive
by whoever repeats its last packet. Nobody can tell that from a JavaScript service, which does the
same.)

**Leaving** is weight 0, whatever actions are announced: the service is gone at once.

**Time in which we did not listen** counts for no service's death: when more than `MAX_GAP` passes
between two calls, the machine was suspended or the process stopped, and all lives are longer by
that much. When services of *several* hosts are all silent it may well be us who do not hear: an
interface is down, or a switch has forgotten us. Each service that is alive speaks once per
interval; when all are silent for longer than the shortest of these, nobody expires until somebody
is heard, and lives are longer by as much. Services of one host do expire together: it was that one.

**Strangers** are those whom `LiveIndex.trusts` does not know. They have a tenth of the room, and of
the memory of who is gone, all to themselves: nobody can make a key and keep others out.
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
from scamp.discovery.model import Announcement, count_actions, held_actions
from scamp.discovery.pace import no_pause
from scamp.discovery.registry import Key
from scamp.discovery.replay import TOLERANCE, is_set_right
from scamp.errors import AnnouncementError

LIFETIME: Final = 2.1
"""Intervals for which an announcement is good. Protocol: section 6."""

MIN_INTERVAL: Final = 1.0
MAX_INTERVAL: Final = 3600.0
"""Seconds. Services announce every 2.5 or 5; a service that says less or more than these is taken
to have said these."""

MAX_GAP: Final = 3.0
"""Seconds between two calls after which it is us who were away, not the services."""

_SPOKEN: Final = 1.1
"""Intervals in which a service that is alive has spoken again."""


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
    room: _Room

    @property
    def interval(self) -> float:
        return min(max(self.service.interval, MIN_INTERVAL), MAX_INTERVAL)


@dataclass(frozen=True, slots=True)
class _Past:
    """A service that is gone: the newest timestamp that it had, and whether it said goodbye."""

    newest: float
    left: bool


_NEVER: Final = _Past(-math.inf, False)


class _Room:
    """What one kind of services takes, the `part` of all room that it may take, and what is
    remembered of those that are gone."""

    def __init__(self, part: float) -> None:
        self._part = part
        self._services = self._actions = self._size = 0
        self.past: dict[Key, _Past] = {}

    def add(self, service: Announcement, raw: bytes, one: int = 1) -> None:
        """Count a service in, or with -1 out."""
        self._services += one
        self._actions += one * count_actions(service)
        self._size += one * len(raw)

    def refuse_excess(self, service: Announcement, raw: bytes, old: _Held | None) -> None:
        """Raises `AnnouncementError` when there is no room for it, in place of `old`."""
        services, actions, size = 1, count_actions(service), len(raw)
        if old is not None:
            services, actions = 0, actions - count_actions(old.service)
            size -= len(old.raw)
        for more, taken, limit, what in (
            (services, self._services, limits.MAX_SERVICES, "services"),
            (actions, self._actions, limits.MAX_ACTIONS, "actions in all"),
            (size, self._size, limits.MAX_CACHE_FILE, "bytes in all"),
        ):
            if more > 0 and taken + more > limit * self._part:
                raise AnnouncementError("limit", f"more than {limit * self._part:.0f} {what}")

    def remember(self, key: Key, timestamp: float, *, left: bool) -> None:
        """What a service that is gone must not be older than. The longest gone are forgotten."""
        before = self.past.pop(key, _NEVER)
        self.past[key] = _Past(max(timestamp, before.newest), left or before.left)
        if len(self.past) > limits.MAX_TIMESTAMPS * self._part:
            del self.past[next(iter(self.past))]


class LiveIndex:
    """The services that are alive. Pure: `now` is in seconds of any clock that never steps back.

    To be used by one thread at a time. At most `limits.MAX_SERVICES` services with
    `limits.MAX_ACTIONS` actions and `limits.MAX_CACHE_FILE` bytes are held: those that are there
    stay, new ones are refused. `pause` is called while there is much to read.
    """

    def __init__(self, pause: Callable[[], None] = no_pause) -> None:
        self.trusts: Callable[[str], bool] | None = None
        """Whether the owner of a certificate, by its fingerprint, is known. None: all are alike."""
        self._pause = pause
        self._held: dict[Key, _Held] = {}
        self._by_raw: dict[bytes, Key] = {}
        self._by_identity: dict[str, Key] = {}
        self._rooms = {True: _Room(1.0), False: _Room(limits.STRANGERS_PART)}
        self._next = math.inf
        self._last: float | None = None
        self._sound: float | None = None
        self._shortest = math.inf
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

    def is_deaf(self, now: float) -> bool:
        """Whether those who should have spoken, by now at least twice, are all silent, also when
        they have expired by it."""
        return self._sound is not None and now - self._sound > LIFETIME * self._shortest

    def is_trusted(self, fingerprint: str) -> bool:
        """Whether it is no stranger's."""
        return self.trusts is None or self.trusts(fingerprint)

    def hear(self, raw: bytes, now: float, wall: float | None = None) -> Heard:
        """Take a record. Checks its signature, unless it is known byte for byte. `wall`: the time
        in seconds since 1970, by which services are known whose clock was wrong.

        Raises `AnnouncementError`, with reason ``replay`` for one that is too old, ``limit`` for
        one that has no room, and as `parse_announcement` does.
        """
        self._wake(now)
        key = self._by_raw.get(raw)
        if key is not None:
            held = self._held[key]
            self._hear_anything(now)
            self._keep_until(held, now)
            return Heard(Kind.REPEATED, held.service, held.service)
        service = self._verify(raw)
        self._refuse_replay(service, wall)
        self._hear_anything(now)
        if service.weight == 0:
            return self._leave(service)
        return self._take(raw, service, now)

    def expire(self, now: float) -> tuple[Heard, ...]:
        """Take out those that were silent for too long, unless those of several hosts all are."""
        self._wake(now)
        if now < self._next:
            return ()
        if self._is_silent(now) and self._has_hosts():
            self._look_ahead()  # who spoke most often may have left
        if self._is_silent(now) and self._has_hosts():
            self._next = now + MIN_INTERVAL
            return ()
        silent = [key for key, held in self._held.items() if held.expires <= now]
        gone = tuple(Heard(Kind.EXPIRED, service, service) for service in map(self._remove, silent))
        self._look_ahead()
        return gone

    # -- steps --------------------------------------------------------------------------

    def _wake(self, now: float) -> None:
        gap = 0.0 if self._last is None else now - self._last
        self._last = now
        if gap > MAX_GAP:
            self._lengthen(gap)
            if self._sound is not None:
                self._sound += gap

    def _lengthen(self, seconds: float) -> None:
        for held in self._held.values():
            held.expires += seconds
        self._next += seconds

    def _is_silent(self, now: float) -> bool:
        """Whether somebody should have spoken since the last that was heard."""
        return self._sound is not None and now - self._sound > _SPOKEN * self._shortest

    def _has_hosts(self) -> bool:
        """Whether the services are on more than one host."""
        hosts = (held.service.host for held in self._held.values())
        first = next(hosts, None)
        return any(host != first for host in hosts)

    def _hear_anything(self, now: float) -> None:
        """Somebody was heard, and so are we hearing: what comes now is no longer our fault."""
        before, self._sound = self._sound, now
        if before is None or now - before <= _SPOKEN * self._shortest or not self._has_hosts():
            return
        self._look_ahead()
        extra = now - before - _SPOKEN * self._shortest
        if extra > 0:
            self._lengthen(extra)

    def _look_ahead(self) -> None:
        self._next = min((held.expires for held in self._held.values()), default=math.inf)
        if self._held:  # else they are missed who were the last
            self._shortest = min(held.interval for held in self._held.values())

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

    def _refuse_replay(self, service: Announcement, wall: float | None) -> None:
        held = self._held.get(service.key)
        if held is not None:
            newest, tolerance, left = held.newest, TOLERANCE, False
        else:
            pasts = (room.past.get(service.key, _NEVER) for room in self._rooms.values())
            past = max(pasts, key=lambda past: past.newest)
            newest, tolerance, left = past.newest, 0.0, past.left
            if service.weight == 0:
                tolerance = TOLERANCE
            elif left and newest == service.timestamp:
                raise AnnouncementError("replay", "from the moment at which the service left")
        behind = newest - service.timestamp
        if behind > tolerance and (left or not is_set_right(newest, service.timestamp, wall)):
            raise AnnouncementError("replay", f"{behind:.1f} s older than the newest heard")

    def _leave(self, service: Announcement) -> Heard:
        key = service.key
        before = self._remove(key) if key in self._held else None
        if not self._held:
            self._shortest = math.inf  # nobody is missed
        room = self._rooms[self.is_trusted(service.fingerprint)]
        room.remember(key, service.timestamp, left=True)
        return Heard(Kind.AWAY if before is None else Kind.LEFT, service, before)

    def _take(self, raw: bytes, service: Announcement, now: float) -> Heard:
        key = service.key
        held = self._held.get(key)
        room = self._rooms[self.is_trusted(service.fingerprint)]
        room.refuse_excess(service, raw, held if held is not None and held.room is room else None)
        room.add(service, raw)
        self._by_raw[raw] = key
        if held is None:
            for each in self._rooms.values():
                each.past.pop(key, None)
            held = _Held(raw, service, service.timestamp, 0.0, room)
            self._held[key] = held
            self._by_identity[service.identity] = key
            self._keep_until(held, now)
            return Heard(Kind.NEW, service)
        before = held.service
        held.room.add(before, held.raw, -1)
        del self._by_raw[held.raw]
        held.raw, held.service, held.room = raw, service, room
        if service.timestamp > held.newest or held.newest - service.timestamp > TOLERANCE:
            held.newest = service.timestamp  # much older: by a clock that was set right
        self._keep_until(held, now)
        same = _says_the_same(before, service)
        return Heard(Kind.RENEWED if same else Kind.CHANGED, service, before)

    def _keep_until(self, held: _Held, now: float) -> None:
        held.expires = now + LIFETIME * held.interval
        self._next = min(self._next, held.expires)
        self._shortest = min(self._shortest, held.interval)

    def _remove(self, key: Key) -> Announcement:
        held = self._held.pop(key)
        del self._by_raw[held.raw]
        identity = held.service.identity
        if self._by_identity.get(identity) == key:
            del self._by_identity[identity]
        held.room.add(held.service, held.raw, -1)
        # Not the newest: the same record is good again when the service is only late.
        held.room.remember(key, held.service.timestamp, left=False)
        return held.service


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
