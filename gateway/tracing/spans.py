"""The spans of one request: what it was, how it waited, each attempt at a service.

They are written down when the request is over, as records that are ready to be exported: a live
span of the SDK, with its lock and its copies, takes eight times as long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gateway.context import parse_traceparent, tracestate_members, usable_tracestate
from gateway.exchange import CLIENT_LEFT
from gateway.head import NO_FIELDS, TRACEPARENT
from gateway.metrics import QUEUED
from gateway.problems import from_error
from gateway.tracing.attributes import (
    Attributes,
    attempt_attributes,
    cut,
    instance_attributes,
    name_of,
    request_attributes,
)
from scamp.client import Reply
from scamp.discovery import Offer
from scamp.errors import ConnectFailed, ScampError

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.tracing.model import RequestTrace

log = logging.getLogger("gateway.tracing")

MAX_ATTEMPTS: Final = 32
"""Attempts of one request that get spans. More than retries and a first try there are only where
many instances take long to connect to."""

Links: TypeAlias = tuple[Link, ...]

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
_UNSET: Final = Status(StatusCode.UNSET)
_ERROR: Final = Status(StatusCode.ERROR)


class Spans:
    """A `Tracing` that gives the spans of sampled requests to `put`."""

    def __init__(
        self,
        provider: TracerProvider,
        scope: InstrumentationScope,
        put: Callable[[ReadableSpan], None],
        *,
        ratio: float | None = None,
        restart: bool = False,
    ) -> None:
        """`provider` has ids, resource and sampler. With a `ratio` that share of the traces that
        begin here is sampled, and of others what their callers sample: what ``ParentBased`` and
        ``TraceIdRatioBased`` of the SDK say, without a context for each request. `restart`: every
        trace begins here, with a link to that of the caller."""
        self._sampler = provider.sampler
        self._bound = None if ratio is None else TraceIdRatioBased.get_bound_for_rate(ratio)
        self._restart = restart
        self._ids = provider.id_generator
        self._resource = provider.resource
        self._scope = scope
        self._put = put

    def begin(self, exchange: Exchange) -> RequestTrace:
        """See `Tracing`. A sampler of the environment may be anybody's: if it fails, the request
        has no spans, and goes on."""
        try:
            return self._begin(exchange)
        except Exception as exc:
            log.error("a request gets no spans", exc_info=exc)
            return _UNTRACED

    def _begin(self, exchange: Exchange) -> RequestTrace:
        headers = exchange.headers
        parsed, state = None, ""
        links: Links = ()
        if TRACEPARENT in headers:
            parsed = parse_traceparent(",".join(headers.getall(TRACEPARENT)))  # not in pieces
            if parsed is not None and (given := headers.getall("tracestate", None)) is not None:
                state = ",".join(given)
                if not usable_tracestate(state):
                    state = ""
            if self._restart and parsed is not None:
                links = (Link(_context_of(parsed, state)),)
                parsed, state = None, ""
        trace = self._ids.generate_trace_id() if parsed is None else int(parsed[0], 16)
        exchange.trace_id = f"{trace:032x}"
        if not self._samples(exchange, trace, parsed, state):
            span = self._ids.generate_span_id()
            return Unsampled(f"00-{trace:032x}-{span:016x}-00", state)
        above = None if parsed is None else _context_of(parsed, state)
        own = SpanContext(
            *(trace, self._ids.generate_span_id(), False, _SAMPLED),
            above.trace_state if above is not None else None,
        )
        return Recorded(self, own, above, state, links)

    def _samples(
        self, exchange: Exchange, trace: int, parsed: tuple[str, str, bool] | None, state: str
    ) -> bool:
        if self._bound is not None:
            if parsed is not None:
                return parsed[2]
            return trace & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound
        context = None
        if parsed is not None:
            context = set_span_in_context(NonRecordingSpan(_context_of(parsed, state)))
        chosen = self._sampler.should_sample(context, trace, exchange.method, SpanKind.SERVER)
        return chosen.decision is Decision.RECORD_AND_SAMPLE

    def below(self, above: SpanContext) -> SpanContext:
        """A new span in the same trace."""
        return SpanContext(
            *(above.trace_id, self._ids.generate_span_id(), False, _SAMPLED), above.trace_state
        )

    def write(
        self,
        name: str,
        kind: SpanKind,
        own: SpanContext,
        above: SpanContext | None,
        attributes: Attributes,
        began: float,
        ended: float,
        *,
        failed: bool,
        links: Links = (),
    ) -> None:
        """One span, from and to in seconds since 1970."""
        self._put(
            ReadableSpan(
                name,
                own,
                above,
                self._resource,
                attributes,
                links=links,
                kind=kind,
                status=_ERROR if failed else _UNSET,
                start_time=int(began * 1e9),
                end_time=int(max(began, ended) * 1e9),
                instrumentation_scope=self._scope,
            )
        )


class Unsampled:
    """A `RequestTrace` that records nothing; services are told so."""

    __slots__ = ("fields",)

    call: Final = None

    def __init__(self, traceparent: str, state: str) -> None:
        self.fields: Mapping[str, str] = (
            {"traceparent": traceparent, "tracestate": state}
            if state
            else {"traceparent": traceparent}
        )

    def replied(self, reply: Reply) -> None:
        """Nothing."""

    def end(self, exchange: Exchange) -> None:
        """Nothing."""


class _Untraced(Unsampled):
    """Services are told nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        self.fields = NO_FIELDS


_UNTRACED: Final = _Untraced()


class Attempt:
    """One attempt; times as `time.monotonic` has them."""

    __slots__ = (
        *("address", "code", "context", "dialled", "error", "number", "offer", "over", "sent"),
        *("unreachable", "waiting"),
    )

    def __init__(self, offer: Offer, address: str, number: int) -> None:
        self.offer = offer
        self.address = address
        self.number = number
        self.waiting = time.monotonic()
        self.dialled: tuple[float, float] | None = None
        self.sent: float | None = None
        self.context: SpanContext | None = None
        """Of the exchange, once the request was sent."""
        self.over: float | None = None
        self.error: str | None = None
        self.code: str | None = None
        """The service's own."""
        self.unreachable = False


class Recorded:
    """A `RequestTrace`, and the `CallTrace` of its call."""

    __slots__ = ("_above", "_attempt", "_attempts", "_links", "_own", "_spans", "fields")

    def __init__(
        self,
        spans: Spans,
        own: SpanContext,
        above: SpanContext | None,
        state: str,
        links: Links,
    ) -> None:
        self.fields: Mapping[str, str] = {"tracestate": state} if state else NO_FIELDS
        self._spans = spans
        self._own = own
        self._above = above
        self._links = links
        self._attempts: list[Attempt] = []
        self._attempt: Attempt | None = None

    @property
    def call(self) -> Recorded:
        """Itself."""
        return self

    # -- the call -----------------------------------------------------------------------

    def waits(self, offer: Offer, address: str, attempt: int) -> None:
        """See `CallTrace`."""
        self._attempt = made = Attempt(offer, address, attempt)
        if len(self._attempts) < MAX_ATTEMPTS:
            self._attempts.append(made)

    def starts(self, dialled: tuple[float, float] | None) -> Mapping[str, Any]:
        """See `CallTrace`. What the service does hangs below this attempt."""
        context = self._spans.below(self._own)
        attempt = self._attempt
        if attempt is not None:
            attempt.dialled, attempt.sent, attempt.context = dialled, time.monotonic(), context
        return {"traceparent": _traceparent(context)}

    def failed(self, error: ScampError | None) -> None:
        """See `CallTrace`."""
        attempt = self._attempt
        if attempt is not None:
            attempt.over = time.monotonic()
            attempt.error = "slow_connect" if error is None else from_error(error, None).kind.code
            attempt.unreachable = isinstance(error, ConnectFailed)

    def replied(self, reply: Reply) -> None:
        """See `RequestTrace`."""
        attempt = self._attempt
        if attempt is None:
            return
        if reply.failed:
            attempt.code = cut(reply.header.error_code or "")
            attempt.error = attempt.code or "service_error"
        if reply.failed or reply.complete:  # else it was broken off, as the request's end will tell
            attempt.over = time.monotonic()

    # -- the end ------------------------------------------------------------------------

    def end(self, exchange: Exchange) -> None:
        """See `RequestTrace`. Whatever goes wrong costs spans only: the answer has been sent."""
        try:
            self._end(exchange)
        except Exception as exc:
            log.error("request %s has no spans", exchange.request_id, exc_info=exc)

    def _end(self, exchange: Exchange) -> None:
        now = time.monotonic()
        ahead = exchange.wall - exchange.started
        for attempt in self._attempts:
            if attempt.over is None:
                attempt.over, attempt.error = now, exchange.cause
            self._write_attempt(attempt, attempt.over, ahead)
        self._spans.write(
            *(name_of(exchange), SpanKind.SERVER, self._own, self._above),
            request_attributes(exchange),
            *(exchange.wall, now + ahead),
            failed=exchange.status >= 500 or (exchange.was_cut and exchange.status != CLIENT_LEFT),
            links=self._links,
        )

    def _write_attempt(self, attempt: Attempt, over: float, ahead: float) -> None:
        """At most three spans; monotonic time and `ahead` are the time of day."""
        error, sent = attempt.error, attempt.sent
        self._write_waiting(attempt, over if sent is None else sent, ahead)
        if sent is None or attempt.context is None:
            return
        attributes = attempt_attributes(attempt.offer, attempt.address, attempt.number)
        if error is not None:
            attributes["error.type"] = error
        if attempt.code:
            attributes["scamp.error_code"] = attempt.code
        action = attempt.offer.action
        self._spans.write(
            *(f"{action.namespace}/{action.name}", SpanKind.CLIENT, attempt.context, self._own),
            attributes,
            *(sent + ahead, over + ahead),
            failed=error is not None,
        )

    def _write_waiting(self, attempt: Attempt, until: float, ahead: float) -> None:
        """What the metric of waiting counts, and whatever failed before it was sent."""
        waiting, failed = attempt.waiting, attempt.sent is None
        dialled = attempt.dialled
        if attempt.unreachable and failed:
            dialled = (waiting, until)
        if dialled is not None and dialled[1] <= waiting:
            dialled = None  # was open before
        if not failed and dialled is None and until - waiting < QUEUED:
            return
        error: Attributes = {"error.type": attempt.error} if failed and attempt.error else {}
        queue = self._spans.below(self._own)
        where = instance_attributes(attempt.address)
        self._spans.write(
            *("queue", SpanKind.INTERNAL, queue, self._own),
            {"scamp.attempt": attempt.number, **where, **error},
            *(waiting + ahead, until + ahead),
            failed=failed,
        )
        if dialled is not None:
            self._spans.write(
                *("connect", SpanKind.INTERNAL, self._spans.below(queue), queue),
                {**where, **error},
                *(max(waiting, dialled[0]) + ahead, dialled[1] + ahead),
                failed=failed,
            )


def _context_of(parsed: tuple[str, str, bool], state: str) -> SpanContext:
    trace, parent, sampled = parsed
    known = tracestate_members(state) if state else None
    return SpanContext(
        *(int(trace, 16), int(parent, 16), True, _SAMPLED if sampled else _NOT_SAMPLED),
        TraceState(known) if known else None,
    )


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
