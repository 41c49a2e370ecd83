"""What a service publishes reaches those who subscribed: all of it at first, then what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from scamp.config import ScampConf
from scamp.errors import LocalProtocolError
from scamp.limits import EVENT_SIZE, MAX_CLIENT_MESSAGE, MIB
from scamp.server import Request, Service, inbox, notices, subscriptions
from scamp.testing import TestPeer, make_identity, until
from scamp.wire import (
    EventHeader,
    Header,
    NotifyHeader,
    ReplyHeader,
    RequestHeader,
    SubscribeDoneHeader,
    SubscribeHeader,
)

Connect = Callable[[Service], Awaitable[TestPeer]]


async def send(client: TestPeer, header: Header, body: bytes) -> None:
    out = client.channel.open_message(header)
    await out.write(body)
    out.end()


async def subscribe(client: TestPeer, codes: object, request_id: int = 1) -> None:
    await send(client, SubscribeHeader(request_id), orjson.dumps(codes))


async def event(client: TestPeer) -> list[tuple[str, str, Any]]:
    message = await client.message()
    assert isinstance(message.header, EventHeader)
    records = orjson.loads(await message.read_all(100 * MIB))
    return [(record["code"], record["key"], record["value"]) for record in records]


async def done(client: TestPeer) -> tuple[object, object]:
    message = await client.message()
    assert isinstance(message.header, SubscribeDoneHeader)
    return message.header.request_id, orjson.loads(await message.read_all(10))


async def subscribed(
    client: TestPeer, codes: object, request_id: int = 1
) -> list[tuple[str, str, Any]]:
    await subscribe(client, codes, request_id)
    values = await event(client)
    assert await done(client) == (request_id, True)
    return values


async def test_a_subscriber_gets_the_values_of_its_codes_then_the_answer(
    service: Service, connect: Connect
) -> None:
    service.publish("price", "a", {"z": 1, "b": [True, None]})
    service.publish("price", "b", "é\n")
    service.publish("stock", "a", 7)
    service.publish("other", "a", 0)
    client = await connect(service)
    values = await subscribed(client, ["stock", "price"], 55)
    assert values == [
        ("stock", "a", 7),
        ("price", "a", {"z": 1, "b": [True, None]}),
        ("price", "b", "é\n"),
    ]
    assert service.subscribers == 1


async def test_where_nothing_is_published_an_empty_event_says_so(
    service: Service, connect: Connect
) -> None:
    assert await subscribed(await connect(service), ["price"]) == []


async def test_changes_of_one_turn_come_in_one_event_in_order_of_the_last_change(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    await subscribed(client, ["a", "b"])
    assert service.publish("a", "1", 1)
    assert service.publish("b", "2", 2)
    assert service.publish("c", "3", 3)
    assert service.publish("a", "1", 4)
    assert await event(client) == [("b", "2", 2), ("a", "1", 4)]
    assert service.publish("a", "1", None)
    assert await event(client) == [("a", "1", None)]


async def test_what_is_published_again_unchanged_is_not_sent(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    assert not service.publish("a", "none", None)
    service.publish("a", "1", {"x": 1, "y": 2})
    await subscribed(client, ["a"])
    assert not service.publish("a", "1", {"y": 2, "x": 1})
    assert service.publish("a", "1", {"y": True, "x": 1})
    assert service.publish("a", "2", 1)
    assert await event(client) == [("a", "1", {"y": True, "x": 1}), ("a", "2", 1)]


async def test_a_value_is_the_one_of_when_it_was_published(
    service: Service, connect: Connect
) -> None:
    value = [1]
    service.publish("a", "", value)
    value.append(2)
    assert await subscribed(await connect(service), ["a"]) == [("a", "", [1])]


async def test_a_later_filter_replaces_the_one_before(service: Service, connect: Connect) -> None:
    client = await connect(service)
    service.publish("b", "", 1)
    await subscribed(client, ["a"])
    assert await subscribed(client, ["b", "b"], 2) == [("b", "", 1)]
    service.publish("a", "", 1)
    service.publish("b", "", 2)
    assert await event(client) == [("b", "", 2)]


@pytest.mark.parametrize(
    "body",
    [b'"a"', b"{}", b"[1]", b"7", b"", b"[", b"[null]", orjson.dumps(["x"] * 11), b'["\xff"]'],
)
async def test_a_bad_filter_is_refused_and_ends_the_subscription(
    service: Service, connect: Connect, body: bytes
) -> None:
    client = await connect(service)
    await subscribed(client, ["a"])
    await send(client, SubscribeHeader("x"), body)
    assert await done(client) == ("x", False)
    assert service.subscribers == 0
    service.publish("a", "", 1)
    assert await subscribed(client, ["a"], 3) == [("a", "", 1)]


async def test_a_null_filter_ends_the_subscription(service: Service, connect: Connect) -> None:
    client = await connect(service)
    await subscribed(client, ["a"])
    await subscribe(client, None, 2)
    assert await done(client) == (2, True)
    assert service.subscribers == 0


async def test_a_subscription_that_is_broken_off_or_too_long_costs_nobody_anything(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    out = client.channel.open_message(SubscribeHeader(1))
    await out.write(b'["a"')
    out.fail("changed my mind")
    await send(client, SubscribeHeader(2), b'["' + b"x" * MAX_CLIENT_MESSAGE + b'"]')
    assert await done(client) == (2, False)
    assert await subscribed(client, ["a"], 3) == []


async def test_filters_count_in_the_order_in_which_they_were_begun(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    first = client.channel.open_message(SubscribeHeader(1))
    await subscribe(client, ["b"], 2)
    await first.write(b'["a"]')
    first.end()
    assert await event(client) == []
    assert await done(client) == (1, True)
    assert await event(client) == []
    assert await done(client) == (2, True)
    service.publish("a", "", 1)
    service.publish("b", "", 1)
    assert await event(client) == [("b", "", 1)]


async def test_more_is_cut_into_events_and_the_answer_comes_last(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    large = "x" * (EVENT_SIZE * 3)
    service.publish("a", "large", large)
    for number in range(30):
        service.publish("a", str(number), "y" * 10_000)
    await subscribe(client, ["a"])
    got: dict[str, object] = {}
    events = 0
    while True:
        message = await client.message()
        body = orjson.loads(await message.read_all(MIB))
        if isinstance(message.header, SubscribeDoneHeader):
            break
        events += 1
        got |= {record["key"]: record["value"] for record in body}
    assert got.pop("large") == large
    assert len(got) == 30
    assert 5 <= events <= 8


async def test_a_reader_that_is_slow_is_spared_what_is_out_of_date(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    service.publish("a", "big", "x" * (3 * EVENT_SIZE))
    await subscribe(client, ["a"])
    held = await client.message()  # nothing is read of it, so nothing is acknowledged
    for number in range(1000):
        service.publish("a", str(number % 5), number)
        if number % 100 == 0:
            await asyncio.sleep(0)
    service.publish("a", "0", None)
    assert len(orjson.loads(await held.read_all(MIB))) == 1
    assert await done(client) == (1, True)
    changed = await event(client)
    expected: list[tuple[str, str, Any]] = [("a", str(n), 995 + n) for n in range(1, 5)]
    assert changed == [*expected, ("a", "0", None)]


async def test_a_reader_that_takes_nothing_is_cut(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "SUBSCRIBER_PATIENCE", 0.05)
    client, other = await connect(service), await connect(service)
    await subscribed(other, ["a"])
    await subscribed(client, ["a"])
    service.publish("a", "big", "x" * (3 * EVENT_SIZE))
    held = await client.message()
    assert await event(other)
    await client.lost
    assert held.error is not None
    await until(lambda: service.subscribers == 1)
    service.publish("a", "big", None)
    assert await event(other) == [("a", "big", None)]


async def test_names_that_wait_for_a_reader_are_bounded(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MAX_BACKLOG", 100)
    client, other = await connect(service), await connect(service)
    service.publish("a", "big", "x" * (3 * EVENT_SIZE))
    await subscribe(client, ["a"])
    await client.message()
    await subscribed(other, ["b"])
    for number in range(101):
        service.publish("a", str(number), number)
        service.publish("a", str(number), None)
    await client.lost
    await until(lambda: service.subscribers == 1)


async def test_subscribers_are_bounded(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MAX_SUBSCRIBERS", 2)
    clients = [await connect(service) for _ in range(3)]
    for client in clients[:2]:
        await subscribed(client, ["a"])
    await subscribe(clients[2], ["a"])
    assert await done(clients[2]) == (1, False)
    await subscribed(clients[0], ["b"], 2)  # who is in stays in
    await clients[1].close()
    await until(lambda: service.subscribers == 1)
    await subscribed(clients[2], ["a"], 2)


async def test_what_is_published_is_bounded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "MAX_SUBDATA_VALUE", 50_000)
    monkeypatch.setattr(subscriptions, "MAX_SUBDATA", 100_000)
    monkeypatch.setattr(subscriptions, "MAX_SUBDATA_KEYS", 20)
    monkeypatch.setattr(subscriptions, "MAX_SUBDATA_CODES", 10)
    with pytest.raises(LocalProtocolError, match="50001 bytes"):
        service.publish("a", "", "x" * 49_999)
    for number in range(10):
        service.publish(f"c{number}", "", number)
    with pytest.raises(LocalProtocolError, match="codes"):
        service.publish("c10", "", 1)
    for number in range(10):
        service.publish("c0", f"k{number}", number)
    with pytest.raises(LocalProtocolError, match="20 values"):
        service.publish("c0", "more", 1)
    service.publish("c0", "k0", None)
    service.publish("c0", "k1", "x" * 49_000)
    service.publish("c0", "k2", "x" * 49_000)
    with pytest.raises(LocalProtocolError, match="100000 bytes"):
        service.publish("c0", "k3", "x" * 49_000)
    assert service.publish("c0", "k3", "x")
    service.publish("c9", "", None)
    assert service.publish("c10", "", 1)


@pytest.mark.parametrize(
    ("code", "key", "value"),
    [
        ("a", "b", object()),
        ("a", "b", {1: 2}),
        ("a", 7, 1),
        (None, "b", 1),
        ("a" * 2000, "b", 1),
        ("a", "\ud800", 1),
        ("a", "b", "\ud800"),
        ("a", "b", 1 << 70),
    ],
)
def test_what_cannot_be_sent_cannot_be_published(
    service: Service, code: Any, key: Any, value: object
) -> None:
    with pytest.raises(LocalProtocolError):
        service.publish(code, key, value)


async def test_a_subscription_keeps_a_connection_open_and_is_no_request(connect: Connect) -> None:
    identity = make_identity()
    service = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        config=ScampConf.parse("beepish.server_timeout = 1"),
    )
    idle, client = await connect(service), await connect(service)
    await subscribed(client, ["a"])
    assert service.in_flight == service.requests == 0
    await idle.lost
    await subscribe(client, None, 2)  # that it can be sent shows that the connection is there
    assert await done(client) == (2, True)
    await client.lost


async def test_subscribers_are_told_the_last_news_when_the_service_stops(
    service: Service, connect: Connect
) -> None:
    client = await connect(service)
    await subscribed(client, ["a"])
    service.publish("a", "", "bye")
    await service.stop(grace=5)
    assert await event(client) == [("a", "", "bye")]
    await client.lost
    assert service.subscribers == 0


async def test_a_subscriber_that_does_not_read_does_not_hold_up_the_end(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scamp.server.traffic.CLOSE_TIMEOUT", 0.1)
    client = await connect(service)
    service.publish("a", "big", "x" * (3 * EVENT_SIZE))
    await subscribe(client, ["a"])
    await client.message()
    await service.stop(grace=5)
    await client.lost


async def test_the_announcement_is_published(service: Service, connect: Connect) -> None:
    client = await connect(service)
    record = service.announcement().decode()
    service.publish("announce", "", record)
    values = await subscribed(client, ["announce"])
    assert values == [("announce", "", record)]


# -- who may ----------------------------------------------------------------------------


async def test_the_service_may_say_who_may_subscribe(service: Service, connect: Connect) -> None:
    asked = []

    @service.may_subscribe
    def check(peer: str, codes: tuple[str, ...], ticket: str | None) -> bool:
        asked.append((peer, codes, ticket))
        if codes == ("fail",):
            raise ValueError
        return codes != ("secret",)

    client = await connect(service)
    await send(client, SubscribeHeader(1, {"ticket": "T"}), b'["open","more"]')
    assert await event(client) == []
    assert await done(client) == (1, True)
    for number, code in enumerate(("secret", "fail"), 2):
        await subscribe(client, [code], number)
        assert await done(client) == (number, False)
    assert service.subscribers == 0
    assert [one[1:] for one in asked] == [
        (("open", "more"), "T"),
        (("secret",), None),
        (("fail",), None),
    ]
    assert asked[0][0].startswith("127.0.0.1:")


# -- notices ----------------------------------------------------------------------------


async def test_notices_reach_the_handler_in_order_and_broken_ones_cost_only_themselves(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []

    @service.on_notify
    async def on_notify(peer: str, data: Any) -> None:
        assert peer.startswith("127.0.0.1:")
        await asyncio.sleep(0)
        heard.append(data)
        if data == "fail":
            raise ValueError
        if data == "cancelled":
            raise asyncio.CancelledError  # as when a task that it waits for is

    client = await connect(service)
    for body in (b"1", b"not JSON", b'"fail"', b'"cancelled"', b"x" * (MAX_CLIENT_MESSAGE + 1)):
        await send(client, NotifyHeader(), body)
    await send(client, NotifyHeader(), b'{"a":[]}')
    out = client.channel.open_message(NotifyHeader())
    await out.write(b"6")
    out.fail("no")
    await send(client, NotifyHeader(), b"7")
    await until(lambda: len(heard) == 5)
    assert heard == [1, "fail", "cancelled", {"a": []}, 7]
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 5


async def test_a_notice_is_handled_though_its_sender_has_gone_and_the_service_stops(
    service: Service, connect: Connect
) -> None:
    heard: list[object] = []
    go_on = asyncio.Event()

    @service.on_notify
    async def on_notify(peer: str, data: Any) -> None:
        await go_on.wait()
        heard.append(data)

    client = await connect(service)
    for number in range(3):
        await send(client, NotifyHeader(), b"%d" % number)
    await client.close()
    await until(lambda: service.notices.held == 3)
    stopping = asyncio.create_task(service.stop(grace=10))
    await until(lambda: service.stopping)
    go_on.set()
    await stopping
    assert heard == [0, 1, 2]


async def test_a_handler_that_never_ends_is_stopped_with_the_service(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    @service.on_notify
    async def on_notify(peer: str, data: Any) -> None:
        await asyncio.Event().wait()

    client = await connect(service)
    for number in range(3):
        await send(client, NotifyHeader(), b"%d" % number)
    await until(lambda: service.notices.held == 3)
    await service.stop(grace=0)
    assert (service.notices.held, service.notices.dropped) == (0, 3)
    assert "3 notify messages of 127.0.0.1:" in caplog.text


async def test_notices_that_wait_are_bounded(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "MAX_NOTICES_PER_CONNECTION", 10)
    monkeypatch.setattr(notices, "MAX_NOTICES", 15)
    go_on = asyncio.Event()
    heard: list[object] = []

    @service.on_notify
    async def on_notify(peer: str, data: Any) -> None:
        await go_on.wait()
        heard.append(data)

    clients = [await connect(service), await connect(service)]
    for client in clients:
        for number in range(30):
            await send(client, NotifyHeader(), b"%d" % number)
    await until(lambda: service.notices.held + service.notices.dropped == 60)
    assert service.notices.held == 15
    go_on.set()
    await until(lambda: service.notices.held == 0)
    assert heard.count(0) == 2
    assert len(heard) == 15


async def test_bodies_that_do_not_end_are_bounded(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_CLIENT_MESSAGES", 100_000)

    @service.action("a.b", flags="noauth")
    async def action(request: Request) -> object:
        return 1

    client, other = await connect(service), await connect(service)
    client.channel.open_message(NotifyHeader())
    for _ in range(100):
        client.channel.open_message(SubscribeHeader(1)).end()
    await client.lost
    reply = await other.call(RequestHeader("a.b", 1))
    assert isinstance(reply.header, ReplyHeader)
    assert not reply.header.failed
