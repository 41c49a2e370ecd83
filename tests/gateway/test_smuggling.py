"""Requests with hard edges: what is in doubt never gets to a service, nor does what follows.

The requests are in `corpus/`. Behind each one comes a second: it may only be answered where nobody
can think that it was part of the first.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from hard_edges import Case, cases
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fronted import Answer, Fronted, Wire
from gateway.front import FrontOptions
from scamp.testing import PeerRequest, ScriptedPeer, until

BEHIND: Final = b"POST /api/Test.smuggled HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}"
BAD: Final = [
    case for name in ("framing", "chunks", "head", "targets") for case in cases(f"{name}.txt")
]
GOOD: Final = cases("good.txt")
LENIENT_IN_PYTHON: Final = {
    case.name for case in BAD if case.name.startswith(("an extension ", "a trailer that would be"))
}
"""aiohttp's parser in Python does not look at chunk extensions and drops all trailers."""
SHORT: Final = 2000
"""Bytes of a request that is also sent byte by byte."""

in_c = pytest.mark.skipif(
    HttpRequestParser is HttpRequestParserPy, reason="aiohttp runs without its parser in C"
)


class Mesh:
    """What is behind the gateway, and what has got there."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        """Action and body of every request, whole."""
        self.peers = (
            ScriptedPeer(self._echo, actions=("Test.echo", "Test.smuggled")),
            ScriptedPeer(self._echo, actions=("Test.read",), flags="noauth,read"),
        )

    async def _echo(self, request: PeerRequest) -> None:
        self.got.append((request.header["action"], bytes(request.body)))
        await request.reply(bytes(request.body))

    @property
    def reached(self) -> list[str]:
        """Actions of all requests that have begun to come."""
        return [header["action"] for peer in self.peers for header in peer.headers]

    def gateway(self, **options: Any) -> Fronted:
        """`options` are those of the server."""
        return Fronted(*self.peers, options=FrontOptions(body_idle=0.3), **options)


async def exchange(
    gateway: Fronted, *requests: bytes, most: int, drip: bool = False
) -> tuple[list[Answer], bool]:
    """All answers to what is sent, at most `most` of them, and whether the connection has ended.

    Each of `requests` is sent when there are as many answers as there were requests before it.
    """
    wire = await gateway.connect()
    answers: list[Answer] = []
    sending: set[asyncio.Task[None]] = set()
    try:
        while len(answers) < most:
            if len(answers) < len(requests):
                sending.add(asyncio.create_task(_send(wire, requests[len(answers)], drip=drip)))
            method = "POST" if answers else requests[0].lstrip().split(b" ")[0].decode("latin-1")
            async with asyncio.timeout(10):
                answers.append(await wire.answer(method))
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        ended = True
    except ConnectionResetError:
        ended = True
    else:
        ended = False
    finally:
        for task in sending:
            task.cancel()
        if sending:
            await asyncio.wait(sending)
        wire.writer.transport.abort()
    return answers, ended


async def _send(wire: Wire, data: bytes, *, drip: bool) -> None:
    size = 1 if drip else len(data)
    for at in range(0, len(data), size):
        wire.writer.write(data[at : at + size])
        await wire.writer.drain()
        await asyncio.sleep(0)


async def refused(case: Case, *, drip: bool = False) -> None:
    """Hold a bad request to what the table says of it."""
    mesh = Mesh()
    async with mesh.gateway() as gateway:
        answers, ended = await exchange(gateway, case.sent + BEHIND, most=2, drip=drip)
        assert answers[0].status in case.statuses
        if case.then == "end":
            assert [answer.status for answer in answers[1:]] == []
            assert ended
            assert mesh.reached == []
        else:
            assert [answer.status for answer in answers[1:]] == [200]
            assert mesh.got == [("Test.smuggled", b"{}")]
            assert mesh.reached == ["Test.smuggled"]


async def served(case: Case, *, drip: bool = False) -> None:
    """Hold a good request to what the table says of it."""
    mesh = Mesh()
    goes_on = case.then == "next"
    async with mesh.gateway() as gateway:
        sent = (case.sent, BEHIND) if goes_on else (case.sent,)
        answers, ended = await exchange(gateway, *sent, most=2, drip=drip)
        assert tuple(answer.status for answer in answers) == (*case.statuses, *[200] * goes_on)
        assert ended is not goes_on
        bodies = [body for action, body in mesh.got if action != "Test.smuggled"]
        assert bodies == ([] if case.body is None else [case.body])
        assert mesh.reached.count("Test.smuggled") == goes_on


@in_c
@pytest.mark.parametrize("case", BAD, ids=str)
async def test_what_is_in_doubt_is_refused_with_all_that_follows(case: Case) -> None:
    await refused(case)


@in_c
@pytest.mark.parametrize("case", [case for case in BAD if len(case.sent) < SHORT][::8], ids=str)
async def test_it_makes_no_difference_when_it_comes_byte_by_byte(case: Case) -> None:
    await refused(case, drip=True)


@pytest.mark.parametrize("case", GOOD, ids=str)
async def test_what_looks_odd_and_is_right_works(case: Case) -> None:
    await served(case)


@pytest.mark.parametrize("case", [case for case in GOOD if len(case.sent) < SHORT][::3], ids=str)
async def test_what_is_right_works_byte_by_byte(case: Case) -> None:
    await served(case, drip=True)


# -- between two requests of one connection ---------------------------------------------


@pytest.mark.parametrize("name", ["X-SCAMP-Ticket", "Host", "X-SCAMP-Timeout", "Content-Type"])
@pytest.mark.parametrize("cut", range(0, 30, 7))
async def test_a_trailer_is_no_field_of_the_next_request(name: str, cut: int) -> None:
    """aiohttp's parser in C takes it for one."""
    trailer = f"0\r\nX: 1\r\n{name}: attacker\r\n\r\n".encode()
    head = b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    mesh = Mesh()
    async with mesh.gateway() as gateway:
        wire = await gateway.connect()
        wire.writer.write(head + trailer[:cut])
        await until(lambda: gateway.front.in_flight == 1)
        wire.writer.write(trailer[cut:] + BEHIND)
        answers = [await wire.answer()]
        assert await wire.ended()
        assert [answer.headers.get("Connection") for answer in answers] == ["close"]
        assert mesh.reached in (["Test.echo"], [])


@in_c
@pytest.mark.parametrize("first", [b"", b"5\r\nhello\r\n"])
async def test_a_body_that_breaks_later_is_answered_and_not_logged_as_an_error_of_ours(
    first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with Mesh().gateway() as gateway:
        wire = await gateway.connect()
        wire.writer.write(head + first)
        await until(lambda: gateway.front.in_flight == 1)
        wire.writer.write(b"zz\r\n")
        assert (await wire.answer("POST")).status == 400
        assert await wire.ended()
    assert [one.getMessage() for one in caplog.records if one.name == "aiohttp.server"] == []


async def test_bytes_behind_an_unknown_upgrade_are_not_dropped_from_between() -> None:
    """aiohttp drops what it has read behind such a request: what comes then is no beginning."""
    upgrade = (
        b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )
    head = b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(BEHIND)
    mesh = Mesh()
    async with mesh.gateway() as gateway:
        wire = await gateway.connect()
        wire.writer.write(upgrade + head)
        await until(lambda: mesh.got)
        wire.writer.write(BEHIND)
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert await wire.ended()
        assert mesh.got == [("Test.echo", b"hello")]


async def test_a_chunk_extension_without_end_is_given_up() -> None:
    mesh = Mesh()
    async with mesh.gateway() as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Transfer-Encoding", "chunked")])
        wire.writer.write(b"5;")
        pouring = asyncio.create_task(_pour(wire))
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        wire.writer.transport.abort()
        await asyncio.wait({pouring})
        assert mesh.reached == []


async def _pour(wire: Wire) -> None:
    while not wire.writer.is_closing():
        wire.writer.write(b"x")
        await asyncio.sleep(0.005)


# -- what a caller says about fields and about himself ----------------------------------


@pytest.mark.parametrize("named", ["X-SCAMP-Ticket", "close, X-SCAMP-Ticket", "authorization"])
async def test_a_ticket_counts_though_connection_names_it(named: str) -> None:
    """It is meant for this hop and for us. Without it the request would be another caller's."""
    mesh = Mesh()
    async with mesh.gateway() as gateway:
        fields = [("Connection", named), ("X-SCAMP-Ticket", "abc"), ("Authorization", "Bearer abc")]
        answer = await gateway.request("POST", "/api/Test.echo", fields, b"{}")
        assert answer.status == 200
        assert mesh.peers[0].headers[0]["ticket"] == "abc"


async def test_what_strangers_say_of_themselves_goes_nowhere() -> None:
    mesh = Mesh()
    async with mesh.gateway() as gateway:
        fields = [
            ("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1"),
            ("X-Real-IP", "192.0.2.1"), ("X-Forwarded-Proto", "https"),
            ("X-SCAMP-Client-ID", "1"), ("client_id", "1"), ("user_id", "1"),
        ]  # fmt: skip
        assert (await gateway.request("POST", "/api/Test.echo", fields, b"{}")).status == 200
        known = {"type", "request_id", "action", "version", "envelope"}
        assert set(mesh.peers[0].headers[0]) == known
        assert gateway.log.lines[0]["client"] == "127.0.0.1"


# -- mutations --------------------------------------------------------------------------

BODY: Final = b"0123456789abcdef"
BASES: Final = (
    b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\nContent-Length: 16\r\n\r\n" + BODY,
    b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"10\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"GET /api/Test.read?a=1 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
)
MUTATION: Final = st.tuples(
    st.integers(0, max(map(len, BASES))),
    st.integers(0, 4),
    st.one_of(
        st.sampled_from(
            [
                b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b",", b";", b"-", b"+", b"0", b"1",
                b"\r\n ", b"\r\n\r\n", b"/..", b"%2f", b"Content-Length: 5\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: close\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n",
            ]
        ),
        st.binary(max_size=4),
    ),
)  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(BASES), st.lists(MUTATION, min_size=1, max_size=3))
@example(BASES[0], [(0, 0, b"")])
@example(BASES[1], [(0, 0, b"")])
def test_what_gets_through_a_mutation_is_what_the_bytes_say(
    base: bytes, mutations: list[tuple[int, int, bytes]]
) -> None:
    sent = base
    for at, cut, put in mutations:
        sent = sent[:at] + put + sent[at + cut :]
    asyncio.run(_says_what_it_gets(sent))


async def _says_what_it_gets(sent: bytes) -> None:
    mesh = Mesh()
    async with mesh.gateway(keepalive_timeout=0.2, lingering_time=0.1) as gateway:
        answers, _ = await exchange(gateway, sent + BEHIND, most=9)
        served = sum(answer.status == 200 for answer in answers)
        assert len(mesh.got) == served
        for action, body in mesh.got:
            assert action in ("Test.echo", "Test.read", "Test.smuggled")
            assert action != "Test.smuggled" or body == b"{}"
            assert action != "Test.echo" or _said(sent + BEHIND, body), (sent, body)


def _said(sent: bytes, body: bytes) -> bool:
    """Whether a strict reader can find `body` in `sent`."""
    chunk = b"%x\r\n%b\r\n" % (len(body), body)
    length = rb"(?i)\r\ncontent-length:[ \t]*0*%d[ \t]*\r\n" % len(body)
    return (
        (body == b"{}" and b"Test.echo" in sent)
        or chunk in sent
        or (b"\r\n\r\n" + body in sent and re.search(length, sent) is not None)
    )


# -- the other parser -------------------------------------------------------------------


async def test_framing_holds_with_either_parser() -> None:
    for name in ("framing.txt", "chunks.txt"):
        for case in cases(name)[::3]:
            if case.then != "end" or case.name in LENIENT_IN_PYTHON:
                continue
            mesh = Mesh()
            async with mesh.gateway(keepalive_timeout=0.2, lingering_time=0.1) as gateway:
                answers, _ = await exchange(gateway, case.sent + BEHIND, most=2)
                assert answers[0].status in {*case.statuses, 408}, case.name
                assert mesh.got == [], case.name


@in_c
def test_framing_holds_with_the_parser_in_python() -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            f"{__file__}::test_framing_holds_with_either_parser",
        ],
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"},
        check=True,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=50,
    )
