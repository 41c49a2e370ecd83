"""Which announced action a path means, remembered for as long as the index does not change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from gateway import catalogue
from gateway.actions import METHODS, Announced, Sectors, Target, resolve
from gateway.exchange import Exchange
from gateway.metrics import ActionSeries, Metrics
from gateway.problems import Problem, no_index
from gateway.ratelimit.rate import Rate
from gateway.routes.leads import as_routed, lost
from gateway.routes.match import Match, Matcher, by_method
from gateway.routes.model import Route, RouteTable
from gateway.translate import native_target, split_target
from scamp.discovery import DiscoveryStatus, Registry

MAX_KNOWN_PATHS: Final = 4096
"""Paths whose action is remembered; only those of announced actions get in."""

MAX_KNOWN_PATH: Final = 512
"""Characters of a path that is remembered; a target in absolute form has a host of any length."""

NATIVE_ROUTE: Final = "/api/{action}"
"""The route in the log of requests that name their action."""


class Places:
    """The requests of one action that are under way, by whatever path they came."""

    __slots__ = ("__weakref__", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0


@dataclass(slots=True)
class Known:
    """What a path leads to."""

    action: Announced
    series: ActionSeries
    places: Places
    route: str = NATIVE_ROUTE
    rate: Rate | None = None
    """The limit that each caller of the route has for it alone."""
    rate_key: str = ""


@dataclass(slots=True)
class Routed:
    """What a path of the routes file leads to, for one method. `allow` is for that header."""

    known: Known
    match: Match
    allow: str


class Routing:
    """From raw paths to announced actions of the exposed sectors."""

    def __init__(
        self,
        registry: Registry,
        discovery_status: Callable[[], DiscoveryStatus],
        metrics: Metrics,
        *,
        sectors: Iterable[str],
        default_timeout: float,
    ) -> None:
        """`default_timeout` in seconds, for actions that announce none."""
        self._registry = registry
        self._discovery_status = discovery_status
        self._metrics = metrics
        self._sectors = Sectors(sectors)
        self._default_timeout = default_timeout
        self._known: dict[str, Known] = {}
        self._by_route: dict[Route, Known | None] = {}
        # As long as a path that is remembered leads there, or a request is under way.
        self._places: WeakValueDictionary[str, Places] = WeakValueDictionary()
        self._generation = registry.generation
        self.routes = RouteTable()
        self._matcher: Matcher | None = None

    def recall(self, path: str) -> Known | None:
        """What `find` gives, if it is remembered; None says nothing about the path."""
        if self._generation != self._registry.generation:
            self._known.clear()
            self._by_route.clear()
            self._generation = self._registry.generation
        return self._known.get(path)

    def recall_route(self, method: str, path: str) -> tuple[Known, Match] | None:
        """What `routed` gives for a decoded path, where there is something to be called; else None.
        To be called after `recall`."""
        for match in self._matcher.find(path) if self._matcher is not None else ():
            if match.route.takes(method):
                known = self._of_route(match.route)
                return (known, match) if known is not None and known.action.runs(method) else None
        return None

    def known(self, path: str, exchange: Exchange) -> Known | None:
        """`recall`, noted in `exchange`."""
        known = self.recall(path)
        if known is not None:
            self._note(known, exchange)
        return known

    def find(self, path: str, exchange: Exchange) -> Known:
        """The action at `path` (raw, without query); notes in `exchange` what was asked for.

        Raises Problem: bad_path, unknown_path, unknown_action, or discovery_unavailable when the
        index cannot be trusted to know.
        """
        known = self.known(path, exchange)
        if known is None:
            known = self._resolve(path, exchange)
            if len(path) <= MAX_KNOWN_PATH:
                if len(self._known) >= MAX_KNOWN_PATHS:
                    self._known.clear()
                self._known[path] = known
            self._note(known, exchange)
        return known

    @staticmethod
    def _note(known: Known, exchange: Exchange) -> None:
        exchange.route = known.route
        exchange.action = known.action
        exchange.series = known.series

    def _resolve(self, raw_path: str, exchange: Exchange) -> Known:
        path, _ = split_target(raw_path)
        target = native_target(path)
        if target is None:
            raise Problem(catalogue.UNKNOWN_PATH)
        exchange.route = NATIVE_ROUTE
        exchange.asked = target
        if target.sector not in self._sectors:
            raise Problem(catalogue.UNKNOWN_ACTION, f"No service announces {target}.")
        action = self._announced(target)
        if action is None:
            raise self._missing(target)
        return Known(action, self._metrics.series(action), self._places_of(action))

    def _places_of(self, action: Announced) -> Places:
        places = self._places.get(action.label)
        if places is None:
            places = self._places[action.label] = Places()
        return places

    def _announced(self, target: Target) -> Announced | None:
        return resolve(self._registry, target, self._default_timeout)

    def _missing(self, target: Target) -> Problem:
        status = self._discovery_status()
        if status.available:
            return Problem(catalogue.UNKNOWN_ACTION, f"No service announces {target}.")
        return no_index(loaded=status.loaded)

    # -- the routes file ----------------------------------------------------------------

    def use_routes(self, table: RouteTable) -> None:
        """Take these routes from now on; requests under way go on with theirs."""
        self.routes = table
        self._matcher = Matcher(table) if table.routes else None
        self._by_route.clear()

    def routed(self, method: str, path: str, exchange: Exchange) -> Routed | None:
        """The route for a decoded path; None when there is none, whatever the method.

        OPTIONS gets any of those at the path. To be called after `known` or `find`. Raises Problem:
        method_not_allowed, unknown_action, discovery_unavailable.
        """
        matches = self._matcher.find(path) if self._matcher is not None else ()
        if not matches:
            return None
        chosen = next((match for match in matches if match.route.takes(method)), None)
        if chosen is not None:
            exchange.route = chosen.route.template
            known = self._of_route(chosen.route)
            if known is not None and known.action.runs(method):
                exchange.asked = chosen.route.target
                self._note(known, exchange)
                return Routed(known, chosen, "")
        return self._unusual(method, matches, chosen, exchange)

    def _unusual(
        self, method: str, matches: tuple[Match, ...], chosen: Match | None, exchange: Exchange
    ) -> Routed:
        """What is to be said where nothing is to be called."""
        first = chosen or matches[0]
        exchange.route = first.route.template
        usable = dict(self._usable(by_method(matches)))
        if not usable or (chosen is not None and self._is_missed(chosen.route)):
            exchange.asked = first.route.target
            raise self._missing(first.route.target)
        allow = ", ".join((*(one for one in METHODS if one in usable), "OPTIONS"))
        if method != "OPTIONS":
            raise _not_taken(method, exchange.route, allow)
        return Routed(next(iter(usable.values())), first, allow)

    def _is_missed(self, route: Route) -> bool:
        """Whether the action should be there, or may be. That of a resource need not exist."""
        if self._of_route(route) is not None:
            return False
        return route.expected or not self._discovery_status().available

    def unknown(self) -> Iterator[tuple[Route, str]]:
        """Routes that lead nowhere now, and why."""
        return lost(self._registry, self.routes, self._default_timeout)

    def _usable(self, best: Mapping[str, Match]) -> Iterator[tuple[str, Known]]:
        """By method, what can be called now: GET never runs what does not only read."""
        for method, match in best.items():
            known = self._of_route(match.route)
            if known is not None and known.action.runs(method):
                yield method, known

    def _of_route(self, route: Route) -> Known | None:
        if route in self._by_route:
            return self._by_route[route]
        action = self._announced(route.target)
        known = None
        if action is not None:
            known = Known(
                as_routed(action, route),
                self._metrics.series(action),
                self._places_of(action),
                route.template,
                route.rate,
                route.key,
            )
        self._by_route[route] = known
        return known


def _not_taken(method: str, route: str, allow: str) -> Problem:
    return Problem(
        catalogue.METHOD_NOT_ALLOWED,
        f"{method} is not among what {route} takes now: {allow}.",
        headers=(("Allow", allow),),
    )
