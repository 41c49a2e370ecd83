"""Leaving the mesh: what is in flight ends well, what comes late is answered, nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from scamp.discovery import parse_announcement
from scamp.errors import ConfigError, ReplyFailed
from scamp.server import Request, Service
from scamp.testing import TestPeer, dial, until
from scamp.transport import IncomingMessage
from scamp.wire import NotifyHeader, ReplyHeader, RequestHeader

Connect = Callable[[Service], Awaitable[TestPeer]]
CALL = RequestHeader("a.b", 7)
LONG = 30.0
"""A grace that no test waits out."""


def reply_header(reply: IncomingMessage) -> ReplyHeader:
    assert isinstance(reply.header, ReplyHeader)
    return reply.header


@pytest.fixture
def proceed(service: Service) -> asyncio.Event:
    """Gives `service` two actions: ``a.b`` waits for this event, ``a.quick`` does not."""
    event = asyncio.Event()

    @service.action("a.b")
    async def wait(request: Request) -> object:
        await event.wait()
        return "done"

    @service.action("a.quick")
    async def quick(request: Request) -> object:
        return "quick"

    return event


async def begin(service: Service, client: TestPeer) -> None:
    """A call that is under way."""
    before = service.in_flight
    client.channel.open_message(CALL).end()
    await until(lambda: service.in_flight == before + 1)


async def test_a_service_without_work_stops_at_once(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    await service.stop(LONG)
    await client.lost
    assert service.connections == 0


async def test_a_service_that_never_started_stops(service: Service) -> None:
    await service.stop(LONG)


async def test_requests_in_flight_are_finished(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    await begin(service, client)
    stopping = asyncio.create_task(service.stop(LONG))
    await until(lambda: service.stopping)
    assert not stopping.done()
    proceed.set()
    assert await (await client.message()).read_all(100) == b'"done"'
    await stopping
    await client.lost


async def test_requests_that_come_late_over_open_connections_are_answered(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client, other = await connect(service), await connect(service)
    await begin(service, client)
    stopping = asyncio.create_task(service.stop(LONG))
    await until(lambda: service.stopping)
    reply = await other.call(RequestHeader("a.quick", 8))
    assert await reply.read_all(100) == b'"quick"'
    proceed.set()
    await stopping


async def test_new_connections_are_refused_while_it_stops(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    await begin(service, client)
    stopping = asyncio.create_task(service.stop(LONG))
    await until(lambda: service.stopping)
    with pytest.raises(ConnectionRefusedError):
        await dial("127.0.0.1", int(service.uri.rpartition(":")[2]))
    proceed.set()
    await stopping


async def test_all_goes_on_for_a_while_so_that_clients_can_follow(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    stopping = asyncio.create_task(service.stop(LONG, linger=LONG))
    await until(lambda: service.stopping)
    reply = await client.call(RequestHeader("a.quick", 8))
    assert await reply.read_all(100) == b'"quick"'
    await client.close()  # nobody is connected, and somebody may still come
    late = await connect(service)
    reply = await late.call(RequestHeader("a.quick", 9))
    assert await reply.read_all(100) == b'"quick"'
    assert not stopping.done()
    stopping.cancel()
    await asyncio.wait((stopping,))


async def test_lingering_is_over_when_its_time_is(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    await service.stop(LONG, linger=0.02)
    await client.lost


async def test_lingering_takes_no_longer_than_the_grace(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    await connect(service)
    await service.stop(0.02, linger=1000.0)
    assert service.connections == 0


async def test_what_is_not_done_after_the_grace_is_cancelled_and_told(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    await begin(service, client)
    await service.stop(0.02)
    reply = await client.message()
    assert reply_header(reply).error_code == "cancelled"
    assert not reply_header(reply).dispatch_failure  # it ran, so it must not be sent elsewhere
    await client.lost
    assert service.in_flight == 0


async def test_a_stream_that_is_not_done_after_the_grace_is_broken_off(
    service: Service, connect: Connect
) -> None:
    @service.action("a.b")
    async def halves(request: Request) -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    client = await connect(service)
    reply = await client.call(CALL)
    assert await reply.read() == b"half"
    await service.stop(0.02)
    with pytest.raises(ReplyFailed):
        await reply.read_all(100)


async def test_a_request_that_comes_after_the_grace_may_go_elsewhere(
    service: Service, connect: Connect
) -> None:
    cleaning, proceed = asyncio.Event(), asyncio.Event()

    @service.action("a.b")
    async def slow_to_end(request: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await proceed.wait()

    client = await connect(service)
    await begin(service, client)
    stopping = asyncio.create_task(service.stop(0.02))
    await cleaning.wait()
    reply = await client.call(RequestHeader("a.b", 8))
    assert reply_header(reply).request_id == 8
    assert reply_header(reply).dispatch_failure
    proceed.set()
    await stopping


async def test_a_handler_that_will_not_end_does_not_hold_the_stop(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scamp.server.traffic.CLOSE_TIMEOUT", 0.05)
    proceed = asyncio.Event()

    @service.action("a.b")
    async def stubborn(request: Request) -> None:
        while not proceed.is_set():
            try:
                await proceed.wait()
            except asyncio.CancelledError:
                continue

    client = await connect(service)
    await begin(service, client)
    await service.stop(0.02)
    await client.lost
    assert service.in_flight == 1
    proceed.set()
    await until(lambda: service.in_flight == 0)


async def test_a_client_that_never_closes_is_cut(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scamp.server.traffic.CLOSE_TIMEOUT", 0.05)
    host, port = await service.start("127.0.0.1", 0)
    client = await dial(host, port)
    await until(lambda: service.connections == 1)
    client.channel._transport.pause_reading()  # type: ignore[union-attr] # sees no close
    await service.stop(0.0)
    assert service.connections == 0
    client.channel.abort("the test is over")
    await client.lost


async def test_stopping_twice_waits_twice(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    await begin(service, client)
    both = asyncio.gather(service.stop(LONG), service.stop(LONG))
    await until(lambda: service.stopping)
    proceed.set()
    await both
    await service.stop()


async def test_a_cancelled_stop_cuts_everything(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    await begin(service, client)
    stopping = asyncio.create_task(service.stop(LONG))
    await until(lambda: service.stopping)
    stopping.cancel()
    await asyncio.wait((stopping,))
    assert stopping.cancelled()
    await client.lost
    await until(lambda: service.in_flight == 0 and service.connections == 0)


async def test_the_announcement_says_goodbye_from_the_first_moment(
    service: Service, connect: Connect, proceed: asyncio.Event
) -> None:
    client = await connect(service)
    before = parse_announcement(service.announcement())
    assert (before.weight, len(before.actions)) == (1, 4)
    await begin(service, client)
    stopping = asyncio.create_task(service.stop(LONG))
    await until(lambda: service.stopping)
    after = parse_announcement(service.announcement())
    assert (after.weight, after.actions) == (0, ())
    assert after.key == before.key
    assert after.timestamp > before.timestamp
    proceed.set()
    await stopping


async def test_a_stopped_service_does_not_start_again(service: Service) -> None:
    await service.start("127.0.0.1", 0)
    await service.stop()
    with pytest.raises(ConfigError, match="new Service"):
        await service.start("127.0.0.1", 0)


async def test_a_stop_that_is_cancelled_cuts_notices_too(
    service: Service, connect: Connect
) -> None:
    @service.on_notify
    async def on_notify(peer: str, data: object) -> None:
        await asyncio.Event().wait()

    client = await connect(service)
    out = client.channel.open_message(NotifyHeader())
    await out.write(b"1")
    out.end()
    await until(lambda: service.notices.held == 1)
    stopping = asyncio.create_task(service.stop(LONG))
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])
    await until(lambda: service.notices.held == 0)
    assert service.notices.dropped == 1
