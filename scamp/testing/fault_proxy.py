"""A TCP proxy that goes wrong as told, between a client and a service.

::

    async with FaultProxy(service.addresses[0]) as proxy:
        mesh.announce(proxy.before(service))
        proxy.use(to_client=Link(delay=0.2))
        for connection in proxy.connections:
            connection.to_client.cut_after(1000)

It carries bytes and knows nothing of TLS, so every client and every service can be tried with it,
and what they see is what a bad network, a crash or a firewall would show them. Bytes never change
places, are never changed and never doubled.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import Final, Protocol

from scamp.testing.fault_pipe import Link, Pipe

MAX_PROXIED: Final = 4096
"""Connections through one proxy at a time, two sockets each; further ones are reset."""

_BACKLOG: Final = 1024
_AT_ONCE: Final = 64
"""Connections accepted in one turn of the loop."""
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Accepting(Enum):
    """What becomes of new connections."""

    SERVING = "serving"
    """Each is joined to a connection to the service."""
    REFUSING = "refusing"
    """Connection refused, as where nothing listens."""
    SILENT = "silent"
    """Accepted, and then nothing: what is sent is thrown away, the service hears nothing of it."""
    RESETTING = "resetting"
    """Accepted, and reset at once."""


class Announceable(Protocol):
    """A service that can be announced at another address than its own."""

    def announcement(self, now: float | None = None, *, uri: str | None = None) -> bytes:
        """Its signed record."""


class ProxyConnection:
    """One connection of a client through the proxy."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, service: socket.socket) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._service = service
        self._connecting = False
        self.closed: bool = False
        self.to_service: Pipe = Pipe(self, client, service, proxy.carried_to_service)
        """From the client to the service."""
        self.to_client: Pipe = Pipe(self, service, client, proxy.carried_to_client)
        """From the service to the client."""

    def reset(self) -> None:
        """Both sides see a reset, at once. Idempotent, as is `close`."""
        self._end(linger=_LINGER_NOT)

    def close(self) -> None:
        """Both sides see the end of the connection, at once: what was on its way is lost."""
        self._end()

    def use(self, *, to_service: Link | None = None, to_client: Link | None = None) -> None:
        """Replace what one direction is like, or both."""
        if to_service is not None:
            self.to_service.link = to_service
        if to_client is not None:
            self.to_client.link = to_client

    def _end(self, linger: bytes | None = None) -> None:
        if self.closed:
            return
        self.closed = True
        if self._connecting:
            self._loop.remove_writer(self._service)
        for pipe in (self.to_service, self.to_client):
            pipe.stop()
        for end in (self._client, self._service):
            if linger is not None:
                with suppress(OSError):  # it was reset from outside
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.close()
        self._proxy.forget(self)

    # -- for the proxy and the pipes ----------------------------------------------------

    def connect(self, target: tuple[str, int]) -> None:
        """Join the client to the service at `target`. Where that fails the client sees a reset."""
        self._connecting = True
        self._loop.add_writer(self._service, self._connected)
        try:
            self._service.connect(target)
        except BlockingIOError:
            pass
        except OSError:
            self.reset()

    def _connected(self) -> None:
        self._connecting = False
        self._loop.remove_writer(self._service)
        if self._service.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._proxy.unreachable += 1
            self.reset()
            return
        self.to_service.start(self.to_client)
        self.to_client.start(self.to_service)

    def ignore(self) -> None:
        """Never join it to anything."""
        self.to_service.start(None)

    def pipe_ended(self) -> None:
        """From a pipe: it has nothing more to do."""
        if self.to_service.ended and (self.to_client.ended or not self.to_client.started):
            self.close()


class FaultProxy:
    """Listens on a free port of `host` and joins each connection to `target`, host and port.

    Everything may be changed while it runs, and takes effect at once. Use it with ``async with``:
    at the end all connections are reset, and nothing is left. Belongs to one event loop.
    """

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1") -> None:
        self.target = target
        """Where new connections go; an IP address and a port."""
        self._host = host
        self._port = 0
        self._place: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._accepting = Accepting.SERVING
        self._to_service = Link()
        self._to_client = Link()
        self._connections: dict[ProxyConnection, None] = {}
        self.accepted: int = 0
        """Connections of clients so far."""
        self.refused: int = 0
        """Connections that were reset at once, by `Accepting.RESETTING` or for want of room."""
        self.unreachable = 0
        """Connections for which the service could not be reached."""
        self.bytes_to_service: int = 0
        self.bytes_to_client: int = 0

    # -- where it is --------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Where it listens, from the beginning of the block."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    @property
    def uri(self) -> str:
        """What a service behind it announces."""
        return f"beepish+tls://{self.address}"

    def before(self, service: Announceable) -> Proxied:
        """`service` as it is announced at the proxy's address."""
        return Proxied(self, service)

    # -- what goes wrong ----------------------------------------------------------------

    @property
    def connections(self) -> list[ProxyConnection]:
        """Those that are open, oldest first."""
        return list(self._connections)

    @property
    def accepting(self) -> Accepting:
        """What becomes of new connections; those that are open are left alone."""
        return self._accepting

    @accepting.setter
    def accepting(self, accepting: Accepting) -> None:
        self._accepting = accepting
        if self._place is None:
            return
        if accepting is Accepting.REFUSING:
            self._close_listener()
        elif self._listener is None:
            self._listen()

    def use(self, *, to_service: Link | None = None, to_client: Link | None = None) -> None:
        """Replace what one direction is like, or both, for all connections and those to come."""
        self._to_service = to_service or self._to_service
        self._to_client = to_client or self._to_client
        for connection in self.connections:
            connection.use(to_service=to_service, to_client=to_client)

    def heal(self) -> None:
        """As at the beginning, for whatever can be healed: see `Link.drops`."""
        self.accepting = Accepting.SERVING
        self.use(to_service=Link(), to_client=Link())

    def reset(self) -> int:
        """Reset every connection. How many there were."""
        connections = self.connections
        for connection in connections:
            connection.reset()
        return len(connections)

    def cut_after(self, size: int, *, reset: bool = False) -> int:
        """Let every connection send `size` more bytes to its client, then end it, or reset it."""
        connections = self.connections
        for connection in connections:
            connection.to_client.cut_after(size, reset=reset)
        return len(connections)

    # -- beginning and end --------------------------------------------------------------

    async def __aenter__(self) -> FaultProxy:
        if self._place is not None:
            raise RuntimeError("a proxy is entered once at a time")
        self._place = self._bound()
        self._port = self._place.getsockname()[1]
        if self._accepting is not Accepting.REFUSING:
            self._listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._close_listener()
        if self._place is not None:
            self._place.close()
            self._place = None
        self.reset()

    def _bound(self) -> socket.socket:
        """A socket at our address. One that does not listen keeps it while we refuse: who connects
        is refused, and nobody else can come there meanwhile."""
        made = _socket_for(self._host)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((self._host, self._port))
        except BaseException:
            made.close()
            raise
        return made

    def _listen(self) -> None:
        self._listener = self._bound()
        self._listener.listen(_BACKLOG)
        asyncio.get_running_loop().add_reader(self._listener, self._on_waiting)

    def _close_listener(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _on_waiting(self) -> None:
        for client in self._waiting():
            self.accepted += 1
            full = len(self._connections) >= MAX_PROXIED
            if full or self._accepting is Accepting.RESETTING:
                self.refused += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                client.close()
            else:
                self._begin(client)

    def _waiting(self) -> Iterator[socket.socket]:
        for _ in range(_AT_ONCE):
            if self._listener is None:
                return
            try:
                client, _ = self._listener.accept()
            except OSError:  # none is left, or it has gone already
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield client

    def _begin(self, client: socket.socket) -> None:
        connection = ProxyConnection(self, client, _socket_for(self.target[0]))
        self._connections[connection] = None
        connection.use(to_service=self._to_service, to_client=self._to_client)
        if self._accepting is Accepting.SILENT:
            connection.ignore()
        else:
            connection.connect(self.target)

    # -- for connections ----------------------------------------------------------------

    def carried_to_service(self, size: int) -> None:
        """From a pipe: so many bytes went on."""
        self.bytes_to_service += size

    def carried_to_client(self, size: int) -> None:
        """From a pipe: so many bytes went on."""
        self.bytes_to_client += size

    def forget(self, connection: ProxyConnection) -> None:
        """From a connection: it is over."""
        del self._connections[connection]


class Proxied:
    """A service that is announced where a proxy is; for `Mesh` and `MockMesh.announce`."""

    def __init__(self, proxy: FaultProxy, service: Announceable) -> None:
        self._proxy = proxy
        self._service = service

    def announcement(self) -> bytes:
        """Its signed record, with the proxy's address."""
        return self._service.announcement(uri=self._proxy.uri)


def _socket_for(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
