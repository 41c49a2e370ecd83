"""The parts of a gateway put together from its settings: what is between the two listeners."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gateway.access_log import AccessLog
from gateway.admin import Check
from gateway.auth import Authenticator
from gateway.cors import Cors
from gateway.credentials import Credentials
from gateway.discovery import make_source
from gateway.endpoints import Endpoints
from gateway.events.endpoint import EventsEndpoint
from gateway.events.exposition import EventsCollector
from gateway.events.hub import Hub, HubLimits
from gateway.events.stream import StreamOptions
from gateway.events.topic import PREFIX as EVENTS
from gateway.explorer import Explorer
from gateway.exposition import GatewayCollector, Gathered, make_registry
from gateway.following import Followed, FollowedKeys, FollowedRoutes, FollowedTable
from gateway.front import Front, FrontOptions
from gateway.metrics import LoopLag, Metrics
from gateway.openapi.documentation import Documentation
from gateway.openapi.endpoint import OpenApi
from gateway.openapi.options import openapi_options
from gateway.openapi.own import OPENAPI_PATH
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.shared import SharedCounts
from gateway.routes.lost import LostRoutes
from gateway.routes.model import RouteTable
from gateway.settings import Settings
from gateway.sources import Loaded
from gateway.whoami import WhoAmI
from scamp.authz import AuthzSource, file_fetcher
from scamp.client import ClientOptions, InstanceView, Requester, authz_fetcher
from scamp.discovery import Change, DiscoveryStatus, LoadReport, Registry
from scamp.errors import AuthzTableUnavailable, ConfigError
from scamp.tickets import TicketKeys, TicketVerifier

log = logging.getLogger("gateway")

_TABLE_LOOK: Final = 5.0
"""Seconds between looks at the privilege table's age, which cost nothing while it is fresh."""


class Assembly:
    """Builds the parts and connects them; also the state that the admin pages show."""

    def __init__(self, loaded: Loaded, listening: Callable[[], bool]) -> None:
        """`listening` tells whether the public listener is open. Reads the ticket keys and the
        routes file; raises `ConfigError`."""
        settings = loaded.settings
        settings.require_complete()
        self._loaded = loaded
        self._settings = settings
        self._listening = listening
        self.registry = Registry()
        self.requester = Requester(self.registry, _client_options(settings))
        self.follower = make_source(settings, self.registry, self._on_load)
        self.followed: list[Followed] = []
        self.authz: AuthzSource | None = None
        self.authenticator = self._make_authenticator(settings)
        self.counters = Metrics(self.registry)
        self.access_log = AccessLog(settings.access_log)
        self.endpoints = Endpoints()
        self.openapi = self._make_openapi(settings)
        self.limiter = _limiter(settings)
        self.front = Front(
            self.registry,
            self.requester,
            self.discovery,
            self.authenticator,
            self.counters,
            self.access_log,
            _front_options(settings),
            endpoints=self.endpoints,
        )
        self.lost_routes = LostRoutes(self.front.routing.unknown, self._index_loaded)
        self.front.endpoints.add("/whoami", self._make_whoami(settings))
        self._use_routes(RouteTable())
        if settings.docs:
            explorer = Explorer()
            for path in ("/docs", "/docs/"):
                self.front.endpoints.add(path, explorer)
        if settings.routes is not None:
            routes = FollowedRoutes(settings.routes, self.use_routes)
            self._use_routes(routes.load())
            self.followed.append(routes)
        self.hub = Hub(self.registry, self.requester, _hub_limits(settings))
        self.front.endpoints.add(EVENTS, self._events(settings))
        collector = GatewayCollector(
            registry=self.registry,
            requester=self.requester,
            discovery_status=self.discovery,
            authenticator=self.authenticator,
            access_log=self.access_log,
            in_flight=self.in_flight,
            limiter=self.limiter,
        )
        self.exposition = make_registry(self.counters, collector, EventsCollector(self.hub))
        self._lag = LoopLag(self.counters.lag)
        self._unsubscribe = self.registry.subscribe(self._on_change)
        self._table_keeper: asyncio.Task[None] | None = None

    def _make_authenticator(self, settings: Settings) -> Authenticator:
        mode = settings.effective_auth_mode
        credentials = Credentials(
            settings.ticket_cookie,
            origins=settings.cors_origins,
            scheme=None if settings.tls_certificate is None else "https",
        )
        if mode == "forward":
            return Authenticator(mode, credentials=credentials)
        keys = TicketKeys(settings.ticket_keys)
        verifier = TicketVerifier(keys.load(), leeway=settings.ticket_leeway)
        self.followed.append(FollowedKeys(keys, verifier))
        if mode == "verify":
            return Authenticator(mode, verifier, credentials=credentials)
        path = settings.authz_table
        self.authz = AuthzSource(
            authz_fetcher(self.requester) if path is None else file_fetcher(path),
            ttl=settings.authz_ttl,
            # A file that breaks leaves the last good table in force; an Auth service that is away
            # does so for a while only.
            grace=settings.authz_grace if path is None else math.inf,
        )
        self.followed.append(FollowedTable(self.authz, path))
        return Authenticator(mode, verifier, self.authz, credentials=credentials)

    def _make_whoami(self, settings: Settings) -> WhoAmI:
        return WhoAmI(
            self.authenticator,
            self.registry,
            sectors=settings.sectors,
            timeout=settings.request_timeout,
            index_loaded=self._index_loaded,
        )

    def _make_openapi(self, settings: Settings) -> OpenApi | None:
        if settings.openapi == "off":
            return None
        options = openapi_options(settings)
        documentation = Documentation(self.registry, self.requester)
        endpoint = OpenApi(
            self.registry,
            self.authenticator,
            documentation,
            options,
            routes=lambda: self.front.routing.routes,
            index_loaded=self._index_loaded,
        )
        self.endpoints.add(OPENAPI_PATH, endpoint)
        return endpoint

    def _events(self, settings: Settings) -> EventsEndpoint:
        return EventsEndpoint(
            self.hub,
            self.authenticator,
            self.discovery,
            sectors=settings.sectors,
            open_services=settings.events_open,
            timeout=settings.request_timeout,
            options=StreamOptions(
                heartbeat=settings.events_heartbeat, idle=settings.body_idle_timeout
            ),
        )

    # -- starting, reloading, closing ---------------------------------------------------

    async def start(self) -> None:
        """Read discovery completely, and begin to follow it; keep a privilege table behind."""
        try:
            self.access_log.start()
        except OSError as exc:
            where = self._settings.access_log
            raise ConfigError(f"access log {where}: {exc.strerror or exc}") from exc
        self._lag.start()
        for warning in self._loaded.warnings:
            log.warning("%s", warning)
        if self._settings.authorized_services is None:
            log.warning("no authorized_services given: every service may offer every action")
        if self.limiter.shared is not None:
            await self.limiter.shared.start()
        await self.follower.start()
        if not self.follower.status.loaded:
            why = self.follower.status.last_error or "listening for announcements"
            log.warning("no index yet: %s", why)
        self.lost_routes.look()
        if self.authz is not None:
            self._table_keeper = asyncio.create_task(self._keep_table(self.authz))

    async def _keep_table(self, authz: AuthzSource) -> None:
        """Fetch it when it is due though nobody asks: at night, too, an outage begins when the
        service is away and not when the table was last needed."""
        told = ""
        while True:
            state, why = "fresh", ""
            try:
                await authz.get()
            except AuthzTableUnavailable as exc:
                state, why = "none", f"{exc}; protected actions answer 503"
            else:
                if authz.last_error is not None:
                    state, why = "old", f"the old privilege table serves on: {authz.last_error}"
            if why and state != told:
                log.warning("%s", why)
            told = state
            await asyncio.sleep(_TABLE_LOOK)

    def use_routes(self, table: RouteTable) -> None:
        """Take another routes file's routes from now on."""
        self._use_routes(table)
        self.lost_routes.look()

    def _use_routes(self, table: RouteTable) -> None:
        self.front.routing.use_routes(table)
        limited = {route.key for route in table.routes if route.rate is not None}
        self.limiter.retain(limited)
        self.front.limiter = self.limiter if limited or self.limiter.general else None

    def _on_change(self, change: Change) -> None:
        # An Auth service that has just come need not wait for the pause after the last failure.
        if self.authz is not None and self.authz.last_error is not None and change.added:
            self.authz.invalidate()
        self.lost_routes.look_soon()

    def _on_load(self, report: LoadReport) -> None:
        self.reloaded("discovery", report.error is None)
        self.lost_routes.look_soon()  # of a first index with nothing in it, too

    def reloaded(self, what: str, ok: bool) -> None:
        """Count a followed file that was taken or refused."""
        self.counters.count_reload(what, ok=ok)

    async def reload(self) -> None:
        """Look at discovery now and open the access log anew; the rest is with `followed`."""
        await self.follower.refresh()
        self.access_log.reopen()

    def drain(self) -> None:
        """From now on answers end their connections, and event streams end."""
        self.front.draining = True
        self.hub.drain()

    @property
    def busy(self) -> bool:
        """Whether there is a request or an event stream to wait for before closing."""
        return self.front.in_flight > 0 or self.hub.streams > 0

    async def close(self) -> None:
        """Stop following, close the connections to the mesh and the log."""
        self._unsubscribe()
        self._lag.stop()
        if self._table_keeper is not None:
            self._table_keeper.cancel()
            await asyncio.wait({self._table_keeper})
        if self.openapi is not None:
            await self.openapi.close()
        if self.authz is not None:
            await self.authz.close()
        await self.hub.close()
        await self.follower.stop()
        self.lost_routes.close()
        await self.requester.close()
        if self.limiter.shared is not None:
            await self.limiter.shared.close()
        self.access_log.close()

    # -- what the admin pages show ------------------------------------------------------

    def discovery(self) -> DiscoveryStatus:
        """The follower's latest snapshot."""
        return self.follower.status

    def _index_loaded(self) -> bool:
        return self.follower.status.loaded

    def instances(self) -> list[InstanceView]:
        """Every instance that requests have gone to."""
        return self.requester.instances()

    def in_flight(self) -> int:
        """Public requests under way."""
        return self.front.in_flight

    def readiness(self) -> list[Check]:
        """First complete index, open listener, not draining. A stale index is told and does not
        count: it would take every replica out at once."""
        status = self.follower.status
        services = f"{len(self.registry.services())} services"
        index = "stale, " if status.stale else ""
        return [
            Check("index", status.loaded, f"{index}{services}" if status.loaded else "not loaded"),
            Check("listener", self._listening(), "open" if self._listening() else "closed"),
            Check("draining", not self.front.draining, "yes" if self.front.draining else "no"),
        ]

    def configuration(self) -> Mapping[str, Any]:
        """Every setting with value and origin, secrets left out."""
        shown = self._settings.model_dump(mode="json")
        return {
            name: {"value": value, "origin": self._loaded.origins.get(name, "default")}
            for name, value in shown.items()
        }

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition, as Prometheus' text or OpenMetrics.

        Read a family in a turn of the loop and made into text by a thread: at once it would hold
        every request up for a quarter of a second when there are a thousand actions.
        """
        encode, content_type = choose_encoder(accept)
        gathered = Gathered()
        for family in self.exposition.collect():
            gathered.families.append(family)
            await asyncio.sleep(0)
        snapshot = CollectorRegistry(auto_describe=False)
        snapshot.register(gathered)
        return await asyncio.to_thread(encode, snapshot), content_type

    def exposed(self, sector: str) -> bool:
        """Whether actions of the sector are reachable over HTTP."""
        return sector.lower() in {one.lower() for one in self._settings.sectors}


def _client_options(settings: Settings) -> ClientOptions:
    return ClientOptions(
        connect_timeout=settings.connect_timeout,
        request_timeout=settings.request_timeout,
        body_idle=settings.body_idle_timeout,
        max_connections=settings.max_connections_per_instance,
        max_streams=settings.max_requests_per_connection,
        max_waiters=settings.max_waiters_per_instance,
        retries=settings.retries,
        retry_budget=settings.retry_budget,
        legacy_rsa=settings.legacy_rsa,
    )


def _limiter(settings: Settings) -> RateLimiter:
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


def _hub_limits(settings: Settings) -> HubLimits:
    return HubLimits(
        streams=settings.max_event_streams,
        streams_per_subscription=settings.max_event_streams_per_subscription,
        subscriptions=settings.max_event_subscriptions,
        streams_per_caller=settings.max_event_streams_per_caller,
        subscriptions_per_caller=max(1, settings.max_event_subscriptions // 4),
    )


def _front_options(settings: Settings) -> FrontOptions:
    return FrontOptions(
        sectors=settings.sectors,
        request_timeout=settings.request_timeout,
        body_idle=settings.body_idle_timeout,
        max_body=settings.max_body,
        max_mapped_body=settings.max_mapped_body,
        media_types=settings.media_types,
        max_in_flight=settings.max_in_flight,
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
