"""From what workers tell to what ``/overview`` answers, for all who look at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.console.overview import Gathered, Mesh, Overview

FRESH: Final = 0.4
"""Seconds for which numbers are good for the next who asks: many who look cost as much as one."""


class Console:
    """For one process. `gather` asks whom it takes, `mesh` gives the index, `about` what stands in
    the answer's ``gateway``."""

    def __init__(
        self,
        gather: Callable[[], Awaitable[Gathered]],
        mesh: Callable[[], Mesh],
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._gather = gather
        self._mesh = mesh
        self._about = about
        self._overview = Overview()
        self._gathered: tuple[float, Gathered] | None = None
        self._lock = asyncio.Lock()

    async def overview(self, wanted: str = "") -> dict[str, Any]:
        """The answer; its rows have `wanted` in them. Cancelling is safe."""
        async with self._lock:
            if self._gathered is None or time.monotonic() - self._gathered[0] > FRESH:
                gathered = await self._gather()
                self._gathered = (time.monotonic(), gathered)
            return await asyncio.to_thread(
                self._overview.compose, self._gathered[1], self._mesh(), self._about(), wanted
            )
