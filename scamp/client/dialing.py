"""Opening a TLS connection to a service: not a byte before its certificate is known.

What a connection needs after it is open is not known here: requests and subscriptions both begin
with this.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

from scamp.client.sessions import Peer, SessionStore
from scamp.errors import ConnectFailed, ConnectionLost, ConnectTimeout, FingerprintMismatch
from scamp.transport import Channel, ChannelHandler, TcpTimes, offering, resumable_session
from scamp.wire import Role


def format_address(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_resumed(channel: Channel | None) -> bool:
    """True when the connection began with the TLS session of one before."""
    tls = channel.tls if channel is not None else None
    return tls is not None and bool(tls.session_reused)


class Dialer:
    """Opens the connections of one client, and resumes TLS sessions where `sessions` has one.

    Whoever has a connection says what came of it: `keep` once the service has answered, `drop` when
    it ended before that. `timeout` in seconds is for TCP and TLS together. Belongs to one event
    loop.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        timeout: float,
        sessions: SessionStore | None,
        tcp: TcpTimes | None = None,
        failures: Counter[str] | None = None,
    ) -> None:
        """`failures` counts connections that did not come about, by reason: ``refused``,
        ``timeout``, ``fingerprint``, ``tls``, ``other``."""
        self._context = context
        self._timeout = timeout
        self._tcp = tcp or TcpTimes()
        self._sessions = sessions
        self._failures: Counter[str] = Counter() if failures is None else failures

    async def dial(
        self, host: str, port: int, fingerprint: str, handler: ChannelHandler, *, idle_limit: float
    ) -> None:
        """Connect `handler` to the service at `host`:`port`, whose certificate must match.

        `idle_limit` in seconds closes an idle connection, 0 never. A session is offered if there is
        one of this address and this fingerprint; the service may decline it, and where the
        handshake fails with it there is another one without.

        Raises ConnectFailed, FingerprintMismatch or ConnectTimeout. Safe to cancel: nothing is left
        open.
        """
        address = format_address(host, port)
        peer = (address, fingerprint)

        async def attempt(session: ssl.SSLSession | None) -> Channel:
            channel = Channel(
                Role.CLIENT,
                handler,
                address=address,
                expected=fingerprint,
                idle_limit=idle_limit,
                tcp=self._tcp,
            )
            with offering(session):
                await asyncio.get_running_loop().create_connection(
                    lambda: channel,
                    host,
                    port,
                    ssl=self._context,
                    ssl_handshake_timeout=self._timeout,
                )
            return channel

        try:
            await self._attempts(attempt, peer)
        except ConnectFailed as exc:
            self._failures[_reason(exc)] += 1
            self._forget(peer)
            raise

    async def _attempts(
        self, attempt: Callable[[ssl.SSLSession | None], Awaitable[Channel]], peer: Peer
    ) -> None:
        address = peer[0]
        session = None
        if self._sessions is not None:
            session = self._sessions.get(peer, asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    channel = await attempt(session)
                except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, ValueError):
                    if session is None:
                        raise
                    channel = await attempt(None)
        except TimeoutError as exc:
            raise ConnectTimeout(address, self._timeout) from exc
        except ssl.SSLError as exc:
            raise ConnectFailed(address, f"TLS: {exc.reason or exc}") from exc
        except (OSError, ValueError) as exc:  # ValueError: a host name that cannot be one
            reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            if isinstance(exc, ConnectionRefusedError):
                reason = "connection refused"  # asyncio's own text does not say it
            raise ConnectFailed(address, reason) from exc
        failure = channel.failure
        if isinstance(failure, ConnectionLost):  # at once: nothing can have been sent
            raise ConnectFailed(address, failure.reason)
        if failure is not None:
            raise failure

    def keep(self, channel: Channel) -> None:
        """The service has answered: what the next connection to it can begin with.

        Not earlier: with TLS 1.3 tickets come after the handshake, and the certificate is checked.
        """
        if self._sessions is None:
            return
        session = resumable_session(channel.tls)
        if session is not None:
            peer, now = (channel.address, channel.fingerprint), asyncio.get_running_loop().time()
            self._sessions.keep(peer, session, now, resumed=is_resumed(channel))

    def drop(self, channel: Channel) -> None:
        """It ended before the service had answered: maybe it stumbled over the session."""
        self._forget((channel.address, channel.fingerprint))

    def _forget(self, peer: Peer) -> None:
        if self._sessions is not None:
            self._sessions.drop(peer)


def _reason(error: ConnectFailed) -> str:
    if isinstance(error, FingerprintMismatch):
        return "fingerprint"
    if isinstance(error, ConnectTimeout):
        return "timeout"
    if error.reason.startswith("TLS"):
        return "tls"
    return "refused" if "refused" in error.reason.lower() else "other"
