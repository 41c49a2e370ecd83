"""Which spans a request makes, how they hang together, and what must not be in them."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from collecting import PARENT, TRACE, traced
from eventstream import follow, published

from fronted import Fronted
from gateway.context import tracestate_members
from gateway.endpoints import Endpoints
from gateway.exchange import Exchange
from gateway.front import FrontOptions
from gateway.tracing import spans
from gateway.tracing.attributes import path_of
from gateway.tracing.spans import MAX_ATTEMPTS
from scamp import keys
from scamp.client import ClientOptions
from scamp.discovery import Offer, parse_announcement
from scamp.testing import PeerRequest, ScriptedPeer, make_identity, until
from scamp.testing.scripts import (
    begun,
    dispatch_failure,
    failing,
    first,
    hang_up,
    silent,
    txerr,
    when,
)
from scamp.tickets import issue_ticket

FREE = ClientOptions(retries=2, retry_minimum=100)
ECHO = "POST /api/Test.echo~1"
FIELDS = "1,7,9,1700000,60"
SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-01")


# -- the tree ---------------------------------------------------------------------------


async def test_a_request_has_a_span_and_its_exchange_one_below_that_the_service_goes_on_with() -> (
    None
):
    peer = ScriptedPeer()
    async with traced(peer) as to:
        fields = [("X-Request-ID", "mine")]
        answer = await to.front.request("POST", "/api/Test.echo?x=1", fields, b"{}")
        assert answer.status == 200
        found = await to.spans(4)
    request, exchange = found[ECHO], found["Test/echo"]
    assert (request.kind, exchange.kind) == ("SERVER", "CLIENT")
    assert (request.parent, exchange.parent) == ("", request.span)
    assert peer.headers[0]["traceparent"] == f"00-{request.trace}-{exchange.span}-01"
    assert {one.trace for one in found.values()} == {request.trace}
    assert len({one.span for one in found.values()}) == 4
    assert to.front.log.lines[0]["trace_id"] == request.trace
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/{action}",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/api/Test.echo",
        "server.address": "test",
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "scamp.request_id": "mine",
    }
    assert exchange.attributes == {
        "rpc.system": "scamp",
        "rpc.service": "Test",
        "rpc.method": "echo",
        "peer.service": "peer",
        "server.address": peer.host,
        "server.port": peer.port,
        "scamp.sector": "main",
        "scamp.version": 1,
        "scamp.attempt": 1,
    }
    assert request.resource["service.name"] == "scamp-gateway"
    assert request.resource["service.instance.id"]
    # The first request of all has to wait for a connection, which has to be opened.
    queue, connect = found["queue"], found["connect"]
    assert (queue.parent, connect.parent) == (request.span, queue.span)
    assert request.start <= queue.start <= connect.start <= connect.end <= queue.end
    assert queue.end <= exchange.start <= exchange.end <= request.end
    assert not any(one.failed for one in found.values())


async def test_who_finds_a_connection_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "QUEUED", 60.0)  # seconds; a busy machine takes its millisecond
    async with traced(ScriptedPeer()) as to:
        await to.front.request("POST", "/api/Test.echo", body=b"{}")
        await to.spans(4)
        to.collector.spans.clear()
        await to.front.request("POST", "/api/Test.echo", body=b"{}")
        assert set(await to.spans(2)) == {ECHO, "Test/echo"}


async def test_who_waits_for_a_place_has_a_queue_span_without_a_connect_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spans, "QUEUED", 0.0)
    gate = asyncio.Event()
    options = ClientOptions(max_connections=1, max_streams=1)
    async with traced(ScriptedPeer(when(gate)), client=options) as to:
        ahead = asyncio.create_task(to.front.request("POST", "/api/Test.echo", body=b"1"))
        await until(lambda: to.front.mesh.in_flight == 1)
        behind = asyncio.create_task(to.front.request("POST", "/api/Test.echo", body=b"2"))
        await until(lambda: sum(view.waiting for view in to.front.mesh.views()) == 1)
        gate.set()
        await asyncio.gather(ahead, behind)
        await to.collector.named(ECHO, 2)
        queues = await to.collector.named("queue", 2)
        connects = await to.collector.named("connect")
    assert {one.parent for one in connects} == {queues[0].span}
    assert queues[1].attributes["scamp.attempt"] == 1


# -- whose trace ------------------------------------------------------------------------


async def test_a_callers_trace_goes_on() -> None:
    peer = ScriptedPeer()
    async with traced(peer, sample=0.0) as to:  # which is for traces that begin here
        state = ("tracestate", "vendor=1,other=x y")
        await to.front.request("POST", "/api/Test.echo", [SAMPLED, state], b"{}")
        found = await to.spans(4)
    assert found[ECHO].parent == PARENT
    assert {one.trace for one in found.values()} == {TRACE}
    assert {one.state for one in found.values()} == {state[1]}
    header = peer.headers[0]
    assert header["traceparent"] == f"00-{TRACE}-{found['Test/echo'].span}-01"
    assert header["tracestate"] == state[1]
    assert to.front.log.lines[0]["trace_id"] == TRACE


@pytest.mark.parametrize("sample", [None, 1.0])
async def test_a_caller_who_does_not_sample_is_respected(sample: float | None) -> None:
    peer = ScriptedPeer()
    async with traced(peer, sample=sample) as to:
        fields = [("traceparent", f"00-{TRACE}-{PARENT}-00"), ("tracestate", "vendor=1")]
        await to.front.request("POST", "/api/Test.echo", fields, b"{}")
        await to.front.request("POST", "/api/Test.echo", [SAMPLED], b"{}")
        await to.collector.named(ECHO)
    assert len([one for one in to.collector.spans if one.name == ECHO]) == 1
    _, trace, span, flags = peer.headers[0]["traceparent"].split("-")
    assert (trace, flags) == (TRACE, "00")
    assert span != PARENT
    assert peer.headers[0]["tracestate"] == "vendor=1"
    assert to.front.log.lines[0]["trace_id"] == TRACE


async def test_a_trace_that_is_not_sampled_here_is_not_by_services_either() -> None:
    peer = ScriptedPeer()
    async with traced(peer, sample=0.0) as to:
        await to.front.request("POST", "/api/Test.echo", body=b"{}")
        (line,) = to.front.log.lines
        _, trace, _, flags = peer.headers[0]["traceparent"].split("-")
        assert (trace, flags) == (line["trace_id"], "00")
        await to.tracing.close()
        assert not to.collector.asked


@pytest.mark.parametrize(("sample", "flags"), [(1.0, "01"), (0.0, "00"), (None, "01")])
async def test_strangers_can_be_kept_from_having_their_requests_sampled(
    sample: float | None, flags: str
) -> None:
    peer = ScriptedPeer()
    async with traced(peer, sample=sample, parent="restart") as to:
        fields = [SAMPLED, ("tracestate", "vendor=1")]
        await to.front.request("POST", "/api/Test.echo", fields, b"{}")
        if flags == "01":
            request = (await to.spans(4))[ECHO]
            assert request.trace != TRACE
            assert (request.parent, request.state) == ("", "")
            assert request.links == [(TRACE, PARENT)]
    assert bool(to.collector.spans) == (flags == "01")
    (header,) = peer.headers
    assert header["traceparent"].endswith(f"-{flags}")
    assert TRACE not in header["traceparent"]
    assert "tracestate" not in header
    assert TRACE != to.front.log.lines[0]["trace_id"] is not None


async def test_about_as_many_are_sampled_as_is_said() -> None:
    async with traced(ScriptedPeer(), sample=0.5) as to:
        for _ in range(100):
            await to.front.request("GET", "/nowhere")
        await to.tracing.close()
    assert 20 < len(to.collector.spans) < 80  # once in a billion runs not so


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "rubbish")],
        [SAMPLED, ("traceparent", f"00-{TRACE}-{PARENT}-00")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"ff-{TRACE}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01-more")],
        [("tracestate", "vendor=1")],
    ],
)
async def test_what_is_no_trace_does_not_count(headers: list[tuple[str, str]]) -> None:
    peer = ScriptedPeer()
    async with traced(peer) as to:
        await to.front.request("POST", "/api/Test.echo", headers, b"{}")
        request = (await to.spans(4))[ECHO]
    assert (request.parent, request.state) == ("", "")
    assert request.trace != TRACE
    assert "tracestate" not in peer.headers[0]


@pytest.mark.parametrize("state", ["no member", "a=1,a=2", "A=1", "a=1,=", "a=" + "x" * 600])
async def test_a_tracestate_that_is_none_costs_the_trace_nothing_and_makes_no_line(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with traced(ScriptedPeer()) as to:
        fields = [SAMPLED, ("tracestate", state)]
        await to.front.request("POST", "/api/Test.echo", fields, b"{}")
        request = (await to.spans(4))[ECHO]
    assert (request.trace, request.state) == (TRACE, "")
    assert not [one for one in caplog.records if one.name.startswith("opentelemetry")]


def test_a_tracestate_has_so_many_members_and_no_more() -> None:
    state = ",".join(f"k{number}=1" for number in range(32))
    assert len(tracestate_members(state)) == 32
    assert tracestate_members(f"{state},more=1") == []


# -- what goes wrong --------------------------------------------------------------------


async def test_each_attempt_has_a_span_and_the_service_sees_its_own() -> None:
    script = first(1, hang_up)
    peers = [ScriptedPeer(script, flags="noauth,read", identity=make_identity(n)) for n in (0, 1)]
    async with traced(*peers, client=FREE) as to:
        assert (await to.front.request("POST", "/api/Test.echo", body=b"x")).status == 200
        lost, answered = await to.collector.named("Test/echo", 2)
        request = await to.collector.one(ECHO)
    assert (lost.parent, answered.parent) == (request.span, request.span)
    assert (lost.failed, lost.attributes["error.type"]) == (True, "connection_lost")
    assert not answered.failed
    assert not request.failed
    assert [one.attributes["scamp.attempt"] for one in (lost, answered)] == [1, 2]
    seen = {one["traceparent"] for peer in peers for one in peer.headers}
    assert seen == {f"00-{request.trace}-{one.span}-01" for one in (lost, answered)}
    by_port = {peer.port: peer.headers[0]["traceparent"] for peer in peers}
    assert lost.span in by_port[lost.attributes["server.port"]]


async def test_a_service_that_is_not_there_has_a_connect_span_and_no_exchange() -> None:
    peer = ScriptedPeer()
    async with traced(peer, client=ClientOptions(retries=0)) as to:
        peer.stop_listening()
        assert (await to.front.request("POST", "/api/Test.echo", body=b"{}")).status == 502
        found = await to.spans(3)
    assert set(found) == {ECHO, "queue", "connect"}
    assert all(one.failed for one in found.values())
    assert {one.attributes["error.type"] for one in found.values()} == {"connect_failed"}
    assert found["connect"].attributes["server.port"] == peer.port
    assert found[ECHO].attributes["http.response.status_code"] == 502


@pytest.mark.parametrize(
    ("script", "status", "cause", "error", "code"),
    [
        (failing("not_found"), 404, "service_error", "not_found", "not_found"),
        (failing("boom"), 500, "service_error", "boom", "boom"),
        (failing("x" * 5000), 500, "service_error", "x" * 256, "x" * 256),
        (failing("", "only words"), 500, "service_error", "service_error", None),
        (dispatch_failure, 502, "dispatch_failed", "dispatch_failed", None),
        (txerr("no"), 502, "reply_failed", "reply_failed", None),
    ],
)
async def test_what_a_service_says_is_told(
    script: Any, status: int, cause: str, error: str, code: str | None
) -> None:
    async with traced(ScriptedPeer(script), client=ClientOptions(retries=0)) as to:
        answer = await to.front.request("POST", "/api/Test.echo", body=b"{}")
        found = await to.spans(4)
    assert answer.status == status
    request, exchange = found[ECHO], found["Test/echo"]
    assert request.failed == (status >= 500)
    assert request.attributes["error.type"] == to.front.log.lines[0]["cause"] == cause
    assert exchange.failed
    assert exchange.attributes["error.type"] == error
    assert exchange.attributes.get("scamp.error_code") == code


async def test_a_client_that_leaves() -> None:
    async with traced(ScriptedPeer(silent)) as to:
        wire = await to.front.connect()
        wire.send("POST", "/api/Test.echo", body=b"{}")
        await until(lambda: to.front.mesh.in_flight == 1)
        await wire.close()
        found = await to.spans(4)
    request, exchange = found[ECHO], found["Test/echo"]
    assert request.attributes["http.response.status_code"] == 499
    assert request.attributes["error.type"] == "client_left"
    assert not request.failed  # it is none of the server's
    assert exchange.attributes["error.type"] == "client_left"


async def test_an_answer_that_breaks_off_is_an_error_though_it_began_as_200() -> None:
    go_on = asyncio.Event()

    async def half(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(b"half")
        await go_on.wait()
        reply.fail("no")

    async with traced(ScriptedPeer(half)) as to:
        wire = await to.front.connect()
        wire.send("POST", "/api/Test.echo", body=b"{}")
        assert (await wire.head())[0] == 200
        go_on.set()
        found = await to.spans(4)
    for one in (found[ECHO], found["Test/echo"]):
        assert (one.failed, one.attributes["error.type"]) == (True, "reply_broken_off")
    assert found[ECHO].attributes["http.response.status_code"] == 200


async def test_a_long_answer_ends_its_exchange_when_it_ends() -> None:
    go_on = asyncio.Event()
    async with traced(ScriptedPeer(begun(b"piece", go_on))) as to:
        wire = await to.front.connect()
        wire.send("POST", "/api/Test.echo", body=b"{}")
        await wire.head()
        assert not to.collector.spans
        go_on.set()
        found = await to.spans(4)
    assert not found["Test/echo"].failed
    assert "error.type" not in found["Test/echo"].attributes


@pytest.mark.parametrize(
    ("method", "target", "name", "status", "cause"),
    [
        ("GET", "/nowhere/at/all", "GET", 404, "unknown_path"),
        ("GET", "/api/Test.gone", "GET /api/{action}", 404, "unknown_action"),
        ("PUT", "/api/Test.echo", "PUT /api/Test.echo~1", 405, "method_not_allowed"),
        ("PROPFIND", "/api/Test.echo", "HTTP /api/Test.echo~1", 405, "method_not_allowed"),
        ("GET", "/api//x", "GET", 400, "bad_path"),
    ],
)
async def test_what_the_gateway_answers_itself(
    method: str, target: str, name: str, status: int, cause: str
) -> None:
    async with traced(ScriptedPeer()) as to:
        assert (await to.front.request(method, target)).status == status
        request = (await to.spans(1))[name]
    assert (request.failed, request.attributes["error.type"]) == (False, cause)
    assert request.attributes["http.response.status_code"] == status
    assert request.attributes["http.request.method"] == (
        "_OTHER" if method == "PROPFIND" else method
    )
    assert to.front.log.lines[0]["trace_id"] == request.trace


async def test_what_is_no_http_has_a_span_too() -> None:
    async with traced(ScriptedPeer()) as to:
        wire = await to.front.connect()
        wire.writer.write(b"\x16\x03\x01 nothing like it\r\n\r\n")
        assert (await wire.head())[0] == 400
        await to.collector.until(lambda: len(to.collector.spans) == 1)
    assert to.collector.spans[0].attributes["error.type"] == "malformed_request"


class _Wandering:
    """An endpoint whose request waits at one instance after the other."""

    route = "/wandering"
    methods = ("GET",)

    def __init__(self, offer: Offer) -> None:
        self.offer = offer

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        assert exchange.trace is not None
        call = exchange.trace.call
        assert call is not None
        for number in range(MAX_ATTEMPTS * 3):
            call.waits(self.offer, "127.0.0.1:1", number)
            call.failed(None)
        call.waits(self.offer, "127.0.0.1:1", 99)
        assert call.starts(None)["traceparent"].startswith(f"00-{TRACE}-")
        await exchange.send_whole(200, None, b"")


async def test_attempts_without_end_have_spans_up_to_a_number() -> None:
    """Where an instance takes long to connect a request looks for another: that is no retry."""
    peer = ScriptedPeer()
    await peer.listen()
    offer = Offer(parse_announcement(peer.announcement()), peer.actions[0])
    await peer.stop()
    endpoints = Endpoints([("/wandering", _Wandering(offer))])
    async with traced(peer, endpoints=endpoints) as to:
        await to.front.request("GET", "/wandering", [SAMPLED])
        await to.collector.one("GET /wandering")
        queues = await to.collector.named("queue", MAX_ATTEMPTS)
    assert len(to.collector.spans) == MAX_ATTEMPTS + 1
    assert queues[0].attributes["error.type"] == "slow_connect"


# -- other things that are served -------------------------------------------------------


async def test_an_event_stream_has_a_span_of_its_beginning_only() -> None:
    async with (
        published(price={"apple": 3}) as shop,
        traced(shop, events_open=["shop"]) as to,
    ):
        browser = await follow(to.front, "/api/events/shop?code=price")
        (request,) = (await to.spans(1)).values()  # while it goes on
        assert request.name == "GET /api/events/{service}"
        assert request.attributes["http.response.status_code"] == 200
        await browser.close()
        (line,) = await to.front.log.until(1)
        assert line["trace_id"] == request.trace
    assert len(to.collector.spans) == 1


async def test_a_route_of_ones_own_names_the_span() -> None:
    routes = '[[routes]]\nmethod = "POST"\npath = "/carts/{id:int}"\naction = "Test.echo"\n'
    async with traced(ScriptedPeer(), routes=routes) as to:
        await to.front.request("POST", "/carts/7", body=b"{}")
        request = (await to.spans(4))["POST /carts/{id:int}"]
    assert request.attributes["http.route"] == "/carts/{id:int}"
    assert request.attributes["url.path"] == "/carts/7"


# -- secrets ----------------------------------------------------------------------------


async def test_no_ticket_and_nothing_that_a_caller_says_is_in_what_is_sent() -> None:
    secret = "s3cr3t"  # noqa: S105 - of no service
    headers = [
        ("Authorization", f"Bearer {secret}"),
        ("Cookie", f"ticket={secret}"),
        ("X-Whatever", secret),
        ("User-Agent", secret),
        ("Referer", f"https://x/?ticket={secret}"),
        SAMPLED,
    ]
    peer = ScriptedPeer(first(1, failing("no", secret, {"ticket": secret})))
    ticket = issue_ticket(
        keys.load_private_key(make_identity(0).key), user_id=7, client_id=9, privileges=(1,),
        start=1_700_000_000, length=3600,
    )  # fmt: skip
    targets = (
        f"/{ticket}",
        f"/api/{quote(ticket, safe='')}",
        f"/api/Test.echo?ticket={secret}",
        f"http://{secret}:{secret}@test/api/Test.echo?ticket={secret}",
        f"/api/Test.echo#{secret}",
        f"/nowhere?{secret}",
        f"*?{secret}",
    )
    async with traced(peer) as to:
        for target in targets:
            await to.front.request("POST", target, headers, f'"{secret}"'.encode())
        await to.front.request("POST", "/api/Test.echo", [("Host", f"{secret}@test"), SAMPLED])
        await to.collector.until(
            lambda: sum(one.kind == "SERVER" for one in to.collector.spans) == 8
        )
        assert peer.executed, "one of them has come through"
    assert to.collector.raw
    sent = b"".join(to.collector.raw)
    assert secret.encode() not in sent
    assert ticket.rpartition(",")[2][:20].encode() not in sent


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/api/x?y", "/api/x"),
        ("/api/x#y", "/api/x"),
        ("http://user:pass@host/api/x?y", "/api/x"),
        ("http://user:pass@host?y", "/"),
        ("user:pass@host:443", "/"),
        ("*", "/"),
        ("", "/"),
        ("/" + "x" * 999, "/" + "x" * 255),
        ("/\udcff", "/?"),
        (f"/{FIELDS},{'a' * 40}/{FIELDS},{'b' * 40}?x", "/[ticket][ticket]"),
        ("/" + FIELDS.replace(",", "\\u002c") + "\\u002cabcdefghijklmnop", "/[ticket]"),
    ],
)
def test_the_path_is_told_and_nothing_around_it(target: str, path: str) -> None:
    assert path_of(target) == path


@pytest.mark.parametrize("what", ["_samples", "write"])
async def test_spans_that_fail_cost_no_request(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise LookupError("no such sampler")

    monkeypatch.setattr(spans.Spans, what, fail)
    peer = ScriptedPeer()
    async with traced(peer) as to:
        for _ in range(2):
            answer = await to.front.request("POST", "/api/Test.echo", [SAMPLED], b"{}")
            assert (answer.status, answer.body) == (200, b"{}")
        assert to.front.front.in_flight == 0
        assert len(to.front.log.lines) == 2
    assert ("traceparent" in peer.headers[0]) == (what == "write")
    assert len([one for one in caplog.records if one.name == "gateway.tracing"]) == 2


async def test_bytes_that_are_no_text_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    async with traced(ScriptedPeer()) as to:
        await to.front.request("GET", "/\udcff\udc80")
        request = (await to.spans(1))["HTTP"]
    assert request.attributes["error.type"] == "malformed_request"
    assert not [one for one in caplog.records if one.levelname in ("ERROR", "WARNING")]


# -- without ----------------------------------------------------------------------------


async def test_without_tracing_traces_are_passed_on_as_ever() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer, options=FrontOptions()) as gateway:
        await gateway.request("POST", "/api/Test.echo", [SAMPLED, ("tracestate", "a=1")], b"{}")
        await gateway.request("POST", "/api/Test.echo", body=b"{}")
    passed, none = peer.headers
    assert passed["traceparent"].startswith(f"00-{TRACE}-")
    assert passed["tracestate"] == "a=1"
    assert "traceparent" not in none
    assert [line["trace_id"] for line in gateway.log.lines] == [TRACE, None]


# -- without a task ---------------------------------------------------------------------


async def test_only_requests_that_are_sampled_need_a_task() -> None:
    """And whether one is, is decided once: else fewer were than is said."""
    async with traced(ScriptedPeer(), sample=0.5) as to:
        await to.front.request("POST", "/api/Test.echo", (), b"{}")
        before, count = to.front.tasks, 400
        wire = await to.front.connect()
        for _ in range(count):
            wire.send("POST", "/api/Test.echo", (), b"{}")
            assert (await wire.answer()).status == 200
        sampled = to.front.tasks - before
        assert 130 < sampled < 270  # seven standard deviations; twice decided it would be 100
        assert len({line["trace_id"] for line in to.front.log.lines}) == count + 1


async def test_services_are_told_of_a_trace_without_a_task() -> None:
    peer = ScriptedPeer()
    async with traced(peer, sample=0.0) as to:
        for _ in range(2):
            await to.front.request("POST", "/api/Test.echo", (), b"{}")
        assert to.front.tasks == 1
        ids = [line["trace_id"] for line in to.front.log.lines]
        given = [one["traceparent"].split("-") for one in peer.headers]
    assert [one[1] for one in given] == ids
    assert [one[3] for one in given] == ["00", "00"]
