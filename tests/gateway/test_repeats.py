"""Requests that begin with the bytes of the one before: taken for it only where they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from fronted import Fronted
from gateway.auth import Authenticator
from gateway.connection import SLICE
from gateway.front import FrontOptions
from gateway.repeats import MAX_FIELDS, MAX_REPEATED, Repeated
from scamp.authz import AuthzSource
from scamp.testing import ScriptedPeer, make_ticket, make_verifier, until
from scamp.testing.scripts import by_body, when

ECHO = "/api/Test.echo"


class Deaf:
    """A transport, as far as a parser needs one."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def parsed(data: bytes) -> list[tuple[Any, bytes]]:
    """What aiohttp makes of it: heads, and bodies as far as they are there."""
    loop = asyncio.get_running_loop()
    protocol: Any = BaseProtocol(loop)
    parser = HttpRequestParser(
        protocol, loop, 2**16, payload_exception=web.RequestPayloadError, auto_decompress=False
    )
    protocol._parser, protocol.transport = parser, Deaf()
    messages, _, _ = parser.feed_data(data)
    return [
        (head, b"".join(body._buffer) if head.method != "GET" else b"") for head, body in messages
    ]


def request(body: bytes | None = None, *fields: str, method: str = "POST") -> bytes:
    length = () if body is None else (f"Content-Length: {len(body)}",)
    lines = [f"{method} {ECHO} HTTP/1.1", "Host: test", *fields, *length, "", ""]
    return "\r\n".join(lines).encode() + (body or b"")


async def repeated(data: bytes, size: int) -> Repeated | None:
    return Repeated.of(data, parsed(data)[0][0], size)


@pytest.mark.parametrize(
    "length", ["Content-Length: 3", "content-LENGTH:3", "Content-Length: \t3 "]
)
async def test_a_head_has_bodies_of_any_length(length: str) -> None:
    data = request(None, "X-One: 1", length, "X-Two: 2") + b"abc"
    head = await repeated(data, 3)
    if length.endswith(" "):
        assert head is None  # it is right, and not worth more code
        return
    assert head is not None
    assert head.body(data) == b"abc"
    for body in (b"x", b"0123456789", b"y" * 12345):
        assert head.body(data[:-3].replace(b"3", b"%d" % len(body)) + body) == body


@pytest.mark.parametrize(
    "count", ["0", "03", "+3", "-3", "3 ", " 3", "0x3", "3_0", "", "\xb2", "3,3"]
)
async def test_a_length_that_is_no_plain_number_is_for_the_parser(count: str) -> None:
    data = request(b"abc")
    head = await repeated(data, 3)
    assert head is not None
    other = data.replace(b"Length: 3", f"Length: {count}".encode("latin-1"))
    assert head.body(other) is None
    assert head.body(other[:-3]) is None


async def test_what_is_more_or_less_than_one_request_is_for_the_parser() -> None:
    data = request(b"abc")
    head = await repeated(data, 3)
    assert head is not None
    assert head.body(data) == b"abc"
    for other in (data[:-1], data + b"\r", data + data, b"\r\n" + data, data[1:], b""):
        assert head.body(other) is None
    behind = request(None, "Content-Length: 3", "X-Two: 2") + b"abc"
    head = await repeated(behind, 3)
    assert head is not None
    assert head.body(behind.replace(b"X-Two: 2", b"X-Two: 3")) is None
    bare = request(method="GET")
    head = await repeated(bare, 0)
    assert head is not None
    assert head.body(bare) == b""
    assert head.body(bare + b"x") is None


async def test_bytes_that_are_not_all_of_the_head_are_not_kept() -> None:
    """As when the parser had some of it before: what it says is then of more than these bytes."""
    data = request(b"abc", "X-One: 1")
    (message, _), *_ = parsed(data)
    assert Repeated.of(data, message, 3) is not None
    for other in (
        request(b"abc"),
        request(b"abc", "X-One: 2"),
        request(b"abc", "X-One: 1", "X-Two: 2"),
        request(b"abc", "x-one: 1"),
        data.replace(b"POST", b"PUT"),
        data.replace(b"echo", b"ekko"),
        data.replace(b"HTTP/1.1", b"HTTP/1.0"),
        data + b"d",
        b"\r\n" + data,
    ):
        assert Repeated.of(other, message, 3) is None


async def test_two_lengths_are_not_kept() -> None:
    data = request(b"abc", "Content-Length: 3")
    message = type("Message", (), {"method": "POST", "path": ECHO, "raw_headers": ()})()
    lines = data.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    message.raw_headers = tuple(tuple(line.split(b": ", 1)) for line in lines)
    assert Repeated.of(data, message, 3) is None


async def test_a_large_head_is_not_kept() -> None:
    data = request(b"abc", "X-Large: " + "x" * MAX_REPEATED)
    assert await repeated(data, 3) is None
    assert await repeated(request(b"abc", *(MAX_FIELDS - 2) * ["X: 1"]), 3) is not None
    assert await repeated(request(b"abc", *(MAX_FIELDS - 1) * ["X: 1"]), 3) is None


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["X-One", "x-two", "Accept", "Content-Length", "Content-length", "Te"]),
        st.sampled_from(["1", "12", "3", " 3", "3 ", "a, b", "chunked", "", "\xe9"]),
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(fields=FIELDS, body=st.binary(max_size=30), data=st.data())
async def test_what_is_taken_is_what_the_parser_would_say(
    fields: list[tuple[str, str]], body: bytes, data: st.DataObject
) -> None:
    head = "".join(f"{name}:{value}\r\n" for name, value in fields)
    first = f"POST {ECHO} HTTP/1.1\r\nHost: t\r\n{head}\r\n".encode("latin-1") + body
    try:
        (message, held), *more = parsed(first)
    except Exception:
        return
    one = Repeated.of(first, message, len(held)) if not more else None
    if one is None:
        return
    at = data.draw(st.integers(0, len(first)))
    other = (
        first[:at] + data.draw(st.binary(max_size=3)) + first[at + data.draw(st.integers(0, 3)) :]
    )
    taken = one.body(other)
    if taken is None:
        return
    (again, received), *more = parsed(other)
    assert not more
    assert received == taken
    assert (again.method, again.path) == (message.method, message.path)
    without = [
        [one for one in seen.raw_headers if one[0].lower() != b"content-length"]
        for seen in (message, again)
    ]
    assert without[0] == without[1]


# -- on a connection --------------------------------------------------------------------


def bearer(user: int) -> tuple[str, str]:
    return ("Authorization", f"Bearer {make_ticket(privileges=[1], user_id=user)}")


async def table() -> bytes:
    return b'{"test.echo": [1]}'


async def test_each_body_and_each_ticket_is_its_own_requests() -> None:
    """Whoever shares a connection, as behind a proxy."""
    auth = Authenticator("enforce", make_verifier(), AuthzSource(table))
    peer = ScriptedPeer(flags="")
    async with Fronted(peer, auth=auth) as gateway:
        callers = [bearer(user) for user in range(3)]
        wire = await gateway.connect()
        wanted = []
        for number in range(60):
            user = (number // 7) % 3 if number < 40 else number % 3
            body = b"[" + b"1" * (number % 11) + b"]"
            wire.send("POST", ECHO, (callers[user],), body)
            wanted.append(user)
            assert (await wire.answer()).body == body
        wire.send("POST", ECHO, (("Authorization", "Bearer no"),), b"[]")
        assert (await wire.answer()).status == 401
        wire.send("POST", ECHO, (callers[1],), b"[]")
        assert (await wire.answer()).status == 200
        users = [line["user_id"] for line in gateway.log.lines]
        told = [line["bytes_in"] for line in gateway.log.lines[:60]]
    assert users == [*wanted, None, 1]
    assert told == [2 + number % 11 for number in range(60)]
    assert [one["ticket"] for one in peer.headers] == [
        callers[user][1].removeprefix("Bearer ") for user in [*wanted, 1]
    ]


async def test_a_repeated_head_does_not_lift_the_limit_of_bodies() -> None:
    async with Fronted(ScriptedPeer(), options=FrontOptions(max_body=5)) as gateway:
        wire = await gateway.connect()
        for body in (b"[1]", b"[1]", b"[12]", b"[123]"):
            wire.send("POST", ECHO, (), body)
            assert (await wire.answer()).body == body
        wire.send("POST", ECHO, (), b"[1234]")
        assert (await wire.answer()).status == 413


async def test_a_repeated_request_can_be_handed_over() -> None:
    """Its answer ends the connection while the gateway drains."""
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        for number in range(4):
            wire.send("POST", ECHO, (), b"[%d]" % number)
            assert (await wire.answer()).body == b"[%d]" % number
        wire.send("POST", ECHO, (), b"[4444]")
        gateway.drain()
        answer = await wire.answer()
        assert (answer.body, answer.headers["Connection"]) == (b"[4444]", "close")
        assert await wire.ended()


@pytest.mark.parametrize("size", [200, SLICE])
async def test_what_is_left_in_the_parser_is_not_forgotten(size: int) -> None:
    """A request, then the beginning of one that has the same head in its own: as one read each, or
    with the end of the first where the gateway cuts what it reads."""
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        body = b"1" * (2 * size - len(request(b"1" * size)))
        usual = request(body)
        assert len(usual) == size
        for _ in range(3):
            wire.writer.write(usual)
            assert (await wire.answer()).body == body
        wire.writer.write(usual + b"POST /api/Test.echo HTTP/1.1\r\nX-SCAMP-Timeout: ")
        assert (await wire.answer()).body == body
        wire.writer.write(usual)  # the rest of that head, and its body
        assert (await wire.answer()).status == 400
        wire.writer.write(usual)
        assert (await wire.answer()).body == body
        assert len(gateway.log.lines) == 6


async def test_a_repeated_request_waits_for_the_one_before() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"[1]": when(go)}))
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        for body in (b"[0]", b"[0]", b"[1]", b"[2]", b"[3]"):
            wire.writer.write(request(body))
            if body == b"[0]":
                assert (await wire.answer()).body == body
            else:
                await wire.writer.drain()
                await until(lambda: len(peer.headers) >= 3)
                await gateway.request("POST", ECHO, (), b"[5]")  # by then it has been read
        assert len(peer.headers) == 3 + 3  # the two others have not gone out
        go.set()
        for body in (b"[1]", b"[2]", b"[3]"):
            assert (await wire.answer()).body == body


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 1500), max_size=20).map(sorted),
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=12),
)
async def test_repeated_requests_in_pieces(cuts: list[int], lengths: list[int]) -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        bodies = [b"[" + b"7" * length + b"]" for length in lengths]
        whole = b"".join(request(body) for body in bodies)
        last = 0
        for cut in [*(one for one in cuts if one < len(whole)), len(whole)]:
            wire.writer.write(whole[last:cut])
            await wire.writer.drain()
            await asyncio.sleep(0)
            last = cut
        for body in bodies:
            assert (await wire.answer()).body == body
