"""What ``scamp-gateway check`` looks at: every file that the gateway would use, offline."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gateway.descriptors import most_possible, shortage
from gateway.discovery import multicast_group
from gateway.events.topic import service_key
from gateway.listener import tls_context
from gateway.offline import read_authorized, read_discovery, read_table
from gateway.ratelimit.shared import connector
from gateway.routes.leads import lost
from gateway.routes.load import load_routes
from gateway.routes.model import Route
from gateway.settings import Settings
from gateway.sources import Loaded
from gateway.takeover import check_path
from gateway.tracing.options import HEADERS, is_disabled, missing, queue_size, traces_url
from gateway.workers.shares import require_gunicorn, warnings
from scamp.discovery import Registry
from scamp.discovery.loader import count_reasons
from scamp.discovery.model import count_actions
from scamp.discovery.multicast import open_receiver
from scamp.errors import ConfigError, ScampError
from scamp.tickets import TicketKeys

_SHOWN: Final = 10
"""Details of one kind that are listed; the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``warn`` is for what works and may not be meant."""

    level: Literal["ok", "warn", "FAIL"]
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<5} {self.about}: {self.text}"


def examine(loaded: Loaded, *, now: Callable[[], float] = time.time) -> list[Finding]:
    """Try everything; blocks while it reads. Nothing is connected to, nothing raised."""
    settings = loaded.settings
    findings = [Finding("ok", "settings", f"{len(loaded.origins)} set")]
    findings += [Finding("warn", "scamp.conf", warning) for warning in loaded.warnings]
    findings += [Finding("FAIL", "settings", problem) for problem in settings.problems()]
    findings += _contradictions(loaded)
    for about, part in _PARTS:
        findings += _guarded(about, part(settings))
    if settings.discovery_source == "multicast":
        findings += _guarded("multicast", _multicast(settings))
    else:
        findings += _guarded("discovery cache", _cache(settings, now()))
    return findings


_FAIR_PARTS: Final = {
    "max_in_flight_per_action": "max_in_flight",
    "max_in_flight_per_instance": "max_in_flight",
    "max_connections_per_address": "max_connections",
    "max_event_streams_per_caller": "max_event_streams",
}
"""Limits that keep one from taking all, and what all is. Here 0 means that one may."""


def _contradictions(loaded: Loaded) -> Iterator[Finding]:
    """Limits of a part that are never reached, where somebody has set one of the two."""
    settings = loaded.settings
    for part, whole in _FAIR_PARTS.items():
        small, great = getattr(settings, part), getattr(settings, whole)
        if {part, whole} & loaded.origins.keys() and small and small >= great > 0:
            text = f"{part} is {small} and {whole} {great}: one alone can take all of them"
            yield Finding("warn", "settings", text)


def _guarded(about: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except (ScampError, OSError) as exc:
        yield Finding("FAIL", about, str(exc))


def _authorized(settings: Settings) -> Iterator[Finding]:
    about, path = "authorized_services", settings.authorized_services
    if path is None:
        yield Finding("warn", about, "none given: every service may offer every action")
        return
    authorized = read_authorized(path)
    if not len(authorized):
        # The follower takes such a file for damaged, and loads nothing before a good one.
        yield Finding("FAIL", about, f"{path}: not one good line")
        return
    for problem in authorized.problems[:_SHOWN]:
        yield Finding("warn", about, f"line skipped: {problem}")
    yield Finding(
        "ok", about, f"{path}: {len(authorized)} certificates, {len(authorized.problems)} bad lines"
    )


def _multicast(settings: Settings) -> Iterator[Finding]:
    group = multicast_group(settings)
    open_receiver(group).close()
    yield Finding("ok", "multicast", f"{group} can be listened to")


def _cache(settings: Settings, now: float) -> Iterator[Finding]:
    about, path = "discovery cache", settings.discovery_cache
    if path is None:
        return
    step, state = read_discovery(_readable(settings), path)
    found = step.state
    for identity, reason, detail in found.rejections[:_SHOWN]:
        yield Finding("warn", about, f"record of {identity} refused: {reason}: {detail}")
    reasons = count_reasons(found.rejections)
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    actions = sum(count_actions(one.offered) for one in found.in_force.values())
    yield Finding(
        "ok",
        about,
        f"{path}: {len(found.in_force)} services accepted with {actions} actions, "
        f"{len(found.rejections)} refused{f' ({refused})' if refused else ''}, "
        f"{found.unauthorized} actions not authorized",
    )
    age = now - state.mtime
    if age > settings.discovery_max_age:
        text = f"stale: {age:.0f} s old, the limit is {settings.discovery_max_age:g} s"
        yield Finding("warn", about, f"{text}; what writes it may have died")
    registry = Registry()
    registry.apply(added=step.added)
    yield from _not_there(settings, registry)


def _readable(settings: Settings) -> Settings:
    """Without an authorized_services file that is no good, which has been told by itself."""
    try:
        if settings.authorized_services is not None:
            read_authorized(settings.authorized_services)
    except ScampError:
        return settings.model_copy(update={"authorized_services": None})
    return settings


def _not_there(settings: Settings, registry: Registry) -> Iterator[Finding]:
    """Names that nobody announces now: a service may be away, or a name misspelt."""
    sectors = {offers[0].action.sector.lower() for offers in registry.actions()}
    for sector in settings.sectors:
        if sector.lower() not in sectors:
            yield Finding("warn", "sectors", f"no service offers anything in {sector} now")
    there = {(one.sector.lower(), one.name.lower()) for one in registry.services()}
    for about in ("ping_services", "events_open"):
        for name in getattr(settings, about):
            if service_key(name) not in there:
                yield Finding("warn", about, f"no service {name} is announced now")
    if settings.routes is None:
        return
    try:
        table = load_routes(settings.routes)
    except ConfigError:
        return  # told by itself
    nowhere = [*lost(registry, table, settings.request_timeout)]
    for route, why in nowhere[:_SHOWN]:
        yield Finding("warn", "routes", f"{route.origin}: {route.key}: {why}")
    if len(nowhere) > _SHOWN:
        yield Finding("warn", "routes", f"{len(nowhere) - _SHOWN} further routes lead nowhere")


def _keys(settings: Settings) -> Iterator[Finding]:
    if not settings.ticket_keys:
        return
    keys = TicketKeys(settings.ticket_keys).load()
    sizes = ", ".join(f"RSA {key.key_size} bits" for key in keys)
    yield Finding(
        "ok", "ticket keys", f"{len(keys)} ({sizes}), mode {settings.effective_auth_mode}"
    )


def _table(settings: Settings) -> Iterator[Finding]:
    if settings.authz_table is None:
        return
    try:
        table = read_table(settings.authz_table)
    except ConfigError as exc:
        yield Finding("FAIL", "privilege table", str(exc))
        return
    yield Finding("ok", "privilege table", f"{settings.authz_table}: {len(table)} actions")


def _tls(settings: Settings) -> Iterator[Finding]:
    if tls_context(settings) is not None:
        yield Finding("ok", "TLS", f"{settings.tls_certificate} and its key belong together")


def _routes(settings: Settings) -> Iterator[Finding]:
    if settings.routes is None:
        return
    try:
        table = load_routes(settings.routes)
    except ConfigError as exc:
        for line in str(exc).splitlines():
            yield Finding("FAIL", "routes", line)
        return
    yield Finding("ok", "routes", f"{settings.routes}: {len(table.routes)} routes")


def _access_log(settings: Settings) -> Iterator[Finding]:
    if settings.access_log in ("-", "off"):
        return
    path = Path(settings.access_log)
    if not path.parent.is_dir():
        yield Finding("FAIL", "access log", f"{path.parent} is not a directory")
    elif path.is_dir():
        yield Finding("FAIL", "access log", f"{path} is a directory")
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        yield Finding("FAIL", "access log", f"{path} cannot be written to by this user")


def _redis(settings: Settings) -> Iterator[Finding]:
    if settings.rate_limit_redis is not None:
        connector()
        yield Finding("ok", "rate limits", "counted in Redis; whether it is there was not tried")


def _tracing(settings: Settings) -> Iterator[Finding]:
    about = "tracing"
    if not settings.tracing:
        fields = Settings.model_fields.items()
        more = [(name, field) for name, field in fields if name.startswith("tracing_")]
        if any(getattr(settings, name) != field.default for name, field in more):
            yield Finding("warn", about, "it is off, and so what else is set for it has no effect")
        return
    if is_disabled(os.environ):
        yield Finding("warn", about, "OTEL_SDK_DISABLED is set: there will be no traces")
        return
    url = traces_url(settings.tracing_endpoint, os.environ)
    queue_size(os.environ)
    if missing() is None:
        from gateway.tracing.export import Exported  # the library is loaded for those who trace

        Exported(settings).try_out()
    named = [name for name in HEADERS if os.environ.get(name)]
    if settings.tracing_headers is not None:
        named.insert(0, "tracing_headers")
    if named and url.startswith("http:"):
        yield Finding("warn", about, f"{', '.join(named)}: over the network in the clear")
    yield Finding("ok", about, f"to {url}; whether a collector is there was not tried")


def _descriptors(settings: Settings) -> Iterator[Finding]:
    most = most_possible()
    if (short := shortage(settings.max_connections, most)) is not None:
        yield Finding("warn", "open files", short)
    else:
        text = f"{most} allowed, enough for {settings.max_connections} connections of clients"
        yield Finding("ok", "open files", text)


def _takeover(settings: Settings) -> Iterator[Finding]:
    path = settings.takeover_socket
    if path is not None:
        check_path(path)
        text = f"{path}: nobody else can put a socket there"
        if settings.workers > 1:
            text += "; the master passes the sockets of all workers, and takes any number of them"
        yield Finding("ok", "taking over", text)


def _workers(settings: Settings) -> Iterator[Finding]:
    if settings.workers == 1:
        return
    require_gunicorn()
    limited = settings.limits_rates or any(route.rate for route in _usable_routes(settings))
    for warning in warnings(settings, limits_rates=limited):
        yield Finding("warn", "workers", warning)
    yield Finding("ok", "workers", f"{settings.workers} processes")


def _usable_routes(settings: Settings) -> Sequence[Route]:
    try:
        return load_routes(settings.routes).routes if settings.routes is not None else ()
    except ConfigError:
        return ()  # told by itself


_PARTS: Final[tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...]] = (
    ("authorized_services", _authorized),
    ("ticket keys", _keys),
    ("privilege table", _table),
    ("TLS", _tls),
    ("routes", _routes),
    ("access log", _access_log),
    ("rate limits", _redis),
    ("tracing", _tracing),
    ("open files", _descriptors),
    ("taking over", _takeover),
    ("workers", _workers),
)
