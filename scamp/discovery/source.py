"""What every source of discovery has: the cache file's follower and the observer of multicast."""

from __future__ import annotations

from typing import Protocol

from scamp.discovery.status import DiscoveryStatus


class DiscoverySource(Protocol):
    """Keeps a `Registry` as it hears or reads. Methods belong to the loop that `start` runs on."""

    @property
    def status(self) -> DiscoveryStatus:
        """The latest snapshot."""

    async def start(self) -> None:
        """Begin. Raises `ConfigError` for what no waiting will mend."""

    async def stop(self) -> None:
        """End all tasks and threads. What is in the registry stays there. May be called twice."""

    async def refresh(self) -> None:
        """Look at everything now."""
