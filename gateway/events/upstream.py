"""One subscription to the mesh, and the browsers that share it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Final

from gateway import catalogue
from gateway.events.topic import Topic
from gateway.events.values import NOWHERE, TooManyValues, Values
from gateway.problems import Problem, from_error
from scamp.client import Subscription
from scamp.errors import ScampError

log = logging.getLogger("gateway.events")

_AT_ONCE: Final = 500
"""Changes taken in one turn of the loop, so that requests are not held up by a flood of them."""

_WOKEN_AT_ONCE: Final = 50
"""Browsers told in one turn of the loop, for the same reason."""

_PACE: Final = 0.0001
"""Seconds for each browser that was told, before they are told again: a service that publishes
without a pause cannot have all of the gateway's time, as what changes meanwhile is told at once."""


class Listener:
    """One browser's place at an upstream."""

    __slots__ = ("caller", "cut", "ended", "news", "position", "upstream", "writing")

    def __init__(self, upstream: Upstream, caller: Hashable = None) -> None:
        self.upstream = upstream
        self.caller = caller
        """Whose it is: the same for all of one caller."""
        self.position = NOWHERE
        """What it has been sent, or is being sent."""
        self.news = asyncio.Event()
        """There may be something to send, or to end for."""
        self.ended: str | None = None
        """Why it is to end."""
        self.writing = False
        """Its connection takes nothing just now."""
        self.cut: Callable[[], None] = lambda: None
        """Ends its connection at once."""

    @property
    def behind(self) -> bool:
        """It has missed what is no longer known."""
        return not self.upstream.values.covers(self.position)

    def end(self, reason: str) -> None:
        """Have it end in good order, soon. The first reason counts."""
        if self.ended is None:
            self.ended = reason
        self.news.set()

    def drop(self, reason: str) -> None:
        """End it at once when its connection is held up, else in good order."""
        self.end(reason)
        if self.writing:
            self.cut()


class Upstream:
    """Follows one topic; `run` it. Listeners come and go meanwhile."""

    def __init__(self, topic: Topic, subscription: Subscription) -> None:
        self.topic = topic
        self.values = Values()
        self.ready = False
        """The values are those of now."""
        self.failure: Problem | None = None
        """Why there is nothing to be had, once `opened`."""
        self.listeners: set[Listener] = set()
        self._subscription = subscription
        self._opened = asyncio.Event()

    async def opened(self) -> None:
        """Wait for the first values; raises Problem when there are none. Safe to cancel."""
        await self._opened.wait()
        if (why := self.failure) is not None:
            raise Problem(why.kind, why.detail, retry_after=why.retry_after)

    async def run(self) -> None:
        """Subscribe, and tell the listeners until it is cancelled or cannot go on."""
        try:
            async with self._subscription as subscription:
                await self._take(subscription.waiting)
                self.ready = subscription.ready
                self._opened.set()
                while await subscription.wait_news(ready=self.ready):
                    await self._take(_AT_ONCE)
                    # Once lost it is back when all that was missed has been taken.
                    caught_up = self.ready or not subscription.waiting
                    self.ready = subscription.ready and caught_up
                    await self._tell()
            self.fail(Problem(catalogue.INTERNAL), "lost")
        except ScampError as exc:
            self.fail(from_error(exc), "lost")
        except TooManyValues:
            log.error("%s publishes too much to be passed on", self.topic.name)
            self.fail(Problem(catalogue.TOO_MANY_VALUES), "too_many_values")

    def fail(self, problem: Problem, reason: str) -> None:
        """There is nothing to be had any more: end every listener."""
        self.failure = problem
        self.ready = False
        self._opened.set()
        for listener in self.listeners:
            listener.drop(reason)

    async def _take(self, count: int) -> None:
        """Put up to `count` changes in their place."""
        for number in range(1, min(count, self._subscription.waiting) + 1):
            change = await anext(self._subscription)
            self.values.put(change.code, change.key, change.value)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _tell(self) -> None:
        told = list(self.listeners)
        for number, listener in enumerate(told, 1):
            listener.news.set()
            if listener.writing and listener.behind:
                listener.drop("backlog")
            if number % _WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
        if told:
            await asyncio.sleep(len(told) * _PACE)
