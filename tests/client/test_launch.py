"""A call that is launched ends as the same call that is sent, without a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from emptied import assert_tables_empty, instances, quiet
from launching import BODY, OPTIONS, Launched, ask, make

from scamp.client import Call, ClientOptions, Launch, PeerKind, launch
from scamp.errors import ConnectionLost, DispatchFailed, ReplyFailed, ReplyTimeout
from scamp.limits import MAX_INFLIGHT
from scamp.testing import ECHOING, GO, Manners, Mesh, ScriptedPeer, until
from scamp.testing.peer_connection import PeerRequest, Script
from scamp.testing.scripts import (
    begun,
    by_body,
    cut_midway,
    dispatch_failure,
    echo,
    failing,
    first,
    hang_up,
    silent,
    txerr,
    when,
)


@asynccontextmanager
async def standing(
    script: Script | None = None,
    manners: Manners = ECHOING,
    *,
    options: ClientOptions = OPTIONS,
    unknown: bool = False,
) -> AsyncIterator[tuple[Mesh, ScriptedPeer]]:
    """A client with one connection, to a peer of which it knows what it is, unless `unknown`."""
    peer = ScriptedPeer(script, manners=manners)
    async with Mesh(peer, options=options) as mesh:
        if unknown:
            call = make(mesh)
            instance, _ = mesh.requester._router.choose(call.offers, "json", [], time.monotonic())
            await instance._connect()
        else:
            peer.script = echo
            await ask(mesh, b"[]")
            peer.script = script or echo
            peer.executed.clear()
        yield mesh, peer
        await until(lambda: quiet(mesh))
        assert_tables_empty(mesh)
        assert mesh.requester.stats.stray_replies == 0
        assert peer.protocol_errors == []


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
async def test_a_reply_that_is_whole(manners: Manners) -> None:
    async with standing(manners=manners) as (mesh, peer):
        call = make(mesh, ticket="1,2,3", client_id=7)
        launched = Launched(mesh, call)
        await launched.news()
        reply = launched.launch.reply()
        assert reply is not None
        assert reply.complete
        assert reply.read_nowait() == BODY
        assert (reply.attempts, reply.queued, reply.failed) == (1, 0.0, False)
        assert reply.upstream > 0
        assert reply.address == f"{peer.host}:{peer.port}"
        assert reply.offer is call.offers[0]
        reply.abandon()
        launched.launch.abandon()
        assert peer.headers[1] == {**peer.headers[0], **peer.headers[1]}
        assert (peer.headers[1]["ticket"], peer.headers[1]["client_id"]) == ("1,2,3", 7)
        assert peer.executed == {BODY: 1}
        stats = mesh.requester.stats
        assert (stats.requests, stats.attempts) == (2, 2)
        assert stats.bytes_sent == stats.bytes_received == len(b"[]") + len(BODY)
        assert not stats.abandoned


async def test_many_each_get_their_own() -> None:
    async with standing() as (mesh, peer):
        sent = [b"%d" % number for number in range(100)]
        launched = [Launched(mesh, make(mesh, body)) for body in sent]
        assert await asyncio.gather(*(one.read() for one in launched)) == sent
        assert peer.accepted == 1


async def test_the_next_may_be_launched_from_a_callback() -> None:
    async with standing() as (mesh, _):
        got: list[bytes] = []
        over = asyncio.Event()
        held: list[Launch] = []

        def go_on() -> None:
            reply = held[-1].reply()
            assert reply is not None
            got.append(reply.read_nowait())
            if len(got) == 50:
                over.set()
                return
            start(b"%d" % len(got))

        def start(body: bytes) -> None:
            made = mesh.requester.launch(make(mesh, body), go_on)
            assert made is not None
            held.append(made)

        start(b"0")
        async with asyncio.timeout(5):
            await over.wait()
        assert got == [b"%d" % number for number in range(50)]


async def test_an_error_of_the_service_is_a_whole_reply() -> None:
    async with standing(failing("gone", "is gone")) as (mesh, _):
        launched = Launched(mesh, make(mesh))
        await launched.news()
        reply = launched.launch.reply()
        assert reply is not None
        assert reply.failed
        assert reply.header.error_code == "gone"
        reply.abandon()
        assert not mesh.requester.stats.abandoned


async def test_an_empty_reply_is_whole() -> None:
    async def nothing(request: Any) -> None:
        request.open().end()

    async with standing(nothing) as (mesh, _):
        launched = Launched(mesh, make(mesh))
        await launched.news()
        reply = launched.launch.reply()
        assert reply is not None
        assert reply.complete
        assert reply.read_nowait() == b""


def in_one_write(pieces: list[bytes], **fields: Any) -> Script:
    """A reply in one write, its body in so many packets."""

    async def script(request: PeerRequest) -> None:
        connection, said = request.connection, list[bytes]()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "send", said.append)
            reply = request.open(**fields)
            for piece in pieces:
                await reply.write(piece)
            reply.end()
        connection.send(b"".join(said))

    return script


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
@pytest.mark.parametrize("pieces", [[], [b"a"], [b"a", b"b"]], ids=len)
@pytest.mark.parametrize("fields", [{}, {"error": "no"}], ids=["right", "failed"])
async def test_what_comes_in_one_read_is_told_as_a_whole(
    manners: Manners, pieces: list[bytes], fields: dict[str, str]
) -> None:
    """However it is cut into packets: an error whose end is still to come would cost a peer that
    renumbers its connection."""
    async with standing(in_one_write(pieces, **fields), manners) as (mesh, peer):
        over = asyncio.get_running_loop().create_future()

        def done() -> None:
            reply = made.reply() if made is not None else None
            over.set_result(reply is not None and (reply.failed, reply.read_nowait()))
            if reply is not None:
                reply.abandon()

        made = mesh.requester.launch(make(mesh), done)
        async with asyncio.timeout(5):
            assert await over == (bool(fields), b"".join(pieces))
        peer.script = echo
        await ask(mesh, b"next")
        assert peer.accepted == 1


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
async def test_a_reply_that_streams_comes_through_resume(manners: Manners) -> None:
    go = asyncio.Event()
    async with standing(begun(b"ab", go), manners) as (mesh, _):
        launched = Launched(mesh, make(mesh))
        await launched.news()
        assert launched.launch.reply() is None
        reply = await mesh.requester.resume(launched.launch)
        assert await reply.read() == b"ab"
        go.set()
        assert await reply.read_all() == b"ab"
        launched.launch.abandon()
        assert launched.told == 1


async def test_the_beginning_of_a_read_reply_is_held_back_by_resume() -> None:
    async with standing(first(1, cut_midway())) as (mesh, _):
        launched = Launched(mesh, make(mesh, retry_safe=True))
        await launched.news()
        assert launched.launch.reply() is None
        reply = await mesh.requester.resume(launched.launch)
        assert await reply.read_all() == BODY
        assert reply.attempts == 2
        assert mesh.requester.stats.retries == {"lost": 1}


async def test_a_reply_that_is_given_up() -> None:
    async with standing(first(2, txerr(after=b"x"))) as (mesh, _):
        launched = Launched(mesh, make(mesh))
        await launched.news()
        assert launched.launch.reply() is None
        with pytest.raises(ReplyFailed):
            await (await mesh.requester.resume(launched.launch)).read_all()
        again = Launched(mesh, make(mesh, retry_safe=True))
        assert await again.read() == BODY
        assert mesh.requester.stats.retries == {"txerr": 1}


async def test_a_connection_that_is_lost_after_the_request_was_written() -> None:
    async with standing(hang_up) as (mesh, peer):
        launched = Launched(mesh, make(mesh))
        await launched.news()
        assert launched.launch.reply() is None
        with pytest.raises(ConnectionLost) as caught:
            await mesh.requester.resume(launched.launch)
        assert caught.value.written
        assert (caught.value.attempts, caught.value.instance) == (1, f"{peer.host}:{peer.port}")
        assert not mesh.requester.stats.retries


async def test_a_connection_that_is_lost_before_the_request_was_written() -> None:
    async with standing() as (mesh, peer):
        (connection,) = instances(mesh)[0].connections
        assert connection.channel is not None
        launched = Launched(mesh, make(mesh))
        connection.channel.abort("by the test")
        assert await launched.read() == BODY
        assert mesh.requester.stats.retries == {"lost": 1}
        assert peer.executed == {BODY: 1}, "it was never written on the first"


async def test_what_was_not_dispatched_goes_elsewhere() -> None:
    async with standing(first(2, dispatch_failure)) as (mesh, _):
        launched = Launched(mesh, make(mesh))
        await launched.news()
        assert launched.launch.reply() is None
        reply = await mesh.requester.resume(launched.launch)
        assert (reply.attempts, await reply.read_all()) == (3, BODY)
        assert mesh.requester.stats.retries == {"dispatch_failure": 2}


async def test_retries_end_as_those_of_send_do() -> None:
    async with standing(dispatch_failure) as (mesh, _):
        launched = Launched(mesh, make(mesh))
        await launched.news()
        with pytest.raises(DispatchFailed) as caught:
            await mesh.requester.resume(launched.launch)
        launch_stats = copy.deepcopy(mesh.requester.stats)
        with pytest.raises(DispatchFailed) as sent:
            await mesh.requester.send(make(mesh))
        assert caught.value.attempts == sent.value.attempts == OPTIONS.retries + 1
        assert mesh.requester.stats.attempts == 2 * launch_stats.attempts - 1


# -- deadlines ----------------------------------------------------------------------------


@pytest.mark.parametrize("sharp", [1.0, 0.0], ids=["exact", "coarse"])
@pytest.mark.parametrize("lowered", [False, True])
async def test_a_deadline(sharp: float, lowered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SHARP", sharp)
    go = asyncio.Event()
    async with standing(when(go)) as (mesh, peer):
        call = make(mesh, seconds=0.1, caller_lowered=lowered)
        launched = Launched(mesh, call)
        assert bool(mesh.requester._expiry._ticks) is (sharp == 0.0)
        await launched.news()
        assert call.deadline.expired
        assert launched.launch.reply() is None
        with pytest.raises(ReplyTimeout) as caught:
            await mesh.requester.resume(launched.launch)
        assert str(caught.value) == str(ReplyTimeout(0.1))
        (view,) = mesh.views()
        assert view.in_flight == 0
        assert instances(mesh)[0].silence == (not lowered)
        go.set()
        await ask(mesh)
        assert peer.accepted == (1 if lowered else 2), "an unanswered request makes it suspect"


async def test_a_deadline_that_is_over_before_anybody_resumes_counts_once() -> None:
    async with standing(by_body({BODY: silent})) as (mesh, _):
        launched = Launched(mesh, make(mesh, seconds=0.05))
        await launched.news()
        launched.launch.abandon()
        launched.launch.abandon()
        assert launched.launch.reply() is None
        assert launched.told == 1
        assert mesh.views()[0].in_flight == 0
        instances(mesh)[0]._pool.slots[0].close("never answered")


# -- who leaves ---------------------------------------------------------------------------

Moment = Callable[[ScriptedPeer, Launched], Awaitable[None]]


async def at_once(peer: ScriptedPeer, launched: Launched) -> None:
    """Not a byte is written."""


async def in_flight(peer: ScriptedPeer, launched: Launched | None) -> None:
    await peer.until(lambda: BODY in peer.executed)


async def begins(peer: ScriptedPeer, launched: Launched) -> None:
    """Its first byte is here."""
    await launched.news()
    assert launched.launch.reply() is None


async def whole(peer: ScriptedPeer, launched: Launched) -> None:
    await launched.news()


async def taken(peer: ScriptedPeer, launched: Launched) -> None:
    await launched.news()
    assert launched.launch.reply() is not None


KINDS: Final = {
    "echoing": (ECHOING, False),
    "renumbering": (GO, False),
    "unknown, echoing": (ECHOING, True),
    "unknown, renumbering": (GO, True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", [at_once, in_flight, begins, whole, taken])
async def test_who_leaves_harms_nobody(kind: str, moment: Moment) -> None:
    manners, unknown = KINDS[kind]
    go = asyncio.Event()
    scripts: dict[Moment, Script] = {begins: begun(b"x", go), whole: echo, taken: echo}
    script = scripts.get(moment, when(go))
    async with standing(by_body({BODY: script}), manners, unknown=unknown) as (mesh, peer):
        launched = Launched(mesh, make(mesh))
        if unknown and moment is not at_once:
            # Nobody else can be on the connection until the peer is known.
            assert mesh.requester.launch(make(mesh, b"other"), fail) is None
        await moment(peer, launched)
        told = launched.told
        for _ in range(2):
            launched.launch.abandon()
        assert mesh.views()[0].in_flight == 0
        answered = moment in (whole, taken)
        stats = mesh.requester.stats
        if answered:
            assert not stats.abandoned
            assert peer.accepted == 1
        elif mesh.views()[0].peer == PeerKind.ECHOES.value:
            assert stats.abandoned == {"discard": 1}
        else:
            assert stats.abandoned == {"close": 1}
            await until(lambda: len(instances(mesh)[0].connections) == 0)
        assert await ask(mesh, b"next") == b"next"
        go.set()
        assert await ask(mesh, b"after") == b"after"
        assert launched.told == told, "who has left is not told"
        assert launched.launch.reply() is None
        assert mesh.views()[0].state == "up"


def fail() -> None:
    raise AssertionError("nobody is to be told")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patient", [False, True])
async def test_who_leaves_counts_as_a_send_that_is_cancelled(
    kind: str, patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for what it says of an instance that has not answered."""
    monkeypatch.setattr("scamp.client.attempt.SILENT_WAIT", 0.0 if patient else 60.0)
    manners, unknown = KINDS[kind]
    seen = []
    for launches in (True, False):
        async with standing(by_body({BODY: silent}), manners, unknown=unknown) as (mesh, peer):
            if launches:
                launched = Launched(mesh, make(mesh))
                await in_flight(peer, launched)
                launched.launch.abandon()
            else:
                task = asyncio.create_task(mesh.requester.send(make(mesh)))
                await in_flight(peer, None)
                task.cancel()
                await asyncio.wait({task})
            (instance,) = instances(mesh)
            states = sorted(one.state.name for one in instance.connections)
            seen.append((mesh.requester.stats, instance.silence, states))
            assert instance.silence == patient
            for one in list(instance.connections):
                one.close("never answered")
    assert seen[0][1:] == seen[1][1:]
    assert seen[0][0] == seen[1][0]


async def test_resume_takes_over_at_any_time_and_can_be_cancelled() -> None:
    go = asyncio.Event()
    async with standing(by_body({BODY: when(go)})) as (mesh, peer):
        early = Launched(mesh, make(mesh))
        reading = asyncio.create_task(mesh.requester.resume(early.launch))
        late = Launched(mesh, make(mesh))
        leaving = asyncio.create_task(mesh.requester.resume(late.launch))
        await peer.until(lambda: peer.executed[BODY] == 2)
        late.launch.abandon()  # nothing: that is for whoever awaits `resume`
        assert not leaving.done()
        leaving.cancel()
        await asyncio.wait({leaving})
        assert leaving.cancelled()
        assert mesh.views()[0].in_flight == 1
        assert mesh.requester.stats.abandoned == {"discard": 1}
        go.set()
        assert await (await reading).read_all() == BODY
        assert (early.told, late.told) == (0, 0)


async def test_a_resume_that_was_never_begun_leaves_the_launch_to_its_owner() -> None:
    go = asyncio.Event()
    async with standing(by_body({BODY: when(go)})) as (mesh, _):
        launched = Launched(mesh, make(mesh))
        task = asyncio.create_task(mesh.requester.resume(launched.launch))
        task.cancel()
        await asyncio.wait({task})
        assert mesh.views()[0].in_flight == 1
        launched.launch.abandon()
        assert mesh.views()[0].in_flight == 0
        go.set()


async def test_a_callback_that_fails_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    async with standing() as (mesh, peer):
        launched = [Launched(mesh, make(mesh, b"%d" % number)) for number in range(3)]
        assert mesh.requester.launch(make(mesh), fail) is not None
        launched += [Launched(mesh, make(mesh, b"%d" % number)) for number in range(3, 6)]
        got = await asyncio.gather(*(one.read() for one in launched))
        assert got == [b"%d" % number for number in range(6)]
        assert peer.accepted == 1
    assert "nobody is to be told" in caplog.text


# -- what is not launched -----------------------------------------------------------------


def picture(mesh: Mesh) -> object:
    """All that is counted and kept."""
    requester = mesh.requester
    return copy.deepcopy(
        (
            requester.stats,
            requester._budget._requests,
            set(requester._router._plans),
            len(requester._router._instances),
            sorted(requester._expiry._ticks),
            [
                (
                    *(one.in_flight, one.waiting, one._pool.dialing, one._last_used, one.silence),
                    [
                        (*(c.state, c.in_flight, c._next_id), len(c._exchanges), c.channel.busy)
                        for c in one._pool.slots
                        if c.channel is not None
                    ],
                )
                for one in instances(mesh)
            ],
        )
    )


def refused(mesh: Mesh, call: Call) -> None:
    before = picture(mesh)
    assert mesh.requester.launch(call, fail) is None
    assert picture(mesh) == before


async def pieces() -> AsyncIterator[bytes]:
    yield BODY


class Trace:
    def waits(self, *_: object) -> None: ...

    def starts(self, *_: object) -> dict[str, Any]:
        return {}

    def failed(self, *_: object) -> None: ...


async def test_unusual_calls_are_left_to_send() -> None:
    async with standing() as (mesh, _):
        refused(mesh, make(mesh, pieces()))
        refused(mesh, make(mesh, bytes(MAX_INFLIGHT + 1)))
        refused(mesh, make(mesh, trace=Trace()))
        refused(mesh, make(mesh, seconds=0.0))
        refused(mesh, make(mesh, envelope="xml"))
        refused(mesh, make(mesh, client_id="x"))
        refused(mesh, make(mesh, client_id=-1))
        refused(mesh, make(mesh, ticket=7))
        refused(mesh, make(mesh, ticket="x" * 200_000))
        refused(mesh, make(mesh, ticket="\ud800"))
        refused(mesh, make(mesh, extra={"type": "reply"}))
        refused(mesh, make(mesh, extra={"x": object()}))
        largest = Launched(mesh, make(mesh, bytes(MAX_INFLIGHT), extra={"traceparent": "00"}))
        assert await largest.read() == bytes(MAX_INFLIGHT)


async def test_before_anything_is_known() -> None:
    async with Mesh(ScriptedPeer(), options=OPTIONS) as mesh:
        refused(mesh, make(mesh))
        offers = make(mesh).offers
        mesh.requester._router.choose(offers, "json", [], time.monotonic())
        refused(mesh, make(mesh))  # an instance, and no connection


async def test_where_nothing_is_free() -> None:
    go = asyncio.Event()
    options = ClientOptions(max_connections=1)
    async with standing(by_body({BODY: when(go)}), GO, options=options) as (mesh, peer):
        held = Launched(mesh, make(mesh))
        refused(mesh, make(mesh))
        waiting = asyncio.create_task(ask(mesh, b"x"))
        await until(lambda: mesh.views()[0].waiting == 1)
        refused(mesh, make(mesh))
        go.set()
        assert await held.read() == BODY
        assert await waiting == b"x"
        assert peer.accepted == 1


async def test_where_too_much_is_in_flight() -> None:
    go = asyncio.Event()
    options = ClientOptions(max_in_flight=1)
    async with standing(by_body({BODY: when(go)}), options=options) as (mesh, _):
        held = Launched(mesh, make(mesh))
        refused(mesh, make(mesh))
        go.set()
        await held.read()


async def test_an_instance_that_is_out() -> None:
    async with standing() as (mesh, peer):
        instances(mesh)[0].failed(ConnectionLost(peer.host, "lost", written=True), time.monotonic())
        refused(mesh, make(mesh))


async def test_a_connection_that_is_closing() -> None:
    async with standing() as (mesh, _):
        (connection,) = instances(mesh)[0].connections
        assert connection.channel is not None
        assert connection.channel._transport is not None
        connection.channel._transport.close()
        assert mesh.requester.launch(make(mesh), fail) is None
        assert mesh.in_flight == 0


async def test_a_service_that_has_left_and_a_requester_that_is_closed() -> None:
    async with standing() as (mesh, peer):
        call = make(mesh)
        mesh.remove(peer)
        refused(mesh, call)
        mesh.announce(peer)
        await ask(mesh)
        call = make(mesh)
        launched = Launched(mesh, call)
        await mesh.requester.close()
        refused(mesh, call)
        await launched.news()
        with pytest.raises(ConnectionLost):
            await mesh.requester.resume(launched.launch)


# -- what is left -------------------------------------------------------------------------


class Extra(dict[str, str]):
    """Header fields of a call, which can be watched."""


@pytest.mark.parametrize("end", ["whole", "left", "late", "lost"])
async def test_a_launch_that_is_over_leaves_nothing_to_the_collector(end: str) -> None:
    scripts = {"left": silent, "late": silent, "lost": hang_up}
    async with standing(by_body({BODY: scripts.get(end, echo)})) as (mesh, _):

        async def one() -> weakref.ref[Extra]:
            extra = Extra()
            launched = Launched(mesh, make(mesh, extra=extra, seconds=0.1 if end == "late" else 10))
            if end == "left":
                launched.launch.abandon()
                return weakref.ref(extra)
            await launched.news()
            reply = launched.launch.reply()
            if end in ("late", "lost"):
                with contextlib.suppress(ReplyTimeout, ConnectionLost):
                    await mesh.requester.resume(launched.launch)
            else:
                assert reply is not None
                assert await reply.read_all() == BODY
            return weakref.ref(extra)

        gc.collect()
        gc.disable()
        try:
            left = await one()
            for connection in list(instances(mesh)[0].connections):
                if end in ("left", "late"):
                    connection.close("never answered")
            async with asyncio.timeout(5):
                while left() is not None:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
