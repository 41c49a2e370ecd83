"""What the tests of the client share: options that fail fast, a body of its own per request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from scamp.client import ClientOptions


@pytest.fixture
def options() -> ClientOptions:
    """Short limits, and retries that no budget forbids."""
    return ClientOptions(
        connect_timeout=5.0, request_timeout=10.0, retry_budget=10.0, retry_minimum=1000
    )


@pytest.fixture
def bodies() -> Iterator[bytes]:
    """JSON bodies, each another."""
    return (b'{"n":%d}' % number for number in count())
