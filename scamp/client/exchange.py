"""One request and its reply, as those see it who wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from scamp import logs
from scamp.client.patience import LITTLE, Patience
from scamp.errors import LocalProtocolError, ReplyTimeout, anew
from scamp.transport import IncomingMessage, OutgoingMessage, SentMessage

if TYPE_CHECKING:
    from scamp.client.connection import ClientConnection

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.client"))


class Exchange:
    """One request and its reply on one connection.

    It is settled once: by the connection, when the reply's first byte, its end or its failure is
    here or the channel is lost, or by whoever watches the deadline. Then `on_settled` is called, or
    `wait` goes on.
    """

    __slots__ = (
        "_future",
        "_held",
        "connection",
        "error",
        "finished",
        "on_done",
        "on_settled",
        "patience",
        "reply",
        "request",
        "request_id",
        "settled",
        "unwanted",
    )

    def __init__(
        self, connection: ClientConnection, request_id: int, request: OutgoingMessage | SentMessage
    ) -> None:
        self.connection: ClientConnection = connection
        self.request_id: int = request_id
        self.request: OutgoingMessage | SentMessage = request
        self.reply: IncomingMessage | None = None
        self.settled: bool = False
        self.error: Exception | None = None
        """What it was settled with, unless it was the reply; `wait` raises it and lets it go."""
        self.finished: bool = False
        self.unwanted: bool = False
        self.on_done: Callable[[], None] | None = None
        """Called once, when the exchange is over or its caller has gone."""
        self.on_settled: Callable[[], None] | None = None
        """Called once, from the event loop; never once it was abandoned."""
        self._held = False
        self.patience: Patience | None = None
        """Who is patient has the rest of a reply, if it is small and comes at once, before it is
        settled. None once there is no more patience."""
        self._future: asyncio.Future[None] | None = None

    def settling(self) -> asyncio.Future[None]:
        """Resolved when it is settled. Who takes it is told so instead of `on_settled`."""
        self.on_settled = None
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
            if self.settled:
                self._future.set_result(None)
        return self._future

    async def wait(self, at: float, seconds: float) -> IncomingMessage:
        """The reply, when its first byte is here. Raises ReplyTimeout at loop time `at`.

        Raises ConnectionLost too. Safe to cancel: `abandon` afterwards.
        """
        if not self.settled:
            timer = asyncio.get_running_loop().call_at(at, self._expire, seconds)
            try:
                await self.settling()
            finally:
                timer.cancel()
        # What is raised has the frames of all who called, and so this exchange and the bodies:
        # neither may have what is raised, or both would stay until garbage is collected.
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error
        if self.reply is None:
            raise LocalProtocolError("nobody waits for this reply any more")
        return self.reply

    def _expire(self, seconds: float) -> None:
        self.fail(ReplyTimeout(seconds))

    def fail(self, error: Exception) -> None:
        """Settle it with an error, if it is still open."""
        if not self.settled:
            self.error = error
            self._settle()

    def ready(self) -> None:
        """The reply's first byte, end or failure is here."""
        reply = self.reply
        if reply is None or self.settled:
            return
        if reply.error is not None:
            self.error = anew(reply.error)
        elif reply.ended and self._future is None:
            self.settled = True
            if self.on_settled is not None:
                self._tell()
            return
        elif self.patience is not None and 0 < reply.unread < LITTLE and self._future is None:
            if not self._held:
                self._held = True
                self.patience.hold(self)
            reply.when_more(self.ready)
            return
        self._settle()

    @property
    def begun(self) -> bool:
        """True once the first byte of the reply is here."""
        return self.reply is not None and self.reply.received > 0

    def go_on(self) -> None:
        """There is no more patience: what has come of the reply has to do."""
        self.patience = None
        if not self.settled and self.begun:
            self._settle()

    def _settle(self) -> None:
        self.settled = True
        if self._future is not None:
            if not self._future.done():
                self._future.set_result(None)
        elif self.on_settled is not None:
            # Not yet: what is left of the reply may be in this very read; and whoever loses or
            # closes a connection is not done with that.
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        callback, self.on_settled = self.on_settled, None
        if callback is not None:
            try:
                callback()
            except Exception:
                log.exception("a callback failed")  # others have their replies in the same read

    def abandon(self, *, suspect: bool = False) -> None:
        """The caller wants no more of this. Idempotent; does nothing when all has been said.

        `suspect` retires the connection: the service did not answer in time.
        """
        self.done()
        self.connection.abandon(self, suspect=suspect)

    def forget(self) -> None:
        """Nobody is to be told any more."""
        self.settled = True
        self.on_settled = None
        if self._future is not None:
            self._future.cancel()

    def done(self) -> None:
        """Tell the owner, once."""
        callback, self.on_done = self.on_done, None
        if callback is not None:
            callback()
