"""Subscriptions: follow what a service publishes, over losses and restarts.

::

    async with requester.subscribe("shop", ["price"]) as prices:
        print(prices.value("price", "apple"))
        async for change in prices:
            print(change.key, "is gone" if change.deleted else change.value)
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from scamp.client.dialing import Dialer
from scamp.client.feed import Feed, SubscriptionStats
from scamp.client.picture import Changed, Picture
from scamp.client.sources import Source, Target
from scamp.client.traits import PeerKind, TraitStore
from scamp.errors import (
    ConnectionLost,
    LocalProtocolError,
    ReplyTimeout,
    RoutingError,
    ScampError,
    SubscriptionRefused,
)
from scamp.limits import HEARTBEAT, RESUBSCRIBE_FIRST, RESUBSCRIBE_MAX, SUBSCRIBE_TIMEOUT
from scamp.wire.subdata import encode_filter

log: logging.Logger = logging.getLogger("scamp.client")

CUTS: Final = 3
"""So often in a row a service may close the connection when asked to subscribe, until we say that
it does no subscriptions: services in Go do that. Those known to renumber replies are not asked."""

_NOT_DONE: Final = "this service does not do subscriptions"

MAX_TRIED: Final = 1_000
"""Instances to which we remember to have gone in vain, so that others come first."""


class Subscription:
    """The values that one service publishes under some codes, kept up to date.

    Made by `Requester.subscribe`. It has a TLS connection of its own, with a PING every `heartbeat`
    seconds (0: none). When that is lost it is made again, to another instance if there is one,
    after pauses from 50 ms to 10 s; the short ones are for a connection that had held for 10 s.
    Meanwhile `ready` is False and the values are the last ones known. What the new connection
    begins with is compared with them, and only differences are changes.

    ``async for change in subscription`` gives every change, at first all values as they are when it
    begins. This is state, not a log: who is slow gets the newest value of each key once, so what
    waits is bounded by the number of keys. It ends after `close`. Use one loop at a time: two would
    share the changes.

    Belongs to one event loop.
    """

    def __init__(
        self,
        source: Source,
        codes: Iterable[str],
        *,
        dialer: Dialer,
        traits: TraitStore,
        heartbeat: float = HEARTBEAT,
        timeout: float = SUBSCRIBE_TIMEOUT,
    ) -> None:
        wanted = codes if isinstance(codes, str) else tuple(codes)
        self._filter = encode_filter(wanted)
        self.codes: tuple[str, ...] = tuple(wanted)
        self._source = source
        self._dialer = dialer
        self._traits = traits
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._picture = Picture(self.codes)
        self._feed: Feed | None = None  # the attempt under way, or the connection
        self._target: Target | None = None
        self._tried: deque[Target] = deque(maxlen=MAX_TRIED)
        self._cuts = 0
        self._delay = RESUBSCRIBE_FIRST
        self._ready_since = 0.0
        self._news = asyncio.Event()
        self._moved = asyncio.Event()  # there may be another instance
        self._ready = asyncio.Event()
        self._started: asyncio.Future[ScampError | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.stats: SubscriptionStats = SubscriptionStats()
        self.last_error: ScampError | None = None
        """What ended the last connection or attempt; None when all is well."""

    # -- what is known ------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """True while the values are those of now; False while there is no connection."""
        return self._feed is not None and self._feed.ready

    @property
    def address(self) -> str:
        """``host:port`` of the service; empty while there is no connection."""
        return self._feed.address if self._feed is not None and self._feed.ready else ""

    def value(self, code: str, key: str = "") -> Any:
        """The value as parsed JSON, yours to keep; None when there is none."""
        return self._picture.value(code, key)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """All values by code and key, yours to keep."""
        return self._picture.snapshot()

    @property
    def waiting(self) -> int:
        """Changes that the ``async for`` was not given yet."""
        return self._picture.untold

    def __aiter__(self) -> AsyncIterator[Changed]:
        return self

    async def __anext__(self) -> Changed:
        """The next change; ends when the subscription is closed. Safe to cancel.

        Raises LocalProtocolError when it was not started.
        """
        self._check_started()
        while True:
            if self._closed:
                raise StopAsyncIteration
            change = self._picture.next_change()
            if change is not None:
                return change
            self._news.clear()
            await self._news.wait()

    def _check_started(self) -> None:
        """Or who waits would wait for ever."""
        if self._task is None and not self._closed:
            raise LocalProtocolError("start the subscription first, by 'async with' or start()")

    async def wait_ready(self) -> None:
        """Wait until `ready`. Safe to cancel.

        Raises ConnectionLost when it is closed, LocalProtocolError when it was not started.
        """
        self._check_started()
        while not self.ready:
            if self._closed:
                raise ConnectionLost(self._source.name, "the subscription is closed", written=False)
            self._ready.clear()
            await self._ready.wait()

    async def wait_news(self, *, ready: bool) -> bool:
        """Wait until changes are `waiting` or `ready` is other than given; False once it is closed.

        For those who also want to know when the values are no longer those of now. As long as some
        are `waiting`, ``anext`` does not wait. Safe to cancel. Raises LocalProtocolError when it
        was not started.
        """
        self._check_started()
        while not (self._closed or self.waiting or self.ready != ready):
            self._news.clear()
            await self._news.wait()
        return not self._closed

    async def notify(self, data: Any) -> None:
        """Tell the service something: any JSON value, MAX_CLIENT_MESSAGE bytes at most.

        There is no answer, so when the connection is lost just then nobody knows whether it
        arrived. Raises ConnectionLost when not `ready`, LocalProtocolError for what cannot be
        sent, IdleTimeout. When cancelled, the service gets it whole or not at all.
        """
        if self._feed is None or not self._feed.ready:
            raise ConnectionLost(self._source.name, "not connected", written=False)
        await self._feed.notify(data)

    # -- beginning and ending -----------------------------------------------------------

    async def start(self) -> None:
        """Subscribe, and return when all values are here; ``async with`` does it for you.

        Every instance is tried once. Raises what went wrong with the last one (ConnectFailed,
        SubscriptionRefused, ConnectionLost, RemoteProtocolError), UnknownService, NoUsableInstance,
        and ReplyTimeout after `timeout` seconds. Losses later on are only seen in `ready`,
        `last_error` and the log. When cancelled nothing is left behind.
        """
        if self._task is not None:
            raise LocalProtocolError("a subscription can be started once")
        if self._closed:
            raise LocalProtocolError("the subscription is closed")
        self._started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="scamp subscription")
        self._task.add_done_callback(self._on_done)
        try:
            async with asyncio.timeout(self._timeout):
                error = await self._started
        except TimeoutError:
            error = self.last_error or ReplyTimeout(self._timeout)
            await self.close()
        except BaseException:
            await self.close()
            raise
        if error is not None:
            await self.close()
            raise error

    async def close(self) -> None:
        """End the subscription and close its connection. Calling it again does no harm.

        Takes CLOSE_TIMEOUT seconds when the service does not do its part. Safe to cancel: it is
        closed all the same.
        """
        first, self._closed = not self._closed, True
        self._wake()
        if self._task is not None:
            if first:  # a second time would interrupt what it does to close the connection
                self._task.cancel()
            await asyncio.wait((self._task,))

    async def __aenter__(self) -> Subscription:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _wake(self) -> None:
        self._news.set()
        self._ready.set()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("bug in a subscription", exc_info=error)
        self._closed = True
        self._wake()
        assert self._started is not None  # noqa: S101 - set by start
        if not self._started.done():
            stopped = ConnectionLost(self._source.name, "it has stopped", written=False)
            self._started.set_result(self.last_error or stopped)

    # -- staying ------------------------------------------------------------------------

    async def _run(self) -> None:
        unwatch = self._source.watch(self._on_discovery)
        try:
            while True:
                self._moved.clear()
                error = await self._attempt()
                if self._is_final(error):
                    return
                await self._pause(error)
        finally:
            unwatch()

    async def _attempt(self) -> ScampError:
        """Subscribe somewhere and stay as long as it lasts; what ended it."""
        try:
            target = self._source.choose(self._tried)
        except RoutingError as exc:
            self._failed(exc)
            return exc
        if target in self._tried:
            self._tried.clear()
        self._tried.append(target)
        if target.key is not None and self._traits.kind(target.key) is PeerKind.RENUMBERS:
            refused = SubscriptionRefused(target.address, _NOT_DONE)
            self._failed(refused)
            return refused
        self._target = target
        feed = self._feed = Feed(
            self._dialer,
            self._filter,
            self._picture,
            self.stats,
            on_ready=self._on_ready,
            on_news=self._news.set,
        )
        try:
            error = await feed.run(
                target.host,
                target.port,
                target.fingerprint,
                timeout=self._timeout,
                heartbeat=self._heartbeat,
            )
        except ScampError as exc:
            error = self._judge(exc, feed)
            self._failed(error)
        else:
            self._lost(error)
        finally:
            self._feed = self._target = None
        return error

    def _on_ready(self, feed: Feed) -> None:
        self.stats.connects += 1
        if self.stats.connects > 1:
            log.info("subscription to %s is back, at %s", self._source.name, feed.address)
        self.last_error = None
        self._tried.clear()
        if self._target is not None:
            self._tried.append(self._target)
        self._cuts = 0
        self._ready_since = asyncio.get_running_loop().time()
        self._moved.clear()  # what came meanwhile is no reason to hurry when this one is lost
        assert self._started is not None  # noqa: S101 - set by start
        if not self._started.done():
            self._started.set_result(None)
        self._wake()

    def _lost(self, error: ScampError) -> None:
        self.stats.losses += 1
        self.last_error = error
        if asyncio.get_running_loop().time() - self._ready_since >= RESUBSCRIBE_MAX:
            self._delay = RESUBSCRIBE_FIRST  # it works; one that is lost at once each time does not
        log.warning("subscription to %s lost: %s", self._source.name, error)
        self._news.set()

    def _failed(self, error: ScampError) -> None:
        self.stats.failures += 1
        if type(error) is not type(self.last_error):
            log.warning("cannot subscribe to %s: %s", self._source.name, error)
        self.last_error = error

    def _judge(self, error: ScampError, feed: Feed) -> ScampError:
        """A service that cuts the connection again and again when it is asked does not do this."""
        if not isinstance(error, ConnectionLost) or not feed.asked:
            self._cuts = 0
            return error
        self._cuts += 1
        if self._cuts < CUTS:
            return error
        return SubscriptionRefused(
            error.address, f"it closes the connection when asked; {_NOT_DONE}"
        )

    def _is_final(self, error: ScampError) -> bool:
        """True when there is no use in trying on: only before the first success."""
        assert self._started is not None  # noqa: S101 - set by start
        if self._started.done():
            return False
        if isinstance(error, ConnectionLost) and self._cuts:
            return False
        try:
            return isinstance(error, RoutingError) or (
                self._source.choose(self._tried) in self._tried
            )
        except RoutingError:
            return True

    async def _pause(self, error: ScampError) -> None:
        """Wait before the next attempt; an instance that has just been announced ends it."""
        if isinstance(error, RoutingError):
            await self._moved.wait()
            return
        delay = self._delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._delay = min(RESUBSCRIBE_MAX, self._delay * 2)
        try:
            async with asyncio.timeout(delay):
                await self._moved.wait()
        except TimeoutError:
            return

    def _on_discovery(self) -> None:
        """Instances of the service have come, gone or changed."""
        target, feed = self._target, self._feed
        if target is not None and feed is not None:
            if not self._source.keeps(target):
                feed.leave("another instance is to be used, or none")
            elif feed.ready:
                return  # news of others, which are looked at when this one is lost
        self._moved.set()
