"""What our client says to real services, and what it makes of their answers."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import pytest
from editions import Edition

from scamp.client import Requester
from scamp.errors import ConnectionLost, ReplyFailed, ReplyTimeout, ServiceError

MIB = 1024 * 1024
LARGE = 64 * MIB
CLIENTS = 16
REQUESTS = 20
"""Of each client."""


def needs(offered: frozenset[str], action: str) -> str:
    if action not in offered:
        pytest.skip(f"the service does not offer {action}")
    return action


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 131_072, 131_073])
@pytest.mark.parametrize("streamed", [False, True], ids=["held", "streamed"])
async def test_bodies_there_and_back(requester: Requester, size: int, streamed: bool) -> None:
    body = os.urandom(size)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 10_000):
            yield body[start : start + 10_000]

    for _ in range(2):
        reply = await requester.request("Interop.echo", pieces() if streamed else body)
        assert await reply.read_all() == body


async def test_a_large_body_there_and_back(requester: Requester) -> None:
    """64 MiB, neither sent nor received from memory."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    piece = os.urandom(MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGE // MIB):
            sent.update(piece)
            yield piece

    size = 0
    async with await requester.request("Interop.echo", pieces()) as reply:
        async for data in reply:
            received.update(data)
            size += len(data)
    assert size == LARGE
    assert received.digest() == sent.digest()


async def test_many_clients_get_their_own_answers(requester: Requester) -> None:
    async def client(number: int) -> None:
        for count in range(REQUESTS):
            body = b'{"client":%d,"request":%d}' % (number, count)
            reply = await requester.request("Interop.echo", body)
            assert await reply.read_all() == body

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    assert requester.stats.stray_replies == 0
    assert requester.stats.protocol_errors == 0
    (view,) = requester.instances()
    assert view.in_flight == 0
    assert view.peer in ("echoes", "renumbers")


async def test_an_error_of_the_service(requester: Requester, offered: frozenset[str]) -> None:
    with pytest.raises(ServiceError) as caught:
        await requester.request(needs(offered, "Interop.fail"))
    assert caught.value.code == "not_found"


async def test_data_of_an_error(
    requester: Requester, offered: frozenset[str], edition: Edition
) -> None:
    edition.needs("error_data")
    with pytest.raises(ServiceError) as caught:
        await requester.request(needs(offered, "Interop.fail"))
    assert caught.value.data == {"id": 42, "what": "thing"}


async def test_a_reply_that_is_broken_off(requester: Requester, offered: frozenset[str]) -> None:
    action = needs(offered, "Interop.txerr")
    with pytest.raises(ReplyFailed):  # noqa: PT012 - before or after the first byte
        reply = await requester.request(action)
        await reply.read_all()


async def test_slow_answers_do_not_hold_up_fast_ones(
    requester: Requester, offered: frozenset[str]
) -> None:
    slow = asyncio.create_task(requester.request(needs(offered, "Interop.slow"), b'"slow"'))
    for number in range(10):
        reply = await requester.request("Interop.echo", b"%d" % number)
        assert await reply.read_all() == b"%d" % number
    assert not slow.done()
    assert await (await slow).read_all() == b'"slow"'


async def test_answers_out_of_order(requester: Requester, offered: frozenset[str]) -> None:
    action = needs(offered, "Interop.out_of_order")

    async def one(milliseconds: int) -> None:
        body = b'{"ms":%d}' % milliseconds
        reply = await requester.request(action, body)
        assert await reply.read_all() == body

    await asyncio.gather(*(one(200 - 10 * number) for number in range(20)))
    assert requester.stats.connects <= 21


async def test_who_gives_up_is_no_trouble_for_the_others(
    requester: Requester, offered: frozenset[str]
) -> None:
    """Requests that are answered too late, in the middle of others that are not."""
    action = needs(offered, "Interop.slow")

    async def client(number: int) -> None:
        for count in range(REQUESTS):
            body = b'{"client":%d,"request":%d}' % (number, count)
            if (number + count) % 10 == 0:
                with pytest.raises(TimeoutError):  # for a reply, or for a connection to be free
                    await requester.request(action, body, timeout=0.1)
                continue
            reply = await requester.request("Interop.echo", body)
            assert await reply.read_all() == body

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    assert requester.stats.stray_replies == 0


async def test_unanswered_requests_cost_nobody_else(
    requester: Requester, offered: frozenset[str]
) -> None:
    """The service leaves one request in 200 unanswered."""
    action = needs(offered, "Interop.unanswered")
    unanswered = answered = 0

    async def client(number: int) -> None:
        nonlocal unanswered, answered
        for count in range(50):
            body = b'{"client":%d,"request":%d}' % (number, count)
            try:
                reply = await requester.request(action, body, timeout=1.0)
                assert await reply.read_all() == body
                answered += 1
            except ReplyTimeout:
                unanswered += 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    assert (answered, unanswered) == (50 * CLIENTS - 4, 4)


async def test_half_an_upload_is_given_up(requester: Requester) -> None:
    class NoMoreError(Exception):
        pass

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        raise NoMoreError

    for _ in range(3):
        # A service may answer before the upload has ended; then its reply is cut.
        with pytest.raises((NoMoreError, ConnectionLost)):  # noqa: PT012
            early = await requester.request("Interop.echo", pieces())
            await early.read_all()
        reply = await requester.request("Interop.echo", b'"still there"')
        assert await reply.read_all() == b'"still there"'
