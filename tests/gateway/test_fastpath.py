"""Requests that are served without a task: which they are, and that nobody can tell."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from emptied import assert_tables_empty, quiet
from hypothesis import given, settings
from hypothesis import strategies as st

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.cors import Cors
from gateway.credentials import Credentials
from gateway.fastpath import MAX_BODY, FastPath
from gateway.flight import Flight
from gateway.front import FrontOptions
from gateway.passes import MAX_PASS, MAX_PASSES, MAX_PERMITS, Passes
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.rate import Rate
from gateway.shapes import MAX_SHAPE, MAX_SHAPES, Shapes
from scamp.authz import AuthzSource
from scamp.client import ClientOptions
from scamp.testing import PeerRequest, ScriptedPeer, make_ticket, make_verifier, until
from scamp.testing.peer_connection import Script
from scamp.testing.scripts import begun, by_body, echo, failing, first, hang_up, silent, txerr, when

ECHO = "/api/Test.echo"
TICKET = make_ticket(privileges=[1])
BEARER = ("Authorization", f"Bearer {TICKET}")
JSON = ("Content-Type", "application/json")


def echoing(script: Script = echo, **options: Any) -> ScriptedPeer:
    return ScriptedPeer(script, flags=options.pop("flags", "noauth"), **options)


class Table:
    """A privilege table that can be replaced."""

    def __init__(self, text: bytes = b'{"test.echo": [1]}') -> None:
        self.text = text

    async def __call__(self) -> bytes:
        return self.text


def enforcing(table: Table | None = None, **options: Any) -> Authenticator:
    return Authenticator("enforce", make_verifier(), AuthzSource(table or Table()), **options)


async def warm(gateway: Fronted, *fields: tuple[str, str]) -> None:
    """Let path, peer and ticket be known."""
    assert (await gateway.request("POST", ECHO, fields, b"{}")).status == 200


async def test_a_usual_request_needs_no_task() -> None:
    async with Fronted(echoing(flags=""), auth=enforcing()) as gateway:
        await warm(gateway, BEARER)
        before = gateway.tasks
        wire = await gateway.connect()
        for number in range(3):
            wire.send("POST", ECHO, (BEARER, JSON), b"[%d]" % number)
            answer = await wire.answer()
            assert (answer.status, answer.body) == (200, b"[%d]" % number)
        assert gateway.tasks == before
        line = gateway.log.lines[-1]
    assert (line["status"], line["user_id"], line["bytes_in"], line["bytes_out"]) == (200, 1, 3, 3)
    assert gateway.auth.results["valid"] == 4


UNUSUAL: dict[str, tuple[str, str, tuple[tuple[str, str], ...], bytes | None]] = {
    "unknown path": ("POST", "/api/Made.up", (), b"{}"),
    "other method": ("DELETE", ECHO, (), b"{}"),
    "preflight": ("OPTIONS", ECHO, (), None),
    "fragment": ("GET", f"{ECHO}?a=b#c", (), None),
    "bad query": ("GET", f"{ECHO}?a=%zz", (), None),
    "a body with GET": ("GET", ECHO, (), b"{}"),
    "HEAD": ("HEAD", ECHO, (), None),
    "a deadline": ("POST", ECHO, (("X-SCAMP-Timeout", "5"),), b"{}"),
    "two ids": ("POST", ECHO, (("X-Request-ID", "a"), ("X-Request-ID", "b")), b"{}"),
    "two types": ("POST", ECHO, (JSON, JSON), b"{}"),
    "another type": ("POST", ECHO, (("Content-Type", "text/plain"),), b"{}"),
    "two hosts": ("POST", ECHO, (("Host", "other"),), b"{}"),
    "upgrade": ("POST", ECHO, (("Upgrade", "h2c"), ("Connection", "Upgrade")), b"{}"),
    "the last": ("POST", ECHO, (("Connection", "close"),), b"{}"),
    "asked to go on": ("POST", ECHO, (("Expect", "100-continue"),), b"{}"),
    "unheard of": ("POST", ECHO, (("Expect", "wonders"),), b"{}"),
    "compressed": ("POST", ECHO, (("Content-Encoding", "gzip"),), b"{}"),
    "another coding": ("POST", ECHO, (("Content-Encoding", "br"),), b"{}"),
    "a bad ticket": ("POST", ECHO, (("X-SCAMP-Ticket", "no"),), b"{}"),
    "two tickets": ("POST", ECHO, (BEARER, ("X-SCAMP-Ticket", "no")), b"{}"),
    "another scheme": ("POST", ECHO, (("Authorization", "Basic dTpw"),), b"{}"),
    "large": ("POST", ECHO, (), b"x" * (MAX_BODY + 1)),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_an_unusual_request_has_one(name: str) -> None:
    async with Fronted(echoing(flags="noauth,read"), auth=enforcing()) as gateway:
        await warm(gateway)
        before = gateway.tasks
        await gateway.request(*UNUSUAL[name])
        assert gateway.tasks == before + 1


USUAL: dict[str, tuple[str, str, tuple[tuple[str, str], ...], bytes | None]] = {
    "POST": ("POST", ECHO, (JSON,), b"[1]"),
    "no type": ("POST", ECHO, (), b"[1]"),
    "a charset": ("POST", ECHO, (("Content-Type", "application/json; charset=utf-8"),), b"[1]"),
    "no body": ("POST", ECHO, (), None),
    "an empty one": ("POST", ECHO, (JSON,), b""),
    "GET": ("GET", f"{ECHO}?a=1&b=2&a=3", (), None),
    "an id": ("POST", ECHO, (("X-Request-ID", "mine"),), b"[1]"),
    "no id": ("POST", ECHO, (("X-Request-ID", "not mine"),), b"[1]"),
    "a trace": ("POST", ECHO, (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),), b"[1]"),
    "forwarded": ("POST", ECHO, (("X-Forwarded-For", "192.0.2.1"),), b"[1]"),
    "a ticket": ("POST", ECHO, (BEARER,), b"[1]"),
    "another place": ("POST", ECHO, (("x-scamp-ticket", TICKET),), b"[1]"),
}

OPTIONS: dict[str, FrontOptions] = {
    "plain": FrontOptions(),
    "pages": FrontOptions(cors=Cors(["https://app.example"])),
    "any page": FrontOptions(cors=Cors(["*"])),
    "timing": FrontOptions(server_timing=True),
    "compressing": FrontOptions(compress=True),
    "small": FrontOptions(max_body=2),
}

COUNTED = tuple(
    f"scamp_gateway_{name}"
    for name in ("requests_total", "request_", "response_", "upstream_", "own_", "tickets", "in_fl")
)
_VARIES = frozenset(("Date", "Server-Timing"))
_TIMES = frozenset(("time", "total_ms", "upstream_ms", "queue_ms", "instance"))


def shown(answer: Answer, line: dict[str, Any], *, given: bool) -> object:
    """What can be compared: not the time, the port, nor an id of our own."""
    fields = [one for one in answer.headers.items() if one[0] not in _VARIES]
    said = {name: value for name, value in line.items() if name not in _TIMES}
    body = answer.body.replace(answer.headers["X-Request-ID"].encode(), b"ID")
    if not given:
        fields = [one for one in fields if one[0] != "X-Request-ID"]
        del said["request_id"]
    return answer.status, fields, body, said


@pytest.mark.parametrize("options", OPTIONS)
async def test_nobody_can_tell(options: str) -> None:
    """The same bytes, but for the time, the same line in the log, the same HEADER, the same
    numbers."""
    seen = []
    for fast in (True, False):
        peer = echoing(flags="noauth,read")
        auth, those = enforcing(), OPTIONS[options]
        async with Fronted(peer, auth=auth, options=those, fast=fast) as gateway:
            for fields in ((), (BEARER,), (("X-SCAMP-Ticket", TICKET),)):
                await gateway.request("POST", ECHO, fields, b"")
            before, told = gateway.tasks, []
            for name, (method, target, head, body) in USUAL.items():
                answer = await gateway.request(method, target, head, body)
                told.append(shown(answer, gateway.log.lines[-1], given=name == "an id"))
            if options == "plain":
                assert gateway.tasks == before + (0 if fast else len(USUAL))
            counted = sorted(
                line
                for line in gateway.scrape().splitlines()
                if line.startswith(COUNTED) and "_bucket" not in line and "_sum" not in line
            )
            headers = [
                {name: value for name, value in one.items() if name != "request_id"}
                for one in peer.headers
            ]
            for one in headers:  # a span id is made anew each time
                one.pop("traceparent", None)
            seen.append((told, auth.results, headers, counted))
    assert seen[0] == seen[1]


ROUTES = """
[[routes]]
method = "GET"
path = "/v1/{id:int}"
action = "Test.echo"

[[routes]]
method = "PUT"
path = "/v1/{id:int}"
action = "Test.echo"
body = "data"
status = 202
rate = "100/1h"

[[routes]]
method = "POST"
path = "/v1"
action = "Test.echo"
body = "*"
query = {}
status = 201
produces = "application/vnd.shop+json"

[[routes]]
method = "POST"
path = "/raw"
action = "Test.echo"
body = "*"
consumes = ["application/json"]
"""

ROUTED: dict[str, tuple[str, str, bytes | None, bool]] = {
    "by path": ("GET", "/v1/7?a=b", None, True),
    "by path and body": ("PUT", "/v1/7", b"[1]", True),
    "the body": ("POST", "/v1", b'{"a": 1.50}', True),
    "no body": ("POST", "/v1", None, True),
    "spelt otherwise": ("GET", "/v1/%37", None, True),
    "not an int": ("GET", "/v1/x", None, False),
    "another method": ("DELETE", "/v1/7", None, False),
    "given twice": ("GET", "/v1/7?id=8", None, False),
    "unwanted body": ("GET", "/v1/7", b"{}", False),
    "no JSON": ("PUT", "/v1/7", b"[", False),
    "its own types": ("POST", "/raw", b"{}", False),
    "a preflight": ("OPTIONS", "/v1/7", None, False),
}


async def test_routes_of_the_routes_file_need_none_either() -> None:
    seen = []
    for fast in (True, False):
        peer = echoing(flags="noauth,read,update")
        limiter = RateLimiter(client=Rate(100, 60, 100))
        async with Fronted(peer, routes=ROUTES, limiter=limiter, fast=fast) as gateway:
            await warm(gateway)
            told = []
            for method, target, body, usual in ROUTED.values():
                head = (JSON,) if body else ()
                await gateway.request(method, target, head, body)  # now the route has its plan
                before = gateway.tasks
                answer = await gateway.request(method, target, head, body)
                if fast:
                    assert (gateway.tasks == before) == usual, target
                told.append(shown(answer, gateway.log.lines[-1], given=False))
            seen.append((told, [one["action"] for one in peer.headers]))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((("Content-Type", "application/json\udca0"),), 415),
        ((("Content-Type", "\udc85application/json; a"),), 415),
        ((("Content-Type", "application/json\xa0"),), 200),
        ((("X-SCAMP-Ticket", f"{TICKET}\udca0"),), 401),
        ((("Authorization", f"Bearer\xa0{TICKET}"),), 401),
    ],
)
async def test_what_is_blank_depends_on_the_encoding(
    fields: tuple[tuple[str, str], ...], status: int
) -> None:
    for fast, _ in product((True, False), range(2)):
        async with Fronted(echoing(flags=""), auth=enforcing(), fast=fast) as gateway:
            await warm(gateway, BEARER)
            given = fields if status == 401 else (BEARER, *fields)
            assert (await gateway.request("POST", ECHO, given, b"{}")).status == status


async def test_a_target_of_another_host_is_refused_though_its_path_is_known() -> None:
    """What stands before us may tell hosts apart, and by either of them."""
    target = f"http://test{ECHO}"
    async with Fronted(echoing()) as gateway:
        for _ in range(2):
            assert (await gateway.request("POST", target, (), b"{}")).status == 200
        wire = await gateway.connect()
        wire.writer.write(f"POST {target} HTTP/1.1\r\nHost: other\r\n\r\n".encode())
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (400, "bad_path")


async def test_limits_are_counted_without_a_task() -> None:
    """Each request once, with the same fields, until there is none left."""
    seen = []
    for fast in (True, False):
        limiter = RateLimiter(
            user=Rate(5, 3600, 5), address=Rate(6, 3600, 6), client=Rate(100, 60, 100)
        )
        async with Fronted(echoing(), auth=enforcing(), limiter=limiter, fast=fast) as gateway:
            before, told = 0, []
            for fields in [()] * 7 + [(BEARER,)] * 7:
                answer = await gateway.request("POST", ECHO, fields, b"{}")
                told.append(
                    (answer.status, answer.headers.get("RateLimit", "").partition(";t=")[0])
                )
                before += answer.status != 200
            assert gateway.tasks == (before + 1 if fast else 14)  # the first, and refused ones
            seen.append((told, limiter.limited))
    assert seen[0] == seen[1]
    assert [status for status, _ in seen[0][0]] == [200] * 6 + [429] + [200] * 5 + [429] * 2


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    """Whichever way each of them goes."""
    async with Fronted(echoing()) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.send("POST", ECHO, (), b"[0]")
        await wire.answer()  # aiohttp reads
        for unusual in (50, 3):
            before = gateway.tasks
            for number in range(1, 40):
                fields = () if number % unusual else (("X-SCAMP-Timeout", "9"),)
                wire.send("POST", ECHO, fields, b"[%d]" % number)
            for number in range(1, 40):
                assert (await wire.answer()).body == b"[%d]" % number
            assert (gateway.tasks == before) == (unusual == 50)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 700), max_size=12).map(sorted), count=st.integers(1, 6))
async def test_requests_in_pieces(cuts: list[int], count: int) -> None:
    """However the bytes come."""
    async with Fronted(echoing()) as gateway:
        wire = await gateway.connect()
        whole = b"".join(
            b"POST %b HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n[%d]"
            % (ECHO.encode(), one)
            for one in range(count)
        )
        last = 0
        for cut in [*(one for one in cuts if one < len(whole)), len(whole)]:
            wire.writer.write(whole[last:cut])
            await wire.writer.drain()
            await asyncio.sleep(0)
            last = cut
        for number in range(count):
            assert (await wire.answer()).body == b"[%d]" % number


@pytest.mark.parametrize("cut", [0, 10, 40_000])
async def test_a_body_that_fills_the_window_needs_no_task_either(
    cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is looked at when it begins and when it is whole, however many reads there are."""
    bodies: list[bytes] = []
    tries: list[object] = []
    begin = FastPath.begin

    def counted(*args: Any, **named: Any) -> Flight | None:
        tries.append(begin(*args, **named))
        return tries[-1]  # type: ignore[return-value]

    async def script(request: PeerRequest) -> None:
        bodies.append(bytes(request.body))
        await request.reply(b"{}")

    async with Fronted(echoing(script)) as gateway:
        await warm(gateway)
        before = gateway.tasks
        wire = await gateway.connect()
        server = gateway._server
        assert server is not None
        await until(lambda: server.connections)
        connection = server.connections[-1]
        monkeypatch.setattr(FastPath, "begin", counted)
        body = bytes(range(256)) * (MAX_BODY // 256)
        head = f"POST {ECHO} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
        data = head.encode() + body
        for piece in (data[:cut], data[cut:]):
            connection.data_received(piece)
        assert (await wire.answer()).body == b"{}"
        assert gateway.tasks == before
    assert bodies[-1] == body
    assert [attempt is None for attempt in tries] == [True, False]


async def test_a_body_right_behind_its_head_is_waited_for() -> None:
    """But not for long: the usual limits begin then."""
    limits = FrontOptions(body_idle=0.2)
    async with Fronted(echoing(), options=limits) as gateway:
        await warm(gateway)
        before = gateway.tasks
        wire = await gateway.connect()
        head = f"POST {ECHO} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n".encode()
        wire.writer.write(head)
        await wire.writer.drain()
        await asyncio.sleep(0)
        wire.writer.write(b"[1]")
        assert (await wire.answer()).body == b"[1]"
        wire.writer.write(head + b"[")
        assert (await wire.answer()).json()["code"] == "request_timeout"
        assert before < gateway.tasks <= before + 2
        assert await wire.ended()


async def test_a_drain_does_not_forget_a_body_that_is_waited_for() -> None:
    async with Fronted(echoing()) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.writer.write(f"POST {ECHO} HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[".encode())
        await wire.writer.drain()
        gateway.drain()
        wire.writer.write(b"1]")
        answer = await wire.answer()
        assert (answer.body, answer.headers["Connection"]) == (b"[1]", "close")


REPLIES: dict[str, tuple[Script, int, str | None]] = {
    "the service's error": (failing("not_found"), 404, "not_found"),
    "given up": (txerr(), 502, None),
    "lost": (hang_up, 502, None),
    "silence": (silent, 504, None),
}


@pytest.mark.parametrize("name", REPLIES)
async def test_what_comes_in_place_of_a_reply(name: str) -> None:
    script, status, code = REPLIES[name]
    peer = echoing(by_body({b"[9]": script}), flags="noauth,t1")
    async with Fronted(peer, client=ClientOptions(retries=0)) as gateway:
        await warm(gateway)
        before = gateway.tasks
        answer = await gateway.request("POST", ECHO, (), b"[9]")
        assert answer.status == status
        assert gateway.tasks == before + 1  # it was handed over
        line = gateway.log.lines[-1]
        assert (line["status"], line["upstream_code"], line["attempts"]) == (status, code, 1)
        await until(lambda: quiet(gateway.mesh))
        assert_tables_empty(gateway.mesh)


async def test_a_reply_that_comes_in_pieces_is_streamed() -> None:
    more = asyncio.Event()
    peer = echoing(by_body({b"[9]": begun(b"[1,", more)}))
    async with Fronted(peer) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.send("POST", ECHO, (), b"[9]")
        status, headers = await wire.head()
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        assert await wire.chunk() == b"[1,"
        more.set()
        rest = b""
        while piece := await wire.chunk():
            rest += piece
        wire.send("POST", ECHO, (), b"[2]")
        assert (await wire.answer()).body == b"[2]"
    assert rest == b"[1,"


async def test_a_read_that_is_lost_is_tried_elsewhere() -> None:
    """Though it is sent without a task."""
    peers = [
        echoing(first(1, echo, first(1, hang_up)), flags="noauth,read"),
        echoing(flags="read,noauth"),
    ]
    async with Fronted(*peers) as gateway:
        for number in range(20):
            answer = await gateway.request("GET", f"{ECHO}?n={number}")
            assert (answer.status, answer.json()) == (200, {"n": str(number)})
        assert any(line["attempts"] > 1 for line in gateway.log.lines)


async def test_a_client_that_leaves_abandons_its_request() -> None:
    go = asyncio.Event()
    peer = echoing(by_body({b"[9]": when(go)}))
    async with Fronted(peer) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.send("POST", ECHO, (), b"[9]")
        await until(lambda: gateway.front.in_flight == 1 and len(peer.headers) == 2)
        await wire.close()
        (_, line) = await gateway.log.until(2)
        assert (line["status"], line["cause"], line["attempts"]) == (499, "client_left", None)
        assert line["bytes_in"] == 3
        assert gateway.front.in_flight == 0
        go.set()
        assert (await gateway.request("POST", ECHO, (), b"[1]")).body == b"[1]"
        await until(lambda: quiet(gateway.mesh))
        assert_tables_empty(gateway.mesh)


async def test_a_drain_ends_the_connection_with_the_answer() -> None:
    go = asyncio.Event()
    peer = echoing(by_body({b"[9]": when(go)}))
    async with Fronted(peer) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.send("POST", ECHO, (), b"[9]")
        await until(lambda: len(peer.headers) == 2)
        gateway.drain()
        go.set()
        answer = await wire.answer()
        assert (answer.status, answer.body, answer.headers["Connection"]) == (200, b"[9]", "close")
        assert await wire.ended()


async def test_who_is_under_way_at_the_end_is_told() -> None:
    peer = echoing(by_body({b"[9]": silent}))
    async with Fronted(peer) as gateway:
        await warm(gateway)
        wires = [await gateway.connect() for _ in range(5)]
        for wire in wires:
            wire.send("POST", ECHO, (), b"[9]")
        await until(lambda: len(peer.headers) == 6)
        await gateway.stop()
        for wire in wires:
            answer = await wire.answer()
            assert (answer.status, answer.json()["code"]) == (503, "stopping")
        assert gateway.front.in_flight == 0
        assert [line["cause"] for line in gateway.log.lines[1:]] == ["stopping"] * 5


async def test_who_does_not_read_is_not_written_to() -> None:
    """A client that sends and never reads fills its buffer, and has to wait from then on."""
    async with Fronted(echoing()) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        body = b"x" * (MAX_BODY - 1)
        sending = asyncio.ensure_future(_send(wire, body, 2000))
        last = -1
        while last != len(gateway.log.lines):  # until nothing moves
            last = len(gateway.log.lines)
            await asyncio.sleep(0.3)
        assert last < 1500
        for _ in range(2000):
            assert (await wire.answer()).body == body
        await sending


async def _send(wire: Any, body: bytes, count: int) -> None:
    for _ in range(count):
        wire.send("POST", ECHO, (), body)
        await wire.writer.drain()


# -- tickets ----------------------------------------------------------------------------


async def test_a_ticket_passes_as_long_as_it_is_good() -> None:
    now = [time.time()]
    ticket = make_ticket(privileges=[1], now=now[0], starts_in=0, expires_in=100)
    bearer = ("Authorization", f"Bearer {ticket}")
    auth = enforcing(clock=lambda: now[0])
    async with Fronted(echoing(flags=""), auth=auth) as gateway:
        await warm(gateway, bearer)
        before = gateway.tasks
        await warm(gateway, bearer)
        assert gateway.tasks == before
        now[0] += 101
        answer = await gateway.request("POST", ECHO, (bearer,), b"{}")
        assert (answer.status, answer.json()["code"]) == (401, "ticket_invalid")
        now[0] -= 200
        assert (await gateway.request("POST", ECHO, (bearer,), b"{}")).status == 401
    assert auth.results == {"valid": 2, "expired": 1, "not_yet_valid": 1}


async def test_a_ticket_that_was_not_seen_before_needs_no_task_either() -> None:
    auth = enforcing()
    async with Fronted(echoing(flags=""), auth=auth) as gateway:
        await warm(gateway, BEARER)
        before = gateway.tasks
        for user in range(5):
            ticket = make_ticket(privileges=[1], user_id=user)
            await warm(gateway, ("Authorization", f"bearer  {ticket} "))
        assert gateway.tasks == before
        forged = make_ticket(privileges=[1], signer=5)
        answer = await gateway.request("POST", ECHO, (("X-SCAMP-Ticket", forged),), b"{}")
        assert (answer.status, answer.json()["code"]) == (401, "ticket_invalid")
        poor = make_ticket(privileges=[2])
        assert (await gateway.request("POST", ECHO, (("X-SCAMP-Ticket", poor),), b"")).status == 403
    assert auth.results == {"valid": 7, "bad_signature": 1}
    assert auth.refusals == {"privilege": 1}


async def test_other_keys_know_no_ticket_of_before() -> None:
    auth = enforcing()
    async with Fronted(echoing(flags=""), auth=auth) as gateway:
        await warm(gateway, BEARER)
        await warm(gateway, BEARER)
        assert auth.verifier is not None
        auth.verifier.replace_keys([])
        for _ in range(2):
            assert (await gateway.request("POST", ECHO, (BEARER,), b"{}")).status == 401


async def test_another_table_is_asked_anew() -> None:
    table, now = Table(), [0.0]
    source = AuthzSource(table, ttl=10.0, clock=lambda: now[0])
    auth = Authenticator("enforce", make_verifier(), source)
    async with Fronted(echoing(flags=""), auth=auth) as gateway:
        await warm(gateway, BEARER)
        await warm(gateway, BEARER)
        table.text = b'{"test.echo": [1, 2]}'
        now[0] = 11.0
        await until_status(gateway, 403)
        assert (await gateway.request("POST", ECHO, (BEARER,), b"{}")).status == 403


async def until_status(gateway: Fronted, status: int) -> None:
    """The new table comes behind."""
    async with asyncio.timeout(10):
        while (await gateway.request("POST", ECHO, (BEARER,), b"{}")).status != status:
            pass


async def test_what_one_action_permits_says_nothing_of_another() -> None:
    peer = ScriptedPeer(actions=("Test.echo", "Test.other", "Test.open"), flags="")
    table = Table(b'{"test.echo": [1], "test.other": [2]}')
    async with Fronted(peer, auth=enforcing(table)) as gateway:
        for _ in range(2):
            await warm(gateway, BEARER)
            for other in ("/api/Test.other", "/api/Test.open"):
                assert (await gateway.request("POST", other, (BEARER,), b"{}")).status == 403


async def test_a_ticket_in_one_field_says_nothing_of_another() -> None:
    """``Bearer ...`` is what a ticket looks like in ``Authorization`` only."""
    async with Fronted(echoing(flags=""), auth=enforcing()) as gateway:
        await warm(gateway, BEARER)
        for name, value in (("X-SCAMP-Ticket", f"Bearer {TICKET}"), ("Authorization", TICKET)):
            assert (await gateway.request("POST", ECHO, ((name, value),), b"{}")).status == 401


@pytest.mark.parametrize("mode", ["verify", "forward"])
async def test_other_modes_remember_as_well(mode: Any) -> None:
    peer = echoing(flags="")
    auth = Authenticator(mode, make_verifier())
    async with Fronted(peer, auth=auth) as gateway:
        await warm(gateway, BEARER)
        before = gateway.tasks
        await warm(gateway, BEARER)
        assert gateway.tasks == before
        assert [one["ticket"] for one in peer.headers] == [TICKET] * 2
    assert auth.results == {"valid" if mode == "verify" else "forwarded": 2}


def test_what_a_spelling_permits_says_nothing_of_another_with_its_label() -> None:
    """Sectors and actions are named by services: an action of main may be spelled like another
    sector's is labelled."""

    async def permitted() -> list[bool]:
        auth = enforcing(Table(b'{"test.echo": [1], "far:test.echo": [2]}'))
        assert auth.authz is not None
        await auth.authz.get()
        asked = Passes(auth)
        value = f"Bearer {TICKET}".encode()
        actions = [Asked("Test.echo"), Asked("far:Test.echo"), Asked("Test.echo")]
        return [asked.caller("authorization", value, one) is not None for one in actions]

    assert asyncio.run(permitted()) == [True, False, True]


@dataclass(frozen=True)
class Asked:
    spelling: str
    label: str = "far:Test.echo~1"
    noauth: bool = False
    privileges: bool = True


async def test_a_cookie_goes_the_long_way() -> None:
    auth = enforcing(credentials=Credentials("ticket"))
    async with Fronted(echoing(flags=""), auth=auth) as gateway:
        await warm(gateway, BEARER)
        before = gateway.tasks
        cookie = ("Cookie", f'ticket="{make_ticket(privileges=[1], user_id=8)}"')
        assert (await gateway.request("POST", ECHO, (BEARER, cookie), b"{}")).status == 400
        assert gateway.tasks == before + 1


# -- what is remembered has an end ------------------------------------------------------


def test_shapes_are_few() -> None:
    shapes = Shapes()
    for number in range(3 * MAX_SHAPES):
        assert shapes.of((b"Host", b"X-%d" % number)).plain
        assert len(shapes) <= MAX_SHAPES
    before = len(shapes)
    assert shapes.of((b"Host", b"x" * MAX_SHAPE)).plain
    assert len(shapes) == before


def passes(gateway: Fronted) -> Passes:
    assert gateway.front.fast is not None
    return gateway.front.fast.passes


async def test_passes_are_few() -> None:
    auth = Authenticator("forward")
    peer = ScriptedPeer(actions=tuple(f"Test.n{one}" for one in range(2 * MAX_PERMITS)), flags="")
    async with Fronted(peer, auth=auth) as gateway:
        wire = await gateway.connect()
        for number in range(MAX_PASSES + 100):
            wire.send("POST", "/api/Test.n1", (("X-SCAMP-Ticket", f"t{number}"),), b"{}")
            assert (await wire.answer()).status == 200
            assert len(passes(gateway)) <= MAX_PASSES
        assert len(passes(gateway)) == MAX_PASSES


async def test_large_passes_are_not_kept() -> None:
    """One ticket makes as many of them as there are ways to put blanks around it."""
    async with Fronted(echoing(flags=""), auth=enforcing()) as gateway:
        for _ in range(2):
            await warm(gateway, BEARER)
        before = gateway.tasks
        for blanks in range(MAX_PASS, MAX_PASS + 3):
            await warm(gateway, ("Authorization", f"Bearer{' ' * blanks}{TICKET}"))
        assert len(passes(gateway)) == 1
        assert gateway.tasks == before


async def test_permits_are_few() -> None:
    names = tuple(f"Test.n{one}" for one in range(2 * MAX_PERMITS))
    table = Table(b"{%b}" % b",".join(b'"%b": [1]' % one.lower().encode() for one in names))
    auth = enforcing(table)
    async with Fronted(ScriptedPeer(actions=names, flags=""), auth=auth) as gateway:
        wire = await gateway.connect()
        for name, _ in product(names, range(2)):
            wire.send("POST", f"/api/{name}", (BEARER,), b"{}")
            assert (await wire.answer()).status == 200
        assert passes(gateway).permits <= MAX_PERMITS
    assert auth.results["valid"] == 2 * len(names)
