"""A subscriber sees what the service publishes, whole, in order, and over losses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from scamp.client import Changed, ClientOptions, Subscription, feed, picture, subscription
from scamp.client.picture import Picture
from scamp.client.sources import NamedSource
from scamp.discovery import Announcement
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    FingerprintMismatch,
    LocalProtocolError,
    NoUsableInstance,
    RemoteProtocolError,
    ReplyTimeout,
    ScampError,
    SubscriptionRefused,
    UnknownService,
)
from scamp.limits import MAX_CLIENT_MESSAGE, RESUBSCRIBE_FIRST
from scamp.server import Service
from scamp.testing import GO, Mesh, ScriptedPeer, TestIdentity, make_identity, until
from scamp.testing.events import Publisher
from scamp.testing.scripts import echo, silent
from scamp.transport import ChannelState
from scamp.wire.subdata import Record


async def changes(subscription: Subscription, count: int) -> list[Changed]:
    found: list[Changed] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found.append(await anext(subscription))
    return found


async def turns(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds, and not once more."""
    while not condition():  # noqa: ASYNC110 - that would be one turn later
        await asyncio.sleep(0)


# -- what is seen -----------------------------------------------------------------------


async def test_all_values_are_there_from_the_beginning() -> None:
    publisher = Publisher({"price": {"a": 1, "b": {"x": [True]}}, "other": {"a": 3}})
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["price", "stock"]) as prices,
    ):
        assert prices.ready
        assert prices.value("price", "a") == 1
        assert prices.value("price", "c") is None
        assert prices.snapshot() == {"price": {"a": 1, "b": {"x": [True]}}}
        assert publisher.filters == [["price", "stock"]]
        assert await changes(prices, 2) == [
            Changed("price", "a", 1),
            Changed("price", "b", {"x": [True]}),
        ]


async def test_values_are_complete_though_the_answer_overtakes_them() -> None:
    """More than the window: the event ends only after it was acknowledged, the answer before."""
    publisher = Publisher({"a": {str(number): "x" * 10_000 for number in range(30)}})
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        assert len(values.snapshot()["a"]) == 30


async def test_a_large_event_is_not_undone_by_the_small_one_that_overtakes_it() -> None:
    publisher = Publisher()
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        publisher.put("a", "k", "x" * 200_000)
        publisher.put("a", "k", "new")
        publisher.put("a", "last", 1)
        while values.value("a", "last") is None:
            await changes(values, 1)
        assert values.value("a", "k") == "new"


async def test_changes_come_in_order_and_deletions_are_among_them() -> None:
    publisher = Publisher({"a": {"old": 1}})
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        assert await changes(values, 1) == [Changed("a", "old", 1)]
        publisher.put("a", "x", 1)
        publisher.put("a", "old", None)
        publisher.put("a", "x", "two")
        seen = await changes(values, 1)
        while seen[-1] != Changed("a", "x", "two"):
            seen += await changes(values, 1)
        assert Changed("a", "old", None) in seen
        assert Changed("a", "old", None).deleted
        assert values.snapshot() == {"a": {"x": "two"}}


async def test_what_is_sent_again_unchanged_is_no_change() -> None:
    publisher = Publisher({"a": {"list": [1, {"x": 1, "y": 2}]}})
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        await changes(values, 1)
        publisher.put("a", "list", [1, {"y": 2, "x": 1}])
        publisher.send(b'[{"code":"a","key":"never","value":null}]')
        publisher.put("a", "end", 1)
        assert await changes(values, 1) == [Changed("a", "end", 1)]
        assert values.stats.events == 4


async def test_what_the_subscriber_does_to_a_value_stays_with_it() -> None:
    publisher = Publisher({"a": {"k": [1]}})
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        values.value("a", "k").append(2)
        values.snapshot()["a"]["k"].append(3)
        (change,) = await changes(values, 1)
        change.value.append(4)
        assert values.value("a", "k") == [1]


async def test_a_slow_reader_gets_the_newest_value_of_each_key_once() -> None:
    publisher = Publisher()
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        for number in range(500):
            publisher.put("a", str(number % 3), number)
        publisher.put("a", "brief", 1)
        publisher.put("a", "brief", None)
        publisher.put("a", "end", 1)
        await until(lambda: values.value("a", "end") == 1)
        assert values.waiting == 4
        assert await changes(values, 4) == [
            Changed("a", "2", 497),
            Changed("a", "0", 498),
            Changed("a", "1", 499),
            Changed("a", "end", 1),
        ]
        assert values.waiting == 0


def test_what_waits_for_a_slow_reader_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that takes values back, and touches them again before the reader is told."""
    monkeypatch.setattr(picture, "MAX_SUBSCRIBED_KEYS", 10)
    seen = Picture(["a"])

    def put(key: str, value: bytes) -> None:
        seen.apply([Record("a", key, value)])

    gone: list[str] = []
    for turn in range(100):
        new = [f"{turn}-{number}" for number in range(9)]
        for key in new:
            put(key, b"1")
        for key in gone:
            put(key, b"1")
            put(key, b"null")
        for _ in new:
            seen.next_change()
        for key in new:
            put(key, b"null")
        gone += new
        assert seen.untold <= 40
        assert len(seen._told) <= 40
    while seen.next_change() is not None:
        pass
    assert not seen._told


async def test_an_event_whose_header_makes_no_sense_makes_it_begin_afresh() -> None:
    """What it says would be missing for ever, and nobody would know."""
    publisher = Publisher({"a": {"k": 1}})
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        publisher.values["a"]["k"] = 2
        (connection,) = peer.connections
        header = {"type": "event", "request_id": [1]}
        publisher._send(connection, header, b'[{"code":"a","key":"k","value":2}]')
        await until(lambda: values.value("a", "k") == 2)
        assert values.stats.connects == 2


@pytest.mark.parametrize(
    "record",
    [
        b"7",
        b"null",
        b"{}",
        b'{"code":"a","key":"k"}',
        b'{"code":7,"key":"k","value":1}',
        b'{"code":"a","key":null,"value":1}',
        b'{"code":"a","key":"\\ud800","value":1}',
        b'{"code":"a","key":"k","value":"\\ud83d"}',
        b'{"code":"stranger","key":"k","value":1}',
        b'{"code":"a","key":"%b","value":1}' % (b"x" * 2000),
    ],
)
async def test_a_malformed_record_costs_itself_only(record: bytes) -> None:
    publisher = Publisher()
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        good = b'{"code":"a","key":"%b","value":1}'
        publisher.send(b"[%b,%b,%b]" % (good % b"1", record, good % b"2"))
        assert await changes(values, 2) == [Changed("a", "1", 1), Changed("a", "2", 1)]
        assert values.stats.malformed == 1
        assert values.snapshot() == {"a": {"1": 1, "2": 1}}


USELESS = [b"", b"{}", b"nonsense", b"[NaN]", b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("body", [*USELESS, None])
async def test_what_a_useless_event_would_have_said_is_not_lost(body: bytes | None) -> None:
    """The service has changed a value, and the event that says so is broken, or broken off."""
    publisher = Publisher({"a": {"k": 1, "kept": 1}})
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        await changes(values, 2)
        publisher.values["a"]["k"] = 2
        if body is None:
            publisher.send(b'[{"code":"a","key":"k","value":2}]', txerr="sorry")
        else:
            publisher.send(body)
        assert await changes(values, 1) == [Changed("a", "k", 2)]
        assert values.snapshot() == {"a": {"k": 2, "kept": 1}}
        assert (values.stats.losses, values.stats.connects) == (1, 2)
        assert values.waiting == 0


async def test_values_are_not_taken_back_because_the_first_event_is_useless() -> None:
    publisher = Publisher({"a": {"k": 1}})
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        await changes(values, 1)
        publisher.first = b"nonsense"
        await peer.cut()
        await until(lambda: values.stats.failures > 0)
        assert isinstance(values.last_error, RemoteProtocolError)
        assert values.snapshot() == {"a": {"k": 1}}
        assert values.waiting == 0
        publisher.first = None
        await values.wait_ready()
        assert values.snapshot() == {"a": {"k": 1}}


# -- losses -----------------------------------------------------------------------------


async def test_after_a_loss_only_differences_are_told() -> None:
    publisher = Publisher({"a": {"same": [1], "other": 1, "gone": 1}})
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        await changes(values, 3)
        peer.stop_listening()
        await peer.cut()
        await until(lambda: not values.ready)
        assert values.value("a", "gone") == 1  # the last that is known
        assert values.address == ""
        publisher.values = {"a": {"same": [1], "other": 2, "new": 1}}
        await until(lambda: values.stats.failures > 0)
        assert isinstance(values.last_error, ConnectFailed)
        await peer.listen()
        await values.wait_ready()
        assert values.address == peer.address
        assert values.last_error is None
        assert await changes(values, 3) == [
            Changed("a", "gone", None),
            Changed("a", "other", 2),
            Changed("a", "new", 1),
        ]
        assert values.waiting == 0
        assert values.snapshot() == {"a": {"same": [1], "other": 2, "new": 1}}
        assert (values.stats.connects, values.stats.losses) == (2, 1)


async def test_a_connection_lost_before_all_values_came_changes_nothing() -> None:
    publisher = Publisher({"a": {"k": 1}})
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        await changes(values, 1)
        publisher.values, publisher.answer = {"a": {"new": 1}}, None
        await peer.cut()
        await until(lambda: len(publisher.filters) == 2)
        await until(lambda: peer.acks > 0 or bool(peer.connections))
        assert values.snapshot() == {"a": {"k": 1}}
        publisher.answer = b"true"
        await peer.cut()
        await values.wait_ready()
        assert values.snapshot() == {"a": {"new": 1}}


async def test_a_silent_connection_is_found_dead_by_its_heartbeat() -> None:
    peer = ScriptedPeer(Publisher({"a": {"k": 1}}))
    async with (
        Mesh(peer) as mesh,
        mesh.requester.subscribe("peer", ["a"], heartbeat=0.05) as values,
    ):
        await peer.until(lambda: peer.pings >= 3)
        assert values.stats.losses == 0
        for connection in peer.connections:
            connection.pause_reading()
        await until(lambda: values.stats.connects == 2)
        for connection in list(peer.connections):
            connection.cut()


async def test_without_a_heartbeat_no_ping_is_sent() -> None:
    peer = ScriptedPeer(Publisher())
    async with Mesh(peer) as mesh:
        async with mesh.requester.subscribe("peer", ["a"], heartbeat=0) as values:
            await values.notify(1)
        assert peer.pings == 0


async def test_an_instance_that_is_no_longer_announced_is_left_for_another() -> None:
    first, second = (ScriptedPeer(Publisher({"a": {"by": n}}), name="shop") for n in (1, 2))
    async with Mesh(first) as mesh, mesh.requester.subscribe("SHOP", ["a"]) as values:
        await second.listen()
        mesh.announce(second)
        assert values.address == first.address
        mesh.remove(first)
        await until(lambda: values.address == second.address)
        assert values.value("a", "by") == 2
        mesh.remove(second)
        await until(lambda: isinstance(values.last_error, UnknownService))
        assert not values.ready
        mesh.announce(first)
        await until(lambda: values.address == first.address)
        await second.stop()


async def test_an_instance_that_is_leaving_is_kept_until_there_is_another() -> None:
    first, second = (ScriptedPeer(Publisher(), name="shop") for _ in range(2))
    async with Mesh(first) as mesh, mesh.requester.subscribe("main:shop", ["a"]) as values:
        first.weight = 0
        mesh.announce(first)
        assert values.address == first.address
        await second.listen()
        mesh.announce(second)
        await until(lambda: values.address == second.address)
        await second.stop()


async def test_a_lost_instance_is_not_the_first_that_is_tried_again() -> None:
    peers = [ScriptedPeer(Publisher(), name="shop") for _ in range(2)]
    async with Mesh(*peers) as mesh, mesh.requester.subscribe("shop", ["a"]) as values:
        for _ in range(4):
            before = values.address
            (held,) = (peer for peer in peers if peer.address == before)
            await held.cut()
            await until(lambda: not values.ready)
            await values.wait_ready()
            assert values.address != before


async def test_a_connection_that_is_lost_at_once_each_time_is_made_ever_more_slowly() -> None:
    publisher = Publisher()
    peer = ScriptedPeer(publisher)
    loop = asyncio.get_running_loop()
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        began = loop.time()
        for count in range(1, 6):
            await until(lambda: values.ready)
            assert values.stats.connects == count
            await peer.cut()
            await until(lambda: not values.ready)
        await values.wait_ready()
        assert loop.time() - began >= 0.5 * (0.05 + 0.1 + 0.2 + 0.4 + 0.8)


async def test_one_that_has_held_is_made_again_as_quickly_as_the_first_time() -> None:
    peer = ScriptedPeer(Publisher())
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        values._delay = values._ready_since = -1000.0  # after many losses, and long ago
        await peer.cut()
        await until(lambda: values.stats.connects == 2)
        assert values._delay == 2 * RESUBSCRIBE_FIRST


async def test_news_of_other_instances_do_not_shorten_the_pause_after_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or all subscribers of a service that dies would be at the next one in the same moment."""
    monkeypatch.setattr(subscription, "RESUBSCRIBE_FIRST", 0.6)
    first, second = (ScriptedPeer(Publisher(), name="shop") for _ in range(2))
    async with Mesh(first) as mesh, mesh.requester.subscribe("shop", ["a"]) as values, second:
        mesh.announce(second)
        await first.cut()
        lost = asyncio.get_running_loop().time()
        await until(lambda: values.address == second.address)
        assert asyncio.get_running_loop().time() - lost >= 0.3


async def test_an_instance_that_goes_while_it_is_dialled_is_not_subscribed_to() -> None:
    first, second = (ScriptedPeer(Publisher({"a": {"by": n}}), name="shop") for n in (1, 2))
    async with Mesh(first) as mesh, second:
        values = mesh.requester.subscribe("shop", ["a"])
        starting = asyncio.create_task(values.start())
        await turns(lambda: values._feed is not None)
        mesh.announce(second)
        mesh.remove(first)
        await starting
        assert values.address == second.address
        assert first.bytes_received == 0
        await values.close()


# -- the first connection ---------------------------------------------------------------


async def test_one_instance_that_is_down_is_passed_over() -> None:
    peers = [ScriptedPeer(Publisher(), name="shop") for _ in range(3)]
    async with Mesh(*peers) as mesh:
        for peer in peers[:2]:
            peer.stop_listening()
        async with mesh.requester.subscribe("shop", ["a"]) as values:
            assert values.address == peers[2].address


async def fails(mesh: Mesh, service: Any, **options: Any) -> ScampError:
    with pytest.raises(ScampError) as caught:
        async with mesh.requester.subscribe(service, ["a"], **options):
            pass
    return caught.value


async def test_a_service_that_is_not_there_is_told_at_once() -> None:
    peer = ScriptedPeer(Publisher())
    async with Mesh(peer) as mesh:
        assert isinstance(await fails(mesh, "nobody"), UnknownService)
        assert isinstance(await fails(mesh, "back:peer"), UnknownService)
        peer.stop_listening()
        assert isinstance(await fails(mesh, "peer"), ConnectFailed)
        peer.weight = 0
        mesh.announce(peer)
        assert isinstance(await fails(mesh, "peer"), NoUsableInstance)


async def test_nothing_is_said_to_a_service_with_the_wrong_certificate() -> None:
    peer = ScriptedPeer(Publisher(), shows=make_identity(1))
    async with Mesh(peer) as mesh:
        assert isinstance(await fails(mesh, "peer"), FingerprintMismatch)
        assert peer.bytes_received == 0


async def test_services_that_cut_the_connection_do_no_subscriptions() -> None:
    peer = ScriptedPeer(manners=GO)
    async with Mesh(peer) as mesh:
        error = await fails(mesh, "peer")
        assert isinstance(error, SubscriptionRefused)
        assert "does not do subscriptions" in str(error)
        assert peer.upset["type"] == 3
        assert peer.pings == 0


async def test_a_peer_that_is_known_to_renumber_is_not_asked() -> None:
    """Services in Go close the connection when they are sent a type that they do not know."""
    go = ScriptedPeer(manners=GO, name="shop")
    async with Mesh(go) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        error = await fails(mesh, "shop")
        assert isinstance(error, SubscriptionRefused)
        assert "does not do subscriptions" in str(error)
        assert not go.upset
        other = ScriptedPeer(Publisher(), name="shop")
        async with other:
            mesh.announce(other)
            for _ in range(5):
                async with mesh.requester.subscribe("shop", ["a"]) as values:
                    assert values.address == other.address
            mesh.remove(other)
        assert not go.upset


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        (Publisher(answer=b"false"), SubscriptionRefused, "refuses"),
        (Publisher(answer=b"yes"), SubscriptionRefused, "refuses"),
        (Publisher(error="not served"), SubscriptionRefused, "not served"),
        (echo, SubscriptionRefused, "as to a request"),
        (Publisher(answer=None), ReplyTimeout, "0.2 s"),
        (silent, ReplyTimeout, "0.2 s"),
    ],
)
async def test_a_service_that_does_not_want_it(
    script: Publisher, kind: type[ScampError], text: str
) -> None:
    timeout = 0.2 if kind is ReplyTimeout else 10.0
    async with Mesh(ScriptedPeer(script)) as mesh:
        error = await fails(mesh, "peer", timeout=timeout)
        assert isinstance(error, kind)
        assert text in str(error)


@pytest.mark.parametrize("codes", [[], ["x"] * 11, [7], "price", ["\ud800"]])
async def test_codes_that_cannot_be_asked_for(codes: Any) -> None:
    async with Mesh() as mesh:
        with pytest.raises(LocalProtocolError):
            mesh.requester.subscribe("peer", codes)


async def test_an_instance_may_be_named_by_announcement_or_address() -> None:
    peer = ScriptedPeer(Publisher())
    async with Mesh() as mesh, peer:
        one = peer.service()
        async with mesh.requester.subscribe(one, ["a"]) as values:
            assert values.address == peer.address
        place = (peer.host, peer.port, one.fingerprint)
        async with mesh.requester.subscribe(place, ["a"]) as values:
            assert values.address == peer.address
        wrong = (peer.host, peer.port, make_identity(1).fingerprint)
        assert isinstance(await fails(mesh, wrong), FingerprintMismatch)


# -- limits -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "limit"), [("MAX_SUBSCRIBED_KEYS", 10), ("MAX_SUBSCRIBED", 1000)])
async def test_values_are_bounded(monkeypatch: pytest.MonkeyPatch, name: str, limit: int) -> None:
    monkeypatch.setattr(picture, name, limit)
    publisher = Publisher({"a": {str(number): "x" * 90 for number in range(10)}})
    async with Mesh(ScriptedPeer(publisher)) as mesh:
        async with mesh.requester.subscribe("peer", ["a"]) as values:
            for number in range(20):
                publisher.put("a", "0", "x" * number)
            publisher.put("a", "more", "x" * 200)
            await until(lambda: isinstance(values.last_error, RemoteProtocolError))
        assert isinstance(await fails(mesh, "peer"), RemoteProtocolError)


async def test_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_SUBSCRIBED", 300_000)
    publisher = Publisher()
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        publisher.send(b" " * 300_001)
        await until(lambda: values.stats.losses == 1)
        await values.wait_ready()
        (connection,) = peer.connections
        connection.open({"type": "event"})  # which does not end, so the others wait for it
        for _ in range(7):
            publisher.send(b" " * 60_000)
        await until(lambda: values.stats.losses == 2)


async def test_messages_that_nobody_asked_for_are_thrown_away() -> None:
    publisher = Publisher()
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        (connection,) = peer.connections
        for header in (
            {"type": "request", "request_id": 1, "action": "a.b"},
            {"type": "strange"},
            {"type": "reply", "request_id": 1},
            {"type": "subscribe_done", "request_id": 1},
        ):
            message = connection.open(header)
            await message.write(b"{}")
            message.end()
        publisher.put("a", "k", 1)
        await changes(values, 1)
        assert values.stats.losses == 0


# -- the other direction, and the end ---------------------------------------------------


async def test_the_service_can_be_told_something() -> None:
    publisher = Publisher()
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        await values.notify({"seen": [1, None]})
        await values.notify("x" * 200_000)
        await until(lambda: len(publisher.notices) == 2)
        assert publisher.notices == [{"seen": [1, None]}, "x" * 200_000]
        for data in (object(), "x" * MAX_CLIENT_MESSAGE):
            with pytest.raises(LocalProtocolError):
                await values.notify(data)
        peer.stop_listening()
        await peer.cut()
        await until(lambda: not values.ready)
        with pytest.raises(ConnectionLost) as caught:
            await values.notify(1)
        assert not caught.value.written


async def test_a_notice_just_before_the_end_arrives() -> None:
    publisher = Publisher()
    async with Mesh(ScriptedPeer(publisher)) as mesh:
        async with mesh.requester.subscribe("peer", ["a"]) as values:
            await values.notify("last")
        await until(lambda: publisher.notices == ["last"])


async def test_closing_ends_the_loop_and_those_who_wait() -> None:
    peer = ScriptedPeer(Publisher())
    async with Mesh(peer) as mesh:
        values = mesh.requester.subscribe("peer", ["a"])
        await values.start()

        async def follow() -> list[Changed]:
            return [change async for change in values]

        loop = asyncio.create_task(follow())
        await asyncio.sleep(0)
        await values.close()
        assert await loop == []
        await peer.until(lambda: not peer.connections)
        with pytest.raises(ConnectionLost):
            await values.wait_ready()
        with pytest.raises(ConnectionLost):
            await values.notify(1)
        await values.close()
        with pytest.raises(LocalProtocolError):
            await values.start()


async def test_one_that_was_not_started_does_not_wait_for_ever() -> None:
    async with Mesh(ScriptedPeer(Publisher())) as mesh:
        values = mesh.requester.subscribe("peer", ["a"])
        for use in (anext(values), values.wait_ready()):
            with pytest.raises(LocalProtocolError, match="async with"):
                await use
        await values.close()
        assert [change async for change in values] == []
        with pytest.raises(LocalProtocolError, match="closed"):
            await values.start()


async def test_closing_twice_at_once_waits_for_the_connection_both_times() -> None:
    peer = ScriptedPeer(Publisher())
    async with Mesh(peer) as mesh:
        values = mesh.requester.subscribe("peer", ["a"])
        await values.start()
        assert values._feed is not None
        channel = values._feed._channel
        assert channel is not None

        async def close() -> ChannelState:
            await values.close()
            return channel.state

        first = asyncio.create_task(close())
        await turns(lambda: channel.state is ChannelState.CLOSING)
        assert await close() is ChannelState.CLOSED
        assert await first is ChannelState.CLOSED


async def test_a_bounded_number_of_instances_that_were_tried_in_vain_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscription, "RESUBSCRIBE_MAX", 0.0)
    monkeypatch.setattr(subscription, "MAX_TRIED", 5)
    peers = [ScriptedPeer(Publisher(), name="shop") for _ in range(12)]
    async with Mesh(*peers) as mesh, mesh.requester.subscribe("shop", ["a"]) as values:
        for peer in peers:
            await peer.stop()
        remembered: set[int] = set()

        def tried() -> bool:
            remembered.add(len(values._tried))
            return values.stats.failures > 50

        await until(tried)
        assert max(remembered) == 5


async def test_news_are_changes_and_losses_and_returns_and_the_end() -> None:
    publisher = Publisher({"a": {"x": 1}})
    peer = ScriptedPeer(publisher)
    async with Mesh(peer) as mesh:
        values = mesh.requester.subscribe("peer", ["a"])
        with pytest.raises(LocalProtocolError):
            await values.wait_news(ready=False)
        async with values:
            assert await values.wait_news(ready=True)
            assert await changes(values, 1) == [Changed("a", "x", 1)]
            waiting = asyncio.create_task(values.wait_news(ready=True))
            await until(lambda: values.ready)
            assert not waiting.done()
            publisher.put("a", "x", 2)
            assert await waiting
            assert await changes(values, 1) == [Changed("a", "x", 2)]
            waiting = asyncio.create_task(values.wait_news(ready=True))
            await asyncio.sleep(0)
            await peer.stop()
            assert await waiting
            assert (values.ready, values.waiting) == (False, 0)
            waiting = asyncio.create_task(values.wait_news(ready=False))
            again = ScriptedPeer(Publisher({"a": {"x": 2}}))
            async with again:
                mesh.announce(again)
                mesh.remove(peer)
                assert await waiting
                assert (values.ready, values.waiting) == (True, 0)
                waiting = asyncio.create_task(values.wait_news(ready=True))
                await asyncio.sleep(0)
                await values.close()
                assert not await waiting


async def test_instances_that_are_not_trusted_do_not_exist() -> None:
    good = ScriptedPeer(Publisher({"a": {"x": 1}}), actions=("Good.one",))
    bad = ScriptedPeer(Publisher({"a": {"x": 2}}), weight=1000, actions=("Bad.one",))

    def trusted(service: Announcement) -> bool:
        return service.actions[0].namespace == "Good"

    async with Mesh(good, bad) as mesh:
        source = NamedSource(mesh.registry, "peer", trusted)
        assert source.announced
        for _ in range(5):
            async with mesh.requester.subscribe(source, ["a"]) as values:
                assert values.value("a", "x") == 1
        mesh.remove(good)
        assert not source.announced
        with pytest.raises(UnknownService):
            await mesh.requester.subscribe(source, ["a"]).start()


async def test_a_cancelled_wait_loses_no_change() -> None:
    publisher = Publisher()
    async with (
        Mesh(ScriptedPeer(publisher)) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        waiting = asyncio.create_task(anext(values))
        await asyncio.sleep(0)
        waiting.cancel()
        publisher.put("a", "k", 1)
        await until(lambda: values.waiting == 1)
        assert await changes(values, 1) == [Changed("a", "k", 1)]


@pytest.mark.parametrize("after", ["connect", "subscribe"])
async def test_giving_up_the_start_leaves_nothing_behind(after: str) -> None:
    peer = ScriptedPeer(silent)
    async with Mesh(peer) as mesh:
        values = mesh.requester.subscribe("peer", ["a"])
        starting = asyncio.create_task(values.start())
        if after == "subscribe":
            await peer.until(lambda: peer.requests == 1)
        else:
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await peer.until(lambda: not peer.connections)


async def test_the_start_can_be_cancelled_at_every_step() -> None:
    """At the first turn of the loop, the second, … until it is ready before the cancel."""
    peer = ScriptedPeer(Publisher({"a": {"k": 1}}))
    async with Mesh(peer) as mesh:
        steps, ready = 0, False
        while not ready:
            values = mesh.requester.subscribe("peer", ["a"])
            starting = asyncio.create_task(values.start())
            for _ in range(steps):
                await asyncio.sleep(0)
            ready = starting.done()
            starting.cancel()
            await asyncio.wait((starting,))
            assert ready or starting.cancelled()
            await values.close()
            assert values._task is None or values._task.done()
            steps += 1
        assert steps > 5
        await peer.until(lambda: not peer.connections)
        assert peer.protocol_errors == []


async def test_it_can_be_closed_between_attempts() -> None:
    peer = ScriptedPeer(Publisher())
    async with Mesh(peer) as mesh, mesh.requester.subscribe("peer", ["a"]) as values:
        peer.stop_listening()
        await peer.cut()
        await until(lambda: values.stats.failures > 0)


# -- with our own services --------------------------------------------------------------


@pytest.fixture
def make_service() -> Callable[[], Service]:
    def make() -> Service:
        identity: TestIdentity = make_identity()
        return Service("shop", key=identity.key, certificate=identity.certificate)

    return make


async def test_a_subscriber_follows_a_service_over_its_restart(
    make_service: Callable[[], Service],
) -> None:
    service = make_service()
    service.publish("price", "apple", 3)
    await service.start(port=0)
    service.publish("announce", "", service.announcement().decode())
    async with Mesh(service, options=ClientOptions()) as mesh:
        async with mesh.requester.subscribe("shop", ["price", "announce"]) as values:
            assert values.value("price", "apple") == 3
            assert service.identity in values.value("announce")
            await changes(values, 2)
            service.publish("price", "pear", 4)
            service.publish("price", "apple", None)
            assert await changes(values, 2) == [
                Changed("price", "pear", 4),
                Changed("price", "apple", None),
            ]
            mesh.remove(service)
            await service.stop(grace=1)
            again = make_service()
            again.publish("price", "pear", 5)
            await again.start(port=0)
            mesh.announce(again)
            found = {(change.code, change.key): change.value for change in await changes(values, 2)}
            assert found["price", "pear"] == 5
            await until(lambda: again.subscribers == 1)
        await until(lambda: again.subscribers == 0)
        await again.stop(grace=1)


async def test_a_service_hears_its_subscribers(make_service: Callable[[], Service]) -> None:
    service = make_service()
    heard: list[Any] = []

    @service.on_notify
    def on_notify(peer: str, data: Any) -> None:
        heard.append(data)

    await service.start(port=0)
    async with Mesh(service) as mesh:
        async with mesh.requester.subscribe("shop", ["a"]) as values:
            await values.notify({"x": 1})
        await until(lambda: heard == [{"x": 1}])
    await service.stop(grace=1)
