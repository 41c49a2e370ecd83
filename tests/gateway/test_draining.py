"""Connections that are kept alive while the gateway leaves, and signals at awkward moments."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fronted import Wire
from gateway import lifecycle
from gateway.lifecycle import Gateway, run
from gateway.listener import Listener
from gateway.signals import Triggers
from scamp.testing import make_identity, until
from stand import Stand, stand

OPEN = "/api/Test.Gate.open"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


class Draining:
    """A gateway, and its drain as a task once it was begun."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.task: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    def begin(self) -> None:
        self.task = asyncio.create_task(self.gateway.drain())

    async def closed(self) -> None:
        """The listener is."""
        await until(lambda: not self.gateway.public.open)

    async def waits(self) -> None:
        """The listener is, and the gateway does not leave yet."""
        assert self.task is not None
        await self.closed()
        await asyncio.wait({self.task}, timeout=0.15)
        assert not self.task.done()

    async def wire(self, **options: Any) -> Wire:
        port = self.gateway.public.port
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port, **options))
        self._stack.push_async_callback(wire.close)
        return wire

    async def close(self) -> None:
        await self._stack.aclose()
        if self.task is not None:
            self.gateway.triggers.now.set()
            await self.task


@asynccontextmanager
async def draining(mesh: Stand, **settings: Any) -> AsyncIterator[Draining]:
    gateway = Gateway(mesh.loaded(**settings), Triggers())
    try:
        await gateway.start()
        one = Draining(gateway)
        try:
            yield one
        finally:
            await one.close()
    finally:
        await gateway.close()


async def ask(wire: Wire) -> tuple[int, str | None]:
    wire.send("GET", OPEN)
    answer = await wire.answer("GET")
    return answer.status, answer.headers.get("Connection")


@pytest.mark.parametrize("replaced", [False, True])
async def test_what_the_kernel_has_accepted_is_served_unless_another_process_will(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    stop = Listener.stop
    wires: list[socket.socket] = []

    async def stop_late(self: Listener, *, serve_rest: bool = False) -> None:
        if self is one.gateway.public and not wires:
            # Blocks the loop, so nobody can have accepted it.
            wires.append(socket.create_connection(("127.0.0.1", self.port)))
        await stop(self, serve_rest=serve_rest)

    monkeypatch.setattr(Listener, "stop", stop_late)
    async with draining(mesh) as one:
        if replaced:
            one.gateway.triggers.replace(frozenset({"public"}))
        one.begin()
        await until(lambda: wires)
        await one.closed()
        try:
            wire = Wire(*await asyncio.open_connection(sock=wires[0]))
            status, _ = await ask(wire)
            await wire.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            status = 0  # here nobody else has the socket
        assert status == (0 if replaced else 200)


async def test_an_idle_connection_is_answered_once_more_and_told_that_it_ends(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LINGER", 1000.0)
    async with draining(mesh) as one:
        used, fresh = await one.wire(), await one.wire()
        assert await ask(used) == (200, None)
        one.begin()
        await one.waits()
        for wire in (used, fresh):
            assert await ask(wire) == (200, "close")
            assert await wire.ended()
        assert one.task is not None
        await one.task


async def test_idle_connections_end_after_a_while(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LINGER", 0.1)
    async with draining(mesh) as one:
        wire = await one.wire()
        assert await ask(wire) == (200, None)
        one.begin()
        assert await wire.ended()
        assert one.task is not None
        await one.task


async def test_a_request_that_was_not_read_yet_keeps_its_connection(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LINGER", 0.0)
    async with draining(mesh) as one:
        wire = await one.wire()
        assert await ask(wire) == (200, None)
        server = one.gateway._server
        began = asyncio.get_running_loop().time()
        wire.send("GET", OPEN)  # it is in the kernel now, and the loop had no turn to read it
        assert not server.retire(began, 0.0)
        assert (await wire.answer("GET")).status == 200
        await until(lambda: server.settled)
        assert server.retire(began, 0.0)
        assert await wire.ended()


async def test_what_a_slow_client_has_to_take_yet_is_not_cut(mesh: Stand) -> None:
    async with draining(mesh) as one:
        wire = await one.wire()
        wire.send("GET", "/api/Test.Gate.wait")
        await until(lambda: mesh.waiting == 1)
        assert not one.gateway._server.settled
        one.begin()
        await one.waits()
        mesh.gate.set()
        assert (await wire.answer("GET")).headers["Connection"] == "close"
        assert one.task is not None
        await one.task


async def test_half_a_head_is_waited_for_up_to_the_drain_limit(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LINGER", 0.0)
    async with draining(mesh, drain_limit=1000) as one:
        wire, stays = await one.wire(), await one.wire()
        for each in (wire, stays):
            assert await ask(each) == (200, None)
            each.writer.write(f"GET {OPEN} HTTP/1.1\r\n".encode())
        await until(lambda: all(c.idle_since is None for c in one.gateway._server._own()))
        one.begin()
        await one.waits()
        wire.writer.write(b"Host: test\r\n\r\n")
        assert (await wire.answer("GET")).status == 200
        assert one.task is not None
        assert not one.task.done()


async def test_who_is_shaking_hands_when_the_listener_closes_is_served(mesh: Stand) -> None:
    identity = make_identity(1)
    certificate, key = mesh.folder / "public.crt", mesh.folder / "public.key"
    certificate.write_bytes(identity.certificate)
    key.write_bytes(identity.key)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with draining(mesh, tls_certificate=certificate, tls_key=key) as one:
        slow = await one.wire()  # nothing of TLS yet
        one.begin()
        await one.waits()
        await slow.writer.start_tls(context)
        assert await ask(slow) == (200, "close")


async def test_with_a_second_signal_nobody_is_waited_for(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LINGER", 1000.0)
    async with draining(mesh, drain_limit=1000) as one:
        wire = await one.wire()
        assert await ask(wire) == (200, None)
        one.begin()
        await one.closed()
        one.gateway.triggers.now.set()
        assert one.task is not None
        await one.task


# -- signals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "signals",
    ["terminate", "interrupt", "terminate terminate", "interrupt terminate", "terminate interrupt"],
)
async def test_signals_that_come_at_once_while_it_starts(mesh: Stand, signals: str) -> None:
    triggers, said = Triggers(), list[str]()
    task = asyncio.create_task(
        run(mesh.loaded(drain_delay=0, drain_limit=1000), triggers=triggers,
            ready=lambda *both: said.extend(both))
    )  # fmt: skip
    await asyncio.sleep(0)
    for one in signals.split():
        getattr(triggers, one)()
    assert await task == 0
    assert said == []


@pytest.mark.parametrize("second", ["terminate", "interrupt"])
async def test_two_signals_within_one_turn_of_the_loop_end_it_at_once(
    mesh: Stand, second: str
) -> None:
    triggers, up = Triggers(), asyncio.Event()
    task = asyncio.create_task(
        run(mesh.loaded(drain_delay=1000, drain_limit=1000), triggers=triggers,
            ready=lambda *_: up.set())
    )  # fmt: skip
    await up.wait()
    triggers.terminate()
    getattr(triggers, second)()
    assert await task == 0


async def test_told_to_stop_as_soon_as_it_accepts_it_drains(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the listener and being up there is a moment, too."""
    triggers, up = Triggers(), asyncio.Event()
    follow = Gateway._follow_files
    wires: list[Wire] = []

    async def requested(gateway: Gateway, public: Any) -> None:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", public.port))
        wires.append(wire)
        wire.send("GET", "/api/Test.Gate.wait")
        await until(lambda: mesh.waiting == 1)
        triggers.terminate()
        await follow(gateway, public)
        asyncio.get_running_loop().call_later(0.1, mesh.gate.set)

    monkeypatch.setattr(Gateway, "_follow_files", requested)
    assert await run(mesh.loaded(), triggers=triggers, ready=lambda *_: up.set()) == 0
    answer = await wires[0].answer("GET")
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    await wires[0].close()
    assert not up.is_set()


async def test_told_to_reload_while_draining_is_no_harm(mesh: Stand) -> None:
    triggers, up = Triggers(), asyncio.Event()
    task = asyncio.create_task(
        run(mesh.loaded(drain_delay=0.3), triggers=triggers, ready=lambda *_: up.set())
    )
    await up.wait()
    triggers.terminate()
    await asyncio.sleep(0)
    triggers.reload.set()
    assert await task == 0


async def test_one_that_failed_leaves_its_socket_for_the_next(mesh: Stand) -> None:
    """A master of workers has it still, and gives it to another one."""
    gateway = Gateway(mesh.loaded(), Triggers())
    await gateway.start()
    assert gateway._acquired is not None
    (opened,) = gateway._acquired.sockets.public
    with opened.dup() as passed:
        await gateway.drain()
        await gateway.close()
        async with asyncio.timeout(20):
            _, writer = await asyncio.open_connection(*passed.getsockname())
        writer.close()
        await writer.wait_closed()
