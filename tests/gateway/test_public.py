"""What is no HTTP request, limits of the head, and the end of the process."""

from __future__ import annotations

import asyncio
from typing import cast
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from fronted import Fronted
from gateway import catalogue
from gateway.problems import Problem
from gateway.public import MAX_FIELD, MAX_FIELDS, MAX_TARGET
from scamp.limits import MAX_TICKET
from scamp.testing import ScriptedPeer
from scamp.testing.scripts import begun, silent


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"POST /api/Test.echo HTTP/1.1\r\nHost: a\r\nBad Name: 3\r\n\r\n", "header token"),
        (b"BREW /api/Test.echo HTTP/1.1\r\nHost: a\r\n\r\n", "method"),
    ],
)
async def test_what_is_wrong_is_said_without_quoting_the_request(sent: bytes, reason: str) -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        wire.writer.write(sent)
        detail = (await wire.answer()).json()["detail"]
        assert reason in detail
        assert "Bad Name" not in detail
        assert "BREW" not in detail


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /api/Test.echo HTTP/1.1\r\n\r\n",  # no Host
        b"POST /api/Test.echo HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /api/Test.echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/Test.echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
        b"Content-Length: 3\r\n\r\n{}",
        b"POST /api/Test.echo HTTP/1.1\r\nHost: a\r\nBad Name: 3\r\n\r\n",
        b"POST /api/Test.echo HTTP/1.1\r\nHost: a\r\nName: a\x00b\r\n\r\n",
    ],
)
async def test_what_is_no_http_request_is_told_so_and_the_connection_ends(sent: bytes) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.writer.write(sent)
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (400, "malformed_request")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["instance"] == answer.headers["X-Request-ID"]
        assert await wire.ended()
        assert peer.headers == []
        line = gateway.log.lines[0]
        assert (line["status"], line["cause"]) == (400, "malformed_request")
        assert 'action="_none",method="_other"' in gateway.scrape()


async def test_who_is_gone_before_being_told_is_counted_as_having_left() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        request = make_mocked_request("POST", "/")
        cast(Mock, request.transport).is_closing.return_value = True
        gateway.front.refuse(request, Problem(catalogue.MALFORMED))
        line = gateway.log.lines[0]
        assert (line["status"], line["cause"]) == (499, "malformed_request")


async def test_a_header_that_is_too_large_is_told_so() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        for fields in (
            [("X-Long", "x" * (MAX_FIELD + 1))],
            [(f"X-{number}", "1") for number in range(MAX_FIELDS + 1)],
        ):
            answer = await gateway.request("POST", "/api/Test.echo", fields)
            assert (answer.status, answer.json()["code"]) == (431, "header_too_large")


async def test_a_target_that_is_too_long_is_told_so() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        answer = await gateway.request("GET", "/api/Test.echo?" + "x" * MAX_TARGET)
        assert (answer.status, answer.json()["code"]) == (414, "uri_too_long")


async def test_the_longest_ticket_fits_into_a_header() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        fields = [("Authorization", "Bearer " + "t" * MAX_TICKET)]
        assert (await gateway.request("POST", "/api/Test.echo", fields)).status == 200
        assert len(peer.headers[0]["ticket"]) == MAX_TICKET


async def test_a_request_that_outlasts_the_drain_is_told_so() -> None:
    peer = ScriptedPeer(silent)
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await peer.until(lambda: peer.requests == 1)
        await gateway.stop()
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (503, "stopping")
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Connection"] == "close"
        assert await wire.ended()
        assert gateway.log.lines[0]["cause"] == "stopping"
        await gateway.mesh.settled()


async def test_an_answer_that_outlasts_the_drain_is_cut() -> None:
    async with Fronted(ScriptedPeer(begun(b"[", asyncio.Event()))) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await wire.head()
        await wire.chunk()
        await gateway.stop()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await wire.chunk()
        line = gateway.log.lines[0]
        assert (line["status"], line["cause"]) == (200, "stopping")


async def test_connect_and_upgrades_lead_nowhere() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        answer = await gateway.request("CONNECT", "example.com:443")
        assert answer.status in (400, 405)
        upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
        answer = await gateway.request("POST", "/api/Test.echo", upgrade, b"{}")
        assert answer.status == 200
        assert "Upgrade" not in answer.headers


def fields(count: int, size: int) -> list[tuple[str, str]]:
    return [(f"X-{number:03}", "x" * size) for number in range(count)]


async def test_a_head_has_a_limit_in_all() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo", fields(6, 10_000), b"{}")
        assert answer.status == 200
        answer = await gateway.request("POST", "/api/Test.echo", fields(7, 10_000), b"{}")
        assert (answer.status, answer.json()["code"]) == (431, "header_too_large")
        assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("before", [0, 1])
async def test_a_head_that_does_not_end_is_not_held(before: int) -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        for _ in range(before):
            wire.send("POST", "/api/Test.echo", (), b"x" * 100_000)
            assert (await wire.answer()).status == 200
        wire.writer.write(b"GET /api/Test.echo HTTP/1.1\r\nHost: test\r\n")
        for name, value in fields(14, 5_000):
            wire.writer.write(f"{name}: {value}\r\n".encode())
            await wire.writer.drain()
        answer = await wire.answer("GET")
        assert (answer.status, answer.json()["code"]) == (431, "header_too_large")
        assert await wire.ended()
