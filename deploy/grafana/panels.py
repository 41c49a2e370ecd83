"""What is on the dashboard: queries and panels, row by row. `dashboard` makes the file of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WHERE: Final = 'job=~"$job", instance=~"$instance"'

ANY_ACTION: Final = 'action!~"_.*"'
FAILED: Final = 'status_class="5xx"'

# Metrics that are not ours alone are shown of gateways only.
OURS: Final = "and on (job, instance) scamp_gateway_build_info"


def metric(name: str, labels: str = "") -> str:
    """A metric of the gateway, of the chosen gateways, with further label matchers."""
    return f"scamp_gateway_{name}{{{WHERE}{', ' + labels if labels else ''}}}"


def rate(name: str, labels: str = "") -> str:
    """Of a counter, per second."""
    return f"rate({metric(name, labels)}[$__rate_interval])"


def total(name: str, by: str = "", labels: str = "") -> str:
    """The rate of a counter, of all chosen gateways together."""
    return f"sum{f' by ({by})' if by else ''} ({rate(name, labels)})"


def gauge(name: str, by: str = "", labels: str = "") -> str:
    """A gauge, of all chosen gateways together."""
    return f"sum{f' by ({by})' if by else ''} ({metric(name, labels)})"


def quantile(share: float, name: str, by: str = "", labels: str = "") -> str:
    """Of a histogram."""
    grouped = f"sum by ({by + ', ' if by else ''}le) ({rate(name + '_bucket', labels)})"
    return f"histogram_quantile({share}, {grouped})"


def quantiles(name: str) -> list[tuple[str, str]]:
    """Three lines of a histogram."""
    return [(quantile(share, name), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


@dataclass(frozen=True)
class Panel:
    """One panel. `lines` are queries, each with the text of its legend."""

    title: str
    text: str
    lines: list[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    bad_from: float | None = None
    """The value from which on a single number is red."""
    good_from: float | None = None
    """The value below which it is red."""
    least: float | None = 0
    """Where the axis begins; None for values that can be negative."""


HEADLINES: Final = [
    Panel(
        "Requests",
        "Answered per second, by all chosen gateways.",
        [(total("requests_total"), "")],
        "reqps",
        "stat",
        4,
    ),
    Panel(
        "Errors",
        "The share of requests that were answered with a 5xx.",
        [
            (
                f"({total('requests_total', labels=FAILED)} or vector(0)) / "
                f"{total('requests_total')}",
                "",
            )
        ],
        "percentunit",
        "stat",
        4,
        bad_from=0.01,
    ),
    Panel(
        "Whole, p99",
        "Of a hundred requests one takes longer, from its head to the last byte.",
        [(quantile(0.99, "request_duration_seconds"), "")],
        "s",
        "stat",
        4,
    ),
    Panel(
        "Ready",
        "Of the gateways that are seen at all, the share of which /readyz says so.",
        [(f"avg({metric('ready')})", "")],
        "percentunit",
        "stat",
        4,
        good_from=1,
    ),
    Panel(
        "Actions without an instance",
        "Actions in use for which one gateway at least has nobody to send to.",
        [(f"count(min by (action) ({metric('action_usable')}) == 0) or vector(0)", "")],
        "short",
        "stat",
        4,
        bad_from=1,
    ),
    Panel(
        "Discovery age",
        "Of the oldest index. It is stale from discovery_max_age on, 120 s by default.",
        [(f"max({metric('discovery_age_seconds')})", "")],
        "s",
        "stat",
        4,
        bad_from=90,
    ),
]

ROWS: Final[dict[str, list[Panel]]] = {
    "Traffic": [
        Panel(
            "Requests by status class",
            "4xx includes clients that left (499).",
            [(total("requests_total", "status_class"), "{{status_class}}")],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Requests by action",
            "The ten that are called most. _none: no action was meant.",
            [(f"topk(10, {total('requests_total', 'action')})", "{{action}}")],
            "reqps",
        ),
        Panel(
            "Requests by gateway",
            "Uneven: a balancer in front does not spread them.",
            [(total("requests_total", "instance"), "{{instance}}")],
            "reqps",
        ),
        Panel(
            "Under way",
            "Requests not answered yet, those of them that wait for a connection to a service, "
            "and how many are taken.",
            [
                (gauge("requests_in_flight"), "under way"),
                (gauge("requests_waiting"), "waiting"),
                (gauge("requests_in_flight_limit"), "limit"),
            ],
        ),
        Panel(
            "Requests by method",
            "What callers use.",
            [(total("requests_total", "method"), "{{method}}")],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Bodies",
            "Bytes of bodies, both ways, without framing.",
            [
                (total("request_body_bytes_total"), "requests"),
                (total("response_body_bytes_total"), "answers"),
            ],
            "Bps",
        ),
    ],
    "Errors by cause": [
        Panel(
            "Share of 5xx",
            "By who answered: the gateway, or the service.",
            [
                (
                    f"{total('requests_total', 'source', FAILED)} / ignoring (source) group_left "
                    f"{total('requests_total')}",
                    "{{source}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "Failures by cause",
            "Codes are those of the problems; docs/errors.md describes each.",
            [(f"{total('request_failures_total', 'cause')} > 0", "{{cause}}")],
            "reqps",
            stacked=True,
            width=16,
        ),
        Panel(
            "5xx by action",
            "The ten with most.",
            [(f"topk(10, {total('requests_total', 'action', FAILED)})", "{{action}}")],
            "reqps",
        ),
        Panel(
            "Refused because of a limit",
            "in_flight, action, loop_lag and held_bodies are the gateway's own; the others are "
            "limits of one instance.",
            [(total("requests_shed_total", "limit"), "{{limit}}")],
            "reqps",
        ),
        Panel(
            "Broken off",
            "Answers cut after their first byte, and requests that their caller gave up, by what "
            "it took.",
            [
                (total("answers_cut_total"), "cut"),
                (total("requests_abandoned_total", "way"), "given up: {{way}}"),
            ],
            "reqps",
        ),
    ],
    "Latency": [
        Panel(
            "Whole",
            "From the request's head to the last byte handed to the client's connection.",
            quantiles("request_duration_seconds"),
            "s",
        ),
        Panel(
            "Upstream",
            "From handing the request to a service's connection to the reply's first byte.",
            quantiles("upstream_duration_seconds"),
            "s",
        ),
        Panel(
            "Own share",
            "What requests that were not streamed spend in the gateway itself.",
            quantiles("own_duration_seconds"),
            "s",
        ),
        Panel(
            "Queue",
            "Before a request was handed to a connection, of those that took 1 ms or more: "
            "waiting, connecting, retries.",
            quantiles("queue_duration_seconds"),
            "s",
        ),
        Panel(
            "Upstream p99 by action",
            "The ten slowest.",
            [(f"topk(10, {quantile(0.99, 'upstream_duration_seconds', 'action')})", "{{action}}")],
            "s",
        ),
        Panel(
            "Own share p99 by gateway",
            "Of one that is slower than the rest look at CPU and loop lag.",
            [(quantile(0.99, "own_duration_seconds", "instance"), "{{instance}}")],
            "s",
        ),
    ],
    "Instances": [
        Panel(
            "Instances",
            "Of services in use, as the gateway sees it that sees most of them. Out: no "
            "connection to it succeeds.",
            [
                (f"max by (state) ({metric('instances')})", "{{state}}"),
                (f"max({metric('instances_warming')})", "in slow start"),
            ],
        ),
        Panel(
            "Actions without an instance",
            "Announced and called, and nobody to send them to.",
            [(f"min by (action) ({metric('action_usable')}) == 0", "{{action}}")],
            kind="table",
        ),
        Panel(
            "Retries",
            "By what went wrong before; denied: the budget did not allow it.",
            [
                (total("retries_total", "reason"), "{{reason}}"),
                (total("retries_denied_total"), "denied"),
            ],
            "reqps",
        ),
        Panel(
            "Attempts for each request",
            "1 without retries; less where requests are refused before they are sent.",
            [
                (
                    f"{total('upstream_attempts_total')} / "
                    f"{total('requests_total', labels=ANY_ACTION)}",
                    "attempts",
                )
            ],
        ),
        Panel(
            "Retry budget",
            "Retries that are allowed now, by gateway.",
            [(metric("retry_budget"), "{{instance}}")],
        ),
    ],
    "Connections to services": [
        Panel(
            "Connections",
            "Open ones, by the state of their instance.",
            [(gauge("connections", "state"), "{{state}}")],
        ),
        Panel(
            "Opened",
            "Reconnects are those in the background after a failure.",
            [(total("connects_total"), "opened"), (total("reconnects_total"), "reconnects")],
            "ops",
        ),
        Panel(
            "Failures to connect",
            "fingerprint: something else answers at the address.",
            [(total("connect_failures_total", "reason"), "{{reason}}")],
            "ops",
        ),
        Panel(
            "Lost",
            "Connections that ended with requests in flight, and with none.",
            [(total("connections_lost_total", "state"), "{{state}}")],
            "ops",
        ),
        Panel(
            "Peers that misbehave",
            "Broken protocol, and replies that nobody waits for.",
            [
                (total("upstream_protocol_errors_total"), "broken protocol"),
                (total("stray_replies_total"), "stray replies"),
            ],
            "ops",
        ),
    ],
    "Discovery": [
        Panel(
            "Age",
            "Of each gateway's index, and the age from which on it is stale.",
            [
                (metric("discovery_age_seconds"), "{{instance}}"),
                (f"max({metric('discovery_max_age_seconds')})", "stale from"),
            ],
            "s",
        ),
        Panel(
            "Loaded and stale",
            "Gateways with an index, and those whose index is stale.",
            [(gauge("discovery_loaded"), "loaded"), (gauge("discovery_stale"), "stale")],
        ),
        Panel(
            "Services",
            "In the index of each gateway. They should agree.",
            [(metric("discovery_services"), "{{instance}}")],
        ),
        Panel(
            "Records",
            "Accepted; kept: refused now, the last good one stays; rejected, by reason.",
            [
                (f"min({metric('discovery_records_accepted')})", "accepted"),
                (f"max({metric('discovery_records_kept')})", "kept"),
                (
                    f"max by (reason) ({metric('discovery_records_rejected')})",
                    "rejected: {{reason}}",
                ),
                (f"max({metric('discovery_actions_unauthorized')})", "actions not permitted"),
            ],
        ),
        Panel(
            "Loads",
            "Versions of the cache that were taken, and that were damaged.",
            [
                (total("discovery_loads_total"), "taken"),
                (total("discovery_failed_loads_total"), "damaged"),
            ],
            "ops",
        ),
        Panel(
            "Reloads",
            "Of followed files. What was refused is not in force.",
            [(total("reloads_total", "what, result"), "{{what}}: {{result}}")],
            "ops",
        ),
        Panel(
            "Refused now",
            "Files whose last change was refused: the last good one stays in force.",
            [(f"min by (what) ({metric('last_reload_successful')}) == 0", "{{what}}")],
            kind="table",
        ),
    ],
    "Tickets": [
        Panel(
            "Tickets",
            "By what came of looking at them.",
            [(f"{total('tickets_total', 'result')} > 0", "{{result}}")],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Refusals",
            "Good tickets that did not suffice.",
            [(total("refusals_total", "reason"), "{{reason}}")],
            "reqps",
        ),
        Panel(
            "Privilege table",
            "Its age, that at which it is due to be fetched anew, and that from which on protected "
            "actions answer 503.",
            [
                (metric("authz_table_age_seconds"), "{{instance}}"),
                (f"max({metric('authz_table_ttl_seconds')})", "due from"),
                (f"max({metric('authz_table_max_age_seconds')})", "too old from"),
            ],
            "s",
        ),
        Panel(
            "Verified tickets kept",
            "Verified once, good until they expire.",
            [(gauge("ticket_cache_entries"), "tickets")],
        ),
        Panel(
            "Certificate",
            "Time until the public certificate in force expires, below 0 when it has; empty "
            "without TLS.",
            [(f"{metric('certificate_expiry_timestamp_seconds')} - time()", "{{instance}}")],
            "s",
            least=None,
        ),
    ],
    "Clients": [
        Panel(
            "Connections",
            "Of clients, and how many the public listener takes.",
            [
                (gauge("client_connections", "listener"), "{{listener}}"),
                (gauge("client_connections_limit"), "limit"),
            ],
        ),
        Panel(
            "Addresses",
            "From which there are connections. One: a proxy is in front.",
            [(metric("client_addresses"), "{{instance}}")],
        ),
        Panel(
            "Coming and going",
            "Taken; given way: idle ones that were closed for the sake of new ones.",
            [
                (total("client_connections_accepted_total"), "taken"),
                (total("client_connections_given_way_total"), "given way"),
            ],
            "ops",
        ),
        Panel(
            "Refused",
            "total: as many as are taken; address: as many from one; descriptors: none left.",
            [
                (
                    total("client_connections_refused_total", "listener, reason"),
                    "{{listener}}: {{reason}}",
                )
            ],
            "ops",
        ),
        Panel(
            "Too slow",
            "Clients, by what with.",
            [(total("client_timeouts_total", "kind"), "{{kind}}")],
            "ops",
        ),
    ],
    "Events": [
        Panel("Streams", "Open ones.", [(gauge("event_streams"), "streams")]),
        Panel(
            "Subscriptions",
            "To services. Stale: values may be out of date, and readers know.",
            [(gauge("event_subscriptions", "state"), "{{state}}")],
        ),
        Panel(
            "Sent",
            "Events on streams.",
            [(total("events_sent_total", "event"), "{{event}}")],
            "ops",
        ),
        Panel(
            "Ended",
            "Streams, by why.",
            [(total("event_streams_ended_total", "reason"), "{{reason}}")],
            "ops",
        ),
    ],
    "Rate limits": [
        Panel(
            "Refused",
            "Requests above a limit, by limit.",
            [(total("rate_limited_total", "limit"), "{{limit}}")],
            "reqps",
        ),
        Panel(
            "Callers",
            "Kept in mind; forgotten too soon: for want of room.",
            [
                (gauge("rate_limit_entries", "limit"), "{{limit}}"),
                (total("rate_limit_entries_dropped_total"), "forgotten too soon, per second"),
            ],
        ),
        Panel(
            "Redis",
            "1 while it counts; empty without it. Requests that it did not decide, by reason.",
            [
                (f"min({metric('rate_limit_redis_up')})", "up"),
                (total("rate_limit_redis_failures_total", "reason"), "{{reason}}, per second"),
            ],
        ),
    ],
    "Resources": [
        Panel(
            "CPU",
            "Cores used by each gateway. A worker uses one at most.",
            [
                (
                    f"rate(process_cpu_seconds_total{{{WHERE}}}[$__rate_interval]) {OURS}",
                    "{{instance}}",
                )
            ],
        ),
        Panel(
            "Memory",
            "Resident. With several workers what they share counts once for each.",
            [(f"process_resident_memory_bytes{{{WHERE}}} {OURS}", "{{instance}}")],
            "bytes",
        ),
        Panel(
            "Objects",
            "Pieces of memory that Python has given to objects: grows with the mesh and with "
            "what is under way.",
            [(metric("allocated_blocks"), "{{instance}}")],
        ),
        Panel(
            "Loop lag",
            "How late the event loop runs its timers: every request waits as long.",
            quantiles("event_loop_lag_seconds"),
            "s",
        ),
        Panel(
            "File descriptors",
            "Used, of those that there are.",
            [(f"process_open_fds{{{WHERE}}} / process_max_fds{{{WHERE}}} {OURS}", "{{instance}}")],
            "percentunit",
        ),
        Panel(
            "Garbage collections",
            "By generation; the last one walks over everything that is not frozen.",
            [
                (
                    f"sum by (generation) "
                    f"(rate(python_gc_collections_total{{{WHERE}}}[$__rate_interval]) {OURS})",
                    "generation {{generation}}",
                )
            ],
            "ops",
        ),
        Panel(
            "Workers",
            "By whether they answer; empty without several.",
            [(gauge("workers", "state"), "{{state}}")],
        ),
        Panel(
            "Workers replaced",
            "Because they died or hung; empty without several.",
            [(total("worker_ends_total", "cause"), "{{cause}}")],
            "ops",
        ),
        Panel(
            "Log lines not written",
            "Of the access log. Dropped: what takes them is too slow; left out: by "
            "access_log_sample.",
            [
                (total("access_log_dropped_lines_total"), "dropped"),
                (total("access_log_unsampled_lines_total"), "left out"),
            ],
            "ops",
        ),
        Panel(
            "Spans",
            "Of traces: sent to the collector, and lost as it was away or too slow; empty without "
            "tracing.",
            [
                (total("spans_exported_total"), "sent"),
                (total("spans_dropped_total", "reason"), "lost: {{reason}}"),
            ],
            "ops",
        ),
        Panel(
            "Up for",
            "Since the start of each gateway.",
            [(f"time() - process_start_time_seconds{{{WHERE}}} {OURS}", "{{instance}}")],
            "s",
        ),
        Panel(
            "What runs",
            "Versions of gateway and Python.",
            [
                (
                    f"count by (version, python) ({metric('build_info')})",
                    "{{version}}, Python {{python}}",
                )
            ],
        ),
    ],
}
