"""Requests that wait for nothing but the service: served without a task, a future or a timer.

A request that is here as a whole, of which path, head and ticket are known and right, goes out to
its service within the call that brought its last byte, and the reply's own callback writes the
answer. Nothing is decided here that `Front` would decide otherwise: whatever is not as usual is
left to it, either before anything was done, or with what has been begun (`Connection.hand_over`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import EMPTY_PAYLOAD, HttpVersion11, hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.web_protocol import _ErrInfo

from gateway import catalogue
from gateway.actions import Announced
from gateway.compression import MIN_SIZE
from gateway.context import is_request_id
from gateway.exchange import CLIENT_LEFT, COMMON, X_REQUEST_ID, Exchange, Serving
from gateway.flight import Flight, begun_trace
from gateway.head import NO_FIELDS, trace_of
from gateway.passes import Passes
from gateway.problems import Problem
from gateway.routes.compose import compose, members_of, passes_through
from gateway.shapes import MEANING, PlainHeads, Shape
from gateway.translate import (
    JSON,
    JSON_TYPE,
    query_object,
    split_target,
)
from scamp.client import Call, Deadline
from scamp.limits import MAX_INFLIGHT

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from gateway.auth import Authenticator, Caller
    from gateway.connection import Connection
    from gateway.context import ClientAddresses
    from gateway.front import Front
    from gateway.routes.match import Match
    from gateway.routing import Known
    from gateway.tracing.model import Tracing
    from scamp.client import Requester

log = logging.getLogger("gateway.front")

MAX_BODY: Final = MAX_INFLIGHT
"""Bytes of a request's body, and of an answer's: the window of a message. More cannot be here, or
with the service, without waiting for the other side."""

_FIELDS: Final = "".join(f"{name}: {value}\r\n" for name, value in COMMON) + f"{X_REQUEST_ID}: "
_LINES: Final = {
    one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n"
    for one in (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
}
"""Status lines, by status."""

_METHODS: Final = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
_BY_QUERY: Final = frozenset(("GET", "DELETE"))
"""Methods of which the query is the parameters where there is no body."""


class FastPath:
    """Begins flights for the connections of one front, and ends them."""

    __slots__ = (
        "_addresses",
        "_auth",
        "_front",
        "_heads",
        "_max_answer",
        "_max_body",
        "_new_id",
        "_requester",
        "_serving",
        "_tracing",
        "passes",
    )

    def __init__(
        self,
        front: Front,
        requester: Requester,
        authenticator: Authenticator,
        serving: Serving,
        *,
        addresses: ClientAddresses,
        new_id: Callable[[], str],
        tracing: Tracing | None = None,
    ) -> None:
        """All of it is what `front` has."""
        self._front = front
        self._requester = requester
        self._auth = authenticator
        self.passes = Passes(authenticator)
        self._serving = serving
        self._addresses = addresses
        self._new_id = new_id
        self._tracing = tracing
        options = front.options
        most = MAX_BODY if options.max_body is None else options.max_body
        self._max_body = min(MAX_BODY, most, options.max_mapped_body)
        self._max_answer = MIN_SIZE - 1 if serving.compress else MAX_BODY
        meaning = set(MEANING)
        if authenticator.credentials.cookie is not None:
            meaning.update(("cookie", "origin"))
        if serving.cors is not None:
            meaning.add("origin")
        self._heads = PlainHeads(meaning)

    # -- the way there ------------------------------------------------------------------

    def begin(
        self,
        connection: Connection,
        message: Any,
        payload: StreamReader = EMPTY_PAYLOAD,
        body: bytes | None = None,
    ) -> Flight | None:
        """Send a request on, if that needs no waiting; None leaves it as it was, untouched.

        `message` is what aiohttp's parser made of the head, or of what is no request. `body` is
        given where it is not in `payload`.
        """
        try:
            return self._begin(connection, message, payload, body)
        except Exception as exc:
            log.error("a request takes the long way", exc_info=exc)
            return None

    def _begin(
        self, connection: Connection, message: Any, payload: StreamReader, received: bytes | None
    ) -> Flight | None:
        if (
            type(message) is _ErrInfo
            or message.version is not HttpVersion11
            or message.should_close
            or connection.writing_paused
        ):
            return None
        led = self._lead(message)
        if led is None:
            return None
        known, match, query = led
        action = known.action
        names, values = zip(*message.raw_headers)  # noqa: B905 - pairs
        shape = self._heads.shapes.of(names)
        if not (self._heads.is_plain(shape, values) and JSON in action.envelopes):
            return None
        if received is None:
            received = self._received(payload)
        elif len(received) > self._max_body:
            return None
        body = None if received is None else _body(message.method, received, query, match)
        caller = self._caller(shape, values, action)
        if body is None or caller is None or self._is_full(known):
            return None
        now = time.monotonic()
        exchange = Exchange(message, self._serving, known.series, now, time.time())
        exchange.route = known.route
        exchange.action = action
        exchange.caller = caller
        exchange.bytes_in = len(received or b"")
        self._introduce(exchange, connection, shape)
        flight = Flight(self, connection, message, payload, exchange)
        retry_safe = action.read
        if match is not None:
            route = match.route
            exchange.asked = route.target
            flight.status, flight.content_type = route.status, route.produces or JSON_TYPE
            retry_safe = retry_safe and route.retry
        fields = self._fields(exchange, shape, connection)
        if fields is None:
            return None
        call = Call(
            offers=action.offers,
            body=body,
            deadline=Deadline(now + action.timeout, action.timeout),
            ticket=caller.ticket,
            client_id=caller.client_id,
            extra=fields,
            retry_safe=retry_safe,
            pinned=action.pinned,
        )
        return self._launched(flight, call, caller, known)

    def _lead(self, message: Any) -> tuple[Known, Match | None, str] | None:
        """What is to be called, by which route if it is one, and the query."""
        path, _, query = message.path.partition("?")
        method = message.method
        if method not in _METHODS or "#" in query or path[:1] != "/":
            return None  # of a path that is remembered, its host is not: see `check_host`
        known = self._front.routing.recall(path)
        if known is not None:
            return (known, None, query) if method in known.action.methods else None
        routed = self._routed(method, path)
        return None if routed is None else (*routed, query)

    def _fields(
        self, exchange: Exchange, shape: Shape, connection: Connection
    ) -> Mapping[str, str] | None:
        """What the service gets to know of the trace; None where there are spans to be made."""
        if self._tracing is None:
            return trace_of(exchange.headers, exchange) if shape.traced else NO_FIELDS
        trace = exchange.trace = begun_trace(exchange, connection, self._tracing)
        connection.trace = trace, exchange.trace_id
        return trace.fields if trace.call is None else None

    def _launched(self, flight: Flight, call: Call, caller: Caller, known: Known) -> Flight | None:
        """The flight, on its way and counted; None where nothing has happened."""
        exchange, limiter, asked = flight.exchange, self._front.limiter, None
        if limiter is not None:
            asked = limiter.asks(caller, exchange.client, known.rate_key, known.rate)
            if asked is None:
                return None
        launch = self._requester.launch(call, flight.answered)
        if launch is None:
            return None
        flight.launch = launch
        flight.connection.trace = None
        if limiter is not None and asked is not None:
            limiter.count(exchange, asked)
        self._auth.count(caller)
        self._serving.in_flight += 1
        exchange.places = known.places
        known.places.in_flight += 1
        return flight

    def is_worth_waiting(self, message: Any) -> bool:
        """Whether a request that cannot begin since its body is not whole may do so once it is."""
        if type(message) is _ErrInfo or message.method == "GET":
            return False
        length = message.headers.get(hdrs.CONTENT_LENGTH, "")
        names = tuple(name for name, _ in message.raw_headers)
        return (
            self._lead(message) is not None
            and self._heads.shapes.of(names).plain
            and length.isascii()
            and length.isdigit()
            and int(length[:9]) <= self._max_body
        )

    def _routed(self, method: str, path: str) -> tuple[Known, Match] | None:
        """Where a route of the routes file leads that asks nothing unusual of its requests."""
        routing = self._front.routing
        if not routing.routes.routes:
            return None
        try:
            decoded, _ = split_target(path)
        except Problem:
            return None
        if self._front.endpoints.find(decoded) is not None:
            return None
        routed = routing.recall_route(method, decoded)
        if routed is None:
            return None
        route = routed[1].route
        if route.status not in _LINES or route.consumes or route.envelope is not None:
            return None
        return routed

    def _received(self, payload: StreamReader) -> bytes | None:
        """The request's body; None when it is not all here. It stays where it is: the request may
        yet take the long way."""
        if payload is EMPTY_PAYLOAD:
            return b""
        if (
            payload.total_bytes > self._max_body
            or not payload.is_eof()
            or payload.exception() is not None
        ):
            return None
        pieces = payload._buffer
        if len(pieces) == 1:
            return pieces[0]
        body = b"".join(pieces)
        if body:  # held once, and not as pieces besides
            pieces.clear()
            pieces.append(body)
        return body

    def _caller(self, shape: Shape, values: tuple[bytes, ...], action: Announced) -> Caller | None:
        if shape.authorization >= 0:
            if shape.ticket >= 0:
                return None
            return self.passes.caller("authorization", values[shape.authorization], action)
        if shape.ticket >= 0:
            return self.passes.caller("x-scamp-ticket", values[shape.ticket], action)
        return self._auth.anonymous(action)

    def _is_full(self, known: Known) -> bool:
        """Whether there is any reason to refuse; which one is for the front to say."""
        front, options = self._front, self._front.options
        most = options.max_in_flight_per_action
        return (
            self._serving.draining
            or front.lateness.share > 0
            or self._serving.in_flight >= options.max_in_flight
            or (known.places.in_flight >= most > 0)
        )

    def _introduce(self, exchange: Exchange, connection: Connection, shape: Shape) -> None:
        """Who asks, and by what id."""
        given = exchange.headers[X_REQUEST_ID] if shape.request_id >= 0 else ""
        exchange.request_id = given if given and is_request_id(given) else self._new_id()
        peer = connection.remote
        if peer and shape.forwarded:
            peer = self._addresses.client(peer, exchange.headers.getall(hdrs.X_FORWARDED_FOR))
        exchange.client = peer

    # -- the way back -------------------------------------------------------------------

    def answer(self, flight: Flight) -> None:
        """Write the answer to a flight, or hand it over. Never raises: it is called from within
        the service's connection."""
        exchange = flight.exchange
        try:
            if self._answer(flight):
                return
        except Exception as exc:
            log.error("request %s failed in the gateway", exchange.request_id, exc_info=exc)
            if exchange.status:  # it was answered, and is being counted
                flight.connection.crash()
                return
            exchange.cause = catalogue.INTERNAL.code
            flight.launch.abandon()
        flight.connection.hand_over()

    def _answer(self, flight: Flight) -> bool:
        reply = flight.launch.reply()
        connection, exchange = flight.connection, flight.exchange
        transport = connection.transport
        if (
            reply is None
            or reply.failed
            or reply.bytes_received > self._max_answer
            or self._serving.draining
            or connection.writing_paused
            or transport is None
            or transport.is_closing()
        ):
            return False
        body = reply.read_nowait()
        exchange.queued = reply.queued
        exchange.upstream = reply.upstream
        exchange.address = reply.address
        exchange.attempts = reply.attempts
        exchange.source = "service"
        exchange.bytes_out = len(body)
        transport.write(self._head(flight) + body)
        exchange.status = flight.status
        self._front.finish(exchange)
        flight.forget()
        connection.landed()
        return True

    def _head(self, flight: Flight) -> bytes:
        serving, exchange = self._serving, flight.exchange
        if serving.cors is None and not serving.server_timing and not exchange.rate_limits:
            fields = f"{_FIELDS}{exchange.request_id}\r\nContent-Type: {flight.content_type}\r\n"
        else:
            extra = exchange.timing() if serving.server_timing else ()
            every = exchange.head(flight.content_type, extra).items()
            fields = "".join(f"{name}: {value}\r\n" for name, value in every)
        return (
            f"{_LINES[flight.status]}{fields}Content-Length: {exchange.bytes_out}\r\n"
            f"Date: {rfc822_formatted_time()}\r\n\r\n"
        ).encode()

    def lost(self, flight: Flight) -> None:
        """The client of a flight has left, and the service has been told."""
        exchange = flight.exchange
        exchange.upstream = time.monotonic() - exchange.started
        exchange.attempts = None
        self._left(exchange, flight.connection)

    def missed(self, connection: Connection, message: Any, payload: StreamReader) -> None:
        """The client has left while its body `is_worth_waiting` for: as if it had had its task."""
        led = self._lead(message)
        if led is None:  # no more
            return
        known, _, _ = led
        exchange = Exchange(message, self._serving, known.series, time.monotonic(), time.time())
        exchange.route, exchange.action = known.route, known.action
        names, values = zip(*message.raw_headers)  # noqa: B905 - pairs
        shape = self._heads.shapes.of(names)
        self._introduce(exchange, connection, shape)
        caller = exchange.caller = self._caller(shape, values, known.action)
        if caller is not None:
            self._auth.count(caller)
        exchange.bytes_in = payload.total_bytes
        self._serving.in_flight += 1
        self._left(exchange, connection)

    def _left(self, exchange: Exchange, connection: Connection) -> None:
        exchange.status = CLIENT_LEFT
        exchange.cause = "client_stalled" if connection.stalled else "client_left"
        self._front.finish(exchange)


def _body(method: str, received: bytes, query: str, match: Match | None) -> bytes | None:
    """What goes to the service; None where something is not right."""
    try:
        if match is not None:
            return _composed(match, query, received)
        if received:
            return received if method != "GET" else None
        return query_object(query) if method in _BY_QUERY else b"{}"
    except Problem:
        return None


def _composed(match: Match, query: str, body: bytes) -> bytes | None:
    """The body of a call by a route. Raises Problem."""
    route = match.route
    if body and route.body is None:
        return None
    if passes_through(route):
        return body or b"{}"
    return compose(route, members_of(route, match.values, query), body)
