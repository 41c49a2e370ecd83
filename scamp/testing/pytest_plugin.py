"""Fixtures for pytest: ``pytest_plugins = ["scamp.testing.pytest_plugin"]`` in a conftest.py.

`scamp_mesh` is a `MockMesh` that is up, one for each test; `scamp_identity` a key and certificate.
The mesh runs in the loop of the test with pytest-asyncio (auto or strict mode), pytest-aiohttp,
and with anyio's plugin if pytest-asyncio does not run as well (``-p no:asyncio``). Tests that share
one loop (``loop_scope="session"``) need a fixture of that scope: write one around `MockMesh`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from scamp.testing.identity import TestIdentity, make_identity
from scamp.testing.mock_mesh import MockMesh

try:
    import pytest_asyncio
except ImportError:  # pragma: no cover - other plugins take any fixture that is a coroutine
    _fixture: Callable[[Any], Any] = pytest.fixture
else:
    # In strict mode only what it has marked itself is asynchronous.
    _fixture = pytest_asyncio.fixture


@_fixture
async def scamp_mesh() -> AsyncIterator[MockMesh]:
    """A `MockMesh` for this test: see `scamp.testing.MockMesh`."""
    async with MockMesh() as mesh:
        yield mesh


@pytest.fixture(scope="session")
def scamp_identity() -> TestIdentity:
    """A key and certificate for a service under test: the same for the whole session."""
    return make_identity()
