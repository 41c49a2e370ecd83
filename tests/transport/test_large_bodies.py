"""Bodies that are longer than a read or a write: what is copied where must not be told by them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from scamp.limits import KIB, MAX_INFLIGHT, MAX_RECORD, MIB, READ_PAUSE, READ_SIZE, WRITE_SIZE
from scamp.testing import ChannelPair, RawPair, channel_pair, raw_pair, until
from scamp.transport import Channel, OutgoingMessage
from scamp.wire import ReplyHeader, RequestHeader, Role

HEADER = RequestHeader("a.b", 1)
BODY = os.urandom(3 * MIB + 7)

LOOPS: dict[str, Callable[[Coroutine[Any, Any, None]], None]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}
run = pytest.mark.parametrize("loop", LOOPS)


@run
def test_a_body_as_one_packet_comes_whole_though_its_sender_closes_at_once(loop: str) -> None:
    async def scene() -> None:
        async with raw_pair() as raw:
            raw.writer.write(b'HEADER 0 16\r\n{"action":"a.b"}END\r\n')
            got = await raw.server.message()
            body = BODY[: READ_PAUSE - 1]  # with more we would not read on
            raw.writer.write(b"DATA 0 %d\r\n%bEND\r\nEOF 0 0\r\nEND\r\n" % (len(body), body))
            raw.writer.close()
            await raw.server.lost
            assert await got.read_all(len(body)) == body

    LOOPS[loop](scene())


@run
def test_bodies_of_several_connections_are_not_mixed_up(loop: str) -> None:
    async def scene() -> None:
        async with channel_pair() as one, channel_pair() as other:
            await asyncio.gather(_echo(one, b"1" * MIB), _echo(other, b"2" * MIB))

    LOOPS[loop](scene())


async def _echo(pair: ChannelPair, body: bytes) -> None:
    up = pair.client.channel.open_message(HEADER)
    got = await pair.server.message()
    down = pair.server.channel.open_message(ReplyHeader(1))
    reply = await pair.client.message()

    async def back() -> None:
        async for piece in got:
            await down.write(piece)
        down.end()

    async with asyncio.TaskGroup() as group:
        group.create_task(back())
        group.create_task(_give(up, body))
        read = group.create_task(reply.read_all(len(body)))
    assert read.result() == body


async def _give(message: OutgoingMessage, body: bytes) -> None:
    await message.write(body)
    message.end()


def test_each_read_has_room_for_all_that_there_is() -> None:
    async def channels() -> list[Channel]:
        return [Channel(Role.CLIENT, None) for _ in range(2)]  # type: ignore[arg-type]

    one, other = asyncio.run(channels())
    (stranger, _) = asyncio.run(channels())
    shared = one.get_buffer(100)
    assert len(shared) == READ_SIZE
    assert other.get_buffer(READ_SIZE - MAX_RECORD) is shared
    large = one.get_buffer(MIB)
    assert len(large) >= MIB + MAX_RECORD
    assert one.get_buffer(100) is shared
    assert stranger.get_buffer(100) is not shared, "another loop may run in another thread"


async def test_a_header_leaves_by_itself_when_nothing_follows(pair: ChannelPair) -> None:
    made = pair.client.channel
    before = made.flushes
    out = made.open_message(HEADER)
    await pair.server.message()
    assert (made.flushes, out.flushed) == (before + 1, True)


async def test_a_header_leaves_with_what_follows_a_turn_later(pair: ChannelPair) -> None:
    made = pair.client.channel
    before = made.flushes
    out = made.open_message(HEADER)
    await asyncio.sleep(0)
    assert out.write_nowait(b"body") == 4
    assert await (await pair.server.message()).read() == b"body"
    assert made.flushes == before + 1


async def test_much_that_is_queued_leaves_in_writes_that_are_not_too_large(
    pair: ChannelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, sizes = pair.client.channel, []
    bodies = [os.urandom(60 * KIB) for _ in range(6)]
    write = made._wire.data_to_send

    def watched(enough: int) -> bytes:
        data = write(enough)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(type(made._wire), "data_to_send", lambda _, enough: watched(enough))
    for number, body in enumerate(bodies, 1):
        made.send_whole(RequestHeader("a.b", number), body)
    made._flush()
    monkeypatch.undo()
    assert made.flushes == 1
    assert sizes[-1] == 0
    assert len(sizes) > 2
    assert max(sizes) < WRITE_SIZE + 61 * KIB
    for body in bodies:
        assert await (await pair.server.message()).read_all(len(body)) == body


async def test_a_window_that_opens_by_odd_amounts_loses_nothing(raw: RawPair) -> None:
    """The body is cut wherever the peer's ACKs say, and never beyond its window."""
    out = raw.server.channel.open_message(ReplyHeader(1))
    body = BODY[: 5 * MAX_INFLIGHT + 3]
    giving = asyncio.create_task(_give(out, body))
    line = await raw.reader.readuntil(b"\r\n")
    await raw.reader.readexactly(int(line.split()[2]) + 5)
    got, acked, step = bytearray(), 0, 1
    while True:
        kind, _, size = (await raw.reader.readuntil(b"\r\n")).split()
        got += await raw.reader.readexactly(int(size))
        assert await raw.reader.readexactly(5) == b"END\r\n"
        assert len(got) - acked <= MAX_INFLIGHT
        if kind == b"EOF":
            break
        step = step * 3 % 65_521
        count = b"%d" % (acked := min(len(got), acked + step))
        raw.writer.write(b"ACK 0 %d\r\n%bEND\r\n" % (len(count), count))
        if acked < len(got):  # it has all of the window, and waits for the next ACK
            count = b"%d" % (acked := len(got))
            raw.writer.write(b"ACK 0 %d\r\n%bEND\r\n" % (len(count), count))
    await giving
    assert got == body


async def test_nobody_else_waits_for_a_body_that_is_not_read(pair: ChannelPair) -> None:
    up = pair.client.channel.open_message(HEADER)
    giving = asyncio.create_task(_give(up, BODY))
    long = await pair.server.message()
    await until(lambda: long.unread == MAX_INFLIGHT)
    await _echo(pair, b"short")
    assert long.unread == MAX_INFLIGHT
    assert await long.read_all(len(BODY)) == BODY
    await giving
