"""What is reachable over HTTP, and by whom: the index, the routes file and the settings put
together. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from gateway.auth import Guarded
from gateway.routes.model import Route, RouteTable
from gateway.routing import as_routed, resolve, why_nowhere
from gateway.settings import AuthMode, Settings
from gateway.strangers import Trust
from gateway.translate import (
    API_PREFIX,
    Announced,
    Target,
    announced,
    label_of,
    parse_target,
)
from scamp.authz import AuthzTable
from scamp.discovery import Offer, Registry

Kind = Literal["route", "action", "alias", "gateway"]
"""Out of the routes file; a name below /api/; another name for one; the gateway's own."""

AccessKind = Literal["open", "ticket", "privileges", "nobody", "unknown", "service"]
"""``open``: everybody; ``ticket``: any valid ticket; ``privileges``: a ticket with those;
``nobody``: the table does not list the action; ``unknown``: a ticket, and there is no table that
says which; ``service``: tickets are passed on unread."""

_SAID: Final[Mapping[AccessKind, str]] = {
    "open": "everybody",
    "ticket": "any ticket",
    "nobody": "nobody",
    "unknown": "a ticket (?)",
    "service": "service decides",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may. `privileges` by name, all of them needed."""

    kind: AccessKind
    privileges: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " + ".join(self.privileges) if self.privileges else _SAID[self.kind]


@dataclass(frozen=True, slots=True)
class Entry:
    """One URL, or those of one template, and where it leads."""

    kind: Kind
    methods: tuple[str, ...]
    """HEAD included, without OPTIONS, which every URL has."""
    url: str
    access: Access | None = None
    """None for what leads nowhere."""
    action: Announced | None = None
    """As announced, without what a route makes of it."""
    target: str = ""
    """The action as the routes file or the alias names it, and as it is announced elsewhere."""
    timeout: float = 0.0
    """Seconds."""
    retry: bool = False
    """Whether a request that may have been executed is sent again."""
    rate: str | None = None
    origin: tuple[str, ...] = ()
    """Names of the services that announce it, or the one ``FILE:LINE``."""
    route: Route | None = None
    problem: str = ""
    """Why it leads nowhere."""
    candidates: tuple[str, ...] = ()
    """Of an alias: every action with that flag."""

    @property
    def instances(self) -> int:
        """Services that take requests for it; those of weight 0 are leaving."""
        offers = () if self.action is None else self.action.offers
        return sum(offer.service.weight > 0 for offer in offers)

    @property
    def broken(self) -> bool:
        """Whether somebody should look at it: a resource may lack some of CRUD."""
        expected = self.route is not None and (self.route.expected or self.action is not None)
        return bool(self.problem) and expected


@dataclass(frozen=True, slots=True)
class Surface:
    """Everything, each part sorted by URL, then method."""

    routes: tuple[Entry, ...] = ()
    actions: tuple[Entry, ...] = ()
    aliases: tuple[Entry, ...] = ()
    own: tuple[Entry, ...] = ()
    """What the gateway serves itself."""
    hidden: Mapping[str, int] = field(default_factory=dict)
    """Actions of sectors that are not exposed, counted by sector."""
    unnamed: tuple[str, ...] = ()
    """Actions of exposed sectors whose names cannot stand in a URL."""


def surface(
    registry: Registry,
    table: RouteTable,
    settings: Settings,
    authz: AuthzTable | None = None,
    own: Iterable[Entry] = (),
) -> Surface:
    """What a gateway with these settings serves. `own` is what it serves besides actions.

    Some seconds for 100,000 actions.
    """
    view = _View(registry, settings, authz)
    actions, hidden, unnamed = view.actions()
    return Surface(
        routes=_sorted(view.route(route) for route in table.routes),
        actions=_sorted(actions),
        aliases=_sorted(view.aliases()),
        own=_sorted(own),
        hidden=dict(sorted(hidden.items())),
        unnamed=tuple(sorted(unnamed)),
    )


def access_of(action: Guarded, mode: AuthMode, authz: AuthzTable | None) -> Access:
    """Who may call `action`, which is as a route has it, or something that stands for one."""
    if mode == "forward":
        return Access("service")
    if action.noauth:
        return Access("open")
    if mode == "verify" or not action.privileges:
        return Access("ticket")
    if authz is None:
        return Access("unknown")
    required = authz.required(action.spelling)
    if required is None:
        return Access("nobody")
    if not required:
        return Access("ticket")
    return Access("privileges", tuple(authz.name_of(number) for number in sorted(required)))


def url_of(sector: str, action: str, version: int) -> str:
    """The path of an action, without what may be left out."""
    return f"{API_PREFIX}{label_of(sector, action, version).removesuffix('~1')}"


class _View:
    def __init__(self, registry: Registry, settings: Settings, authz: AuthzTable | None) -> None:
        self._registry = registry
        self._authz = authz
        self._mode = settings.effective_auth_mode
        self._timeout = settings.request_timeout
        self._sectors = frozenset(sector.lower() for sector in settings.sectors)
        self._flagged: dict[tuple[str, str, str, int], dict[str, Offer]] = {}

    def actions(self) -> tuple[list[Entry], dict[str, int], list[str]]:
        """What has a name below /api/, and what has not."""
        found, unnamed = [], []
        hidden: dict[str, int] = {}
        trust = Trust()
        for offers in self._registry.actions():
            sector = offers[0].action.sector.lower()
            if sector not in self._sectors:
                hidden[sector] = hidden.get(sector, 0) + 1
                continue
            offers = trust.reachable(offers)
            if not offers:
                continue
            action = announced(offers, self._timeout)
            url = url_of(action.sector, action.spelling, action.version)
            if parse_target(url.removeprefix(API_PREFIX)) is None:
                unnamed.append(action.label)
                continue
            found.append(self._entry("action", action, url, action.label))
            self._flag(offers)
        return found, hidden, unnamed

    def _flag(self, offers: Iterable[Offer]) -> None:
        """Remember by which aliases an action may be found."""
        for offer in offers:
            one = offer.action
            for tag in one.crud:
                key = one.sector.lower(), one.namespace.lower(), tag, one.version
                self._flagged.setdefault(key, {}).setdefault(one.spelling.lower(), offer)

    def aliases(self) -> Iterator[Entry]:
        """Names by flag, ``Product.Sku._read``; to be asked after `actions`."""
        for (_, _, tag, version), candidates in self._flagged.items():
            first = candidates[min(candidates)].action
            target = Target(first.sector, f"{first.namespace}._{tag}", version)
            action = resolve(self._registry, target, self._timeout)
            if action is None or action.spelling.lower() == target.action.lower():
                continue  # an action of that very name goes before
            url = url_of(target.sector, target.action, version)
            spellings = tuple(candidates[key].action.spelling for key in sorted(candidates))
            yield self._entry("alias", action, url, str(target), spellings)

    def _entry(
        self, kind: Kind, action: Announced, url: str, target: str, candidates: tuple[str, ...] = ()
    ) -> Entry:
        return Entry(
            kind=kind,
            methods=tuple(method for method in action.methods if method != "OPTIONS"),
            url=url,
            access=access_of(action, self._mode, self._authz),
            action=action,
            target=target,
            timeout=action.timeout,
            retry=action.read,
            origin=_names(action),
            candidates=candidates,
        )

    def route(self, route: Route) -> Entry:
        """What a line of the routes file comes to now."""
        action = resolve(self._registry, route.target, self._timeout)
        routed = None if action is None else as_routed(action, route)
        problem = why_nowhere(route, action)
        return Entry(
            kind="route",
            methods=route.all_methods,
            url=route.template,
            access=(
                None if routed is None or problem else access_of(routed, self._mode, self._authz)
            ),
            action=action,
            target=str(route.target) if action is None else action.label,
            timeout=0.0 if routed is None else routed.timeout,
            retry=action is not None and action.read and route.retry,
            rate=None if route.rate is None else str(route.rate),
            origin=(route.origin,),
            route=route,
            problem=problem,
        )


def _names(action: Announced) -> tuple[str, ...]:
    if len(action.offers) == 1:
        return (action.offers[0].service.name,)
    return tuple(sorted({offer.service.name for offer in action.offers}))


def _sorted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.url.lower(), entry.url, entry.methods)))
