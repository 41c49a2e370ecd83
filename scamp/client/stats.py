"""Plain counters that the client keeps; a metrics exporter reads them when it is scraped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ClientStats:
    """Totals since the start. Keys of the counters are small fixed sets of words."""

    requests: int = 0
    """Requests handed to the requester."""
    attempts: int = 0
    """Requests started on a connection, retries included."""
    retries: Counter[str] = field(default_factory=Counter)
    """By what went wrong before: ``connect``, ``lost``, ``dispatch_failure``, ``txerr``."""
    retries_denied: int = 0
    """Retries that the budget did not allow."""
    shed: Counter[str] = field(default_factory=Counter)
    """Requests refused because of a limit: ``instance``, ``queue_full``, ``queue_delay``."""
    connects: int = 0
    """Connections opened."""
    resumed: int = 0
    """Those of them that resumed a TLS session instead of a full handshake."""
    connect_failures: Counter[str] = field(default_factory=Counter)
    """By reason: ``refused``, ``timeout``, ``fingerprint``, ``tls``, ``other``; subscriptions'
    too."""
    reconnects: int = 0
    """Connections opened in the background after a failure or a loss."""
    lost_in_use: int = 0
    """Connections that ended with requests in flight."""
    lost_idle: int = 0
    """Connections that ended, by whichever side, with none."""
    stray_replies: int = 0
    """Replies with an id that is not in flight; delivered to nobody."""
    protocol_errors: int = 0
    """Connections closed because the peer broke the protocol."""
    abandoned: Counter[str] = field(default_factory=Counter)
    """Requests given up by their caller, by what it took: ``discard``, ``close``, ``unsent``."""
    learned: Counter[str] = field(default_factory=Counter)
    """Instances whose kind was learned: ``echoes``, ``renumbers``."""
    bytes_sent: int = 0
    """Request body bytes."""
    bytes_received: int = 0
    """Reply body bytes."""
