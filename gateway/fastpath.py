"""Requests that wait for nothing but the service: served without a task, a future or a timer.

A request that is here as a whole, of which path, head and ticket are known and right, goes out to
its service within the call that brought its last byte, and the reply's own callback writes the
answer. Nothing is decided here that `Front` would decide otherwise: whatever is not as usual is
left to it, either before anything was done, or with what has been begun (`Connection.hand_over`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import EMPTY_PAYLOAD, HttpVersion11, hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.web_protocol import _ErrInfo

from gateway import catalogue
from gateway.actions import Announced
from gateway.compression import MIN_SIZE
from gateway.connection import MAX_HEAD
from gateway.context import is_request_id
from gateway.exchange import CLIENT_LEFT, COMMON, X_REQUEST_ID, Exchange, Serving
from gateway.head import MEANING, NO_FIELDS, Shape, Shapes, trace_of
from gateway.passes import Passes
from gateway.problems import Problem
from gateway.translate import JSON, JSON_TYPE, is_host, media_type_of, query_object
from scamp.client import Call, Deadline

if TYPE_CHECKING:
    from aiohttp import StreamReader

    from gateway.auth import Authenticator, Caller
    from gateway.connection import Connection
    from gateway.context import ClientAddresses
    from gateway.front import Front
    from gateway.routing import Known
    from scamp.client import Launch, Requester

log = logging.getLogger("gateway.front")

MAX_BODY: Final = 32 * 1024
"""Bytes of a request's body, and of an answer's, which is copied to come behind its head in one
write. Of larger ones the copies cost more than a task."""

MAX_SEEN: Final = 64
"""Values of ``Host`` and ``Content-Type`` that are not looked at again, of each."""

MAX_VALUE: Final = 256
"""Characters of one of these."""

_FIELDS: Final = "".join(f"{name}: {value}\r\n" for name, value in COMMON) + f"{X_REQUEST_ID}: "
_TYPE: Final = f"\r\nContent-Type: {JSON_TYPE}\r\n"

_METHODS: Final = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
_BY_QUERY: Final = frozenset(("GET", "DELETE"))
"""Methods of which the query is the parameters where there is no body."""


class Flight:
    """One request under way here. Its connection has it until it is over or handed over."""

    __slots__ = ("_path", "connection", "exchange", "launch", "message", "payload")

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


class FastPath:
    """Begins flights for the connections of one front, and ends them."""

    __slots__ = (
        "_addresses",
        "_auth",
        "_front",
        "_hosts",
        "_max_answer",
        "_max_body",
        "_new_id",
        "_requester",
        "_serving",
        "_shapes",
        "_types",
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
    ) -> None:
        """All of it is what `front` has."""
        self._front = front
        self._requester = requester
        self._auth = authenticator
        self.passes = Passes(authenticator)
        self._serving = serving
        self._addresses = addresses
        self._new_id = new_id
        limit = front.options.max_body
        self._max_body = MAX_BODY if limit is None else min(limit, MAX_BODY)
        self._max_answer = MIN_SIZE - 1 if serving.compress else MAX_BODY
        meaning = set(MEANING)
        if authenticator.credentials.cookie is not None:
            meaning.update(("cookie", "origin"))
        if serving.cors is not None:
            meaning.add("origin")
        self._shapes = Shapes(meaning)
        self._hosts: set[bytes] = set()
        self._types: set[bytes] = set()

    # -- the way there ------------------------------------------------------------------

    def begin(self, connection: Connection, message: Any, payload: StreamReader) -> Flight | None:
        """Send a request on, if that needs no waiting; None leaves it as it was, untouched.

        `message` is what aiohttp's parser made of the head, or of what is no request.
        """
        try:
            return self._begin(connection, message, payload)
        except Exception as exc:
            log.error("a request takes the long way", exc_info=exc)
            return None

    def _begin(self, connection: Connection, message: Any, payload: StreamReader) -> Flight | None:
        front, serving = self._front, self._serving
        if (
            type(message) is _ErrInfo
            or message.version is not HttpVersion11
            or message.should_close
            or connection.writing_paused
        ):
            return None
        path, _, query = message.path.partition("?")
        known = front.routing.recall(path)
        if known is None or message.method not in _METHODS or "#" in query or path[0] != "/":
            return None  # of a path that is remembered, its host is not: see `check_host`
        action = known.action
        if message.method not in action.methods:
            return None
        names, values = zip(*message.raw_headers)  # noqa: B905 - pairs
        shape = self._shapes.of(names)
        if not (shape.plain and self._is_right(shape, values) and JSON in action.envelopes):
            return None
        body = self._body(message.method, payload, query)
        caller = self._caller(shape, values, action)
        if body is None or caller is None or self._is_full(known):
            return None
        now = time.monotonic()
        exchange = Exchange(message, serving, known.series, now, time.time())
        exchange.route = known.route
        exchange.action = action
        exchange.caller = caller
        self._introduce(exchange, connection, shape)
        flight = Flight(self, connection, message, payload, exchange)
        call = Call(
            offers=action.offers,
            body=body,
            deadline=Deadline(now + action.timeout, action.timeout),
            ticket=caller.ticket,
            client_id=caller.client_id,
            extra=trace_of(message.headers, exchange) if shape.traced else NO_FIELDS,
            retry_safe=action.read,
            pinned=action.pinned,
        )
        limiter, asked = front.limiter, None
        if limiter is not None:
            asked = limiter.asks(caller, exchange.client)
            if asked is None:
                return None
        launch = self._requester.launch(call, flight.answered)
        if launch is None:
            return None
        flight.launch = launch
        if limiter is not None and asked is not None:
            limiter.count(exchange, asked)
        self._auth.count(caller)
        serving.in_flight += 1
        exchange.places = known.places
        known.places.in_flight += 1
        exchange.bytes_in = payload.total_bytes
        return flight

    def is_worth_waiting(self, message: Any) -> bool:
        """Whether a request that cannot begin since its body is not whole may do so once it is."""
        if type(message) is _ErrInfo or message.method == "GET":
            return False
        length = message.headers.get(hdrs.CONTENT_LENGTH, "")
        names = tuple(name for name, _ in message.raw_headers)
        return (
            self._front.routing.recall(message.path.partition("?")[0]) is not None
            and self._shapes.of(names).plain
            and length.isascii()
            and length.isdigit()
            and int(length[:9]) <= self._max_body
        )

    def _is_right(self, shape: Shape, values: tuple[bytes, ...]) -> bool:
        """Whether the head is not too large, ``Host`` one, and the body said to be JSON."""
        if shape.size + sum(map(len, values)) > MAX_HEAD:
            return False
        host = values[shape.host]
        if host not in self._hosts:
            if not is_host(_text(host)):
                return False
            _keep(self._hosts, host)
        if shape.content_type < 0:
            return True
        content_type = values[shape.content_type]
        if content_type not in self._types:
            if media_type_of(_text(content_type)) != JSON_TYPE:
                return False
            _keep(self._types, content_type)
        return True

    def _body(self, method: str, payload: StreamReader, query: str) -> bytes | None:
        """What goes to the service; None when it is not all here, or has to be looked at. It stays
        where it is: the request may yet take the long way."""
        if payload is EMPTY_PAYLOAD:
            try:
                return query_object(query) if method in _BY_QUERY else b"{}"
            except Problem:
                return None
        if (
            method == "GET"
            or payload.total_bytes > self._max_body
            or not payload.is_eof()
            or payload.exception() is not None
        ):
            return None
        pieces = payload._buffer
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
        transport.write(self._head(exchange) + body)
        exchange.status = 200
        self._front.finish(exchange)
        flight.forget()
        connection.landed()
        return True

    def _head(self, exchange: Exchange) -> bytes:
        serving = self._serving
        if serving.cors is None and not serving.server_timing and not exchange.rate_limits:
            fields = f"{_FIELDS}{exchange.request_id}{_TYPE}"
        else:
            extra = exchange.timing() if serving.server_timing else ()
            every = exchange.head(JSON_TYPE, extra).items()
            fields = "".join(f"{name}: {value}\r\n" for name, value in every)
        return (
            f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {exchange.bytes_out}\r\n"
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
        known = self._front.routing.recall(message.path.partition("?")[0])
        if known is None:  # no more
            return
        exchange = Exchange(message, self._serving, known.series, time.monotonic(), time.time())
        exchange.route, exchange.action = known.route, known.action
        names, values = zip(*message.raw_headers)  # noqa: B905 - pairs
        shape = self._shapes.of(names)
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


def _text(value: bytes) -> str:
    """As aiohttp's parser has it for the front: other decodings have other blanks."""
    return value.decode("utf-8", "surrogateescape")


def _keep(seen: set[bytes], value: bytes) -> None:
    if len(value) <= MAX_VALUE:
        if len(seen) >= MAX_SEEN:
            seen.clear()
        seen.add(value)
