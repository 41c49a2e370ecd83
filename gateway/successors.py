"""The running process' side of a takeover: it passes its sockets to the one that is to follow.

`takeover` has the messages, and the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.activation import NAMES
from gateway.setting_types import Address
from gateway.takeover import (
    AT_ONCE,
    MAX_MESSAGE,
    MAX_SOCKETS,
    REQUEST_LIMIT,
    START_LIMIT,
    VERSION,
    open_post,
    pack,
    peer_of,
    trusted,
    unpack,
)

log = logging.getLogger("gateway.takeover")

_PAUSE: Final = 1.0
"""Seconds without accepting when that fails, as for want of descriptors."""


@dataclass(frozen=True, slots=True)
class Held:
    """The sockets of one listener."""

    address: Address
    """As it was set: port 0 is the same as port 0."""
    sockets: list[socket.socket]

    def serves(self, wanted: object) -> bool:
        """Whether they are what a process with this address would open."""
        if not self.sockets or self.sockets[0].fileno() < 0 or len(self.sockets) > MAX_SOCKETS:
            return False
        real = Address(self.address.host, self.sockets[0].getsockname()[1])
        return wanted in (str(self.address), str(real))


class Successors:
    """Waits at the path for a process that wants to replace this one; one at a time.

    `replaced` is called once, with the listeners that were passed, when such a process serves.
    """

    def __init__(
        self,
        path: Path,
        held: Mapping[str, Held],
        replaced: Callable[[frozenset[str]], None],
        post: socket.socket | None = None,
    ) -> None:
        """`held`: by listener; the sockets stay the caller's. `post`: the path's socket, if it was
        taken over, too. Without one the path is taken now, whoever had it; raises `ConfigError`."""
        self._held = held
        self._replaced = replaced
        self._post = open_post(path) if post is None else post
        self._path = path
        self._stamp = _stamp(path)
        self._follower: asyncio.Task[None] | None = None
        self._server: asyncio.Task[None] | None = None
        self.left = False
        """Another process serves, on this path too."""

    def start(self) -> None:
        """Begin to accept, until replaced or closed."""
        self._server = asyncio.create_task(self._serve(), name="gateway successors")
        self._server.add_done_callback(_ended)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._post)
            except OSError as exc:
                log.warning("cannot accept at %s: %s", self._path, exc)
                await asyncio.sleep(_PAUSE)
                continue
            connection.setblocking(False)
            try:
                async with asyncio.timeout(REQUEST_LIMIT):
                    await self._answer(connection)
            except (OSError, ValueError, TimeoutError) as exc:
                connection.close()
                log.warning("somebody at %s was not served: %r", self._path, exc)
            except BaseException:
                connection.close()
                raise

    async def close(self) -> None:
        """Wait for nobody any longer. Who has our sockets already keeps them, and the path. May be
        called twice."""
        passed = self.left or self._follower is not None
        tasks = {task for task in (self._server, self._follower) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # Not before: others have the same socket open, so the kernel would go on waking the loop.
        self._post.close()
        if not passed and self._stamp is not None and _stamp(self._path) == self._stamp:
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _answer(self, connection: socket.socket) -> None:
        pid, uid = peer_of(connection)
        if not trusted(uid):
            raise PermissionError(f"process {pid} is of user {uid}")
        wanted = unpack(await _receive(connection))
        refusal = self._refusal(wanted)
        if refusal is not None:
            log.warning("process %d cannot take over: %s", pid, refusal)
            _say(connection, error=refusal)
            connection.close()
            return
        names = [name for name in NAMES if self._held[name].serves(wanted.get(name))]
        counts = {name: len(self._held[name].sockets) for name in names}
        _say(connection, takeover=VERSION, **counts)
        sockets = [sock for name in names for sock in self._held[name].sockets]
        sockets.append(self._post)
        for start in range(0, len(sockets), AT_ONCE):
            some = [sock.fileno() for sock in sockets[start : start + AT_ONCE]]
            socket.send_fds(connection, [pack({"sockets": len(some)})], some)
        log.info("process %d is about to take over: %s", pid, ", ".join(names) or "no listener")
        self._follower = asyncio.create_task(self._follow(connection, pid, frozenset(names)))
        self._follower.add_done_callback(self._followed)

    def _refusal(self, wanted: Mapping[str, Any]) -> str | None:
        if wanted.get("takeover") != VERSION:
            return f"it asks in version {wanted.get('takeover')!r} of this, we speak {VERSION}"
        if self._follower is not None:
            return "another process is about to take over"
        return None

    async def _follow(self, connection: socket.socket, pid: int, names: frozenset[str]) -> None:
        """Wait until the other process serves, or is gone."""
        try:
            async with asyncio.timeout(START_LIMIT):
                serving = unpack(await _receive(connection)).get("serving")
            if serving is not True:
                raise ValueError("it said something else than that it serves")  # noqa: TRY301
        except TimeoutError:
            log.error("process %d did not start within %g s: going on", pid, START_LIMIT)
            _say(connection, error=f"it did not wait for more than {START_LIMIT:g} s")
        except (OSError, ValueError) as exc:
            log.warning("process %d does not take over, going on: %s", pid, exc)
        else:
            log.info("process %d has taken over", pid)
            self.left = True
            if self._server is not None:
                self._server.cancel()  # the path is the other's now
            _say(connection, leaving=True)
            self._replaced(names)
        finally:
            connection.close()

    def _followed(self, task: asyncio.Task[None]) -> None:
        self._follower = None
        _ended(task)


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.error("waiting for a successor failed", exc_info=failure)


async def _receive(connection: socket.socket) -> bytes:
    data = await asyncio.get_running_loop().sock_recv(connection, MAX_MESSAGE + 1)
    if not data:
        raise ConnectionResetError("it is gone")
    return data


def _say(connection: socket.socket, **message: Any) -> None:
    with contextlib.suppress(OSError):  # it is gone, or takes nothing
        connection.send(pack({"pid": os.getpid(), **message}))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
