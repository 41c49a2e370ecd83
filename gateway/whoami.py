"""``/whoami``: what a caller's ticket says, and what it may call here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from gateway.auth import Authenticator
from gateway.credentials import TICKET_HEADER
from gateway.exchange import Exchange
from gateway.translate import JSON_TYPE, label_of
from scamp.authz import AuthzTable
from scamp.client import Deadline
from scamp.discovery import Registry
from scamp.tickets import Ticket

MAX_PERMITS: Final = 1000
"""Actions that one answer names: as many as a person or a menu reads; the rest is counted."""

_STRIDE: Final = 200
"""Actions that are looked at in one turn of the loop, about a millisecond."""

_LAST_DATE: Final = 253402300799  # 9999-12-31T23:59:59Z, the last that RFC 3339 can write

NOTES: Final = {
    "verify": "Privileges are not checked here: a valid ticket may call every action.",
    "forward": "Tickets are passed on unread: what this one says and permits, the services know.",
}
"""What the answer lacks, by mode."""

NO_INDEX: Final = "The index is not loaded yet: what the ticket permits is not known."


class _Exposed(NamedTuple):
    label: str
    spelling: str
    noauth: bool


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
        self._sectors = frozenset(sector.lower() for sector in sectors)
        self._timeout = timeout
        self._index_loaded = index_loaded
        self._clock = clock
        self._exposed: list[_Exposed] = []
        self._generation = -1
        self._walking = asyncio.Lock()
        names = ["Authorization", TICKET_HEADER]
        if authenticator.credentials.cookie is not None:
            names.append("Cookie")
        self._vary = ", ".join(names)

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Answer with JSON. Raises Problem as for an action that needs a ticket."""
        auth = self._auth
        caller = auth.require_any(exchange.request.headers, exchange.method)
        exchange.caller = caller
        answer: dict[str, Any] = {"mode": auth.mode, "ticket": None, "permits": None}
        if caller.claims is not None:
            table = None
            if auth.mode == "enforce":
                table = await auth.table(Deadline.after(self._timeout))
                if self._index_loaded():
                    permits = await self._permitted(table, caller.claims)
                    answer["permits"] = permits[:MAX_PERMITS]
                    answer["permits_left_out"] = max(0, len(permits) - MAX_PERMITS)
                else:
                    answer["note"] = NO_INDEX
            answer["ticket"] = _told(caller.claims, table, self._clock())
        if auth.mode in NOTES:
            answer["note"] = NOTES[auth.mode]
        await exchange.send_whole(200, JSON_TYPE, orjson.dumps(answer), [("Vary", self._vary)])

    async def _permitted(self, table: AuthzTable, ticket: Ticket) -> list[str]:
        """Labels of all that the ticket may call, in order."""
        permitted: list[str] = []
        exposed = await self._all_exposed()
        for start in range(0, len(exposed), _STRIDE):
            if start:
                await asyncio.sleep(0)
            for action in exposed[start : start + _STRIDE]:
                required = table.required(action.spelling)
                if action.noauth or (required is not None and required <= ticket.privileges):
                    permitted.append(action.label)
        return permitted

    async def _all_exposed(self) -> list[_Exposed]:
        """Every exposed action, sorted; walks through the index once after it has changed."""
        async with self._walking:
            generation = self._registry.generation
            if self._generation == generation:
                return self._exposed
            found: list[_Exposed] = []
            every = self._registry.actions()
            while some := list(islice(every, _STRIDE)):
                for offers in some:
                    action = offers[0].action
                    if action.sector.lower() in self._sectors:
                        label = label_of(action.sector, action.spelling, action.version)
                        noauth = all(offer.action.noauth for offer in offers)
                        found.append(_Exposed(label, action.spelling, noauth))
                await asyncio.sleep(0)
            found.sort(key=lambda one: one.label.lower())
            self._exposed, self._generation = found, generation
            return found


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
