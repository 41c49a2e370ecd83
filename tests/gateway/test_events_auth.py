"""Who may follow what: subscriptions carry no ticket, so the gateway alone decides."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from eventstream import follow, published

from fronted import Fronted
from gateway.auth import Authenticator
from gateway.cors import Cors
from gateway.credentials import AuthMode, Credentials
from gateway.events.stream import StreamOptions
from gateway.front import FrontOptions
from scamp.authz import AuthzSource
from scamp.tickets import TicketVerifier

PRICES = "/api/events/Shop?code=price"
TABLE = b'{"shop._EVENTS": [1], "_NAMES": [null, "watch_shop"]}'

Make = Callable[..., str]


async def table() -> bytes:
    return TABLE


async def empty() -> bytes:
    return b"{}"


async def no_table() -> bytes:
    raise ConnectionRefusedError("Auth is away")


@pytest.fixture
def verifier(ticket_key: RSAPrivateKey) -> TicketVerifier:
    return TicketVerifier([ticket_key.public_key()])


def bearer(ticket: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {ticket}")]


async def test_enforce_takes_the_privileges_of_the_pseudo_action(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator("enforce", verifier, AuthzSource(table))
    async with published(price={"apple": 1}) as shop, Fronted(shop, auth=auth) as front:
        answer = await front.request("GET", PRICES)
        assert (answer.status, answer.json()["code"]) == (401, "ticket_missing")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["action"] == "Shop._events"
        answer = await front.request("GET", PRICES, bearer(make_ticket((1,))[:-5] + "xxxxx"))
        assert (answer.status, answer.json()["code"]) == (401, "ticket_invalid")
        answer = await front.request("GET", PRICES, bearer(make_ticket((2, 3))))
        assert (answer.status, answer.json()["code"]) == (403, "privilege_missing")
        assert "watch_shop" in answer.json()["detail"]
        assert not any(front.hub.states.values()), "who may not causes nothing in the mesh"
        browser = await follow(front, PRICES, bearer(make_ticket((1, 2), user=5)))
        await browser.until({"price": {"apple": 1}})
        await browser.close()
        line = (await front.log.until(4))[-1]
        assert (line["user_id"], line["client_id"]) == (5, 42)


async def test_enforce_without_an_entry_permits_nobody(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator("enforce", verifier, AuthzSource(empty))
    async with published(price={"apple": 1}) as shop, Fronted(shop, auth=auth) as front:
        answer = await front.request("GET", PRICES, bearer(make_ticket((1, 2, 3))))
        assert (answer.status, answer.json()["code"]) == (403, "action_unconfigured")
        assert "Shop._events" in answer.json()["detail"]


async def test_enforce_without_a_table_permits_nobody_for_now(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator("enforce", verifier, AuthzSource(no_table))
    async with published(price={"apple": 1}) as shop, Fronted(shop, auth=auth) as front:
        answer = await front.request("GET", PRICES, bearer(make_ticket((1,))))
        assert (answer.status, answer.json()["code"]) == (503, "authorization_unavailable")
        assert "Retry-After" in answer.headers


async def test_verify_takes_any_good_ticket(verifier: TicketVerifier, make_ticket: Make) -> None:
    auth = Authenticator("verify", verifier)
    async with published(price={"apple": 1}) as shop, Fronted(shop, auth=auth) as front:
        assert (await front.request("GET", PRICES)).status == 401
        old = bearer(make_ticket(start=-7200))
        assert (await front.request("GET", PRICES, old)).status == 401
        browser = await follow(front, PRICES, bearer(make_ticket()))
        await browser.until({"price": {"apple": 1}})


async def test_a_browser_has_its_ticket_in_a_cookie_and_may_be_of_another_origin(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator("enforce", verifier, AuthzSource(table), credentials=Credentials("ticket"))
    page = "https://shop.example"
    options = FrontOptions(cors=Cors([page], max_age=1, credentials=True), compress=True)
    async with (
        published(price={"apple": 1}) as shop,
        Fronted(shop, auth=auth, options=options) as front,
    ):
        cookie = ("Cookie", f"ticket={make_ticket((1,))}")
        ours = await follow(front, PRICES, [cookie, ("Accept-Encoding", "gzip")])
        await ours.until({"price": {"apple": 1}})
        assert "Access-Control-Allow-Origin" not in ours.headers
        assert "Content-Encoding" not in ours.headers
        other = await follow(front, PRICES, [cookie, ("Origin", page)])
        await other.until({"price": {"apple": 1}})
        assert other.headers["Access-Control-Allow-Origin"] == page
        assert other.headers["Access-Control-Allow-Credentials"] == "true"
        foreign = await follow(front, PRICES, [cookie, ("Origin", "https://evil.example")])
        assert "Access-Control-Allow-Origin" not in foreign.headers, "its page cannot read it"


async def test_forward_serves_what_is_open_alone(make_ticket: Make) -> None:
    async with (
        published(price={"apple": 1}) as shop,
        published("office", price={"apple": 2}) as office,
        Fronted(shop, office, events_open=["Main:OFFICE"]) as front,
    ):
        for headers in ([], bearer(make_ticket((1,)))):
            answer = await front.request("GET", PRICES, headers)
            assert (answer.status, answer.json()["code"]) == (403, "action_unconfigured")
            assert "events_open" in answer.json()["detail"]
        browser = await follow(front, "/api/events/office?code=price")
        await browser.until({"price": {"apple": 2}})


@pytest.mark.parametrize("mode", ["enforce", "verify"])
async def test_what_is_open_needs_no_ticket_and_minds_no_bad_one(
    mode: AuthMode, verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator(mode, verifier, AuthzSource(empty))
    async with (
        published(price={"apple": 1}) as shop,
        Fronted(shop, auth=auth, events_open=["shop"]) as front,
    ):
        for headers in ([], bearer("rubbish"), bearer(make_ticket())):
            browser = await follow(front, PRICES, headers)
            await browser.until({"price": {"apple": 1}})


async def test_an_open_service_of_one_sector_is_not_open_in_another() -> None:
    async with (
        published(price={"apple": 1}) as shop,
        Fronted(shop, events_open=["web:shop"]) as front,
    ):
        assert (await front.request("GET", PRICES)).status == 403


async def test_a_ticket_that_expires_ends_its_stream_and_no_other(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    ahead = 0.0

    def clock() -> float:
        return time.time() + ahead

    auth = Authenticator("verify", verifier, clock=clock)
    options = StreamOptions(heartbeat=0.01, clock=clock)
    async with (
        published(price={"apple": 1}) as shop,
        Fronted(shop, auth=auth, stream=options) as front,
    ):
        longer = await follow(front, PRICES, bearer(make_ticket(length=9000)))
        browser = await follow(front, PRICES, bearer(make_ticket()))
        await longer.take(1)
        await browser.take(1)
        ahead = 3601.0
        assert [event.name for event in await browser.take(1)] == ["expired"]
        assert await browser.next() is None
        assert await browser.wire.ended()
        (line,) = await front.log.until(1)
        assert (line["status"], line["cause"]) == (200, "expired")
        shop.publish("price", "apple", 2)
        await longer.until({"price": {"apple": 2}})
        text = front.scrape()
        assert 'events_sent_total{event="expired"} 1.0' in text
        assert 'event_streams_ended_total{reason="expired"} 1.0' in text
        again = await front.request("GET", PRICES, bearer(make_ticket()))
        assert (again.status, again.json()["code"]) == (401, "ticket_invalid")


async def test_an_open_stream_outlives_a_ticket_that_it_did_not_need(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    ahead = 0.0

    def clock() -> float:
        return time.time() + ahead

    async with (
        published(price={"apple": 1}) as shop,
        Fronted(
            shop,
            auth=Authenticator("verify", verifier),
            events_open=["shop"],
            stream=StreamOptions(heartbeat=0.01, clock=clock),
        ) as front,
    ):
        browser = await follow(front, PRICES, bearer(make_ticket()))
        await browser.take(1)
        ahead = 3601.0
        shop.publish("price", "apple", 2)
        assert (await browser.take(1))[0].data["value"] == 2
        shop.publish("price", "apple", 3)
        assert (await browser.take(1))[0].data["value"] == 3


async def test_a_stream_ends_at_its_tickets_end_without_any_event(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator("verify", verifier)
    async with published(price={"apple": 1}) as shop, Fronted(shop, auth=auth) as front:
        ticket = make_ticket(start=-60, length=62)  # a second or two from now
        browser = await follow(front, PRICES, bearer(ticket))
        assert [event.name for event in await browser.take(2)] == ["snapshot", "expired"]
        assert await browser.next() is None
