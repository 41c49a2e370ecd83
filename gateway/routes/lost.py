"""Routes that lead nowhere, told in the log: services come and go, so they are no reason to refuse
a file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from gateway.routes.model import Route

log = logging.getLogger("gateway.routes")

SETTLE: Final = 10.0
"""Seconds from the first of some changes of the index until it is looked at: a service that is
replaced is away for a moment, and that is hardly ever news then."""

MAX_TOLD: Final = 10
"""Routes that are logged one by one at a time."""


class LostRoutes:
    """Tells of each route once, for as long as it leads nowhere. Belongs to one event loop."""

    def __init__(
        self,
        unknown: Callable[[], Iterable[tuple[Route, str]]],
        index_loaded: Callable[[], bool],
        *,
        settle: float = SETTLE,
    ) -> None:
        """`unknown` gives the routes that lead nowhere, and why. Before the index is loaded that
        would be all of them, and nothing is told. `settle` is in seconds."""
        self._unknown = unknown
        self._index_loaded = index_loaded
        self.settle = settle
        self._told: set[tuple[str, str, str]] = set()
        self._due: asyncio.TimerHandle | None = None

    def look_soon(self) -> None:
        """The index has changed: look when it has settled."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(self.settle, self.look)

    def look(self) -> None:
        """Log what is new; later, while there is no index."""
        self.close()
        if not self._index_loaded():
            self.look_soon()
            return
        lost = {(route.origin, route.key, why): route for route, why in self._unknown()}
        news = [entry for entry in lost if entry not in self._told]
        self._told = set(lost)
        for origin, key, why in news[:MAX_TOLD]:
            log.warning("%s: %s: %s", origin, key, why)
        if len(news) > MAX_TOLD:
            log.warning(
                "%d further routes lead nowhere; scamp-gateway routes lists them",
                len(news) - MAX_TOLD,
            )

    def close(self) -> None:
        """Look no more, until told to."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
