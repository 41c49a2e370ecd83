"""What can be set on a client."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from scamp import limits
from scamp.transport import SESSIONS_LEAK, TcpTimes

_ABOVE_0: Final = (
    *("connect_timeout", "request_timeout", "body_idle", "ping_interval"),
    *("tcp_keepalive_interval", "max_connections", "max_streams"),
)
_NOT_BELOW_0: Final = (
    *("tcp_keepalive_idle", "tcp_user_timeout", "idle_timeout", "reply_hold", "max_waiters"),
    *("max_in_flight", "queue_target", "queue_interval", "slow_start"),
    *("retries", "retry_budget", "retry_minimum"),
)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Times in seconds, sizes in bytes. The defaults are the ones that SCAMP clients share."""

    connect_timeout: float = limits.CONNECT_TIMEOUT
    """TCP and TLS together."""
    tcp_keepalive_idle: float = limits.KEEPALIVE_IDLE
    """Silence after which the kernel begins to probe a connection; 0 for never."""
    tcp_keepalive_interval: float = limits.KEEPALIVE_INTERVAL
    """From one probe to the next."""
    tcp_user_timeout: float = limits.USER_TIMEOUT
    """A connection whose peer acknowledges nothing for so long is lost; 0 leaves it to the kernel,
    which takes some 15 minutes."""
    ping_services: Collection[str] = ()
    """Services, as ``[SECTOR:]NAME``, whose connections get a PING every `ping_interval`: only
    those that are known to answer. Others would close the connection."""
    ping_interval: float = limits.PING_INTERVAL
    """A peer from which nothing comes from one PING to the next has lost the connection."""
    reply_hold: float = limits.REPLY_HOLD
    """How long what has come of the reply to a call that is `retry_safe` is held back, unless it is
    complete before or fills the window: if it is cut meanwhile, the call is tried again. 0 hands it
    on at its first byte."""
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
    max_in_flight: int = 0
    """Requests to one instance under way, waiting ones included; 0 for no limit."""
    queue_target: float = 0.0
    """Longest wait for a connection to one instance, once requests have been waiting there without
    a break for `queue_interval`: who waits longer gets Saturated. 0 for never."""
    queue_interval: float = 5.0
    """How long requests wait without a break before `queue_target` counts."""
    slow_start: float = 10.0
    """How long the share of an instance grows that comes, or comes back, beside others."""
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

    def __post_init__(self) -> None:
        """Raises ValueError for what nothing could work with."""
        for name in _ABOVE_0:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}, and has to be above 0")
        for name in _NOT_BELOW_0:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}, and must not be below 0")
        if isinstance(self.ping_services, str):
            raise ValueError("ping_services is one text; it has to be a list of names")  # noqa: TRY004

    @property
    def tcp_times(self) -> TcpTimes:
        """The ``tcp_…`` options in one."""
        return TcpTimes(self.tcp_keepalive_idle, self.tcp_keepalive_interval, self.tcp_user_timeout)

    def pings(self, sector: str, name: str) -> bool:
        """Whether the service `name` gets PINGs. Case makes no difference."""
        wanted = f"{sector}:{name}".lower()
        return any(
            wanted == (one if ":" in one else f"main:{one}").lower() for one in self.ping_services
        )
