"""File descriptors: how many this process may have open, and what they are for."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

OWN: Final = 256
"""Descriptors kept for ourselves: the admin listener's connections, files that are followed, logs,
the event loop, multicast, and clients that are being turned away."""

UPSTREAM_PART: Final = 0.25
"""Of the rest, what is kept for connections to services."""

ENDLESS: Final = 1 << 20
"""What counts where there is no limit: more is of no use to one process."""


def raise_limit() -> int:
    """Use all that the system allows this process; returns the limit from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENDLESS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower one that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """Descriptors that this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENDLESS if soft == resource.RLIM_INFINITY else min(soft, ENDLESS)


def room_for_clients(most: int | None = None) -> int:
    """Connections of clients for which there are descriptors, at least one; `most` stands in for
    the limit of now."""
    rest = max(0, (limit() if most is None else most) - OWN)
    return max(1, int(rest * (1 - UPSTREAM_PART)))


def shortage(wanted: int, most: int | None = None) -> str | None:
    """One sentence when there are no descriptors for `wanted` connections of clients."""
    most = limit() if most is None else most
    room = room_for_clients(most)
    if wanted <= room:
        return None
    return (
        f"max_connections is {wanted} and the limit of open files {most}: {room} clients are let "
        "in, the rest is kept for services and files; raise the limit (LimitNOFILE= of systemd, "
        "ulimit -n) or lower max_connections"
    )


def most_possible() -> int:
    """What `limit` can be raised to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENDLESS if hard == resource.RLIM_INFINITY else min(hard, ENDLESS)
