"""Connections: how many there are, when they are used, what becomes of an instance in trouble."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from stepping import nothing_unhandled

from scamp.client import ClientOptions, Requester
from scamp.client import health as health_module
from scamp.client import instance as instance_module
from scamp.client.dialing import Dialer
from scamp.client.instance import Instance
from scamp.client.pool import Need
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    FingerprintMismatch,
    NoUsableInstance,
    QueueTimeout,
    RoutingError,
    Saturated,
    UnknownAction,
)
from scamp.testing import GO, Manners, Mesh, ScriptedPeer, make_identity, until
from scamp.testing.scripts import begun, by_body, cut_midway, echo, hang_up, when

RENUMBERING = Manners(echoes_ids=False)
ONCE = ClientOptions(retries=0)


async def ask(mesh: Mesh, body: bytes = b"{}", timeout: float = 10.0) -> bytes:
    reply = await mesh.requester.request("Test.echo", body, timeout=timeout)
    return await reply.read_all()


def instance_of(mesh: Mesh, peer: ScriptedPeer) -> Instance:
    for instance in mesh.requester._router._instances.values():
        if instance.service.identity == peer.identity:
            return instance
    raise KeyError(peer.identity)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Backoff in milliseconds."""
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
    random.seed(1)
    return iter(())


# -- how many ---------------------------------------------------------------------------


async def test_who_can_share_waits_for_one_connection(options: ClientOptions) -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh)
        await peer.cut()
        await until(lambda: not mesh.views()[0].connections)
        await asyncio.gather(*(ask(mesh) for _ in range(20)))
        assert peer.accepted == 2


async def test_connections_stop_at_their_cap_and_requests_wait() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(when(go), manners=GO)
    options = ClientOptions(max_connections=3)
    async with Mesh(peer, options=options) as mesh:
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(10)]
        await peer.until(lambda: peer.requests == 3)
        assert mesh.views()[0].waiting == 7
        go.set()
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(10)]
        assert peer.accepted == 3


async def test_requests_that_wait_are_capped_too() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(when(go), manners=GO)
    options = ClientOptions(max_connections=1, max_waiters=2)
    async with Mesh(peer, options=options) as mesh:
        calls = [asyncio.create_task(ask(mesh)) for _ in range(1)]
        await peer.until(lambda: peer.requests == 1)
        calls += [asyncio.create_task(ask(mesh)) for _ in range(2)]
        await until(lambda: mesh.views()[0].waiting == 2)
        with pytest.raises(Saturated):
            await ask(mesh)
        assert mesh.views()[0].in_flight == 3
        go.set()
        await asyncio.gather(*calls)


async def test_a_deadline_that_passes_in_the_queue_sends_nothing() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(when(go), manners=GO)
    async with Mesh(peer, options=ClientOptions(max_connections=1)) as mesh:
        first = asyncio.create_task(ask(mesh))
        await peer.until(lambda: peer.requests == 1)
        with pytest.raises(QueueTimeout):
            await ask(mesh, b"late", timeout=0.02)
        go.set()
        await first
        await mesh.settled()
        assert peer.executed == {b"{}": 1}


async def test_an_idle_connection_closes(options: ClientOptions) -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=ClientOptions(idle_timeout=0.02)) as mesh:
        await ask(mesh)
        await peer.until(lambda: not peer.connections)
        assert await ask(mesh, b"again") == b"again"
        assert mesh.requester.stats.lost_in_use == 0


async def test_a_connection_with_a_request_is_not_idle() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(when(go))
    async with Mesh(peer, options=ClientOptions(idle_timeout=0.01)) as mesh:
        call = asyncio.create_task(ask(mesh, b"x"))
        await peer.until(lambda: peer.requests == 1)
        await asyncio.sleep(0.05)  # several idle limits
        go.set()
        assert await call == b"x"
        assert peer.accepted == 1


async def test_a_connection_that_is_just_closing_is_not_used() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh)
        (connection,) = instance_of(mesh, peer).connections
        assert connection.channel is not None
        connection.channel.close("idle")  # as its timer does; the peer has not yet agreed
        assert await ask(mesh, b"new") == b"new"
        assert peer.accepted == 2


async def test_a_connection_that_the_peer_is_just_closing_is_not_used() -> None:
    """Its end comes some turns of the loop before its loss."""
    peer = ScriptedPeer(flags="noauth,create")
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh)
        (connection,) = instance_of(mesh, peer).connections
        assert connection.channel is not None
        connection.channel.eof_received()
        assert await ask(mesh, b"new") == b"new"
        assert peer.accepted == 2
        connection.close("the test is over")


async def test_a_last_try_takes_no_connection_on_which_the_peer_may_have_been_idle() -> None:
    """Not one that is in use either: the reply that ends this may be on its way."""
    go_on = asyncio.Event()
    peer = ScriptedPeer(by_body({b"[0]": begun(b"[", go_on)}))
    async with Mesh(peer) as mesh:
        await ask(mesh)
        reply = await mesh.requester.request("Test.echo", b"[0]")
        pool = instance_of(mesh, peer)._pool
        assert pool.pick(Need.SHARED) is not None
        assert pool.pick(Need.FRESH) is None
        go_on.set()
        await reply.read_all()


async def test_a_request_that_meets_the_peers_end_was_not_written() -> None:
    """It was handed over in the turn in which the end came, so it may go elsewhere."""
    peer = ScriptedPeer(flags="noauth,create")
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh)
        (connection,) = instance_of(mesh, peer).connections
        assert connection.channel is not None
        call = asyncio.create_task(ask(mesh, b"new"))
        await asyncio.sleep(0)
        connection.channel.eof_received()
        await peer.cut()
        with pytest.raises(ConnectionLost) as caught:
            await call
        assert not caught.value.written
        assert peer.executed == {b"{}": 1}


async def test_losing_the_race_with_a_service_that_closes_is_no_outage() -> None:
    """Its idle connection ends as a request is on its way: the next one finds a way at once."""
    peer = ScriptedPeer(by_body({b"raced": hang_up}), flags="noauth,create")
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh)
        with pytest.raises(ConnectionLost):
            await ask(mesh, b"raced")
        assert mesh.views()[0].state == "up"
        assert await ask(mesh, b"next") == b"next"
        with pytest.raises(ConnectionLost):
            await ask(mesh, b"raced")


@pytest.mark.parametrize("size", [10, 100_000])
async def test_who_waits_is_not_given_a_connection_that_is_just_lost(size: int) -> None:
    go = asyncio.Event()
    cut = when(go, cut_midway(size))
    peer = ScriptedPeer(by_body({b"cut": cut}), manners=RENUMBERING)
    async with Mesh(peer, options=ClientOptions(retries=0, max_connections=1)) as mesh:
        await ask(mesh, b"first")
        lost = asyncio.create_task(ask(mesh, b"cut"))
        await peer.until(lambda: peer.requests == 2)
        waiting = asyncio.create_task(ask(mesh, b"waiting"))
        await until(lambda: mesh.views()[0].waiting == 1)
        go.set()
        with pytest.raises(ConnectionLost):
            await lost
        assert await waiting == b"waiting"


# -- trouble ----------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        peer.stop_listening()
        with pytest.raises(ConnectFailed):
            await ask(mesh)
        assert mesh.requester.stats.connect_failures == {"refused": 1}
        assert mesh.views()[0].state == "out"
        assert mesh.in_flight == 0


@pytest.mark.parametrize("flags", ["noauth,read", "noauth,create"])
async def test_a_request_goes_elsewhere_when_nobody_listens(flags: str) -> None:
    """Nothing was sent, so any action may."""
    down, up = ScriptedPeer(flags=flags), ScriptedPeer(flags=flags)
    async with Mesh(down, up) as mesh:
        down.stop_listening()
        for number in range(20):
            assert await ask(mesh, b"%d" % number) == b"%d" % number
        assert up.requests == 20
        assert mesh.requester.stats.retries["connect"] == 1  # then it was out


async def test_an_instance_comes_back_by_itself(impatient: None) -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh)
        peer.stop_listening()
        await peer.cut()
        await until(lambda: not mesh.views()[0].connections)
        with pytest.raises(ConnectFailed):
            await ask(mesh)
        await until(lambda: mesh.requester.stats.connect_failures["refused"] >= 3)
        await peer.listen()
        await until(lambda: mesh.views()[0].state == "up")
        assert mesh.requester.stats.reconnects == 1
        assert await ask(mesh, b"back") == b"back"
        assert peer.accepted == 2  # on the connection that recovery made


async def test_pauses_between_attempts_grow() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(UnknownAction):
            await mesh.requester.request("Test.other")
        await ask(mesh)
        instance = instance_of(mesh, peer)
        loop = asyncio.get_running_loop()
        for failures in range(9):
            instance._failures = failures
            instance._retry_at = 0.0
            instance._failed(ConnectFailed("x", "y"))
            pause = instance.retry_at - loop.time()
            longest = min(60.0, 2.0**failures)
            assert longest / 2 - 1 < pause <= longest


async def test_a_connection_lost_in_use_takes_the_instance_out() -> None:
    peer = ScriptedPeer(hang_up)
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(ConnectionLost):
            await ask(mesh)
        assert mesh.views()[0].state == "out"
        assert mesh.requester.stats.lost_in_use == 1


async def test_a_connection_lost_in_the_middle_of_a_reply_takes_the_instance_out() -> None:
    peer = ScriptedPeer(cut_midway(1000))
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(ConnectionLost):
            await ask(mesh)
        assert mesh.views()[0].state == "out"
        assert mesh.requester.stats.lost_in_use == 1
        assert mesh.in_flight == 0


async def test_a_connection_lost_while_idle_says_nothing_about_the_instance() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh)
        await peer.cut()
        await until(lambda: mesh.requester.stats.lost_idle == 1)
        assert mesh.views()[0].state == "up"
        assert await ask(mesh, b"x") == b"x"


async def test_a_peer_that_closes_every_connection_at_once_is_not_dialled_in_circles() -> None:
    peer = ScriptedPeer(manners=Manners(closes_at_once=True))
    async with Mesh(peer, options=ClientOptions(retries=2)) as mesh:
        with pytest.raises((ConnectFailed, ConnectionLost)):
            await ask(mesh, timeout=0.5)
        await mesh.settled()
        assert peer.accepted <= 5


async def test_waiting_for_a_busy_peer_that_refuses_more_is_no_dialling_in_circles() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"busy": when(go)}), manners=RENUMBERING)
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh, b"first")
        peer.stop_listening()
        busy = asyncio.create_task(ask(mesh, b"busy"))
        await peer.until(lambda: peer.requests == 2)
        waiting = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(5)]
        await until(lambda: mesh.requester.stats.connect_failures["refused"] > 0)
        await asyncio.sleep(0.05)
        assert mesh.requester.stats.connect_failures["refused"] <= 8
        go.set()
        assert await asyncio.gather(busy, *waiting) == [b"busy", b"0", b"1", b"2", b"3", b"4"]


async def test_all_instances_out() -> None:
    one, two = ScriptedPeer(), ScriptedPeer()
    async with Mesh(one, two, options=ClientOptions(retries=5, retry_minimum=100)) as mesh:
        one.stop_listening()
        two.stop_listening()
        with pytest.raises((ConnectFailed, NoUsableInstance)):
            await ask(mesh)
        with pytest.raises(RoutingError):
            await ask(mesh)
        assert mesh.in_flight == 0


# -- the certificate --------------------------------------------------------------------


async def test_a_wrong_certificate_gets_not_one_byte() -> None:
    peer = ScriptedPeer(identity=make_identity(0), shows=make_identity(1))
    async with Mesh(peer, options=ClientOptions(retry_minimum=100)) as mesh:
        with pytest.raises(FingerprintMismatch) as caught:
            await ask(mesh)
        assert caught.value.expected == make_identity(0).fingerprint
        assert caught.value.actual == make_identity(1).fingerprint
        assert mesh.views()[0].state == "out"
        assert mesh.requester.stats.connect_failures["fingerprint"] == 1
        await until(lambda: not peer.connections)
    assert peer.bytes_received == 0


async def test_a_request_goes_elsewhere_when_a_certificate_is_wrong() -> None:
    bad = ScriptedPeer(identity=make_identity(0), shows=make_identity(1))
    good = ScriptedPeer(identity=make_identity(2))
    async with Mesh(bad, good) as mesh:
        for number in range(10):
            assert await ask(mesh, b"%d" % number) == b"%d" % number
    assert bad.bytes_received == 0
    assert good.requests == 10


async def test_an_instance_with_a_wrong_certificate_stays_out(impatient: None) -> None:
    peer = ScriptedPeer(identity=make_identity(0), shows=make_identity(1))
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(FingerprintMismatch):
            await ask(mesh)
        await until(lambda: mesh.requester.stats.connect_failures["fingerprint"] >= 3)
        assert mesh.views()[0].state == "out"
        assert mesh.requester.stats.connects == 0
    assert peer.bytes_received == 0


async def test_what_nobody_foresaw_keeps_no_instance_out(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug while it is dialled in the background is told, and then dialling goes on."""
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        dial, bugs = Dialer.dial, iter([ValueError("one"), KeyError("another")])

        async def dial_badly(self: Dialer, *args: Any, **options: Any) -> None:
            for bug in bugs:
                raise bug
            await dial(self, *args, **options)

        monkeypatch.setattr(Dialer, "dial", dial_badly)
        with nothing_unhandled():
            with pytest.raises(ConnectFailed, match="one"):
                await ask(mesh)
            await until(lambda: mesh.views()[0].state == "up")
            assert mesh.requester.stats.reconnects == 1
        assert await ask(mesh, b"[2]") == b"[2]"


# -- coming and going -------------------------------------------------------------------


async def test_a_service_that_leaves_finishes_what_it_has(options: ClientOptions) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"x": when(go)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh)
        call = asyncio.create_task(ask(mesh, b"x"))
        await peer.until(lambda: peer.requests == 2)
        mesh.remove(peer)
        with pytest.raises(UnknownAction):
            await ask(mesh)
        assert peer.connections
        go.set()
        assert await call == b"x"
        await peer.until(lambda: not peer.connections)


async def test_who_waits_for_a_service_that_leaves_goes_elsewhere(options: ClientOptions) -> None:
    go = asyncio.Event()
    leaving = ScriptedPeer(when(go), manners=GO, identity=make_identity(0))
    options = ClientOptions(max_connections=1, retry_minimum=100)
    async with Mesh(leaving, options=options) as mesh:
        first = asyncio.create_task(ask(mesh, b"first"))
        await leaving.until(lambda: leaving.requests == 1)
        waiting = asyncio.create_task(ask(mesh, b"waiting"))
        await until(lambda: mesh.views()[0].waiting == 1)
        async with ScriptedPeer(identity=make_identity(1)) as other:
            mesh.announce(other)
            offers = mesh.registry.find("main", "Test.echo")
            assert len(offers) == 2
            mesh.remove(leaving)
            assert await waiting == b"waiting"  # when it was sent there was one instance only
            go.set()
            assert await first == b"first"
            assert await ask(mesh, b"new") == b"new"
            mesh.remove(other)
            await until(lambda: not other.connections)


async def test_a_service_of_weight_nought_gets_nothing_more(options: ClientOptions) -> None:
    peer, other = ScriptedPeer(), ScriptedPeer(identity=make_identity(1))
    async with Mesh(peer, other, options=options) as mesh:
        peer.weight = 0
        mesh.announce(peer)
        for _ in range(10):
            await ask(mesh)
        assert (peer.requests, other.requests) == (0, 10)


async def test_closing_the_client_fails_what_is_in_flight_and_leaves_nothing() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"x": when(go), b"y": begun(b"half", go)}), manners=GO)
    async with peer, Mesh(options=ClientOptions(max_connections=2)) as mesh:
        mesh.announce(peer)
        call = asyncio.create_task(ask(mesh, b"x"))
        await peer.until(lambda: peer.requests == 1)
        reply = await mesh.requester.request("Test.echo", b"y")
        waiting = asyncio.create_task(ask(mesh, b"z"))
        await until(lambda: mesh.views()[0].waiting == 1)
        await mesh.requester.close()
        for task in (call, waiting):
            with pytest.raises(ConnectionLost):
                await task
        with pytest.raises(ConnectionLost):
            await reply.read_all()
        await peer.until(lambda: not peer.connections)


async def test_services_that_do_not_agree_to_closing_are_cut_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instance_module, "CLOSE_TIMEOUT", 0.5)
    peers = [ScriptedPeer(identity=make_identity(number)) for number in range(8)]
    async with Mesh(*peers, options=ONCE) as mesh:
        for peer in peers:
            while not peer.requests:
                await ask(mesh)
        for peer in peers:
            for connection in peer.connections:
                connection.pause_reading()
        async with asyncio.timeout(2.0):  # one after another would take 4 s
            await mesh.requester.close()


async def test_a_client_that_was_never_used_closes() -> None:
    async with Mesh() as mesh:
        assert mesh.views() == []
        assert isinstance(mesh.requester, Requester)


async def test_a_peer_that_is_dialled_while_the_client_closes() -> None:
    peer = ScriptedPeer(echo)
    async with Mesh(peer, options=ONCE) as mesh:
        call = asyncio.create_task(ask(mesh))
        await asyncio.sleep(0)
        assert mesh.views()[0].waiting == 1
        await mesh.requester.close()
        with pytest.raises(ConnectionLost) as caught:
            await call
        assert not caught.value.written
