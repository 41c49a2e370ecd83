"""Channels over real TLS: flushing, idling, breaking, closing, and who is on the other side."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from scamp.errors import ConnectionLost, FingerprintMismatch, LocalProtocolError, ScampError
from scamp.limits import MAX_PACKET_BODY, MAX_PACKETS_AT_ONCE, READ_PAUSE
from scamp.testing import (
    ChannelPair,
    RawPair,
    channel_pair,
    make_identity,
    until,
)
from scamp.transport import Channel, IncomingMessage, channel, client_context, server_context
from scamp.wire import ReplyHeader, RequestHeader, Role

HEADER = RequestHeader("a.b", 1)


# -- who is on the other side ------------------------------------------------------------


class Eager:
    """A handler that would write as soon as it may."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def channel_opened(self, channel: Channel) -> None:
        self.calls.append("opened")
        channel.open_message(HEADER)

    def message_received(self, message: IncomingMessage) -> None:
        self.calls.append("message")

    def channel_lost(self, error: ScampError) -> None:
        self.calls.append("lost")


async def test_not_one_byte_goes_to_a_peer_with_another_certificate() -> None:
    identity = make_identity(0)
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            received.set_result(await reader.read())
        except OSError:
            received.set_result(b"")
        writer.close()

    context = server_context(identity.certificate, identity.key)
    # Here the server's handshake is over first, so it is sure to see what the client does next.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = await asyncio.start_server(on_client, "127.0.0.1", 0, ssl=context)
    async with server:
        handler = Eager()
        expected = make_identity(1).fingerprint
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: Channel(Role.CLIENT, handler, expected=expected),
            "127.0.0.1",
            server.sockets[0].getsockname()[1],
            ssl=client_context(),
        )
        assert await received == b""
    assert isinstance(made.failure, FingerprintMismatch)
    assert (made.failure.expected, made.failure.actual) == (expected, identity.fingerprint)
    assert made.closing
    assert made.bytes_out == 0
    assert handler.calls == []
    with pytest.raises(FingerprintMismatch):
        made.open_message(HEADER)


async def test_the_peer_is_known_by_address_and_fingerprint(pair: ChannelPair) -> None:
    assert pair.client.channel.fingerprint == make_identity().fingerprint
    assert pair.client.channel.address.startswith("127.0.0.1:")
    assert pair.server.channel.fingerprint == ""


# -- flushing -----------------------------------------------------------------------------


async def test_what_is_queued_in_one_turn_leaves_in_one_write(pair: ChannelPair) -> None:
    made = pair.client.channel
    before = made.flushes
    for number in range(1, 21):
        out = made.open_message(RequestHeader("a.b", number))
        assert out.write_nowait(b"body") == 4
        assert not out.flushed
        out.end()
    for _ in range(20):
        assert await (await pair.server.message()).read_all(10) == b"body"
    assert made.flushes == before + 1
    assert out.flushed


async def test_reading_alone_makes_acks_leave(pair: ChannelPair) -> None:
    out = pair.client.channel.open_message(HEADER)
    await out.write(b"x" * 100)
    got = await pair.server.message()
    before = pair.server.channel.flushes
    assert await got.read() == b"x" * 100
    await until(lambda: pair.server.channel.flushes == before + 1)
    assert pair.server.channel.bytes_out == len(b"ACK 0 3\r\n100END\r\n")


async def test_a_ping_is_answered(raw: RawPair) -> None:
    raw.writer.write(b"PING 9 0\r\nEND\r\n")
    assert await raw.reader.readexactly(15) == b"PONG 9 0\r\nEND\r\n"


async def test_a_peer_that_never_reads_is_cut(
    raw: RawPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "WRITE_LIMIT", 64 * 1024)
    raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
    pings = b"PING 1 0\r\nEND\r\n" * 10_000
    with pytest.raises(ConnectionError):  # noqa: PT012 - it is written until it is cut
        while True:
            raw.writer.write(pings)
            await raw.writer.drain()
            await asyncio.sleep(0)  # uvloop's drain may return without letting the server run
    error = await raw.server.lost
    assert "does not read" in str(error)


# -- breaking -----------------------------------------------------------------------------


async def test_a_peer_that_breaks_the_protocol_is_cut(raw: RawPair) -> None:
    raw.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    error = await raw.server.lost
    assert isinstance(error, ConnectionLost)
    assert "protocol error" in error.reason
    assert raw.server.channel.closing


async def test_messages_before_the_break_are_delivered_and_then_fail(raw: RawPair) -> None:
    raw.writer.write(b'HEADER 0 31\r\n{"action":"a.b","request_id":1}END\r\nrubbish\n')
    got = await raw.server.message()
    with pytest.raises(ConnectionLost, match="protocol error"):
        await got.read()


async def test_a_closed_peer_is_told_with_the_reason(pair: ChannelPair) -> None:
    pair.client.channel.close("enough")
    client_error, server_error = await pair.client.lost, await pair.server.lost
    assert "enough" in str(client_error)
    assert "closed by the peer" in str(server_error)


async def test_closing_sends_what_is_queued(pair: ChannelPair) -> None:
    out = pair.client.channel.open_message(HEADER)
    out.write_nowait(b"last words")
    out.end()
    pair.client.channel.close()
    assert await (await pair.server.message()).read_all(100) == b"last words"


async def test_what_crosses_our_close_does_not_begin(raw: RawPair) -> None:
    """An event loop may read on for a while. A request that ran now could not be answered."""
    made = raw.server.channel
    begun = b'HEADER 0 31\r\n{"action":"a.b","request_id":1}END\r\n'
    made.data_received(begun)
    made.close("enough")
    made.data_received(begun.replace(b"R 0", b"R 1") + b"DATA 1 1\r\nxEND\r\nEOF 1 0\r\nEND\r\n")
    made.data_received(b"DATA 0 1\r\nyEND\r\nEOF 0 0\r\nEND\r\n")
    got = await raw.server.message()
    assert await got.read_all(1) == b"y", "what had begun goes on"
    assert raw.server.messages.empty()
    assert made.open_messages == 0
    await raw.server.lost


async def test_nothing_begins_on_a_closing_channel(pair: ChannelPair) -> None:
    pair.client.channel.close("enough")
    with pytest.raises(ConnectionLost) as caught:
        pair.client.channel.open_message(HEADER)
    assert not caught.value.written
    await pair.client.lost
    with pytest.raises(ConnectionLost):
        pair.client.channel.open_message(HEADER)


async def test_the_error_of_a_lost_channel_holds_no_frames_of_those_who_got_it(
    pair: ChannelPair,
) -> None:
    got = pair.client.channel.open_message(HEADER)
    pair.client.channel.abort("enough")
    await pair.client.lost

    def length() -> int:
        with pytest.raises(ConnectionLost) as caught:
            pair.client.channel.open_message(HEADER)
        with pytest.raises(ConnectionLost):
            pair.client.channel.room(got)
        return len(caught.traceback)

    assert length() == length() == length()


async def test_nothing_is_delivered_after_an_abort(raw: RawPair) -> None:
    class Aborting(Eager):
        def message_received(self, message: IncomingMessage) -> None:
            super().message_received(message)
            raw.server.channel.abort("enough")

    handler = Aborting()
    raw.server.message_received = handler.message_received  # type: ignore[method-assign]
    raw.writer.write(
        b"".join(b'HEADER %d 31\r\n{"action":"a.b","request_id":1}END\r\n' % n for n in range(9))
    )
    await raw.server.lost
    assert handler.calls == ["message"]


async def test_a_header_that_cannot_be_sent_leaves_the_channel_usable(pair: ChannelPair) -> None:
    with pytest.raises(LocalProtocolError):
        pair.client.channel.open_message(RequestHeader("x" * MAX_PACKET_BODY, 1))
    assert pair.client.channel.open_messages == 0
    out = pair.client.channel.open_message(HEADER)
    out.end()
    assert await (await pair.server.message()).read_all(0) == b""


# -- many packets at once -----------------------------------------------------------------

BEGIN = b'HEADER 0 31\r\n{"action":"a.b","request_id":1}END\r\n'
CRUMB = b"DATA 0 1\r\nxEND\r\n"
END = b"EOF 0 0\r\nEND\r\n"
MANY = 5 * MAX_PACKETS_AT_ONCE


async def test_packets_without_number_leave_turns_to_others(raw: RawPair) -> None:
    """What one read brings is looked at piece by piece, and then reading goes on."""
    made = raw.server.channel
    made.data_received(BEGIN + MANY * CRUMB + END)
    got = await raw.server.message()
    turns = 0
    while not got.ended:
        assert turns * MAX_PACKETS_AT_ONCE <= got.received <= (turns + 1) * MAX_PACKETS_AT_ONCE
        await asyncio.sleep(0)
        turns += 1
    assert turns == 5
    assert await got.read_all(MANY) == MANY * b"x"
    raw.writer.write(BEGIN.replace(b"R 0", b"R 1"))
    await raw.server.message()


async def test_while_they_are_looked_at_nothing_more_is_read(raw: RawPair) -> None:
    made = raw.server.channel
    made.data_received(BEGIN + MANY * CRUMB)
    got = await raw.server.message()
    raw.writer.write(MANY * CRUMB + END)
    await raw.writer.drain()
    assert len(await got.read_all(2 * MANY)) == 2 * MANY
    assert not made.stalled


@pytest.mark.parametrize("how", ["eof", "lost", "both"])
async def test_what_came_before_the_end_is_looked_at_before_it(raw: RawPair, how: str) -> None:
    made = raw.server.channel
    made.data_received(BEGIN + MANY * CRUMB + END)
    got = await raw.server.message()
    assert not got.ended
    if how != "lost":
        made.eof_received()
    if how != "eof":
        transport = made._transport
        assert transport is not None
        transport.set_protocol(asyncio.Protocol())  # which is told when it really is lost
        made.connection_lost(None)
        transport.abort()
    assert got.complete
    assert await got.read_all(MANY) == MANY * b"x"


async def test_after_an_abort_the_rest_is_void(raw: RawPair) -> None:
    made = raw.server.channel
    made.data_received(BEGIN + MANY * CRUMB + END)
    got = await raw.server.message()
    made.abort("enough")
    await raw.server.lost
    assert got.received <= MAX_PACKETS_AT_ONCE
    with pytest.raises(ConnectionLost):
        await got.read()


# -- idling -------------------------------------------------------------------------------


async def test_an_idle_channel_closes() -> None:
    async with channel_pair(server_idle=0.02) as pair:
        assert "idle" in str(await pair.server.lost)
        await pair.client.lost


async def test_a_channel_with_an_open_message_is_not_idle() -> None:
    async with channel_pair(client_idle=0.1, server_idle=0.1) as pair:  # else it may be idle before
        out = pair.client.channel.open_message(HEADER)
        got = await pair.server.message()
        done, _ = await asyncio.wait((pair.client.lost, pair.server.lost), timeout=0.4)
        assert not done
        out.end()
        assert await got.read_all(0) == b""
        await pair.client.lost


async def test_a_channel_with_a_request_unanswered_is_not_idle() -> None:
    async with channel_pair(server_idle=0.1) as pair:
        pair.server.channel.busy = 1
        done, _ = await asyncio.wait((pair.server.lost,), timeout=0.4)
        assert not done
        reply = pair.server.channel.open_message(ReplyHeader(1))
        pair.server.channel.busy = 0
        reply.end()
        assert await (await pair.client.message()).read_all(0) == b""
        await pair.server.lost


# -- heartbeat ----------------------------------------------------------------------------

PING = b"PING 0 0\r\nEND\r\n"
PONG = b"PONG 0 0\r\nEND\r\n"


async def test_a_peer_that_answers_keeps_its_channel(raw: RawPair) -> None:
    raw.server.channel.set_heartbeat(0.25)
    for _ in range(3):
        assert await raw.reader.readexactly(len(PING)) == PING
        raw.writer.write(PONG)
    assert not raw.server.lost.done()


async def test_both_sides_may_have_a_heartbeat(pair: ChannelPair) -> None:
    ends = pair.client.channel, pair.server.channel
    for end in ends:
        end.set_heartbeat(0.25)
    await until(lambda: all(end.bytes_in >= 3 * len(PING) for end in ends))
    assert not pair.client.lost.done()
    assert not pair.server.lost.done()


async def test_a_peer_that_does_not_answer_is_cut(raw: RawPair) -> None:
    raw.server.channel.set_heartbeat(0.02)
    assert "no answer to PING within 0.02 s" in str(await raw.server.lost)
    assert await raw.reader.read() == PING, "one PING at a time is without an answer"


async def test_whatever_comes_is_a_sign_of_life(raw: RawPair) -> None:
    raw.server.channel.set_heartbeat(0.25)
    for number in range(3):
        assert await raw.reader.readexactly(len(PING)) == PING
        raw.writer.write(
            b'HEADER %d 31\r\n{"action":"a.b","request_id":1}END\r\nEOF %d 0\r\nEND\r\n'
            % (number, number)
        )
    assert not raw.server.lost.done()


async def test_a_heartbeat_can_be_switched_off(raw: RawPair) -> None:
    raw.server.channel.set_heartbeat(0.02)
    assert await raw.reader.readexactly(len(PING)) == PING
    raw.server.channel.set_heartbeat(0)
    done, _ = await asyncio.wait((raw.server.lost,), timeout=0.15)
    assert not done
    assert raw.server.channel.bytes_out == len(PING)


async def test_nobody_is_blamed_while_we_do_not_read(raw: RawPair) -> None:
    size = 2 * READ_PAUSE
    raw.writer.write(
        b'HEADER 0 31\r\n{"action":"a.b","request_id":1}END\r\nDATA 0 %d\r\n%b'
        % (size, bytes(size))
    )
    got = await raw.server.message()
    await until(lambda: raw.server.channel.stalled)
    raw.server.channel.set_heartbeat(0.02)
    done, _ = await asyncio.wait((raw.server.lost,), timeout=0.15)
    assert not done
    left = size
    while left:
        left -= len(await got.read())
    assert "no answer to PING" in str(await raw.server.lost)


async def test_a_channel_that_is_over_has_no_heartbeat(raw: RawPair) -> None:
    raw.server.channel.set_heartbeat(0.02)
    raw.server.channel.close("enough")
    assert "enough" in str(await raw.server.lost)
    sent = raw.server.channel.bytes_out
    raw.server.channel.set_heartbeat(0.02)
    await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=0.06)
    assert raw.server.channel.bytes_out == sent
