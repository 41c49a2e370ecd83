"""Two channels joined by real TLS, and a client that speaks in bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scamp.testing import ChannelPair, RawPair, channel_pair, raw_pair


@pytest.fixture
async def pair() -> AsyncIterator[ChannelPair]:
    async with channel_pair() as joined:
        yield joined


@pytest.fixture
async def raw() -> AsyncIterator[RawPair]:
    async with raw_pair() as joined:
        yield joined
