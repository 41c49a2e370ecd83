"""Bodies that nobody wants any more, or that do not come: answers before the end, and clients who
leave, who wait to be asked, or who go on where nothing is to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from fronted import Fronted, Wire
from gateway.auth import Authenticator
from gateway.front import FrontOptions
from scamp.authz import AuthzSource
from scamp.discovery import DiscoveryStatus
from scamp.limits import REPLAY_LIMIT
from scamp.testing import (
    ScriptedPeer,
    make_authz_table,
    make_ticket,
    make_verifier,
    until,
)

pytestmark = pytest.mark.usefixtures("either_way")

MIB: Final = 1024 * 1024
LARGE: Final = 4 * MIB
PIECE: Final = bytes(64 * 1024)
CHUNK: Final = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)


async def _table() -> bytes:
    return make_authz_table({"Test.echo": [3]})


def _enforce() -> Authenticator:
    return Authenticator("enforce", make_verifier(), AuthzSource(_table))


@dataclass(frozen=True)
class Refusal:
    """A request that is refused for its head alone."""

    status: int
    code: str
    fields: Callable[[], list[tuple[str, str]]] = list
    method: str = "POST"
    target: str = "/api/Test.echo"
    options: Callable[[], dict[str, Any]] = field(default=dict)

    def __str__(self) -> str:
        return self.code


def _fields(*given: tuple[str, str]) -> Callable[[], list[tuple[str, str]]]:
    return lambda: list(given)


REFUSALS: Final = (
    Refusal(400, "bad_path", target="/api//Test.echo"),
    Refusal(400, "bad_header", _fields(("X-SCAMP-Timeout", "soon"))),
    Refusal(400, "tickets_differ", _fields(("X-SCAMP-Ticket", "a"), ("Authorization", "Bearer b"))),
    Refusal(400, "bad_framing", method="GET"),
    Refusal(401, "ticket_missing", options=lambda: {"auth": _enforce()}),
    Refusal(
        401,
        "ticket_invalid",
        _fields(("X-SCAMP-Ticket", "a")),
        options=lambda: {"auth": _enforce()},
    ),
    Refusal(
        403,
        "privilege_missing",
        lambda: [("X-SCAMP-Ticket", make_ticket(privileges=[4]))],
        options=lambda: {"auth": _enforce()},
    ),
    Refusal(404, "unknown_path", target="/nothing"),
    Refusal(404, "unknown_action", target="/api/Test.nothing"),
    Refusal(405, "method_not_allowed", method="DELETE"),
    Refusal(413, "body_too_large", options=lambda: {"options": FrontOptions(max_body=1000)}),
    Refusal(415, "unsupported_envelope", _fields(("Content-Type", "text/plain"))),
    Refusal(415, "unsupported_encoding", _fields(("Content-Encoding", "br"))),
    Refusal(503, "saturated", options=lambda: {"options": FrontOptions(max_in_flight=0)}),
    Refusal(
        503,
        "discovery_unavailable",
        target="/api/Test.nothing",
        options=lambda: {"status": DiscoveryStatus(loaded=False)},
    ),
)
each_refusal = pytest.mark.parametrize("refusal", REFUSALS, ids=str)


def front(peer: ScriptedPeer, refusal: Refusal, **server: Any) -> Fronted:
    return Fronted(peer, **refusal.options(), **server)


def service(refusal: Refusal) -> ScriptedPeer:
    flags = "read" if "auth" in refusal.options() else "noauth,read"
    return ScriptedPeer(flags=flags)


def begin(wire: Wire, refusal: Refusal, *more: tuple[str, str]) -> None:
    wire.send(refusal.method, refusal.target, [*refusal.fields(), *more])


async def _pour(wire: Wire, piece: bytes, size: int) -> None:
    for _ in range(size // len(PIECE)):
        wire.writer.write(piece)
        await wire.writer.drain()


# -- answers before the end of the body -------------------------------------------------


@each_refusal
async def test_a_refusal_reaches_a_client_that_sends_everything_before_it_reads(
    refusal: Refusal,
) -> None:
    """Whoever closed without reading on would reset the connection, and the answer with it."""
    peer = service(refusal)
    async with front(peer, refusal) as gateway:
        wire = await gateway.connect()
        begin(wire, refusal, ("Content-Length", str(LARGE)))
        await _pour(wire, PIECE, LARGE)
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (refusal.status, refusal.code)
        assert answer.headers["Connection"] == "close"
        assert await wire.ended()
        assert peer.headers == []


@each_refusal
async def test_a_refusal_comes_while_chunks_without_end_are_sent(refusal: Refusal) -> None:
    peer = service(refusal)
    async with front(peer, refusal, lingering_time=0.2) as gateway:
        wire = await gateway.connect()
        begin(wire, refusal, ("Transfer-Encoding", "chunked"))
        pouring = asyncio.create_task(_pour(wire, CHUNK, 1 << 40))
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (refusal.status, refusal.code)
        assert answer.headers["Connection"] == "close"
        await asyncio.wait({pouring})
        assert isinstance(pouring.exception(), ConnectionError), "it was not cut off"
        assert peer.headers == []
        assert gateway.front.in_flight == 0


# -- clients that wait to be asked ------------------------------------------------------


@each_refusal
async def test_nobody_is_asked_for_a_body_that_is_refused(refusal: Refusal) -> None:
    peer = service(refusal)
    async with front(peer, refusal, lingering_time=0.1) as gateway:
        wire = await gateway.connect()
        begin(wire, refusal, ("Expect", "100-continue"), ("Content-Length", "5000"))
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (refusal.status, refusal.code)
        assert answer.headers["Connection"] == "close", "what comes next may be the body or not"
        assert await wire.ended()
        assert peer.headers == []


@pytest.mark.parametrize("sent", [b"", b"5\r\nhello\r\n0\r\n\r\n"])
async def test_an_expectation_that_is_not_understood_ends_the_connection(sent: bytes) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer, lingering_time=0.1) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Expect", "x"), ("Transfer-Encoding", "chunked")])
        await until(lambda: gateway.log.lines)
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (417, "close")
        wire.writer.write(sent)
        assert await wire.ended()
        assert peer.headers == []


async def test_chunks_that_were_asked_for_come_through() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        fields = [("Expect", "100-continue"), ("Transfer-Encoding", "chunked")]
        wire.send("POST", "/api/Test.echo", fields)
        assert (await wire.head())[0] == 100
        wire.writer.write(b"5\r\nhello\r\n0\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, b"hello")


# -- more than was said, and less -------------------------------------------------------


@pytest.mark.parametrize("fields", [[("Content-Length", "5")], [("Transfer-Encoding", "chunked")]])
async def test_what_comes_behind_a_body_is_the_next_request(fields: list[tuple[str, str]]) -> None:
    body = b"hello" if fields[0][0] == "Content-Length" else b"5\r\nhello\r\n0\r\n\r\n"
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", fields)
        wire.writer.write(body)
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, b"hello")
        wire.writer.write(b", world")
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (400, "malformed_request")
        assert await wire.ended()
        assert peer.requests == 1


@pytest.mark.parametrize("abrupt", [False, True])
@pytest.mark.parametrize("size", [10, REPLAY_LIMIT + len(PIECE)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_whose_client_leaves_is_no_body(
    chunked: bool, size: int, abrupt: bool
) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        said = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size + 1))
        wire.send("POST", "/api/Test.echo", [said])
        wire.writer.write(b"%x\r\n" % (size + 1) * chunked + bytes(size))
        await until(lambda: gateway.front.in_flight == 1)
        if size > REPLAY_LIMIT:
            await peer.until(lambda: peer.headers)
        if abrupt:
            wire.writer.transport.abort()
        else:
            wire.writer.write_eof()
        line = (await gateway.log.until(1))[0]
        assert (line["status"], line["cause"]) == (499, "client_left")
        await gateway.mesh.settled()
        assert peer.requests == 0
        assert gateway.front.in_flight == 0
