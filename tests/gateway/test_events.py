"""Event streams on real sockets, from a real service: what a browser is told and when."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from eventstream import Browser, follow, make_shop, published

from fronted import Fronted
from gateway.events import values
from gateway.events.stream import StreamOptions
from gateway.strangers import is_trusted
from scamp.client import ClientOptions
from scamp.client.sources import NamedSource
from scamp.discovery import AuthorizedServices, DiscoveryStatus
from scamp.discovery.model import permitted
from scamp.testing import GO, ScriptedPeer, until
from scamp.testing.events import Publisher
from scamp.testing.scripts import echo

OPEN = ["shop", "peer"]
PRICES = "/api/events/shop?code=price"


def front_of(*services: object, **options: object) -> Fronted:
    return Fronted(*services, events_open=OPEN, **options)  # type: ignore[arg-type]


# -- what is told -----------------------------------------------------------------------


async def test_first_a_snapshot_then_changes() -> None:
    async with published(price={"apple": 3, "pear": {"cents": 4}}) as shop, front_of(shop) as front:
        browser = await follow(front, "/api/events/Main:Shop?code=stock&code=price")
        assert browser.status == 200
        assert browser.headers["Content-Type"] == "text/event-stream"
        assert browser.headers["Cache-Control"] == "no-store"
        assert browser.headers["X-Accel-Buffering"] == "no"
        (first,) = await browser.take(1)
        assert 2000 <= browser.retry <= 5000
        assert first.name == "snapshot"
        assert first.data == {
            "service": "Shop",
            "sector": "Main",
            "codes": {"price": {"apple": 3, "pear": {"cents": 4}}, "stock": {}},
        }
        shop.publish("price", "fig", 5)
        assert (await browser.take(1))[0].data == {"code": "price", "key": "fig", "value": 5}
        shop.publish("other", "fig", 5)
        shop.publish("price", "apple", None)
        assert (await browser.take(1))[0].data == {"code": "price", "key": "apple", "deleted": True}
        shop.publish("stock", "", "x\n\ny\r")
        assert (await browser.take(1))[0].data == {"code": "stock", "key": "", "value": "x\n\ny\r"}
        assert front.front.in_flight == 0, "a stream takes no place of a request"
        await browser.close()
        (line,) = await front.log.until(1)
        assert (line["route"], line["status"]) == ("/api/events/{service}", 200)
        assert (line["sector"], line["action"]) == ("Main", "Shop._events")
        assert line["cause"] == "client_left"
        assert line["bytes_out"] > 100


async def test_every_event_has_an_id_of_its_own() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        shop.publish("price", "apple", 2)
        shop.publish("price", "pear", 2)
        ids = [browser.last_id, *[event.id for event in await browser.take(2)]]
        assert len(set(ids)) == 3


async def test_streams_of_the_same_share_a_subscription_which_goes_after_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.events.hub.LINGER", 0.0)
    async with published(price={"apple": 1}, stock={"apple": 9}) as shop, front_of(shop) as front:
        targets = (
            PRICES,
            "/api/events/SHOP?code=price&code=price",
            "/api/events/main:shop?code=price",
        )
        browsers = await asyncio.gather(*(follow(front, target) for target in targets))
        for browser in browsers:
            await browser.until({"price": {"apple": 1}})
        assert shop.subscribers == 1
        other = await follow(front, "/api/events/shop?code=stock")
        await other.until({"stock": {"apple": 9}})
        assert shop.subscribers == 2
        assert front.hub.streams == 4
        for browser in browsers[1:]:
            await browser.close()
        await until(lambda: front.hub.streams == 2)
        shop.publish("price", "apple", 2)
        await browsers[0].until({"price": {"apple": 2}})
        await browsers[0].close()
        await other.close()
        await until(lambda: shop.subscribers == 0)
        await until(lambda: front.hub.states == {"ready": 0, "stale": 0})
        assert front.hub.streams == 0
        await until(lambda: not front.hub.connections)
        assert not front.hub._timers


async def test_a_subscription_outlives_its_last_browser_for_a_while() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        await browser.close()
        await until(lambda: front.hub.streams == 0)
        shop.publish("price", "apple", 2)
        again = await follow(front, PRICES, [("Last-Event-ID", browser.last_id)])
        assert (await again.take(1))[0].data == {"code": "price", "key": "apple", "value": 2}
        assert shop.subscribers == 1
        assert not front.hub._timers, "somebody is there again"


# -- coming back ------------------------------------------------------------------------


async def resumed(front: Fronted, browser: Browser, *, query: bool = False) -> Browser:
    if query:
        return await follow(front, f"{PRICES}&last_event_id={browser.last_id}")
    return await follow(front, PRICES, [("Last-Event-ID", browser.last_id)])


@pytest.mark.parametrize("query", [False, True])
async def test_who_comes_back_gets_what_was_missed_and_no_more(query: bool) -> None:
    async with published(price={"apple": 1, "pear": 1}) as shop, front_of(shop) as front:
        staying, browser = await follow(front, PRICES), await follow(front, PRICES)
        await browser.take(1)
        await browser.close()
        shop.publish("price", "fig", 1)
        shop.publish("price", "pear", None)
        shop.publish("price", "fig", 2)
        await staying.until({"price": {"apple": 1, "fig": 2}})
        again = await resumed(front, browser, query=query)
        events = await again.take(3)
        assert [event.data for event in events] == [
            {"code": "price", "key": "pear", "deleted": True},
            {"code": "price", "key": "fig", "value": 2},
            {},
        ]
        assert events[-1].name == "ready"
        # The last event of each kind is one to go on from.
        shop.publish("price", "apple", 9)
        await staying.until({"price": {"apple": 9, "fig": 2}})
        once_more = await resumed(front, again, query=query)
        assert (await once_more.take(1))[0].data["key"] == "apple"


async def test_the_header_is_newer_than_the_query() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browser = await follow(front, PRICES)
        (first,) = await browser.take(1)
        shop.publish("price", "apple", 2)
        (second,) = await browser.take(1)
        again = await follow(
            front, f"{PRICES}&last_event_id={first.id}", [("Last-Event-ID", second.id)]
        )
        assert (await again.take(1))[0].name == "ready"


async def test_who_was_away_for_too_long_gets_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_GONE", 2)
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        staying, browser = await follow(front, PRICES), await follow(front, PRICES)
        await browser.take(1)
        await browser.close()
        await staying.take(1)
        for number in range(3):
            shop.publish("price", str(number), 1)
            await staying.take(1)
            shop.publish("price", str(number), None)
            await staying.take(1)
        again = await resumed(front, browser)
        (event,) = await again.take(1)
        assert (event.name, event.data["codes"]) == ("snapshot", {"price": {"apple": 1}})


async def test_ids_of_another_gateway_or_other_codes_mean_a_snapshot() -> None:
    async with published(price={"apple": 1}, stock={"apple": 9}) as shop:
        async with front_of(shop) as front:
            browser = await follow(front, PRICES)
            await browser.take(1)
            other = await follow(
                front, "/api/events/shop?code=stock", [("Last-Event-ID", browser.last_id)]
            )
            assert (await other.take(1))[0].data["codes"] == {"stock": {"apple": 9}}
            wrong = await follow(front, PRICES, [("Last-Event-ID", "né'\"<x>")])
            assert (await wrong.take(1))[0].name == "snapshot"
        async with front_of(shop) as front:
            again = await resumed(front, browser)
            assert (await again.take(1))[0].name == "snapshot"


# -- the mesh's side --------------------------------------------------------------------


async def test_a_service_that_is_replaced_costs_nobody_the_stream() -> None:
    first = make_shop(price={"apple": 1, "pear": 1, "fig": 1})
    await first.start(port=0)
    async with front_of(first) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        front.mesh.remove(first)
        await first.stop(grace=0)
        assert [event.name for event in await browser.take(1)] == ["stale"]
        late = await follow(front, PRICES)
        assert [event.name for event in await late.take(2)] == ["snapshot", "stale"]
        assert late.values == browser.values
        assert 'event_subscriptions{state="stale"} 1.0' in front.scrape()
        async with published(price={"apple": 2, "pear": 1, "kiwi": 5}) as second:
            front.mesh.announce(second)
            events = [await one.take(4) for one in (browser, late)]
            assert events[0] == events[1]
            changes, last = events[0][:3], events[0][3]
            assert last.name == "ready"
            assert {(one.name, one.data["key"], one.data.get("value")) for one in changes} == {
                ("change", "apple", 2),
                ("change", "fig", None),
                ("change", "kiwi", 5),
            }
            again = await resumed(front, browser)
            assert [event.name for event in await again.take(1)] == ["ready"]


async def test_ready_is_told_when_everything_that_was_missed_has_been() -> None:
    old = {str(number): 1 for number in range(1700)}
    first = make_shop(price=old)
    await first.start(port=0)
    async with front_of(first) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        front.mesh.remove(first)
        await first.stop(grace=0)
        assert [event.name for event in await browser.take(1)] == ["stale"]
        async with published(price=dict.fromkeys(old, 2)) as second:
            front.mesh.announce(second)
            while not browser.ready:
                await browser.take(1)
            assert browser.values == {"price": dict.fromkeys(old, 2)}


async def test_stale_is_told_again_to_who_comes_back() -> None:
    first = make_shop(price={"apple": 1})
    await first.start(port=0)
    async with front_of(first) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        front.mesh.remove(first)
        await first.stop(grace=0)
        await browser.take(1)
        again = await resumed(front, browser)
        assert [event.name for event in await again.take(1)] == ["stale"]


@pytest.mark.parametrize(
    ("available", "status", "code"),
    [(True, 404, "unknown_service"), (False, 503, "discovery_unavailable")],
)
async def test_a_service_that_is_not_there(available: bool, status: int, code: str) -> None:
    async with front_of(status=DiscoveryStatus(loaded=True, stale=not available)) as front:
        answer = await front.request("GET", PRICES)
        assert (answer.status, answer.json()["code"]) == (status, code)
        assert ("Retry-After" in answer.headers) == (status == 503)
        assert not any(front.hub.states.values())


async def test_a_sector_that_is_not_exposed_is_not_there() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        answer = await front.request("GET", "/api/events/web:shop?code=price")
        assert (answer.status, answer.json()["code"]) == (404, "unknown_service")


@pytest.mark.parametrize("publisher", [Publisher(error="what?"), Publisher(answer=b"false")])
async def test_a_service_that_refuses(publisher: Publisher) -> None:
    async with front_of(ScriptedPeer(publisher)) as front:
        target = "/api/events/peer?code=price"
        answers = await asyncio.gather(*(front.request("GET", target) for _ in range(3)))
        for answer in answers:
            assert (answer.status, answer.json()["code"]) == (502, "subscription_refused")
            assert answer.headers["Proxy-Status"].startswith("scamp-gateway; error=")
        assert len(publisher.filters) <= 1, "asked once for all of them"
        assert front.hub.streams == 0
        assert (await front.request("GET", target)).status == 502, "and not again at once"
        assert len(publisher.filters) <= 1


async def test_a_service_that_does_no_subscriptions() -> None:
    async with front_of(ScriptedPeer(echo, manners=GO)) as front:
        answer = await front.request("GET", "/api/events/peer?code=price")
        assert (answer.status, answer.json()["code"]) == (502, "subscription_refused")


async def test_what_has_failed_is_tried_again_after_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.events.hub.FAILED_LINGER", 0.0)
    publisher = Publisher({"price": {"apple": 1}}, answer=b"false")
    async with front_of(ScriptedPeer(publisher)) as front:
        target = "/api/events/peer?code=price"
        assert (await front.request("GET", target)).status == 502
        await until(lambda: not any(front.hub.states.values()))
        publisher.answer = b"true"
        browser = await follow(front, target)
        await browser.until({"price": {"apple": 1}})


async def test_more_than_can_be_passed_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_VALUES", 3)
    async with (
        published(price={"a": 1, "b": 1}, stock=dict.fromkeys("abcd", 1)) as shop,
        front_of(shop) as front,
    ):
        answer = await front.request("GET", "/api/events/shop?code=stock")
        assert (answer.status, answer.json()["code"]) == (502, "too_many_values")
        browser = await follow(front, PRICES)
        await browser.take(1)
        shop.publish("price", "c", 1)
        shop.publish("price", "d", 1)
        while await browser.next() is not None:
            pass
        lines = await front.log.until(2)
        assert lines[1]["cause"] == "too_many_values"
        assert 'ended_total{reason="too_many_values"} 1.0' in front.scrape()


async def test_a_bug_ends_its_streams_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def put(*_: object) -> None:
        raise RuntimeError("a bug")

    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        monkeypatch.setattr(values.Values, "put", put)
        shop.publish("price", "apple", 2)
        assert await browser.next() is None
        (line,) = await front.log.until(1)
        assert line["cause"] == "lost"
        answer = await front.request("GET", "/api/events/shop?code=x&code=price")
        assert (answer.status, answer.json()["code"]) == (500, "internal_error")
        assert "a bug" not in answer.json()["detail"]
        assert any("events of shop failed" in record.message for record in caplog.records)


async def test_a_stranger_who_takes_the_name_of_a_service_is_not_listened_to() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        (service,) = front.mesh.registry.services()
        assert is_trusted(service)
        stranger, _ = permitted(service, AuthorizedServices.parse("").permits)
        assert stranger.actions, "what everybody may offer"
        assert not is_trusted(stranger)
        front.mesh.registry.apply(added=(stranger,))
        assert not NamedSource(front.mesh.registry, "shop", is_trusted).announced
        assert (await front.request("GET", PRICES)).json()["code"] == "unknown_service"


# -- quiet times ------------------------------------------------------------------------


async def test_comments_come_while_nothing_happens() -> None:
    async with (
        published(price={"apple": 1}) as shop,
        front_of(shop, stream=StreamOptions(heartbeat=0.02)) as front,
    ):
        browser = await follow(front, PRICES, [("X-SCAMP-Timeout", "0.01")])
        await browser.take(1)
        reading = asyncio.create_task(browser.next())
        await until(lambda: browser.comments >= 3)  # no deadline ends a stream
        shop.publish("price", "apple", 2)
        event = await reading
        assert event is not None
        assert event.data["value"] == 2


# -- HTTP -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
async def test_other_methods_are_refused(method: str) -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        answer = await front.request(method, PRICES)
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, OPTIONS"
        assert (await front.request("OPTIONS", PRICES)).headers["Allow"] == "GET, OPTIONS"


async def test_bad_requests_are_told_and_open_nothing() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        for target in (
            "/api/events/shop",
            "/api/events/shop?code=announce",
            "/api/events/a~1?code=x",
        ):
            answer = await front.request("GET", target)
            assert answer.status == 400
            assert answer.headers["Content-Type"] == "application/problem+json"
        assert (await front.request("GET", PRICES, body=b"x")).status == 400
        assert not any(front.hub.states.values())


async def test_http_1_0_has_its_stream_without_chunks() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        wire = await front.connect()
        wire.send("GET", PRICES, version="1.0")
        status, headers = await wire.head()
        assert status == 200
        assert "Transfer-Encoding" not in headers
        text = await wire.reader.readuntil(b'"apple":1}}}\n\n')
        assert text.startswith(b"retry: ")
        front.drain()
        assert (await wire.reader.read()) == b""


async def test_times_of_streams_are_in_no_histogram() -> None:
    async with published(price={"apple": 1}) as shop, front_of(shop) as front:
        browser = await follow(front, PRICES)
        await browser.take(1)
        text = front.scrape()
        assert "scamp_gateway_event_streams 1.0" in text
        assert 'scamp_gateway_event_subscriptions{state="ready"} 1.0' in text
        assert "scamp_gateway_requests_in_flight 0.0" in text
        await browser.close()
        await front.log.until(1)
        text = front.scrape()
        assert 'request_duration_seconds_count{action="_none"} 0.0' in text
        assert "scamp_gateway_own_duration_seconds_count 0.0" in text
        assert (
            'scamp_gateway_requests_total{action="_none",method="GET",source="gateway",'
            'status_class="2xx"} 1.0' in text
        )
        assert 'scamp_gateway_events_sent_total{event="snapshot"} 1.0' in text
        assert 'scamp_gateway_event_streams_ended_total{reason="client_left"} 1.0' in text
        assert "scamp_gateway_event_streams 0.0" in text


async def test_a_slow_service_is_waited_for_and_a_client_that_leaves_meanwhile_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.events.hub.LINGER", 0.0)
    publisher = Publisher({"price": {"apple": 1}}, answer=None)
    async with front_of(ScriptedPeer(publisher), client=ClientOptions(connect_timeout=5)) as front:
        wire = await front.connect()
        wire.send("GET", "/api/events/peer?code=price")
        await until(lambda: publisher.filters == [["price"]])
        assert (front.hub.streams, front.front.in_flight) == (1, 1)
        with contextlib.suppress(ConnectionError):
            await wire.close()
        await until(lambda: front.hub.streams == 0 and not front.hub.connections)
        (line,) = await front.log.until(1)
        assert (line["status"], line["cause"]) == (499, "client_left")
