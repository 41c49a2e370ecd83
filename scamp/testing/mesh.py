"""A registry, a requester and the services that they know, for one test."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Protocol

from scamp.client import ClientOptions, InstanceView, Requester
from scamp.discovery import Announcement, Registry, parse_announcement
from scamp.testing.peer import ScriptedPeer


class Announces(Protocol):
    """A service that is listening."""

    def announcement(self) -> bytes:
        """Its signed record."""


class Mesh:
    """``async with Mesh(peer, service) as mesh: await mesh.requester.request(…)``.

    Starts and stops every `ScriptedPeer`; a `Service` must have been started and is not stopped.
    """

    def __init__(self, *services: Announces, options: ClientOptions | None = None) -> None:
        self.registry: Registry = Registry()
        self._services = services
        self._options = options
        self._stack = AsyncExitStack()
        self._requester: Requester | None = None

    @property
    def requester(self) -> Requester:
        """The client; once the mesh is up."""
        assert self._requester is not None  # noqa: S101
        return self._requester

    def announce(self, service: Announces) -> Announcement:
        """Put a service in, or in anew."""
        announced = parse_announcement(service.announcement())
        self.registry.apply(added=(announced,))
        return announced

    def remove(self, service: Announces) -> None:
        """Take a service out, as if its record had gone."""
        announced = parse_announcement(service.announcement())
        self.registry.apply(removed=(announced.key,))

    def views(self) -> list[InstanceView]:
        """Every instance that was used."""
        return self.requester.instances()

    @property
    def in_flight(self) -> int:
        """Requests in flight and waiting, over all instances."""
        return sum(view.in_flight + view.waiting for view in self.views())

    async def settled(self, timeout: float = 5.0) -> None:
        """Let the loop run until nothing is in flight. Raises TimeoutError with what is."""
        try:
            async with asyncio.timeout(timeout):
                while self.in_flight:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise TimeoutError(f"still in flight: {self.views()}") from None

    async def __aenter__(self) -> Mesh:
        for service in self._services:
            if isinstance(service, ScriptedPeer):
                await self._stack.enter_async_context(service)
            self.announce(service)
        self._requester = Requester(self.registry, self._options)
        await self._stack.enter_async_context(self._requester)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()
