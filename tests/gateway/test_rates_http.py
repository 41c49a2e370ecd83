"""Rate limits over HTTP: who is counted, what the answers say, and what a refusal costs others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from fronted import Answer, Fronted
from gateway import catalogue
from gateway.auth import ANONYMOUS, Authenticator, Caller
from gateway.endpoints import Endpoint
from gateway.exchange import Exchange
from gateway.front import FrontOptions
from gateway.problems import Problem
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.rate import Rate
from scamp.authz import AuthzSource
from scamp.testing import ScriptedPeer
from scamp.tickets import TicketVerifier

pytestmark = pytest.mark.usefixtures("either_way")

SECOND = 1_000_000

Make = Callable[..., str]


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 77 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> Callable[..., RateLimiter]:
    """``limits(user="2/min")``."""

    def make(
        user: str | None = None, client: str | None = None, address: str | None = None
    ) -> RateLimiter:
        given = [Rate.parse(text) if text else None for text in (user, client, address)]
        return RateLimiter(user=given[0], client=given[1], address=given[2], clock=clock)

    return make


@pytest.fixture
def verifying(ticket_key: RSAPrivateKey) -> Authenticator:
    return Authenticator("verify", TicketVerifier([ticket_key.public_key()]))


async def post(gateway: Fronted, ticket: str | None = None, **more: str) -> Answer:
    fields = list(more.items()) + ([("X-SCAMP-Ticket", ticket)] if ticket else [])
    return await gateway.request("POST", "/api/Test.echo", fields)


# -- answers ----------------------------------------------------------------------------


async def test_every_answer_tells_how_the_limits_stand(
    limits: Callable[..., RateLimiter], clock: Clock, verifying: Authenticator, make_ticket: Make
) -> None:
    limiter = limits(user="3/min", client="10/s;burst=50")
    async with Fronted(ScriptedPeer(flags=""), auth=verifying, limiter=limiter) as gateway:
        answer = await post(gateway, make_ticket())
        assert answer.status == 200
        assert answer.headers["RateLimit-Policy"] == (
            '"user";q=3;w=60, "client";q=10;w=1;scamp-burst=50'
        )
        assert answer.headers["RateLimit"] == '"user";r=2;t=20, "client";r=49;t=1'
        clock.now += 5 * SECOND
        answer = await post(gateway, make_ticket())
        assert answer.headers["RateLimit"] == '"user";r=1;t=15, "client";r=49;t=1'


async def test_a_refusal_names_the_limit_and_says_when_to_come_back(
    limits: Callable[..., RateLimiter], clock: Clock, verifying: Authenticator, make_ticket: Make
) -> None:
    peer = ScriptedPeer(flags="")
    async with Fronted(peer, auth=verifying, limiter=limits(user="2/min")) as gateway:
        assert [(await post(gateway, make_ticket())).status for _ in range(2)] == [200, 200]
        clock.now += SECOND // 2
        answer = await post(gateway, make_ticket())
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "30"  # 29.5 s
        assert answer.headers["RateLimit"] == '"user";r=0;t=30'
        assert answer.headers["RateLimit-Policy"] == '"user";q=2;w=60'
        assert "http_request_denied" in answer.headers["Proxy-Status"]
        problem = answer.json()
        assert problem["code"] == "rate_limited"
        assert problem["type"].endswith(":208")
        assert problem["detail"] == "The limit `user` is reached: 2/min for the ticket's user."
        assert problem["action"] == "Test.echo~1"
        clock.now += 29 * SECOND
        assert (await post(gateway, make_ticket())).status == 429
        clock.now += SECOND // 2
        assert (await post(gateway, make_ticket())).status == 200
        lines = await gateway.log.until(5)
        assert [line["cause"] for line in lines[2:]] == ["rate_limited", "rate_limited", None]
        assert lines[2]["user_id"] == 7
        assert len(peer.headers) == 3
        scraped = gateway.scrape()
        assert 'scamp_gateway_rate_limited_total{limit="user"} 2.0' in scraped
        assert 'scamp_gateway_rate_limited_total{limit="client"} 0.0' in scraped
        assert 'scamp_gateway_rate_limit_entries{limit="user"} 1.0' in scraped


async def test_without_limits_nothing_is_said(limits: Callable[..., RateLimiter]) -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        assert "RateLimit" not in (await post(gateway)).headers
    async with Fronted(ScriptedPeer(), limiter=limits(user="1/d")) as gateway:
        answer = await post(gateway)  # without a ticket there is no user
        assert "RateLimit" not in answer.headers
        assert "RateLimit-Policy" not in answer.headers


async def test_a_refused_request_is_not_read(limits: Callable[..., RateLimiter]) -> None:
    """The answer comes while the body is still to come."""
    async with Fronted(ScriptedPeer(), limiter=limits(address="1/d")) as gateway:
        await post(gateway)
        wire = await gateway.connect()
        fields = [("Content-Length", "1000000000"), ("Expect", "100-continue")]
        wire.send("POST", "/api/Test.echo", fields)
        answer = await wire.answer()
        assert answer.status == 429
        assert answer.headers["Connection"] == "close"


# -- whose requests ---------------------------------------------------------------------


async def test_users_do_not_share_and_clients_do(
    limits: Callable[..., RateLimiter], verifying: Authenticator, make_ticket: Make
) -> None:
    limiter = limits(user="2/min", client="3/min")
    async with Fronted(ScriptedPeer(flags=""), auth=verifying, limiter=limiter) as gateway:
        anna, berta = make_ticket(user=1), make_ticket(user=2)
        assert [(await post(gateway, anna)).status for _ in range(3)] == [200, 200, 429]
        assert [(await post(gateway, berta)).status for _ in range(2)] == [200, 429]
        answer = await post(gateway, berta)
        assert "The limit `client` is reached" in answer.json()["detail"]
        assert answer.headers["RateLimit"] == '"user";r=1;t=30, "client";r=0;t=20'


@pytest.mark.parametrize(
    ("user", "client", "named"), [("1/min", "1/h", "client"), ("1/h", "1/min", "user")]
)
async def test_the_limit_that_refuses_for_longest_is_named_and_decides_retry_after(
    limits: Callable[..., RateLimiter], user: str, client: str, named: str
) -> None:
    limiter = limits(user=user, client=client)
    caller = Caller("t", 7, 9)
    assert await limiter.check(caller, None)
    verdict = await limiter.check(caller, None)
    assert verdict is not None
    assert verdict.refused_by is not None
    assert (verdict.refused_by.name, verdict.retry_after) == (named, 3600)


async def test_a_request_that_one_limit_refuses_costs_no_token_of_another(
    limits: Callable[..., RateLimiter], clock: Clock
) -> None:
    limiter = limits(user="10/min", client="1/s")
    caller = Caller("t", 7, 9)
    for _ in range(50):
        verdict = await limiter.check(caller, None)
    assert verdict is not None
    assert verdict.fields[1][1] == '"user";r=9;t=6, "client";r=0;t=1'


async def test_callers_without_a_ticket_count_by_address_as_trusted_proxies_tell_it(
    limits: Callable[..., RateLimiter],
) -> None:
    options = FrontOptions(trusted_proxies=(ip_network("127.0.0.1"),))
    limiter = limits(address="2/min")
    async with Fronted(ScriptedPeer(), options=options, limiter=limiter) as gateway:
        key = "X-Forwarded-For"
        for address in ("203.0.113.1", "203.0.113.2", "2001:db8:0:1::1"):
            statuses = [(await post(gateway, **{key: address})).status for _ in range(3)]
            assert statuses == [200, 200, 429]
        assert (await post(gateway, **{key: "2001:db8:0:1:ffff::"})).status == 429
        assert (await post(gateway, **{key: "2001:db8:0:2::1"})).status == 200
        assert (await post(gateway, **{key: "203.0.113.3, 203.0.113.1"})).status == 429


async def test_what_strangers_write_into_the_header_is_not_their_address(
    limits: Callable[..., RateLimiter],
) -> None:
    async with Fronted(ScriptedPeer(), limiter=limits(address="2/min")) as gateway:
        asked = [await post(gateway, **{"X-Forwarded-For": f"203.0.113.{n}"}) for n in range(3)]
        assert [one.status for one in asked] == [200, 200, 429]


async def test_tickets_that_nobody_reads_make_no_caller(
    limits: Callable[..., RateLimiter], make_ticket: Make
) -> None:
    async with Fronted(ScriptedPeer(), limiter=limits(address="2/min", user="1/d")) as gateway:
        asked = [await post(gateway, make_ticket(user=n)) for n in range(3)]
        assert [one.status for one in asked] == [200, 200, 429]


async def test_whoever_tries_tickets_is_counted_and_good_ones_pass_all_the_same(
    limits: Callable[..., RateLimiter], verifying: Authenticator, make_ticket: Make
) -> None:
    limiter = limits(address="3/min")
    async with Fronted(ScriptedPeer(flags=""), auth=verifying, limiter=limiter) as gateway:
        answers = [await post(gateway), await post(gateway, "nonsense")]
        answers += [await post(gateway, make_ticket(length=1))]
        assert [one.status for one in answers] == [401, 401, 401]
        assert answers[1].headers["RateLimit"] == '"address";r=1;t=20'
        assert "WWW-Authenticate" in answers[1].headers
        two = [("X-SCAMP-Ticket", "a"), ("X-SCAMP-Ticket", "b")]
        answer = await gateway.request("POST", "/api/Test.echo", two)
        assert (answer.status, answer.json()["code"]) == (429, "rate_limited")
        assert "WWW-Authenticate" not in answer.headers
        assert (await post(gateway, make_ticket())).status == 200


async def test_a_missing_privilege_is_counted_for_the_user(
    limits: Callable[..., RateLimiter], ticket_key: RSAPrivateKey, make_ticket: Make
) -> None:
    async def table() -> bytes:
        return b'{"test.echo": [1], "_NAMES": [null, "echo"]}'

    auth = Authenticator("enforce", TicketVerifier([ticket_key.public_key()]), AuthzSource(table))
    limiter = limits(user="2/min", address="1/d")
    async with Fronted(ScriptedPeer(flags=""), auth=auth, limiter=limiter) as gateway:
        answers = [await post(gateway, make_ticket()) for _ in range(3)]
        assert [one.status for one in answers] == [403, 403, 429]
        assert answers[0].headers["RateLimit"] == '"user";r=1;t=30'


async def test_options_and_what_does_not_exist_are_not_counted(
    limits: Callable[..., RateLimiter],
) -> None:
    async with Fronted(ScriptedPeer(), limiter=limits(address="1/d")) as gateway:
        for method, path, status in (
            ("OPTIONS", "/api/Test.echo", 204),
            ("OPTIONS", "*", 204),
            ("POST", "/api/Test.none", 404),
            ("GET", "/api/Test.echo", 405),
        ):
            answer = await gateway.request(method, path)
            assert (answer.status, "RateLimit" in answer.headers) == (status, False), path
        assert (await post(gateway)).status == 200


async def test_requests_at_once_get_no_more_than_those_one_by_one(
    limits: Callable[..., RateLimiter],
) -> None:
    async with Fronted(ScriptedPeer(), limiter=limits(address="7/d")) as gateway:
        answers = await asyncio.gather(*(post(gateway) for _ in range(30)))
        assert sorted(one.status for one in answers) == [200] * 7 + [429] * 23
        left = {one.headers["RateLimit"].split(";")[1] for one in answers if one.status == 200}
        assert left == {f"r={n}" for n in range(7)}


# -- what is no action ------------------------------------------------------------------


class Page:
    """An endpoint that says hello, or what is wrong."""

    route = "/page"
    methods = ("GET",)

    def __init__(self, problem: Problem | None = None) -> None:
        self.problem = problem

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        if self.problem is not None:
            raise self.problem
        await exchange.send_whole(200, "text/plain", b"hello")


async def test_endpoints_count_once_and_the_files_of_docs_do_not(
    limits: Callable[..., RateLimiter], verifying: Authenticator, make_ticket: Make
) -> None:
    limiter = limits(user="2/min", address="3/min")
    async with Fronted(ScriptedPeer(), auth=verifying, limiter=limiter) as gateway:
        refusing = Page(Problem(catalogue.TICKET_INVALID))
        pages: tuple[tuple[str, Endpoint], ...] = (
            ("/openapi.json", Page()), ("/docs/", Page()), ("/docs", Page()), ("/whoami", refusing)
        )  # fmt: skip
        for path, page in pages:
            gateway.front.endpoints.add(path, page)

        async def get(path: str, ticket: str = "") -> Answer:
            return await gateway.request("GET", path, [("Authorization", f"Bearer {ticket}")])

        for _ in range(9):
            answer = await get("/docs/app.js")
            assert (answer.status, "RateLimit" in answer.headers) == (200, False)
        assert (await get("/docs")).status == 200
        assert (await gateway.request("OPTIONS", "/openapi.json")).status == 204
        asked = [await get("/openapi.json", make_ticket()) for _ in range(3)]
        assert [one.status for one in asked] == [200, 200, 429]
        assert asked[0].headers["RateLimit"] == '"user";r=1;t=30'
        for bad in ("", "nonsense"):
            answer = await get("/whoami", bad)
            assert answer.status == 401
        assert answer.headers["RateLimit"] == '"address";r=1;t=20'
        two = [("Authorization", "Bearer a"), ("X-SCAMP-Ticket", "b")]
        assert (await gateway.request("GET", "/openapi.json", two)).status == 200
        assert (await get("/openapi.json")).status == 429


# -- routes -----------------------------------------------------------------------------


async def test_a_route_has_a_limit_of_its_own_for_each_caller(
    limits: Callable[..., RateLimiter],
) -> None:
    limiter = limits(user="100/min")
    rate = Rate.parse("2/min")
    asked = ("GET /things/{id}", rate)
    anna, berta = Caller("t", 1, 9), Caller("t", 2, 9)

    async def refused(caller: Caller, address: str = "10.0.0.1", key: str = asked[0]) -> str | None:
        verdict = await limiter.check(caller, address, key, rate)
        assert verdict is not None
        return verdict.refused_by.name if verdict.refused_by else None

    assert [await refused(anna) for _ in range(3)] == [None, None, "route"]
    assert await refused(berta) is None
    assert await refused(anna, key="PUT /things/{id}") is None
    assert [await refused(ANONYMOUS) for _ in range(3)] == [None, None, "route"]
    assert await refused(ANONYMOUS, "10.0.0.2") is None
    verdict = await limiter.check(anna, "10.0.0.1", *asked)
    assert verdict is not None
    assert verdict.fields[0][1] == '"user";q=100;w=60, "route";q=2;w=60'
    assert await limiter.check(ANONYMOUS, "10.0.0.1") is None
    assert limiter.entries["route"] == 5


async def test_a_route_of_the_file_is_limited_and_its_action_is_not() -> None:
    routes = """
        [[routes]]
        method = "POST"
        path = "/things/{id}"
        action = "Test.echo"
        rate = "2/min"
    """
    async with Fronted(ScriptedPeer(), limiter=RateLimiter(), routes=routes) as gateway:
        answers = [await gateway.request("POST", f"/things/{n}", body=b"{}") for n in range(3)]
        assert [one.status for one in answers] == [200, 200, 429]
        assert answers[0].headers["RateLimit-Policy"] == '"route";q=2;w=60'
        assert "2/min for one caller of this route" in answers[2].json()["detail"]
        assert (await gateway.request("OPTIONS", "/things/1")).status == 204
        answer = await post(gateway)
        assert (answer.status, "RateLimit" in answer.headers) == (200, False)
        assert 'scamp_gateway_rate_limited_total{limit="route"} 1.0' in gateway.scrape()


async def test_a_route_that_changes_its_rate_or_goes_takes_its_buckets_along() -> None:
    limiter = RateLimiter()
    once, twice = Rate.parse("1/d"), Rate.parse("2/d")
    assert not limiter.general

    async def refused(key: str, rate: Rate) -> bool:
        verdict = await limiter.check(ANONYMOUS, "10.0.0.1", key, rate)
        assert verdict is not None
        return verdict.refused_by is not None

    assert [await refused("a", once) for _ in range(2)] == [False, True]
    assert [await refused("b", once) for _ in range(2)] == [False, True]
    assert await refused("a", Rate.parse("1/d"))  # loaded anew, and the same
    assert not await refused("a", twice)
    limiter.retain(["b"])
    assert not await refused("a", twice)
    assert await refused("b", once)


async def test_a_flood_of_routes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ratelimit.limiter.MAX_ROUTES", 20)
    limiter = RateLimiter()
    for number in range(1000):
        await limiter.check(ANONYMOUS, None, f"route {number}", Rate.parse("1/d"))
    assert limiter.entries["route"] == 20


async def test_strangers_do_not_push_out_users_of_a_route() -> None:
    limiter = RateLimiter(max_entries=1024)
    rate = Rate.parse("1/d")
    anna = Caller("t", 1, 9)
    await limiter.check(anna, None, "a", rate)
    for number in range(3000):
        await limiter.check(ANONYMOUS, f"10.{number >> 8}.{number & 255}.1", "a", rate)
    assert limiter.entries["route"] == 1025
    assert limiter.dropped == 3000 - 1024
    verdict = await limiter.check(anna, None, "a", rate)
    assert verdict is not None
    assert verdict.refused_by is not None
