"""Each reply goes to the request that it belongs to, whatever kind of peer sends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from scamp.client import ClientOptions, PeerKind
from scamp.client.connection import FIRST_ID_FROM
from scamp.errors import ConnectionLost, ReplyTimeout, ScampTimeout
from scamp.limits import MAX_REQUEST_ID
from scamp.testing import ECHOING, GO, AtHeader, Manners, Mesh, PeerRequest, ScriptedPeer, until
from scamp.testing.scripts import (
    begun,
    by_body,
    echo,
    events,
    silent,
    twice,
    unknown_id,
    when,
)

RENUMBERING = Manners(echoes_ids=False)


async def ask(mesh: Mesh, body: bytes, timeout: float = 10.0) -> bytes:
    reply = await mesh.requester.request("Test.echo", body, timeout=timeout)
    return await reply.read_all()


@pytest.mark.parametrize("manners", [ECHOING, GO])
async def test_many_at_once_each_get_their_own(
    manners: Manners, options: ClientOptions, bodies: Iterator[bytes]
) -> None:
    sent = [next(bodies) for _ in range(50)]
    async with Mesh(ScriptedPeer(manners=manners), options=options) as mesh:
        assert await asyncio.gather(*(ask(mesh, body) for body in sent)) == sent


async def test_the_first_request_to_an_unknown_peer_has_its_connection_alone(
    options: ClientOptions,
) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(when(go))
    async with Mesh(peer, options=options) as mesh:
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(4)]
        await peer.until(lambda: peer.requests == 4)
        assert peer.accepted == 4  # a connection each, since nothing is known yet
        go.set()
        assert await asyncio.gather(*calls) == [b"0", b"1", b"2", b"3"]
        assert mesh.views()[0].peer == PeerKind.ECHOES.value


async def test_a_peer_that_echoes_shares_one_connection(options: ClientOptions) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"first": echo}, when(go)))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(20)]
        await peer.until(lambda: peer.requests == 21)
        assert peer.accepted == 1
        go.set()
        await asyncio.gather(*calls)


async def test_a_peer_that_renumbers_never_has_two_requests_on_a_connection(
    options: ClientOptions,
) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"first": echo}, when(go)), manners=RENUMBERING)
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(10)]
        await peer.until(lambda: peer.requests == 11)
        assert peer.accepted == 10
        go.set()
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(10)]
        view = mesh.views()[0]
        assert (view.peer, view.connections) == ("renumbers", 10)


async def test_what_was_learned_holds_for_later_connections(options: ClientOptions) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"first": echo}, when(go)))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        await peer.cut()
        await until(lambda: not mesh.views()[0].connections)
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(5)]
        await peer.until(lambda: peer.requests == 6)
        assert peer.accepted == 2
        go.set()
        await asyncio.gather(*calls)


async def test_ids_start_where_a_counting_peer_never_gets(options: ClientOptions) -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"1")
        await peer.cut()
        await until(lambda: not mesh.views()[0].connections)
        await ask(mesh, b"2")
    ids = [header["request_id"] for header in peer.headers]
    assert all(FIRST_ID_FROM <= one < 2**31 for one in ids)
    assert ids[0] != ids[1]


async def test_a_connection_whose_ids_run_out_is_replaced(options: ClientOptions) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"held": when(go)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        held = asyncio.create_task(ask(mesh, b"held"))
        await peer.until(lambda: peer.requests == 2)
        (instance,) = mesh.requester._router._instances.values()
        (connection,) = instance.connections
        connection._next_id = MAX_REQUEST_ID - 2
        for body in (b"1", b"2", b"3", b"4"):
            assert await ask(mesh, body) == body
        assert peer.accepted == 2
        go.set()
        assert await held == b"held"
        await peer.until(lambda: len(peer.connections) == 1)
    ids = [header["request_id"] for header in peer.headers]
    assert max(ids) == MAX_REQUEST_ID - 1
    assert len(set(ids)) == len(ids)


async def test_replies_out_of_order(options: ClientOptions) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"slow": when(go)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        slow = asyncio.create_task(ask(mesh, b"slow"))
        await peer.until(lambda: peer.requests == 2)
        assert await ask(mesh, b"fast") == b"fast"
        go.set()
        assert await slow == b"slow"
        assert peer.accepted == 1


async def test_an_id_that_was_never_used_is_delivered_to_nobody(options: ClientOptions) -> None:
    peer = ScriptedPeer(by_body({b"x": unknown_id(77)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        assert await ask(mesh, b"x") == b"x"
        assert mesh.requester.stats.stray_replies == 1


async def test_a_peer_that_suddenly_counts_is_not_trusted_any_more(
    options: ClientOptions,
) -> None:
    peer = ScriptedPeer(by_body({b"x": unknown_id(1)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        await ask(mesh, b"x")
        assert mesh.views()[0].peer == "unknown"
        assert await ask(mesh, b"y") == b"y"
        assert peer.accepted == 2


@pytest.mark.parametrize("request_id", ["text", None, "", 0, -1, 2**63, "9" * 5000])
async def test_strange_ids_harm_nobody(request_id: object, options: ClientOptions) -> None:
    peer = ScriptedPeer(by_body({b"x": unknown_id(request_id)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        assert await ask(mesh, b"x") == b"x"


async def test_an_id_echoed_as_text_is_the_same_id(options: ClientOptions) -> None:
    async def as_text(request: PeerRequest) -> None:
        text = str(request.header["request_id"])
        await request.reply(bytes(request.body), request_id=text)

    async with Mesh(ScriptedPeer(as_text), options=options) as mesh:
        assert await ask(mesh, b"x") == b"x"
        assert mesh.views()[0].peer == "echoes"


async def test_a_second_reply_is_delivered_to_nobody(options: ClientOptions) -> None:
    peer = ScriptedPeer(twice)
    async with Mesh(peer, options=options) as mesh:
        for body in (b"1", b"2", b"3"):
            assert await ask(mesh, body) == body
        await peer.until(lambda: mesh.requester.stats.stray_replies == 3)
        assert peer.accepted == 1  # an echoing peer is only counted


async def test_a_second_reply_never_reaches_who_was_waiting_for_the_connection(
    options: ClientOptions,
) -> None:
    """Both replies come in one read: the second before the next request was even written."""
    options = ClientOptions(max_connections=1, retry_minimum=100)
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"first": when(go, twice)}), manners=RENUMBERING)
    async with Mesh(peer, options=options) as mesh:
        first = asyncio.create_task(ask(mesh, b"first"))
        await peer.until(lambda: peer.requests == 1)
        second = asyncio.create_task(ask(mesh, b"second"))
        await asyncio.sleep(0)
        go.set()
        assert await first == b"first"
        assert await second == b"second"


async def test_a_second_reply_from_a_peer_that_renumbers_ends_the_connection(
    options: ClientOptions,
) -> None:
    peer = ScriptedPeer(twice, manners=RENUMBERING)
    async with Mesh(peer, options=options) as mesh:
        assert await ask(mesh, b"1") == b"1"
        await peer.until(lambda: not peer.connections)
        assert mesh.requester.stats.stray_replies == 1


async def test_messages_that_nobody_asked_for_are_passed_over(options: ClientOptions) -> None:
    async with Mesh(ScriptedPeer(events(3)), options=options) as mesh:
        assert await ask(mesh, b"1") == b"1"
        assert await ask(mesh, b"2") == b"2"
        assert mesh.requester.stats.connects == 1


async def test_a_reply_may_begin_before_the_request_has_ended(options: ClientOptions) -> None:
    answered = asyncio.Event()

    async def body() -> bytes:
        await answered.wait()
        return b"rest"

    async def pieces() -> AsyncIterator[bytes]:
        yield b"begin"
        yield await body()

    async def at_once(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(b"early")
        await request.ended.wait()
        await reply.write(bytes(request.body))
        reply.end()

    peer = ScriptedPeer(AtHeader(at_once))
    async with Mesh(peer, options=options) as mesh:
        reply = await mesh.requester.request("Test.echo", pieces())
        assert await reply.read() == b"early"
        answered.set()
        assert await reply.read_all() == b"beginrest"
        assert mesh.in_flight == 0


async def test_an_early_reply_of_an_unknown_id_is_not_taken_for_ours(
    options: ClientOptions,
) -> None:
    """A counting peer answers complete requests; this answer can only be somebody else's."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.Event().wait()

    async def at_once(request: PeerRequest) -> None:
        await request.reply(b"not yours")

    peer = ScriptedPeer(AtHeader(at_once), manners=RENUMBERING)
    async with Mesh(peer, options=options) as mesh:
        with pytest.raises(ConnectionLost):
            await mesh.requester.request("Test.echo", pieces())
        await mesh.settled()


async def test_a_renumbering_peer_that_was_not_heard_out_is_never_used_again(
    options: ClientOptions,
) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"x": when(go)}), manners=RENUMBERING)
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        with pytest.raises(ReplyTimeout):
            await ask(mesh, b"x", timeout=0.02)
        go.set()
        assert await ask(mesh, b"next") == b"next"
        assert peer.accepted == 2


async def test_a_timeout_on_a_shared_connection_costs_the_others_nothing(
    options: ClientOptions,
) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"x": silent, b"other": when(go)}), flags="t1")
    options = ClientOptions(retry_minimum=100)
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        other = asyncio.create_task(ask(mesh, b"other"))
        await peer.until(lambda: peer.requests == 2)
        with pytest.raises(ReplyTimeout):
            await ask(mesh, b"x", timeout=1.0)  # the service's own limit: it has no excuse
        assert await ask(mesh, b"new") == b"new"
        assert peer.accepted == 2  # the old one is suspect: nothing new on it
        go.set()
        assert await other == b"other"
        await peer.until(lambda: len(peer.connections) == 1)


async def test_a_late_answer_to_a_caller_that_was_in_a_hurry_harms_nobody(
    options: ClientOptions,
) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"x": when(go)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        with pytest.raises(ReplyTimeout):
            await ask(mesh, b"x", timeout=0.02)
        assert mesh.in_flight == 0
        go.set()
        assert await ask(mesh, b"next") == b"next"
        assert peer.accepted == 1
        assert mesh.requester.stats.stray_replies == 0


async def test_unanswered_requests_do_not_use_up_the_connections(options: ClientOptions) -> None:
    """Their callers have gone; what they leave behind must not hold every place for ever."""
    options = ClientOptions(max_connections=1, max_streams=4, retry_minimum=100)
    peer = ScriptedPeer(by_body({b"x": silent}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        for _ in range(10):
            with pytest.raises(ScampTimeout):  # on a slow machine before there is a connection
                await ask(mesh, b"x", timeout=0.01)
        assert await ask(mesh, b"next", timeout=20.0) == b"next"


async def test_a_reply_read_half_and_given_up(options: ClientOptions) -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"x": begun(b"half", go)}))
    async with Mesh(peer, options=options) as mesh:
        await ask(mesh, b"first")
        async with await mesh.requester.request("Test.echo", b"x") as reply:
            assert await reply.read() == b"half"
        assert mesh.in_flight == 0
        assert await ask(mesh, b"next") == b"next"
        go.set()
        assert await ask(mesh, b"last") == b"last"
        assert peer.accepted == 1
        assert mesh.requester.stats.abandoned == {"discard": 1}


async def test_a_reply_of_a_renumbering_peer_read_half_and_given_up(
    options: ClientOptions,
) -> None:
    peer = ScriptedPeer(by_body({b"x": begun(b"half", asyncio.Event())}), manners=RENUMBERING)
    async with Mesh(peer, options=options) as mesh:
        async with await mesh.requester.request("Test.echo", b"x") as reply:
            assert await reply.read() == b"half"
        assert await ask(mesh, b"next") == b"next"
        assert peer.accepted == 2
        assert mesh.requester.stats.abandoned == {"close": 1}
