"""Pages of other origins: preflights, and what every answer says to their browsers."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.cors import KNOWN_FIELDS, MAX_ASKED, Cors
from gateway.endpoints import Endpoint
from gateway.exchange import Exchange
from gateway.front import FrontOptions
from scamp.discovery import DiscoveryStatus
from scamp.testing import ScriptedPeer, until
from scamp.testing.scripts import begun, silent
from scamp.tickets import TicketVerifier

pytestmark = pytest.mark.usefixtures("either_way")

APP: Final = "https://app.example:8443"
OTHER: Final = "http://localhost:3000"
FROM_APP: Final = [("Origin", APP)]
ASKS: Final = [*FROM_APP, ("Access-Control-Request-Method", "POST")]
ECHO: Final = "/api/Test.echo"


def listing(*origins: str, credentials: bool = False, **more: int) -> FrontOptions:
    cors = Cors(origins or (APP, OTHER), credentials=credentials, max_age=60)
    return FrontOptions(cors=cors, **more)  # type: ignore[arg-type]


def cors_of(answer: Answer) -> dict[str, str]:
    return {
        name.lower().removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name.lower().startswith("access-control-")
    }


class Page:
    """An endpoint that answers with a Vary of its own."""

    route = "/page"
    methods = ("GET",)

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        await exchange.send_whole(200, "text/plain", b"x", [("Vary", "Accept")])


# -- preflights -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [("", "POST, OPTIONS"), ("read,destroy", "GET, HEAD, POST, DELETE, OPTIONS")],
)
async def test_a_preflight_is_told_what_the_action_takes_and_needs_no_ticket(
    flags: str, allowed: str
) -> None:
    peer = ScriptedPeer(flags=flags)
    auth = Authenticator("verify", TicketVerifier([]))
    async with Fronted(peer, auth=auth, options=listing()) as gateway:
        asked = ("Access-Control-Request-Headers", "x-scamp-ticket, content-type")
        answer = await gateway.request("OPTIONS", ECHO, [*ASKS, asked])
        assert (answer.status, answer.body) == (204, b"")
        said = cors_of(answer)
        assert said["allow-origin"] == APP
        assert said["allow-methods"] == answer.headers["Allow"] == allowed
        assert said["allow-headers"] == ", ".join(KNOWN_FIELDS)
        assert said["max-age"] == "60"
        assert "allow-credentials" not in said
        assert answer.headers.getall("Vary") == [
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        ]
        assert peer.headers == []
        assert auth.results == {}
        assert 'method="OPTIONS"' in gateway.scrape()


async def test_a_preflight_works_for_endpoints_and_fails_for_what_is_not_there() -> None:
    async with Fronted(ScriptedPeer(), options=listing()) as gateway:
        page: Endpoint = Page()
        gateway.front.endpoints.add("/page", page)
        answer = await gateway.request("OPTIONS", "/page", ASKS)
        assert (answer.status, cors_of(answer)["allow-methods"]) == (204, "GET, OPTIONS")
        answer = await gateway.request("OPTIONS", "/api/Test.nothing", ASKS)
        assert (answer.status, cors_of(answer)["allow-origin"]) == (404, APP)
        assert "allow-methods" not in cors_of(answer)


ROUTES: Final = """
[[routes]]
method = ["GET", "DELETE"]
path = "/v1/echo"
action = "Test.echo"
"""


async def test_a_preflight_for_a_route_is_told_what_the_route_takes() -> None:
    peer = ScriptedPeer(flags="read")
    async with Fronted(peer, routes=ROUTES, options=listing()) as gateway:
        answer = await gateway.request("OPTIONS", "/v1/echo", ASKS)
        said = cors_of(answer)
        assert answer.status == 204
        assert said["allow-methods"] == answer.headers["Allow"] == "GET, HEAD, DELETE, OPTIONS"
        assert said["allow-origin"] == APP


async def test_fields_that_mean_nothing_to_us_are_permitted_if_they_are_names_and_few() -> None:
    async with Fronted(ScriptedPeer(), options=listing()) as gateway:
        wanted = ["X-Page, x-page", 'a b, "c", d\te,, e:f', ", ".join(f"x-{i}" for i in range(99))]
        fields = [("Access-Control-Request-Headers", one) for one in wanted]
        answer = await gateway.request("OPTIONS", ECHO, [*ASKS, *fields])
        named = cors_of(answer)["allow-headers"].split(", ")
        assert named[: len(KNOWN_FIELDS)] == list(KNOWN_FIELDS)
        extra = named[len(KNOWN_FIELDS) :]
        assert extra == ["x-page", *[f"x-{i}" for i in range(MAX_ASKED - 1)]]


async def test_a_private_network_is_not_opened() -> None:
    async with Fronted(ScriptedPeer(), options=listing()) as gateway:
        asked = ("Access-Control-Request-Private-Network", "true")
        answer = await gateway.request("OPTIONS", ECHO, [*ASKS, asked])
        assert "allow-private-network" not in cors_of(answer)


async def test_options_without_the_question_of_a_browser_is_answered_as_ever() -> None:
    async with Fronted(ScriptedPeer(), options=listing()) as gateway:
        for fields in ([], FROM_APP):
            answer = await gateway.request("OPTIONS", ECHO, fields)
            assert (answer.status, answer.headers["Allow"]) == (204, "POST, OPTIONS")
            assert "allow-methods" not in cors_of(answer)
        assert (await gateway.request("OPTIONS", "*", ASKS)).status == 204


# -- answers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", APP.upper(), f"{APP}0", "https://app.example", "*"]
)
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
async def test_an_origin_that_is_not_listed_is_served_and_told_nothing(
    origin: str, method: str
) -> None:
    async with Fronted(ScriptedPeer(), options=listing(credentials=True)) as gateway:
        fields = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
        answer = await gateway.request(method, ECHO, fields)
        assert answer.status in (200, 204)
        assert cors_of(answer) == {}
        assert answer.headers["Vary"].startswith("Origin")
        two = await gateway.request(method, ECHO, [*FROM_APP, *fields])
        assert cors_of(two) == {}


async def test_every_answer_tells_a_listed_origin_that_it_may_read() -> None:
    auth = Authenticator("verify", TicketVerifier([]))
    peer = ScriptedPeer(flags="read")
    options = listing(max_body=10)
    async with Fronted(peer, auth=auth, options=options) as gateway:
        page: Endpoint = Page()
        gateway.front.endpoints.add("/page", page)
        answers = {
            200: await gateway.request("GET", "/page", FROM_APP),
            401: await gateway.request("POST", ECHO, FROM_APP),
            404: await gateway.request("GET", "/nowhere", FROM_APP),
            405: await gateway.request("DELETE", ECHO, FROM_APP),
            417: await gateway.request("POST", ECHO, [*FROM_APP, ("Expect", "x")]),
        }
        gateway.front.draining = True
        gateway.status = DiscoveryStatus()
        answers[503] = await gateway.request("POST", "/api/Test.later", FROM_APP)
        for status, answer in answers.items():
            assert answer.status == status
            said = cors_of(answer)
            assert said["allow-origin"] == APP
            assert {"X-Request-ID", "Retry-After", "WWW-Authenticate", "RateLimit"} <= set(
                said["expose-headers"].split(", ")
            )
            assert "allow-credentials" not in said
            assert "allow-methods" not in said
        assert answers[200].headers.getall("Vary") == ["Origin, Accept"]


async def test_streams_and_those_that_are_turned_away_are_marked_too() -> None:
    options = listing(max_body=10, max_in_flight=1)
    go_on = asyncio.Event()
    async with Fronted(ScriptedPeer(begun(b"x", go_on)), options=options) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, FROM_APP)
        status, headers = await wire.head()
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        assert headers["Access-Control-Allow-Origin"] == APP
        go_on.set()
        await wire.chunk()
        answer = await gateway.request("POST", ECHO, FROM_APP, bytes(11))
        assert (answer.status, cors_of(answer)["allow-origin"]) == (413, APP)
    peer = ScriptedPeer(silent)
    async with Fronted(peer, options=options) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, FROM_APP)
        await until(lambda: peer.headers)
        answer = await gateway.request("POST", ECHO, FROM_APP)
        assert (answer.status, cors_of(answer)["allow-origin"]) == (503, APP)
        await gateway.stop()
        answer = await wire.answer()
        assert (answer.status, cors_of(answer)["allow-origin"]) == (503, APP)


async def test_what_is_no_http_request_is_answered_as_ever() -> None:
    async with Fronted(ScriptedPeer(), options=listing()) as gateway:
        wire = await gateway.connect()
        wire.writer.write(b"rubbish\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.headers["Vary"]) == (400, "Origin")
        assert cors_of(answer) == {}


async def test_cookies_go_with_origins_that_are_listed_by_name_only() -> None:
    async with Fronted(ScriptedPeer(), options=listing(credentials=True)) as gateway:
        for method, fields in (("POST", FROM_APP), ("OPTIONS", ASKS)):
            said = cors_of(await gateway.request(method, ECHO, fields))
            assert (said["allow-origin"], said["allow-credentials"]) == (APP, "true")
    async with Fronted(ScriptedPeer(), options=listing("*", credentials=True)) as gateway:
        for method, fields in (("POST", FROM_APP), ("OPTIONS", ASKS)):
            answer = await gateway.request(method, ECHO, fields)
            assert cors_of(answer)["allow-origin"] == "*"
            assert "allow-credentials" not in cors_of(answer)
        assert cors_of(answer)["allow-methods"] == "POST, OPTIONS"


async def test_without_a_list_nothing_is_said() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        for method in ("OPTIONS", "POST"):
            answer = await gateway.request(method, ECHO, ASKS)
            assert cors_of(answer) == {}
            assert "Vary" not in answer.headers
