"""Who follows a call is told of each attempt, and what it adds to one is in that one's HEADER."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from scamp.client import Call, ClientOptions, Deadline
from scamp.client import instance as instance_module
from scamp.discovery import Offer
from scamp.errors import ConnectFailed, ConnectionLost, LocalProtocolError, ScampError
from scamp.testing import Manners, Mesh, ScriptedPeer, make_identity, until
from scamp.testing.scripts import failing, first, hang_up, silent

FREE = ClientOptions(retries=2, retry_minimum=100)


class Told:
    """A `CallTrace` that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.dialled: list[tuple[float, float] | None] = []

    def waits(self, offer: Offer, address: str, attempt: int) -> None:
        assert f"{offer.service.host}:{offer.service.port}" == address
        self.events.append(("waits", attempt))

    def starts(self, dialled: tuple[float, float] | None) -> Mapping[str, Any]:
        self.dialled.append(dialled)
        self.events.append(("starts",))
        return {"mine": len(self.dialled), "both": "attempt"}

    def failed(self, error: ScampError | None) -> None:
        self.events.append(("failed", type(error)))


def call_of(mesh: Mesh, told: Told, *, read: bool = True) -> Call:
    return Call(
        mesh.registry.find("main", "Test.echo", 1),
        b"{}",
        Deadline.after(10),
        extra={"both": "call", "other": "call"},
        retry_safe=read,
        trace=told,
    )


async def test_an_attempt_waits_and_starts_with_fields_of_its_own() -> None:
    told, peer = Told(), ScriptedPeer()
    async with Mesh(peer) as mesh:
        for _ in range(2):
            (await mesh.requester.send(call_of(mesh, told))).abandon()
    assert told.events == [("waits", 1), ("starts",)] * 2
    assert [header["mine"] for header in peer.headers] == [1, 2]
    assert {header["both"] for header in peer.headers} == {"attempt"}
    assert {header["other"] for header in peer.headers} == {"call"}
    first_time, second_time = told.dialled
    assert first_time is not None
    assert first_time == second_time, "one connection for both"
    assert first_time[0] < first_time[1]


async def test_each_try_is_told_with_what_went_wrong() -> None:
    told, script = Told(), first(1, hang_up)
    peers = [ScriptedPeer(script, flags="noauth,read", identity=make_identity(n)) for n in (0, 1)]
    async with Mesh(*peers, options=FREE) as mesh:
        reply = await mesh.requester.send(call_of(mesh, told))
        assert reply.attempts == 2
        reply.abandon()
    lost = [("waits", 1), ("starts",), ("failed", ConnectionLost)]
    assert told.events == [*lost, ("waits", 2), ("starts",)]
    assert sorted(header["mine"] for peer in peers for header in peer.headers) == [1, 2]


async def test_who_cannot_connect_does_not_start() -> None:
    told, peer = Told(), ScriptedPeer()
    async with Mesh(peer, options=ClientOptions(retries=0)) as mesh:
        peer.stop_listening()
        with pytest.raises(ConnectFailed):
            await mesh.requester.send(call_of(mesh, told))
    assert told.events == [("waits", 1), ("failed", ConnectFailed)]


async def test_who_goes_elsewhere_for_want_of_a_connection_has_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.01)
    told, gone_on = Told(), ("failed", type(None))
    mute = ScriptedPeer(manners=Manners(shakes_hands=False))
    async with Mesh(mute, ScriptedPeer(identity=make_identity(1))) as mesh:
        while gone_on not in told.events:
            (await mesh.requester.send(call_of(mesh, told))).abandon()
    assert told.events[-4:] == [("waits", 1), gone_on, ("waits", 1), ("starts",)]


async def test_who_is_cancelled_or_answered_is_told_nothing_more() -> None:
    told = Told()
    async with Mesh(ScriptedPeer(silent)) as mesh:
        task = asyncio.create_task(mesh.requester.send(call_of(mesh, told)))
        await until(lambda: ("starts",) in told.events)
        task.cancel()
        await asyncio.wait({task})
    assert told.events == [("waits", 1), ("starts",)]
    answered = Told()
    async with Mesh(ScriptedPeer(failing("no"))) as mesh:
        reply = await mesh.requester.send(call_of(mesh, answered))
        assert reply.failed
        reply.abandon()
    assert answered.events == [("waits", 1), ("starts",)]


async def test_a_request_takes_further_fields() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer) as mesh:
        (await mesh.requester.request("Test.echo", extra={"traceparent": "x"})).abandon()
        with pytest.raises(LocalProtocolError, match="ticket"):
            await mesh.requester.request("Test.echo", extra={"ticket": "y"})
    assert [header["traceparent"] for header in peer.headers] == ["x"]
