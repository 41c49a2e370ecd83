"""A request that is cancelled wherever it can be suspended leaves the gateway as it was.

Cancelled by a client that leaves, or by a process that does not wait any longer: afterwards nothing
is counted as under way or held, log and metrics know of it once, and the next request gets its own
answer.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal

import pytest
from aiohttp import web
from emptied import assert_tables_empty, quiet
from pretender import pretending
from prometheus_client.parser import text_string_to_metric_families
from stepping import How, Stepped, every_step, in_any_task

from fronted import Fronted, Wire
from gateway.auth import Authenticator
from gateway.events import hub
from gateway.front import FrontOptions
from gateway.openapi.documentation import Documentation
from gateway.openapi.endpoint import OpenApi
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.rate import Rate
from gateway.ratelimit.shared import SharedCounts
from gateway.whoami import WhoAmI
from scamp.authz import AuthzSource
from scamp.client import authz_fetcher
from scamp.testing import ScriptedPeer, make_identity, make_ticket, make_verifier, until
from scamp.testing.events import Publisher
from scamp.testing.peer_connection import PeerRequest, Script
from scamp.testing.scripts import echo, failing, first, hang_up

End = Literal["stopping", "result", "left", "any"]
"""``stopping``: the task is cancelled; ``result``: in the turn in which there is what it waits for;
``left``: the client's connection ends, and aiohttp cancels; ``any``: that, wherever any task is
suspended: what dials, uploads, fetches, makes documents or follows events."""

ENDS: Final[tuple[End, ...]] = ("stopping", "result", "left")
LARGE: Final = 300_000
TURNS: Final = 50
"""Of the loop, in which a piece of a body has been taken by whatever task takes it."""
TICKET: Final = ("Authorization", f"Bearer {make_ticket(privileges=[1])}")
TABLE: Final = b'{"test.echo": [1]}'
ROUTES: Final = """
[[routes]]
method = "PUT"
path = "/v1/{name}"
action = "Test.echo"
body = "data"
"""


class Stand:
    """What a scenario needs besides the gateway."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.publisher = Publisher({"price": {"a": 1}})

    async def front(self, *peers: ScriptedPeer, **options: Any) -> Fronted:
        return await self.stack.enter_async_context(Fronted(*peers, **options))

    async def echoing(self, script: Script = echo, **options: Any) -> Fronted:
        return await self.front(ScriptedPeer(script, flags="noauth,read"), **options)

    async def guarded(self) -> Fronted:
        """The privilege table is asked for by the first who needs it."""

        async def table(request: PeerRequest) -> None:
            await asyncio.sleep(0)
            await request.reply(TABLE)

        peers = (
            ScriptedPeer(table, actions=("Auth.getAuthzTable",), flags="noauth,read"),
            ScriptedPeer(flags="read", identity=make_identity(1)),
        )

        async def fetch() -> bytes:
            return await authz_fetcher(front.mesh.requester)()

        source = AuthzSource(fetch)
        front = await self.front(*peers, auth=Authenticator("enforce", make_verifier(), source))
        self.stack.push_async_callback(source.close)
        sectors = ("main",)
        whoami = WhoAmI(front.auth, front.mesh.registry, sectors=sectors, timeout=5)
        front.front.endpoints.add("/whoami", whoami)
        return front

    async def described(self) -> Fronted:
        """Asks services to describe themselves, and makes a document of it."""

        async def describe(request: PeerRequest) -> None:
            await request.reply(b'{"Test": {"echo": {"v1": {"description": "says it again"}}}}')

        scripts: dict[str, Script] = {"Test.echo": echo, "_meta.documentation": describe}
        peer = ScriptedPeer(scripts, actions=tuple(scripts), flags="noauth,read")
        front = await self.front(peer)
        registry = front.mesh.registry
        openapi = OpenApi(registry, front.auth, Documentation(registry, front.mesh.requester))
        self.stack.push_async_callback(openapi.close)
        front.front.endpoints.add("/openapi.json", openapi)
        return front

    async def counted(self) -> Fronted:
        """Counts requests in what looks like Redis."""
        redis = await self.stack.enter_async_context(pretending())
        counts = SharedCounts(redis.url, timeout=20)
        await counts.start()
        self.stack.push_async_callback(counts.close)
        return await self.echoing(limiter=RateLimiter(address=Rate.parse("9/d"), shared=counts))

    async def publishing(self) -> Fronted:
        peer = ScriptedPeer(self.publisher, flags="noauth,read")
        return await self.front(peer, events_open=("peer",))


@dataclass(frozen=True)
class Case:
    """One kind of request. `body` goes out in pieces, each when the one before has been taken."""

    at_least: int
    """Suspensions of its own."""
    front: Callable[[Stand], Awaitable[Fronted]] = Stand.echoing
    method: str = "GET"
    target: str = "/api/Test.echo?a=1"
    fields: tuple[tuple[str, str], ...] = ()
    body: tuple[bytes, ...] = ()
    status: int = 200


async def retried(stand: Stand) -> Fronted:
    return await stand.echoing(first(1, hang_up))


async def refusing(stand: Stand) -> Fronted:
    return await stand.echoing(failing("not_found"))


async def large(request: PeerRequest) -> None:
    await request.reply(b"x" * LARGE)


async def downloading(stand: Stand) -> Fronted:
    return await stand.front(
        ScriptedPeer(large, flags="noauth,read"),
        ScriptedPeer(actions=("Test.small",), flags="noauth,read", identity=make_identity(1)),
    )


async def packing(stand: Stand) -> Fronted:
    return await stand.echoing(options=FrontOptions(compress=True))


async def routed(stand: Stand) -> Fronted:
    return await stand.echoing(routes=ROUTES)


POST: Final = "/api/Test.echo"
PIECES: Final = tuple(b"y" * 50_000 for _ in range(4))
PACKED: Final = gzip.compress(b"z" * LARGE)
CASES: Final[dict[str, Case]] = {
    "read": Case(1),
    "held": Case(2, method="POST", target=POST, body=(b"[1", b"]")),
    "upload": Case(4, method="POST", target=POST, body=PIECES),
    "held for a route": Case(
        4, routed, "PUT", "/v1/x", body=(b'["', *(b"y" * 30_000 for _ in range(4)), b'"]')
    ),
    "download": Case(2, downloading),
    "retried": Case(3, retried),
    "refused": Case(1, refusing, status=404),
    "unknown": Case(0, target="/api/Test.none", status=404),
    "privileges": Case(2, Stand.guarded, fields=(TICKET,)),
    "whoami": Case(2, Stand.guarded, target="/whoami", fields=(TICKET,)),
    "no ticket": Case(0, Stand.guarded, status=401),
    "counted": Case(2, Stand.counted),
    "described": Case(2, Stand.described, target="/openapi.json"),
    "packed": Case(
        3,
        packing,
        "POST",
        POST,
        (("Content-Encoding", "gzip"), ("Accept-Encoding", "gzip")),
        (PACKED[:20], PACKED[20:100], PACKED[100:]),
    ),
    "events": Case(2, Stand.publishing, target="/api/events/peer?code=price"),
}
WITH_OTHERS: Final = (*("upload", "privileges", "counted", "described", "events"),)
"""Those for which other tasks do something."""


class Handled:
    """Stands between aiohttp and the front: the first request is run step by step."""

    def __init__(self, front: Fronted, stepped: Stepped, end: End) -> None:
        self._front = front
        self._stepped = stepped
        self._end = end
        self._first = True
        stepped.counting = end != "any"  # then from when there is a request until it has ended
        self.ended = asyncio.Event()
        """The first request has been handled, or cancelled."""
        assert front._server is not None
        front._server.request_handler = self.handle

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        handle = self._front.front.handle(request)
        if not self._first:
            return await handle
        self._first = False
        if self._end in ("left", "any"):
            transport = request.transport
            assert transport is not None
            self._stepped.cancel = transport.abort
        try:
            if self._end == "any":
                self._stepped.counting = True
                return await handle
            return await self._stepped(handle)
        finally:
            self._stepped.counting = False
            self.ended.set()


async def send(wire: Wire, case: Case, stepped: Stepped, handled: Handled) -> None:
    """The request, its body piece by piece as the handler comes to wait for it."""
    fields = list(case.fields)
    if case.body:
        fields.append(("Content-Length", str(sum(map(len, case.body)))))
    wire.send(case.method, case.target, fields)
    for piece in case.body:
        before = stepped.seen
        for _ in range(TURNS):
            if handled.ended.is_set():
                return
            if stepped.seen > before:
                break
            await asyncio.sleep(0)
        wire.writer.write(piece)


async def receive(wire: Wire, case: Case, stand: Stand) -> None:
    """All of the answer, or what comes of it."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        if not case.target.startswith("/api/events"):
            answer = await wire.answer(case.method)
            if answer.whole:
                assert answer.status in (case.status, 503)
            return
        await wire.head()
        await wire.reader.readuntil(b"snapshot")
        stand.publisher.put("price", "a", 2)
        await wire.reader.readuntil(b'"value":2')


def counted(front: Fronted) -> float:
    """Requests that the metrics know of."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(front.scrape())
        for sample in family.samples
        if sample.name == "scamp_gateway_requests_total"
    )


@asynccontextmanager
async def asked(case: Case, stepped: Stepped, end: End) -> AsyncIterator[tuple[Fronted, bool]]:
    """A gateway that had the request, and whether it was cancelled."""
    async with AsyncExitStack() as stack:
        stand = Stand(stack)
        front = await case.front(stand)
        handled = Handled(front, stepped, end)
        with in_any_task(stepped) if end == "any" else nullcontext():
            wire = await front.connect()
            receiving = asyncio.create_task(receive(wire, case, stand))
            await send(wire, case, stepped, handled)
            await receiving
            await wire.close()
            await handled.ended.wait()
        yield front, stepped.cut


async def check(front: Fronted, case: Case, end: End, *, cut: bool) -> None:
    """What has to be true afterwards."""
    assert (front.front.in_flight, front.front._serving.held, front.hub.streams) == (0, 0, 0)
    assert len(front.log.lines) == 1
    assert counted(front) == 1
    line = front.log.lines[0]
    if not cut:
        assert line["status"] == case.status
    elif end in ("left", "any"):
        assert line["status"] in (499, 200), line
        assert line["cause"] == "client_left", line
    else:
        assert line["status"] in (503, case.status)
        assert line["cause"] is not None or end == "result"
    await until(lambda: quiet(front.mesh))
    await front.mesh.settled()
    assert_tables_empty(front.mesh)
    await ask_again(front, case)
    assert front.front.in_flight == 0
    await until(lambda: quiet(front.mesh))
    assert_tables_empty(front.mesh)
    assert front.mesh.requester.stats.stray_replies == 0


async def ask_again(front: Fronted, case: Case) -> None:
    """A request that is not cancelled gets its own answer."""
    if "events" in case.target:
        wire = await front.connect()
        wire.send("GET", case.target)
        assert (await wire.head())[0] == 200
        await wire.reader.readuntil(b"snapshot")
        await wire.close()
        await until(lambda: front.hub.streams == 0)
        return
    if case.status != 200:
        answer = await front.request(case.method, case.target, case.fields)
        assert answer.status == case.status
        return
    if case.front is downloading:
        answer = await front.request("POST", "/api/Test.small", body=b"[2]")
    elif case.body:
        answer = await front.request("POST", POST, body=b"[2]")
    else:
        answer = await front.request("GET", "/api/Test.echo?b=2", case.fields)
        assert (answer.status, answer.body) == (200, b'{"b":"2"}')
        return
    assert (answer.status, answer.body) == (200, b"[2]")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        *product(CASES, ENDS),
        *(pytest.param(name, "any", marks=pytest.mark.one_loop) for name in WITH_OTHERS),
    ],
)
async def test_cancelled_at_every_suspension(
    name: str, end: End, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub, "LINGER", 0.01)
    case = CASES[name]
    how: How = "resumed" if end == "result" else "waiting"
    async for stepped in every_step(how, at_least=case.at_least):
        async with asked(case, stepped, end) as (front, cut):
            await check(front, case, end, cut=cut)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
