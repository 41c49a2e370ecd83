"""Uploads that stream leave connections to the service to others."""

from __future__ import annotations

import asyncio

import pytest

from fronted import Fronted
from gateway.front import FrontOptions
from gateway.uploads import Uploads
from scamp.client import ClientOptions
from scamp.testing import ScriptedPeer, until

ECHO = "/api/Test.echo"
LARGE = 1 << 20


async def test_slow_uploads_leave_connections_to_small_calls() -> None:
    options = FrontOptions(connections_per_instance=4)
    client = ClientOptions(max_connections=4)
    async with Fronted(ScriptedPeer(), options=options, client=client) as gateway:
        slow = [await gateway.connect() for _ in range(8)]
        for wire in slow:
            wire.send("POST", ECHO, [("Content-Length", str(LARGE))])
            wire.writer.write(b"x")
        await until(lambda: gateway.front.in_flight == 8)
        answer = await gateway.request("POST", ECHO, body=b"{}")
        assert (answer.status, answer.body) == (200, b"{}")
        for wire in slow:
            wire.writer.write(bytes(LARGE - 1))
        for wire in slow:
            assert len((await wire.answer()).body) == LARGE
        assert len(gateway.front._uploads) == 0


async def test_an_upload_that_finds_no_place_in_time_is_told_so() -> None:
    options = FrontOptions(connections_per_instance=1)
    async with Fronted(ScriptedPeer(), options=options) as gateway:
        first, second = await gateway.connect(), await gateway.connect()
        first.send("POST", ECHO, [("Content-Length", str(LARGE))])
        await until(lambda: gateway.front.in_flight == 1)
        fields = [("Content-Length", str(LARGE)), ("X-SCAMP-Timeout", "0.05")]
        second.send("POST", ECHO, fields)
        answer = await second.answer()
        assert (answer.status, answer.json()["code"]) == (504, "queue_timeout")
        first.writer.write(bytes(LARGE))
        assert (await first.answer()).status == 200


async def test_places_are_given_in_turn_and_none_is_lost() -> None:
    uploads = Uploads(1)
    await uploads.enter("shop", 1, 1.0)
    order: list[int] = []

    async def one(number: int) -> None:
        await uploads.enter("shop", 1, 10.0)
        order.append(number)
        uploads.leave("shop")

    tasks = [asyncio.create_task(one(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    uploads.leave("shop")
    tasks[0].cancel()  # as its turn has come
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends[:2]] == [asyncio.CancelledError] * 2
    assert order == [2, 3]
    assert len(uploads) == 0
    await uploads.enter("shop", 1, 1.0)
    with pytest.raises(TimeoutError):
        await uploads.enter("shop", 1, 0.01)
    uploads.leave("shop")
    assert len(uploads) == 0
