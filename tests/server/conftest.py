"""Services on port 0, and raw clients for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import pytest

from scamp.server import Service
from scamp.testing import TestPeer, dial, make_identity

Connect: TypeAlias = Callable[[Service], Awaitable[TestPeer]]


@pytest.fixture
def service() -> Service:
    """A service that serves everybody, without actions."""
    identity = make_identity()
    return Service(
        "shop", key=identity.key, certificate=identity.certificate, require_tickets=False
    )


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects a raw client to a service, which is started if it is not; both end with the test."""
    async with AsyncExitStack() as stack:
        addresses: dict[str, tuple[str, int]] = {}

        async def make(service: Service) -> TestPeer:
            if service.identity not in addresses:
                addresses[service.identity] = await service.start("127.0.0.1", 0)
                stack.push_async_callback(service.stop, 0.0)
            peer = await dial(*addresses[service.identity], fingerprint=service.fingerprint)
            stack.push_async_callback(peer.close)
            return peer

        yield make
