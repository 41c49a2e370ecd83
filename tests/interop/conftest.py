"""Real peers of other implementations, see README.md here; without variables all is skipped."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from editions import CACHE, CLIENTS, SERVICES, Edition, Place, editions, not_set, running
from multicast import why_not

from scamp.client import ClientOptions, Requester
from scamp.discovery import Announcement, Registry, parse_announcement, split_records
from scamp.testing import make_identity


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "client" in metafunc.fixturenames:
        _parametrize(metafunc, "client", editions(CLIENTS), CLIENTS)
    if "peer" in metafunc.fixturenames:
        _parametrize(metafunc, "peer", editions(SERVICES), SERVICES)
    if "source" in metafunc.fixturenames:
        found: list[Edition | Announcement] = [*editions(SERVICES)]
        if path := os.environ.get(CACHE):
            content = Path(path).read_bytes()
            found += [parse_announcement(raw) for raw in split_records(content)]
        _parametrize(metafunc, "source", found, SERVICES, CACHE)


def _parametrize(
    metafunc: pytest.Metafunc,
    name: str,
    found: list[Edition] | list[Edition | Announcement],
    *variables: str,
) -> None:
    if found:
        metafunc.parametrize(name, found, ids=[one.name for one in found], scope="module")
    else:
        skipped = pytest.param(None, marks=not_set(*variables))
        metafunc.parametrize(name, [skipped], ids=["none"], scope="module")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Files and a multicast group for one test."""
    if reason := why_not():
        pytest.skip(reason)
    return Place(tmp_path, make_identity())


@pytest.fixture(scope="module")
def service(
    source: Edition | Announcement, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Announcement]:
    """A real service: started here and heard by multicast, or one that runs already."""
    if isinstance(source, Announcement):
        yield source
        return
    with running(source, Place(tmp_path_factory.mktemp(source.name), make_identity())) as heard:
        yield heard


@pytest.fixture
def edition(source: Edition | Announcement) -> Edition:
    """Whose service it is; one that runs already has the edition's name."""
    return source if isinstance(source, Edition) else Edition(source.name, ())


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
