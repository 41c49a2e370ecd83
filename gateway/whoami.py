"""``/whoami``: what a caller's ticket says, and what it may call here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from gateway.actions import Sectors, is_open, label_of
from gateway.auth import Authenticator
from gateway.exchange import Exchange
from gateway.translate import JSON_TYPE
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`sectors` are those that are exposed; `timeout` seconds may the privilege table take;
        `clock` gives seconds since 1970."""
        self._auth = authenticator
        self._registry = registry
        self._sectors = Sectors(sectors)
        self._timeout = timeout
        self._clock = clock
        self._exposed: list[_Exposed] = []
        self._generation = -1
        self._walking = asyncio.Lock()

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
                permits = await self._permitted(table, caller.claims)
                answer["permits"] = permits[:MAX_PERMITS]
                answer["permits_left_out"] = max(0, len(permits) - MAX_PERMITS)
            answer["ticket"] = _told(caller.claims, table, self._clock())
        if auth.mode in NOTES:
            answer["note"] = NOTES[auth.mode]
        vary = ("Vary", auth.credentials.vary)
        await exchange.send_whole(200, JSON_TYPE, orjson.dumps(answer), (vary,))

    async def _permitted(self, table: AuthzTable, ticket: Ticket) -> list[str]:
        """Labels of all that the ticket may call, in order."""
        permitted: list[str] = []
        exposed = await self._all_exposed()
        for start in range(0, len(exposed), _STRIDE):
            if start:
                await asyncio.sleep(0)
            permitted += [
                action.label
                for action in exposed[start : start + _STRIDE]
                if action.noauth or table.permits(action.spelling, ticket.privileges)
            ]
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
                    if action.sector in self._sectors:
                        label = label_of(action.sector, action.spelling, action.version)
                        found.append(_Exposed(label, action.spelling, is_open(offers)))
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
