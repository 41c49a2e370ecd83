"""A request that was placed at once, and is followed by a callback instead of a coroutine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from scamp.client.attempt import Attempt
from scamp.client.call import Call, Reply
from scamp.client.exchange import Exchange
from scamp.client.expiry import Expiry, Waiting
from scamp.client.instance import Instance
from scamp.discovery import Offer
from scamp.errors import ReplyTimeout
from scamp.wire import ReplyHeader

SHARP: Final = 1.0
"""A deadline within so many seconds has a timer of its own, and is noticed in time."""


class Launch(Attempt):
    """The first try of a call, on its way. Made by `Requester.launch`.

    The `done` given there is called when there is something to know. Then ask for `reply`; where
    that is None, `Requester.resume` goes on. Who leaves before that calls `abandon`, at any time.
    """

    __slots__ = ("_body_idle", "_done", "_over", "_those", "_timer")

    def __init__(
        self,
        call: Call,
        instance: Instance,
        offer: Offer,
        exchange: Exchange,
        now: float,
        body_idle: float,
        done: Callable[[], None],
    ) -> None:
        super().__init__(call, instance, offer, exchange, 1, now, now)
        self._body_idle = body_idle
        self._done: Callable[[], None] | None = done
        self._over = False
        self._those: set[Waiting] | None = None
        self._timer: asyncio.TimerHandle | None = None
        exchange.on_settled = self._settled

    def watch(self, expiry: Expiry) -> None:
        """Begin to wait for the deadline. To be called once."""
        at = self.call.deadline.at
        if at - self.sent > SHARP:
            self._those = expiry.watch(at, self)
        else:
            self._timer = asyncio.get_running_loop().call_at(at, self.expire)

    def _unwatch(self) -> None:
        if self._those is not None:
            self._those.discard(self)
        elif self._timer is not None:
            self._timer.cancel()

    def expire(self) -> None:
        """The deadline is over, which is for the first byte."""
        if not self.exchange.begun:
            self.exchange.fail(ReplyTimeout(self.call.deadline.seconds))

    def _settled(self) -> None:
        if self._those is not None:  # as `_unwatch`
            self._those.discard(self)
        else:
            self._unwatch()
        done, self._done = self._done, None  # it mostly has us: nothing is left for the collector
        if done is not None:
            done()

    def reply(self) -> Reply | None:
        """The reply, if all of it is here and nothing speaks against handing it on; else None."""
        exchange = self.exchange
        message = exchange.reply
        if message is None or self._over or exchange.error is not None or not message.complete:
            return None
        header = message.header
        if isinstance(header, ReplyHeader) and header.error_data and header.dispatch_failure:
            return None
        self.instance.silence = 0
        upstream = time.monotonic() - self.sent
        return self.reply_of(message, upstream, self._body_idle)

    def detach(self) -> None:
        """`done` is not called any more: `resume` is about to be. Until then `abandon` works on."""
        self._done = None

    def take_over(self) -> None:
        """Somebody waits for the exchange itself from now on: `done` is not called any more, and
        `abandon` does nothing."""
        self._over = True
        self._unwatch()
        self.exchange.on_settled = self._done = None

    def abandon(self) -> None:
        """The caller wants no more of this. Idempotent; does nothing once all has been said, or
        `Requester.resume` has begun, which is to be cancelled instead.

        It is done in the way that is safe for this peer, as when `Requester.send` is cancelled.
        """
        if self._over:
            return
        self.take_over()
        exchange = self.exchange
        if exchange.reply is None:
            waited = time.monotonic() - self.sent
            self.note_silence(waited, left=True)
        exchange.abandon()
