"""What can be set on a client."""

from __future__ import annotations

from dataclasses import dataclass

from scamp import limits
from scamp.transport import SESSIONS_LEAK


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Times in seconds, sizes in bytes. The defaults are the ones that SCAMP clients share."""

    connect_timeout: float = limits.CONNECT_TIMEOUT
    """TCP and TLS together."""
    idle_timeout: float = limits.CLIENT_IDLE
    """A connection with nothing in flight closes after this."""
    request_timeout: float = limits.RPC_TIMEOUT
    """Deadline of a request whose action has no ``tNNN`` flag."""
    body_idle: float = limits.BODY_IDLE
    """Longest pause between two pieces of a body, either way."""
    max_connections: int = limits.MAX_CONNECTIONS
    """Connections to one instance."""
    max_waiters: int = limits.MAX_WAITERS
    """Requests that may wait for a connection to one instance."""
    max_streams: int = 128
    """Requests in flight on one connection to a peer that echoes ids."""
    retries: int = limits.MAX_RETRIES
    """Retries of one request, where they are proven safe."""
    retry_budget: float = 0.2
    """Retries allowed as a share of the requests of the last 10 s."""
    retry_minimum: int = 3
    """Retries in 10 s that are always allowed."""
    legacy_rsa: bool = False
    """Accept RSA key exchange with AES, for old Go services."""
    resume_tls: bool = not SESSIONS_LEAK
    """Begin further connections to an instance with the TLS session of one before. By default where
    that leaks no memory: Python 3.12.8, 3.13.1 and newer."""
