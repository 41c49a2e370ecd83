"""Scripts for `ScriptedPeer`: what becomes of a request.

A script is a coroutine function that is given a `PeerRequest`; those with parameters are made by
calling what is here. Combine them: ``every(200, silent)``, ``when(event, failing("gone"))``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from scamp.testing.peer_connection import PeerConnection, PeerRequest, Script
from scamp.wire import PacketType, encode_packet

GATHER: Final = 0.003
"""Seconds that `shuffled` waits for more requests."""


async def echo(request: PeerRequest) -> None:
    """The request's body."""
    await request.reply(bytes(request.body))


async def silent(request: PeerRequest) -> None:
    """No answer, ever."""


async def hang_up(request: PeerRequest) -> None:
    """The connection is cut; the request may have been executed."""
    request.connection.cut()


async def twice(request: PeerRequest) -> None:
    """Two replies to one request, in one write."""
    await request.reply(bytes(request.body))
    await request.reply(bytes(request.body))


def every(number: int, fault: Script, otherwise: Script = echo) -> Script:
    """`fault` for every `number`-th request that comes to it, `otherwise` for the others."""
    count = 0

    async def script(request: PeerRequest) -> None:
        nonlocal count
        count += 1
        await (fault if count % number == 0 else otherwise)(request)

    return script


def first(number: int, fault: Script, otherwise: Script = echo) -> Script:
    """`fault` for the first `number` requests, then `otherwise`."""
    count = 0

    async def script(request: PeerRequest) -> None:
        nonlocal count
        count += 1
        await (fault if count <= number else otherwise)(request)

    return script


def by_body(scripts: Mapping[bytes, Script], otherwise: Script = echo) -> Script:
    """The script that is named for the request's body."""

    async def script(request: PeerRequest) -> None:
        await scripts.get(bytes(request.body), otherwise)(request)

    return script


def when(event: asyncio.Event, script: Script = echo) -> Script:
    """`script`, once `event` is set."""

    async def waiting(request: PeerRequest) -> None:
        await event.wait()
        await script(request)

    return waiting


def slow(seconds: float, script: Script = echo) -> Script:
    """`script`, after a while."""

    async def waiting(request: PeerRequest) -> None:
        await asyncio.sleep(seconds)
        await script(request)

    return waiting


def shuffled(size: int, seed: int = 0) -> Script:
    """Echoes out of order: gathers up to `size` requests of a connection, answers in any order.

    Waits `GATHER` seconds for more at most, so that a client that sends one at a time is served.
    """
    rng = random.Random(seed)  # noqa: S311 - to be repeatable
    held: dict[PeerConnection, list[PeerRequest]] = {}
    full: dict[PeerConnection, asyncio.Event] = {}

    async def script(request: PeerRequest) -> None:
        connection = request.connection
        gathered = held.setdefault(connection, [])
        gathered.append(request)
        if len(gathered) > 1:
            if len(gathered) == size:
                full[connection].set()
            return
        event = full[connection] = asyncio.Event()
        try:
            async with asyncio.timeout(GATHER):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            del held[connection], full[connection]
        rng.shuffle(gathered)
        for one in gathered:
            await one.reply(bytes(one.body))

    return script


def failing(code: str, message: str = "", data: Mapping[str, Any] | None = None) -> Script:
    """An error reply, as services send it when an action fails."""

    async def script(request: PeerRequest) -> None:
        await request.reply(b"{}", error_code=code, error=message or code, error_data=data)

    return script


dispatch_failure: Final = failing("dispatch_failure", "no worker", {"dispatch_failure": True})
"""The request reached no service and may be sent elsewhere."""


def txerr(text: str = "broken", after: bytes = b"") -> Script:
    """A reply that is given up, at once or `after` some of its body."""

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(after)
        reply.fail(text)

    return script


def unknown_id(request_id: object, script: Script | None = echo) -> Script:
    """A reply with an id that was never used; then `script` for the real one."""

    async def answer(request: PeerRequest) -> None:
        await request.reply(b"nobody's", request_id=request_id)
        if script is not None:
            await script(request)

    return answer


def endless(piece: bytes, until: Callable[[], bool] = lambda: False) -> Script:
    """A reply that goes on until `until` says otherwise, which it may never do."""

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        while not until():
            await reply.write(piece)
        reply.end()

    return script


def begun(piece: bytes, go_on: asyncio.Event) -> Script:
    """A reply whose first piece comes at once and whose rest, the same piece, after `go_on`."""

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(piece)
        await go_on.wait()
        await reply.write(piece)
        reply.end()

    return script


def oversized(size: int) -> Script:
    """The whole reply as one DATA packet of `size` bytes, whatever the window says."""

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        request.connection.packet(PacketType.DATA, reply.msgno, bytes(size))
        reply.end()

    return script


def crumbs(size: int = 1) -> Script:
    """The request's body in DATA packets of `size` bytes, all in one write."""

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        body = bytes(request.body)
        request.connection.send(
            b"".join(
                encode_packet(PacketType.DATA, reply.msgno, body[start : start + size])
                for start in range(0, len(body), size)
            )
        )
        reply.end()

    return script


def cut_midway(size: int = 1000) -> Script:
    """The connection ends in the middle of a DATA packet of `size` bytes."""

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        request.connection.send(b"DATA %d %d\r\n%b" % (reply.msgno, size, bytes(size // 2)))
        request.connection.close()

    return script


def raw(data: bytes) -> Script:
    """Any bytes instead of a reply; ``%d`` in it becomes the next message number."""

    async def script(request: PeerRequest) -> None:
        request.connection.send(data)

    return script


async def bad_trailer(request: PeerRequest) -> None:
    """A reply whose DATA packet does not end in END."""
    reply = request.open()
    request.connection.send(b"DATA %d 2\r\n{}DNE\r\n" % reply.msgno)


async def bad_line(request: PeerRequest) -> None:
    """A reply, and then a packet header with a bare LF."""
    await echo(request)
    request.connection.send(b"HEADER 1 2\n{}END\r\n")


def events(count: int, script: Script = echo) -> Script:
    """`count` messages of type ``event`` before the reply: nobody asked for them."""

    async def answer(request: PeerRequest) -> None:
        for number in range(count):
            event = request.connection.open({"type": "event"})
            await event.write(b'[{"code":"noise","key":"","value":%d}]' % number)
            event.end()
        await script(request)

    return answer
