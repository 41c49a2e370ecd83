"""What ``scamp watch`` tells, as events: pure, from what the sources of discovery hear and do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from scamp import limits
from scamp.cli.differences import NO_DIFFERENCE, ActionName, Difference, action_names, difference
from scamp.cli.filters import Chosen
from scamp.discovery import Announcement, AuthorizedServices, Change, Registry
from scamp.discovery.listening import Rejection, Round
from scamp.discovery.live import Heard, Kind
from scamp.discovery.refusals import WINDOW
from scamp.discovery.registry import Key

ANNOUNCEMENT: Final = "announcement"
INDEX: Final = "index"

REFUSED: Final = "refused"
LOST: Final = "lost"
CAME: Final = "came"
CHANGED: Final = "changed"
WENT: Final = "went"

REPEATS: Final = (Kind.RENEWED, Kind.REPEATED, Kind.AWAY)
"""Announcements that say nothing new."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `about` is `ANNOUNCEMENT` or `INDEX`, `what` a kind of `Kind` or one
    of the words above.

    `service` is what is announced or in the index now, or was there last; None when it was
    refused, and `identity` then what it claims to be. `not_permitted` are actions that are
    announced and do not get into the index; `unoffered` those that went with this service and
    that no other offers. `count` is that of packets that were lost.
    """

    about: str
    what: str
    identity: str = ""
    service: Announcement | None = None
    difference: Difference = NO_DIFFERENCE
    not_permitted: tuple[ActionName, ...] = ()
    unoffered: tuple[ActionName, ...] = ()
    reason: str = ""
    detail: str = ""
    count: int = 0


class Watcher:
    """Makes events of rounds and of changes of `registry`. `now` is in seconds of any clock.

    A registry tells what there is and not what there was, so that is remembered: one reference for
    each service in it. What is refused again within `refusals.WINDOW` seconds for the same reason
    is a repeat; `repeats` has those told as well, and all that says nothing new.
    """

    def __init__(self, registry: Registry, chosen: Chosen, *, repeats: bool = False) -> None:
        self._registry = registry
        self._chosen = chosen
        self._repeats = repeats
        self._known: dict[Key, Announcement] = {}
        self._told: dict[tuple[str, str], float] = {}
        self._bad: frozenset[Rejection] = frozenset()

    def heard(
        self, heard: Round, authorized: AuthorizedServices | None, now: float
    ) -> Iterator[Event]:
        """What a round gave, in the order in which it came; refused ones behind the others."""
        for one in heard.heard:
            if one.kind in REPEATS:
                if self._repeats and self._chosen.has_service(one.service):
                    event = Event(ANNOUNCEMENT, one.kind.value, one.service.identity, one.service)
                    yield event
            elif self._concerns(one.before, one.service):
                yield from self._announced(one, authorized)
        for identity, reason, detail in heard.refused:
            if self._is_news(identity, reason, now) and self._chosen.has_claim(identity):
                yield Event(ANNOUNCEMENT, REFUSED, identity, reason=reason, detail=detail)
        if heard.dropped:
            detail = "more came at once than there is time or room for"
            yield Event(ANNOUNCEMENT, LOST, detail=detail, count=heard.dropped)

    def refused_records(self, records: Iterable[Rejection]) -> Iterator[Event]:
        """What is refused of a file now; told when it was not refused before."""
        before, self._bad = self._bad, frozenset(records)
        for identity, reason, detail in sorted(self._bad - before):
            if self._chosen.has_claim(identity):
                yield Event(ANNOUNCEMENT, REFUSED, identity, reason=reason, detail=detail)

    def changed(self, change: Change) -> Iterator[Event]:
        """What a change, which is in force already, did to the registry."""
        for service in change.removed:
            self._known.pop(service.key, None)
            if self._chosen.has_service(service):
                gone = difference(service, None, self._chosen.has_action)
                yield self._indexed(WENT, service, gone)
        for service in change.added:
            was = self._known.get(service.key)
            self._known[service.key] = service
            if not self._concerns(was, service):
                continue
            found = difference(was, service, self._chosen.has_action)
            if was is None:
                yield self._indexed(CAME, service, found)
            elif found or self._chosen.every_action:
                yield self._indexed(CHANGED, service, found)

    def _announced(self, one: Heard, authorized: AuthorizedServices | None) -> Iterator[Event]:
        service = one.service
        found = difference(one.before, service, self._chosen.has_action)
        if one.kind is Kind.CHANGED and not found and not self._chosen.every_action:
            return
        banned: tuple[ActionName, ...] = ()
        if authorized is not None and one.kind in (Kind.NEW, Kind.CHANGED):
            banned = tuple(
                name
                for name in action_names(service)
                if self._chosen.has_action(name)
                and not authorized.permits(service.fingerprint, name.sector, name.spelling)
            )
        yield Event(
            ANNOUNCEMENT,
            one.kind.value,
            service.identity,
            service,
            found,
            not_permitted=banned,
        )

    def _indexed(self, what: str, service: Announcement, found: Difference) -> Event:
        unoffered = tuple(name for name in found.removed if not self._is_offered(name))
        return Event(INDEX, what, service.identity, service, found, unoffered=unoffered)

    def _is_offered(self, name: ActionName) -> bool:
        offers = self._registry.find(name.sector, name.spelling, name.version)
        return any(offer.service.weight for offer in offers)

    def _concerns(self, before: Announcement | None, service: Announcement) -> bool:
        if self._chosen.has_service(service):
            return True
        return before is not None and self._chosen.has_service(before)

    def _is_news(self, identity: str, reason: str, now: float) -> bool:
        if self._repeats:
            return True
        key = (identity, reason)
        if now - self._told.get(key, -WINDOW) < WINDOW:
            return False
        self._told.pop(key, None)  # so that it stands behind those told longer ago
        self._told[key] = now
        if len(self._told) > limits.MAX_REFUSALS_TOLD:
            del self._told[next(iter(self._told))]
        return True
