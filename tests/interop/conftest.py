"""Real services of other implementations, found through a discovery cache file.

``SCAMP_INTEROP_CACHE`` names the file; without it these tests are skipped. They expect services
that offer ``Interop.echo``; what else of that namespace a service does not offer is skipped for it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scamp.client import ClientOptions, Requester
from scamp.discovery import Announcement, Registry, parse_announcement, split_records

VARIABLE = "SCAMP_INTEROP_CACHE"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "service" not in metafunc.fixturenames:
        return
    path = os.environ.get(VARIABLE)
    if not path:
        skip = pytest.mark.skip(reason=f"{VARIABLE} names no discovery cache")
        metafunc.parametrize("service", [pytest.param(None, marks=skip)], ids=["none"])
        return
    services = [parse_announcement(raw) for raw in split_records(Path(path).read_bytes())]
    metafunc.parametrize("service", services, ids=[service.name for service in services])


@pytest.fixture
def offered(service: Announcement) -> frozenset[str]:
    """The names of the service's actions."""
    return frozenset(action.spelling for action in service.actions)


@pytest.fixture
async def requester(service: Announcement) -> AsyncIterator[Requester]:
    """A client that knows one real service and nothing else."""
    registry = Registry()
    registry.apply(added=(service,))
    async with Requester(registry, ClientOptions(retries=0)) as made:
        yield made
