"""What a handler is given: one request, its caller, and its body as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from scamp.authz import AuthzTable
from scamp.discovery import Action
from scamp.errors import LocalProtocolError, MissingPrivilege, ServiceError
from scamp.limits import BODY_IDLE, MAX_REQUEST_BODY
from scamp.tickets import Ticket
from scamp.transport import IncomingMessage
from scamp.wire import RequestHeader

_TRACE: Final = ("traceparent", "tracestate")


def access_denied(error: MissingPrivilege) -> ServiceError:
    """The refusal of a caller who lacks a privilege; it names the privilege."""
    data = {"privilege": error.privilege, "name": error.name}
    return ServiceError("access_denied", str(error), data)


@dataclass(frozen=True, eq=False)
class Request:
    """One call of an action.

    `deadline` is the event loop's time at which the handler is stopped; one that streams its reply
    has the same time anew for each piece. `ticket` is None when the
    caller gave none, or none was checked; `ticket_text` is what to pass on in further calls.
    """

    action: Action
    header: RequestHeader
    deadline: float
    peer: str
    """The caller's address, HOST:PORT."""
    ticket: Ticket | None
    message: IncomingMessage = field(repr=False)
    table: AuthzTable | None = field(default=None, repr=False)
    """The privilege table that the ticket was checked against; None when none was."""

    @property
    def version(self) -> int:
        """The version of the action that was asked for."""
        return self.header.version

    @property
    def envelope(self) -> str:
        """How the body is to be taken, such as ``json``."""
        return self.header.envelope

    @property
    def client_id(self) -> int | None:
        """The customer on whose behalf the call is made, as the caller says."""
        return self.header.client_id

    @property
    def ticket_text(self) -> str | None:
        """The ticket as it came. A password while it is valid: keep it out of logs."""
        return self.header.ticket

    @property
    def trace_context(self) -> dict[str, str]:
        """The caller's trace: ``traceparent`` and ``tracestate`` (W3C Trace Context) as far as they
        came. To be given to OpenTelemetry's propagator, or as `extra` to further calls; not checked
        here."""
        extra = self.header.extra
        return {name: text for name in _TRACE if isinstance(text := extra.get(name), str)}

    @property
    def time_left(self) -> float:
        """Seconds until `deadline`; never negative."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def require(self, privilege: int) -> Ticket:
        """The caller's ticket, if it holds `privilege`, which the action may take for some bodies.

        Raises ServiceError ``unauthorized`` without a ticket that was checked, ``access_denied``
        when the ticket lacks the privilege.
        """
        if self.ticket is None:
            raise ServiceError("unauthorized", f"{self.action.spelling} requires a ticket")
        if privilege not in self.ticket.privileges:
            name = str(privilege) if self.table is None else self.table.name_of(privilege)
            raise access_denied(MissingPrivilege(self.action.spelling, privilege, name))
        return self.ticket

    async def read(self) -> bytes:
        """The next bytes of the body, as many as have arrived; empty at the end.

        What is not read is not acknowledged, so a slow handler slows its caller down and nobody
        else. Raises RequestAborted when the caller gave the request up, ConnectionLost, or
        IdleTimeout after BODY_IDLE seconds without a byte. Safe to cancel: nothing is lost.
        """
        return await self.message.read(BODY_IDLE)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece. Raises as `read` does."""
        while data := await self.read():
            yield data

    async def read_all(self, limit: int = MAX_REQUEST_BODY) -> bytes:
        """The rest of the body.

        Raises ServiceError ``too_large`` above `limit` bytes, else as `read` does. When it is
        cancelled, what had been read is lost.
        """
        try:
            return await self.message.read_all(limit, BODY_IDLE)
        except LocalProtocolError as exc:
            raise ServiceError("too_large", f"the body exceeds {limit} bytes") from exc

    async def json(self, limit: int = MAX_REQUEST_BODY) -> Any:
        """The body as JSON; an empty one is ``{}``, which callers mean by it.

        Raises ServiceError ``bad_request`` when it is not JSON, else as `read_all` does.
        """
        body = await self.read_all(limit)
        if not body.strip():
            return {}
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise ServiceError("bad_request", f"the body is not JSON: {exc}") from exc
