"""Event streams at their limits: slow readers, too many of everything, and the end of a gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from eventstream import Browser, follow, published

from fronted import Fronted, Wire
from gateway.auth import Authenticator
from gateway.events import values
from gateway.events.hub import HubLimits
from gateway.events.stream import StreamOptions
from gateway.events.topic import Topic
from gateway.events.upstream import Upstream
from gateway.events.values import PIECE
from gateway.exchange import Exchange
from gateway.front import FrontOptions
from gateway.lifecycle import running
from gateway.problems import Problem
from scamp.server import Service
from scamp.testing import until
from scamp.tickets import TicketVerifier
from stand import stand

OPEN = ["shop"]
PRICES = "/api/events/shop?code=price"
LARGE = 200_000


def front_of(*services: Service, **options: object) -> Fronted:
    return Fronted(*services, events_open=OPEN, **options)  # type: ignore[arg-type]


async def drained_by_nobody(front: Fronted) -> socket.socket:
    """A client that asks and does not read; closed by the caller."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", front.port))
    await loop.sock_sendall(sock, f"GET {PRICES} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return sock


async def blocked(front: Fronted, shop: Service) -> Exchange:
    """Publish large values until a stream's client is found to take nothing."""
    for number in range(1000):
        shop.publish("price", "large", f"{number}".ljust(LARGE, "x"))
        await asyncio.sleep(0.002)
        for listener in front.hub._listeners():
            if listener.writing:
                exchange = getattr(listener.cut, "__self__", None)
                assert isinstance(exchange, Exchange)
                return exchange
    raise AssertionError("nothing is full")


def buffered(exchange: Exchange) -> int:
    transport = exchange.request.transport
    assert transport is not None
    size = transport.get_write_buffer_size()
    assert isinstance(size, int)
    return size


# -- slow readers -----------------------------------------------------------------------


async def test_one_who_does_not_read_holds_up_nobody_and_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(values, "MAX_GONE", 10)
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        sock = await drained_by_nobody(front)
        await until(lambda: front.hub.streams == 1)
        exchange = await blocked(front, shop)
        browser = await follow(front, PRICES)
        await browser.take(1)
        for number in range(2000):
            shop.publish("price", "apple", number)
            shop.publish("price", f"x{number % 7}", "y" * 1000)
        shop.publish("price", "last", 1)
        while "last" not in browser.values["price"]:
            await browser.take(1)
        assert browser.values["price"]["apple"] == 1999
        assert front.hub.streams == 2, "what is new of few keys is nothing to be dropped for"
        assert buffered(exchange) < 4 * PIECE, "and nothing waits for it but a position"
        for number in range(11):
            shop.publish("price", f"gone{number}", 1)
            await browser.take(1)
            shop.publish("price", f"gone{number}", None)
            await browser.take(1)
        await until(lambda: front.hub.streams == 1)
        (line,) = await front.log.until(1)
        assert (line["status"], line["cause"]) == (200, "backlog")
        assert 'event_streams_ended_total{reason="backlog"} 1.0' in front.scrape()
        shop.publish("price", "apple", "on")
        await browser.take(1)
        assert browser.values["price"]["apple"] == "on"
        sock.close()


async def test_a_large_value_is_handed_over_in_pieces() -> None:
    async with published(price={"apple": "x" * 3_000_000}) as shop, front_of(shop) as front:
        sock = await drained_by_nobody(front)
        await until(lambda: any(one.writing for one in front.hub._listeners()))
        exchange = await blocked(front, shop)
        assert 0 < buffered(exchange) < 4 * PIECE
        sock.close()


async def test_one_who_takes_nothing_for_the_idle_time_is_given_up() -> None:
    async with (
        published(price={"apple": 1}) as shop,
        front_of(
            shop, options=FrontOptions(body_idle=0.2), stream=StreamOptions(idle=0.2)
        ) as front,
    ):
        sock = await drained_by_nobody(front)
        await until(lambda: front.hub.streams == 1)
        await blocked(front, shop)
        await until(lambda: front.hub.streams == 0)
        (line,) = await front.log.until(1)
        assert (line["status"], line["cause"]) == (200, "client_stalled")
        assert 'event_streams_ended_total{reason="client_stalled"} 1.0' in front.scrape()
        sock.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux")
async def test_the_kernel_gives_up_a_client_that_was_switched_off() -> None:
    async with (
        published(price={"apple": 1}) as shop,
        front_of(shop, stream=StreamOptions(idle=7)) as front,
    ):
        browser = await follow(front, PRICES)
        await browser.take(1)
        (listener,) = front.hub._listeners()
        exchange: Exchange = listener.cut.__self__  # type: ignore[attr-defined]
        transport = exchange.request.transport
        assert transport is not None
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 14_000


async def test_one_who_reads_and_missed_what_is_forgotten_gets_a_snapshot_in_its_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(values, "MAX_GONE", 5)
    fruit = {str(number): number for number in range(50)}
    async with published(price=fruit) as shop, front_of(shop) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        for key in fruit:  # all in one turn of the loop
            shop.publish("price", key, None)
        shop.publish("price", "last", 1)
        await browser.until({"price": {"last": 1}})
        assert 'events_sent_total{event="snapshot"} 2.0' in front.scrape()


async def test_a_flood_of_keys_and_changes_ends_in_the_same_picture_for_all() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browsers = [await follow(front, PRICES) for _ in range(60)]
        for browser in browsers:
            await browser.take(1)
        truth = {"apple": 1}
        for number in range(8000):
            key = f"k{number % 3000}"
            shop.publish("price", key, number)
            truth[key] = number
            if number % 1000 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*(browser.until({"price": truth}) for browser in browsers))
        assert front.hub.states == {"ready": 1, "stale": 0}


# -- too many ---------------------------------------------------------------------------


async def refused(front: Fronted, target: str = PRICES) -> str:
    answer = await front.request("GET", target)
    assert (answer.status, answer.json()["code"]) == (503, "saturated")
    assert answer.headers["Retry-After"] == "5"
    return str(answer.json()["detail"])


async def test_streams_are_limited_in_all() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop, hub=HubLimits(2)) as front:
        first, _ = await follow(front, PRICES), await follow(front, "/api/events/shop?code=x")
        await first.take(1)
        await until(lambda: front.hub.streams == 2)
        assert await refused(front) == "Too many event streams are open."
        await first.close()
        await until(lambda: front.hub.streams == 1)
        assert (await follow(front, PRICES)).status == 200


async def test_streams_of_the_same_are_limited() -> None:
    limits = HubLimits(streams_per_subscription=1)
    async with published(price={"apple": 1}) as shop, front_of(shop, hub=limits) as front:
        await (await follow(front, PRICES)).take(1)
        assert await refused(front) == "Too many event streams of shop are open."
        assert (await follow(front, "/api/events/shop?code=other")).status == 200


async def test_one_caller_cannot_take_all_places(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    auth = Authenticator("verify", TicketVerifier([ticket_key.public_key()]))
    limits = HubLimits(streams_per_caller=2)
    async with (
        published(price={"apple": 1}) as shop,
        front_of(shop, hub=limits, auth=auth) as front,
    ):
        first = await follow(front, PRICES)
        await follow(front, PRICES)
        refused = await front.request("GET", PRICES)
        assert (refused.status, refused.json()["code"]) == (503, "saturated")
        assert "The caller" in refused.json()["detail"]
        # A good ticket is another caller, at the same address; each user is one.
        seven = [("Authorization", f"Bearer {make_ticket(user=7)}")]
        await follow(front, PRICES, seven)
        await follow(front, PRICES, seven)
        assert (await front.request("GET", PRICES, seven)).status == 503
        await follow(front, PRICES, [("Authorization", f"Bearer {make_ticket(user=8)}")])
        await first.close()
        await until(lambda: front.hub.streams == 4)
        await follow(front, PRICES)
        assert set(map(len, front.hub._by_caller.values())) == {1, 2}
    assert front.hub._by_caller == {}, "nothing is kept of who has left"


async def test_one_caller_cannot_take_all_subscriptions() -> None:
    limits = HubLimits(subscriptions_per_caller=1)
    async with published(price={"apple": 1}) as shop, front_of(shop, hub=limits) as front:
        await follow(front, PRICES)
        refused = await front.request("GET", "/api/events/shop?code=stock")
        assert (refused.status, refused.json()["code"]) == (503, "saturated")
        assert refused.json()["detail"] == "The caller has too many different event streams open."
        await follow(front, PRICES)


async def test_subscriptions_are_limited_and_one_without_a_browser_makes_room() -> None:
    async with (
        published(price={"apple": 1}) as shop,
        front_of(shop, hub=HubLimits(subscriptions=1)) as front,
    ):
        browser = await follow(front, PRICES)
        await browser.take(1)
        other = "/api/events/shop?code=other"
        assert await refused(front, other) == "Too many different event streams are open."
        await browser.close()
        await until(lambda: front.hub.streams == 0)
        second = await follow(front, other)
        await second.take(1)
        assert len(front.hub._upstreams) == 1


async def test_a_flood_of_different_codes_opens_no_more_than_is_allowed() -> None:
    async with (
        published(price={"apple": 1}) as shop,
        front_of(shop, hub=HubLimits(subscriptions=3)) as front,
    ):

        async def look(number: int) -> int:
            browser = await follow(front, f"/api/events/shop?code={number}")
            assert len(front.hub._upstreams) <= 3
            assert len(front.hub._tasks) <= 6
            await browser.close()
            return browser.status

        statuses: list[int] = []
        for start in range(0, 200, 10):
            statuses += await asyncio.gather(*(look(start + n) for n in range(10)))
        assert set(statuses) == {200, 503}
        await until(lambda: front.hub.streams == 0 and len(front.hub._tasks) <= 3)
        assert shop.subscribers <= 6


async def test_subscriptions_that_are_slow_to_close_count_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = asyncio.Event()

    async def run(upstream: Upstream) -> None:
        upstream._opened.set()
        try:
            await asyncio.Event().wait()
        finally:
            await closed.wait()

    monkeypatch.setattr(Upstream, "run", run)
    async with (
        published(price={"apple": 1}) as shop,
        front_of(shop, hub=HubLimits(subscriptions=1)) as front,
    ):
        for code in ("a", "b"):
            front.hub.leave(await front.hub.join(Topic("main", "shop", (code,))))
        with pytest.raises(Problem) as caught:
            await front.hub.join(Topic("main", "shop", ("c",)))
        assert caught.value.kind.code == "saturated"
        closed.set()
        await until(lambda: not front.hub._tasks)
        front.hub.leave(await front.hub.join(Topic("main", "shop", ("c",))))


async def test_streams_take_no_place_of_requests() -> None:
    async with (
        published(price={"apple": 1}) as shop,
        front_of(shop, options=FrontOptions(max_in_flight=1)) as front,
    ):
        for _ in range(3):
            await (await follow(front, PRICES)).take(1)
        answer = await front.request("POST", "/api/shop.queue_depth")
        assert answer.status == 200


# -- the end ----------------------------------------------------------------------------


async def test_draining_ends_streams_in_good_order_and_sends_new_ones_elsewhere() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browsers: list[Browser] = []
        for _ in range(3):
            browsers.append(await follow(front, PRICES))
            await browsers[-1].take(1)
        front.drain()
        for browser in browsers:
            assert await browser.next() is None
            assert await browser.wire.ended()
        late = await front.request("GET", PRICES)
        assert late.status == 200
        assert late.headers["Content-Type"] == "text/event-stream"
        assert late.headers["Connection"] == "close"
        assert late.body.startswith(b"retry: ")
        assert b"data" not in late.body
        lines = await front.log.until(4)
        assert {line["cause"] for line in lines} == {"draining"}
        assert {line["status"] for line in lines} == {200}
        assert front.hub.streams == 0


async def test_draining_does_not_wait_for_who_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.events.hub.DRAIN_GRACE", 0.0)
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        sock = await drained_by_nobody(front)
        await until(lambda: front.hub.streams == 1)
        await blocked(front, shop)
        front.drain()
        await until(lambda: front.hub.streams == 0)
        (line,) = await front.log.until(1)
        assert line["cause"] == "draining"
        sock.close()


async def test_cutting_off_ends_streams_at_once() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        await front.stop()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await browser.next()
        (line,) = await front.log.until(1)
        assert line["cause"] == "stopping"


async def test_a_gateway_is_drained_when_its_streams_have_ended(tmp_path: Path) -> None:
    async with (
        stand(tmp_path) as mesh,
        running(mesh.loaded(events_open=("stand",), drain_limit=3600)) as gateway,
    ):
        mesh.service.publish("price", "apple", 1)
        wire = Wire(*await asyncio.open_connection("127.0.0.1", gateway.public.port))
        wire.send("GET", "/api/events/stand?code=price")
        browser = Browser(wire, *await wire.head())
        await browser.until({"price": {"apple": 1}})
        assert gateway.parts.busy
        assert gateway.parts.in_flight() == 0
        async with asyncio.timeout(30):
            await gateway.drain()
        assert not gateway.parts.busy
        assert await browser.next() is None
        await wire.close()
        body, _ = await gateway.parts.metrics("")
        assert b"scamp_gateway_event_streams_ended_total" in body
