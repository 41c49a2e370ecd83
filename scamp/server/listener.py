"""Listening: sockets in the mesh's range of ports, and TLS for whoever connects."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import socket
import ssl
from collections.abc import Callable, Iterable

from scamp import logs
from scamp.errors import ConfigError
from scamp.limits import CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT
from scamp.transport import Channel

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.server"))

BACKLOG = 256
_TAKEN = (errno.EADDRINUSE, errno.EACCES)
_PAUSE = 0.5


def bind(host: str, port: int | None, ports: range, tries: int) -> socket.socket:
    """A listening TCP socket on `host`, an IP address or a name.

    `port` 0 lets the system choose; None tries up to `tries` different random ones of `ports`, as
    services do that find each other by announcement. Raises ConfigError when none can be had.
    """
    if port is not None and not 0 <= port <= 65535:
        raise ConfigError(f"{port} is not a port: 0 to 65535")
    candidates = [port] if port is not None else random.sample(ports, min(tries, len(ports)))
    problem: OSError | None = None
    for candidate in candidates:
        try:
            return _listen(host, candidate)
        except UnicodeError as exc:  # of the encoding for DNS
            raise ConfigError(f"cannot listen on {host}: no address and no name") from exc
        except OSError as exc:
            problem = exc
            if exc.errno not in _TAKEN:
                break
    where = f"port {port}"
    if port is None:
        where = f"{len(candidates)} ports of {ports.start}-{ports.stop - 1} tried"
    raise ConfigError(f"cannot listen on {host}, {where}: {_told(problem)}") from problem


def _told(problem: OSError | None) -> str:
    """What is wrong and what to do about it."""
    number = None if problem is None else problem.errno
    if number == errno.EADDRNOTAVAIL:
        return "no interface of this machine has this address"
    if number == errno.EADDRINUSE:
        return "in use; another service has it, or this one runs already"
    return (problem.strerror if problem is not None else None) or str(problem)


def bind_all(
    hosts: Iterable[str], port: int | None, ports: range, tries: int
) -> list[socket.socket]:
    """One socket for each of `hosts`, as `bind` makes it; all of them, or ConfigError."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(bind(host, port, ports, tries)) for host in hosts]
        stack.pop_all()
    return found


def _listen(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


class Listener:
    """Accepts connections on its sockets until it is closed.

    At most `limit` are open or shaking hands; above it a new one is closed at once. `forget` must
    be called for each channel that opened and is over. `on_handshake` is called when a handshake
    has ended, well or not.
    """

    def __init__(
        self,
        socks: Iterable[socket.socket],
        context: ssl.SSLContext,
        make_channel: Callable[[], Channel],
        limit: int,
        on_handshake: Callable[[], None],
    ) -> None:
        self._socks = list(socks)
        self._context = context
        self._make_channel = make_channel
        self._live: set[Channel] = set()
        self._limit = limit
        self._on_handshake = on_handshake
        self._loop = asyncio.get_running_loop()
        # What a task is to use stands here until it has begun: then the transport closes it.
        self._handshakes: dict[asyncio.Task[None], tuple[socket.socket, Channel] | None] = {}
        self._resume: dict[int, asyncio.TimerHandle] = {}
        self._closing = False
        for number in range(len(self._socks)):
            self._listen_again(number)
        self.refused: int = 0
        """Connections closed at once because of the limit."""
        self.failed: int = 0
        """Connections that did not get through TLS."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each socket."""
        names = (sock.getsockname() for sock in self._socks)
        return tuple((name[0], name[1]) for name in names)

    def _on_readable(self, number: int) -> None:
        for _ in range(BACKLOG):
            try:
                sock, _ = self._socks[number].accept()
            except BlockingIOError:
                return
            except OSError as exc:
                # Out of file descriptors, mostly; those in use will be given back.
                log.error("cannot accept a connection: %s", exc)
                if self._closing:
                    return
                self._loop.remove_reader(self._socks[number])
                again = self._loop.call_later(_PAUSE, self._listen_again, number)
                self._resume[number] = again
                return
            self._begin(sock)

    def _listen_again(self, number: int) -> None:
        self._resume.pop(number, None)
        self._loop.add_reader(self._socks[number], self._on_readable, number)

    def _begin(self, sock: socket.socket) -> None:
        if len(self._live) >= self._limit:
            self.refused += 1
            log.warning("connection refused: the limit of %d is reached", self._limit)
            sock.close()
            return
        sock.setblocking(False)
        channel = self._make_channel()
        self._live.add(channel)
        task = self._loop.create_task(self._shake_hands(sock, channel), name="scamp handshake")
        self._handshakes[task] = (sock, channel)
        task.add_done_callback(self._on_handshake_done)

    def _on_handshake_done(self, task: asyncio.Task[None]) -> None:
        unused = self._handshakes.pop(task)
        if unused is not None:
            sock, channel = unused
            sock.close()
            self.forget(channel)
        self._on_handshake()

    def forget(self, channel: Channel) -> None:
        """The channel is over, or never opened."""
        self._live.discard(channel)

    async def _shake_hands(self, sock: socket.socket, channel: Channel) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._handshakes[task] = None
        try:
            await self._loop.connect_accepted_socket(
                lambda: channel,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=CLOSE_TIMEOUT,
            )
        except asyncio.CancelledError:
            self.forget(channel)
            raise
        except OSError as exc:  # ssl.SSLError and ConnectionError are such
            self.forget(channel)
            self.failed += 1
            log.info("no TLS with a client: %s", exc)

    @property
    def handshaking(self) -> int:
        """Connections that are not through TLS yet."""
        return len(self._handshakes)

    def close(self) -> None:
        """Stop listening. Who has connected before this may still finish the handshake."""
        if self._closing:
            return
        self._closing = True
        for number, sock in enumerate(self._socks):
            self._loop.remove_reader(sock)
            if number in self._resume:
                self._resume.pop(number).cancel()
            self._on_readable(number)
            sock.close()

    def abandon(self) -> None:
        """Give up handshakes under way; after `close`. They are gone when `handshaking` is 0."""
        for task in self._handshakes:
            task.cancel()
