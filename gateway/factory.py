"""The parts of a gateway, each made from the settings; `assembly` connects them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.auth import Authenticator
from gateway.clients import ClientLimits
from gateway.cors import Cors
from gateway.credentials import Credentials
from gateway.descriptors import room_for_clients
from gateway.events.hub import HubLimits
from gateway.following import Followed, FollowedKeys, FollowedTable
from gateway.front import FrontOptions
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.shared import SharedCounts
from gateway.settings import Settings
from gateway.tracing.options import is_disabled
from scamp.authz import AuthzSource, file_fetcher
from scamp.client import ClientOptions, Requester, authz_fetcher
from scamp.tickets import TicketKeys, TicketVerifier

if TYPE_CHECKING:
    from gateway.tracing.export import Exported


def client_options(settings: Settings) -> ClientOptions:
    """How services are called."""
    return ClientOptions(
        connect_timeout=settings.connect_timeout,
        idle_timeout=settings.upstream_idle_timeout,
        request_timeout=settings.request_timeout,
        body_idle=settings.body_idle_timeout,
        max_connections=settings.max_connections_per_instance,
        max_streams=settings.max_requests_per_connection,
        max_waiters=settings.max_waiters_per_instance,
        max_in_flight=settings.effective_max_per_instance,
        queue_target=settings.queue_target,
        queue_interval=settings.queue_interval,
        slow_start=settings.slow_start,
        retries=settings.retries,
        retry_budget=settings.retry_budget,
        legacy_rsa=settings.legacy_rsa,
        tcp_keepalive_idle=settings.tcp_keepalive_idle,
        tcp_keepalive_interval=settings.tcp_keepalive_interval,
        tcp_user_timeout=settings.tcp_user_timeout,
        ping_services=settings.ping_services,
        ping_interval=settings.ping_interval,
        reply_hold=settings.reply_hold,
    )


def make_limiter(settings: Settings) -> RateLimiter:
    """What counts requests. Routes may have limits when nothing else has."""
    redis = settings.rate_limit_redis
    shared = None
    if redis is not None:
        shared = SharedCounts(redis.get_secret_value(), timeout=settings.rate_limit_redis_timeout)
    return RateLimiter(
        user=settings.rate_limit_user,
        client=settings.rate_limit_client,
        address=settings.rate_limit_address,
        shared=shared,
        on_failure=settings.rate_limit_on_failure,
        max_entries=settings.rate_limit_max_callers,
    )


def make_tracing(settings: Settings) -> Exported | None:
    """What makes spans, still to be started; None where nobody wants any. Raises `ConfigError`.
    That the library is there has been seen to."""
    if not settings.tracing or is_disabled(os.environ):
        return None
    from gateway.tracing.export import Exported  # the library is loaded for those who trace

    return Exported(settings)


def client_limits(settings: Settings) -> ClientLimits:
    """What those who connect to the public listener may do, with the descriptors there are."""
    return ClientLimits(
        connections=min(settings.max_connections, room_for_clients()),
        per_address=settings.max_connections_per_address or None,
        exempt=settings.trusted_proxies,
        handshake_timeout=settings.tls_handshake_timeout,
        header_timeout=settings.header_timeout,
        keepalive=settings.keepalive_timeout,
        min_body_rate=settings.min_body_rate,
    )


def hub_limits(settings: Settings) -> HubLimits:
    """How many event streams there may be."""
    return HubLimits(
        streams=settings.max_event_streams,
        streams_per_subscription=settings.max_event_streams_per_subscription,
        subscriptions=settings.max_event_subscriptions,
        streams_per_caller=settings.max_event_streams_per_caller,
        subscriptions_per_caller=max(1, settings.max_event_subscriptions // 4),
    )


def front_options(settings: Settings) -> FrontOptions:
    """How requests are answered."""
    return FrontOptions(
        sectors=settings.sectors,
        request_timeout=settings.request_timeout,
        body_idle=settings.body_idle_timeout,
        max_body=settings.max_body,
        max_mapped_body=settings.max_mapped_body,
        media_types=settings.media_types,
        max_in_flight=settings.max_in_flight,
        max_in_flight_per_action=settings.effective_max_per_action,
        max_loop_lag=settings.max_loop_lag,
        error_status=settings.error_status,
        server_timing=settings.server_timing,
        trusted_proxies=settings.trusted_proxies,
        cors=_cors(settings),
        decompress=settings.decompress_requests,
        compress=settings.compress_replies,
    )


def _cors(settings: Settings) -> Cors | None:
    if not settings.cors_origins:
        return None
    return Cors(
        settings.cors_origins,
        max_age=settings.cors_max_age,
        credentials=settings.ticket_cookie is not None,
    )


# -- tickets ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who checks tickets, and the files behind that."""

    authenticator: Authenticator
    table: AuthzSource | None = None
    followed: tuple[Followed, ...] = ()


def make_authentication(settings: Settings, requester: Requester) -> Authentication:
    """Reads the ticket keys; raises `ConfigError`. `requester` is for asking the Auth service."""
    mode, credentials = settings.effective_auth_mode, _credentials(settings)
    if mode == "forward":
        return Authentication(Authenticator(mode, credentials=credentials))
    keys = TicketKeys(settings.ticket_keys)
    verifier = TicketVerifier(keys.load(), leeway=settings.ticket_leeway)
    followed = FollowedKeys(keys, verifier)
    if mode == "verify":
        authenticator = Authenticator(mode, verifier, credentials=credentials)
        return Authentication(authenticator, followed=(followed,))
    path = settings.authz_table
    table = AuthzSource(
        authz_fetcher(requester) if path is None else file_fetcher(path),
        ttl=settings.authz_ttl,
        # A file that breaks leaves the last good table in force; an Auth service that is away
        # does so for a while only.
        grace=settings.authz_grace if path is None else math.inf,
        origin=None if path is None else str(path),
    )
    authenticator = Authenticator(mode, verifier, table, credentials=credentials)
    return Authentication(authenticator, table, (followed, FollowedTable(table, path)))


def _credentials(settings: Settings) -> Credentials:
    return Credentials(
        settings.ticket_cookie,
        origins=settings.cors_origins,
        scheme=None if settings.tls_certificate is None else "https",
    )
