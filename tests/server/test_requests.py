"""What handlers are given: bodies, callers, tickets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import orjson
import pytest

from scamp import keys, logs
from scamp.errors import ConfigError, IdleTimeout, RequestAborted
from scamp.limits import MAX_INFLIGHT, MIB
from scamp.server import Request, Service
from scamp.testing import TestPeer, make_identity, until
from scamp.tickets import TicketVerifier, issue_ticket
from scamp.wire import ReplyHeader, RequestHeader

Connect = Callable[[Service], Awaitable[TestPeer]]
CALL = RequestHeader("a.b", 7)


async def error_of(peer: TestPeer, header: RequestHeader, body: bytes = b"{}") -> ReplyHeader:
    reply = await peer.call(header, body)
    assert isinstance(reply.header, ReplyHeader)
    assert await reply.read_all(MIB) == b"{}"
    return reply.header


# -- bodies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"), [(b'{"a":1}', {"a": 1}), (b"", {}), (b" \r\n", {}), (b"[]", []), (b"0", 0)]
)
async def test_a_json_body(service: Service, connect: Connect, body: bytes, value: object) -> None:
    @service.action("a.b")
    async def echo(request: Request) -> object:
        return {"got": await request.json()}

    reply = await (await connect(service)).call(CALL, body)
    assert orjson.loads(await reply.read_all(100)) == {"got": value}


@pytest.mark.parametrize("body", [b"{", b"\xff", b"{} x", b"NaN"])
async def test_a_body_that_is_not_json_is_the_callers_fault(
    service: Service, connect: Connect, body: bytes
) -> None:
    @service.action("a.b")
    async def echo(request: Request) -> object:
        return await request.json()

    header = await error_of(await connect(service), CALL, body)
    assert header.error_code == "bad_request"
    assert "not JSON" in header.error


async def test_a_body_beyond_the_limit_is_refused_and_the_connection_stays(
    service: Service, connect: Connect
) -> None:
    @service.action("a.b")
    async def small(request: Request) -> object:
        return await request.read_all(limit=10)

    client = await connect(service)
    header = await error_of(client, CALL, bytes(11))
    assert header.error_code == "too_large"
    assert not (await client.call(CALL, bytes(10))).header.failed  # type: ignore[union-attr]


async def test_a_body_can_be_read_as_it_comes(service: Service, connect: Connect) -> None:
    pieces: list[bytes] = []

    @service.action("a.b")
    async def collect(request: Request) -> object:
        while piece := await request.read():
            pieces.append(piece)
        return len(pieces)

    client = await connect(service)
    out = client.channel.open_message(CALL)
    await out.write(b"one")
    await until(lambda: pieces == [b"one"])
    await out.write(b"two")
    out.end()
    assert await (await client.message()).read_all(100) == b"2"


async def test_a_handler_that_does_not_read_holds_its_caller(
    service: Service, connect: Connect
) -> None:
    proceed = asyncio.Event()

    @service.action("a.b")
    async def later(request: Request) -> object:
        await proceed.wait()
        return len(await request.read_all())

    client = await connect(service)
    out = client.channel.open_message(CALL)
    writing = asyncio.create_task(out.write(bytes(MIB)))
    await until(lambda: out.sent == MAX_INFLIGHT)
    assert not writing.done()
    proceed.set()
    await writing
    out.end()
    assert await (await client.message()).read_all(100) == b"%d" % MIB


async def test_a_body_that_no_handler_reads_is_read_away(
    service: Service, connect: Connect
) -> None:
    @service.action("a.b")
    async def careless(request: Request) -> object:
        return "done"

    client = await connect(service)
    out = client.channel.open_message(CALL)
    await out.write(b"x")
    assert await (await client.message()).read_all(100) == b'"done"'
    await out.write(bytes(MIB))
    out.end()
    again = await client.call(CALL)
    assert await again.read_all(100) == b'"done"'


async def test_a_body_without_end_that_nobody_reads_closes_the_connection(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scamp.server.connection.REQUEST_DISCARD", MIB)
    proceed = asyncio.Event()

    @service.action("a.b")
    async def careless(request: Request) -> object:
        return "done"

    @service.action("a.slow")
    async def slow(request: Request) -> object:
        await proceed.wait()
        return "slow"

    client = await connect(service)
    other = client.channel.open_message(RequestHeader("a.slow", 8))
    other.end()
    out = client.channel.open_message(CALL)
    assert await (await client.message()).read_all(100) == b'"done"'
    writing = asyncio.create_task(out.write(bytes(10 * MIB)))
    await until(lambda: out.sent > MIB and out.waiting)
    assert not client.lost.done()
    proceed.set()  # what else is in flight is finished first
    assert await (await client.message()).read_all(100) == b'"slow"'
    await client.lost
    await asyncio.wait((writing,))
    assert writing.exception() is not None


# -- callers ------------------------------------------------------------------------------


async def test_the_request_tells_what_was_asked_and_by_whom(
    service: Service, connect: Connect
) -> None:
    seen: list[Request] = []

    @service.action("Product.Sku.fetch", version=3, envelopes=("json", "jsonstore"))
    async def handler(request: Request) -> None:
        seen.append(request)

    header = RequestHeader(
        "product.sku.FETCH",
        7,
        version=3,
        envelope="jsonstore",
        client_id=42,
        ticket="secret",
        extra={"traceparent": "00-1"},
    )
    client = await connect(service)
    await client.call(header)
    (request,) = seen
    assert request.action.spelling == "Product.Sku.fetch"
    assert (request.version, request.envelope, request.client_id) == (3, "jsonstore", 42)
    assert request.header.extra == {"traceparent": "00-1"}
    assert request.peer.startswith("127.0.0.1:")
    assert request.ticket is None
    assert request.ticket_text == "secret"
    assert "secret" not in repr(request)


async def test_lines_logged_for_a_request_tell_which_and_for_whom(connect: Connect) -> None:
    service = protected()
    told: list[dict[str, object]] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name in ("shop", "scamp.server"):
                told.append(dict(logs.bound()))

    @service.action("a.fail", flags="noauth")
    async def fail(request: Request) -> None:
        logging.getLogger("shop").warning("about to fail")
        raise RuntimeError("failed")

    client = await connect(service)
    noting = Noting()
    logging.getLogger().addHandler(noting)
    try:
        await error_of(client, RequestHeader("A.fail", 7, client_id=42, ticket=ticket()))
        await error_of(client, RequestHeader("a.fail", 8))
    finally:
        logging.getLogger().removeHandler(noting)
    first = {"request_id": 7, "action": "A.fail", "client_id": 42, "user_id": 5}
    second = {"request_id": 8, "action": "a.fail"}
    assert told == [first, first, second, second]


# -- giving up ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["changed my mind", "changed my mind" + "!" * 131_000])
async def test_a_reading_handler_learns_that_its_request_was_given_up(
    service: Service, connect: Connect, text: str
) -> None:
    seen: list[BaseException] = []

    @service.action("a.b")
    async def reading(request: Request) -> object:
        try:
            return await request.read_all()
        except RequestAborted as exc:
            seen.append(exc)
            raise

    client = await connect(service)
    out = client.channel.open_message(CALL)
    await out.write(b"half")
    await until(lambda: service.in_flight == 1)
    out.fail(text)
    reply = await client.message()
    with pytest.raises(Exception, match="changed my mind"):
        await reply.read_all(100)
    assert len(seen) == 1
    await until(lambda: service.in_flight == 0)


async def test_a_caller_that_stops_sending_is_told_so_and_the_connection_stays(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scamp.server.request.BODY_IDLE", 0.05)
    seen: list[BaseException] = []

    @service.action("a.b")
    async def reading(request: Request) -> object:
        try:
            return len(await request.read_all())
        except IdleTimeout as exc:
            seen.append(exc)
            raise

    client = await connect(service)
    out = client.channel.open_message(CALL)
    await out.write(b"half")
    reply = await client.message()
    assert isinstance(reply.header, ReplyHeader)
    assert reply.header.error_code == "timeout"
    assert len(seen) == 1
    out.end()
    assert await (await client.call(RequestHeader("a.b", 8))).read_all(100) == b"2"


async def test_the_result_of_a_request_given_up_is_not_sent(
    service: Service, connect: Connect
) -> None:
    @service.action("a.b")
    async def stubborn(request: Request) -> object:
        try:
            return await request.read_all()
        except RequestAborted:
            return {"done": "anyway"}

    client = await connect(service)
    out = client.channel.open_message(CALL)
    await out.write(b"half")
    await until(lambda: service.in_flight == 1)
    out.fail("changed my mind")
    reply = await client.message()
    with pytest.raises(Exception, match="changed my mind"):
        await reply.read_all(100)


async def test_a_working_handler_is_cancelled_when_its_request_is_given_up(
    service: Service, connect: Connect
) -> None:
    working, cancelled = asyncio.Event(), asyncio.Event()

    @service.action("a.b")
    async def work(request: Request) -> None:
        working.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    client = await connect(service)
    out = client.channel.open_message(CALL)
    await working.wait()
    out.fail("changed my mind")
    await cancelled.wait()
    reply = await client.message()
    with pytest.raises(Exception, match="changed my mind"):
        await reply.read_all(100)
    assert await client.call(RequestHeader("a.none", 8))  # the connection is as good as before


async def test_handlers_are_cancelled_when_their_client_goes(
    service: Service, connect: Connect
) -> None:
    working, cancelled = asyncio.Event(), asyncio.Event()

    @service.action("a.b")
    async def work(request: Request) -> None:
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    client, other = await connect(service), await connect(service)
    client.channel.open_message(CALL).end()
    await working.wait()
    client.channel.abort("gone")
    await cancelled.wait()
    await until(lambda: service.in_flight == 0 and service.connections == 1)
    assert not other.lost.done()


# -- tickets ------------------------------------------------------------------------------


def protected(*, flags: str = "read", require: bool = True, verifier: bool = True) -> Service:
    identity = make_identity()
    public = keys.load_private_key(identity.key).public_key()
    made = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        ticket_verifier=TicketVerifier([public]) if verifier else None,
        require_tickets=require,
    )

    @made.action("a.b", flags=flags)
    async def who(request: Request) -> object:
        return request.ticket.user_id if request.ticket else None

    return made


def ticket(*, signer: int = 0, start: float = -10, length: int = 100) -> str:
    return issue_ticket(
        keys.load_private_key(make_identity(signer).key),
        user_id=5,
        client_id=6,
        privileges=(1,),
        start=int(time.time() + start),
        length=length,
    )


async def test_a_good_ticket_is_given_to_the_handler(connect: Connect) -> None:
    client = await connect(protected())
    reply = await client.call(RequestHeader("a.b", 7, ticket=ticket()))
    assert await reply.read_all(10) == b"5"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lambda: None, None),
        (lambda: "rubbish", "malformed"),
        (lambda: ticket(signer=1), "bad_signature"),
        (lambda: ticket(start=-200), "expired"),
        (lambda: ticket(start=3600), "not_yet_valid"),
    ],
)
async def test_without_a_good_ticket_nothing_runs(
    connect: Connect, text: Callable[[], str | None], reason: str | None
) -> None:
    client = await connect(protected())
    header = await error_of(client, RequestHeader("a.b", 7, ticket=text()))
    assert header.error_code == "unauthorized"
    assert header.error_data == (None if reason is None else {"ticket": reason})


@pytest.mark.parametrize("text", [None, "rubbish"])
async def test_a_noauth_action_needs_none(connect: Connect, text: str | None) -> None:
    client = await connect(protected(flags="noauth"))
    reply = await client.call(RequestHeader("a.b", 7, ticket=text))
    assert await reply.read_all(10) == b"null"


async def test_a_noauth_action_still_sees_a_good_one(connect: Connect) -> None:
    client = await connect(protected(flags="noauth"))
    reply = await client.call(RequestHeader("a.b", 7, ticket=ticket()))
    assert await reply.read_all(10) == b"5"


async def test_a_service_that_cannot_check_tickets_does_not_start() -> None:
    made = protected(verifier=False)
    with pytest.raises(ConfigError, match=r"a\.b .*require_tickets=False"):
        await made.start("127.0.0.1", 0)


async def test_tickets_can_be_given_up_in_so_many_words(connect: Connect) -> None:
    client = await connect(protected(verifier=False, require=False))
    reply = await client.call(CALL)
    assert await reply.read_all(10) == b"null"


async def test_a_service_of_noauth_actions_needs_no_verifier(connect: Connect) -> None:
    client = await connect(protected(verifier=False, flags="noauth"))
    assert await (await client.call(CALL)).read_all(10) == b"null"
