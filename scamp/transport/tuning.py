"""What the kernel is asked for on every socket: no delay, and to find dead peers without PING.

Some peers close the connection on a PING. TCP asks them anyway: it probes a connection on which
nothing comes (keepalive), and gives one up whose peer acknowledges nothing (TCP_USER_TIMEOUT).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from math import ceil

from scamp import limits


@dataclass(frozen=True, slots=True)
class TcpTimes:
    """How long a peer may be silent for the kernel, in seconds; 0 leaves it to the system.

    Linux gives a connection up when the peer has acknowledged nothing for `user_timeout`: what was
    sent, or, where nothing was, the probes that begin after `keepalive_idle` and repeat every
    `keepalive_interval`. The number of probes does not count there; other systems, which know no
    user timeout, get the number that comes to the same. A peer that is alive but takes nothing
    (its window is closed) while something waits to be sent is given up as well.
    """

    keepalive_idle: float = limits.KEEPALIVE_IDLE
    """Silence after which probes begin; 0 for no probes."""
    keepalive_interval: float = limits.KEEPALIVE_INTERVAL
    """From one probe to the next."""
    user_timeout: float = limits.USER_TIMEOUT
    """Without an acknowledgement the connection is lost after this."""

    @property
    def probes(self) -> int:
        """How many of them fit into the user timeout, at least 1; 0 where there is none."""
        if self.user_timeout <= 0:
            return 0
        left = self.user_timeout - self.keepalive_idle
        return min(127, max(1, ceil(left / self.keepalive_interval)))

    def apply(self, sock: socket.socket | None) -> None:
        """Set them on a connected TCP socket; nothing on any other."""
        if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self.keepalive_idle > 0)
        if self.keepalive_idle > 0:
            _set(sock, "TCP_KEEPIDLE", ceil(self.keepalive_idle))
            _set(sock, "TCP_KEEPINTVL", ceil(self.keepalive_interval))
            if self.probes:
                _set(sock, "TCP_KEEPCNT", self.probes)
        if self.user_timeout > 0:
            _set(sock, "TCP_USER_TIMEOUT", ceil(self.user_timeout * 1000))


def _set(sock: socket.socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)  # not on every platform
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


USUAL = TcpTimes()
