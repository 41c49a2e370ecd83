"""Raw ends of connections, to look closely at what the other end does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from scamp.errors import ScampError
from scamp.testing.identity import make_identity
from scamp.transport import Channel, IncomingMessage, client_context, server_context
from scamp.wire import EncodedHeader, RequestHeader, Role


class TestPeer:
    """One raw end of a connection, to look closely at what the other does.

    Messages wait in `messages` in the order of their HEADERs; `lost` resolves with the reason when
    the connection is over.
    """

    __test__ = False

    def __init__(self) -> None:
        self.messages: asyncio.Queue[IncomingMessage] = asyncio.Queue()
        self.lost: asyncio.Future[ScampError] = asyncio.get_running_loop().create_future()
        self._channel: Channel | None = None

    def channel_opened(self, channel: Channel) -> None:
        """Called by the channel."""
        self._channel = channel

    def message_received(self, message: IncomingMessage) -> None:
        """Called by the channel."""
        self.messages.put_nowait(message)

    def channel_lost(self, error: ScampError) -> None:
        """Called by the channel."""
        self.lost.set_result(error)

    @property
    def channel(self) -> Channel:
        """The channel; only once it is open."""
        assert self._channel is not None  # noqa: S101
        return self._channel

    @property
    def opened(self) -> bool:
        """True once TLS is up."""
        return self._channel is not None

    async def message(self) -> IncomingMessage:
        """The next message that begins, within 10 s."""
        async with asyncio.timeout(10):
            return await self.messages.get()

    async def call(self, header: RequestHeader, body: bytes = b"{}") -> IncomingMessage:
        """Send a whole request; return the next message, whether or not it is the answer."""
        request = self.channel.open_message(header)
        await request.write(body)
        request.end()
        return await self.message()

    async def close(self) -> None:
        """Close, and wait until the connection is over."""
        if self._channel is not None:
            self._channel.close()
            await self.lost


async def dial(
    host: str,
    port: int,
    *,
    fingerprint: str | None = None,
    idle_limit: float | None = None,
    context: ssl.SSLContext | None = None,
) -> TestPeer:
    """Connect as a client, ready to open messages. Raises OSError and ssl.SSLError."""
    peer = TestPeer()
    await asyncio.get_running_loop().create_connection(
        lambda: Channel(Role.CLIENT, peer, expected=fingerprint, idle_limit=idle_limit),
        host,
        port,
        ssl=context or client_context(),
    )
    return peer


def forge_header(body: bytes) -> EncodedHeader:
    """What `open_message` takes for a header that may be sent, whatever it is."""
    return bytes.__new__(EncodedHeader, body)


@dataclass(frozen=True, slots=True)
class ChannelPair:
    """Both ends of one connection."""

    client: TestPeer
    server: TestPeer


@dataclass(frozen=True, slots=True)
class RawPair:
    """A client that writes what bytes it likes, and the channel that has to bear it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: TestPeer


@asynccontextmanager
async def channel_server(
    *, idle_limit: float | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[TestPeer, int]]:
    """Listen for one client with `make_identity()`; gives the server's end and the port."""
    identity = make_identity()
    peer = TestPeer()
    server = await asyncio.get_running_loop().create_server(
        lambda: Channel(Role.SERVER, peer, idle_limit=idle_limit),
        host,
        0,
        ssl=server_context(identity.certificate, identity.key),
    )
    try:
        yield peer, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if peer.opened:
            peer.channel.abort("the test is over")
            await peer.lost
        await server.wait_closed()


@asynccontextmanager
async def channel_pair(
    *, client_idle: float | None = None, server_idle: float | None = None
) -> AsyncIterator[ChannelPair]:
    """Two channels joined by TLS; the limits are seconds until an idle one closes."""
    async with channel_server(idle_limit=server_idle) as (server, port):
        expected = make_identity().fingerprint
        client = await dial("127.0.0.1", port, fingerprint=expected, idle_limit=client_idle)
        try:
            await until(lambda: server.opened)
            yield ChannelPair(client, server)
        finally:
            await client.close()


@asynccontextmanager
async def raw_pair() -> AsyncIterator[RawPair]:
    """A channel, and a plain TLS stream as its client."""
    async with channel_server() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context())
        try:
            await until(lambda: server.opened)
            yield RawPair(reader, writer, server)
        finally:
            writer.transport.abort()


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Let the loop run until `condition` holds. Raises TimeoutError after `timeout` seconds.

    For states that nothing announces; where there is a future or an event, await that.
    """
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)
