"""A service: actions behind one listening socket, announced under one identity."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from scamp import keys
from scamp.config import ScampConf
from scamp.discovery import AnnouncementSpec, build_announcement, new_identity
from scamp.discovery.multicast import MulticastGroup
from scamp.errors import ConfigError, LocalProtocolError
from scamp.limits import (
    FAREWELLS,
    MAX_REQUESTS,
    MAX_SERVED_CONNECTIONS,
    MAX_SERVICE_NAME,
    MAX_TYPED_BODY,
    STOP_GRACE,
)
from scamp.server.actions import ActionTable, make_action, words
from scamp.server.builtin import add_documentation, add_queue_depth
from scamp.server.connection import KnowsPrivileges, ServerConnection, VerifiesTickets
from scamp.server.listener import Listener, bind_all
from scamp.server.notices import Notices, NotifyHandler
from scamp.server.subscriptions import MaySubscribe
from scamp.server.traffic import Traffic
from scamp.server.typed import Handler, TypedHandler, inspect_handler
from scamp.transport import Channel, server_context
from scamp.wire import Role

log: logging.Logger = logging.getLogger("scamp.server")

ANNOUNCE: Final = "announce"
"""The code under which a service publishes its own announcement, with the key ``""``."""

_H = TypeVar("_H", bound=Handler | TypedHandler)
_N = TypeVar("_N", bound=NotifyHandler)
_M = TypeVar("_M", bound=MaySubscribe)


class Service:
    """Answers requests for its actions. Each instance has an identity of its own.

    `key` and `certificate` are PEM, the contents of the files; the certificate's fingerprint is
    what clients check. `interval` is the announced interval in seconds, `weight` a whole number.
    `envelopes` are what actions take that do not say otherwise, as text comma-separated. Unless an
    action is flagged ``noauth`` it needs a ticket that `ticket_verifier` accepts; `require_tickets`
    False gives that up for all of them, for services that nobody but trusted peers can reach. With
    `authz`, such as an `AuthzSource`, the ticket also needs every privilege that the table lists
    for the action; an action that is not listed is refused, and so is every one while there is no
    table. Who made the source closes it.

    `config` gives ports, addresses and timeouts; without it the defaults of the protocol hold.
    `max_connections` and `max_requests` are caps over the whole service. Beside its own actions it
    answers ``NAME.queue_depth`` and ``_meta.documentation``, both without a ticket, unless
    `queue_depth` or `documentation` is False or it has registered such an action itself.

    Callers who are refused get error code ``unauthorized`` (ticket missing or no good),
    ``access_denied`` (privilege missing, named in the error's data, or action not listed) or
    ``authorization_unavailable`` (no table).

    Raises ConfigError when key and certificate cannot be used, and for a name, a weight or an
    interval that could not be announced.
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
        if not name or len(name) > MAX_SERVICE_NAME or not name.isprintable():
            raise ConfigError(
                f"{name[:64]!r} is no name for a service: 1 to {MAX_SERVICE_NAME} printable "
                "characters"
            )
        # Announced in whole milliseconds.
        if isinstance(interval, bool) or not (math.isfinite(interval) and interval >= 0.001):
            raise ConfigError(
                f"interval {interval!r} is not a number of seconds from 0.001 upwards"
            )
        self.name = name
        self.identity: str = new_identity(name)
        self.fingerprint: str = _fingerprint(key, certificate)
        self.sector = sector
        self.weight: float = _checked_weight(weight)
        self.interval = interval
        self.envelopes: tuple[str, ...] = words(envelopes)
        if authz is not None and not require_tickets:
            raise ConfigError("authz checks tickets, and require_tickets=False lets all without in")
        self._traffic = Traffic(max_requests, ticket_verifier, require_tickets, authz)
        self._key = keys.load_private_key(key)
        self._certificate = certificate
        self._context: ssl.SSLContext = server_context(certificate, key)
        self._config = config if config is not None else ScampConf({})
        self._configured = config is not None
        self._max_connections = max_connections
        self._queue_depth = queue_depth
        self._documentation = documentation
        self._addresses: tuple[tuple[str, int], ...] = ()
        self._uri = ""
        self._uris: dict[str, str] = {}  # by the address of the interface
        self._announced_at = 0.0
        self._watchers: list[Callable[[], None]] = []
        self._stopping = False

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
        else ``rpc.timeout`` (75). `envelopes`, which may be written like that too, and `sector`
        default to the service's. The function is given a `Request`; what it returns is the body:
        bytes as they are, None as ``null``, an async iterator of bytes piece by piece, all else as
        JSON. `ServiceError` makes an error reply, any other exception code ``internal``.

        With a second parameter it is given the body too: JSON of at most `max_body` bytes, as the
        parameter's annotation says (see `scamp.server.typed`). What does not fit is answered
        ``bad_request`` with the reasons. Docstring and annotations go into ``_meta.documentation``.

        A second parameter with a default is the handler's own affair, and any other that has none
        a mistake. Raises ConfigError for such a function, when the name cannot be announced or is
        taken, when the annotation is of no use, or after `start`. An action's name and version are
        its own in all sectors.
        """
        if self._traffic.listener is not None:
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
        return self._traffic.board.publish(code, key, value)

    def on_notify(self, handler: _N) -> _N:
        """Decorator: the function is given what clients tell with ``notify`` messages.

        Its arguments are the client's address and the data: parsed JSON of at most
        MAX_CLIENT_MESSAGE bytes. It may be a coroutine function; the notices of one connection come
        one after another. What it raises is logged. Without a handler notices are logged as errors.
        """
        self._traffic.notices.handler = handler
        return handler

    def may_subscribe(self, check: _M) -> _M:
        """Decorator: the function says whether a client may subscribe.

        Its arguments are the client's address, the codes, and the ticket as text if the client
        sent one in the HEADER (JavaScript clients do not). It must not block. Without it
        everybody may.
        """
        self._traffic.board.may_subscribe = check
        return check

    # -- starting -----------------------------------------------------------------------

    async def start(
        self, host: str | None = None, port: int | None = None, *, announce_host: str | None = None
    ) -> tuple[str, int]:
        """Listen, and return host and port, the first if there are several.

        `host` defaults to the configured service addresses, all of them, without a configuration to
        127.0.0.1. `port` None takes a random one of ``beepish.first_port`` to ``last_port``, 0 any.
        Clients are told `announce_host`, by default `host`. Raises ConfigError when it cannot
        listen, would have to announce a wildcard address, requires tickets that it cannot check, or
        finds a value in the configuration that makes no sense.
        """
        if self._traffic.listener is not None:
            raise ConfigError("the service was started already; make a new Service")
        if self._stopping:
            raise ConfigError("the service was stopped already; make a new Service")
        self._check_tickets()
        conf = self._config
        idle_limit, max_inflight = conf.server_timeout, conf.max_inflight
        if host is not None:
            hosts: tuple[str, ...] = (host,)
        else:
            hosts = conf.service_addresses() if self._configured else ("127.0.0.1",)
        for told in (announce_host,) if announce_host else hosts:
            if _is_wildcard(told):
                raise ConfigError(f"clients cannot connect to {told}: give announce_host")
        ports = range(conf.first_port, conf.last_port + 1)
        listener = self._traffic.listener = Listener(
            bind_all(hosts, port, ports, conf.bind_tries),
            self._context,
            lambda: Channel(
                Role.SERVER,
                ServerConnection(self._traffic),
                idle_limit=idle_limit,
                max_inflight=max_inflight,
            ),
            self._max_connections,
            self._traffic.moved,
        )
        self._add_own_actions()
        self._addresses = listener.addresses
        told = announce_host or hosts[0]
        self._uri = _uri(told, self._addresses[0][1])
        if announce_host is None:
            self._uris = {address: _uri(address, port) for address, port in self._addresses}
        return self._addresses[0]

    def _add_own_actions(self) -> None:
        """What every service answers. Comes last, so that it tells of all the others."""
        if self._queue_depth:
            add_queue_depth(self, self._config.rpc_timeout)
        if self._documentation:
            add_documentation(self, self._config.rpc_timeout)

    def _check_tickets(self) -> None:
        if self._traffic.ticket_verifier is not None or not self._traffic.require_tickets:
            return
        protected = [a.spelling for a in self.actions.announced() if not a.noauth]
        if protected:
            raise ConfigError(
                f"{', '.join(protected[:5])}{' …' if len(protected) > 5 else ''} cannot be "
                "protected: give Service a ticket_verifier, flag the action noauth, or say "
                "require_tickets=False to serve everybody"
            )

    # -- what it says of itself ---------------------------------------------------------

    @property
    def uri(self) -> str:
        """``beepish+tls://HOST:PORT``, the first if there are several; empty before `start`."""
        return self._uri

    def uri_at(self, interface: str) -> str:
        """What to announce on the interface with this address: the socket there, else the first."""
        return self._uris.get(interface, self._uri)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each socket; none before `start`."""
        return self._addresses

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._traffic.connections)

    @property
    def actions(self) -> ActionTable:
        """What it answers; after `start` its own actions too."""
        return self._traffic.actions

    @property
    def requests(self) -> int:
        """Requests begun so far."""
        return self._traffic.requests

    @property
    def notices(self) -> Notices:
        """What clients told with ``notify``: how much of it is held, and how much was dropped."""
        return self._traffic.notices

    @property
    def in_flight(self) -> int:
        """Requests that are being worked on."""
        return self._traffic.in_flight

    @property
    def subscribers(self) -> int:
        """Connections with a subscription."""
        return len(self._traffic.board)

    @property
    def refused_connections(self) -> int:
        """Connections closed at once because there were too many."""
        listener = self._traffic.listener
        return listener.refused if listener is not None else 0

    @property
    def stopping(self) -> bool:
        """True from the moment that `stop` is called."""
        return self._stopping

    def announcement(self, now: float | None = None, *, uri: str | None = None) -> bytes:
        """The signed record for discovery, as of `now` (seconds since 1970, default the clock).

        `uri` is by default the first of the service's. Once `stop` has been called it says that the
        service is leaving: weight 0, no actions. Takes about a millisecond. What it returns is also
        published, for those who subscribed to ``announce``. Raises ConfigError before `start`,
        AnnouncementError for what peers would refuse.
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
            uri=uri or self._uri,
            envelopes=self.envelopes,
            actions=() if self._stopping else self.actions.announced(),
            weight=0 if self._stopping else self.weight,
            interval=self.interval,
        )
        record = build_announcement(spec, self._key, self._certificate, timestamp=now)
        self._publish_record(record)
        return record

    def _publish_record(self, record: bytes) -> None:
        try:
            self.publish(ANNOUNCE, "", record.decode("ascii"))
        except (LocalProtocolError, UnicodeDecodeError) as exc:
            log.debug("the announcement is not published: %s", exc)  # too large, most likely

    def set_weight(self, weight: float) -> None:
        """Take more or less of the load from now on; 0 for none, without leaving.

        A whole number: other editions cannot read any other (see `AnnouncementSpec`).
        Told to the mesh at once when the service announces itself. Raises ConfigError for what is
        no weight.
        """
        self.weight = _checked_weight(weight)
        self._tell_watchers()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the announcement is another than before; returns what ends that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def _tell_watchers(self) -> None:
        for callback in list(self._watchers):
            callback()

    # -- stopping -----------------------------------------------------------------------

    async def stop(self, grace: float = STOP_GRACE, *, linger: float = 0.0) -> None:
        """Leave the mesh without losing a request.

        From the first moment the announcement says that the service is leaving. For `linger`
        seconds (at most `grace`) connections and requests go on being accepted, since clients
        follow discovery with delay. Then no new connection is, and when nothing is in flight any
        more the open ones are closed. Requests in flight may take until `grace` seconds after the
        call; those that still come over open connections are answered as long as others are in
        flight. After `grace` handlers are cancelled. Takes at most `grace` and 2 * CLOSE_TIMEOUT
        seconds, and the clean-up of handlers. Called again it waits as well, and with less `grace`
        it cuts the first call short. When it is cancelled, all is cut at once.
        """
        self._stopping = True
        self._tell_watchers()
        await self._traffic.end(grace, linger)

    async def run(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        announce_host: str | None = None,
        announce_file: Path | None = None,
        announce: bool | MulticastGroup | None = None,
        grace: float = STOP_GRACE,
        linger: float | None = None,
        farewells: int = FAREWELLS,
        trigger: asyncio.Event | None = None,
    ) -> None:
        """Start, announce, serve until SIGTERM or SIGINT, leave.

        See `scamp.server.runner.run_service`, which has the same parameters.
        """
        from scamp.server.runner import run_service  # it needs this module

        await run_service(
            self,
            host,
            port,
            announce_host=announce_host,
            announce_file=announce_file,
            announce=announce,
            grace=grace,
            linger=linger,
            farewells=farewells,
            trigger=trigger,
        )

    @property
    def config(self) -> ScampConf | None:
        """The configuration that it was given."""
        return self._config if self._configured else None


def _uri(host: str, port: int) -> str:
    return f"beepish+tls://{f'[{host}]' if ':' in host else host}:{port}"


def _fingerprint(key: bytes, certificate: bytes) -> str:
    """The certificate's; the key is only looked at for what is often mistaken."""
    for what, given in (("key", key), ("certificate", certificate)):
        if not isinstance(given, bytes):
            kind = type(given).__name__
            raise ConfigError(f"{what}: give the bytes of the PEM file, not a {kind}")
    try:
        return keys.fingerprint(certificate)
    except ConfigError as exc:
        raise ConfigError(f"certificate: {exc}") from exc


def _checked_weight(weight: float) -> float:
    if isinstance(weight, bool) or weight < 0 or not float(weight).is_integer():
        raise ConfigError(f"{weight!r} is not a weight: a whole number from 0 upwards")
    return weight


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host
