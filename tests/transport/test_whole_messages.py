"""Messages that go, or come, as a whole: they are messages like any other."""

from __future__ import annotations

import asyncio

import pytest

from scamp.errors import ConnectionLost, LocalProtocolError
from scamp.limits import MAX_INFLIGHT, MAX_PACKETS_AT_ONCE, WRITE_FIRST, WRITE_HIGH
from scamp.testing import ChannelPair, RawPair
from scamp.transport import IncomingMessage
from scamp.wire import RequestHeader

HEADER = RequestHeader("a.b", 1)


def whole(number: int) -> bytes:
    return (
        b'HEADER %d 31\r\n{"action":"a.b","request_id":1}END\r\n'
        b"DATA %d 1\r\nxEND\r\nEOF %d 0\r\nEND\r\n" % (number, number, number)
    )


@pytest.mark.parametrize("size", [0, 1, MAX_INFLIGHT])
async def test_it_leaves_in_one_write_and_arrives(pair: ChannelPair, size: int) -> None:
    made = pair.client.channel
    before = made.flushes
    sent = [made.send_whole(HEADER, bytes(size)) for _ in range(3)]
    assert made.open_messages == 0
    for one in sent:
        assert (one.closed, one.sent, one.flushed) == (True, size, False)
        one.end()
        one.fail("too late")
    for _ in sent:
        got = await pair.server.message()
        assert got.header == HEADER
        assert await got.read_all(size) == bytes(size)
        assert got.complete
        assert (got.received, got.unread) == (size, 0)
    assert made.flushes == before + 1
    assert all(one.flushed for one in sent)
    assert pair.server.channel.open_messages == 0


async def test_what_cannot_be_sent_leaves_the_channel_usable(pair: ChannelPair) -> None:
    made = pair.client.channel
    with pytest.raises(LocalProtocolError):
        made.send_whole(HEADER, bytes(MAX_INFLIGHT + 1))
    with pytest.raises(LocalProtocolError):
        made.send_whole(RequestHeader("", 1), b"{}")
    made.send_whole(HEADER, b"{}")
    assert await (await pair.server.message()).read_all(2) == b"{}"


async def test_nothing_goes_on_a_channel_that_closes(pair: ChannelPair) -> None:
    made = pair.client.channel
    made.close("enough")
    assert not made.takes(0)
    assert not made.free
    with pytest.raises(ConnectionLost) as caught:
        made.send_whole(HEADER, b"{}")
    assert not caught.value.written
    await pair.client.lost
    with pytest.raises(ConnectionLost):
        made.send_whole(HEADER, b"{}")


async def test_where_much_is_queued_only_short_ones_go_at_once(pair: ChannelPair) -> None:
    made = pair.client.channel
    queued = 0
    while made.takes(MAX_INFLIGHT):
        made.send_whole(HEADER, bytes(MAX_INFLIGHT))
        queued += 1
        assert queued * MAX_INFLIGHT <= WRITE_HIGH
    assert made.takes(WRITE_FIRST)
    assert not made.takes(WRITE_FIRST + 1)
    for _ in range(queued):
        await (await pair.server.message()).read_all(MAX_INFLIGHT)
    assert made.takes(MAX_INFLIGHT)
    assert not made.takes(MAX_INFLIGHT + 1)
    made.pause_writing()
    assert not made.takes(0)
    assert not made.free
    made.resume_writing()
    assert made.takes(0)
    assert made.free


async def test_many_that_come_in_one_read_leave_turns_to_others(raw: RawPair) -> None:
    count = 1000
    raw.server.channel.data_received(b"".join(whole(number) for number in range(count)))
    most = MAX_PACKETS_AT_ONCE // 3 + 1
    seen = turns = 0
    while seen < count:
        new = raw.server.messages.qsize() - seen
        assert new <= most
        seen += new
        turns += 1
        await asyncio.sleep(0)
    assert turns >= count // most
    for _ in range(count):
        assert await (await raw.server.message()).read_all(1) == b"x"


async def test_after_an_abort_the_rest_is_void(raw: RawPair) -> None:
    seen: list[IncomingMessage] = []

    def aborting(message: IncomingMessage) -> None:
        seen.append(message)
        raw.server.channel.abort("enough")

    raw.server.message_received = aborting  # type: ignore[method-assign]
    raw.writer.write(b"".join(whole(number) for number in range(9)))
    await raw.server.lost
    assert len(seen) == 1


async def test_what_crosses_our_close_does_not_begin(raw: RawPair) -> None:
    made = raw.server.channel
    made.data_received(whole(0))
    made.close("enough")
    made.data_received(whole(1))
    assert await (await raw.server.message()).read_all(1) == b"x"
    assert raw.server.messages.empty()
    await raw.server.lost
