"""Taking connections: who may come is looked at before a byte is read or TLS begins.

In place of the event loop's own accepting, which takes everybody, counts nobody, and for which a
TLS handshake is no connection yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from aiohttp import web

from gateway import catalogue
from gateway.clients import Clients
from gateway.context import RequestIds
from gateway.problems import PROBLEM_TYPE, UNKNOWN_RETRY_AFTER, Problem
from gateway.ratelimit.callers import address_text

BACKLOG: Final = 1024
"""Connections that the kernel holds before they are accepted (net.core.somaxconn caps it)."""

MAX_AT_ONCE: Final = 64
"""Connections that are accepted before others have their turn."""

PAUSE: Final = 0.25
"""Seconds without accepting when there is no descriptor or memory for one more connection."""

LINGER: Final = 1.0
"""Seconds in which one that is turned away can read why."""

MAX_LINGERING: Final = 64
"""Of those, at once; others are closed at once, and may see a reset in place of the answer."""

_TOLD_EVERY: Final = 10.0
_WANTING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_DISCARDED: Final = 64 * 1024

log = logging.getLogger("gateway.accepting")


_ID: Final = "0" * len(RequestIds()())


def _refusal() -> bytes:
    problem = Problem(catalogue.TOO_MANY_CONNECTIONS, retry_after=UNKNOWN_RETRY_AFTER)
    body = problem.body(_ID)
    fields = {
        "Server": "scamp-gateway",
        "X-Request-ID": _ID,
        "Content-Type": PROBLEM_TYPE,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **dict(problem.header_fields()),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + body


REFUSAL: Final = _refusal()
"""What one is told that is turned away on a listener without TLS, but for its id."""


class ClientSocket(socket.socket):
    """One that tells when it is closed, whoever closes it, and gives its descriptor away."""

    __slots__ = ("left",)

    left: Callable[[], None] | None

    def close(self) -> None:
        """Close it, and tell."""
        super().close()
        self._leave()

    def detach(self) -> int:
        """To an owner that closes it now, as uvloop does."""
        found = super().detach()
        self._leave()
        return found

    def _leave(self) -> None:
        left, self.left = getattr(self, "left", None), None
        if left is not None:
            left()


class Gate:
    """Lets clients in to one listener, as `Clients` says. Belongs to one event loop."""

    def __init__(
        self,
        clients: Clients | None = None,
        make_room: Callable[[], bool] | None = None,
        at_once: int = MAX_AT_ONCE,
    ) -> None:
        """`make_room` ends a connection that is of no use now, and tells whether it found one.
        `at_once`: 1 leaves the next connection to whichever process comes first, where several
        accept on one socket; else one takes all that wait."""
        self.at_once = at_once
        self.clients = clients or Clients()
        self._make_room = make_room
        self._beginning: set[asyncio.Task[None]] = set()
        self._leaving: dict[socket.socket, asyncio.TimerHandle] = {}
        self._told: dict[str, float] = {}
        self._new_id = RequestIds()

    def take(
        self,
        sock: socket.socket,
        host: str,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
    ) -> None:
        """Begin to serve `sock`, or turn it away; from now on it is the gate's to close."""
        clients = self.clients
        key = clients.key(host)
        refusal = clients.refusal(key)
        if refusal == "total" and self._make_room is not None and self._make_room():
            clients.given_way += 1
            refusal = None
        if refusal is not None:
            clients.refused[refusal] += 1
            self._tell(refusal, key)
            self._turn_away(sock, plain=context is None)
            return
        client = ClientSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        clients.enter(key)
        client.left = partial(clients.leave, key)
        client.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._begin(client, factory, context))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(
        self,
        client: ClientSocket,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
    ) -> None:
        limits = self.clients.limits
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                factory,
                client,
                ssl=context,
                ssl_handshake_timeout=None if context is None else limits.handshake_timeout,
            )
        except OSError as exc:  # also ssl.SSLError: it is no TLS, has no common cipher, …
            if isinstance(exc, ConnectionAbortedError | TimeoutError):
                self.clients.timeouts["handshake"] += 1
            log.debug("no connection with a client: %s", exc)
            client.close()
        except BaseException:
            client.close()
            raise

    def out_of_room(self, exc: OSError) -> None:
        """The system has no descriptor or memory for one more."""
        self.clients.refused["descriptors"] += 1
        self._say("descriptors", f"cannot accept a connection: {exc.strerror}; waiting")
        if self._make_room is not None and self._make_room():
            self.clients.given_way += 1

    def _tell(self, refusal: str, key: bytes | None) -> None:
        limits = self.clients.limits
        if refusal == "address":
            self._say(
                refusal,
                f"{address_text(key or b'')} has {limits.per_address} connections, more are "
                "refused (max_connections_per_address); if it is a proxy, name it in "
                "trusted_proxies",
            )
        else:
            self._say(
                refusal,
                f"{limits.connections} connections are open (max_connections), more are refused",
            )

    def _say(self, what: str, text: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._told.get(what, 0.0):
            self._told[what] = now + _TOLD_EVERY
            log.warning("%s", text)

    # -- turning away -------------------------------------------------------------------

    def _turn_away(self, sock: socket.socket, *, plain: bool) -> None:
        """With TLS there is nothing to tell it in: the connection just ends."""
        if plain:
            with contextlib.suppress(OSError):
                sock.setblocking(False)
                sock.send(REFUSAL.replace(_ID.encode(), self._new_id().encode()))
                sock.shutdown(socket.SHUT_WR)
        if not plain or len(self._leaving) >= MAX_LINGERING:
            sock.close()
            return
        loop = asyncio.get_running_loop()
        self._leaving[sock] = loop.call_later(LINGER, self._dismiss, sock)

    def _dismiss(self, sock: socket.socket) -> None:
        """What has come and is not read would make a reset of the end."""
        self._leaving.pop(sock).cancel()
        with contextlib.suppress(OSError):
            sock.recv(_DISCARDED)
        sock.close()

    async def close(self) -> None:
        """End handshakes under way and those that are being turned away."""
        for sock in list(self._leaving):
            self._dismiss(sock)
        tasks = list(self._beginning)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Acceptor:
    """Accepts on one socket, which it closes at the end."""

    def __init__(
        self,
        sock: socket.socket,
        gate: Gate,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None = None,
        backlog: int = BACKLOG,
    ) -> None:
        """Begins at once. Raises OSError when the socket cannot listen."""
        self._sock = sock
        self._gate = gate
        self._factory = factory
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(backlog)
        self._loop.add_reader(sock, self._accept)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The socket, while it is open."""
        return (self._sock,) if self._sock.fileno() >= 0 else ()

    def close(self) -> None:
        """Accept no more; connections stay. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(self._gate.at_once):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno in _WANTING:
                    self._gate.out_of_room(exc)
                else:  # accept(2): an error of the network, of a connection that is none any more
                    log.warning("cannot accept a connection: %s", exc)
                self._pause()
                return
            self._gate.take(sock, address[0], self._factory, self._context)

    def _pause(self) -> None:
        """The socket stays readable: without a pause this would be all that the loop does."""
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock, self._accept)


class GatedSite(web.BaseSite):
    """A site of aiohttp's whose clients come in by a `Gate`."""

    __slots__ = ("_gate", "_sock")

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        gate: Gate,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, ssl_context=context, backlog=BACKLOG)
        self._sock = sock
        self._gate = gate

    @property
    def name(self) -> str:
        """Scheme and address."""
        host, port = self._sock.getsockname()[:2]
        return f"{'http' if self._ssl_context is None else 'https'}://{host}:{port}"

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await super().start()
        factory: Any = self._runner.server
        try:
            acceptor = Acceptor(self._sock, self._gate, factory, self._ssl_context, self._backlog)
        except OSError:
            self._sock.close()
            raise
        # All that aiohttp does with it is to close it and to ask for its sockets.
        self._server = cast(asyncio.AbstractServer, acceptor)
