"""``GET /api/events/[SECTOR:]SERVICE?code=CODE``: who may follow what."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from gateway import catalogue
from gateway.actions import Sectors, Target
from gateway.auth import Authenticator, Caller
from gateway.events.hub import Hub
from gateway.events.stream import FIELDS, Stream, StreamOptions, retry_hint
from gateway.events.topic import PREFIX, OpenTopic, Topic, parse, service_key
from gateway.events.values import MEDIA_TYPE
from gateway.exchange import Exchange
from gateway.problems import Problem, no_index
from gateway.ratelimit.callers import address_key
from scamp.client import Deadline
from scamp.discovery import DiscoveryStatus


class EventsEndpoint:
    """An `endpoints.Endpoint`."""

    route = f"{PREFIX}{{service}}"
    methods = ("GET",)

    def __init__(
        self,
        hub: Hub,
        authenticator: Authenticator,
        discovery_status: Callable[[], DiscoveryStatus],
        *,
        sectors: Iterable[str],
        open_services: Iterable[str] = (),
        timeout: float,
        options: StreamOptions | None = None,
    ) -> None:
        """`open_services`: ``[SECTOR:]SERVICE`` whose events take no ticket. `timeout`: seconds
        that a privilege table may take to come."""
        self._hub = hub
        self._auth = authenticator
        self._discovery_status = discovery_status
        self._sectors = Sectors(sectors)
        self._open = frozenset(service_key(text) for text in open_services)
        self._timeout = timeout
        self._options = options or StreamOptions()

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Stream until one side ends it. See `Endpoint.serve`."""
        topic, resume = parse(path, query)
        exchange.asked = Target(topic.sector, topic.spelling, 1)
        self._check_known(topic)
        caller = exchange.caller = await self._admit(exchange, topic)
        if exchange.serving.draining:
            # A browser that is refused does not come back; one whose stream ends does, and finds
            # another gateway.
            exchange.cause = "draining"
            await exchange.send_whole(200, MEDIA_TYPE, retry_hint(), FIELDS)
            return
        # What a browser has seen since stands in the header; the query is as it was at the start.
        event_id = exchange.headers.get("Last-Event-ID", resume or "")
        listener = await self._hub.join(topic, _whose(exchange, caller))
        try:
            ticket = None if self._is_open(topic) else caller.claims
            stream = Stream(
                *(exchange, listener, topic, self._hub.stats, self._options),
                expires=ticket.expires if ticket is not None else None,
            )
            await stream.run(event_id)
        finally:
            self._hub.leave(listener)

    def _check_known(self, topic: Topic) -> None:
        if topic.sector in self._sectors:
            if self._hub.known(topic):
                return
            status = self._discovery_status()
            if not status.available:
                raise no_index(loaded=status.loaded)
        raise Problem(catalogue.UNKNOWN_SERVICE, f"No service is announced as {topic.name}.")

    def _is_open(self, topic: Topic) -> bool:
        return topic.key[:2] in self._open

    async def _admit(self, exchange: Exchange, topic: Topic) -> Caller:
        """Subscriptions carry no ticket to the service, so whoever passes here has its events."""
        headers, method = exchange.headers, exchange.method
        if self._is_open(topic):
            return self._auth.identify(headers, OpenTopic(topic.label, topic.spelling), method)
        if self._auth.mode == "forward":
            raise Problem(
                catalogue.ACTION_UNCONFIGURED,
                f"Tickets are not read here, and events_open does not name {topic.name}.",
                action=topic.label,
            )
        caller = self._auth.identify(headers, topic, method)
        if caller.to_check is not None:
            await self._auth.authorize(caller, topic, Deadline.after(self._timeout))
        return caller


def _whose(exchange: Exchange, caller: Caller) -> Hashable:
    """The verified ticket's user, else the address, as for rate limits."""
    return address_key(exchange.client) if caller.user_id is None else caller.user_id
