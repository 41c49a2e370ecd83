"""Limits, queues and slow dials, with real connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from scamp.client import ClientOptions
from scamp.client import health as health_module
from scamp.client import instance as instance_module
from scamp.client import pool as pool_module
from scamp.client import requester as requester_module
from scamp.client.instance import Instance
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    DispatchFailed,
    FingerprintMismatch,
    NoUsableInstance,
    Saturated,
    ScampError,
)
from scamp.testing import (
    ECHOING,
    GO,
    Manners,
    Mesh,
    PeerRequest,
    ScriptedPeer,
    make_identity,
    until,
)
from scamp.testing.scripts import by_body, dispatch_failure, first, hang_up, silent, when

ONCE = ClientOptions(retries=0)


async def ask(mesh: Mesh, body: bytes = b"{}", timeout: float = 10.0) -> bytes:
    reply = await mesh.requester.request("Test.echo", body, timeout=timeout)
    return await reply.read_all()


def only_instance(mesh: Mesh) -> Instance:
    (instance,) = mesh.requester._router._instances.values()
    return instance


@asynccontextmanager
async def mute() -> AsyncIterator[tuple[ScriptedPeer, list[asyncio.StreamWriter]]]:
    """An announced service that accepts TCP and says nothing, TLS or other; and its connections."""
    accepted: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    peer = ScriptedPeer()
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer, accepted
    finally:
        server.close()
        for writer in accepted:
            writer.close()


# -- a burst on a peer of which nothing is known ----------------------------------------


@pytest.fixture
def patient_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second connection before the first reply."""
    monkeypatch.setattr(pool_module, "PROBE_DELAY", 60.0)


@pytest.mark.parametrize("manners", [ECHOING, GO])
async def test_a_burst_on_an_unknown_peer_dials_once_and_then_what_is_needed(
    manners: Manners, patient_probes: None
) -> None:
    go, more = asyncio.Event(), asyncio.Event()
    peer = ScriptedPeer(by_body({b"0": when(go)}, when(more)), manners=manners)
    async with Mesh(peer, options=ONCE) as mesh:
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(20)]
        await peer.until(lambda: peer.requests == 1)
        await asyncio.sleep(0.15)  # three looks
        assert (peer.accepted, peer.requests, mesh.views()[0].waiting) == (1, 1, 19)
        go.set()
        await peer.until(lambda: peer.requests == 20)
        assert peer.accepted == (1 if manners is ECHOING else 19)  # the first one's is free again
        more.set()
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(20)]


async def test_a_first_request_that_is_never_answered_holds_up_nobody() -> None:
    peer = ScriptedPeer(first(1, silent))
    async with Mesh(peer, options=ONCE) as mesh:
        lost = asyncio.create_task(ask(mesh, b"lost"))
        await peer.until(lambda: peer.requests == 1)
        calls = [ask(mesh, b"%d" % number) for number in range(20)]
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(20)]
        lost.cancel()
        with suppress(asyncio.CancelledError):
            await lost


async def test_who_waits_is_served_as_soon_as_the_peer_is_known(patient_probes: None) -> None:
    """By the head of a reply whose end is far."""
    head, go = asyncio.Event(), asyncio.Event()

    async def slow_reply(request: PeerRequest) -> None:
        await head.wait()
        reply = request.open()
        await reply.write(b"begun")
        await go.wait()
        reply.end()

    peer = ScriptedPeer(by_body({b"slow": slow_reply}))
    async with Mesh(peer, options=ONCE) as mesh:
        slow = asyncio.create_task(ask(mesh, b"slow"))
        await peer.until(lambda: peer.requests == 1)
        quick = asyncio.create_task(ask(mesh, b"quick"))
        await until(lambda: mesh.views()[0].waiting == 1)
        head.set()
        assert await quick == b"quick"
        assert not slow.done()
        assert peer.accepted == 1
        go.set()
        assert await slow == b"begun"


# -- limits -----------------------------------------------------------------------------


async def test_a_full_instance_is_passed_over_while_another_has_room() -> None:
    go = asyncio.Event()
    peers = [ScriptedPeer(when(go), identity=make_identity(number)) for number in range(2)]
    async with Mesh(*peers, options=ClientOptions(retries=0, max_in_flight=3)) as mesh:
        calls = [asyncio.create_task(ask(mesh)) for _ in range(6)]
        await until(lambda: sum(peer.requests for peer in peers) == 6)
        assert [peer.requests for peer in peers] == [3, 3]
        with pytest.raises(Saturated) as caught:
            await ask(mesh)
        assert caught.value.reason == "instance"
        assert str(caught.value) == "limit reached: requests in flight on one instance"
        assert mesh.requester.stats.shed == {"instance": 1}
        go.set()
        await asyncio.gather(*calls)
        await ask(mesh)


async def test_an_instance_whose_queue_is_full_is_passed_over_too() -> None:
    go = asyncio.Event()
    one = ScriptedPeer(when(go), manners=GO, identity=make_identity(0), weight=1000)
    other = ScriptedPeer(when(go), manners=GO, identity=make_identity(1))
    options = ClientOptions(retries=0, max_connections=1, max_waiters=2)
    async with Mesh(one, other, options=options) as mesh:
        calls = [asyncio.create_task(ask(mesh)) for _ in range(4)]
        await until(lambda: one.requests + other.requests == 2)  # two wait with the heavier one
        calls += [asyncio.create_task(ask(mesh)) for _ in range(2)]
        await until(lambda: sum(view.waiting for view in mesh.views()) == 4)
        with pytest.raises(Saturated) as caught:
            await ask(mesh)
        assert caught.value.reason == "queue_full"
        assert mesh.requester.stats.shed == {"queue_full": 1}
        go.set()
        await asyncio.gather(*calls)


async def test_a_queue_that_has_stood_for_too_long_refuses_its_oldest() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"busy": when(go)}), manners=GO)
    options = ClientOptions(retries=0, max_connections=1, queue_target=0.02, queue_interval=0.05)
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh)
        busy = asyncio.create_task(ask(mesh, b"busy"))
        await peer.until(lambda: peer.requests == 2)
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(10)]
        for call in calls:
            with pytest.raises(Saturated) as caught:
                await call
            assert caught.value.reason == "queue_delay"
        assert mesh.requester.stats.shed == {"queue_delay": 10}
        assert mesh.views()[0].in_flight == 1
        go.set()
        assert await busy == b"busy"
        assert await ask(mesh, b"next") == b"next"
        assert peer.requests == 3


async def test_by_default_a_client_lets_them_wait() -> None:
    options = ClientOptions()
    assert (options.queue_target, options.max_in_flight) == (0.0, 0)


# -- one slow dial ----------------------------------------------------------------------


async def test_who_waits_for_a_host_that_says_nothing_goes_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is no retry: nothing was tried."""
    monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.02)
    good = ScriptedPeer(identity=make_identity(1))
    options = ClientOptions(retry_budget=0.0, retry_minimum=0)
    async with mute() as (stuck, accepted), Mesh(good, options=options) as mesh:
        mesh.announce(stuck)
        bodies = [b"%d" % number for number in range(30)]
        assert await asyncio.gather(*(ask(mesh, body) for body in bodies)) == bodies
        assert len(accepted) == 1
        for body in bodies:  # from now on nobody is sent there
            assert await ask(mesh, body) == body
        assert mesh.requester.stats.retries == {}
        assert mesh.requester.stats.attempts == 60
        assert len(accepted) == 1


async def test_without_anywhere_else_to_go_they_wait_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.01)
    options = ClientOptions(retries=0, connect_timeout=0.1)
    async with mute() as (stuck, accepted), Mesh(options=options) as mesh:
        mesh.announce(stuck)
        results = await asyncio.gather(*(ask(mesh) for _ in range(5)), return_exceptions=True)
        assert {type(result) for result in results} == {ConnectTimeout}
        assert len(accepted) == 1


async def test_an_instance_that_said_nothing_is_found_again_when_it_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 0.01)
    options = ClientOptions(retries=0, connect_timeout=0.2)
    async with Mesh(options=options) as mesh:
        async with mute() as (stuck, accepted):
            mesh.announce(stuck)
            with pytest.raises(ConnectTimeout):
                await ask(mesh)
            await until(lambda: len(accepted) > 1)  # the background tries
            assert mesh.views()[0].state == "out"
        async with stuck:  # at the same port
            await until(lambda: mesh.views()[0].state == "up")
            assert await ask(mesh, b"back") == b"back"
            assert mesh.requester.stats.connect_failures["timeout"] > 0


# -- health -----------------------------------------------------------------------------


async def test_pauses_grow_when_an_instance_comes_back_and_answers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 0.001)
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 60.0)
    peer = ScriptedPeer(first(4, hang_up))
    async with Mesh(peer, options=ONCE) as mesh:
        for failures in range(1, 5):
            with pytest.raises(ConnectionLost):
                await ask(mesh)
            instance = only_instance(mesh)
            assert instance._failures == failures
            await until(lambda: not only_instance(mesh).out)
        await ask(mesh)
        assert only_instance(mesh)._failures == 0


async def test_what_comes_back_begins_with_a_part_of_its_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 0.001)
    peer = ScriptedPeer(first(1, hang_up))
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(ConnectionLost):
            await ask(mesh)
        assert mesh.views()[0].share == 1.0  # out, not warming
        await until(lambda: mesh.views()[0].state == "up")
        assert mesh.views()[0].share < 1.0
        for _ in range(5):  # and yet gets all there is, being alone
            await ask(mesh)


async def test_what_comes_beside_another_one_gets_a_small_part_at_first() -> None:
    random.seed(5)
    old, new = (ScriptedPeer(identity=make_identity(number)) for number in range(2))
    async with Mesh(old, options=ONCE) as mesh, new:
        await ask(mesh)
        only_instance(mesh).since -= 3600.0  # it has been serving for long
        mesh.announce(new)
        for _ in range(200):
            await ask(mesh)
        assert 5 <= new.requests <= 45  # a tenth at first, some more with time
        assert sorted(view.share < 1.0 for view in mesh.views()) == [False, True]


async def test_another_ones_certificate_is_not_tried_again_by_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
    peer = ScriptedPeer(identity=make_identity(0), shows=make_identity(1))
    async with Mesh(peer, options=ClientOptions(retry_minimum=100)) as mesh:
        with pytest.raises(FingerprintMismatch):
            await ask(mesh)
        for _ in range(20):
            with pytest.raises(NoUsableInstance) as caught:
                await ask(mesh)
            assert 0.0 <= caught.value.retry_after <= 1.0
        assert mesh.requester.stats.connect_failures == {"fingerprint": 1}


async def test_a_refused_connection_is_tried_again_when_there_is_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        peer.stop_listening()
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await ask(mesh)
        await peer.listen()
        assert await ask(mesh, b"back") == b"back"


async def test_what_nobody_foresaw_does_not_end_the_recovery(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 0.001)
    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        peer.stop_listening()
        with pytest.raises(ConnectFailed):
            await ask(mesh)
        dial, failed = mesh.requester._dialer.dial, 0

        async def break_down(*args: object, **kwargs: object) -> None:
            nonlocal failed
            failed += 1
            raise RuntimeError("a bug")

        monkeypatch.setattr(mesh.requester._dialer, "dial", break_down)
        await until(lambda: failed > 1)
        monkeypatch.setattr(mesh.requester._dialer, "dial", dial)
        await peer.listen()
        await until(lambda: mesh.views()[0].state == "up")
        assert "dialling" in caplog.text


# -- the budget of retries --------------------------------------------------------------


async def test_the_budget_holds_in_a_storm_of_requests_that_were_never_executed() -> None:
    peers = [ScriptedPeer(dispatch_failure, identity=make_identity(n)) for n in range(3)]
    async with Mesh(*peers, options=ClientOptions()) as mesh:
        for peer in peers:  # so that each is known
            while not peer.requests:
                with pytest.raises(DispatchFailed):
                    await ask(mesh)
        calls = [ask(mesh) for _ in range(300)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {DispatchFailed}
        stats = mesh.requester.stats
        assert sum(stats.retries.values()) <= 0.2 * stats.requests + 3
        assert stats.attempts == stats.requests + sum(stats.retries.values())
        assert stats.retries_denied >= 200
        assert mesh.requester.retries_left == 0


async def test_the_budget_counts_what_could_not_connect() -> None:
    peers = [ScriptedPeer(identity=make_identity(n)) for n in range(3)]
    options = ClientOptions(retry_budget=0.0, retry_minimum=2)
    async with Mesh(*peers, options=options) as mesh:
        for peer in peers:
            peer.stop_listening()
        results = await asyncio.gather(*(ask(mesh) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(result, ScampError) for result in results)
        assert mesh.requester.stats.retries == {"connect": 2}
        assert mesh.requester.stats.retries_denied > 0


async def test_one_connection_that_fails_is_one_retry_however_many_waited_for_it() -> None:
    down, up = (ScriptedPeer(identity=make_identity(number)) for number in range(2))
    async with Mesh(down, up, options=ClientOptions(retry_budget=0.0, retry_minimum=1)) as mesh:
        down.stop_listening()
        bodies = [b"%d" % number for number in range(40)]
        assert await asyncio.gather(*(ask(mesh, body) for body in bodies)) == bodies
        assert mesh.requester.stats.retries == {"connect": 1}
        assert mesh.requester.stats.retries_denied == 0
        assert mesh.requester.stats.connect_failures == {"refused": 1}


async def test_who_only_waited_does_not_go_in_circles_when_nothing_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
    peers = [ScriptedPeer(identity=make_identity(number)) for number in range(3)]
    async with Mesh(*peers, options=ClientOptions()) as mesh:
        for peer in peers:
            peer.stop_listening()
        results = await asyncio.gather(*(ask(mesh) for _ in range(50)), return_exceptions=True)
        assert {type(result) for result in results} == {ConnectFailed}
        assert sum(mesh.requester.stats.connect_failures.values()) <= 50
        assert mesh.in_flight == 0


async def test_nothing_is_sent_when_the_deadline_passes_between_two_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requester_module, "RETRY_DELAY", 600.0)
    random.seed(3)
    peer = ScriptedPeer(dispatch_failure)
    async with Mesh(peer) as mesh:
        with pytest.raises(DispatchFailed):
            await ask(mesh, timeout=0.3)
        assert peer.requests == 1
        assert mesh.in_flight == 0
