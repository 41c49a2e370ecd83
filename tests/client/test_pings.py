"""PING where services are said to answer it, and to nobody else; instances that say nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest

from scamp.client import Call, ClientOptions, Deadline, attempt
from scamp.client import health as health_module
from scamp.errors import ConnectionLost, QueueTimeout, ReplyTimeout
from scamp.limits import SILENT_AFTER
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
from scamp.testing.scripts import begun, echo, silent, when

MUTE = Manners(answers_pings=False)
OFTEN = 0.05
READ, WRITE = "noauth,read", "noauth,update"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that is out may be tried again at once when there is no other."""
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)


def pinging(*names: str, interval: float = OFTEN) -> ClientOptions:
    return ClientOptions(ping_services=names, ping_interval=interval, retry_minimum=100)


@pytest.mark.parametrize(
    ("names", "pinged"),
    [
        ((), False),
        (("peer",), True),
        (("main:PEER", "other"), True),
        (("web:peer", "other", "pee", "peer2"), False),
    ],
)
async def test_only_services_that_are_named_are_sent_pings(
    names: tuple[str, ...], *, pinged: bool
) -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on), name="peer")
    async with Mesh(peer, options=pinging(*names)) as mesh:
        asked = asyncio.create_task(mesh.requester.request("Test.echo"))
        await peer.until(lambda: peer.requests == 1)
        (instance,) = mesh.requester._router._instances.values()
        (connection,) = instance.connections
        assert connection.channel is not None
        assert (connection.channel._heartbeat_timer is not None) == pinged
        if pinged:
            await peer.until(lambda: peer.pings >= 3)
        go_on.set()
        await (await asked).read_all()
        assert peer.accepted == 1
        assert (peer.pings > 0) == pinged


async def test_a_peer_that_closes_on_a_ping_lives_when_others_are_named() -> None:
    go, other = ScriptedPeer(manners=GO, name="go"), ScriptedPeer(name="js", actions=("Js.echo",))
    async with Mesh(go, other, options=pinging("js")) as mesh:
        for action in ("Test.echo", "Js.echo"):
            await (await mesh.requester.request(action)).read_all()
        await other.until(lambda: other.pings >= 2)
        assert (go.pings, go.upset, len(go.connections)) == (0, {}, 1)


async def first_has_it(mesh: Mesh, flags: str) -> tuple[ScriptedPeer, ScriptedPeer]:
    """Two instances of which the first gets the next request, and never answers a PING."""
    mute = ScriptedPeer(silent, manners=MUTE, flags=flags, weight=10**6)
    other = ScriptedPeer(flags=flags, identity=make_identity(1))
    for peer in (mute, other):
        await mesh._stack.enter_async_context(peer)
        mesh.announce(peer)
    return mute, other


async def test_a_read_at_a_peer_that_answers_no_ping_goes_elsewhere() -> None:
    async with Mesh(options=pinging("peer")) as mesh:
        mute, other = await first_has_it(mesh, READ)
        reply = await mesh.requester.request("Test.echo", b"[1]", timeout=60)
        assert await reply.read_all() == b"[1]"
        assert (mute.requests, other.requests, reply.attempts) == (1, 1, 2)
        assert mesh.requester.stats.retries == {"lost": 1}
        view = mesh.views()[0]
        assert (view.state, view.in_flight) == ("out", 0)
        assert "no answer to PING" in str(view.last_error)


async def test_an_update_there_fails_and_is_not_done_twice() -> None:
    async with Mesh(options=pinging("peer")) as mesh:
        mute, other = await first_has_it(mesh, WRITE)
        with pytest.raises(ConnectionLost, match="no answer to PING") as caught:
            await mesh.requester.request("Test.echo", b"[1]", timeout=60)
        assert caught.value.written
        assert (mute.requests, other.requests) == (1, 0)


async def test_a_peer_that_stops_reading_is_found_while_nobody_asks() -> None:
    """As one that SIGSTOP holds: it is out before the next request comes."""

    async def stop(request: PeerRequest) -> None:
        await echo(request)
        request.connection.pause_reading()

    peer = ScriptedPeer(stop)
    async with Mesh(peer, options=pinging("peer")) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        await until(lambda: mesh.views()[0].last_error)
        assert "no answer to PING" in str(mesh.views()[0].last_error)
        assert mesh.requester.stats.lost_in_use == 0


# -- nothing but time-outs ----------------------------------------------------------------


async def time_out(mesh: Mesh, count: int, *, lowered: bool = False) -> None:
    """So many requests that run out of time, one after the other."""
    offers = mesh.registry.find("main", "Test.echo", 1)
    done = 0
    while done < count:
        with contextlib.suppress(QueueTimeout):  # on a busy machine a connection takes longer
            with pytest.raises(ReplyTimeout):
                await mesh.requester.send(
                    Call(offers, b"{}", Deadline.after(0.05), caller_lowered=lowered)
                )
            done += 1


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
async def test_an_instance_that_answers_nothing_at_all_is_out(manners: Manners) -> None:
    peer = ScriptedPeer(silent, manners=manners)
    async with Mesh(peer) as mesh:
        await time_out(mesh, SILENT_AFTER - 1)
        assert mesh.views()[0].state == "up"
        await time_out(mesh, 1)
        assert mesh.views()[0].state == "out"
        assert str(mesh.views()[0].last_error).startswith("no reply; gave up after ")


@pytest.mark.parametrize("patience", [0.0, 10.0])
async def test_callers_who_leave_count_when_they_have_waited(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a process that hangs would be asked for ever: nobody waits until its deadline."""
    monkeypatch.setattr(attempt, "SILENT_WAIT", patience)
    peer = ScriptedPeer(echo)
    async with Mesh(peer) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        peer.script = silent
        for _ in range(SILENT_AFTER):
            asked = asyncio.create_task(mesh.requester.request("Test.echo"))
            await peer.until(partial(more, peer, len(peer.headers) + 1))
            asked.cancel()
            await asyncio.wait((asked,))
        assert mesh.views()[0].state == ("up" if patience else "out")
        assert peer.accepted == 1, "nor does it cost the connection"


async def test_who_is_slow_with_an_upload_and_leaves_says_nothing_of_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has nothing to answer yet, however long that takes."""
    monkeypatch.setattr(attempt, "SILENT_WAIT", 0.001)
    never = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    peer = ScriptedPeer(echo)
    async with Mesh(peer) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        asked = []
        for _ in range(SILENT_AFTER):
            asked.append(asyncio.create_task(mesh.requester.request("Test.echo", slow())))
            await peer.until(partial(more, peer, len(peer.headers) + 1))
        await asyncio.sleep(0.01)  # longer than SILENT_WAIT, whatever the machine does
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)
        (instance,) = mesh.requester._router._instances.values()
        assert (instance.silence, instance.out) == (0, False)


async def test_that_it_accepts_connections_does_not_make_it_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes back, for it may be; but one more request without a reply takes it out again, for
    longer."""
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 0.01)
    peer = ScriptedPeer(silent)
    async with Mesh(peer) as mesh:
        await time_out(mesh, SILENT_AFTER)
        (instance,) = mesh.requester._router._instances.values()
        for failures in (2, 3, 4):
            await until(lambda: not instance.out)
            await time_out(mesh, 1)
            assert instance.out
            assert instance._failures == failures
        peer.script = echo
        await until(lambda: not instance.out)
        await (await mesh.requester.request("Test.echo")).read_all()
        assert instance.silence == 0
        peer.script = silent
        await time_out(mesh, 1)
        assert not instance.out


async def test_one_answer_among_them_shows_that_it_lives() -> None:
    peer = ScriptedPeer(silent)
    async with Mesh(peer) as mesh:
        for _ in range(2):
            await time_out(mesh, SILENT_AFTER - 1)
            peer.script = echo
            await (await mesh.requester.request("Test.echo")).read_all()
            peer.script = silent
        assert mesh.views()[0].state == "up"


async def test_callers_with_short_deadlines_say_nothing_of_the_service() -> None:
    peer = ScriptedPeer(silent)
    async with Mesh(peer) as mesh:
        await time_out(mesh, 2 * SILENT_AFTER, lowered=True)
        assert mesh.views()[0].state == "up"


def more(peer: ScriptedPeer, count: int) -> bool:
    """Whether so many requests have come."""
    return len(peer.headers) >= count


async def test_a_request_that_is_left_beside_one_that_is_answered_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They share a connection: the action hangs, not the instance."""
    monkeypatch.setattr(attempt, "SILENT_WAIT", 0.0)
    peer = ScriptedPeer(
        {"Test.echo": echo, "Test.hang": silent}, actions=("Test.echo", "Test.hang")
    )
    async with Mesh(peer) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        (instance,) = mesh.requester._router._instances.values()
        hangs = asyncio.create_task(mesh.requester.request("Test.hang"))
        await peer.until(partial(more, peer, len(peer.headers) + 1))
        await (await mesh.requester.request("Test.echo")).read_all()
        hangs.cancel()
        await asyncio.wait((hangs,))
        assert instance.silence == 0
        assert peer.accepted == 1


# -- what becomes of the connection -------------------------------------------------------


async def test_time_outs_do_not_cost_the_others_on_their_connection() -> None:
    """The first retires it: it takes nothing new, and ends with the last that is waited for."""
    go_on = asyncio.Event()
    peer = ScriptedPeer(
        {"Test.echo": echo, "Test.hang": silent, "Test.wait": begun(b"x", go_on)},
        actions=("Test.echo", "Test.hang", "Test.wait"),
    )
    async with Mesh(peer) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        waits = [await mesh.requester.request("Test.wait") for _ in range(5)]
        offers = mesh.registry.find("main", "Test.hang", 1)
        calls = [Call(offers, b"{}", Deadline.after(0.05)) for _ in range(30)]
        results = await asyncio.gather(
            *(mesh.requester.send(call) for call in calls), return_exceptions=True
        )
        assert {type(result) for result in results} == {ReplyTimeout}
        (instance,) = mesh.requester._router._instances.values()
        assert [one.state.name for one in instance.connections] == ["RETIRED"]
        await (await mesh.requester.request("Test.echo")).read_all()
        assert peer.accepted == 2
        go_on.set()
        assert [await wait.read_all() for wait in waits] == [b"xx"] * 5
        await until(lambda: len(instance.connections) == 1)
        await peer.until(lambda: len(peer.connections) == 1)
        assert mesh.in_flight == 0
