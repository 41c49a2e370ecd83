"""What the admin pages show of a running gateway."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, Metric

from gateway.actions import Sectors
from gateway.admin import Check
from gateway.console.console import Console
from gateway.console.overview import Gathered, Mesh
from gateway.console.reading import Part, Reader
from gateway.exposition import rendered
from gateway.front import Front
from gateway.sources import Loaded, configuration
from scamp.client import InstanceView, Requester
from scamp.discovery import DiscoveryStatus, Registry


class RunningState:
    """The `admin.State` of a gateway."""

    def __init__(
        self,
        loaded: Loaded,
        registry: Registry,
        requester: Requester,
        front: Front,
        exposition: CollectorRegistry,
        reader: Reader,
        *,
        discovery: Callable[[], DiscoveryStatus],
        listening: Callable[[], bool],
    ) -> None:
        """`discovery` gives the follower's latest snapshot, `listening` tells whether the public
        listener is open."""
        self.registry = registry
        self.exposition = exposition
        self._loaded = loaded
        self._requester = requester
        self._front = front
        self._discovery = discovery
        self._listening = listening
        self._reader = reader
        self._console = Console(self._gather, self.mesh, self.about)
        self.public_url: Callable[[], str | None] = lambda: None
        """Where the public listener is, once it is there."""
        self.replaced = False
        """Another process answers for us: what is asked here is meant for it."""

    def discovery(self) -> DiscoveryStatus:
        """The follower's latest snapshot."""
        return self._discovery()

    def instances(self) -> list[InstanceView]:
        """Every instance that requests have gone to."""
        return self._requester.instances()

    def in_flight(self) -> int:
        """Public requests under way."""
        return self._front.in_flight

    def readiness(self) -> list[Check]:
        """First complete index, open listener, not draining. A stale index is told and does not
        count: it would take every replica out at once."""
        if self.replaced:
            return [Check("replaced", True, "another process serves on the same addresses")]
        status = self._discovery()
        services = f"{len(self.registry.services())} services"
        index = "stale, " if status.stale else ""
        return [
            Check("index", status.loaded, f"{index}{services}" if status.loaded else "not loaded"),
            Check("listener", self._listening(), "open" if self._listening() else "closed"),
            Check("draining", not self._front.draining, "yes" if self._front.draining else "no"),
        ]

    async def checks(self) -> list[Check]:
        """As `readiness`."""
        return self.readiness()

    async def connections(self) -> list[dict[str, Any]]:
        """As `instances`."""
        return [asdict(one) for one in self.instances()]

    async def under_way(self) -> int:
        """As `in_flight`."""
        return self.in_flight()

    def configuration(self) -> Mapping[str, Any]:
        """Every setting with value and origin, secrets left out."""
        return configuration(self._loaded)

    async def families(self) -> list[Metric]:
        """All that is counted, a family, or a piece of one, in a turn of the loop: at once it would
        hold every request up. What requests have counted is read later, by whoever goes through
        the samples."""
        families: list[Metric] = []
        for family in self.exposition.collect():
            if families and families[-1].name == family.name:
                families[-1].samples.extend(family.samples)
            else:
                families.append(family)
            await asyncio.sleep(0)
        return families

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition, as Prometheus' text or OpenMetrics. Made into text by a thread, for the
        reason that `families` has."""
        families = await self.families()
        return await asyncio.to_thread(rendered, families, accept)

    # -- /overview ----------------------------------------------------------------------

    async def part(self) -> Part:
        """What is counted here, for ``/overview``."""
        return await self._reader.part()

    def mesh(self) -> Mesh:
        """The index and where it comes from."""
        settings = self._loaded.settings
        if settings.discovery_source == "multicast":
            source = f"multicast {settings.multicast_address}:{settings.multicast_port}"
        else:
            source = str(settings.discovery_cache)
        return Mesh(self.registry.services(), self._discovery(), source)

    def about(self) -> dict[str, Any]:
        """Where the public listener is, and whether it serves the explorer."""
        return {"public": self.public_url(), "docs": self._loaded.settings.docs}

    async def _gather(self) -> Gathered:
        return Gathered(
            parts=[await self.part()],
            births=(os.getpid(),),
            workers={"count": 1, "answering": 1, "silent": []},
            checks=[asdict(one) for one in self.readiness()],
        )

    async def overview(self, wanted: str) -> dict[str, Any]:
        """As `Overview.compose`."""
        return await self._console.overview(wanted)

    def exposed(self, sector: str) -> bool:
        """Whether actions of the sector are reachable over HTTP."""
        return sector in Sectors(self._loaded.settings.sectors)
