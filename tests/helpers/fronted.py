"""The public listener on a real socket with a mesh behind it, without the rest of a gateway.

For tests, not for production::

    async with Fronted(peer) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo", body=b"{}")
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry, generate_latest

from gateway.accepting import Gate
from gateway.access_lines import line_of
from gateway.access_log import AccessLog
from gateway.auth import Authenticator
from gateway.client_metrics import ClientsCollector
from gateway.clients import ClientLimits, Clients
from gateway.endpoints import Endpoints
from gateway.events.endpoint import EventsEndpoint
from gateway.events.exposition import EventsCollector
from gateway.events.hub import Hub, HubLimits
from gateway.events.stream import StreamOptions
from gateway.exchange import Exchange
from gateway.exposition import GatewayCollector, make_registry
from gateway.front import Front, FrontOptions
from gateway.listener import Listener, open_sockets
from gateway.metrics import Metrics
from gateway.public import PublicServer, public_server
from gateway.ratelimit.limiter import RateLimiter
from gateway.routes.load import parse_routes
from gateway.setting_types import Address
from gateway.tracing.model import Tracing
from scamp.client import ClientOptions
from scamp.discovery import DiscoveryStatus
from scamp.testing.mesh import Announces, Mesh

_TURNS: Final = 10
"""Of the loop, in which a connection is accepted and waits for its first request."""

FRESH: Final = DiscoveryStatus(loaded=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, as it was on the wire."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    whole: bool
    """False when the body ended before it was complete."""

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


class Remembering(AccessLog):
    """Keeps the access log's lines, read back from their JSON."""

    def __init__(self) -> None:
        super().__init__("off")
        self.lines: list[dict[str, Any]] = []
        self._arrived = asyncio.Event()

    def record(self, exchange: Exchange, total: float) -> None:
        """Keep one line."""
        self.lines.append(orjson.loads(line_of(exchange, total)))
        self._arrived.set()

    async def until(self, count: int, timeout: float = 10.0) -> list[dict[str, Any]]:
        """The lines, once there are `count`. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while len(self.lines) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.lines


class Fronted:
    """A `Mesh` with a public listener in front of it. `status` may be replaced at any time."""

    fast_by_default = True

    def __init__(
        self,
        *services: Announces,
        auth: Authenticator | None = None,
        options: FrontOptions | None = None,
        client: ClientOptions | None = None,
        status: DiscoveryStatus = FRESH,
        max_actions: int = 1000,
        limiter: RateLimiter | None = None,
        events_open: Iterable[str] = (),
        hub: HubLimits | None = None,
        stream: StreamOptions | None = None,
        routes: str = "",
        endpoints: Endpoints | None = None,
        clients: ClientLimits | None = None,
        tls: ssl.SSLContext | None = None,
        tracing: Tracing | None = None,
        fast: bool | None = None,
        **server: Any,
    ) -> None:
        """`client`: options of the requester; `routes`: a routes file's text; `server`: options for
        `public_server`; `hub` and `stream` are those of event streams; `clients`: what those who
        connect may do; `tls`: the listener's; `tracing` is started and closed by whoever made
        it; `fast`: whether there is a fast path (None: `fast_by_default`)."""
        self.mesh = Mesh(*services, options=client)
        self.status = status
        self.auth = auth or Authenticator("forward")
        self.log = Remembering()
        self.metrics = Metrics(self.mesh.registry, max_actions=max_actions)
        self.limiter = limiter
        self.port = 0
        self._options = options or FrontOptions()
        self._events_open = events_open
        self._limits = hub
        self._stream = stream
        self._hub: Hub | None = None
        self._routes = parse_routes(routes, "routes.toml")
        self._endpoints = Endpoints() if endpoints is None else endpoints
        self.clients = Clients(clients)
        self._tls = tls
        self._tracing = tracing
        self._fast = self.fast_by_default if fast is None else fast
        self._server_options = server
        self._stack = AsyncExitStack()
        self._front: Front | None = None
        self._server: PublicServer | None = None
        self._exposition: CollectorRegistry | None = None

    @property
    def front(self) -> Front:
        """The handler; once it is up."""
        assert self._front is not None
        return self._front

    @property
    def hub(self) -> Hub:
        """The subscriptions of event streams; once it is up."""
        assert self._hub is not None
        return self._hub

    @property
    def tasks(self) -> int:
        """Requests that were given to aiohttp's handler, in a task: all but those of the fast
        path."""
        assert self._server is not None
        return self._server.requests_count

    def drain(self) -> None:
        """What a gateway does first when it is to stop."""
        self.front.draining = True
        self.hub.drain()

    def scrape(self) -> str:
        """What Prometheus would get."""
        assert self._exposition is not None
        return generate_latest(self._exposition).decode()

    async def __aenter__(self) -> Fronted:
        await self._stack.enter_async_context(self.mesh)
        self._hub = Hub(self.mesh.registry, self.mesh.requester, self._limits)
        self._stack.push_async_callback(self._hub.close)
        events = EventsEndpoint(
            self._hub,
            self.auth,
            lambda: self.status,
            sectors=self._options.sectors,
            open_services=self._events_open,
            timeout=self._options.request_timeout,
            options=self._stream,
        )
        self._endpoints.add("/api/events/", events)
        self._front = Front(
            self.mesh.registry,
            self.mesh.requester,
            lambda: self.status,
            self.auth,
            self.metrics,
            self.log,
            self._options,
            endpoints=self._endpoints,
            limiter=self.limiter,
            clients=self.clients,
            tracing=self._tracing,
            fast=self._fast,
        )
        self._front.routing.use_routes(self._routes)
        self._exposition = make_registry(
            self.metrics,
            GatewayCollector(
                registry=self.mesh.registry,
                requester=self.mesh.requester,
                discovery_status=lambda: self.status,
                authenticator=self.auth,
                access_log=self.log,
                in_flight=lambda: self.front.in_flight,
                shed=lambda: self.front.shed,
                limiter=self.limiter,
            ),
            EventsCollector(self._hub),
            ClientsCollector({"public": self.clients}),
        )
        self._server = public_server(self._front, **self._server_options)
        runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        gate = Gate(self.clients, self._server.make_room)
        listener = Listener(runner, open_sockets(Address("127.0.0.1", 0)), gate)
        self._stack.push_async_callback(listener.close)
        await listener.start(self._tls)
        self.port = listener.port
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def stop(self) -> None:
        """What comes after the drain limit: requests under way are cancelled."""
        assert self._server is not None
        await self._server.cut_off()

    async def connect(self) -> Wire:
        """One more raw connection, closed with the gateway."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self._stack.push_async_callback(wire.close)
        await settle()
        return wire

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        version: str = "1.1",
    ) -> Answer:
        """One request on a connection of its own, and its answer; nothing is normalized."""
        wire = await self.connect()
        try:
            wire.send(method, target, headers, body, version=version)
            return await wire.answer(method)
        finally:
            await wire.close()


async def settle() -> None:
    """Let the gateway accept who has connected, and begin to wait for requests: one that is there
    before, as on uvloop it may be, has a task."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class Wire:
    """A raw HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        version: str = "1.1",
    ) -> None:
        """Write one request. With a body, ``Content-Length`` is added."""
        lines = [f"{method} {target} HTTP/{version}", "Host: test"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape")
        self.writer.write(head + b"\r\n\r\n" + (body or b""))

    async def head(self) -> tuple[int, CIMultiDict[str]]:
        """Status and fields of the next answer. Raises IncompleteReadError at the end."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.split("\r\n")[:-2]
        fields: CIMultiDict[str] = CIMultiDict()
        for line in lines:
            name, _, value = line.partition(": ")
            fields.add(name, value)
        return int(first.split()[1]), fields

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer to `method`, body included."""
        status, headers = await self.head()
        pieces: list[bytes] = []
        whole = True
        try:
            if method == "HEAD" or status in (204, 304):
                pass
            elif "Content-Length" in headers:
                pieces.append(await self.reader.readexactly(int(headers["Content-Length"])))
            elif headers.get("Transfer-Encoding") == "chunked":
                while (piece := await self.chunk()) != b"":
                    pieces.append(piece)
            else:
                pieces.append(await self.reader.read())
        except asyncio.IncompleteReadError as exc:
            pieces.append(exc.partial)
            whole = False
        except ConnectionResetError:
            whole = False
        return Answer(status, headers, b"".join(pieces), whole)

    async def chunk(self) -> bytes:
        """The next chunk; empty for the last. Raises IncompleteReadError when cut."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self) -> bool:
        """Whether the connection ended with nothing more to read."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()
