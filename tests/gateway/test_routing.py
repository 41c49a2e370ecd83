"""What is remembered of the paths that callers make up."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from gateway.exchange import Exchange
from gateway.metrics import Metrics
from gateway.problems import Problem
from gateway.routing import MAX_KNOWN_PATH, MAX_KNOWN_PATHS, Routing
from scamp.discovery import DiscoveryStatus, Registry, parse_announcement
from scamp.testing import ScriptedPeer


async def made() -> Routing:
    registry = Registry()
    async with ScriptedPeer() as peer:
        registry.apply(added=(parse_announcement(peer.announcement()),))
    return Routing(
        registry,
        lambda: DiscoveryStatus(loaded=True),
        Metrics(registry),
        sectors=("main",),
        default_timeout=75.0,
    )


def find(routing: Routing, path: str) -> str:
    return routing.find(path, Mock(spec=Exchange)).action.label


async def test_paths_of_one_action_are_remembered_up_to_a_limit() -> None:
    routing = await made()
    for number in range(MAX_KNOWN_PATHS + 10):
        assert find(routing, f"http://host{number}/api/Test.echo") == "Test.echo~1"
    assert 0 < len(routing._known) <= MAX_KNOWN_PATHS


async def test_long_paths_and_those_that_lead_nowhere_are_not_remembered() -> None:
    routing = await made()
    assert find(routing, f"http://{'x' * MAX_KNOWN_PATH}/api/Test.echo") == "Test.echo~1"
    for path in ("/api/Test.nothing", "/api/other:Test.echo", "/api/..", "/"):
        with pytest.raises(Problem):
            find(routing, path)
    assert routing._known == {}
