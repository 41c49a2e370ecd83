"""TLS sessions of services, so that a further connection costs less than the first one."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from dataclasses import dataclass

from scamp.limits import MAX_SESSIONS, SESSION_AGE

Peer = tuple[str, str]
"""Address and fingerprint of who showed its certificate in the handshake that began the session."""


@dataclass(frozen=True, slots=True)
class _Kept:
    session: ssl.SSLSession
    proven: float
    """When the peer last proved that it has the certificate's key."""


class SessionStore:
    """The newest session of each peer, bounded by MAX_SESSIONS; those unused for longest go first.

    A resumed session shows that the peer is the one of the handshake before, not anew that it has
    the certificate's key. After SESSION_AGE seconds of that a session is not given out any more.
    `now` is in seconds, on any steady clock.
    """

    def __init__(self, capacity: int = MAX_SESSIONS) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[Peer, _Kept] = OrderedDict()

    def get(self, peer: Peer, now: float) -> ssl.SSLSession | None:
        """What to offer to the peer; None when there is nothing, or nothing fresh."""
        kept = self._kept.get(peer)
        if kept is None:
            return None
        if now - kept.proven >= SESSION_AGE:
            del self._kept[peer]
            return None
        self._kept.move_to_end(peer)
        return kept.session

    def keep(self, peer: Peer, session: ssl.SSLSession, now: float, *, resumed: bool) -> None:
        """Remember the session of a connection whose certificate was the right one.

        `resumed` says how that connection began. When it resumed a session that has been dropped
        meanwhile, it is not known how old the proof is, and nothing is kept.
        """
        before = self._kept.pop(peer, None)
        if resumed and before is None:
            return
        proven = before.proven if resumed and before is not None else now
        self._kept[peer] = _Kept(session, proven)
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def drop(self, peer: Peer) -> None:
        """Begin with a full handshake next time."""
        self._kept.pop(peer, None)

    def __len__(self) -> int:
        return len(self._kept)
