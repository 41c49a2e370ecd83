"""The index of what the mesh offers: a pure object, changed in steps, read without copying.

Behind `Registry` stands an immutable `_Index`. A change is made on a `Draft`, which copies only
the parts that it touches and may be prepared in a worker thread; committing it is one assignment.
The action index is cut into shards, so that one changed service copies a few small dicts and not
one of 100,000 entries; the shards hold strings, integers and bytes only, so that the garbage
collector passes over them.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from scamp import limits
from scamp.discovery.model import (
    Announcement,
    Offer,
    action_at,
    action_key,
    held_actions,
    index_entries,
)
from scamp.discovery.pace import STRIDE, no_pause, paced

logger: logging.Logger = logging.getLogger("scamp.discovery")

_SHARDS: Final = 1024
_SPAN: Final = 1 << limits.MAX_ANNOUNCED_ACTIONS.bit_length()
# An entry is slot * _SPAN + number of the action, or the bytes of an array of such numbers.

Key = tuple[str, str]
Shard = dict[str, int | bytes]


@dataclass(frozen=True, slots=True)
class Change:
    """What one step did to a registry.

    `added` are the services that are new or announce something new under a key that was known
    already; `removed` are those whose key is gone. A service that only renewed its timestamp is
    in neither.
    """

    added: tuple[Announcement, ...] = ()
    removed: tuple[Announcement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


class _Index:
    """One state of the registry. Never changed once it is in use."""

    __slots__ = ("free", "named", "services", "shards", "slot_of", "slots")

    def __init__(self) -> None:
        self.shards: list[Shard] = [{}] * _SHARDS
        self.named: Shard = {}
        self.services: dict[Key, Announcement] = {}
        self.slot_of: dict[Key, int] = {}
        self.slots: list[Announcement | None] = []
        self.free: list[int] = []

    def copy(self) -> _Index:
        new = _Index.__new__(_Index)
        new.shards = self.shards.copy()
        new.named = self.named.copy()
        new.services = self.services.copy()
        new.slot_of = self.slot_of.copy()
        new.slots = self.slots.copy()
        new.free = self.free.copy()
        return new

    def parts(self) -> list[object]:
        """What it is made of, for who wants to let go of it bit by bit."""
        return [*self.shards, *self.slots]


class Draft:
    """Changes on their way into a registry. To be used by one thread at a time.

    `base` is the state it starts from; `Registry.commit` refuses it when that is no longer current.
    `pause` is called between small steps.
    """

    def __init__(self, base: _Index, pause: Callable[[], None] = no_pause) -> None:
        self._pause = pause
        self.base = base
        self.index: _Index = base.copy()
        self._owned: set[int] = set()
        self._before: dict[Key, Announcement | None] = {}

    def add(self, service: Announcement) -> None:
        """Put a service in, in place of what stands under its key."""
        index, key = self.index, service.key
        old = index.services.get(key)
        if old is service:
            return
        index.services[key] = service
        if old is not None:
            slot = index.slot_of[key]
            index.slots[slot] = service
            if _differs_in_time_only(old, service):
                return
            self._before.setdefault(key, old)
            if old.sector != service.sector:
                _discard(index.named, _name_key(old.sector, old.name), slot)
                _insert(index.named, _name_key(service.sector, service.name), slot * _SPAN)
            if held_actions(old) != held_actions(service):
                self._unlink(old, slot)
                self._link(service, slot)
            return
        self._before.setdefault(key, None)
        if index.free:
            slot = index.free.pop()
            index.slots[slot] = service
        else:
            slot = len(index.slots)
            index.slots.append(service)
        index.slot_of[key] = slot
        _insert(index.named, _name_key(service.sector, service.name), slot * _SPAN)
        self._link(service, slot)

    def remove(self, key: Key) -> None:
        """Take a service out; nothing happens when it is not there."""
        index = self.index
        old = index.services.pop(key, None)
        if old is None:
            return
        self._before.setdefault(key, old)
        slot = index.slot_of.pop(key)
        _discard(index.named, _name_key(old.sector, old.name), slot)
        self._unlink(old, slot)
        index.slots[slot] = None
        index.free.append(slot)

    def change(self) -> Change:
        """What all steps together come to."""
        added, removed = [], []
        for key, old in paced(self._before.items(), self._pause):
            new = self.index.services.get(key)
            if new is not None:
                if old is None or not _differs_in_time_only(old, new):
                    added.append(new)
            elif old is not None:
                removed.append(old)
        return Change(tuple(added), tuple(removed))

    def _entries(self, service: Announcement) -> dict[str, int]:
        return index_entries(service, self._pause)

    def _shard(self, key: str) -> Shard:
        number = hash(key) % _SHARDS
        if number not in self._owned:
            self._owned.add(number)
            self.index.shards[number] = self.index.shards[number].copy()
        return self.index.shards[number]

    def _link(self, service: Announcement, slot: int) -> None:
        code = slot * _SPAN
        for number, (key, position) in enumerate(self._entries(service).items()):
            if not number % STRIDE:
                self._pause()
            _insert(self._shard(key), key, code + position)

    def _unlink(self, service: Announcement, slot: int) -> None:
        for number, key in enumerate(self._entries(service)):
            if not number % STRIDE:
                self._pause()
            _discard(self._shard(key), key, slot)


class Registry:
    """Which services there are, and which of them offer an action.

    Pure: no clock, no I/O, no threads of its own. All methods belong to one thread, except
    `draft`, which may be called from any.
    """

    def __init__(self) -> None:
        self._index = _Index()
        self._callbacks: dict[object, Callable[[Change], None]] = {}
        self._found: dict[str, tuple[Offer, ...]] = {}
        self.generation: int = 0
        """Counts the changes that subscribers were told of."""

    def find(self, sector: str, action: str, version: int = 1) -> tuple[Offer, ...]:
        """All offers of ``Namespace.name`` in a sector, compared without case; () when none.

        ``Namespace._read`` (and ``_create``, ``_update``, ``_destroy``) finds the action with
        that flag. At most one offer per service. Services of weight 0 are among them: whether
        to use one is for the caller to decide.
        """
        if ":" in sector:
            return ()
        return self._offers(action_key(sector, action, version))

    def offering(self, sector: str, action: str, version: int = 1) -> Iterator[Announcement]:
        """The services whose offers `find` finds, one after another: for who may end at the first,
        and wants no action of it."""
        key = action_key(sector, action, version)
        held = None if ":" in sector else self._index.shards[hash(key) % _SHARDS].get(key)
        slots = self._index.slots
        for code in () if held is None else _codes(held):
            if (service := slots[code // _SPAN]) is not None:
                yield service

    def instances(self, sector: str, name: str) -> tuple[Announcement, ...]:
        """The services of that `Announcement.name` in a sector, compared without case, whatever
        their weight; () when there is none. Costs as much as there are of them."""
        held = None if ":" in sector else self._index.named.get(_name_key(sector, name))
        found = () if held is None else (self._index.slots[code // _SPAN] for code in _codes(held))
        return tuple(service for service in found if service is not None)

    def services(self) -> Collection[Announcement]:
        """Every service, in no particular order. A later change leaves what was returned alone."""
        return self._index.services.values()

    def actions(self) -> Iterator[tuple[Offer, ...]]:
        """The offers of each action, one action after another, each once and none by an alias.

        Goes over the state as it was at the first step, even if the registry changes meanwhile.
        """
        index = self._index
        for shard in index.shards:
            for key, held in shard.items():
                offers = _resolve(index, held)
                own = tuple(offer for offer in offers if _is_own(offer, key))
                if own:
                    yield own

    def get(self, key: tuple[str, str]) -> Announcement | None:
        """The service with this fingerprint and identity."""
        return self._index.services.get(key)

    def apply(
        self, *, added: Iterable[Announcement] = (), removed: Iterable[tuple[str, str]] = ()
    ) -> Change:
        """Take out `removed`, put in `added` (in place of what has the same key), tell subscribers.

        Unknown keys in `removed` are ignored. The cost is that of what changes, not of what is
        there. Returns what was different in the end.
        """
        draft, change = self.prepare(added, removed)
        self.commit(draft, change)
        return change

    def prepare(
        self,
        added: Iterable[Announcement],
        removed: Iterable[Key],
        pause: Callable[[], None] = no_pause,
    ) -> tuple[Draft, Change]:
        """What `apply` would commit; may be called from any thread. `pause` is called between
        small steps, for a worker thread to let others run."""
        draft = Draft(self._index, pause)
        for key in removed:
            draft.remove(key)
            pause()
        for service in added:
            draft.add(service)
            pause()
        return draft, draft.change()

    def draft(self) -> Draft:
        """The current state, to be changed and committed; may be called from any thread."""
        return Draft(self._index)

    def commit(self, draft: Draft, change: Change) -> bool:
        """Make `draft` the current state and tell subscribers of `change` (``draft.change()``).

        False, and nothing done, when the registry has changed since the draft was begun.
        """
        if draft.base is not self._index:
            return False
        self._index = draft.index
        self._found = {}
        if change:
            self.generation += 1
            for callback in tuple(self._callbacks.values()):
                try:
                    callback(change)
                except Exception:
                    logger.exception("a subscriber of the registry failed")
        return True

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Have `callback` called after every change, in the thread that made it.

        It must not block. What it raises is logged and goes no further. Returns the function
        that ends the subscription; calling it twice does no harm.
        """
        token = object()
        self._callbacks[token] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(token, None)

        return unsubscribe

    def _offers(self, key: str) -> tuple[Offer, ...]:
        found = self._found.get(key)
        if found is not None:
            return found
        held = self._index.shards[hash(key) % _SHARDS].get(key)
        if held is None:
            return ()
        found = _resolve(self._index, held)
        if len(self._found) >= limits.MAX_CACHED_LOOKUPS:
            self._found = {}
        self._found[key] = found
        return found


def _name_key(sector: str, name: str) -> str:
    return f"{sector}:{name}".lower()


def _insert(shard: Shard, key: str, code: int) -> None:
    held = shard.get(key)
    shard[key] = code if held is None else array("Q", [*_codes(held), code]).tobytes()


def _discard(shard: Shard, key: str, slot: int) -> None:
    left = [code for code in _codes(shard[key]) if code // _SPAN != slot]
    if not left:
        del shard[key]
    else:
        shard[key] = left[0] if len(left) == 1 else array("Q", left).tobytes()


def _codes(held: int | bytes) -> tuple[int, ...] | array[int]:
    return (held,) if isinstance(held, int) else array("Q", held)


def _resolve(index: _Index, held: int | bytes) -> tuple[Offer, ...]:
    offers = []
    for code in _codes(held):
        slot, position = divmod(code, _SPAN)
        service = index.slots[slot]
        if service is not None:
            offers.append(Offer(service, action_at(service, position)))
    return tuple(offers)


def _is_own(offer: Offer, key: str) -> bool:
    action = offer.action
    return action_key(action.sector, action.spelling, action.version) == key


def _differs_in_time_only(old: Announcement, new: Announcement) -> bool:
    return (
        held_actions(old) == held_actions(new)
        and old.uri == new.uri
        and old.weight == new.weight
        and old.sector == new.sector
        and old.interval == new.interval
        and old.envelopes == new.envelopes
    )
