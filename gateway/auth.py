"""Who asks, and whether they may: tickets of requests, checked against the action.

A ticket never gets into a problem, a log line or a repr from here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from multidict import CIMultiDictProxy

from gateway import catalogue
from gateway.actions import Guarded
from gateway.credentials import SAFE_METHODS, AuthMode, Credentials, DifferentTicketsError
from gateway.problems import Problem, from_error, quotable
from scamp.authz import AuthzSource, AuthzTable
from scamp.client import Deadline
from scamp.errors import (
    AuthorizationError,
    AuthzTableUnavailable,
    MissingPrivilege,
    TicketError,
)
from scamp.tickets import Ticket, TicketVerifier

log = logging.getLogger("gateway.auth")

CHALLENGE: Final = (("WWW-Authenticate", "Bearer"),)


@dataclass(slots=True)
class Caller:
    """What goes to the service. `user_id` and `client_id` are those of a verified ticket."""

    ticket: str | None = field(default=None, repr=False)
    user_id: int | None = None
    client_id: int | None = None
    to_check: Ticket | None = field(default=None, repr=False)
    """The verified ticket, while its privileges are still to be checked."""
    claims: Ticket | None = field(default=None, repr=False)
    """What the ticket says, once it is verified; None where tickets are passed on unread."""


ANONYMOUS: Final = Caller()


class Authenticator:
    """Lets a request through with its ticket, or raises the Problem that says why not.

    ``enforce`` checks signature, time and privileges; ``verify`` signature and time; ``forward``
    passes the ticket on unread, and lets requests without one through: the service decides.

    An action that is announced ``noauth`` by every instance needs no ticket. One that comes along
    all the same is passed on if it is good and dropped if it is not: with an expired ticket in hand
    one must still be able to log in. Two different tickets are refused in any case.

    A ticket that came from a cookie alone counts with an unsafe method only when the request is of
    a page that may act with it: `Credentials.trusts`.
    """

    def __init__(
        self,
        mode: AuthMode,
        verifier: TicketVerifier | None = None,
        authz: AuthzSource | None = None,
        *,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`verifier` is needed for all modes but ``forward``, `authz` for ``enforce``;
        `credentials` tells where tickets are (default: in headers only); `clock` gives seconds
        since 1970. Raises ValueError when one is missing."""
        if mode != "forward" and verifier is None:
            raise ValueError(f"mode {mode} needs a ticket verifier")
        if mode == "enforce" and authz is None:
            raise ValueError("mode enforce needs a privilege table")
        self.mode = mode
        self.verifier = verifier
        self.authz = authz
        self.credentials = credentials or Credentials()
        self.results: Counter[str] = Counter()
        """Tickets by result: ``valid``, ``missing``, ``malformed``, ``bad_signature``, ``expired``,
        ``not_yet_valid``, ``different``, ``foreign_origin``, ``dropped``, ``forwarded``,
        ``unneeded``."""
        self.refusals: Counter[str] = Counter()
        """Valid tickets that did not suffice: ``privilege``, ``unconfigured``, ``unavailable``."""
        self._clock = clock

    # -- usual requests -----------------------------------------------------------------

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def genuine(self, text: str | None) -> Caller | None:
        """Who asks, by a ticket in force; None for what is none. Counts nothing."""
        try:
            if text is None:
                return None
            if self.mode == "forward":
                return Caller(text) if _is_plain(text) else None
            ticket = self._verify(text)
        except TicketError:
            return None
        return Caller(text, ticket.user_id, ticket.client_id, claims=ticket)

    def anonymous(self, action: Guarded) -> Caller | None:
        """Who asks without a ticket, if that will do. Counts nothing."""
        return ANONYMOUS if action.noauth or self.mode == "forward" else None

    def count(self, caller: Caller) -> None:
        """Count a request that goes on by `genuine` or `anonymous`."""
        if caller is not ANONYMOUS:
            self.results["forwarded" if self.mode == "forward" else "valid"] += 1
        elif self.mode != "forward":
            self.results["unneeded"] += 1

    # -- one request --------------------------------------------------------------------

    def identify(
        self, headers: CIMultiDictProxy[str], action: Guarded, method: str = "POST"
    ) -> Caller:
        """Who asks. Raises Problem when `action` needs a ticket and there is no good one.

        Whether the caller may is another question while `to_check` is set: see `authorize`.
        """
        text, ambient = self._find(headers)
        foreign = ambient and self._foreign(headers, method)
        if action.noauth and (foreign or self.mode != "forward"):
            return self._unneeded(None if foreign else text, foreign=foreign)
        if foreign:
            raise self._origin_refused(headers, action.label)
        if self.mode == "forward":
            return self._forward(text)
        if text is None:
            raise self._missing(action.label)
        caller = self._verified(text, action.label)
        if self.mode == "enforce" and action.privileges:
            caller.to_check = caller.claims
        return caller

    def identify_any(self, headers: CIMultiDictProxy[str], method: str = "GET") -> Caller | None:
        """Who asks, for what is no announced action; None when the request carries no ticket.

        The caller's `claims` are set unless the mode is ``forward``; privileges are not checked,
        see `table`. Raises Problem for a ticket that is not good, for two that differ, and for a
        cookie's that came with an unsafe `method` from a foreign page. The handshake of a WebSocket
        is a GET whose answer any page can read: give CONNECT for it.
        """
        text, ambient = self._find(headers)
        if text is None:
            return None
        if ambient and self._foreign(headers, method):
            raise self._origin_refused(headers)
        return self._forward(text) if self.mode == "forward" else self._verified(text)

    def require_any(self, headers: CIMultiDictProxy[str], method: str = "GET") -> Caller:
        """Like `identify_any`; raises Problem (ticket_missing) when there is no ticket."""
        caller = self.identify_any(headers, method)
        if caller is None:
            raise self._missing()
        return caller

    def _find(self, headers: CIMultiDictProxy[str]) -> tuple[str | None, bool]:
        try:
            return self.credentials.find(headers)
        except DifferentTicketsError:
            self.results["different"] += 1
            raise Problem(catalogue.TICKETS_DIFFER) from None

    def _foreign(self, headers: CIMultiDictProxy[str], method: str) -> bool:
        return method not in SAFE_METHODS and not self.credentials.trusts(headers)

    def _origin_refused(self, headers: CIMultiDictProxy[str], label: str | None = None) -> Problem:
        self.results["foreign_origin"] += 1
        seen = quotable(headers.get("Origin", "")[:100])
        what = f"`Origin` is {seen}." if seen else "There is no `Origin`."
        return Problem(
            catalogue.ORIGIN_REFUSED,
            f"{catalogue.ORIGIN_REFUSED.description} {what}",
            action=label,
        )

    def _missing(self, label: str | None = None) -> Problem:
        self.results["missing"] += 1
        detail = catalogue.TICKET_MISSING.description
        if self.credentials.cookie is not None:
            detail = f"{detail.removesuffix('.')} or the cookie `{self.credentials.cookie}`."
        return Problem(catalogue.TICKET_MISSING, detail, action=label, headers=CHALLENGE)

    def _verified(self, text: str, label: str | None = None) -> Caller:
        try:
            ticket = self._verify(text)
        except TicketError as exc:
            self.results[exc.reason] += 1
            log.debug("a ticket for %s is refused: %s", label or "no action", exc.detail)
            raise _invalid(exc.detail, label) from None
        self.results["valid"] += 1
        return Caller(text, ticket.user_id, ticket.client_id, claims=ticket)

    def glance(self, headers: CIMultiDictProxy[str]) -> Caller:
        """Who asks, as far as a good ticket says so; anybody else is `ANONYMOUS`.

        For counting requests of what is no action: nothing is refused here.
        """
        try:
            text, _ = self._find(headers)
            if text is None or self.mode == "forward":
                return ANONYMOUS
            ticket = self._verify(text)
        except (Problem, TicketError):
            return ANONYMOUS
        return Caller(text, ticket.user_id, ticket.client_id)

    def _verify(self, text: str) -> Ticket:
        assert self.verifier is not None  # noqa: S101 - the constructor saw to it
        return self.verifier.verify(text, self._clock())

    def _forward(self, text: str | None) -> Caller:
        if text is None:
            return ANONYMOUS
        if not _is_plain(text):  # cannot be put into a HEADER as it is
            self.results["malformed"] += 1
            raise _invalid("a ticket is plain ASCII")
        self.results["forwarded"] += 1
        return Caller(text)

    def _unneeded(self, text: str | None, *, foreign: bool) -> Caller:
        if text is None:
            self.results["dropped" if foreign else "unneeded"] += 1
            return ANONYMOUS
        try:
            ticket = self._verify(text)
        except TicketError:
            self.results["dropped"] += 1
            return ANONYMOUS
        self.results["valid"] += 1
        return Caller(text, ticket.user_id, ticket.client_id, claims=ticket)

    async def authorize(self, caller: Caller, action: Guarded, deadline: Deadline) -> None:
        """Raises Problem unless the caller has every privilege that `action` takes.

        Waits only for the privilege table, and no longer than `deadline`.
        """
        ticket, caller.to_check = caller.to_check, None
        if ticket is None:
            return
        assert self.authz is not None  # noqa: S101 - the constructor saw to it
        table = self.authz.current() or await self.table(deadline, action.label)
        try:
            table.check(action.spelling, ticket)
        except AuthorizationError as exc:
            missing = isinstance(exc, MissingPrivilege)
            self.refusals["privilege" if missing else "unconfigured"] += 1
            log.debug("user %s of client %s: %s", ticket.user_id, ticket.client_id, exc)
            challenge = f'Bearer error="insufficient_scope", error_description="{_said(exc)}"'
            raise Problem(
                catalogue.PRIVILEGE_MISSING if missing else catalogue.ACTION_UNCONFIGURED,
                f"{exc}.",
                action=action.label,
                headers=(("WWW-Authenticate", challenge),),
            ) from None

    async def table(self, deadline: Deadline, label: str | None = None) -> AuthzTable:
        """The privilege table, in mode ``enforce`` only.

        Waits no longer than `deadline`. Raises Problem (authorization_unavailable).
        """
        assert self.authz is not None  # noqa: S101 - the constructor saw to it
        try:
            return self.authz.current() or await _within(deadline, self.authz)
        except AuthzTableUnavailable as exc:
            self.refusals["unavailable"] += 1
            raise from_error(exc, label) from exc


async def _within(deadline: Deadline, authz: AuthzSource) -> AuthzTable:
    try:
        async with asyncio.timeout(deadline.remaining()):
            return await authz.get()
    except TimeoutError:
        raise AuthzTableUnavailable("", "it did not come in time", 1.0) from None


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _said(exc: Exception) -> str:
    return quotable(str(exc))


def _invalid(detail: str, label: str | None = None) -> Problem:
    challenge = f'Bearer error="invalid_token", error_description="{quotable(detail)}"'
    return Problem(
        catalogue.TICKET_INVALID,
        f"{detail[:1].upper()}{detail[1:]}.",
        action=label,
        headers=(("WWW-Authenticate", challenge),),
    )


TICKET_RESULTS: Final[Sequence[str]] = (
    "valid",
    "missing",
    "malformed",
    "bad_signature",
    "expired",
    "not_yet_valid",
    "different",
    "foreign_origin",
    "dropped",
    "forwarded",
    "unneeded",
)
REFUSALS: Final[Sequence[str]] = ("privilege", "unconfigured", "unavailable")
