"""Which announced action a path means, remembered for as long as the index does not change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from gateway import catalogue
from gateway.exchange import Exchange
from gateway.metrics import ActionSeries, Metrics
from gateway.problems import INDEX_RETRY_AFTER, Problem
from gateway.translate import Announced, announced, native_target, split_target
from scamp.discovery import DiscoveryStatus, Registry

MAX_KNOWN_PATHS: Final = 4096
"""Paths whose action is remembered; only those of announced actions get in."""

MAX_KNOWN_PATH: Final = 512
"""Characters of a path that is remembered; a target in absolute form has a host of any length."""

NATIVE_ROUTE: Final = "/api/{action}"
"""The route in the log of requests that name their action."""


@dataclass(slots=True)
class Known:
    """What a path leads to."""

    action: Announced
    series: ActionSeries
    route: str = NATIVE_ROUTE


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
        self._sectors = frozenset(sector.lower() for sector in sectors)
        self._default_timeout = default_timeout
        self._known: dict[str, Known] = {}
        self._generation = registry.generation

    def known(self, path: str, exchange: Exchange) -> Known | None:
        """What `find` gives, if it is remembered; None says nothing about the path."""
        if self._generation != self._registry.generation:
            self._known.clear()
            self._generation = self._registry.generation
        known = self._known.get(path)
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
        if target.sector.lower() not in self._sectors:
            raise Problem(catalogue.UNKNOWN_ACTION, f"No service announces {target}.")
        offers = self._registry.find(target.sector, target.action, target.version)
        if offers:
            action = announced(offers, self._default_timeout)
            if action.spelling.lower() != target.action.lower():
                # An alias finds the instances that announce its flag: the others count as well.
                offers = self._registry.find(action.sector, action.spelling, action.version)
                action = announced(offers, self._default_timeout)
            return Known(action, self._metrics.series(action))
        status = self._discovery_status()
        if status.available:
            raise Problem(catalogue.UNKNOWN_ACTION, f"No service announces {target}.")
        raise Problem(
            catalogue.DISCOVERY_UNAVAILABLE,
            f"The index is {'out of date' if status.loaded else 'not loaded yet'}.",
            retry_after=INDEX_RETRY_AFTER,
        )
