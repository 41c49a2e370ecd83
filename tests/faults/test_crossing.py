"""The one thing that must never happen: an answer that reaches somebody else.

Sixteen clients send bodies of their own to one peer that does what makes answers cross, and look
at every answer. That these tests can fail is shown by the last one, which takes the defence away.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from scamp.client import ClientOptions, PeerKind
from scamp.client.connection import ClientConnection
from scamp.errors import ScampError
from scamp.testing import ECHOING, GO, Manners, Mesh, ScriptedPeer
from scamp.testing.scripts import every, shuffled, silent, slow

CLIENTS = 16
REQUESTS = 1600
"""Of all clients together."""
UNANSWERED = 200
"""One request in so many gets no answer."""
PATIENCE = 1.0
"""Deadline of a request, in seconds, where some are not answered."""
SHORT = 0.05
"""A deadline that some answers miss, in seconds."""
PAUSE = 0.004
"""Mean pause of a client between two requests, in seconds, where the service closes."""


@dataclass
class Outcome:
    """What became of every request."""

    right: int = 0
    crossed: list[tuple[bytes, bytes]] = field(default_factory=list)
    failed: dict[bytes, ScampError] = field(default_factory=dict)

    def kinds(self) -> Counter[str]:
        """Failures by type."""
        return Counter(type(error).__name__ for error in self.failed.values())


async def cross(
    mesh: Mesh, timeout: float, *, requests: int = REQUESTS, pause: float = 0.0
) -> Outcome:
    """Let all clients send, each its own bodies; whose answer is whose is seen from the bodies."""
    outcome = Outcome()
    rng = random.Random(0)  # noqa: S311 - to be repeatable

    async def client(number: int) -> None:
        for count in range(requests // CLIENTS):
            if pause:
                await asyncio.sleep(rng.uniform(0, 2 * pause))
            body = b'{"client":%d,"request":%d}' % (number, count)
            try:
                reply = await mesh.requester.request("Test.echo", body, timeout=timeout)
                answer = await reply.read_all()
            except ScampError as exc:
                outcome.failed[body] = exc
                continue
            if answer == body:
                outcome.right += 1
            else:
                outcome.crossed.append((body, answer))

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return outcome


@pytest.mark.parametrize("manners", [GO, ECHOING], ids=["renumbering", "echoing"])
async def test_unanswered_requests_cost_nobody_else(manners: Manners) -> None:
    peer = ScriptedPeer(every(UNANSWERED, silent), manners=manners)
    async with Mesh(peer, options=ClientOptions(max_connections=32)) as mesh:
        outcome = await cross(mesh, PATIENCE)
        assert outcome.crossed == []
        assert len(outcome.failed) == REQUESTS // UNANSWERED
        assert outcome.kinds() == {"ReplyTimeout": REQUESTS // UNANSWERED}
        assert outcome.right == REQUESTS - REQUESTS // UNANSWERED
        assert set(peer.executed.values()) == {1}
        await mesh.settled()
        assert mesh.requester.stats.stray_replies == 0


@pytest.mark.parametrize("manners", [GO, ECHOING], ids=["renumbering", "echoing"])
async def test_an_answer_that_comes_too_late_reaches_nobody(manners: Manners) -> None:
    """Its caller has given up, and the next one is waiting already."""
    peer = ScriptedPeer(every(20, slow(2 * SHORT)), manners=manners)
    async with Mesh(peer, options=ClientOptions(max_connections=32)) as mesh:
        outcome = await cross(mesh, SHORT, requests=REQUESTS // 2)
        assert outcome.crossed == []
        assert set(outcome.kinds()) <= {"ReplyTimeout", "QueueTimeout"}
        assert len(outcome.failed) >= REQUESTS // 2 // 20
        await mesh.settled()


async def test_answers_out_of_order() -> None:
    peer = ScriptedPeer(shuffled(8))
    async with Mesh(peer, options=ClientOptions(max_connections=2)) as mesh:
        outcome = await cross(mesh, 10.0)
        assert (outcome.crossed, outcome.failed) == ([], {})
        assert outcome.right == REQUESTS
        assert mesh.requester.stats.stray_replies == 0


@pytest.mark.parametrize("manners", [GO, ECHOING], ids=["renumbering", "echoing"])
async def test_a_service_that_closes_idle_connections_at_random_fails_no_read(
    manners: Manners,
) -> None:
    """Clients pause about as long as the service waits, so that the two often meet.

    On a busy machine more often than the usual budget of retries allows for.
    """
    options = ClientOptions(retry_budget=1.0, retry_minimum=REQUESTS)
    closing = replace(manners, idle_close=2 * PAUSE)
    peers = [ScriptedPeer(manners=closing, flags="noauth,read", seed=seed) for seed in range(2)]
    async with Mesh(*peers, options=options) as mesh:
        outcome = await cross(mesh, 10.0, pause=PAUSE)
        assert (outcome.crossed, outcome.failed) == ([], {})
        assert outcome.right == REQUESTS
        assert sum(peer.idle_closed for peer in peers) > 20
        assert mesh.requester.stats.retries["lost"] > 0


# -- that the tests above can fail ------------------------------------------------------


async def test_without_the_defence_answers_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids from 1 and a belief that the peer echoes: what a careless client does."""
    made = ClientConnection.__init__

    def careless(self: ClientConnection, kind: PeerKind, **options: Any) -> None:
        made(self, PeerKind.ECHOES, **options)
        self._next_id = self._first_id = 1

    monkeypatch.setattr(ClientConnection, "__init__", careless)
    peer = ScriptedPeer(every(UNANSWERED, silent), manners=GO)
    async with Mesh(peer, options=ClientOptions(max_connections=2)) as mesh:
        outcome = await cross(mesh, PATIENCE, requests=2 * UNANSWERED)
        assert len(outcome.crossed) > 10
