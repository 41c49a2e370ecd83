"""Clients that send as those of other editions do, byte by byte; measured with the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from scamp.limits import MIB
from scamp.server import Request, Service
from scamp.testing import make_identity, make_verifier, until
from scamp.transport import client_context

HOST = "127.0.0.1"


class Client:
    """A plain TLS stream. What it sends it has written before it reads anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def put(self, kind: str, msgno: int, body: bytes = b"") -> None:
        self.writer.write(b"%b %d %d\r\n%bEND\r\n" % (kind.encode(), msgno, len(body), body))

    def go(self, msgno: int, body: bytes, action: str = "A.echo", ticket: str = "") -> None:
        """As Go: empty texts for what is not there, a newline, the body as one packet."""
        header = (
            f'{{"action":"{action}","envelope":"json","request_id":{msgno + 1},"client_id":0,'
            f'"ticket":"{ticket}","identifying_token":"","type":"request","version":1}}\n'
        )
        self.put("HEADER", msgno, header.encode())
        self.put("DATA", msgno, body)
        self.put("EOF", msgno)

    def javascript(self, msgno: int, body: bytes, action: str = "A.echo") -> None:
        """As JavaScript: the sector is told, a ticket is not, pieces of 16 KiB."""
        header = (
            f'{{"sector":"main","action":"{action}","envelope":"json","version":1,'
            f'"request_id":{msgno + 1},"type":"request"}}'
        )
        self.put("HEADER", msgno, header.encode())
        for start in range(0, len(body), 16_384):
            self.put("DATA", msgno, body[start : start + 16_384])
        self.put("EOF", msgno)

    async def packet(self) -> tuple[str, int, bytes]:
        """The next one; DATA is acknowledged by `replies`."""
        kind, msgno, size = (await self.reader.readuntil(b"\r\n")).split()
        body = await self.reader.readexactly(int(size))
        assert await self.reader.readexactly(5) == b"END\r\n"
        return kind.decode(), int(msgno), body

    async def replies(self, count: int) -> dict[int, tuple[dict[str, Any], bytes]]:
        """So many, by the number of their requests: header and body."""
        headers: dict[int, dict[str, Any]] = {}
        bodies: dict[int, bytes] = {}
        found: dict[int, tuple[dict[str, Any], bytes]] = {}
        while len(found) < count:
            kind, msgno, body = await self.packet()
            if kind == "HEADER":
                headers[msgno], bodies[msgno] = json.loads(body), b""
            elif kind == "DATA":
                bodies[msgno] += body
                self.put("ACK", msgno, b"%d" % len(bodies[msgno]))
            elif kind == "EOF":
                found[headers[msgno]["request_id"] - 1] = headers[msgno], bodies[msgno]
            else:
                assert kind == "ACK", kind
        return found


Open: TypeAlias = Callable[[Service], Awaitable[Client]]


@pytest.fixture
async def dialled() -> AsyncIterator[Open]:
    """Connects; the service is started if it is not, and both end with the test."""
    async with contextlib.AsyncExitStack() as stack:
        started: dict[str, int] = {}

        async def close(writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()  # there may be much that is not sent
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        async def dial(service: Service) -> Client:
            if service.identity not in started:
                _, started[service.identity] = await service.start(HOST, 0)
                stack.push_async_callback(service.stop, 0.0)
            port = started[service.identity]
            reader, writer = await asyncio.open_connection(HOST, port, ssl=client_context())
            stack.push_async_callback(close, writer)
            return Client(reader, writer)

        yield dial


def offering(service: Service) -> Service:
    """The service with actions."""

    @service.action("A.echo", flags="noauth")
    async def echo(request: Request) -> bytes:
        return await request.read_all()

    @service.action("A.streamed", flags="noauth")
    async def streamed(request: Request) -> AsyncIterator[bytes]:
        async for piece in request:
            yield piece

    @service.action("A.guarded")
    async def guarded(request: Request) -> str:
        return "in"

    return service


@pytest.fixture
def service(service: Service) -> Service:
    return offering(service)


@pytest.mark.parametrize("send", [Client.go, Client.javascript])
@pytest.mark.parametrize("size", [0, 1, 65_536, 131_072, 131_073, MIB + 7])
async def test_a_body_comes_back_however_it_was_packed(
    service: Service, dialled: Open, send: Callable[[Client, int, bytes], None], size: int
) -> None:
    client = await dialled(service)
    body = os.urandom(size)
    for msgno in range(2):
        send(client, msgno, body)
        await client.writer.drain()
        ((header, reply),) = (await client.replies(1)).values()
        assert header["request_id"] == msgno + 1
        assert not header.get("error_code")
        assert reply == body


@pytest.mark.parametrize("send", [Client.go, Client.javascript])
async def test_requests_that_are_all_sent_before_a_reply_is_read_are_all_answered(
    service: Service, dialled: Open, send: Callable[[Client, int, bytes], None]
) -> None:
    client = await dialled(service)
    for msgno in range(300):
        send(client, msgno, b'{"n":%d}' % msgno)
    found = await client.replies(300)
    assert {n: body for n, (_, body) in found.items()} == {n: b'{"n":%d}' % n for n in range(300)}


async def test_an_empty_ticket_is_none(dialled: Open) -> None:
    identity = make_identity()
    service = offering(
        Service(
            "shop",
            key=identity.key,
            certificate=identity.certificate,
            ticket_verifier=make_verifier(),
        )
    )
    client = await dialled(service)
    client.go(0, b"{}", "A.guarded")
    client.go(1, b"{}")
    found = await client.replies(2)
    assert found[0][0]["error_code"] == "unauthorized"
    assert found[1][1] == b"{}"


async def test_who_reads_nothing_while_it_sends_costs_itself_the_reply_and_nobody_else(
    service: Service, dialled: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go cannot acknowledge a reply while it sends, and we hold no body that is not read."""
    monkeypatch.setattr("scamp.server.reply.BODY_IDLE", 0.5)
    stuck, other = await dialled(service), await dialled(service)
    stuck.go(0, bytes(32 * MIB), "A.streamed")
    await until(lambda: service.in_flight == 1)
    other.go(0, b"{}")
    assert (await other.replies(1))[0][1] == b"{}"
    await until(lambda: service.in_flight == 0)
    other.go(1, b"{}")
    assert (await other.replies(1))[1][1] == b"{}"
