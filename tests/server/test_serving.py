"""Many requests on one connection, and requests that make no sense: each is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
import pytest

from scamp.config import ScampConf
from scamp.limits import MAX_PACKET_BODY, MIB
from scamp.server import Request, Service, connection
from scamp.testing import TestPeer, dial, make_identity, until
from scamp.testing.ends import forge_header
from scamp.transport import IncomingMessage
from scamp.wire import (
    EncodedHeader,
    NotifyHeader,
    OtherHeader,
    ReplyHeader,
    RequestHeader,
    RequestId,
)

Connect = Callable[[Service], Awaitable[TestPeer]]


def reply_header(reply: IncomingMessage) -> ReplyHeader:
    assert isinstance(reply.header, ReplyHeader)
    return reply.header


def raw_request(request_id: object, action: str = "a.b") -> EncodedHeader:
    return forge_header(
        orjson.dumps({"type": "request", "request_id": request_id, "action": action})
    )


@pytest.fixture
def echo(service: Service) -> Service:
    """A service with ``a.b``, which answers with the request's body."""

    @service.action("a.b")
    async def handler(request: Request) -> bytes:
        return await request.read_all()

    return service


@pytest.mark.parametrize("request_id", [1, 0, -5, 2**53, "7", "", "a b"])
async def test_the_request_id_comes_back_as_it_was(
    echo: Service, connect: Connect, request_id: RequestId
) -> None:
    client = await connect(echo)
    client.channel.open_message(raw_request(request_id)).end()
    reply = await client.message()
    assert reply_header(reply).request_id == request_id
    assert type(reply_header(reply).request_id) is type(request_id)


async def test_replies_come_when_they_are_ready_each_with_its_id(
    service: Service, connect: Connect
) -> None:
    gates = {number: asyncio.Event() for number in range(1, 6)}

    @service.action("a.b")
    async def wait(request: Request) -> object:
        number = await request.json()
        await gates[number].wait()
        return number

    client = await connect(service)
    for number in gates:
        out = client.channel.open_message(RequestHeader("a.b", 1000 + number))
        await out.write(b"%d" % number)
        out.end()
    await until(lambda: service.in_flight == 5)
    for number in (3, 5, 1, 4, 2):
        gates[number].set()
        reply = await client.message()
        assert reply_header(reply).request_id == 1000 + number
        assert await reply.read_all(10) == b"%d" % number
    assert service.in_flight == 0
    assert service.requests == 5


async def test_interleaved_requests_keep_their_bodies_apart(
    echo: Service, connect: Connect
) -> None:
    client = await connect(echo)
    outs = [client.channel.open_message(RequestHeader("a.b", n)) for n in (1, 2)]
    for piece in range(10):
        for number, out in enumerate(outs, 1):
            await out.write(b"%d:%d " % (number, piece))
    for out in reversed(outs):
        out.end()
    for _ in outs:
        reply = await client.message()
        answered = reply_header(reply).request_id
        assert isinstance(answered, int)
        expected = b"".join(b"%d:%d " % (answered, piece) for piece in range(10))
        assert await reply.read_all(1000) == expected


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (RequestHeader("no.such", 7), "not_found"),
        (raw_request(7, ""), "not_found"),
        (RequestHeader("a.b", 7, version=2), "not_found"),
        (RequestHeader("a.b", 7, envelope="extdirect"), "bad_request"),
        (raw_request(None), "bad_request"),
        (OtherHeader("x" * 1000, 7), "bad_request"),
        (forge_header(b'{"action":"a.b","request_id":7,"version":1.5}'), "bad_request"),
        (forge_header(b'{"action":["a.b"],"request_id":7}'), "bad_request"),
        (forge_header(b'{"type":[1],"request_id":7}'), "bad_request"),
    ],
)
async def test_what_cannot_be_served_is_answered_and_the_connection_stays(
    echo: Service,
    connect: Connect,
    header: RequestHeader | OtherHeader | EncodedHeader,
    code: str,
) -> None:
    client = await connect(echo)
    out = client.channel.open_message(header)
    await out.write(b"[]")
    out.end()
    reply = await client.message()
    assert reply_header(reply).error_code == code
    if isinstance(header, EncodedHeader):
        assert reply_header(reply).request_id == orjson.loads(bytes(header))["request_id"]
    else:
        assert reply_header(reply).request_id == header.request_id
    assert reply_header(reply).error
    assert await reply.read_all(10) == b"{}"
    again = await client.call(RequestHeader("a.b", 8), b"ok")
    assert await again.read_all(10) == b"ok"


@pytest.mark.parametrize("header", [NotifyHeader(), ReplyHeader(7), raw_request([7])])
async def test_messages_that_can_have_no_answer_are_logged(
    echo: Service,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    header: NotifyHeader | ReplyHeader | EncodedHeader,
) -> None:
    client = await connect(echo)
    out = client.channel.open_message(header)
    await out.write(b"[]")
    out.end()
    reply = await client.call(RequestHeader("a.b", 8), b"ok")
    assert reply_header(reply).request_id == 8
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_large_upload_to_nowhere_is_answered_at_once_and_read_away(
    echo: Service, connect: Connect
) -> None:
    client = await connect(echo)
    out = client.channel.open_message(RequestHeader("no.such", 7))
    assert reply_header(await client.message()).error_code == "not_found"
    await out.write(bytes(MIB))
    out.end()
    again = await client.call(RequestHeader("a.b", 8), b"ok")
    assert await again.read_all(10) == b"ok"


async def test_a_malformed_header_costs_the_connection_and_no_other(
    echo: Service, connect: Connect
) -> None:
    client, other = await connect(echo), await connect(echo)
    client.channel.open_message(forge_header(b"not JSON")).end()
    await client.lost
    reply = await other.call(RequestHeader("a.b", 8), b"ok")
    assert await reply.read_all(10) == b"ok"


async def test_a_connection_is_closed_when_nothing_happens_and_never_before_an_answer(
    connect: Connect,
) -> None:
    identity = make_identity()
    service = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        require_tickets=False,
        config=ScampConf.parse("beepish.server_timeout = 0.1"),
    )
    proceed = asyncio.Event()

    @service.action("a.b")
    async def wait(request: Request) -> object:
        await proceed.wait()
        return "done"

    client = await connect(service)
    client.channel.open_message(RequestHeader("a.b", 1)).end()
    await until(lambda: service.in_flight == 1)
    idle = await connect(service)  # its time begins later and is over first
    await idle.lost
    assert not client.lost.done()
    proceed.set()
    assert await (await client.message()).read_all(10) == b'"done"'
    await client.lost


# -- limits -------------------------------------------------------------------------------


@pytest.fixture
def waiting(service: Service) -> asyncio.Event:
    """Gives `service` the action ``a.b``, which waits for this event."""
    proceed = asyncio.Event()

    @service.action("a.b")
    async def wait(request: Request) -> object:
        await proceed.wait()
        return "done"

    return proceed


async def assert_refused(client: TestPeer, request_id: int) -> None:
    reply = await client.call(RequestHeader("a.b", request_id))
    assert reply_header(reply).request_id == request_id
    assert reply_header(reply).dispatch_failure


async def test_too_many_requests_on_a_connection_go_elsewhere(
    service: Service,
    connect: Connect,
    waiting: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "MAX_REQUESTS_PER_CONNECTION", 3)
    client, other = await connect(service), await connect(service)
    for number in (1, 2, 3):
        client.channel.open_message(RequestHeader("a.b", number)).end()
    await until(lambda: service.in_flight == 3)
    for number in range(4, 20):
        await assert_refused(client, number)
    other.channel.open_message(RequestHeader("a.b", 1)).end()
    await until(lambda: service.in_flight == 4)
    waiting.set()
    for _ in range(3):
        assert await (await client.message()).read_all(10) == b'"done"'
    assert await (await client.call(RequestHeader("a.b", 20))).read_all(10) == b'"done"'


async def test_too_many_requests_at_the_service_go_elsewhere(connect: Connect) -> None:
    identity = make_identity()
    service = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        require_tickets=False,
        max_requests=2,
    )
    proceed = asyncio.Event()

    @service.action("a.b")
    async def wait(request: Request) -> object:
        await proceed.wait()
        return "done"

    clients = [await connect(service) for _ in range(3)]
    for client in clients[:2]:
        client.channel.open_message(RequestHeader("a.b", 1)).end()
    await until(lambda: service.in_flight == 2)
    await assert_refused(clients[2], 5)
    proceed.set()
    assert await (await clients[0].message()).read_all(10) == b'"done"'
    assert await (await clients[2].call(RequestHeader("a.b", 6))).read_all(10) == b'"done"'


async def test_a_peer_that_reads_none_of_its_refusals_is_cut(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_UNSENT_REPLIES", 50)
    client = await connect(service)
    await until(lambda: service.connections == 1)
    header = OtherHeader("new", 1)
    for _ in range(500):  # in one turn, so that none of the answers can have been written
        client.channel.open_message(header).end()
    await client.lost
    await until(lambda: service.connections == 0)


async def test_a_long_action_name_is_no_trouble(echo: Service, connect: Connect) -> None:
    client = await connect(echo)
    name = "x" * (MAX_PACKET_BODY - 200)
    reply = await client.call(RequestHeader(name, 7))
    assert reply_header(reply).error_code == "not_found"
    assert len(reply_header(reply).error) < 500


async def test_too_many_connections_are_closed_at_once(connect: Connect) -> None:
    identity = make_identity()
    service = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        require_tickets=False,
        max_connections=2,
    )
    first = await connect(service)
    host, port = "127.0.0.1", int(service.uri.rpartition(":")[2])
    second = await connect(service)
    await until(lambda: service.connections == 2)
    with pytest.raises(OSError):  # noqa: PT011 - reset or end of file, as it happens
        await dial(host, port)
    await until(lambda: service.refused_connections == 1)
    await second.close()
    await until(lambda: service.connections == 1)
    third = await connect(service)
    assert reply_header(await third.call(RequestHeader("no.such", 1))).failed
    assert not first.lost.done()


@pytest.mark.parametrize("request_id", ["1e30", "1" * 40, "-1e25"])
async def test_a_request_id_beyond_all_integers_is_no_bug_of_the_service(
    echo: Service, connect: Connect, caplog: pytest.LogCaptureFixture, request_id: str
) -> None:
    client = await connect(echo)
    text = f'{{"type":"request","request_id":{request_id},"action":"a.b"}}'
    client.channel.open_message(forge_header(text.encode())).end()
    client.channel.open_message(raw_request(7)).end()
    reply = await client.message()
    assert reply_header(reply).request_id == 7
    assert not [record for record in caplog.records if record.exc_info]
    assert "request_id" in caplog.text
