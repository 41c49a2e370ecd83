"""One request on the fast path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.exchange import Exchange
from gateway.translate import JSON_TYPE

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from gateway.connection import Connection
    from gateway.fastpath import FastPath
    from gateway.tracing.model import RequestTrace, Tracing
    from scamp.client import Launch


class Flight:
    """One request under way here. Its connection has it until it is over or handed over."""

    __slots__ = (
        "_path",
        "connection",
        "content_type",
        "exchange",
        "launch",
        "message",
        "payload",
        "status",
    )

    launch: Launch

    def __init__(
        self,
        path: FastPath,
        connection: Connection,
        message: Any,
        payload: StreamReader,
        exchange: Exchange,
    ) -> None:
        self._path = path
        self.connection = connection
        self.message = message
        self.payload = payload
        self.exchange = exchange
        self.status = 200
        """Of the answer, if it is a success; and its type."""
        self.content_type = JSON_TYPE

    def answered(self) -> None:
        """The reply, or whatever came in its place, is here."""
        self._path.answer(self)

    def lost(self) -> None:
        """The client has left before it had an answer."""
        self.launch.abandon()
        self._path.lost(self)
        self.forget()

    def handed_over(self) -> None:
        """A task goes on with it in a moment. What comes until then is for that."""
        self.launch.detach()

    def forget(self) -> None:
        """It is over. The launch holds what it calls: a cycle would be left as garbage for each."""
        del self.launch


def begun_trace(
    exchange: Exchange, connection: Connection | None, tracing: Tracing
) -> RequestTrace:
    """The trace of a request, which the fast path may have begun already."""
    if connection is None or connection.trace is None:
        return tracing.begin(exchange)
    (trace, exchange.trace_id), connection.trace = connection.trace, None
    return trace
