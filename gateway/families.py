"""Every family of metrics that ``/metrics`` can show: what it is called, what it counts, how the
values of several workers become one. ``docs/metrics.md`` is made from this.

Collectors make their families by name (`exposition`, `metrics`) and can make no other. To add one:
a line here, then ``counter("name", value)`` where it is read, and the page made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from gateway.actions import METHODS
from gateway.auth import REFUSALS, TICKET_RESULTS
from gateway.catalogue import CATALOGUE
from gateway.clients import REFUSALS as CLIENTS_REFUSED
from gateway.clients import TIMEOUTS
from gateway.events.hub import ENDED, SENT
from gateway.ratelimit.limiter import LIMITS
from gateway.ratelimit.shared import FAILED
from gateway.shedding import SHED_HERE

PREFIX: Final = "scamp_gateway_"

NO_ACTION: Final = "_none"
OTHER: Final = "_other"

CLASSES: Final = ("0xx", "1xx", "2xx", "3xx", "4xx", "5xx")

CAUSES: Final = (*CATALOGUE, "reply_broken_off", "client_left", "client_stalled", "draining")
"""Why requests do not end well: the codes of problems, and what nobody is told any more."""

DROPPED: Final = ("queue_full", "export_failed")
"""Why a span is not sent."""

ENDS: Final = ("died", "hung")
"""Why a worker was replaced."""

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Merge: TypeAlias = Literal["sum", "greatest", "least"]
Values: TypeAlias = tuple[str, ...] | str
"""Of a label: all that there are, or what they mean, empty for what needs no word."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` is whole but for a counter's ``_total``; `text` a sentence or two;
    `labels` in their order; `merge` what becomes of the values of several workers; `when` what must
    be for it to appear, empty when it always does."""

    name: str
    kind: Kind
    text: str
    labels: Mapping[str, Values] = field(default_factory=dict)
    merge: Merge = "sum"
    when: str = ""

    @property
    def shown(self) -> str:
        """The name that a query has."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def known(self) -> tuple[str, ...]:
        """All values of its only label; empty when they are not fixed."""
        values = next(iter(self.labels.values()), "")
        return values if isinstance(values, tuple) and len(self.labels) == 1 else ()


def _counter(name: str, text: str, *, when: str = "", **labels: Values) -> Family:
    return Family(PREFIX + name, "counter", text, labels, "sum", when)


def _histogram(name: str, text: str, **labels: Values) -> Family:
    return Family(PREFIX + name, "histogram", text, labels)


def _gauge(name: str, text: str, merge: Merge, *, when: str = "", **labels: Values) -> Family:
    return Family(PREFIX + name, "gauge", text, labels, merge, when)


def _library(name: str, kind: Kind, text: str, merge: Merge = "sum", **labels: Values) -> Family:
    when = "" if name.startswith("python_") else "On Linux."
    return Family(name, kind, text, labels, merge, when)


_ACTION: Final = ""
"""Explained once, at the top of the page."""

_GENERATIONS: Final = ("0", "1", "2")
_UP_OR_OUT: Final = ("up", "out")
_REDIS: Final = "With `rate_limit_redis` or `rate_limit_redis_file`."
_TRACING: Final = "With `tracing`."
_WORKERS: Final = "With `workers` above 1."

SECTIONS: Final[Mapping[str, Sequence[Family]]] = {
    "Requests": (
        _counter(
            "requests",
            "Requests answered. Status class 4xx includes clients that left before their answer "
            "(499); source tells whose answer it was.",
            action=_ACTION,
            method=(*METHODS, OTHER),
            status_class=CLASSES,
            source=("gateway", "service"),
        ),
        _gauge("requests_in_flight", "Requests that are not answered yet.", "sum"),
        _gauge(
            "requests_in_flight_limit", "How many there may be; further ones are refused.", "sum"
        ),
        _counter(
            "request_failures",
            "Requests that did not end well, by the code of the problem or what else ended them.",
            cause=(*CAUSES, OTHER),
        ),
        _counter(
            "requests_shed",
            "Requests refused with 503 because a limit was reached, by limit.",
            limit=(*SHED_HERE, "instance", "queue_full", "queue_delay"),
        ),
        _counter("request_body_bytes", "Bytes of request bodies taken.", action=_ACTION),
        _counter("response_body_bytes", "Bytes of response bodies sent.", action=_ACTION),
        _counter("answers_cut", "Answers that were cut after their first byte went out."),
    ),
    "Latency": (
        _histogram(
            "request_duration_seconds",
            "Time from the head of a request to the last byte handed to the client's connection; "
            "without event streams.",
            action=_ACTION,
        ),
        _histogram(
            "upstream_duration_seconds",
            "Time from handing a request to a service's connection to the first byte of the reply.",
            action=_ACTION,
        ),
        _histogram(
            "queue_duration_seconds",
            "Time before a request was handed to a connection (waiting, connecting, retries), of "
            "those that took 1 ms or more.",
        ),
        _histogram(
            "own_duration_seconds",
            "The gateway's own share of the time of a request that was not streamed.",
        ),
    ),
    "Services and connections": (
        _gauge(
            "instances",
            "Instances of services that requests have gone to. Out: it failed, and gets requests "
            "only when all are out.",
            "greatest",
            state=_UP_OR_OUT,
        ),
        _gauge(
            "instances_warming",
            "Instances that are up and get fewer requests for a while, in their slow start.",
            "greatest",
        ),
        _gauge(
            "connections",
            "Open connections to services, by the state of their instance.",
            "sum",
            state=_UP_OR_OUT,
        ),
        _gauge("requests_waiting", "Requests that wait for a connection to an instance.", "sum"),
        _counter("upstream_attempts", "Requests started on a connection, retries included."),
        _counter(
            "retries",
            "Retries, by what went wrong before.",
            reason=("connect", "lost", "dispatch_failure", "txerr"),
        ),
        _counter("retries_denied", "Retries that did not happen because the budget was spent."),
        _gauge("retry_budget", "Retries that the budget allows now.", "sum"),
        _counter("connects", "Connections to services opened."),
        _counter("reconnects", "Connections opened in the background after a failure."),
        _counter(
            "connect_failures",
            "Failures to connect to a service.",
            reason=("refused", "timeout", "fingerprint", "tls", "other"),
        ),
        _counter(
            "connections_lost",
            "Connections to services that ended without our doing.",
            state=("in_use", "idle"),
        ),
        _counter("stray_replies", "Replies that nobody waited for, which were dropped."),
        _counter(
            "upstream_protocol_errors", "Connections closed because the service broke the protocol."
        ),
        _counter(
            "requests_abandoned",
            "Requests whose caller gave up, by what it took: discard the reply, close the "
            "connection, or nothing as it was unsent.",
            way=("discard", "close", "unsent"),
        ),
    ),
    "Discovery": (
        _gauge(
            "discovery_age_seconds",
            "Age of the discovery cache file, or time since the last announcement was heard; "
            "absent before the first.",
            "greatest",
        ),
        _gauge(
            "discovery_max_age_seconds", "Age from which on the index is stale.", "greatest"
        ),
        _gauge(
            "discovery_stale",
            "1 when the cache file is too old, as its writer has died, or nothing is heard.",
            "greatest",
        ),
        _gauge("discovery_loaded", "1 once a complete index was loaded; before that 0.", "least"),
        _gauge("discovery_records_accepted", "Records of services that are in force.", "least"),
        _gauge(
            "discovery_records_kept",
            "Services in force although their newest record is refused.",
            "greatest",
        ),
        _gauge(
            "discovery_records_rejected",
            "Records refused now, or heard and refused lately.",
            "greatest",
            reason=("certificate", "limit", "malformed", "replay", "signature", "version"),
        ),
        _gauge(
            "discovery_actions_unauthorized",
            "Actions announced now that authorized_services does not permit.",
            "greatest",
        ),
        _gauge(
            "action_usable",
            "For an action in use: 1 while at least one instance is not out and takes requests.",
            "least", action=_ACTION,
        ),
        _counter("discovery_loads", "Versions of the cache file taken, or changes heard."),
        _counter("discovery_failed_loads", "Versions of the cache file found damaged."),
        _gauge("discovery_services", "Services in the index.", "least"),
        _counter(
            "reloads",
            "Loads of followed files: taken, or refused so that the last good one stays.",
            what=("authz_table", "discovery", "routes", "ticket_keys", "tls"),
            result=("ok", "failed"),
        ),
        _gauge(
            "last_reload_successful",
            "1 when what a followed file says now is in force, 0 while it was refused and the last "
            "good one stays; there after the first reload.",
            "least", what=("authz_table", "discovery", "routes", "ticket_keys", "tls"),
        ),
    ),
    "Tickets and privileges": (
        _counter("tickets", "Tickets looked at.", result=tuple(TICKET_RESULTS)),
        _counter(
            "refusals", "Requests whose ticket was good and did not suffice.",
            reason=tuple(REFUSALS),
        ),
        _gauge(
            "ticket_cache_entries", "Verified tickets that are remembered.", "sum",
            when="With `auth_mode` enforce or verify.",
        ),
        _gauge(
            "authz_table_age_seconds", "Age of the privilege table; absent before the first.",
            "greatest", when="With `auth_mode` enforce.",
        ),
        _gauge(
            "authz_table_ttl_seconds", "Age from which on the privilege table is fetched anew.",
            "greatest", when="With `auth_mode` enforce.",
        ),
        _gauge(
            "authz_table_max_age_seconds",
            "Age from which on the privilege table is not used, and protected actions answer 503.",
            "greatest", when="With `auth_mode` enforce.",
        ),
    ),
    "Clients": (
        _gauge(
            "client_connections", "Connections of clients, TLS handshakes under way included.",
            "sum", listener=("public", "admin"),
        ),
        _gauge(
            "client_connections_limit", "Connections of clients that the public listener takes.",
            "sum",
        ),
        _gauge("client_addresses", "Addresses connected to the public listener.", "greatest"),
        _counter("client_connections_accepted", "Connections of clients taken."),
        _counter(
            "client_connections_refused",
            "Connections of clients not taken; for want of descriptors they are put off.",
            listener=("public", "admin"), reason=CLIENTS_REFUSED,
        ),
        _counter(
            "client_connections_given_way", "Idle connections closed to make room for new ones."
        ),
        _counter("client_timeouts", "Clients that were too slow, by what with.", kind=TIMEOUTS),
        _gauge(
            "certificate_expiry_timestamp_seconds",
            "When the public listener's certificate in force expires, in seconds since 1970.",
            "least", when="With `tls_certificate`.",
        ),
    ),
    "Live events": (
        _gauge("event_streams", "Event streams open.", "sum"),
        _gauge(
            "event_subscriptions",
            "Subscriptions to services for event streams. Stale: its values may be out of date.",
            "sum", state=("ready", "stale"),
        ),
        _counter("events_sent", "Events sent on streams.", event=SENT),
        _counter("event_streams_ended", "Event streams that have ended, by reason.", reason=ENDED),
    ),
    "Rate limits": (
        _counter(
            "rate_limited", "Requests refused with 429 for their rate, by limit.", limit=LIMITS
        ),
        _gauge(
            "rate_limit_entries", "Callers kept in mind, by limit.", "sum", limit=LIMITS
        ),
        _counter(
            "rate_limit_entries_dropped", "Callers forgotten too soon, for want of room."
        ),
        _gauge("rate_limit_redis_up", "1 while Redis counts requests.", "least", when=_REDIS),
        _counter(
            "rate_limit_redis_failures", "Requests that Redis did not decide.",
            when=_REDIS, reason=FAILED,
        ),
    ),
    "Logs": (
        _counter(
            "access_log_dropped_lines",
            "Lines of the access log that were lost: too many waited, or writing failed.",
        ),
        _counter(
            "access_log_unsampled_lines",
            "Lines of the access log that were left out on purpose, by access_log_sample.",
        ),
    ),
    "Traces": (
        _counter("spans_exported", "Spans that the collector took.", when=_TRACING),
        _counter(
            "spans_dropped",
            "Spans that nobody gets: too many waited, or the collector did not take them.",
            when=_TRACING, reason=DROPPED,
        ),
    ),
    "Workers": (
        _gauge(
            "workers", "Worker processes, by whether they answer.", "sum",
            when=_WORKERS, state=("answering", "silent"),
        ),
        _counter("worker_ends", "Workers that were replaced, by cause.", when=_WORKERS, cause=ENDS),
    ),
    "The process": (
        _gauge("ready", "1 while /readyz says that the gateway is ready.", "least"),
        _histogram("event_loop_lag_seconds", "How late the event loop runs its timers."),
        _gauge(
            "allocated_blocks",
            "Pieces of memory that Python has given to objects. It grows with the mesh and with "
            "what is under way; otherwise it is a leak.",
            "sum",
        ),
        _gauge(
            "build_info", "Constant 1; what is running is in the labels.", "greatest",
            version="of the package scamp-gateway", python="version of Python",
        ),
        _library("process_virtual_memory_bytes", "gauge", "Virtual memory of the process."),
        _library("process_resident_memory_bytes", "gauge", "Resident memory of the process."),
        _library(
            "process_start_time_seconds", "gauge",
            "When the process was started, in seconds since 1970; with several workers the master.",
            "least",
        ),
        _library("process_cpu_seconds", "counter", "CPU time used, by user and system together."),
        _library("process_open_fds", "gauge", "File descriptors in use."),
        _library("process_max_fds", "gauge", "File descriptors that the process may have."),
        _library(
            "python_gc_objects_collected", "counter",
            "Objects that Python's garbage collector has freed.", generation=_GENERATIONS,
        ),
        _library(
            "python_gc_objects_uncollectable", "counter",
            "Objects that Python's garbage collector found and could not free.",
            generation=_GENERATIONS,
        ),
        _library(
            "python_gc_collections", "counter", "Runs of Python's garbage collector.",
            generation=_GENERATIONS,
        ),
    ),
}  # fmt: skip
"""All of them, as the page shows them."""


def _by_name() -> Iterator[tuple[str, Family]]:
    for families in SECTIONS.values():
        for family in families:
            yield family.name, family


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(dict(_by_name()))


def declared(name: str) -> Family:
    """The family `name`, without `PREFIX` and ``_total``. Raises KeyError for one that is none of
    `SECTIONS`."""
    return FAMILIES[PREFIX + name]
