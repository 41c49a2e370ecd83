"""A service: actions behind one listening socket, announced under one identity."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from scamp import keys
from scamp.config import ScampConf
from scamp.discovery import AnnouncementSpec, build_announcement, new_identity
from scamp.errors import ConfigError
from scamp.limits import (
    CLOSE_TIMEOUT,
    MAX_REQUESTS,
    MAX_SERVED_CONNECTIONS,
    MAX_TYPED_BODY,
    STOP_GRACE,
)
from scamp.server.actions import ActionTable, make_action
from scamp.server.builtin import add_documentation, add_queue_depth
from scamp.server.connection import KnowsPrivileges, ServerConnection, VerifiesTickets
from scamp.server.listener import Listener, bind
from scamp.server.notices import Notices, NotifyHandler
from scamp.server.subscriptions import Board, MaySubscribe
from scamp.server.typed import Handler, TypedHandler, inspect_handler
from scamp.transport import Channel, server_context
from scamp.wire import Role

log = logging.getLogger("scamp.server")

_H = TypeVar("_H", bound=Handler | TypedHandler)
_N = TypeVar("_N", bound=NotifyHandler)
_M = TypeVar("_M", bound=MaySubscribe)


class Service:
    """Answers requests for its actions. Each instance has an identity of its own.

    `key` and `certificate` are PEM; the certificate's fingerprint is what clients check. `interval`
    is the announced interval in seconds. Unless an action is flagged ``noauth`` it needs a ticket
    that `ticket_verifier` accepts; `require_tickets` False gives that up for all of them, for
    services that nobody but trusted peers can reach. With `authz`, such as an `AuthzSource`, the
    ticket also needs every privilege that the table lists for the action; an action that is not
    listed is refused, and so is every one while there is no table. Who made the source closes it.

    `config` gives ports, addresses and timeouts; without it the defaults of the protocol hold.
    `max_connections` and `max_requests` are caps over the whole service. Beside its own actions it
    answers ``NAME.queue_depth`` and ``_meta.documentation``, both without a ticket, unless
    `queue_depth` or `documentation` is False or it has registered such an action itself.

    Callers who are refused get error code ``unauthorized`` (ticket missing or no good),
    ``access_denied`` (privilege missing, named in the error's data, or action not listed) or
    ``authorization_unavailable`` (no table).

    Raises ConfigError when key and certificate cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        key: bytes,
        certificate: bytes,
        sector: str = "main",
        weight: float = 1,
        interval: float = 5.0,
        envelopes: Iterable[str] = ("json",),
        ticket_verifier: VerifiesTickets | None = None,
        require_tickets: bool = True,
        authz: KnowsPrivileges | None = None,
        config: ScampConf | None = None,
        max_connections: int = MAX_SERVED_CONNECTIONS,
        max_requests: int = MAX_REQUESTS,
        queue_depth: bool = True,
        documentation: bool = True,
    ) -> None:
        self.name = name
        self.identity = new_identity(name)
        self.fingerprint = keys.fingerprint(certificate)
        self.sector = sector
        self.weight = weight
        self.interval = interval
        self.envelopes = tuple(envelopes)
        self.ticket_verifier = ticket_verifier
        self.require_tickets = require_tickets
        self.authz = authz
        if authz is not None and not require_tickets:
            raise ConfigError("authz checks tickets, and require_tickets=False lets all without in")
        self.actions = ActionTable()
        self._key = keys.load_private_key(key)
        self._certificate = certificate
        self._context: ssl.SSLContext = server_context(certificate, key)
        self._config = config if config is not None else ScampConf({})
        self._configured = config is not None
        self._max_connections = max_connections
        self._max_requests = max_requests
        self._queue_depth = queue_depth
        self._documentation = documentation
        self._listener: Listener | None = None
        self._connections: set[ServerConnection] = set()
        self._in_flight = 0
        self._moved: asyncio.Event | None = None
        self._uri = ""
        self._announced_at = 0.0
        self._stopping = False
        self._closed = False
        self.board = Board()
        """What is published; for connections."""
        self.notices = Notices(self._tell_moved)
        """What clients told; for connections."""
        self.requests = 0
        """Requests begun so far."""

    # -- what it does -------------------------------------------------------------------

    def action(
        self,
        spelling: str,
        *,
        version: int = 1,
        flags: str | Iterable[str] = "",
        envelopes: Iterable[str] | None = None,
        sector: str | None = None,
        max_body: int = MAX_TYPED_BODY,
    ) -> Callable[[_H], _H]:
        """Decorator: the function answers ``Namespace.name``.

        `flags` are comma-separated, such as ``"read,noauth,t30"``; `tNNN` is the limit in seconds,
        else ``rpc.timeout`` (75). `envelopes` and `sector` default to the service's. The function
        is given a `Request`; what it returns is the body: bytes as they are, None as ``null``, an
        async iterator of bytes piece by piece, all else as JSON. `ServiceError` makes an error
        reply, any other exception code ``internal``.

        With a second parameter it is given the body too: JSON of at most `max_body` bytes, as the
        parameter's annotation says (see `scamp.server.typed`). What does not fit is answered
        ``bad_request`` with the reasons. Docstring and annotations go into ``_meta.documentation``.

        Raises ConfigError when the name cannot be announced or is taken, when the annotation is of
        no use, or after `start`. An action's name and version are its own in all sectors.
        """
        if self._listener is not None:
            raise ConfigError(f"{spelling}: register actions before the service starts")
        offered = self.envelopes if envelopes is None else envelopes
        action = make_action(sector or self.sector, spelling, version, flags, offered)

        def register(handler: _H) -> _H:
            # Types that are local to the function in which the handler was defined are found there.
            names = sys._getframe(1).f_locals
            call, info = inspect_handler(handler, names, max_body)
            self.actions.add(action, call, self._config.rpc_timeout, info)
            return handler

        return register

    def publish(self, code: str, key: str, value: object) -> bool:
        """Make `value`, anything that JSON can hold, the current one under `code` and `key`.

        Clients that subscribed to `code` are told soon, in one go for all that happens in one turn
        of the loop; one that is slow is told the newest value only. None deletes. Where `value`
        stands already nothing is done, and False returned. Anybody who can connect may subscribe,
        without a ticket, as in JavaScript; see `may_subscribe`. May be called before `start`, from
        then on only from the service's loop. Code ``announce`` with the key ``""`` holds the
        service's own announcement.

        Raises LocalProtocolError for what is no JSON or above a limit (MAX_SUBDATA and others).
        """
        return self.board.publish(code, key, value)

    def on_notify(self, handler: _N) -> _N:
        """Decorator: the function is given what clients tell with ``notify`` messages.

        Its arguments are the client's address and the data: parsed JSON of at most
        MAX_CLIENT_MESSAGE bytes. It may be a coroutine function; the notices of one connection come
        one after another. What it raises is logged. Without a handler notices are logged as errors.
        """
        self.notices.handler = handler
        return handler

    def may_subscribe(self, check: _M) -> _M:
        """Decorator: the function says whether a client may subscribe.

        Its arguments are the client's address, the codes, and the ticket as text if the client
        sent one in the HEADER (JavaScript clients do not). It must not block. Without it
        everybody may.
        """
        self.board.may_subscribe = check
        return check

    # -- starting -----------------------------------------------------------------------

    async def start(
        self, host: str | None = None, port: int | None = None, *, announce_host: str | None = None
    ) -> tuple[str, int]:
        """Listen, and return host and port.

        `host` defaults to the configured service address, without a configuration to 127.0.0.1.
        `port` None takes a random one of ``beepish.first_port`` to ``last_port``, 0 any. Clients
        are told `announce_host`, by default `host`. Raises ConfigError when it cannot listen, would
        have to announce a wildcard address, or requires tickets that it cannot check.
        """
        if self._listener is not None:
            raise ConfigError("the service was started already; make a new Service")
        self._check_tickets()
        conf = self._config
        if host is None:
            host = conf.service_addresses()[0] if self._configured else "127.0.0.1"
        told = announce_host or host
        if _is_wildcard(told):
            raise ConfigError(f"clients cannot connect to {told}: give announce_host")
        self._moved = asyncio.Event()
        sock = bind(host, port, range(conf.first_port, conf.last_port + 1), conf.bind_tries)
        self._listener = Listener(
            sock,
            self._context,
            self._make_channel,
            self._max_connections,
            self._tell_moved,
        )
        self._add_own_actions()
        address = self._listener.address
        self._uri = f"beepish+tls://{f'[{told}]' if ':' in told else told}:{address[1]}"
        return address

    def _add_own_actions(self) -> None:
        """What every service answers. Comes last, so that it tells of all the others."""
        if self._queue_depth:
            add_queue_depth(self, self._config.rpc_timeout)
        if self._documentation:
            add_documentation(self, self._config.rpc_timeout)

    def _check_tickets(self) -> None:
        if self.ticket_verifier is not None or not self.require_tickets:
            return
        protected = [a.spelling for a in self.actions.announced() if not a.noauth]
        if protected:
            raise ConfigError(
                f"{', '.join(protected[:5])}{' …' if len(protected) > 5 else ''} cannot be "
                "protected: give Service a ticket_verifier, flag the action noauth, or say "
                "require_tickets=False to serve everybody"
            )

    def _make_channel(self) -> Channel:
        return Channel(
            Role.SERVER,
            ServerConnection(self),
            idle_limit=self._config.server_timeout,
            max_inflight=self._config.max_inflight,
        )

    # -- what it says of itself ---------------------------------------------------------

    @property
    def uri(self) -> str:
        """``beepish+tls://HOST:PORT``; empty before `start`."""
        return self._uri

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    @property
    def in_flight(self) -> int:
        """Requests that are being worked on."""
        return self._in_flight

    @property
    def subscribers(self) -> int:
        """Connections with a subscription."""
        return len(self.board)

    @property
    def refused_connections(self) -> int:
        """Connections closed at once because there were too many."""
        return self._listener.refused if self._listener is not None else 0

    @property
    def stopping(self) -> bool:
        """True from the moment that `stop` is called."""
        return self._stopping

    def announcement(self, now: float | None = None) -> bytes:
        """The signed record for discovery, as of `now` (seconds since 1970, default the clock).

        Once `stop` has been called it says that the service is leaving: weight 0, no actions.
        Takes about a millisecond. Raises ConfigError before `start`, AnnouncementError for what
        peers would refuse.
        """
        if not self._uri:
            raise ConfigError("a service has no address to announce before it is started")
        if now is None:
            # Peers refuse as a replay what is older than what they saw, and clocks step back.
            now = max(time.time(), self._announced_at + 0.001)
        self._announced_at = max(self._announced_at, now)
        spec = AnnouncementSpec(
            identity=self.identity,
            sector=self.sector,
            uri=self._uri,
            envelopes=self.envelopes,
            actions=() if self._stopping else self.actions.announced(),
            weight=0 if self._stopping else self.weight,
            interval=self.interval,
        )
        return build_announcement(spec, self._key, self._certificate, timestamp=now)

    # -- for connections ----------------------------------------------------------------

    def admit(self, connection: ServerConnection) -> bool:
        """Called by a connection that is open; False: it must be closed."""
        if not self._closed:
            self._connections.add(connection)
        return not self._closed

    def refusal(self) -> str:
        """Why no request may begin now; empty when it may."""
        if self._closed:
            return "the service has stopped"
        if self._in_flight >= self._max_requests:
            return f"more than {self._max_requests} requests at once"
        return ""

    def request_began(self) -> None:
        """Called by a connection."""
        self._in_flight += 1
        self.requests += 1

    def request_ended(self) -> None:
        """Called by a connection."""
        self._in_flight -= 1
        self._tell_moved()

    def connection_lost(self, connection: ServerConnection) -> None:
        """Called by a connection."""
        self._connections.discard(connection)
        if self._listener is not None and connection.channel is not None:
            self._listener.forget(connection.channel)
        self._tell_moved()

    def _tell_moved(self) -> None:
        if self._moved is not None:
            self._moved.set()

    # -- stopping -----------------------------------------------------------------------

    async def stop(self, grace: float = STOP_GRACE, *, linger: float = 0.0) -> None:
        """Leave the mesh: no new connections, an announcement that says so, then the end.

        Requests in flight may take `grace` seconds more, and so may those that still come over open
        connections, since clients follow discovery with delay; for that, connections stay open
        `linger` seconds (at most `grace`) even when nothing is in flight. After `grace` handlers
        are cancelled. Takes at most `grace` and 2 * CLOSE_TIMEOUT seconds, and the clean-up of
        handlers. Calling it again waits as well. When it is cancelled, all is cut at once.
        """
        self._stopping = True
        if self._listener is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + max(0.0, grace)
        self._listener.close()
        try:
            await self._wait_until(self._deserted, min(end, loop.time() + linger))
            await self._wait_until(lambda: not self._in_flight and not self.notices.held, end)
            self._closed = True
            self._listener.abandon()
            await self._cancel_requests()
            for connection in list(self._connections):
                if connection.channel is not None:
                    connection.channel.close("the service has stopped")
            await self._wait_until(self._deserted, loop.time() + CLOSE_TIMEOUT)
        finally:
            self._closed = True
            self._listener.abandon()
            for connection in list(self._connections):
                if connection.channel is not None:
                    connection.channel.abort("the service has stopped")
        await self._wait_until(self._deserted, loop.time() + CLOSE_TIMEOUT)

    def _deserted(self) -> bool:
        """Nobody is connected and nobody is about to be."""
        assert self._listener is not None  # noqa: S101 - set by start
        return not self._connections and not self._listener.handshaking

    async def _cancel_requests(self) -> None:
        tasks: list[asyncio.Task[None]] = self.notices.cancel()
        for connection in list(self._connections):
            connection.cancel_all()
            tasks += connection.tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)

    async def _wait_until(self, done: Callable[[], bool], end: float) -> None:
        """Wait for `done`, looked at whenever a request or connection ends, at most until `end`."""
        assert self._moved is not None  # noqa: S101 - set by start
        try:
            async with asyncio.timeout_at(end):
                while not done():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return

    async def run(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        announce_host: str | None = None,
        announce_file: Path | None = None,
        grace: float = STOP_GRACE,
        linger: float | None = None,
        trigger: asyncio.Event | None = None,
    ) -> None:
        """Start, serve until SIGTERM or SIGINT, stop. See `scamp.server.runner.run_service`."""
        from scamp.server.runner import run_service  # it needs this module

        await run_service(
            self,
            host,
            port,
            announce_host=announce_host,
            announce_file=announce_file,
            grace=grace,
            linger=linger,
            trigger=trigger,
        )


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host
