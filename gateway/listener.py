"""Sockets and TLS of the listeners."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from aiohttp import web
from cryptography import x509

from gateway.accepting import BACKLOG, Gate, GatedSite
from gateway.closing import SETTLING, take_no_new
from gateway.setting_types import Address
from gateway.settings import Settings
from scamp.errors import ConfigError

MAX_REST: Final = 4 * BACKLOG
"""Connections that are accepted at the end, all at once."""

_PORT_TRIES: Final = 10


@dataclass(frozen=True, slots=True)
class Sockets:
    """What the two listeners stand on: bound TCP sockets, each list all on one port.

    They may come from elsewhere than from this process: then others may listen on them as well.
    For several workers there may be several public ones on one address, over which the kernel
    spreads connections; `part` says which of them are whose.
    """

    public: list[socket.socket]
    admin: list[socket.socket]
    crowded: bool = False
    """Whether other workers of this gateway accept on some of the public ones, too."""
    own: bool = False
    """Whether the public ones were opened by this gateway, and are passed to no other."""

    @classmethod
    def opened(cls, settings: Settings) -> Self:
        """Bind both addresses, the public one once for each worker. Raises `ConfigError` with the
        one that cannot be had."""
        public = open_for_workers(settings.bind, settings.workers)
        try:
            return cls(
                public, open_sockets(settings.admin_bind), own=settings.takeover_socket is None
            )
        except BaseException:
            for sock in public:
                sock.close()
            raise

    def part(self, index: int, count: int) -> Self:
        """What worker `index` (from 0) of `count` listens on: of each public address as many
        sockets of its own as all others have, and those that are left, which all share. So each is
        accepted on, whatever their number. The admin listener's are everybody's."""
        groups: dict[object, list[socket.socket]] = {}
        for sock in self.public:
            groups.setdefault(sock.getsockname()[:2], []).append(sock)
        public: list[socket.socket] = []
        crowded = False
        for group in groups.values():
            dealt = len(group) // count * count
            public += group[index:dealt:count] + group[dealt:]
            crowded = crowded or dealt < len(group)
        return type(self)(public, self.admin, crowded, self.own)

    def close(self) -> None:
        """Close all of them here."""
        for sock in (*self.public, *self.admin):
            sock.close()


def open_for_workers(address: Address, count: int) -> list[socket.socket]:
    """The sockets of `open_sockets`, `count` times (SO_REUSEPORT). Raises `ConfigError`."""
    if count == 1:
        return open_sockets(address)
    if address.port:
        # What shares a port shares it with a second gateway of this user, too, started by mistake.
        for sock in open_sockets(address):
            sock.close()
    sockets = open_sockets(address, shared=True)
    same = Address(address.host, sockets[0].getsockname()[1])
    try:
        for _ in range(count - 1):
            sockets += open_sockets(same, shared=True)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def open_sockets(address: Address, *, shared: bool = False) -> list[socket.socket]:
    """TCP sockets for `address`, all on the same port, bound and not yet listening.

    Without a host: one for IPv4 and, where the machine has it, one for IPv6 that takes no IPv4, so
    that clients appear with the addresses they have. `shared`: others of this user may bind it as
    well, if they share it too. Raises `ConfigError` with the address.
    """
    try:
        if address.host is not None:
            return _bind_all(address.host, address.port, shared)
        for _ in range(_PORT_TRIES):
            sockets = _bind_everywhere(address.port, shared)
            if sockets is not None:
                return sockets
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror or str(exc)
        raise ConfigError(f"cannot listen on {address}: {reason}") from exc
    raise ConfigError(f"cannot listen on {address}: no port that is free for IPv4 and IPv6")


def _bind_all(host: str, port: int, shared: bool) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, where in dict.fromkeys(found):
            if port == 0 and sockets:
                where = (where[0], sockets[0].getsockname()[1], *where[2:])
            sockets.append(_bind(family, where, shared))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_everywhere(port: int, shared: bool) -> list[socket.socket] | None:
    """None when the system's choice for IPv4 is taken for IPv6: try again."""
    four = _bind(socket.AF_INET, ("0.0.0.0", port), shared)  # noqa: S104 - asked for
    try:
        six = _bind(socket.AF_INET6, ("::", four.getsockname()[1]), shared)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            return [four]  # a machine without IPv6
        four.close()
        if port:
            raise
        return None
    return [four, six]


def _bind(family: int, where: tuple[object, ...], shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The context of the public listener, read from its files now; None for plain HTTP.

    Blocks. Raises `ConfigError`, naming the file.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    secret = settings.tls_key_password
    # With an empty passphrase OpenSSL fails on an encrypted key; without one it asks the terminal.
    password = secret.get_secret_value() if secret is not None else ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # a handshake costs us more than the client
    for path in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca):
        _must_read(path)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password)
    except (ssl.SSLError, OSError, ValueError) as exc:
        files = f"{settings.tls_certificate} and {settings.tls_key}"
        raise ConfigError(f"{files} cannot be used: {_words(exc)}") from exc
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (ssl.SSLError, OSError) as exc:
            raise ConfigError(f"{settings.tls_client_ca} cannot be used: {_words(exc)}") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def certificate_expiry(settings: Settings) -> float | None:
    """When the public certificate expires, in seconds since 1970; None without one. Blocks.

    To be called after `tls_context` took the file. Raises `ConfigError`.
    """
    if settings.tls_certificate is None:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(settings.tls_certificate.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion) as exc:
        raise ConfigError(f"{settings.tls_certificate} cannot be used: {exc}") from exc
    return certificate.not_valid_after_utc.timestamp()


def _must_read(path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc


def _words(exc: Exception) -> str:
    reason = getattr(exc, "reason", None)
    if reason:
        return str(reason).replace("_", " ").lower()
    if "PEM lib" in str(exc):  # all that Python tells of several reasons
        return "not PEM, or the passphrase of the key is missing or wrong"
    return str(exc)


class Listener:
    """The sites of one runner on one address, and the change from one TLS context to the next."""

    def __init__(
        self,
        runner: web.BaseRunner,
        sockets: list[socket.socket],
        gate: Gate | None = None,
        *,
        own: bool = False,
    ) -> None:
        """`gate` is by what clients come in; without one it has the usual limits. `own`: nobody
        listens on these sockets once this gateway has left."""
        self.own = own
        self._runner = runner
        self._sockets = sockets
        self._gate = gate or Gate()
        self._sites: list[web.BaseSite] = []
        self._host, self.port = sockets[0].getsockname()[:2]
        self._scheme = "http"
        self._context: ssl.SSLContext | None = None
        self._stopped = False
        self.open = False

    @property
    def url(self) -> str:
        """For people and scripts: scheme, address and real port."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self.port}"

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        """Serve with this context; connections made with an earlier one go on as they are.

        Each site has a duplicate of the socket, so that an old one can be stopped after the new one
        listens, and no connection attempt finds nobody. Raises `ConfigError` when another program
        took the port between binding and listening. When cancelled nothing new is open.
        """
        new: list[web.BaseSite] = []
        try:
            for sock in self._sockets:
                new.append(self._site(sock, context))
                await new[-1].start()
        except BaseException as exc:
            for site in new:
                await site.stop()
            if isinstance(exc, OSError):
                reason = exc.strerror or exc
                raise ConfigError(f"cannot listen on {self.url}: {reason}") from exc
            raise
        if self._stopped:  # while the new sites were being made
            for site in new:
                await site.stop()
            return
        old, self._sites = self._sites, new
        self._context = context
        self._scheme = "http" if context is None else "https"
        self.open = True
        for site in old:
            await site.stop()

    def _site(self, sock: socket.socket, context: ssl.SSLContext | None) -> web.BaseSite:
        return GatedSite(self._runner, sock.dup(), self._gate, context)

    async def stop(self, *, serve_rest: bool = False) -> None:
        """Stop listening for good, also what a `start` under way is about to open; connections
        stay. `serve_rest`: also those that the kernel has accepted and we have not yet, which it
        resets else. May be called twice."""
        self._stopped = True
        self.open = False
        if serve_rest and self.own and [one for one in self._sockets if take_no_new(one)]:
            await asyncio.sleep(SETTLING)
        sites, self._sites = self._sites, []
        for site in sites:
            await site.stop()
        for sock in self._sockets:
            # Nothing may come between: who connects after the last of them is reset, if not `own`.
            rest = _accept_rest(sock) if serve_rest else []
            sock.close()
            factory: Any = self._runner.server
            for one, host in rest:
                self._gate.take(one, host, factory, self._context)

    async def close(self) -> None:
        """`stop`, and end the connections that are not served yet."""
        await self.stop()
        await self._gate.close()


def _accept_rest(sock: socket.socket) -> list[tuple[socket.socket, str]]:
    """What waits to be accepted, each with its address."""
    found: list[tuple[socket.socket, str]] = []
    with contextlib.suppress(OSError):  # there is no more, or no room for more
        while len(found) < MAX_REST:
            one, address = sock.accept()
            found.append((one, address[0]))
    return found
