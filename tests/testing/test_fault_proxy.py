"""The proxy between two plain sockets: what it does to bytes, and what both sides see."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from scamp.server import Request, Service
from scamp.testing import (
    Accepting,
    FaultProxy,
    Link,
    MockMesh,
    ProxyConnection,
    fault_pipe,
    fault_proxy,
    make_identity,
    until,
)
from scamp.testing.fault_pipe import CHUNK, MAX_HELD
from scamp.transport import client_context, server_context

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
rng = random.Random(1)  # noqa: S311 - to be repeatable

BUFFERS = 4 * MAX_HELD
"""More than all the buffers on the way hold together, with those of the system set small."""


@dataclass
class Rig:
    """A proxy, and the service's ends of the connections that came through it."""

    proxy: FaultProxy
    accepted: asyncio.Queue[Streams] = field(default_factory=asyncio.Queue)
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    async def dial(self) -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", self.proxy.port, limit=2**24)
        self.opened.append(streams[1])
        return streams

    async def joined(self) -> tuple[Streams, Streams, ProxyConnection]:
        """A connection through the proxy: the client's end, the service's, the proxy's."""
        client = await self.dial()
        async with asyncio.timeout(10):
            service = await self.accepted.get()
        self.opened.append(service[1])
        await until(lambda: self.proxy.connections[-1].to_client.started)
        return client, service, self.proxy.connections[-1]


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    made: Rig | None = None

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert made is not None
        made.accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(on_client, "127.0.0.1", 0, limit=2**24)
    async with server, FaultProxy(server.sockets[0].getsockname()[:2]) as proxy:
        made = Rig(proxy)
        yield made
        while not made.accepted.empty():
            made.opened.append(made.accepted.get_nowait()[1])
        for writer in made.opened:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
    assert proxy.connections == []


async def read(stream: Streams, size: int) -> bytes:
    async with asyncio.timeout(10):
        return await stream[0].readexactly(size)


async def rest(stream: Streams) -> bytes:
    async with asyncio.timeout(10):
        return await stream[0].read()


async def is_reset(stream: Streams) -> bool:
    try:
        await rest(stream)
    except ConnectionResetError:
        return True
    return False


async def refused_by_reset(made: Rig) -> bool:
    """The reset may come before the connection is known to be open."""
    try:
        return await is_reset(await made.dial())
    except ConnectionResetError:
        return True


async def is_quiet(stream: Streams) -> bool:
    """Nothing has come, not even the end, after the loop has had time to bring it."""
    task = asyncio.create_task(stream[0].read(1))
    for _ in range(50):
        await asyncio.sleep(0)
    await asyncio.wait([task], timeout=0.02)
    quiet = not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return quiet


# -- without faults -----------------------------------------------------------------------


async def test_bytes_go_both_ways_as_they_are() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        for one, other in ((client, service), (service, client)):
            sent = [
                rng.randbytes(rng.choice((1, 100, CHUNK - 1, CHUNK, 300_000))) for _ in range(20)
            ]
            task = asyncio.create_task(read(other, sum(map(len, sent))))
            for piece in sent:
                one[1].write(piece)
                await one[1].drain()
            assert await task == b"".join(sent)
            pipe = connection.to_service if one is client else connection.to_client
            assert pipe.forwarded == sum(map(len, sent))
        assert made.proxy.bytes_to_service == connection.to_service.forwarded
        assert made.proxy.bytes_to_client == connection.to_client.forwarded
        assert made.proxy.accepted == 1


async def test_each_end_of_a_connection_goes_through() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        client[1].write(b"last words")
        client[1].write_eof()
        assert await rest(service) == b"last words"
        service[1].write(b"answer")
        assert await read(client, 6) == b"answer"
        assert not connection.closed
        service[1].close()
        assert await rest(client) == b""
        await until(lambda: connection.closed)


@pytest.mark.parametrize("who", [0, 1])
async def test_who_sends_to_somebody_that_has_gone_sees_a_reset(who: int) -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        ends = (client, service)
        ends[who][1].transport.abort()
        assert await rest(ends[1 - who]) == b""
        assert not connection.closed

        def told() -> bool:
            ends[1 - who][1].write(b"still there?")
            return connection.closed

        await until(told)


async def test_a_reset_goes_through() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        raw = client[1].get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, fault_proxy._LINGER_NOT)
        client[1].transport.abort()
        assert await is_reset(service)
        assert connection.closed


async def test_tls_goes_through() -> None:
    keys = make_identity()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
        writer.close()

    context = server_context(keys.certificate, keys.key)
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    async with server, FaultProxy(server.sockets[0].getsockname()[:2]) as proxy:
        client = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=client_context())
        body = rng.randbytes(500_000)
        client[1].write(body)
        assert await read(client, len(body)) == body
        client[1].close()
        await client[1].wait_closed()
        await until(lambda: not proxy.connections)


# -- delay and rate -----------------------------------------------------------------------


async def test_what_is_delayed_comes_late_and_in_order() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        loop = asyncio.get_running_loop()
        began = loop.time()
        made.proxy.use(to_service=Link(delay=0.1))
        client[1].write(b"a")
        await until(lambda: connection.to_service._queue)
        made.proxy.use(to_service=Link())
        client[1].write(b"b")
        assert await read(service, 2) == b"ab"
        assert loop.time() - began >= 0.09  # the clock of uvloop has a coarse grain
        service[1].write(b"the other way is not")
        assert await read(client, 20) == b"the other way is not"


async def test_a_delay_is_no_rate() -> None:
    """Everything that came at once is there at once, as far as a pipe holds it."""
    async with rig() as made:
        client, service, connection = await made.joined()
        connection.use(to_service=Link(delay=0.2))
        client[1].write(bytes(MAX_HELD // 2))
        assert len(await read(service, MAX_HELD // 2)) == MAX_HELD // 2
        assert connection.to_service._held == 0


async def test_a_rate_is_kept() -> None:
    async with rig() as made:
        client, service, _ = await made.joined()
        made.proxy.use(to_client=Link(rate=1_000_000))
        loop = asyncio.get_running_loop()
        began = loop.time()
        service[1].write(bytes(200_000))
        await read(client, 200_000)
        assert loop.time() - began >= 0.17  # the first piece and the clock's grain are free


@pytest.mark.parametrize("bad", [{"delay": -1}, {"rate": 0}])
def test_links_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="delay"):
        Link(**bad)  # type: ignore[arg-type]


# -- stalled, dropped ---------------------------------------------------------------------


async def test_what_is_stalled_goes_on_where_it_was() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        body = rng.randbytes(BUFFERS)
        made.proxy.use(to_service=Link(stalled=True))
        client[1].write(body)
        assert await is_quiet(service)
        assert connection.to_service.forwarded == 0
        assert connection.to_service._held <= CHUNK  # it does not even take any
        made.proxy.heal()
        assert await read(service, len(body)) == body


async def test_a_receiver_that_takes_nothing_stalls_the_sender() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        service[0]._transport.pause_reading()  # type: ignore[attr-defined]
        body = rng.randbytes(6 * BUFFERS)
        client[1].write(body)
        await until(lambda: connection.to_service._held >= MAX_HELD)
        assert connection.to_service._held < MAX_HELD + CHUNK
        service[0]._transport.resume_reading()  # type: ignore[attr-defined]
        assert await read(service, len(body)) == body


async def test_a_black_hole_takes_all_and_tells_nothing() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        hole = Link(drops=True)
        made.proxy.use(to_service=hole, to_client=hole)
        client[1].write(b"hello?")
        service[1].write(b"hello?")
        await until(lambda: connection.to_service.dropped == connection.to_client.dropped == 6)
        assert await is_quiet(client)
        assert await is_quiet(service)
        client[1].transport.abort()
        await until(lambda: connection.to_service.ended)
        assert await is_quiet(service)
        assert not connection.closed
        service[1].transport.abort()
        await until(lambda: connection.closed)


async def test_a_stream_that_has_lost_bytes_does_not_go_on_with_others() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        made.proxy.use(to_service=Link(drops=True))
        made.proxy.heal()  # nothing was lost yet
        client[1].write(b"abc")
        assert await read(service, 3) == b"abc"
        made.proxy.use(to_service=Link(drops=True))
        client[1].write(b"def")
        await until(lambda: connection.to_service.dropped == 3)
        made.proxy.heal()
        client[1].write(b"ghi")
        await until(lambda: connection.to_service.dropped == 6)
        assert await is_quiet(service)
        service[1].write(b"this way")
        assert await read(client, 8) == b"this way"


# -- ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_lets_so_many_bytes_through(reset: bool) -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        connection.to_client.cut_after(1000, reset=reset)
        service[1].write(bytes(999))
        assert await read(client, 999) == bytes(999)
        service[1].write(b"12")
        if reset:
            assert await is_reset(client)
        else:
            assert await rest(client) == b"1"
        assert connection.closed
        assert connection.to_client.forwarded == 1000
        assert made.proxy.connections == []


async def test_a_cut_of_all_connections_at_once() -> None:
    async with rig() as made:
        ends = [await made.joined() for _ in range(3)]
        assert made.proxy.cut_after(0) == 3
        for client, service, _ in ends:
            assert await rest(client) == b""
            assert await rest(service) == b""


async def test_a_reset_is_seen_by_both_sides() -> None:
    async with rig() as made:
        client, service, _ = await made.joined()
        assert made.proxy.reset() == 1
        assert await is_reset(client)
        assert await is_reset(service)
        assert made.proxy.reset() == 0


async def test_one_direction_ends_and_the_other_goes_on() -> None:
    async with rig() as made:
        client, service, connection = await made.joined()
        connection.to_service.end()
        connection.to_service.end()
        assert await rest(service) == b""
        client[1].write(b"lost")
        await until(lambda: connection.to_service.dropped == 4)
        service[1].write(b"goes on")
        assert await read(client, 7) == b"goes on"
        client[1].close()
        service[1].close()
        await until(lambda: connection.closed)


# -- new connections ----------------------------------------------------------------------


async def test_refused_where_nothing_listens_and_at_the_same_port_afterwards() -> None:
    async with rig() as made:
        client, service, _ = await made.joined()
        made.proxy.accepting = Accepting.REFUSING
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await made.dial()
        client[1].write(b"goes on")
        assert await read(service, 7) == b"goes on"
        made.proxy.accepting = Accepting.SERVING
        await made.joined()
        assert made.proxy.accepted == 2


async def test_refused_from_the_beginning() -> None:
    proxy = FaultProxy(("127.0.0.1", 9))
    proxy.accepting = Accepting.REFUSING
    async with proxy:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_accepted_and_never_heard_of_again() -> None:
    async with rig() as made:
        made.proxy.accepting = Accepting.SILENT
        client = await made.dial()
        client[1].write(b"hello?")
        await until(lambda: made.proxy.connections)
        (connection,) = made.proxy.connections
        await until(lambda: connection.to_service.dropped == 6)
        assert await is_quiet(client)
        assert made.accepted.empty()
        client[1].close()
        await until(lambda: connection.closed)


async def test_accepted_and_reset_at_once() -> None:
    async with rig() as made:
        made.proxy.accepting = Accepting.RESETTING
        assert await refused_by_reset(made)
        assert made.proxy.refused == 1
        assert made.accepted.empty()


async def test_a_service_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = taken.getsockname()[:2]
    async with rig() as made:
        elsewhere, made.proxy.target = made.proxy.target, target
        assert await refused_by_reset(made)
        assert made.proxy.unreachable == 1
        made.proxy.target = elsewhere
        await made.joined()


async def test_a_connection_may_be_reset_while_the_service_is_dialled() -> None:
    # Who listens and has no room for one more is silent: its kernel drops what asks.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        target = full.getsockname()[:2]
        with socket.create_connection(target):
            async with rig() as made:
                made.proxy.target = target
                client = await made.dial()
                await until(lambda: made.proxy.connections)
                made.proxy.reset()
                assert await is_reset(client)


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_proxy, "MAX_PROXIED", 3)
    async with rig() as made:
        ends = [await made.joined() for _ in range(3)]
        assert await refused_by_reset(made)
        assert (made.proxy.accepted, made.proxy.refused) == (4, 1)
        ends[0][0][1].close()
        ends[0][1][1].close()
        await until(lambda: len(made.proxy.connections) == 2)
        await made.joined()


async def test_a_proxy_is_entered_once_at_a_time() -> None:
    async with rig() as made:
        with pytest.raises(RuntimeError, match="once"):
            await made.proxy.__aenter__()


# -- all of it ----------------------------------------------------------------------------


async def test_whatever_the_link_is_like_bytes_keep_their_places() -> None:
    """Delays, rates and stalls, changed all the time under traffic both ways."""
    async with rig() as made:
        client, service, connection = await made.joined()
        bodies = [rng.randbytes(2_000_000) for _ in range(2)]
        reading = [asyncio.create_task(read(end, 2_000_000)) for end in (service, client)]
        client[1].write(bodies[0])
        service[1].write(bodies[1])
        links = (Link(), Link(delay=0.01), Link(rate=20e6), Link(stalled=True), Link(0.002, 50e6))
        while not all(task.done() for task in reading):
            connection.use(to_service=rng.choice(links), to_client=rng.choice(links))
            await asyncio.sleep(0.001)
        assert [await task for task in reading] == bodies


async def test_a_service_of_a_mesh_is_found_behind_the_proxy() -> None:
    keys = make_identity(7)
    service = Service("shop", key=keys.key, certificate=keys.certificate)

    @service.action("Shop.echo", flags="noauth")
    async def echo(request: Request) -> bytes:
        return await request.read_all()

    async with MockMesh() as mesh:
        await mesh.serve(service)
        async with FaultProxy(service.addresses[0]) as proxy:
            mesh.announce([proxy.before(service)])
            (offer,) = mesh.registry.find("main", "Shop.echo")
            assert offer.service.uri == proxy.uri
            assert mesh.cache_file.read_text().count('"shop:') == 1
            assert await mesh.call("Shop.echo", [1]) == [1]
            assert proxy.bytes_to_service > 0
            mesh.announce([service])
            (offer,) = mesh.registry.find("main", "Shop.echo")
            assert offer.service.uri == service.uri
            await mesh.requester.close()


def test_ipv6_addresses_are_written_as_they_must_be() -> None:
    assert FaultProxy(("::1", 1), host="::1").uri == "beepish+tls://[::1]:0"


def test_a_pipe_holds_more_than_it_takes_at_once() -> None:
    assert fault_pipe.MAX_HELD >= 2 * fault_pipe.CHUNK
