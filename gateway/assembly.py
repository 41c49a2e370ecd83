"""The parts of a gateway put together from its settings: what is between the two listeners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from gateway.access_log import AccessLog
from gateway.client_metrics import ClientsCollector
from gateway.clients import ClientLimits, Clients
from gateway.console.reading import Reader
from gateway.descriptors import shortage
from gateway.discovery import make_source
from gateway.endpoints import Endpoints
from gateway.events.endpoint import EventsEndpoint
from gateway.events.exposition import EventsCollector
from gateway.events.hub import Hub
from gateway.events.stream import StreamOptions
from gateway.events.topic import PREFIX as EVENTS
from gateway.explorer import Explorer
from gateway.exposition import GatewayCollector, make_registry
from gateway.factory import (
    client_limits,
    client_options,
    front_options,
    hub_limits,
    make_authentication,
    make_limiter,
    make_tracing,
)
from gateway.following import Followed, FollowedRoutes
from gateway.front import Front
from gateway.metrics import LoopLag, Metrics
from gateway.openapi.documentation import Documentation
from gateway.openapi.endpoint import OpenApi
from gateway.openapi.options import openapi_options
from gateway.reloads import ReloadLog
from gateway.routes.lost import LostRoutes
from gateway.routes.model import RouteTable
from gateway.settings import Settings
from gateway.sources import Loaded
from gateway.state import RunningState
from gateway.tracing.exposition import TracingCollector
from gateway.usable import UsableCollector
from gateway.whoami import WhoAmI
from scamp.authz import AuthzSource
from scamp.client import Requester
from scamp.discovery import Announcement, Change, DiscoveryStatus, LoadReport, Registry
from scamp.errors import AuthzTableUnavailable, ConfigError

log = logging.getLogger("gateway")
auth_log = logging.getLogger("gateway.auth")
discovery_log = logging.getLogger("scamp.discovery")

_TABLE_LOOK: Final = 5.0
"""Seconds between looks at the privilege table's age, which cost nothing while it is fresh."""

ADMIN_CLIENTS: Final = ClientLimits(connections=128, per_address=None)
"""For whoever watches the gateway. They come and go by themselves; more are refused, so that they
take no descriptor that clients or services need."""


_NAMED: Final = 5
"""Services that a line names when many come or leave at once."""


def _named(services: Sequence[Announcement]) -> str:
    names = ", ".join(one.identity for one in services[:_NAMED])
    more = len(services) - _NAMED
    return f"{names} and {more} more" if more > 0 else names or "none"


class Assembly:
    """Builds the parts and connects them."""

    def __init__(
        self, loaded: Loaded, listening: Callable[[], bool], access_log: AccessLog | None = None
    ) -> None:
        """`listening` tells whether the public listener is open. Reads the ticket keys and the
        routes file; raises `ConfigError`."""
        settings = loaded.settings
        settings.require_complete()
        self._loaded = loaded
        self._settings = settings
        # To the mesh, and who may go there.
        self.registry = Registry()
        self.requester = Requester(self.registry, client_options(settings))
        self.follower = make_source(settings, self.registry, self._on_load)
        self.authentication = make_authentication(settings, self.requester)
        self.limiter = make_limiter(settings)
        self.tracing = make_tracing(settings)
        # What takes requests.
        self.counters = Metrics(self.registry)
        self.reloads = ReloadLog(self.counters)
        self.access_log = access_log or AccessLog.configured(settings)
        self.clients = Clients(client_limits(settings))
        self.admin_clients = Clients(ADMIN_CLIENTS)
        self.endpoints = Endpoints()
        self.front = Front(
            self.registry,
            self.requester,
            self._discovery,
            self.authentication.authenticator,
            self.counters,
            self.access_log,
            front_options(settings),
            endpoints=self.endpoints,
            clients=self.clients,
            tracing=self.tracing,
        )
        self.hub = Hub(self.registry, self.requester, hub_limits(settings))
        self.openapi = self._make_openapi(settings)
        self._add_endpoints(settings)
        # Routes and other files.
        self.followed: list[Followed] = [*self.authentication.followed]
        self.lost_routes = LostRoutes(self.front.routing.unknown, self._index_loaded)
        self._use_routes(RouteTable())
        if settings.routes is not None:
            routes = FollowedRoutes(settings.routes, self.use_routes)
            self._use_routes(routes.load())
            self.followed.append(routes)
        # What shows how it is.
        self.state = RunningState(
            loaded,
            self.registry,
            self.requester,
            self.front,
            make_registry(
                self.counters,
                self._collector(),
                UsableCollector(self.registry, self.counters, self.requester),
                EventsCollector(self.hub),
                ClientsCollector({"public": self.clients, "admin": self.admin_clients}),
            ),
            self._reader(),
            discovery=self._discovery,
            listening=listening,
        )
        if self.tracing is not None:
            self.state.exposition.register(TracingCollector(self.tracing))
        self._lag = LoopLag(self.counters.lag, tell=self.front.lateness.measured)
        self._unsubscribe = self.registry.subscribe(self._on_change)
        self._table_keeper: asyncio.Task[None] | None = None
        self._started = False

    def _discovery(self) -> DiscoveryStatus:
        return self.follower.status

    def _index_loaded(self) -> bool:
        return self.follower.status.loaded

    def _make_openapi(self, settings: Settings) -> OpenApi | None:
        if settings.openapi == "off":
            return None
        return OpenApi(
            self.registry,
            self.authentication.authenticator,
            Documentation(self.registry, self.requester),
            openapi_options(settings),
            routes=lambda: self.front.routing.routes,
            index_loaded=self._index_loaded,
        )

    def _add_endpoints(self, settings: Settings) -> None:
        """`own.own_entries` lists the same for audits."""
        authenticator, timeout = self.authentication.authenticator, settings.request_timeout
        whoami = WhoAmI(
            authenticator,
            self.registry,
            sectors=settings.sectors,
            timeout=timeout,
            index_loaded=self._index_loaded,
        )
        self.endpoints.add(WhoAmI.route, whoami)
        events = EventsEndpoint(
            self.hub,
            authenticator,
            self._discovery,
            sectors=settings.sectors,
            open_services=settings.events_open,
            timeout=timeout,
            options=StreamOptions(
                heartbeat=settings.events_heartbeat, idle=settings.body_idle_timeout
            ),
        )
        self.endpoints.add(EVENTS, events)
        if self.openapi is not None:
            self.endpoints.add(OpenApi.route, self.openapi)
        if settings.docs:
            explorer = Explorer()
            for path in ("/docs", "/docs/"):
                self.endpoints.add(path, explorer)

    def _collector(self) -> GatewayCollector:
        return GatewayCollector(
            registry=self.registry,
            requester=self.requester,
            discovery_status=self._discovery,
            authenticator=self.authentication.authenticator,
            access_log=self.access_log,
            in_flight=lambda: self.front.in_flight,
            shed=lambda: self.front.shed,
            limiter=self.limiter,
            in_flight_limit=self.front.options.max_in_flight,
            discovery_max_age=self._settings.discovery_max_age,
            ready=lambda: all(check.ok for check in self.state.readiness()),
        )

    def _reader(self) -> Reader:
        return Reader(
            metrics=self.counters,
            requester=self.requester,
            front=self.front,
            clients=self.clients,
            hub=self.hub,
            reloads=self.reloads,
            access_log_dropped=lambda: self.access_log.dropped,
        )

    # -- starting, reloading, closing ---------------------------------------------------

    async def start(self) -> None:
        """Read discovery completely, and begin to follow it; keep a privilege table behind."""
        try:
            self.access_log.start()
        except OSError as exc:
            where = self._settings.access_log
            raise ConfigError(f"access log {where}: {exc.strerror or exc}") from exc
        if self.tracing is not None:
            self.tracing.start()
        elif self._settings.tracing:
            log.warning("no traces: OTEL_SDK_DISABLED is set")
        self._lag.start()
        for warning in self._loaded.warnings:
            log.warning("%s", warning)
        if (short := shortage(self._settings.max_connections)) is not None:
            log.warning("%s", short)
        if self._settings.authorized_services is None:
            log.warning(
                "no authorized_services given: every service may offer every action "
                "(--authorized-services)"
            )
        if self.limiter.shared is not None:
            await self.limiter.shared.start()
        await self.follower.start()
        self._started = True
        if not self.follower.status.loaded:
            why = self.follower.status.last_error or "listening for announcements"
            log.warning("no index yet, requests get 503: %s", why)
        self.lost_routes.look()
        if self.authentication.table is not None:
            self._table_keeper = asyncio.create_task(self._keep_table(self.authentication.table))

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
                auth_log.warning("%s", why)
            elif state == "fresh" and told not in ("", "fresh"):
                auth_log.info("the privilege table is fresh again")
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
        table = self.authentication.table
        if table is not None and table.last_error is not None and change.added:
            table.invalidate()
        self.lost_routes.look_soon()
        if self._started:
            came, left = _named(change.added), _named(change.removed)
            discovery_log.info(
                "services came or changed: %s; left: %s; in force: %d",
                *(came, left, len(self.registry.services())),
            )

    def _on_load(self, report: LoadReport) -> None:
        self.reloads.note("discovery", report.error)
        self.lost_routes.look_soon()  # of a first index with nothing in it, too

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
        if self.authentication.table is not None:
            await self.authentication.table.close()
        await self.hub.close()
        await self.follower.stop()
        self.lost_routes.close()
        await self.requester.close()
        if self.limiter.shared is not None:
            await self.limiter.shared.close()
        if self.tracing is not None:
            await self.tracing.close()
        self.access_log.close()
