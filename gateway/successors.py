"""The running process' side of a takeover: it passes its sockets to the one that is to follow.

`takeover` has the messages, and the other side. Nothing here blocks or waits: `Watching` tells when
there is something to do, which an event loop can, and a master of workers that has none.
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
from typing import Any, Final, Protocol

from gateway.activation import NAMES
from gateway.listener import Sockets
from gateway.setting_types import Address
from gateway.settings import Settings
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


def held(settings: Settings, sockets: Sockets) -> dict[str, Held]:
    """Both listeners."""
    return {
        "public": Held(settings.bind, sockets.public),
        "admin": Held(settings.admin_bind, sockets.admin),
    }


class Watching(Protocol):
    """Who calls us."""

    def watch(self, sock: socket.socket, act: Callable[[], object]) -> None:
        """Call `act` whenever `sock` can be read."""
        ...

    def unwatch(self, sock: socket.socket) -> None:
        """No longer; may be called twice."""
        ...

    def later(self, seconds: float, act: Callable[[], object]) -> Callable[[], object]:
        """Call `act` once; what it returns calls that off."""
        ...


class LoopWatching:
    """The running event loop as `Watching`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def watch(self, sock: socket.socket, act: Callable[[], object]) -> None:
        """Call `act` whenever `sock` can be read."""
        self._loop.add_reader(sock.fileno(), act)

    def unwatch(self, sock: socket.socket) -> None:
        """No longer; may be called twice."""
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())

    def later(self, seconds: float, act: Callable[[], object]) -> Callable[[], object]:
        """Call `act` once; what it returns calls that off."""
        return self._loop.call_later(seconds, act).cancel


@dataclass(frozen=True, slots=True)
class _Other:
    """A process that has connected."""

    connection: socket.socket
    pid: int
    names: frozenset[str]
    """The listeners that were passed to it."""
    call_off: Callable[[], object]
    """Its time limit."""


class Successors:
    """Waits at the path for a process that wants to replace this one; one at a time.

    `replaced` is called once, with the listeners that were passed, when such a process serves.
    """

    def __init__(
        self,
        path: Path,
        held: Mapping[str, Held],
        replaced: Callable[[frozenset[str]], None],
        watching: Watching,
        post: socket.socket | None = None,
    ) -> None:
        """`held`: by listener; the sockets stay the caller's. `post`: the path's socket, if it was
        taken over, too. Without one the path is taken now, whoever had it; raises `ConfigError`."""
        self._held = held
        self._replaced = replaced
        self._watching = watching
        self._post = open_post(path) if post is None else post
        self._path = path
        self._stamp = _stamp(path)
        self._guest: _Other | None = None
        """Has not said yet what it wants. Others wait in the queue meanwhile."""
        self._follower: _Other | None = None
        """Has our sockets, and is about to serve."""
        self._resumption: Callable[[], object] | None = None
        self.left = False
        """Another process serves, on this path too."""

    def start(self) -> None:
        """Begin to accept, until replaced or closed."""
        self._watching.watch(self._post, self._accept)

    def close(self) -> None:
        """Wait for nobody any longer. Who has our sockets already keeps them, and the path. May be
        called twice."""
        passed = self.left or self._follower is not None
        self.abandon()
        if not passed and self._stamp is not None and _stamp(self._path) == self._stamp:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def abandon(self) -> None:
        """Close everything here. In a child of the process: what it has open, too, is its parent's
        business."""
        self._watching.unwatch(self._post)
        self._post.close()
        if self._resumption is not None:
            self._resumption()
        for other in (self._guest, self._follower):
            if other is not None:
                self._part(other)
        self._guest = self._follower = None

    def _part(self, other: _Other) -> None:
        other.call_off()
        self._watching.unwatch(other.connection)
        other.connection.close()

    # -- one that comes -----------------------------------------------------------------

    def _accept(self) -> None:
        if self._post.fileno() < 0:
            return  # closed by what came together with this
        try:
            connection, _ = self._post.accept()
        except BlockingIOError:
            return
        except OSError as exc:
            log.warning("cannot accept at %s: %s", self._path, exc)
            self._watching.unwatch(self._post)
            self._resumption = self._watching.later(_PAUSE, self.start)
            return
        connection.setblocking(False)
        try:
            pid, uid = peer_of(connection)
            if not trusted(uid):
                raise PermissionError(f"process {pid} is of user {uid}")
        except OSError as exc:
            connection.close()
            self._not_served(exc)
            return
        late = self._watching.later(REQUEST_LIMIT, lambda: self._dismiss(TimeoutError("silent")))
        self._guest = _Other(connection, pid, frozenset(), late)
        self._watching.unwatch(self._post)
        self._watching.watch(connection, self._hear_guest)

    def _hear_guest(self) -> None:
        guest = self._guest
        if guest is None:
            return
        try:
            data = _receive(guest.connection)
            if data is not None:
                self._answer(guest, unpack(data))
        except (OSError, ValueError) as exc:
            self._dismiss(exc)

    def _dismiss(self, why: Exception | None = None) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            self._part(guest)
        if why is not None:
            self._not_served(why)
        self.start()

    def _not_served(self, why: Exception) -> None:
        log.warning("somebody at %s was not served: %r", self._path, why)

    def _answer(self, guest: _Other, wanted: Mapping[str, Any]) -> None:
        refusal = self._refusal(wanted)
        if refusal is not None:
            log.warning("process %d cannot take over: %s", guest.pid, refusal)
            _say(guest.connection, error=refusal)
            self._dismiss()
            return
        names = [name for name in NAMES if self._held[name].serves(wanted.get(name))]
        counts = {name: len(self._held[name].sockets) for name in names}
        _say(guest.connection, takeover=VERSION, **counts)
        sockets = [sock for name in names for sock in self._held[name].sockets]
        sockets.append(self._post)
        for start in range(0, len(sockets), AT_ONCE):
            some = [sock.fileno() for sock in sockets[start : start + AT_ONCE]]
            socket.send_fds(guest.connection, [pack({"sockets": len(some)})], some)
        log.info("process %d is about to take over: %s", guest.pid, ", ".join(names) or "nothing")
        guest.call_off()
        self._watching.unwatch(guest.connection)
        late = self._watching.later(START_LIMIT, self._too_late)
        self._guest = None
        self._follower = _Other(guest.connection, guest.pid, frozenset(names), late)
        self._watching.watch(guest.connection, self._hear_follower)
        self.start()

    def _refusal(self, wanted: Mapping[str, Any]) -> str | None:
        if wanted.get("takeover") != VERSION:
            return f"it asks in version {wanted.get('takeover')!r} of this, we speak {VERSION}"
        if self._follower is not None:
            return "another process is about to take over"
        return None

    # -- one that has our sockets -------------------------------------------------------

    def _hear_follower(self) -> None:
        """It serves, or is gone."""
        follower = self._follower
        if follower is None:
            return
        try:
            data = _receive(follower.connection)
            if data is None:
                return
            if unpack(data).get("serving") is not True:
                raise ValueError("it said something else than that it serves")  # noqa: TRY301 - told below
        except (OSError, ValueError) as exc:
            log.warning("process %d does not take over, going on: %s", follower.pid, exc)
            self._follower = None
            self._part(follower)
            return
        log.info("process %d has taken over", follower.pid)
        self.left = True
        _say(follower.connection, leaving=True)
        self.abandon()  # the path is the other's now
        self._replaced(follower.names)

    def _too_late(self) -> None:
        follower, self._follower = self._follower, None
        if follower is None:
            return
        log.error("process %d did not start within %g s: going on", follower.pid, START_LIMIT)
        _say(follower.connection, error=f"it did not wait for more than {START_LIMIT:g} s")
        self._part(follower)


def _receive(connection: socket.socket) -> bytes | None:
    """None when there is nothing yet."""
    try:
        data = connection.recv(MAX_MESSAGE + 1)
    except BlockingIOError:
        return None
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
