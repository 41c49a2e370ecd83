"""``/whoami``: what a caller's ticket says, and what it may call here."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

import orjson

from gateway.actions import Sectors, is_open, label_of
from gateway.auth import Authenticator
from gateway.exchange import Exchange
from gateway.strangers import Trust, is_meta
from gateway.translate import JSON_TYPE
from scamp.authz import AuthzTable
from scamp.client import Deadline
from scamp.discovery import Offer, Registry
from scamp.discovery.pace import Pace, let_go, paced_sort
from scamp.tickets import Ticket

MAX_PERMITS: Final = 1000
"""Actions that one answer names: as many as a person or a menu reads; the rest is counted."""

_STRIDE: Final = 200
"""Actions that are looked at in one turn of the loop, about a millisecond."""

MAX_KEPT: Final = 64
"""Answers that are kept: as many groups of callers with the same privileges."""

SLOW_WALK: Final = 0.1
"""Seconds of going through all actions from which on the result may be older than the index: else
one who asks all the time could keep a gateway of a large mesh busy."""

WALK_SHARE: Final = 10
"""What took so long serves for so many times as long."""

_LAST_DATE: Final = 253402300799  # 9999-12-31T23:59:59Z, the last that RFC 3339 can write

NOTES: Final = {
    "verify": "Privileges are not checked here: a valid ticket may call every action.",
    "forward": "Tickets are passed on unread: what this one says and permits, the services know.",
}
"""What the answer lacks, by mode."""

NO_INDEX: Final = "The index is not loaded yet: what the ticket permits is not known."


_Exposed = tuple[str, str, bool]
"""Label, spelling, and whether it needs no ticket. A plain tuple of such is none of the garbage
collector's business; 100,000 of any other kind make each full collection take 10 ms more."""


@dataclass(frozen=True, slots=True)
class _Permits:
    """What those with certain privileges may call."""

    generation: int
    labels: tuple[str, ...]
    left_out: int
    fresh_until: float


class WhoAmI:
    """The endpoint. Knows the exposed actions by heart for as long as the index does not change."""

    route = "/whoami"
    methods = ("GET", "HEAD")

    def __init__(
        self,
        authenticator: Authenticator,
        registry: Registry,
        *,
        sectors: Iterable[str],
        timeout: float,
        index_loaded: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`sectors` are those that are exposed; `timeout` seconds may the privilege table take;
        `clock` gives seconds since 1970. Without an index nobody knows what is permitted."""
        self._auth = authenticator
        self._registry = registry
        self._sectors = Sectors(sectors)
        self._timeout = timeout
        self._index_loaded = index_loaded
        self._clock = clock
        self._exposed: list[_Exposed] = []
        self._generation = -1
        self._fresh_until = 0.0
        self._kept: OrderedDict[tuple[AuthzTable, frozenset[int]], _Permits] = OrderedDict()
        self.walks = 0
        """How often all actions were looked at."""
        self._walking = asyncio.Lock()

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Answer with JSON. Raises Problem as for an action that needs a ticket."""
        auth = self._auth
        caller = auth.require_any(exchange.headers, exchange.method)
        exchange.caller = caller
        answer: dict[str, Any] = {"mode": auth.mode, "ticket": None, "permits": None}
        if caller.claims is not None:
            table = None
            if auth.mode == "enforce":
                table = await auth.table(Deadline.after(self._timeout))
                if self._index_loaded():
                    permits = await self._permitted(table, caller.claims.privileges)
                    answer["permits"] = permits.labels
                    answer["permits_left_out"] = permits.left_out
                else:
                    answer["note"] = NO_INDEX
            answer["ticket"] = _told(caller.claims, table, self._clock())
        if auth.mode in NOTES:
            answer["note"] = NOTES[auth.mode]
        vary = ("Vary", auth.credentials.vary)
        await exchange.send_whole(200, JSON_TYPE, orjson.dumps(answer), (vary,))

    async def _permitted(self, table: AuthzTable, privileges: frozenset[int]) -> _Permits:
        """Labels of what these privileges permit, in order; one walk for all who wait."""
        key = (table, privileges)
        kept = self._still_good(key)
        if kept is not None:
            return kept
        async with self._walking:
            kept = self._still_good(key)
            if kept is None:
                kept = await self._walk(table, privileges)
                # Nobody has an older table again, and one may have tens of megabytes.
                for other in [one for one in self._kept if one[0] is not table]:
                    del self._kept[other]
                self._kept[key] = kept
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            return kept

    def _still_good(self, key: tuple[AuthzTable, frozenset[int]]) -> _Permits | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.generation != self._registry.generation and _now() >= kept.fresh_until:
            return None
        self._kept.move_to_end(key)
        return kept

    async def _walk(self, table: AuthzTable, privileges: frozenset[int]) -> _Permits:
        self.walks += 1
        began = _now()
        exposed = await self._all_exposed()
        labels: list[str] = []
        count = 0
        for start in range(0, len(exposed), _STRIDE):
            if start:
                await asyncio.sleep(0)
            for label, spelling, noauth in exposed[start : start + _STRIDE]:
                if noauth or table.permits(spelling, privileges):
                    count += 1
                    if count <= MAX_PERMITS:
                        labels.append(label)
        return _Permits(self._generation, tuple(labels), count - len(labels), _until(began))

    async def _all_exposed(self) -> list[_Exposed]:
        """Every exposed action, sorted, what everybody may offer behind all else; walks through the
        index once after it has changed."""
        generation, began = self._registry.generation, _now()
        if self._generation == generation or began < self._fresh_until:
            return self._exposed
        every = self._registry.actions()
        retired, self._exposed = self._exposed, []
        self._exposed = await asyncio.to_thread(self._collect, every, retired)
        self._generation = generation
        self._fresh_until = _until(began)
        return self._exposed

    def _collect(
        self, every: Iterable[tuple[Offer, ...]], retired: list[_Exposed]
    ) -> list[_Exposed]:
        """In a thread. The walk is over one immutable state; frees the list of before."""
        trust, pause = Trust(), Pace()
        let_go(retired, pause)
        found: list[tuple[tuple[bool, str], _Exposed]] = []
        for offers in map(trust.reachable, every):
            pause()
            if offers and (action := offers[0].action).sector in self._sectors:
                label = label_of(action.sector, action.spelling, action.version)
                one = (label, action.spelling, is_open(offers))
                found.append(((is_meta(action), label.lower()), one))
        in_order = paced_sort(found, itemgetter(0), pause)
        found.clear()
        exposed: list[_Exposed] = []
        for start in range(0, len(in_order), _STRIDE):
            pause()
            exposed += (one for _, one in in_order[start : start + _STRIDE])
        let_go(in_order, pause)
        return exposed


def _now() -> float:
    return time.monotonic()


def _until(began: float) -> float:
    """Until when what was begun then serves, though the index has changed."""
    now = _now()
    return now + WALK_SHARE * (now - began) if now - began > SLOW_WALK else now


def _told(ticket: Ticket, table: AuthzTable | None, now: float) -> dict[str, Any]:
    """The ticket's claims; its text and signature stay out."""
    return {
        "version": ticket.version,
        "user_id": ticket.user_id,
        "client_id": ticket.client_id,
        "valid_from": _date(ticket.validity_start),
        "expires_at": _date(ticket.expires),
        "expires_in": max(0, int(ticket.expires - now)),
        "privileges": [
            {"id": number, "name": None if table is None else table.name_of(number)}
            for number in sorted(ticket.privileges)
        ],
    }


def _date(seconds: int) -> str | None:
    """RFC 3339 in UTC; None for what lies behind the year 9999."""
    if seconds > _LAST_DATE:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
