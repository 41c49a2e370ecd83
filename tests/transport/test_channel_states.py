"""The life of a channel over real TLS: every transition of its table, and what the table lacks."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import product

import pytest

from scamp.errors import ConnectFailed, ConnectionLost, LocalProtocolError, ScampError
from scamp.testing import make_identity, until
from scamp.transport import (
    CHANNEL_TRANSITIONS,
    Channel,
    ChannelEvent,
    ChannelState,
    IncomingMessage,
    client_context,
    server_context,
)
from scamp.transport.states import BY_US, DEAF
from scamp.wire import RequestHeader, Role

S, E = ChannelState, ChannelEvent
PATHS: dict[ChannelState, tuple[ChannelEvent, ...]] = {
    S.CONNECTING: (),
    S.OPEN: (E.CONNECTED,),
    S.PEER_CLOSED: (E.CONNECTED, E.PEER_EOF),
    S.CLOSING: (E.CONNECTED, E.CLOSE),
    S.ABORTED: (E.CONNECTED, E.ABORT),
    S.CLOSED: (E.CONNECTED, E.ABORT, E.GONE),
    S.LOST: (E.CONNECTED, E.GONE),
    S.REFUSED: (E.CLOSE,),
}
"""How a channel gets there, by what the table has."""


class Watched(Channel):
    """A channel of which the test is told when the peer closes and when the socket is gone."""

    def __init__(self, stand: Stand) -> None:
        super().__init__(Role.CLIENT, stand, expected=make_identity(0).fingerprint)
        self.gone: asyncio.Future[ChannelState] = asyncio.get_running_loop().create_future()
        self.at_eof: Callable[[], None] | None = None

    def eof_received(self) -> None:
        super().eof_received()
        call, self.at_eof = self.at_eof, None
        if call is not None:
            call()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone.set_result(self.state)


class Stand:
    """A channel, its handler, and a peer that does what makes an event happen."""

    def __init__(self, port: int, wrong_port: int) -> None:
        self.ports = {E.CONNECTED: port, E.MISMATCH: wrong_port}
        self.peers: list[asyncio.StreamWriter] = []
        self.told: list[str] = []
        self.channel = Watched(self)

    def channel_opened(self, channel: Channel) -> None:
        self.told.append("opened")

    def message_received(self, message: IncomingMessage) -> None: ...

    def channel_lost(self, error: ScampError) -> None:
        self.told.append("lost")

    async def make_happen(self, event: ChannelEvent) -> ChannelState:
        """The state right after `event`; it may be another one turn of the loop later."""
        channel = self.channel
        if event in self.ports:
            await self._dial(self.ports[event])
        elif event is E.PEER_EOF and channel.state is S.OPEN:
            return await self.when_peer_closes(lambda: None)
        elif event in (E.CLOSE, E.ABORT, E.PEER_EOF):
            self.make_happen_now(event)
        elif event is E.FAILED:
            assert channel._transport is not None
            channel._transport.close()  # as the loop does where a write fails
            assert channel.closing
        elif channel.state is S.OPEN:
            self._cut()
            return await channel.gone
        else:
            return await channel.gone
        return channel.state

    def make_happen_now(self, event: ChannelEvent) -> None:
        if event is E.CLOSE:
            self.channel.close("told to")
        elif event is E.ABORT:
            self.channel.abort("told to")
        else:
            self.channel.eof_received()  # what the peer said last, found in the buffer by the loop

    async def when_peer_closes(self, then: Callable[[], None]) -> ChannelState:
        """The peer closes; `then` is called before the loop tells that the socket is gone."""
        seen: list[ChannelState] = []

        def at_eof() -> None:
            then()
            seen.append(self.channel.state)

        self.channel.at_eof = at_eof
        self.peers[0].close()
        await until(lambda: seen)
        return seen[0]

    async def _dial(self, port: int) -> None:
        await asyncio.get_running_loop().create_connection(
            lambda: self.channel, "127.0.0.1", port, ssl=client_context()
        )
        if self.channel.state is S.OPEN:
            await until(lambda: self.peers)

    def _cut(self) -> None:
        sock = self.peers[0].transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peers[0].transport.abort()

    async def finish(self) -> None:
        channel = self.channel
        if channel._transport is not None:
            channel.abort("the test is over")
            await channel.gone
        for peer in self.peers:
            peer.transport.abort()


@asynccontextmanager
async def stand() -> AsyncIterator[Stand]:
    """A peer with the certificate that is expected, and one with another."""

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.peers.append(writer)
        with suppress(OSError):
            await reader.read()
            writer.close()
            await writer.wait_closed()

    servers = []
    for number in (0, 1):
        identity = make_identity(number)
        context = server_context(identity.certificate, identity.key)
        servers.append(await asyncio.start_server(on_client, "127.0.0.1", 0, ssl=context))
    made = Stand(*(server.sockets[0].getsockname()[1] for server in servers))
    try:
        yield made
    finally:
        await made.finish()
        for server in servers:
            server.close()


def name(value: object) -> str:
    assert isinstance(value, S | E)
    return value.name


@pytest.mark.parametrize(("state", "event"), CHANNEL_TRANSITIONS, ids=name)
async def test_a_channel_moves_by_its_table(state: ChannelState, event: ChannelEvent) -> None:
    path = PATHS[state]
    if (state, event) == (S.REFUSED, E.GONE):
        path = (E.MISMATCH,)  # there must be something that can go
    async with stand() as made:
        channel = made.channel
        if path[-1:] == (E.PEER_EOF,) and event is not E.GONE:
            await made.make_happen(E.CONNECTED)
            seen = await made.when_peer_closes(lambda: made.make_happen_now(event))
            assert seen is CHANNEL_TRANSITIONS[state, event]
            return
        for one in path:
            await made.make_happen(one)
        assert await made.make_happen(event) is CHANNEL_TRANSITIONS[state, event]
        assert channel.closing is (channel.state is not S.OPEN)


ABSENT = [pair for pair in product(S, E) if pair not in CHANNEL_TRANSITIONS]


@pytest.mark.parametrize(("state", "event"), ABSENT, ids=name)
async def test_what_the_table_lacks_is_refused(state: ChannelState, event: ChannelEvent) -> None:
    async with stand() as made:
        channel = made.channel
        for one in PATHS[state]:
            at = await made.make_happen(one)
        if state is S.PEER_CLOSED:
            assert at is state
        before = channel.state
        if event is E.GONE:
            with pytest.raises(LocalProtocolError):
                channel._move(event)
        elif event is E.PEER_EOF:
            with pytest.raises(LocalProtocolError):
                channel.eof_received()
        elif event is E.CONNECTED and channel._transport is not None:
            with pytest.raises(LocalProtocolError):
                channel.connection_made(channel._transport)
        else:
            with pytest.raises(LocalProtocolError):
                channel._move(event)
        assert channel.state is before


@pytest.mark.parametrize("state", S, ids=name)
async def test_what_a_state_means_for_those_who_use_the_channel(state: ChannelState) -> None:
    async with stand() as made:
        channel = made.channel
        opened = 1 if E.CONNECTED in PATHS[state] else 0
        for one in PATHS[state][:-1]:
            await made.make_happen(one)
        if PATHS[state]:
            at = await made.make_happen(PATHS[state][-1])
            assert at is state
        if state is S.PEER_CLOSED and channel.state is not state:
            return  # gone meanwhile
        assert channel.closed_by_us is (state in BY_US)
        assert (channel.failure is not None) is (state in DEAF)
        assert made.told.count("opened") == opened
        assert made.told.count("lost") == (state in (S.CLOSED, S.LOST))
        if state is S.OPEN:
            channel.open_message(RequestHeader("a.b", 1))
        else:
            with pytest.raises((ConnectionLost, ConnectFailed)):
                channel.open_message(RequestHeader("a.b", 1))


async def test_a_channel_given_up_before_tls_is_up_never_opens() -> None:
    async with stand() as made:
        made.channel.abort("changed our mind")
        await made.make_happen(E.CONNECTED)
        assert await made.channel.gone is S.REFUSED
        assert made.told == []
        assert isinstance(made.channel.failure, ConnectionLost)
        assert not made.channel.failure.written
        assert made.channel.bytes_out == 0
