"""How a call is followed through its attempts. What becomes of that is not known here: a span of
OpenTelemetry, a line in a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from scamp.discovery import Offer
from scamp.errors import ScampError


class CallTrace(Protocol):
    """Is told what becomes of one `Call`. Nothing here may wait or raise.

    Each attempt begins with `waits`. When there is a connection, `starts` follows; when there is
    none, or no reply, `failed`. A call that is cancelled, or that the source of its body ends, is
    told nothing more; nor is one that has its reply.
    """

    def waits(self, offer: Offer, address: str, attempt: int) -> None:
        """For a place on a connection to `offer`'s service at `address` (HOST:PORT). `attempt`
        counts from 1; those that only waited count for none."""

    def starts(self, dialled: tuple[float, float] | None) -> Mapping[str, Any]:
        """The request goes out now. Returns HEADER fields for this attempt, which go over
        `Call.extra`. `dialled` says when the connection was opened, from and to, as
        `time.monotonic` has it."""

    def failed(self, error: ScampError | None) -> None:
        """The attempt is over; there may be another. None: it went elsewhere, for want of a first
        connection."""
