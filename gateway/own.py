"""What a gateway serves besides actions, for lists of what is reachable."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.actions import Sectors
from gateway.events.endpoint import EventsEndpoint
from gateway.events.topic import PREFIX, Topic, service_key
from gateway.explorer.pages import Explorer
from gateway.openapi.endpoint import OpenApi
from gateway.settings import Settings
from gateway.surface import Access, Entry, access_of
from gateway.whoami import WhoAmI
from scamp.authz import AuthzTable
from scamp.discovery import Registry


def own_entries(
    settings: Settings, registry: Registry, authz: AuthzTable | None
) -> tuple[Entry, ...]:
    """The endpoints of a gateway with these settings. Pure."""
    ticket = Access("service" if settings.effective_auth_mode == "forward" else "ticket")
    return (
        Entry("gateway", WhoAmI.methods, WhoAmI.route, ticket),
        *_pages(settings),
        *_events(settings, registry, authz),
    )


def _pages(settings: Settings) -> Iterator[Entry]:
    """Open to everybody; what the description shows depends on the ticket."""
    everybody = Access("open")
    if settings.openapi != "off":
        yield Entry("gateway", OpenApi.methods, OpenApi.route, everybody)
    if settings.docs:
        for url in ("/docs", Explorer.route):
            yield Entry("gateway", Explorer.methods, url, everybody)


def _events(settings: Settings, registry: Registry, authz: AuthzTable | None) -> Iterator[Entry]:
    """One entry for all services, and one for each that somebody else may follow than the rest."""
    mode = settings.effective_auth_mode
    rest = Access("unknown" if authz is None else "nobody")
    if mode != "enforce":
        rest = Access("nobody" if mode == "forward" else "ticket")
    yield Entry("gateway", EventsEndpoint.methods, EventsEndpoint.route, rest)
    exposed = Sectors(settings.sectors)
    free = {service_key(text) for text in settings.events_open}
    names = {
        (service.sector.lower(), service.name.lower()): service
        for service in registry.services()
        if service.sector in exposed
    }
    for key, service in sorted(names.items(), key=lambda item: item[0]):
        topic = Topic(service.sector, service.name, ())
        access = rest if mode == "forward" else access_of(topic, mode, authz)
        if key in free:
            access = Access("open")
        if access != rest:
            yield Entry(
                kind="gateway",
                methods=EventsEndpoint.methods,
                url=f"{PREFIX}{topic.name}",
                access=access,
                target=topic.label,
                origin=(service.name,),
            )
