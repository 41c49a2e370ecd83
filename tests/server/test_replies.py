"""What handlers return and raise, as a client sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from scamp.config import ScampConf
from scamp.errors import ReplyFailed, ServiceError
from scamp.limits import MAX_INFLIGHT, MAX_PACKET_BODY, MIB
from scamp.server import Request, Service
from scamp.server.connection import ServerConnection
from scamp.testing import TestPeer, make_identity, until
from scamp.transport import Channel, IncomingMessage
from scamp.wire import ReplyHeader, RequestHeader

Connect = Callable[[Service], Awaitable[TestPeer]]
CALL = RequestHeader("a.b", 7)
BIG = bytes(range(256)) * 4096  # 1 MiB


def reply_header(reply: IncomingMessage) -> ReplyHeader:
    assert isinstance(reply.header, ReplyHeader)
    return reply.header


async def answer(connect: Connect, service: Service, result: object) -> tuple[ReplyHeader, bytes]:
    """What a handler that returns or raises `result` makes of a call."""

    @service.action("a.b")
    async def handler(request: Request) -> object:
        if isinstance(result, BaseException):
            raise result
        return result

    reply = await (await connect(service)).call(CALL)
    return reply_header(reply), await reply.read_all(MIB)


@pytest.mark.parametrize(
    ("result", "body"),
    [
        (b"raw", b"raw"),
        (b"", b""),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
        (None, b"null"),
        ({"a": [1, True, None, "ü"]}, '{"a":[1,true,null,"ü"]}'.encode()),
        ([], b"[]"),
        ("text", b'"text"'),
        (0, b"0"),
        (False, b"false"),
    ],
)
async def test_results_become_bodies(
    service: Service, connect: Connect, result: object, body: bytes
) -> None:
    assert await answer(connect, service, result) == (ReplyHeader(7), body)


async def test_a_large_result_arrives_whole(service: Service, connect: Connect) -> None:
    header, body = await answer(connect, service, BIG)
    assert not header.failed
    assert body == BIG


# -- streams ------------------------------------------------------------------------------


async def test_a_returned_stream_is_sent_piece_by_piece(service: Service, connect: Connect) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for letter in (b"a", b"", b"bc", bytearray(b"d")):
            yield bytes(letter)

    header, body = await answer(connect, service, pieces())
    assert (header, body) == (ReplyHeader(7), b"abcd")


async def test_a_handler_may_be_a_generator(service: Service, connect: Connect) -> None:
    @service.action("a.b")
    async def echo(request: Request) -> AsyncIterator[bytes]:
        async for piece in request:
            yield piece.upper()

    reply = await (await connect(service)).call(CALL, b"loud")
    assert await reply.read_all(100) == b"LOUD"


async def test_a_stream_begins_before_it_ends(service: Service, connect: Connect) -> None:
    proceed = asyncio.Event()

    @service.action("a.b")
    async def halves(request: Request) -> AsyncIterator[bytes]:
        yield b"first"
        await proceed.wait()
        yield b"second"

    reply = await (await connect(service)).call(CALL)
    assert await reply.read() == b"first"
    proceed.set()
    assert await reply.read_all(100) == b"second"


async def test_an_empty_stream_is_an_empty_reply(service: Service, connect: Connect) -> None:
    @service.action("a.b")
    async def nothing(request: Request) -> AsyncIterator[bytes]:
        return
        yield b""

    reply = await (await connect(service)).call(CALL)
    assert (reply_header(reply), await reply.read_all(0)) == (ReplyHeader(7), b"")


async def test_a_stream_waits_for_its_reader_and_no_other_reply_does(
    service: Service, connect: Connect
) -> None:
    made = 0

    @service.action("a.b")
    async def endless(request: Request) -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1024
            yield bytes(1024)

    @service.action("a.quick")
    async def quick(request: Request) -> bytes:
        return BIG

    client = await connect(service)
    slow = await client.call(CALL)
    await until(lambda: slow.received == MAX_INFLIGHT)
    for number in range(3):
        reply = await client.call(RequestHeader("a.quick", 100 + number))
        assert await reply.read_all(MIB) == BIG
    assert slow.received == MAX_INFLIGHT
    assert made <= MAX_INFLIGHT + 1024


async def test_a_stream_is_closed_when_its_client_goes(service: Service, connect: Connect) -> None:
    closed = asyncio.Event()

    @service.action("a.b")
    async def endless(request: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1024)
        finally:
            closed.set()

    client = await connect(service)
    await client.call(CALL)
    client.channel.abort("gone")
    await closed.wait()
    await until(lambda: service.in_flight == 0)


# -- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (
            ServiceError("no_stock", "none left", {"sku": 4}),
            ReplyHeader(7, "none left", "no_stock", {"sku": 4}),
        ),
        (ServiceError("no_stock"), ReplyHeader(7, "no_stock", "no_stock")),
        (ServiceError("", "none left"), ReplyHeader(7, "none left", "error")),
        (ServiceError(""), ReplyHeader(7, "error", "error")),
        (ServiceError(404, ValueError("no")), ReplyHeader(7, "no", "404")),  # type: ignore[arg-type]
    ],
)
async def test_a_service_error_always_has_both_fields(
    service: Service, connect: Connect, error: ServiceError, header: ReplyHeader
) -> None:
    assert await answer(connect, service, error) == (header, b"{}")


async def test_an_unexpected_error_is_logged_and_not_told(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    header, body = await answer(connect, service, RuntimeError("the password is 1234"))
    assert header.error_code == "internal"
    assert "1234" not in header.error
    assert body == b"{}"
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "1234" in caplog.text


@pytest.mark.parametrize("result", [object(), {(1, 2): 3}, {"x": 1j}, "\ud800"])
async def test_what_is_not_json_is_an_internal_error(
    service: Service, connect: Connect, result: object
) -> None:
    header, _ = await answer(connect, service, result)
    assert header.error_code == "internal"


@pytest.mark.parametrize("data", [{"x": "y" * MAX_PACKET_BODY}, {"x": object()}, [1]])
async def test_an_error_that_cannot_be_sent_is_an_internal_error(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture, data: Any
) -> None:
    header, _ = await answer(connect, service, ServiceError("c", "m", data))
    assert header.error_code == "internal"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "error 'c' cannot be sent" in caplog.text


async def test_an_error_reply_that_is_cut_short_is_broken_off(
    service: Service, connect: Connect
) -> None:
    """The caller gives up while the error waits for room: its reply must not stay open."""
    opened: list[Channel] = []
    traffic = service._traffic
    admit = traffic.admit

    @service.action("a.b")
    async def fail(request: Request) -> None:
        opened[0].pause_writing()  # as the transport does when the client does not read
        raise ServiceError("bad", "news")

    def noting(connection: ServerConnection) -> bool:
        assert connection.channel is not None
        opened.append(connection.channel)
        return admit(connection)

    traffic.admit = noting  # type: ignore[method-assign]
    client = await connect(service)
    request = client.channel.open_message(CALL)
    reply = await client.message()
    assert reply_header(reply).error_code == "bad"
    request.fail("enough")
    with pytest.raises(ReplyFailed):
        await reply.read()
    assert opened[0].open_messages == 0


async def test_a_stream_that_fails_at_once_is_an_error_reply(
    service: Service, connect: Connect
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        raise ServiceError("no_stock", "none left")
        yield b""

    header, body = await answer(connect, service, pieces())
    assert (header.error_code, body) == ("no_stock", b"{}")


@pytest.mark.parametrize("error", [ServiceError("no_stock", "none left"), RuntimeError("oh")])
async def test_a_stream_that_fails_later_is_broken_off(
    service: Service, connect: Connect, error: Exception
) -> None:
    @service.action("a.b")
    async def pieces(request: Request) -> AsyncIterator[bytes]:
        yield b"half"
        raise error

    reply = await (await connect(service)).call(CALL)
    assert not reply_header(reply).failed
    with pytest.raises(ReplyFailed):
        await reply.read_all(100)


async def test_a_stream_of_something_else_is_an_internal_error(
    service: Service, connect: Connect
) -> None:
    async def pieces() -> AsyncIterator[object]:
        yield "text"

    header, _ = await answer(connect, service, pieces())
    assert header.error_code == "internal"


# -- time ---------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Service:
    """A service whose actions have 50 ms."""
    identity = make_identity()
    return Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        require_tickets=False,
        config=ScampConf.parse("rpc.timeout = 0.05"),
    )


async def test_a_handler_that_takes_too_long_is_stopped(hasty: Service, connect: Connect) -> None:
    stopped = asyncio.Event()

    @hasty.action("a.b")
    async def slow(request: Request) -> None:
        assert 0 < request.time_left < 0.051
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    reply = await (await connect(hasty)).call(CALL)
    assert reply_header(reply).error_code == "timeout"
    assert stopped.is_set()


async def test_a_stream_that_stalls_is_broken_off(hasty: Service, connect: Connect) -> None:
    @hasty.action("a.b")
    async def stalling(request: Request) -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    reply = await (await connect(hasty)).call(CALL)
    with pytest.raises(ReplyFailed, match="longer than"):
        await reply.read_all(100)


async def test_a_timeout_of_the_handlers_own_is_an_internal_error(
    service: Service, connect: Connect
) -> None:
    header, _ = await answer(connect, service, TimeoutError("database"))
    assert header.error_code == "internal"


async def test_a_caller_that_stops_reading_ends_its_stream_and_no_other(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scamp.server.reply.BODY_IDLE", 0.05)
    closed = asyncio.Event()

    @service.action("a.b")
    async def endless(request: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1024)
        finally:
            closed.set()

    @service.action("a.whole")
    async def whole(request: Request) -> bytes:
        return BIG

    client = await connect(service)
    replies = [await client.call(CALL), await client.call(RequestHeader("a.whole", 8))]
    await closed.wait()
    await until(lambda: service.in_flight == 0)
    for reply in replies:
        with pytest.raises(ReplyFailed, match="stopped moving"):
            await reply.read_all(MIB)
    again = await client.call(RequestHeader("a.none", 9))
    assert reply_header(again).error_code == "not_found"


# -- cancelled from within ----------------------------------------------------------------


async def cancelled_from_within() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


async def test_what_a_handler_waits_for_being_cancelled_is_a_failure_of_its_own(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody stopped it, so nobody is told so, and the log says what happened."""

    @service.action("a.b")
    async def handler(request: Request) -> None:
        await cancelled_from_within()

    reply = await (await connect(service)).call(CALL)
    assert reply_header(reply).error_code == "internal"
    assert await reply.read_all(10) == b"{}"
    assert "a.b failed" in caplog.text
    assert "cancelled_from_within" in caplog.text


async def test_a_stream_that_is_cancelled_from_within_is_broken_off(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    @service.action("a.b")
    async def handler(request: Request) -> AsyncIterator[bytes]:
        yield b"half"
        await cancelled_from_within()

    reply = await (await connect(service)).call(CALL)
    with pytest.raises(ReplyFailed, match="its log says why"):
        await reply.read_all(100)
    assert "cancelled_from_within" in caplog.text


async def test_the_flag_sets_the_limit(hasty: Service, connect: Connect) -> None:
    @hasty.action("a.b", flags="read,t30")
    async def patient(request: Request) -> float:
        return request.time_left

    reply = await (await connect(hasty)).call(CALL)
    assert 20 < float(await reply.read_all(100)) <= 30
