"""A new process takes over the listening sockets of the one that runs, and no connection is lost.

Both know a path. Whoever serves listens there, on a Unix socket of whole messages (SEQPACKET),
each one JSON object::

    new                                                   old
    {"takeover": 1, "pid": 8,
     "public": ":8080", "admin": "127.0.0.1:9090"}
                                                          {"takeover": 1, "pid": 7,
                                                           "public": 2, "admin": 1}
                                                          {"sockets": 4}, with them, as often
                                                          as it takes; the path's comes last
    (starts, is ready, serves)
    {"serving": true}
                                                          {"leaving": true}, and drains

Instead of an answer there may be ``{"error": "..."}``. Only listeners whose address is the same for
both are passed. The path's own socket is passed too, so the path is never without a listener. As
long as the new process has not said that it serves, the old one goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.activation import NAMES, adopt, passed_sockets
from gateway.listener import Sockets, open_for_workers
from gateway.setting_types import Address
from gateway.settings import Settings
from scamp.errors import ConfigError

log = logging.getLogger("gateway.takeover")

VERSION: Final = 1

ANSWER_LIMIT: Final = 5.0
"""Seconds for an answer of the running process."""

REQUEST_LIMIT: Final = 2.0
"""Seconds in which who has connected says what it wants."""

START_LIMIT: Final = 300.0
"""Seconds that the new process may take to start."""

READY_LIMIT: Final = 60.0
"""Seconds in which a new process has to be ready, else the old one goes on."""

MAX_MESSAGE: Final = 4096
"""Bytes of one message; ours have some hundred."""

AT_ONCE: Final = 64
"""Sockets in one message. The kernel takes 253."""

MAX_SOCKETS: Final = 4096
"""Sockets of one listener: one for each worker of the largest machine, for IPv4 and IPv6."""

MAX_PATH: Final = 107
"""Bytes of a Unix socket's path."""

_BACKLOG: Final = 8
_CREDENTIALS: Final = struct.Struct("3i")


# -- messages ---------------------------------------------------------------------------


def pack(message: Mapping[str, Any]) -> bytes:
    """One message."""
    return json.dumps(message).encode()


def unpack(data: bytes) -> dict[str, Any]:
    """Raises ValueError for what is no message."""
    if len(data) > MAX_MESSAGE:
        raise ValueError("a message is too long")
    try:
        found = json.loads(data)
    except RecursionError as exc:
        raise ValueError("a message is too deep") from exc
    if not isinstance(found, dict):
        raise ValueError("a message is no object")  # noqa: TRY004 - a stranger's mistake, not ours
    return found


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def trusted(uid: int) -> bool:
    """Whether that user may have our sockets, and we its."""
    return uid in (0, os.geteuid())


def _close_all(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


# -- the path ---------------------------------------------------------------------------


def check_path(path: Path) -> None:
    """Raise `ConfigError` unless only we and root can put something there."""
    if len(os.fsencode(path)) > MAX_PATH - len(_own_suffix()):
        raise ConfigError(f"takeover_socket {path}: longer than a Unix socket's path can be")
    folder = path.parent
    try:
        found = folder.stat()
    except OSError as exc:
        raise ConfigError(f"takeover_socket {path}: {folder}: {exc.strerror}") from exc
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"takeover_socket {path}: {folder} is no directory")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"takeover_socket {path}: {folder} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"takeover_socket {path}: others can write in {folder}; use a directory of its own"
        )
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"takeover_socket {path}: there is something that is no socket")
    except FileNotFoundError:
        pass
    except OSError as exc:  # the folder is another user's, though root's
        raise ConfigError(f"takeover_socket {path}: {exc.strerror}") from exc


def _own_suffix() -> str:
    return f".{os.getpid()}"


def open_post(path: Path) -> socket.socket:
    """Listen at `path`, in place of what is there. It is never there without a listener, and never
    with other rights than 0600."""
    check_path(path)
    made = path.with_name(path.name + _own_suffix())
    post = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        post.setblocking(False)
        made.unlink(missing_ok=True)
        post.bind(str(made))
        made.chmod(0o600)
        post.listen(_BACKLOG)
        made.replace(path)
    except OSError as exc:
        post.close()
        with contextlib.suppress(OSError):
            made.unlink()
        raise ConfigError(f"takeover_socket {path}: {exc.strerror or exc}") from exc
    return post


# -- the new process --------------------------------------------------------------------


class Predecessor:
    """The process that is to be replaced, and what it passed."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = 0
        self.passed: dict[str, list[socket.socket]] = {}
        """By listener; those taken out are the taker's to close."""
        self.post: socket.socket | None = None
        """The path's socket; likewise."""

    def replace(self) -> None:
        """Tell it that this process serves now, so that it leaves. Blocks for a few seconds at
        most. When it is gone already, or does not answer any more, this process serves on alone.

        Raises `ConfigError` when it goes on: it did not want to wait any longer.
        """
        try:
            self._connection.settimeout(ANSWER_LIMIT)
            with contextlib.suppress(BrokenPipeError):  # what it said before it went is still there
                self._connection.send(pack({"serving": True}))
            answer = unpack(self._connection.recv(MAX_MESSAGE + 1) or b"{}")
        except TimeoutError:
            log.error("process %d passed its sockets and does not answer: end it", self.pid)
        except (OSError, ValueError):
            log.warning("process %d went before it was replaced", self.pid)
        else:
            if "error" in answer:
                raise ConfigError(f"process {self.pid} goes on: {answer['error']}")
            log.info("process %d %s", self.pid, "leaves" if answer else "has left already")
        finally:
            self._connection.close()

    def close(self) -> None:
        """Close everything. If it has not been replaced, it goes on."""
        self._connection.close()
        for sockets in self.passed.values():
            _close_all(sockets)
        self.passed = {}
        if self.post is not None:
            self.post.close()
            self.post = None


@dataclass(frozen=True, slots=True)
class Acquired:
    """What a process begins with."""

    sockets: Sockets
    predecessor: Predecessor | None = None
    """To be told when this process serves. Until then others may be accepting, too."""

    def take_post(self) -> socket.socket | None:
        """The path's socket to go on with, once; None when there is none."""
        if self.predecessor is None:
            return None
        post, self.predecessor.post = self.predecessor.post, None
        return post

    def close(self) -> None:
        """Close everything; may be called twice. What was not replaced goes on."""
        self.sockets.close()
        if self.predecessor is not None:
            self.predecessor.close()


def acquire(settings: Settings) -> Acquired:
    """The sockets to listen on: from the gateway that serves `takeover_socket`, else from systemd,
    else opened here, the public address once for each worker. Those that are passed may be more or
    fewer than there are workers.

    Blocks for some seconds at most. Raises `ConfigError` when an address cannot be had, when the
    path is not safe, or when the running gateway refuses. One that does not answer is told in the
    log, and its sockets are opened here: that fails if it listens on them.
    """
    addresses = {"public": settings.bind, "admin": settings.admin_bind}
    with contextlib.ExitStack() as stack:
        passed = passed_sockets()
        stack.callback(lambda: _close_all(sock for one in passed.values() for sock in one))
        predecessor, hung = _predecessor(settings.takeover_socket, addresses)
        if predecessor is not None:
            stack.callback(predecessor.close)
            for name, sockets in predecessor.passed.items():
                _close_all(passed.get(name, ()))
                passed[name] = sockets
            predecessor.passed = {}
        own = "public" not in passed and settings.takeover_socket is None
        for name, address in addresses.items():
            if name not in passed:
                count = settings.workers if name == "public" else 1
                passed[name] = _opened(address, count, hung)
        stack.pop_all()
        return Acquired(Sockets(passed["public"], passed["admin"], own=own), predecessor)


def _opened(address: Address, count: int, hung: str) -> list[socket.socket]:
    try:
        return open_for_workers(address, count)
    except ConfigError as exc:
        raise ConfigError(f"{exc}{hung}") from exc


def _predecessor(
    path: Path | None, addresses: Mapping[str, Address]
) -> tuple[Predecessor | None, str]:
    """The process at `path`, and what to say of one that did not answer."""
    if path is None:
        return None, ""
    check_path(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    predecessor = Predecessor(connection)
    try:
        connection.settimeout(ANSWER_LIMIT)
        connection.connect(str(path))
        _meet(connection, predecessor, addresses)
    except (FileNotFoundError, ConnectionError):
        predecessor.close()  # nobody there, or not any longer
        return None, ""
    except (TimeoutError, BlockingIOError):
        predecessor.close()
        log.error("the gateway at %s does not answer", path)
        return None, f"; the gateway at {path} does not answer"
    except (OSError, ValueError, TypeError, ArithmeticError, ConfigError) as exc:
        predecessor.close()
        raise ConfigError(f"cannot take over at {path}: {exc}") from exc
    except BaseException:
        predecessor.close()
        raise
    log.info("taking over from process %d", predecessor.pid)
    return predecessor, ""


def _meet(
    connection: socket.socket, predecessor: Predecessor, addresses: Mapping[str, Address]
) -> None:
    _, uid = peer_of(connection)
    if not trusted(uid):
        raise ConfigError(f"user {uid} listens there, who is neither ours nor root")
    end = time.monotonic() + ANSWER_LIMIT
    wanted = {name: str(address) for name, address in addresses.items()}
    connection.send(pack({"takeover": VERSION, "pid": os.getpid(), **wanted}))
    descriptors: list[int] = []
    try:
        names = _collect(connection, predecessor, end, descriptors)
        predecessor.post = _adopt_post(descriptors[-1])
        descriptors.pop()
        for name in names:
            predecessor.passed.setdefault(name, []).append(adopt(descriptors.pop(0), name))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _adopt_post(descriptor: int) -> socket.socket:
    """The path's socket. Raises OSError or ValueError, and leaves it open, when it is none."""
    post = socket.socket(fileno=descriptor)
    listens = post.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (post.family, post.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET) or not listens:
        post.detach()
        raise ValueError("it passes something else for the path's socket")
    post.setblocking(False)
    return post


def _collect(
    connection: socket.socket, predecessor: Predecessor, end: float, descriptors: list[int]
) -> list[str]:
    """Fill `descriptors`; the listener that each is for. One more comes last."""
    head = _receive(connection, end, descriptors)
    if head.get("takeover") != VERSION:
        raise ValueError(f"it answers in version {head.get('takeover')!r}, not {VERSION}")
    predecessor.pid = int(head.get("pid", 0))
    counts = [(name, int(head.get(name, 0))) for name in NAMES]
    if not all(0 <= count <= MAX_SOCKETS for _, count in counts):
        raise ValueError("it has too many sockets")
    names = [name for name, count in counts for _ in range(count)]
    while len(descriptors) <= len(names):
        before = len(descriptors)
        _receive(connection, end, descriptors)
        if len(descriptors) == before:
            raise ValueError("it passes fewer sockets than it said")
    if len(descriptors) > len(names) + 1:
        raise ValueError("it passes more sockets than it said")
    return names


def _receive(connection: socket.socket, end: float, descriptors: list[int]) -> dict[str, Any]:
    """One message; the descriptors with it are added. Raises ConnectionError at the end,
    TimeoutError, ValueError for what is none, and `ConfigError` with what the other side says."""
    connection.settimeout(max(0.001, end - time.monotonic()))
    data, more, flags, _ = socket.recv_fds(
        connection, MAX_MESSAGE + 1, AT_ONCE, socket.MSG_CMSG_CLOEXEC
    )
    descriptors += more
    if not data:
        raise ConnectionResetError("it is gone")
    if flags & socket.MSG_CTRUNC:
        raise ValueError("more sockets than this process may have open (RLIMIT_NOFILE)")
    message = unpack(data)
    if "error" in message:
        raise ConfigError(f"process {message.get('pid')} says: {message['error']}")
    return message
