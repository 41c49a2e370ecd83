"""One attempt of a call: what becomes of it, and whether there may be another."""

from __future__ import annotations

import asyncio

from scamp.client.call import Call, Reply
from scamp.client.exchange import Exchange
from scamp.client.instance import Instance
from scamp.discovery import Offer
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    DispatchFailed,
    ReplyFailed,
    ReplyTimeout,
    ScampError,
)
from scamp.limits import SILENT_WAIT
from scamp.transport import IncomingMessage


class Attempt:
    """One try of a call, from when it has its place on a connection."""

    __slots__ = ("began", "call", "exchange", "instance", "number", "offer", "sent")

    def __init__(
        self,
        call: Call,
        instance: Instance,
        offer: Offer,
        exchange: Exchange,
        number: int,
        began: float,
        sent: float,
    ) -> None:
        self.call: Call = call
        self.instance: Instance = instance
        self.offer: Offer = offer
        self.exchange: Exchange = exchange
        self.number: int = number
        """Counts from 1."""
        self.began: float = began
        """When the first try began (`time.monotonic`)."""
        self.sent: float = sent
        """When this one was given to its connection."""

    def note_silence(self, waited: float, *, left: bool = False) -> None:
        """It ends without a reply. That speaks against the instance when it had all the time that
        the action takes, or SILENT_WAIT: impatient callers say nothing of it. `waited` is 0 for an
        upload: how long that took was its caller's choice."""
        call = self.call
        patient = waited >= SILENT_WAIT or not (left or call.caller_lowered)
        if patient and self.exchange.connection.mute:
            self.instance.left_unanswered(ReplyTimeout(waited or call.deadline.seconds))

    def reply_of(
        self,
        message: IncomingMessage,
        upstream: float,
        body_idle: float,
        upload: asyncio.Task[None] | None = None,
    ) -> Reply:
        """What the caller gets."""
        return Reply(
            self.exchange,
            message,
            self.offer,
            self.number,
            self.sent - self.began,
            upstream,
            upload,
            body_idle,
        )


def only_waited(error: ScampError, instance: Instance) -> bool:
    """Whether the request waited at an instance that has left, and nothing of it was written."""
    return instance.withdrawn and isinstance(error, ConnectionLost) and not error.written


def retry_reason(error: ScampError, call: Call) -> str | None:
    """Why the request may be sent again, or None when it may not.

    What was never written may go anywhere; what may have been executed only when the action reads.
    """
    if isinstance(error, ConnectFailed):
        return "connect"
    if isinstance(error, DispatchFailed):
        return "dispatch_failure"
    if isinstance(error, ConnectionLost):
        return "lost" if not error.written or call.retry_safe else None
    if isinstance(error, ReplyFailed):
        return "txerr" if call.retry_safe else None
    return None
