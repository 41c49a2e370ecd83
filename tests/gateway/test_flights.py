"""What becomes of requests without a task when something ends: client, service, process."""

from __future__ import annotations

import asyncio
import gc
from itertools import product
from typing import Any

import pytest
from aiohttp import EMPTY_PAYLOAD
from emptied import assert_tables_empty, quiet

from fronted import Fronted
from gateway.fastpath import MAX_BODY, FastPath
from gateway.front import Front
from gateway.public import PublicServer
from scamp.testing import ScriptedPeer, until
from scamp.testing.peer_connection import Script
from scamp.testing.scripts import by_body, echo, silent, when

ECHO = "/api/Test.echo"
HEAD = f"POST {ECHO} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n".encode()
GET = b"GET /api/Test.echo?n=%d HTTP/1.1\r\nHost: test\r\n\r\n"


def echoing(script: Script = echo, **options: Any) -> ScriptedPeer:
    return ScriptedPeer(script, flags=options.pop("flags", "noauth"), **options)


async def warm(gateway: Fronted) -> None:
    assert (await gateway.request("POST", ECHO, (), b"{}")).status == 200


def server_of(gateway: Fronted) -> PublicServer:
    assert gateway._server is not None
    return gateway._server


# -- the process ends -------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
async def test_who_is_still_sending_a_body_at_the_end_is_told(fast: bool) -> None:
    async with Fronted(echoing(), fast=fast) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.writer.write(HEAD + b"[")
        await until(
            lambda: any(one._messages or one._current_request for one in connections(gateway))
        )
        await gateway.stop()
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (503, "stopping")
        assert await wire.ended()
        assert gateway.front.in_flight == 0
        assert gateway.log.lines[-1]["cause"] == "stopping"


def connections(gateway: Fronted) -> list[Any]:
    return list(server_of(gateway).connections)


async def test_a_reply_that_comes_while_a_request_is_handed_over_is_given_once() -> None:
    """At whatever turn of the loop: until there is a task, nobody else must answer."""
    go = asyncio.Event()
    async with Fronted(echoing(by_body({b"[9]": when(go)}))) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        for turns in range(25):
            go.clear()
            wire.send("POST", ECHO, (), b"[9]")
            await until(lambda: gateway.front.in_flight == 1)
            await asyncio.sleep(0.001)
            go.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            for one in connections(gateway):
                one.hand_over()
            answer = await wire.answer()
            assert (answer.status, answer.body) == (200, b"[9]")
            assert len(gateway.log.lines) == turns + 2
            assert gateway.front.in_flight == 0
        wire.send("POST", ECHO, (), b"[1]")
        assert (await wire.answer()).body == b"[1]"


async def test_stopped_at_any_turn_of_the_loop_each_request_has_one_answer() -> None:
    """Or none, where its connection ends; never two, nor that of another."""
    for turns in range(20):
        async with Fronted(echoing(flags="noauth,read")) as gateway:
            await warm(gateway)
            wires = [await gateway.connect() for _ in range(4)]
            for number, wire in enumerate(wires):
                for one in range(3):
                    wire.send("POST", ECHO, (), b"[%d, %d]" % (number, one))
            for _ in range(turns):
                await asyncio.sleep(0)
            await gateway.stop()
            told = 0
            for number, wire in enumerate(wires):
                read = await wire.reader.read()
                bodies = [one.partition(b"\r\n\r\n")[2] for one in read.split(b"HTTP/1.1 ")[1:]]
                told += len(bodies)
                for one, body in enumerate(bodies):
                    assert body == b"[%d, %d]" % (number, one) or b'"stopping"' in body
            assert gateway.front.in_flight == 0
            assert len(gateway.log.lines) == told + 1
            assert not connections(gateway)


# -- the client leaves ------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
async def test_who_leaves_before_the_body_is_here_is_counted(fast: bool) -> None:
    """Though there was no task yet."""
    async with Fronted(echoing(), fast=fast) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.writer.write(HEAD + b"[1")
        await until(
            lambda: any(one._messages or one._current_request for one in connections(gateway))
        )
        wire.writer.transport.abort()
        (_, line) = await gateway.log.until(2)
        told = {name: line[name] for name in ("status", "cause", "action", "bytes_in", "attempts")}
        assert told == {
            "status": 499,
            "cause": "client_left",
            "action": "Test.echo",
            "bytes_in": 2,
            "attempts": 0,
        }
        assert gateway.front.in_flight == 0
        assert gateway.auth.results == {}


@pytest.mark.parametrize(("fast", "bodies"), list(product((True, False), range(1, 4))))
async def test_all_of_a_pipeline_is_read_however_bodies_came(fast: bool, bodies: int) -> None:
    """The parser stops at so many requests, and has to be told to go on: also where it counts one
    more than the connection knows of, since that was begun before its body was here."""
    async with Fronted(echoing(flags="noauth,read"), fast=fast) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        for _ in range(bodies):
            wire.writer.write(HEAD + b"[")
            await until(lambda: gateway.front.in_flight == 1)
            wire.writer.write(b"1]")
            assert (await wire.answer()).body == b"[1]"
        wire.writer.write(b"".join(GET % number for number in range(20)))
        for number in range(20):
            assert (await wire.answer()).json() == {"n": str(number)}


async def test_who_leaves_leaves_no_garbage() -> None:
    """With one request under way, some behind it, and the beginning of one."""
    async with Fronted(echoing(by_body({b"[9]": silent}))) as gateway:
        await warm(gateway)
        gc.collect()
        gc.disable()
        try:
            for number in range(8):
                wire = await gateway.connect()
                body = b"[9]" if number % 2 else b"[1]"
                wire.writer.write(HEAD + body + HEAD + b"[9]" + HEAD + b"[3]" + HEAD[:20])
                await until(lambda: any(one._messages for one in connections(gateway)))
                wire.writer.transport.abort()
                await until(lambda: not connections(gateway))
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = {type(one).__name__ for one in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert not found & {"Protocol", "RawRequestMessage", "Flight", "Exchange", "Launch"}
        assert gateway.front.in_flight == 0


# -- what should not happen -------------------------------------------------------------


async def test_a_failure_before_the_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be in a handler."""
    async with Fronted(echoing()) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        with monkeypatch.context() as patched:
            patched.setattr(FastPath, "_head", lambda *_: 1 / 0)
            wire.send("POST", ECHO, (), b"[1]")
            answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (500, "internal_error")
        assert gateway.log.lines[-1]["cause"] == "internal_error"
        wire.send("POST", ECHO, (), b"[2]")
        assert (await wire.answer()).body == b"[2]"
        assert gateway.front.in_flight == 0
        await until(lambda: quiet(gateway.mesh))
        assert_tables_empty(gateway.mesh)


async def test_a_failure_behind_the_answer_is_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish = Front.finish

    def failing(self: Front, exchange: Any) -> None:
        finish(self, exchange)
        raise RuntimeError("no space left")

    async with Fronted(echoing()) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        with monkeypatch.context() as patched:
            patched.setattr(Front, "finish", failing)
            wire.send("POST", ECHO, (), b"[1]")
            await until(lambda: not connections(gateway))
        assert gateway.front.in_flight == 0
        assert len(gateway.log.lines) == 2


async def test_a_failure_on_the_way_there_is_nobodys_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Fronted(echoing()) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        before = gateway.tasks
        with monkeypatch.context() as patched:
            patched.setattr(FastPath, "_caller", lambda *_: 1 / 0)
            wire.send("POST", ECHO, (), b"[1]")
            assert (await wire.answer()).body == b"[1]"
        assert gateway.tasks == before + 1


# -- nothing stays ----------------------------------------------------------------------


async def test_an_idle_connection_holds_no_answer() -> None:
    """Not that of a handler either: aiohttp keeps it until the next request is here."""
    peer = echoing(flags="noauth,read")
    async with Fronted(peer, fast=False) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        wire.send("POST", ECHO, (), b"z" * 30_000)
        await wire.answer()
        await until(lambda: connections(gateway)[0].idle_since is not None)
        task = connections(gateway)[0]._task_handler
        frame = task.get_coro().cr_await.cr_frame
        assert frame.f_locals["resp"].status == 200
        assert frame.f_locals["resp"].body is None


async def test_an_idle_connection_holds_no_body() -> None:
    """Nobody has read it out of the parser's stream, as a handler would."""
    async with Fronted(echoing()) as gateway:
        await warm(gateway)
        wire = await gateway.connect()
        before = gateway.tasks
        for _ in range(2):
            wire.send("POST", ECHO, (), b"x" * (MAX_BODY - 1))
            await wire.answer()
        assert gateway.tasks == before
        assert [one._body for one in connections(gateway)] == [EMPTY_PAYLOAD]
