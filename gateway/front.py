"""The public listener's handler: from an HTTP request to the answer on the wire.

One `Front` serves all connections of a process. It never raises but for CancelledError, which
means that the client has left or that the process does not wait any longer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import hdrs, web

from gateway import catalogue
from gateway.access_log import AccessLog
from gateway.actions import METHODS, check_method
from gateway.auth import ANONYMOUS, Authenticator, Caller
from gateway.clients import Clients
from gateway.connection import Connection
from gateway.context import (
    ClientAddresses,
    Network,
    RequestIds,
    is_request_id,
)
from gateway.cors import Cors
from gateway.endpoints import (
    Endpoint,
    Endpoints,
    allow_of,
    check_endpoint_method,
    is_counted,
)
from gateway.exchange import X_REQUEST_ID, Exchange, Serving
from gateway.failing import answer, cancelled, client_left, problem_response
from gateway.fastpath import FastPath
from gateway.flight import Flight, begun_trace
from gateway.head import NO_FIELDS, TRACEPARENT, check_head, deadline_of, single, trace_of
from gateway.inbound import Intake, refuse_body
from gateway.metrics import Metrics
from gateway.problems import UNKNOWN_RETRY_AFTER, Problem, StatusMap, from_error
from gateway.proxy import Proxy
from gateway.ratelimit.limiter import RateLimiter
from gateway.routing import Known, Routed, Routing
from gateway.shedding import Lateness
from gateway.tracing.model import Tracing
from gateway.translate import JSON_TYPE, MediaTypes, content_type_of, split_target
from scamp import limits
from scamp.client import Call, Requester
from scamp.discovery import DiscoveryStatus, Registry
from scamp.errors import ScampError

log = logging.getLogger("gateway.front")


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """Sizes in bytes, times in seconds."""

    sectors: tuple[str, ...] = ("main",)
    """Sectors whose actions are reachable."""
    request_timeout: float = limits.RPC_TIMEOUT
    body_idle: float = limits.BODY_IDLE
    max_body: int | None = None
    """Counted unpacked."""
    max_mapped_body: int = limits.MIB
    """Of a body that a route puts together with parts of the URL."""
    media_types: MediaTypes = field(default_factory=dict)
    """Envelopes by media type, in lower case."""
    max_in_flight: int = 5000
    max_in_flight_per_action: int = 2500
    """0 for no limit."""
    max_loop_lag: float = 0.0
    """What counts as late, see `Lateness`; 0 for never."""
    error_status: Mapping[str, int] = field(default_factory=dict)
    """HTTP status by a service's error_code, over the built-in ones."""
    server_timing: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    cors: Cors | None = None
    """Which origins may read answers."""
    decompress: bool = True
    """Unpack request bodies."""
    compress: bool = False
    """Compress replies for those who accept it."""


class Front:
    """Answers requests of the public listener."""

    def __init__(
        self,
        registry: Registry,
        requester: Requester,
        discovery_status: Callable[[], DiscoveryStatus],
        authenticator: Authenticator,
        metrics: Metrics,
        access_log: AccessLog,
        options: FrontOptions | None = None,
        *,
        endpoints: Endpoints | None = None,
        limiter: RateLimiter | None = None,
        clients: Clients | None = None,
        tracing: Tracing | None = None,
        fast: bool = True,
    ) -> None:
        """`endpoints` are served besides actions; more may be added to them later. Without a
        `limiter` nobody's requests are counted. `clients` are those of the listener. Without
        `tracing` the traces of callers are passed on, and no spans made. `fast`: serve what can be
        served so by the fast path; the answers are the same."""
        self.clients = clients or Clients()
        self.options = options or FrontOptions()
        self.endpoints = Endpoints() if endpoints is None else endpoints
        self._auth = authenticator
        self._tracing = tracing
        self._metrics = metrics
        self._access_log = access_log
        self._proxy = Proxy(
            requester,
            StatusMap(self.options.error_status),
            idle=self.options.body_idle,
        )
        self.limiter = limiter
        """May be set at any time, to begin or to end counting."""
        self._intake = Intake(
            limit=self.options.max_body,
            mapped_limit=self.options.max_mapped_body,
            idle=self.options.body_idle,
            media_types=self.options.media_types,
            decompress=self.options.decompress,
        )
        self._serving = Serving(
            clients=self.clients,
            cors=self.options.cors,
            compress=self.options.compress,
            server_timing=self.options.server_timing,
        )
        self.routing = Routing(
            registry,
            discovery_status,
            metrics,
            sectors=self.options.sectors,
            default_timeout=self.options.request_timeout,
        )
        self.lateness = Lateness(self.options.max_loop_lag)
        """To be told how late the loop is."""
        self._addresses = ClientAddresses(self.options.trusted_proxies)
        self._new_id = RequestIds()
        self.fast: FastPath | None = None
        """For requests that need no task; None: all have one."""
        if fast and JSON_TYPE not in self.options.media_types:
            self.fast = FastPath(
                self,
                requester,
                authenticator,
                self._serving,
                addresses=self._addresses,
                new_id=self._new_id,
                tracing=tracing,
            )

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet, without those that are parked."""
        return self._serving.in_flight

    @property
    def shed(self) -> Mapping[str, int]:
        """Requests refused because of a limit, by limit; those of `shedding.SHED_HERE`."""
        return self._serving.shed

    @property
    def draining(self) -> bool:
        """While True every answer ends its connection, those of requests under way too."""
        return self._serving.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._serving.draining = value

    # -- one request --------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; what is returned has been sent, or cannot be.

        Raises CancelledError only.
        """
        flight = request.protocol.take_over() if isinstance(request.protocol, Connection) else None
        if flight is None:
            exchange = self._open(request)
        else:
            exchange = flight.exchange
            exchange.request = request
        try:
            problem = await self._try(exchange, flight)
            if problem is not None:
                await answer(exchange, problem)
        except asyncio.CancelledError:
            await cancelled(exchange)
            raise
        except ConnectionError:
            client_left(exchange)
        finally:
            self.finish(exchange)
            if flight is not None:
                flight.forget()
        return exchange.response or web.Response()

    def refuse(self, request: web.BaseRequest, problem: Problem) -> web.StreamResponse:
        """The answer to what is no HTTP request, logged and counted; to be sent at once."""
        exchange = self._open(request)
        exchange.close = True
        response = problem_response(exchange, problem)
        if exchange.client_gone:
            client_left(exchange)
        self.finish(exchange)
        return response

    async def _try(self, exchange: Exchange, flight: Flight | None) -> Problem | None:
        """Serve, and turn whatever goes wrong into a Problem, if somebody can still be told."""
        try:
            if flight is not None:
                if exchange.cause is not None:  # it has failed, and there is a log line
                    return Problem(catalogue.INTERNAL)
                await self._proxy.go_on(exchange, flight.launch, flight.status, flight.content_type)
                return None
            check_head(exchange)
            if self._serving.in_flight > self.options.max_in_flight:
                return self._full("in_flight", "Too many requests under way.")
            if self.lateness.share and self.lateness.refuses():
                return self._full("loop_lag", "The gateway is overloaded.")
            await self._serve(exchange)
        except Problem as exc:
            log.debug("request %s: %s: %s", exchange.request_id, exc.kind.code, exc.detail)
            if self.limiter is not None and exc.kind in _BAD_TICKETS:
                return await self._count_bad_ticket(exchange, exc, self.limiter)
            return exc
        except ScampError as exc:
            label = exchange.action.label if exchange.action is not None else None
            problem = from_error(exc, label)
            if problem.kind is catalogue.INTERNAL:
                log.error("request %s: %s", exchange.request_id, exc, exc_info=exc)
            return problem
        except ConnectionError:
            raise
        except Exception as exc:
            log.error("request %s failed in the gateway", exchange.request_id, exc_info=exc)
            if exchange.head_sent:
                exchange.cause = catalogue.INTERNAL.code
                exchange.cut()
                return None
            return Problem(catalogue.INTERNAL)
        return None

    def _full(self, limit: str, detail: str, action: str | None = None) -> Problem:
        self._serving.shed[limit] += 1
        return Problem(catalogue.SATURATED, detail, action=action, retry_after=UNKNOWN_RETRY_AFTER)

    @staticmethod
    async def _count_bad_ticket(
        exchange: Exchange, problem: Problem, limiter: RateLimiter
    ) -> Problem:
        """Whoever tries tickets is counted by address. A good one from there passes all the same:
        it cannot be guessed, and many may be behind one address."""
        if not exchange.rate_limits:  # not counted yet
            try:
                await limiter.admit(exchange, ANONYMOUS)
            except Problem as exc:
                return exc
        return problem

    async def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        method = exchange.method
        path, _, query = request.raw_path.partition("?")
        known = self.routing.known(path, exchange)
        routed: Routed | None = None
        if known is None:
            if method == "OPTIONS" and path == "*":
                await exchange.send_options(", ".join(METHODS))
                return
            decoded, _ = split_target(path)
            endpoint = self.endpoints.find(decoded)
            if endpoint is not None:
                await self._serve_endpoint(exchange, endpoint, decoded, query)
                return
            routed = self.routing.routed(method, decoded, exchange)
            known = self.routing.find(path, exchange) if routed is None else routed.known
        if method == "OPTIONS":
            await exchange.send_options(known.action.allow if routed is None else routed.allow)
            return
        if routed is None:
            check_method(method, known.action)
        await self._call(exchange, known, query, routed)

    async def _call(
        self, exchange: Exchange, known: Known, query: str, routed: Routed | None
    ) -> None:
        action = known.action
        headers = exchange.headers
        if hdrs.EXPECT in headers and single(headers, hdrs.EXPECT).lower() != "100-continue":
            raise Problem(catalogue.EXPECTATION_FAILED)
        deadline, lowered = deadline_of(headers, action)
        fields: Mapping[str, str] = NO_FIELDS
        trace = exchange.trace
        if trace is not None:
            fields = trace.fields
        elif TRACEPARENT in headers:
            fields = trace_of(headers, exchange)
        caller = exchange.caller = self._auth.identify(headers, action, exchange.method)
        if self.limiter is not None:  # also when a privilege is missing
            await _count(exchange, caller, routed, self.limiter)
        if caller.to_check is not None:
            await self._auth.authorize(caller, action, deadline)
        self._take_place(exchange, known)
        match = routed.match if routed is not None else None
        inbound = await self._intake.take(exchange, action, match, query, deadline)
        retry_safe = action.read
        status, content_type = 200, content_type_of(inbound.envelope, self.options.media_types)
        if match is not None:
            route = match.route
            status, content_type = route.status, route.produces or content_type
            retry_safe = retry_safe and route.retry and _replayable(inbound.body)
        call = Call(
            offers=action.offers,
            body=inbound.body,
            deadline=deadline,
            envelope=inbound.envelope,
            ticket=caller.ticket,
            client_id=caller.client_id,
            extra={**fields, **inbound.fields} if inbound.fields else fields,
            retry_safe=retry_safe,
            pinned=action.pinned,
            caller_lowered=lowered or exchange.waited > _SLOW_BODY,
            trace=trace.call if trace is not None else None,
        )
        await self._proxy.run(exchange, call, inbound.upload, status, content_type)

    def _take_place(self, exchange: Exchange, known: Known) -> None:
        """Among the requests of one action, which must not take the places of all others."""
        places = known.places
        if places.in_flight >= self.options.max_in_flight_per_action > 0:
            label = known.action.label
            raise self._full("action", f"Too many requests of {label} under way.", label)
        places.in_flight += 1
        exchange.places = places

    async def _serve_endpoint(
        self, exchange: Exchange, endpoint: Endpoint, path: str, query: str
    ) -> None:
        exchange.route = endpoint.route
        if exchange.method == "OPTIONS":
            await exchange.send_options(allow_of(endpoint.methods))
            return
        check_endpoint_method(exchange.method, endpoint)
        if exchange.method in ("GET", "HEAD"):
            refuse_body(exchange)
        if self.limiter is not None and is_counted(path):
            await self.limiter.admit(exchange, self._auth.glance(exchange.headers))
        await endpoint.serve(exchange, path, query)

    # -- beginning and end --------------------------------------------------------------

    def _open(self, request: web.BaseRequest) -> Exchange:
        self._serving.in_flight += 1
        exchange = Exchange(
            request, self._serving, self._metrics.none, time.monotonic(), time.time()
        )
        headers = request.headers
        given = headers.get(X_REQUEST_ID)
        exchange.request_id = given if given and is_request_id(given) else self._new_id()
        peer = request.remote
        if peer and hdrs.X_FORWARDED_FOR in headers:
            peer = self._addresses.client(peer, headers.getall(hdrs.X_FORWARDED_FOR))
        exchange.client = peer
        if self._tracing is not None:
            protocol = request.protocol
            connection = protocol if isinstance(protocol, Connection) else None
            exchange.trace = begun_trace(exchange, connection, self._tracing)
        return exchange

    def finish(self, exchange: Exchange) -> None:
        """Count and log a request that is over."""
        if not exchange.parked:
            self._serving.in_flight -= 1
        if exchange.places is not None:
            exchange.places.in_flight -= 1
        self._serving.held -= exchange.held
        total = time.monotonic() - exchange.started
        self._metrics.observe(exchange, total)
        self._access_log.record(exchange, total)
        if exchange.trace is not None:
            exchange.trace.end(exchange)
            exchange.trace = None


_BAD_TICKETS: Final = (
    catalogue.TICKET_MISSING,
    catalogue.TICKET_INVALID,
    catalogue.TICKETS_DIFFER,
)

_SLOW_BODY: Final = 1.0
"""Seconds that a small body may take; after more, what is left of the deadline is no measure of
the service."""


async def _count(
    exchange: Exchange, caller: Caller, routed: Routed | None, limiter: RateLimiter
) -> None:
    """Against the caller's limits, and against its limit for the route."""
    known = routed.known if routed is not None else None
    if known is None or known.rate is None:
        await limiter.admit(exchange, caller)
    else:
        await limiter.admit(exchange, caller, known.rate_key, known.rate)


def _replayable(body: object) -> bool:
    return isinstance(body, bytes) and len(body) <= limits.REPLAY_LIMIT
