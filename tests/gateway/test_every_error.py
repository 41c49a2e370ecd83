"""Every error of the catalogue, each made by a real request to a real socket.

A new kind needs a scenario here: a coroutine function that is given a `Bench` and returns the
answer, under ``@produces("its_code")``. What has to be true of every answer is asserted in one
place; what is special to one, in its scenario.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
import pytest

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.catalogue import CATALOGUE
from gateway.clients import ClientLimits
from gateway.credentials import Credentials
from gateway.events.values import MAX_VALUES
from gateway.exchange import Exchange
from gateway.front import FrontOptions
from gateway.problems import INDEX_RETRY_AFTER
from gateway.public import MAX_FIELD, MAX_TARGET
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.rate import Rate
from gateway.ratelimit.shared import SharedCounts
from scamp.authz import AuthzSource
from scamp.client import ClientOptions
from scamp.discovery import DiscoveryStatus
from scamp.testing import (
    Manners,
    ScriptedPeer,
    make_authz_table,
    make_identity,
    make_ticket,
    make_verifier,
    until,
)
from scamp.testing.events import Publisher
from scamp.testing.manners import nothing
from scamp.testing.scripts import (
    dispatch_failure,
    echo,
    failing,
    hang_up,
    raw,
    silent,
    txerr,
    when,
)

pytestmark = pytest.mark.usefixtures("either_way")

PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
ECHO: Final = "/api/Test.echo"
ONCE: Final = ClientOptions(retries=0)
CHALLENGED: Final = {"ticket_missing", "ticket_invalid", "privilege_missing", "action_unconfigured"}
"""Answers that tell how to come back with a better ticket."""


class Bench:
    """Starts what a scenario needs; all of it ends with the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack

    async def front(self, *peers: ScriptedPeer, **options: Any) -> Fronted:
        """A gateway in front of `peers`, by default of one that echoes."""
        return await self.stack.enter_async_context(
            Fronted(*(peers or (ScriptedPeer(flags="noauth,read"),)), **options)
        )

    async def ask(self, *peers: ScriptedPeer, **options: Any) -> Answer:
        """The answer to one plain request."""
        gateway = await self.front(*peers, **options)
        return await gateway.request("POST", ECHO, body=b"{}")

    async def guarded(
        self, fields: list[tuple[str, str]], table: Callable[[], Awaitable[bytes]] | None = None
    ) -> Answer:
        """The answer of an action that takes a ticket, and privileges if there is a `table`."""
        authz = AuthzSource(table) if table else None
        if authz is not None:
            self.stack.push_async_callback(authz.close)
        auth = Authenticator("enforce" if authz else "verify", make_verifier(), authz)
        gateway = await self.front(ScriptedPeer(flags=""), auth=auth)
        return await gateway.request("POST", ECHO, fields, b"{}")


Scenario: TypeAlias = Callable[[Bench], Awaitable[Answer]]
SCENARIOS: Final[dict[str, Scenario]] = {}


def produces(code: str) -> Callable[[Scenario], Scenario]:
    """The decorated scenario ends in the error with this code."""

    def register(scenario: Scenario) -> Scenario:
        assert code not in SCENARIOS, code
        SCENARIOS[code] = scenario
        return scenario

    return register


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack)


@pytest.mark.parametrize("code", CATALOGUE)
async def test_the_error_is_answered_as_the_catalogue_says(code: str, bench: Bench) -> None:
    kind = CATALOGUE[code]
    answer = await SCENARIOS[code](bench)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    problem = orjson.loads(answer.body)
    assert problem["code"] == code
    assert problem["type"] == f"urn:scamp-gateway:error:{kind.number}"
    assert problem["title"] == kind.title
    assert problem["status"] == answer.status
    assert problem["detail"]
    assert problem["instance"] == answer.headers["X-Request-ID"]
    if code == "service_error":
        assert "Proxy-Status" not in answer.headers, "it is the service's own answer"
    else:
        assert answer.status == kind.status
        told = f'scamp-gateway; error={kind.proxy_error}; details="{code}"'
        assert answer.headers["Proxy-Status"] == told
    assert ("WWW-Authenticate" in answer.headers) == (code in CHALLENGED)
    if answer.status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1
    else:
        assert "Retry-After" not in answer.headers
    assert b"127.0.0.1" not in answer.body, "an address of the mesh"


def test_every_error_has_a_scenario_and_a_line_on_the_page() -> None:
    assert set(SCENARIOS) == set(CATALOGUE)
    page = PAGE.read_text(encoding="utf-8")
    for kind in CATALOGUE.values():
        assert f"| {kind.number} | `{kind.code}` | {kind.status} |" in page


# -- the request itself -----------------------------------------------------------------


@produces("malformed_request")
async def _(bench: Bench) -> Answer:
    wire = await (await bench.front()).connect()
    wire.writer.write(b"rubbish\r\n\r\n")
    answer = await wire.answer()
    assert await wire.ended()
    return answer


@produces("bad_path")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("POST", "/api//Test.echo")


@produces("bad_query")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("GET", f"{ECHO}?a=%zz")


@produces("bad_header")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("POST", ECHO, [("X-SCAMP-Timeout", "soon")])


@produces("bad_framing")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("GET", ECHO, body=b"{}")


@produces("unknown_path")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("GET", "/nothing")


@produces("unknown_service")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front(events_open=["shop"])
    return await gateway.request("GET", "/api/events/shop?code=price")


@produces("unknown_action")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("POST", "/api/Test.nothing")


@produces("method_not_allowed")
async def _(bench: Bench) -> Answer:
    answer = await (await bench.front()).request("DELETE", ECHO)
    assert answer.headers["Allow"] == "GET, HEAD, POST, OPTIONS"
    return answer


@produces("request_timeout")
async def _(bench: Bench) -> Answer:
    options = FrontOptions(body_idle=0.05)
    wire = await (await bench.front(options=options, lingering_time=0.1)).connect()
    wire.send("POST", ECHO, [("Content-Length", "2")])
    wire.writer.write(b"{")
    answer = await wire.answer()
    assert await wire.ended()
    return answer


@produces("body_too_large")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front(options=FrontOptions(max_body=10))
    return await gateway.request("POST", ECHO, body=bytes(11))


@produces("uri_too_long")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("GET", f"{ECHO}?{'x' * MAX_TARGET}")


@produces("unsupported_envelope")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front()
    answer = await gateway.request("POST", ECHO, [("Content-Type", "text/plain")], b"{}")
    assert answer.headers["Accept"] == "application/json"
    return answer


@produces("unsupported_encoding")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("POST", ECHO, [("Content-Encoding", "br")], b"{}")


@produces("expectation_failed")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("POST", ECHO, [("Expect", "more")], b"{}")


@produces("header_too_large")
async def _(bench: Bench) -> Answer:
    return await (await bench.front()).request("POST", ECHO, [("X-Long", "x" * (MAX_FIELD + 1))])


@produces("header_timeout")
async def _(bench: Bench) -> Answer:
    wire = await (await bench.front(clients=ClientLimits(header_timeout=0.05))).connect()
    wire.writer.write(b"POST /api/Test.echo HTTP/1.1\r\nHost: te")
    answer = await wire.answer()
    assert await wire.ended()
    return answer


@produces("too_many_connections")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front(clients=ClientLimits(per_address=1))
    await gateway.connect()
    wire = await gateway.connect()
    answer = await wire.answer()
    assert await wire.ended()
    return answer


@produces("bad_body")
async def _(bench: Bench) -> Answer:
    routes = '[[routes]]\nmethod = "POST"\npath = "/v1/{id}"\naction = "Test.echo"\n'
    gateway = await bench.front(routes=routes)
    return await gateway.request("POST", "/v1/7", body=b'{"id": "8"}')


# -- who asks ---------------------------------------------------------------------------


@produces("ticket_missing")
async def _(bench: Bench) -> Answer:
    answer = await bench.guarded([])
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    return answer


@produces("ticket_invalid")
async def _(bench: Bench) -> Answer:
    answer = await bench.guarded([("Authorization", "Bearer rubbish")])
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    return answer


@produces("tickets_differ")
async def _(bench: Bench) -> Answer:
    fields = [("Authorization", f"Bearer {make_ticket()}"), ("X-SCAMP-Ticket", "other")]
    return await bench.guarded(fields)


async def _table() -> bytes:
    return make_authz_table({"Test.echo": [3]})


@produces("privilege_missing")
async def _(bench: Bench) -> Answer:
    answer = await bench.guarded([("X-SCAMP-Ticket", make_ticket(privileges=[4]))], _table)
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="insufficient_scope"')
    return answer


@produces("action_unconfigured")
async def _(bench: Bench) -> Answer:
    async def empty() -> bytes:
        return b"{}"

    return await bench.guarded([("X-SCAMP-Ticket", make_ticket())], empty)


@produces("authorization_unavailable")
async def _(bench: Bench) -> Answer:
    async def away() -> bytes:
        raise ConnectionRefusedError("Auth is away")

    answer = await bench.guarded([("X-SCAMP-Ticket", make_ticket())], away)
    assert answer.headers["Retry-After"] == "5", "the next fetch is not made sooner"
    return answer


@produces("origin_refused")
async def _(bench: Bench) -> Answer:
    auth = Authenticator("verify", make_verifier(), credentials=Credentials("ticket"))
    gateway = await bench.front(ScriptedPeer(flags=""), auth=auth)
    fields = [("Cookie", f"ticket={make_ticket()}"), ("Origin", "https://elsewhere.example")]
    return await gateway.request("POST", ECHO, fields, b"{}")


@produces("rate_limited")
async def _(bench: Bench) -> Answer:
    limiter = RateLimiter(address=Rate.parse("1/min"), clock=lambda: 0)
    gateway = await bench.front(limiter=limiter)
    assert (await gateway.request("POST", ECHO, body=b"{}")).status == 200
    answer = await gateway.request("POST", ECHO, body=b"{}")
    assert answer.headers["Retry-After"] == "60"
    assert "RateLimit" in answer.headers
    return answer


@produces("rate_limit_unavailable")
async def _(bench: Bench) -> Answer:
    """Nothing listens where the count is kept."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    counts = SharedCounts(f"redis://127.0.0.1:{port}", timeout=1, pause=30)
    bench.stack.push_async_callback(counts.close)
    await counts.start()
    limiter = RateLimiter(address=Rate.parse("1/min"), shared=counts, on_failure="closed")
    return await bench.ask(limiter=limiter)


# -- the way to the service -------------------------------------------------------------


@produces("connect_failed")
async def _(bench: Bench) -> Answer:
    peer = ScriptedPeer()
    gateway = await bench.front(peer, client=ONCE)
    peer.stop_listening()
    return await gateway.request("POST", ECHO)


@produces("fingerprint_mismatch")
async def _(bench: Bench) -> Answer:
    return await bench.ask(ScriptedPeer(shows=make_identity(1)), client=ONCE)


@produces("connect_timeout")
async def _(bench: Bench) -> Answer:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    peer = ScriptedPeer()
    gateway = await bench.front(peer, client=ClientOptions(retries=0, connect_timeout=0.05))
    peer.stop_listening()
    await bench.stack.enter_async_context(await asyncio.start_server(hold, peer.host, peer.port))
    return await gateway.request("POST", ECHO)


@produces("connection_lost")
async def _(bench: Bench) -> Answer:
    return await bench.ask(ScriptedPeer(hang_up), client=ONCE)


@produces("no_usable_instance")
async def _(bench: Bench) -> Answer:
    peer = ScriptedPeer()
    gateway = await bench.front(peer, client=ONCE)
    peer.stop_listening()
    assert (await gateway.request("POST", ECHO)).status == 502
    (instance,) = gateway.mesh.requester._router._instances.values()
    before = asyncio.get_running_loop().time()
    answer = await gateway.request("POST", ECHO)
    after = asyncio.get_running_loop().time()
    soonest, latest = (instance.retry_at - moment for moment in (after, before))
    told = int(answer.headers["Retry-After"])
    assert max(1, math.ceil(soonest)) <= told <= max(1, math.ceil(latest))
    return answer


@produces("queue_timeout")
async def _(bench: Bench) -> Answer:
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on))
    gateway = await bench.front(peer, client=ClientOptions(max_connections=1, max_streams=1))
    wire = await gateway.connect()
    wire.send("POST", ECHO)
    await peer.until(lambda: peer.requests == 1)
    answer = await gateway.request("POST", ECHO, [("X-SCAMP-Timeout", "0.05")])
    go_on.set()
    assert (await wire.answer()).status == 200
    return answer


@produces("discovery_unavailable")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front(status=DiscoveryStatus(loaded=False))
    answer = await gateway.request("POST", "/api/Test.nothing")
    assert answer.headers["Retry-After"] == f"{INDEX_RETRY_AFTER:g}"
    return answer


@produces("saturated")
async def _(bench: Bench) -> Answer:
    return await bench.ask(options=FrontOptions(max_in_flight=0))


# -- what the service did ---------------------------------------------------------------


@produces("service_error")
async def _(bench: Bench) -> Answer:
    answer = await bench.ask(ScriptedPeer(failing("not_found", "no such thing", {"id": 7})))
    problem = answer.json()
    assert (answer.status, problem["upstream_code"]) == (404, "not_found")
    assert (problem["detail"], problem["error_data"]) == ("no such thing", {"id": 7})
    return answer


@produces("dispatch_failed")
async def _(bench: Bench) -> Answer:
    return await bench.ask(ScriptedPeer(dispatch_failure), client=ONCE)


@produces("reply_failed")
async def _(bench: Bench) -> Answer:
    return await bench.ask(ScriptedPeer(txerr("broken")))


@produces("reply_timeout")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front(ScriptedPeer(silent))
    return await gateway.request("POST", ECHO, [("X-SCAMP-Timeout", "0.05")])


@produces("upstream_stalled")
async def _(bench: Bench) -> Answer:
    peer = ScriptedPeer(manners=Manners(acks=nothing))
    gateway = await bench.front(peer, client=ClientOptions(body_idle=0.1), lingering_time=0.1)
    wire = await gateway.connect()
    wire.send("POST", ECHO, [("Content-Length", "2000000")])
    wire.writer.write(bytes(300_000))
    answer = await wire.answer()
    wire.writer.transport.abort()
    return answer


@produces("upstream_protocol")
async def _(bench: Bench) -> Answer:
    return await bench.ask(ScriptedPeer(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")))


@produces("subscription_refused")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front(ScriptedPeer(Publisher(error="no")), events_open=["peer"])
    return await gateway.request("GET", "/api/events/peer?code=price")


@produces("too_many_values")
async def _(bench: Bench) -> Answer:
    many = {"price": dict.fromkeys(map(str, range(MAX_VALUES + 1)), 1)}
    gateway = await bench.front(ScriptedPeer(Publisher(many)), events_open=["peer"])
    return await gateway.request("GET", "/api/events/peer?code=price")


# -- the gateway ------------------------------------------------------------------------


class Broken:
    """An endpoint with a bug."""

    route = "/broken"
    methods = ("GET",)

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        raise ZeroDivisionError("at 127.0.0.1")


@produces("internal_error")
async def _(bench: Bench) -> Answer:
    gateway = await bench.front()
    gateway.front.endpoints.add("/broken", Broken())
    return await gateway.request("GET", "/broken")


@produces("stopping")
async def _(bench: Bench) -> Answer:
    peer = ScriptedPeer(silent)
    gateway = await bench.front(peer)
    wire = await gateway.connect()
    wire.send("POST", ECHO)
    await peer.until(lambda: peer.requests == 1)
    await gateway.stop()
    answer = await wire.answer()
    assert await wire.ended()
    return answer


# -- Retry-After ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "data", "status", "told"),
    [
        ("busy", {"retry_after": 7}, 503, "7"),
        ("busy", {"retry_after": 6.2}, 503, "7"),
        ("busy", {"retry_after": 0}, 503, "1"),
        ("busy", None, 503, "1"),
        ("busy", {"retry_after": -1}, 503, "1"),
        ("busy", {"retry_after": True}, 503, "1"),
        ("busy", {"retry_after": "7\r\nX: 1"}, 503, "1"),
        ("busy", {"retry_after": 1e300}, 503, "1"),
        ("slow_down", {"retry_after": 9}, 429, "9"),
        ("slow_down", None, 429, None),
        ("conflict", {"retry_after": 9}, 409, None),
    ],
)
async def test_a_service_may_say_when_to_come_back(
    bench: Bench, code: str, data: dict[str, Any] | None, status: int, told: str | None
) -> None:
    answer = await bench.ask(
        ScriptedPeer(failing(code, "not now", data)),
        options=FrontOptions(error_status={"busy": 503, "slow_down": 429}),
    )
    assert (answer.status, answer.headers.get("Retry-After")) == (status, told)


async def test_who_waits_as_long_as_told_finds_the_service_that_is_back(bench: Bench) -> None:
    peer = ScriptedPeer(echo)
    gateway = await bench.front(peer, client=ONCE)
    peer.stop_listening()
    assert (await gateway.request("POST", ECHO)).status == 502
    answer = await gateway.request("POST", ECHO)
    assert answer.status == 503
    due = time.monotonic() + int(answer.headers["Retry-After"])
    await peer.listen()
    await until(lambda: time.monotonic() >= due)
    assert (await gateway.request("POST", ECHO)).status == 200


async def test_where_all_have_weight_0_the_next_announcement_may_change_it(bench: Bench) -> None:
    peer = ScriptedPeer(weight=0)
    answer = await bench.ask(peer)
    assert (answer.status, answer.json()["code"]) == (503, "no_usable_instance")
    assert answer.headers["Retry-After"] == f"{peer.service().interval:g}"
