"""Messages over real TLS: windows, backpressure both ways, cancelling, discarding, failing."""

from __future__ import annotations

import asyncio
import os
import tracemalloc

import pytest

from scamp.errors import (
    ConnectionLost,
    IdleTimeout,
    LocalProtocolError,
    ReplyFailed,
    RequestAborted,
)
from scamp.limits import MAX_INFLIGHT, READ_PAUSE, WRITE_FIRST, WRITE_HIGH
from scamp.testing import ChannelPair, RawPair, until
from scamp.transport import IncomingMessage, OutgoingMessage, message
from scamp.wire import ReplyHeader, RequestHeader, packets

HEADER = RequestHeader("a.b", 1)
MIB = 1024 * 1024
BIG = bytes(range(256)) * 4096  # 1 MiB


def void(_: object) -> None:
    """Turns any call into a callback."""


async def begin(pair: ChannelPair) -> tuple[OutgoingMessage, IncomingMessage]:
    """A message from client to server, with nothing of its body sent."""
    out = pair.client.channel.open_message(HEADER)
    return out, await pair.server.message()


async def test_a_message_arrives_with_header_and_body(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    await out.write(b"one ")
    await out.write(b"two")
    out.end()
    assert got.header == HEADER
    assert await got.read_all(100) == b"one two"
    assert got.complete
    assert await got.read() == b""


async def test_a_message_is_iterated_to_its_end(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    await out.write(b"one")
    out.end()
    assert b"".join([piece async for piece in got]) == b"one"


async def test_an_empty_body_is_empty(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    await out.write(b"")
    out.end()
    assert await got.read_all(0) == b""


async def test_a_writer_stops_at_the_window_and_goes_on_when_it_is_read(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    writing = asyncio.create_task(out.write(BIG))
    await until(lambda: got.received == MAX_INFLIGHT)
    assert out.sent == MAX_INFLIGHT
    assert not writing.done()
    reading = asyncio.create_task(got.read_all(MIB))
    await writing
    out.end()
    assert await reading == BIG


async def test_a_reader_holds_no_more_than_the_window(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    writing = asyncio.create_task(out.write(BIG))
    total = 0
    while total < len(BIG):
        total += len(await got.read())
        assert got.unread <= MAX_INFLIGHT
    await writing
    out.end()
    assert not got.overran


async def test_a_body_in_pieces_of_a_byte_or_two_takes_no_more_room_than_one_piece(
    raw: RawPair,
) -> None:
    body = os.urandom(MAX_INFLIGHT)
    pieces = [b"DATA 0 2\r\n%bEND\r\n" % body[at : at + 2] for at in range(0, len(body), 2)]
    raw.writer.write(b'HEADER 0 16\r\n{"action":"a.b"}END\r\n')
    got = await raw.server.message()
    tracemalloc.start()
    try:
        raw.writer.write(b"".join(pieces))
        await until(lambda: got.unread == len(body))
        held = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, packets.__file__), tracemalloc.Filter(True, message.__file__)]
        )
    finally:
        tracemalloc.stop()
    assert sum(trace.size for trace in held.traces) < 2 * len(body)
    assert got.read_nowait() == body


async def test_both_directions_stream_at_once(pair: ChannelPair) -> None:
    up, request = await begin(pair)
    down = pair.server.channel.open_message(ReplyHeader(1))
    reply = await pair.client.message()

    async def send(message: OutgoingMessage) -> None:
        await message.write(BIG)
        message.end()

    _, _, sent, returned = await asyncio.gather(
        send(up), send(down), request.read_all(MIB), reply.read_all(MIB)
    )
    assert sent == returned == BIG


async def test_an_unread_message_does_not_stop_others(pair: ChannelPair) -> None:
    slow, got_slow = await begin(pair)
    stuck = asyncio.create_task(slow.write(BIG))
    await until(lambda: got_slow.received == MAX_INFLIGHT)
    for _ in range(5):
        quick, got = await begin(pair)
        writing = asyncio.create_task(quick.write(BIG))
        piece = b""
        while len(piece) < len(BIG):
            piece += await got.read()
        await writing
        quick.end()
        assert piece == BIG
    assert not stuck.done()
    slow_reading = asyncio.create_task(got_slow.read_all(MIB))
    await stuck
    slow.end()
    await slow_reading


async def test_bodies_queued_in_one_turn_are_bounded_together(pair: ChannelPair) -> None:
    outs = [pair.client.channel.open_message(RequestHeader("a.b", n)) for n in range(1, 101)]
    body = bytes(MAX_INFLIGHT)
    queued = sum(out.write_nowait(body) for out in outs)
    assert queued <= WRITE_HIGH + MAX_INFLIGHT + len(outs) * WRITE_FIRST

    async def finish(out: OutgoingMessage) -> None:
        await out.write(body[out.sent :])
        out.end()

    finishing = asyncio.gather(*map(finish, outs))
    for _ in outs:
        assert len(await (await pair.server.message()).read_all(MIB)) == MAX_INFLIGHT
    await finishing


async def test_reading_pauses_for_a_peer_that_ignores_the_window(raw: RawPair) -> None:
    body = bytes(32 * MIB)
    header = b'{"action":"a.b","request_id":1}'
    raw.writer.write(b"HEADER 0 %d\r\n%bEND\r\n" % (len(header), header))
    raw.writer.write(b"DATA 0 %d\r\n" % len(body))
    raw.writer.write(body)
    raw.writer.write(b"END\r\nEOF 0 0\r\nEND\r\n")
    got = await raw.server.message()
    await until(lambda: got.overran)
    held = got.unread
    assert held <= 4 * READ_PAUSE
    total = 0
    while piece := await got.read():
        total += len(piece)
        assert got.unread <= 4 * READ_PAUSE
    assert total == len(body)


# -- cancelling ---------------------------------------------------------------------------


async def test_a_cancelled_read_loses_nothing(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    reading = asyncio.create_task(got.read())
    await until(lambda: got.waiting)
    reading.cancel()
    await asyncio.wait((reading,))
    await out.write(b"all of it")
    out.end()
    assert await got.read_all(100) == b"all of it"


async def test_a_read_cancelled_when_the_bytes_are_there_loses_nothing(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    reading = asyncio.create_task(got.read())
    await until(lambda: got.waiting)
    got.when_ready(lambda: void(reading.cancel()))  # in the same turn in which the bytes arrive
    await out.write(b"all of it")
    out.end()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await got.read_all(100) == b"all of it"


async def test_a_cancelled_write_can_only_be_failed_and_what_was_sent_is_void(
    pair: ChannelPair,
) -> None:
    out, got = await begin(pair)
    writing = asyncio.create_task(out.write(BIG))
    await until(lambda: out.waiting)
    writing.cancel()
    await asyncio.wait((writing,))
    out.fail("changed my mind")
    with pytest.raises(RequestAborted, match="changed my mind"):
        await got.read_all(2 * MIB)


async def test_two_readers_of_one_message_are_a_bug_that_is_told(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    reading = asyncio.create_task(got.read())
    await until(lambda: got.waiting)
    with pytest.raises(RuntimeError, match="two tasks"):
        await got.read()
    out.end()
    assert await reading == b""


# -- ending badly -------------------------------------------------------------------------


async def test_a_failed_reply_raises_on_the_client(pair: ChannelPair) -> None:
    reply = pair.server.channel.open_message(ReplyHeader(1))
    await reply.write(b"half")
    reply.fail("no more")
    got = await pair.client.message()
    with pytest.raises(ReplyFailed, match="no more"):
        await got.read_all(MIB)
    assert not got.complete


async def test_end_and_fail_count_once(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    out.end()
    out.end()
    out.fail("too late")
    assert await got.read_all(0) == b""
    with pytest.raises(LocalProtocolError, match="ended"):
        await out.write(b"x")


async def test_a_lost_connection_ends_readers_and_writers(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    writing = asyncio.create_task(out.write(BIG))
    await until(lambda: out.waiting)
    await got.read()
    pair.client.channel.abort("cut")
    with pytest.raises(ConnectionLost) as caught:
        await writing
    assert caught.value.written
    with pytest.raises(ConnectionLost):
        await got.read_all(2 * MIB)


async def test_writing_to_a_closing_channel_says_that_it_may_have_been_written(
    pair: ChannelPair,
) -> None:
    out, _ = await begin(pair)
    pair.client.channel.close()
    with pytest.raises(ConnectionLost) as caught:
        await out.write(b"x")
    assert caught.value.written


async def test_a_complete_message_outlives_its_connection(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    await out.write(b"all")
    out.end()
    pair.client.channel.close()
    await pair.server.lost
    assert await got.read_all(10) == b"all"


async def test_a_body_that_stops_moving_is_given_up(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    with pytest.raises(IdleTimeout):
        await got.read(idle=0.01)
    with pytest.raises(IdleTimeout):
        await out.write(BIG, idle=0.01)
    with pytest.raises(IdleTimeout):
        await out.drain(idle=0.01)


async def test_a_body_that_stops_moving_is_given_up_though_others_move(pair: ChannelPair) -> None:
    stuck, unread = await begin(pair)
    waiting = asyncio.create_task(stuck.write(BIG, idle=0.3))
    await until(lambda: unread.received == MAX_INFLIGHT)
    moved = 0
    while not waiting.done() and moved < 500 * MIB:
        outs = [await begin(pair) for _ in range(8)]  # enough to fill the transport again and again
        writing = asyncio.gather(*(out.write(BIG) for out, _ in outs))
        sizes = await asyncio.gather(*(read_exactly(got, MIB) for _, got in outs))
        await writing
        for out, _ in outs:
            out.end()
        moved += sum(sizes)
    assert waiting.done(), "patience never ends"
    with pytest.raises(IdleTimeout):
        await waiting


async def read_exactly(got: IncomingMessage, size: int) -> int:
    left = size
    while left:
        left -= len(await got.read())
    return size


async def test_read_all_stops_at_its_limit(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    await out.write(b"12345")
    out.end()
    with pytest.raises(LocalProtocolError, match="longer than 4"):
        await got.read_all(4)


# -- discarding ---------------------------------------------------------------------------


async def test_a_discarded_body_is_read_away(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    exceeded: list[bool] = []
    await out.write(b"some")
    got.discard(2 * MIB, lambda: exceeded.append(True))
    await out.write(BIG)
    out.end()
    await until(lambda: got.ended)
    assert got.unread == 0
    assert not exceeded


async def test_a_body_that_was_discarded_does_not_pass_for_a_whole_one(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    await out.write(b"half ")
    assert await got.read() == b"half "
    reading = asyncio.create_task(got.read_all(MIB))
    await until(lambda: got.waiting)
    got.discard(MIB, lambda: None)
    with pytest.raises(LocalProtocolError, match="discarded"):
        await reading
    await out.write(b"and half")
    out.end()
    await until(lambda: got.ended)
    assert not got.complete
    with pytest.raises(LocalProtocolError, match="discarded"):
        await got.read()


@pytest.mark.parametrize("read", [True, False])
async def test_a_body_that_had_come_is_whole_unless_some_of_it_was_discarded(
    read: bool, pair: ChannelPair
) -> None:
    out, got = await begin(pair)
    await out.write(b"all of it")
    out.end()
    await until(lambda: got.ended)
    if read:
        assert await got.read() == b"all of it"
    got.discard(MIB, lambda: None)
    assert got.complete is read
    if not read:
        with pytest.raises(LocalProtocolError, match="discarded"):
            await got.read()


async def test_discarding_stops_at_its_limit_and_says_so_once(pair: ChannelPair) -> None:
    out, got = await begin(pair)
    exceeded: list[bool] = []
    got.discard(MAX_INFLIGHT, lambda: exceeded.append(True))
    writing = asyncio.create_task(out.write(BIG))
    await until(lambda: exceeded)
    await until(lambda: out.waiting)
    assert exceeded == [True]
    assert got.unread == 0
    writing.cancel()
    await asyncio.wait((writing,))


async def test_callbacks_come_once(pair: ChannelPair) -> None:
    calls: list[str] = []
    out, got = await begin(pair)
    got.when_ready(lambda: calls.append("ready"))
    got.when_ended(lambda: calls.append("ended"))
    await out.write(b"a")
    await until(lambda: calls == ["ready"])
    await out.write(b"b")
    out.end()
    await until(lambda: got.ended)
    got.when_ended(lambda: calls.append("ended already"))
    got.when_ready(lambda: calls.append("ready already"))
    assert calls == ["ready", "ended", "ended already", "ready already"]
