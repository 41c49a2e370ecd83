"""Requests of all kinds, many on one connection: the same with the fast path and without it."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import pairwise
from typing import Any, Final

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError

from fronted import Fronted
from gateway.auth import Authenticator
from gateway.cors import Cors
from gateway.credentials import AuthMode, Credentials
from gateway.front import FrontOptions
from gateway.public import MAX_FIELD, MAX_TARGET
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.rate import Rate
from scamp.authz import AuthzSource
from scamp.testing import ScriptedPeer, make_ticket, make_verifier, until
from scamp.testing.scripts import by_body, failing, slow, txerr

SEQUENCES: Final = 90
"""Connections for each set of options."""

GOOD: Final = (make_ticket(privileges=[1]), make_ticket(privileges=[1], user_id=2))
BAD: Final = (
    make_ticket(privileges=[9]),
    make_ticket(privileges=[1], expires_in=-10),
    make_ticket(privileges=[1], starts_in=1000),
    make_ticket(privileges=[1], signer=5),
    *("", "x", "1,2,3", f"{GOOD[0]}x", f"{GOOD[0]}\xff", f"{GOOD[0]}\xa0", " ".join(GOOD[0])),
)
TABLE: Final = b'{"test.echo": [1], "test.safe": [1], "test.make": [1], "crud.build": [1]}'
PATHS: Final = ("/api/Test.echo", "/api/Test.safe", "/api/Test.make", "http://test/api/Test.echo")
ODD_PATHS: Final = (
    *("/api/test.ECHO", "/api/Test%2Eecho", "/api/Test.echo~1", "/api/main:Test.echo", "*", "/"),
    *("/api/Crud._create", "/api/Test.none", "/api/Test.echo/", "/api//Test.echo", "/api/Made.up"),
    *("/api/Test.echo%2f", "/api/./Test.echo", "/api/Test.echo%00", "/api/T\xc3\xa9st.echo"),
    *("http://other/api/Test.echo", "HTTP://TEST:80/api/Test.echo", "https://test/api/Test.safe"),
)
QUERIES: Final = ("", "", "?a=1")
ODD_QUERIES: Final = (
    *("?", "?a=1&a=2", "?a=%zz", "?a=%ff", "?%00=1", "?a=b#c", "#f", "?a?b", "?&&", "?+=+"),
    *("?a=\xc3\xa9", "?a=\xff"),
)
TYPES: Final = ("", "application/json")
ODD_TYPES: Final = (
    *("application/json; charset=utf-8", "APPLICATION/JSON", "text/plain", " application/json "),
    *("application/json\xa0", "\x85application/json;x", "application/json\xc2\xa0", ";"),
    *("application/vnd.scamp.json", "application/vnd.scamp.JSON", "application/json,"),
)
BODIES: Final = (b"[1]", b"{}", b"", b"x" * 3000, b"[2]", b"[404]", b"[5]")
SOMETIMES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("X-Request-ID", ("abc", "a b", "", "x" * 129, "a\xff", GOOD[0], "a,b%2c")),
    ("traceparent", (f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'0' * 32}-{'b' * 16}-01", "x", "")),
    ("tracestate", ("a=b", "a=b,c=d", "\xff", "x" * 600)),
    ("X-Forwarded-For", ("192.0.2.1", "junk, 127.0.0.1", "", "[::1]:80", "fe80::1%x")),
    ("Connection", ("close", "keep-alive", "Keep-Alive, Close", "x-scamp-ticket", "TE")),
    ("X-SCAMP-Timeout", ("5", "0", "-1", "x")),
    ("Cookie", ("a=b", f"ticket={GOOD[0]}", f'ticket="{GOOD[1]}"')),
    ("Origin", ("https://app.example", "https://evil.example", "null", "")),
    ("Accept-Encoding", ("gzip", "identity")),
    ("X-Odd", ("", "a\tb", "\xff\xfe", "y" * 12_000)),
    ("Host", ("test", "other")),
)
_OWN_ID: Final = re.compile(rb"[0-9a-f]{32}")
_VARIES: Final = re.compile(rb"(?<=Date: )[^\r]*|(?<=dur=)[0-9.]+")
_TIMES: Final = frozenset(("time", "total_ms", "upstream_ms", "queue_ms", "instance"))


async def table() -> bytes:
    return TABLE


def peers() -> list[ScriptedPeer]:
    script = by_body({b"[404]": failing("not_found"), b"[5]": txerr(), b"[2]": slow(0.001)})
    flags = {"Test.echo": "noauth,read", "Test.safe": "read,destroy", "Test.make": "update"}
    flags |= {"Crud.build": "create", "Test.none": ""}
    return [ScriptedPeer(script, actions=(name,), flags=one) for name, one in flags.items()]


@dataclass
class Kind:
    options: FrontOptions = field(default_factory=FrontOptions)
    mode: AuthMode = "enforce"
    credentials: Credentials | None = None
    limiter: Callable[[], RateLimiter] = RateLimiter


def _limited() -> RateLimiter:
    rate = Rate(99, 86_400, 99)
    return RateLimiter(user=rate, address=rate, clock=lambda: 0)


APP: Final = "https://app.example"
KINDS: Final = {
    "plain": Kind(),
    "proxied": Kind(
        FrontOptions(
            trusted_proxies=(ip_network("127.0.0.0/8"),), cors=Cors([APP]), server_timing=True
        )
    ),
    "cookie": Kind(FrontOptions(compress=True), credentials=Credentials("ticket", origins=(APP,))),
    "forward": Kind(FrontOptions(cors=Cors(["*"]), max_body=2999), mode="forward"),
    "limited": Kind(limiter=_limited),
}


Pick = Callable[[str, Sequence[Any], Sequence[Any]], Any]


def picking(rng: random.Random) -> Pick:
    """Mostly one odd thing at a time: of several the first would hide the others."""
    odd = rng.choice(
        ("method", "path", "query", "host", "host", "form", "ticket", "type", "field", "")
    )

    def pick(what: str, usual: Sequence[Any], strange: Sequence[Any]) -> Any:
        return rng.choice(strange if rng.random() < (0.9 if what == odd else 0.02) else usual)

    return pick


def one_request(rng: random.Random) -> bytes:
    pick = picking(rng)
    odd_methods = ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
    method = pick("method", ("POST", "POST", "GET"), odd_methods)
    target = pick("path", PATHS, ODD_PATHS) + pick("query", QUERIES, ODD_QUERIES)
    odd_hosts = ("", "other", "other", "TEST", "test:80", "te st", "a/b", "[::1]", "tes\xff")
    fields = [(rng.choice(("Host", "host")), pick("host", ("test",), odd_hosts))]
    fields += _tickets(rng, pick)
    if content_type := pick("type", TYPES, ODD_TYPES):
        fields.append((rng.choice(("Content-Type", "content-type")), content_type))
    if one := pick("field", (None,), SOMETIMES):
        fields.append((one[0], rng.choice(one[1])))
    body = b""
    if method != "GET" or not rng.randrange(10):
        body = rng.choice(BODIES)
        fields.append(("Content-Length", str(len(body))))
    if rng.random() < 0.3:
        rng.shuffle(fields)
    lines = [f"{name}:{rng.choice((' ', '', '  '))}{value}\r\n" for name, value in fields]
    return f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1") + body


def _tickets(rng: random.Random, pick: Pick) -> list[tuple[str, str]]:
    ticket = pick("ticket", GOOD, BAD)
    usual = [("Authorization", f"Bearer {ticket}")], [("X-SCAMP-Ticket", ticket)]
    odd: tuple[list[tuple[str, str]], ...] = (
        [],
        [("authorization", f"bearer   {ticket}  ")],
        [("X-Scamp-Ticket", f"  {ticket}\t")],
        [("Authorization", f"Bearer {ticket}"), ("X-SCAMP-Ticket", ticket)],
        [("Authorization", f"Bearer {ticket}"), ("X-SCAMP-Ticket", GOOD[1])],
        [("Authorization", f"Basic {ticket}")],
        [("Authorization", ticket)],
        [("Authorization", f"BEARER\t{ticket}")],
    )
    found: list[tuple[str, str]] = pick("form", usual, odd)
    return found


def pieces(seed: int) -> list[bytes]:
    """What is sent on one connection; the last request ends it."""
    rng = random.Random(seed)  # noqa: S311 - to be repeatable
    requests: list[bytes] = []
    for _ in range(rng.randint(1, 6)):
        again = requests and rng.random() < 0.4
        requests.append(requests[-1] if again else one_request(rng))
    end = b"GET /api/Test.echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    data = b"".join(requests) + end
    cuts = rng.sample(range(1, len(data)), rng.choice((0, 0, 1, 3, 12)))
    places = [0, *sorted(cuts), len(data)]
    return [data[one:other] for one, other in pairwise(places)]


async def answers(gateway: Fronted, sent: list[bytes]) -> bytes:
    """All that comes back, without what differs each time.

    The end of a connection may come as a reset, since more was sent; what came before is read all
    the same, which asyncio's streams would not do once a write failed."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
        sock.setblocking(False)
        reading = asyncio.ensure_future(_read_all(loop, sock))
        with suppress(ConnectionError):
            for piece in sent:
                await loop.sock_sendall(sock, piece)
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            told = await reading
    await until(lambda: gateway.front.in_flight == 0)
    return _OWN_ID.sub(b"ID", _VARIES.sub(b"", told))


async def _read_all(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    told = b""
    with suppress(ConnectionResetError):
        while piece := await loop.sock_recv(sock, 65_536):
            told += piece
    return told


def lines(gateway: Fronted, since: int) -> list[dict[str, Any]]:
    told = [
        {name: value for name, value in line.items() if name not in _TIMES}
        for line in gateway.log.lines[since:]
    ]
    for line in told:
        if _OWN_ID.fullmatch(line["request_id"].encode()):
            line["request_id"] = "ID"
    return told


def headers(peer: ScriptedPeer) -> list[dict[str, Any]]:
    told = [{name: one[name] for name in one if name != "request_id"} for one in peer.headers]
    for one in told:  # a span id is made anew each time
        if "traceparent" in one:
            one["traceparent"] = one["traceparent"][:36]
    return told


def is_http(data: bytes) -> bool:
    """Whether aiohttp can read all of it. Of what stands before something else in one read it
    drops some, and how reads fall is nobody's choice."""
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(
        BaseProtocol(loop), loop, 2**16, max_line_size=MAX_TARGET, max_field_size=MAX_FIELD
    )
    try:
        parser.feed_data(data)
    except HttpProcessingError:
        return False
    return True


@pytest.mark.one_loop  # on uvloop most connections have their first request before they wait for it
@pytest.mark.parametrize("name", KINDS)
async def test_nobody_can_tell(name: str) -> None:
    """Answers, their order and what ends a connection, log, counts, what services get."""
    kind, seen = KINDS[name], []
    for fast in (True, False):
        services = peers()
        auth = Authenticator(
            kind.mode, make_verifier(), AuthzSource(table), credentials=kind.credentials
        )
        gateway = Fronted(
            *services, auth=auth, options=kind.options, limiter=kind.limiter(), fast=fast
        )
        async with gateway:
            for path in (*PATHS, "/api/Crud._create"):
                await gateway.request("POST", path, (("X-SCAMP-Ticket", GOOD[0]),), b"{}")
            told: list[object] = []
            for seed in filter(lambda one: is_http(b"".join(pieces(one))), range(SEQUENCES)):
                before = len(gateway.log.lines)
                told.append((seed, await answers(gateway, pieces(seed))))
                told.append((seed, lines(gateway, before)))
            no_task = len(gateway.log.lines) - gateway.tasks
            assert no_task > SEQUENCES / 5 if fast else not no_task, no_task
            told.append([headers(peer) for peer in services])
            told.append((auth.results, auth.refusals))
        seen.append(told)
    for with_it, without in zip(*seen, strict=True):
        assert with_it == without
