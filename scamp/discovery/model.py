"""What services announce: actions, announcements, and the two put together as an offer.

A mesh may announce 100,000 actions. As one object each they would make every full garbage
collection stop the event loop for some 30 ms, so an announcement that was parsed keeps its
actions as one flat tuple of strings and integers, which the collector does not look into, and
makes `Action` objects when they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import MemberDescriptorType
from typing import Any, Final, cast

from scamp.discovery.pace import STRIDE, no_pause

CRUD: Final = ("create", "read", "update", "destroy")
"""The flags that give an action a second name, ``Namespace._read`` and so on."""

_RANDOM_PART = re.compile(r"[:-][A-Za-z0-9+/_-]{24}\Z")
_TIMEOUT = re.compile(r"t([0-9]{1,6})\Z", re.ASCII)
_WIDTH = 6  # items of the flat form per action

Packed = tuple[Any, ...]
"""sector, namespace, name, version, flags, envelopes, and so on for each action; flags and
envelopes are comma-separated."""


@dataclass(frozen=True, slots=True)
class Action:
    """One action of one service, in the spelling that the service announced.

    Names are compared without case by most peers and with case by Go: send `spelling`.
    """

    sector: str
    namespace: str
    name: str
    version: int
    flags: tuple[str, ...] = ()
    envelopes: tuple[str, ...] = ()

    @property
    def spelling(self) -> str:
        """``Namespace.name`` as announced."""
        return f"{self.namespace}.{self.name}"

    @property
    def timeout(self) -> float | None:
        """Seconds, from the last flag ``tNNN`` (six digits at most); None without one.

        ``t0`` says nothing: nobody means a limit of no time at all.
        """
        found = None
        for flag in self.flags:
            if match := _TIMEOUT.match(flag):
                found = float(match[1]) or None
        return found

    @property
    def noauth(self) -> bool:
        """Whether the action may be called without a ticket. The flag is taken literally:
        ``NoAuth`` or `` noauth`` is some other flag."""
        return "noauth" in self.flags

    @property
    def crud(self) -> tuple[str, ...]:
        """Those of create, read, update and destroy that are among the flags, in that order."""
        return tuple(tag for tag in CRUD if tag in self.flags)

    def has(self, flag: str) -> bool:
        """Whether `flag` was announced, compared literally."""
        return flag in self.flags


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one running service says about itself.

    `interval` and `timestamp` are seconds whatever the packet used. `weight` 0 means "send
    nothing here": the service is leaving. `host` has no brackets, also for IPv6. Parsed
    announcements make `actions` anew at every access: keep the tuple while you loop.
    """

    identity: str
    fingerprint: str
    sector: str
    weight: float | int
    interval: float
    uri: str
    host: str
    port: int
    envelopes: tuple[str, ...]
    actions: tuple[Action, ...]
    timestamp: float

    @property
    def key(self) -> tuple[str, str]:
        """Fingerprint and identity: only both together name a service."""
        return (self.fingerprint, self.identity)

    @property
    def name(self) -> str:
        """The identity without its random part; all of it when it has none."""
        return name_of(self.identity)


class _Actions:
    """Stands in for the slot `Announcement.actions`, which may hold the flat form."""

    def __init__(self, slot: MemberDescriptorType) -> None:
        self.slot = slot

    def __get__(self, instance: Announcement | None, owner: type | None = None) -> Any:
        if instance is None:
            return self
        held = self.slot.__get__(instance)
        if not held or isinstance(held[0], Action):
            return held
        return tuple(_unpack(held, position) for position in range(len(held) // _WIDTH))

    def __set__(self, instance: Announcement, value: object) -> None:
        self.slot.__set__(instance, value)


_slot = cast(MemberDescriptorType, Announcement.__dict__["actions"])
# Typed as the field that it stands for, which a class of its own cannot be.
Announcement.actions = _Actions(_slot)  # type: ignore[assignment, misc]


@dataclass(frozen=True, slots=True)
class Offer:
    """One service's announcement together with the action that was looked for."""

    service: Announcement
    action: Action


@lru_cache(maxsize=4096)
def _split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list, as they stand; empty ones left out."""
    return tuple(part for part in text.split(",") if part)


@lru_cache(maxsize=4096)
def _aliases(flags: str) -> tuple[str, ...]:
    return tuple(tag for tag in _split_list(flags) if tag in CRUD)


def _unpack(packed: Packed, position: int) -> Action:
    at = position * _WIDTH
    sector, namespace, name, version, flags, envelopes = packed[at : at + _WIDTH]
    return Action(sector, namespace, name, version, _split_list(flags), _split_list(envelopes))


def pack(actions: Iterable[Action]) -> Packed:
    """The flat form of `actions`."""
    flat: list[Any] = []
    for action in actions:
        flat += (action.sector, action.namespace, action.name, action.version)
        flat += (",".join(action.flags), ",".join(action.envelopes))
    return tuple(flat)


def held_actions(service: Announcement) -> tuple[Any, ...]:
    """What the service holds as it stands: the flat form or a tuple of `Action`."""
    return cast(tuple[Any, ...], _slot.__get__(service))


def packed_actions(service: Announcement) -> Packed:
    """The flat form of the service's actions."""
    held = held_actions(service)
    return pack(held) if held and isinstance(held[0], Action) else held


def with_actions(service: Announcement, packed: Packed, timestamp: float) -> Announcement:
    """The same service with other actions (flat form) and another time."""
    return Announcement(
        service.identity,
        service.fingerprint,
        service.sector,
        service.weight,
        service.interval,
        service.uri,
        service.host,
        service.port,
        service.envelopes,
        packed,
        timestamp,
    )


def permitted(
    service: Announcement, permits: Callable[[str, str, str], bool]
) -> tuple[Announcement, int]:
    """The service with those actions only that ``permits(fingerprint, sector, spelling)``, and how
    many were left out; the same object when none was."""
    packed = packed_actions(service)
    kept: list[Any] = []
    items = iter(packed)
    for action in zip(items, items, items, items, items, items, strict=True):
        if permits(service.fingerprint, action[0], f"{action[1]}.{action[2]}"):
            kept += action
    left_out = (len(packed) - len(kept)) // _WIDTH
    if not left_out:
        return service, 0
    return with_actions(service, tuple(kept), service.timestamp), left_out


def count_actions(service: Announcement) -> int:
    """Number of actions, without making them."""
    held = held_actions(service)
    return len(held) if held and isinstance(held[0], Action) else len(held) // _WIDTH


def action_at(service: Announcement, position: int) -> Action:
    """The action with this number, counted from 0."""
    held = held_actions(service)
    found = held[position] if isinstance(held[0], Action) else _unpack(held, position)
    return cast(Action, found)


def name_of(identity: str) -> str:
    """An identity without its random part; all of it when it has none."""
    return _RANDOM_PART.sub("", identity) or identity


def action_key(sector: str, spelling: str, version: int) -> str:
    """The key under which an action is indexed, all lower case."""
    return f"{sector}:{spelling}.v{version}".lower()


def index_entries(service: Announcement, pause: Callable[[], None] = no_pause) -> dict[str, int]:
    """Every key under which the service is found, with the number of the action it means.
    `pause` is called now and then.

    Of several actions under one key the last counts, as in JavaScript; an action's own name goes
    before another's alias.
    """
    own: dict[str, int] = {}
    other: dict[str, int] = {}
    items = iter(packed_actions(service))
    for position, (sector, namespace, name, version, flags, _) in enumerate(
        zip(items, items, items, items, items, items, strict=True)
    ):
        if not position % STRIDE:
            pause()
        own[f"{sector}:{namespace}.{name}.v{version}".lower()] = position
        if flags:
            for tag in _aliases(flags):
                other[f"{sector}:{namespace}._{tag}.v{version}".lower()] = position
    if other:
        return {**other, **own}
    return own
