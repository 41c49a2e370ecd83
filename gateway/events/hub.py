"""All subscriptions of the gateway, who shares them, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Final

from gateway import catalogue
from gateway.events.topic import Key, Topic
from gateway.events.upstream import Listener, Upstream
from gateway.problems import Problem
from gateway.strangers import is_trusted
from scamp.client import Requester
from scamp.client.sources import NamedSource
from scamp.discovery import Registry

log = logging.getLogger("gateway.events")

LINGER: Final = 15.0
"""Seconds that a subscription outlives its last browser, which may just be connecting again."""

FAILED_LINGER: Final = 1.0
"""Seconds in which nobody tries again what has just failed: everybody gets the same answer."""

DRAIN_GRACE: Final = 1.0
"""Seconds that streams have to end in good order when the gateway drains."""

RETRY_AFTER: Final = 5.0

SENT: Final = ("snapshot", "change", "stale", "ready", "expired")
ENDED: Final = (
    *("client_left", "client_stalled", "backlog", "expired", "draining"),
    *("lost", "too_many_values", "stopping"),
)


@dataclass(slots=True)
class EventStats:
    """Totals."""

    sent: Counter[str] = field(default_factory=Counter)
    """Events by name, see `SENT`."""
    ended: Counter[str] = field(default_factory=Counter)
    """Streams by why they ended, see `ENDED`."""


@dataclass(frozen=True, slots=True)
class HubLimits:
    """How much there may be at once."""

    streams: int = 1000
    streams_per_subscription: int = 1000
    subscriptions: int = 100
    streams_per_caller: int = 100
    subscriptions_per_caller: int = 25
    """Which one caller follows at a time: else one could take all there are."""


class Hub:
    """Gives listeners their place, and keeps one subscription for all that ask for the same."""

    def __init__(
        self, registry: Registry, requester: Requester, limits: HubLimits | None = None
    ) -> None:
        self.limits = limits or HubLimits()
        self.stats = EventStats()
        self.streams = 0
        """Listeners in all."""
        self._registry = registry
        self._requester = requester
        self._upstreams: dict[Key, Upstream] = {}
        self._by_caller: dict[Hashable, set[Listener]] = {}
        self._timers: dict[Upstream, asyncio.TimerHandle] = {}
        self._tasks: dict[asyncio.Task[None], Upstream] = {}
        self._grace: asyncio.TimerHandle | None = None

    @property
    def states(self) -> dict[str, int]:
        """Subscriptions, by whether their values are those of now."""
        ready = sum(upstream.ready for upstream in self._upstreams.values())
        return {"ready": ready, "stale": len(self._upstreams) - ready}

    def known(self, topic: Topic) -> bool:
        """Whether there is anything to join: the service is announced, or its values are held."""
        return topic.key in self._upstreams or self._source(topic).announced

    def _source(self, topic: Topic) -> NamedSource:
        # Without this a stranger could take the name of a service.
        return NamedSource(self._registry, f"{topic.sector}:{topic.service}", is_trusted)

    # -- coming and going ---------------------------------------------------------------

    async def join(self, topic: Topic, caller: Hashable = None) -> Listener:
        """A place at `topic`, once its values are there; to be given back with `leave`.

        `caller` is the same for all streams of one; None is one of them. Raises Problem, at a limit
        (saturated) or when the service gives nothing. Safe to cancel.
        """
        if self.streams >= self.limits.streams:
            raise _saturated("Too many event streams are open.")
        self._check_share(topic, self._by_caller.get(caller, set()))
        upstream = self._upstreams.get(topic.key) or self._open(topic)
        if len(upstream.listeners) >= self.limits.streams_per_subscription:
            raise _saturated(f"Too many event streams of {topic.name} are open.")
        listener = Listener(upstream, caller)
        upstream.listeners.add(listener)
        self._by_caller.setdefault(caller, set()).add(listener)
        self.streams += 1
        if upstream.failure is None:
            self._keep(upstream)
        try:
            await upstream.opened()
        except BaseException:
            self.leave(listener)
            raise
        return listener

    def leave(self, listener: Listener) -> None:
        """Give the place back. Once for each."""
        upstream = listener.upstream
        upstream.listeners.remove(listener)
        mine = self._by_caller[listener.caller]
        mine.remove(listener)
        if not mine:
            del self._by_caller[listener.caller]
        self.streams -= 1
        if not upstream.listeners and upstream.failure is None:
            self._close_in(upstream, LINGER)

    def _check_share(self, topic: Topic, mine: Collection[Listener]) -> None:
        if len(mine) >= self.limits.streams_per_caller:
            raise _saturated("The caller has too many event streams open.")
        followed = {listener.upstream.topic.key for listener in mine}
        if len(followed) >= self.limits.subscriptions_per_caller and topic.key not in followed:
            raise _saturated("The caller has too many different event streams open.")

    def _open(self, topic: Topic) -> Upstream:
        self._make_room()
        subscription = self._requester.subscribe(self._source(topic), topic.codes)
        upstream = self._upstreams[topic.key] = Upstream(topic, subscription)
        task = asyncio.create_task(upstream.run(), name=f"gateway events of {topic.name}")
        self._tasks[task] = upstream
        task.add_done_callback(self._done)
        return upstream

    def _make_room(self) -> None:
        """Those that nobody listens to go first. What is closing has a connection still, so with
        that there may be twice as many and no more."""
        if len(self._upstreams) >= self.limits.subscriptions:
            idle = next((one for one in self._upstreams.values() if not one.listeners), None)
            if idle is not None:
                self._close(idle)
        if (
            len(self._upstreams) >= self.limits.subscriptions
            or len(self._tasks) >= 2 * self.limits.subscriptions
        ):
            raise _saturated("Too many different event streams are open.")

    # -- ending -------------------------------------------------------------------------

    def _keep(self, upstream: Upstream) -> None:
        timer = self._timers.pop(upstream, None)
        if timer is not None:
            timer.cancel()

    def _close_in(self, upstream: Upstream, seconds: float) -> None:
        self._keep(upstream)
        loop = asyncio.get_running_loop()
        self._timers[upstream] = loop.call_later(seconds, self._close, upstream)

    def _close(self, upstream: Upstream) -> None:
        """Out of the way of a new one; its task ends by itself when it has closed."""
        self._keep(upstream)
        if self._upstreams.get(upstream.topic.key) is upstream:
            del self._upstreams[upstream.topic.key]
        for task, one in self._tasks.items():
            if one is upstream:
                task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        upstream = self._tasks.pop(task)
        if task.cancelled():
            return
        if (bug := task.exception()) is not None:
            log.error("events of %s failed", upstream.topic.name, exc_info=bug)
            upstream.fail(Problem(catalogue.INTERNAL), "lost")
        self._close_in(upstream, FAILED_LINGER)

    def drain(self) -> None:
        """End every stream: they would not end by themselves. Those whose clients take nothing are
        cut after `DRAIN_GRACE`."""
        listeners = self._listeners()
        for listener in listeners:
            listener.end("draining")
        self._grace = asyncio.get_running_loop().call_later(DRAIN_GRACE, self._cut_all)

    def _cut_all(self) -> None:
        for listener in self._listeners():
            listener.cut()

    def _listeners(self) -> list[Listener]:
        return [one for upstream in self._upstreams.values() for one in upstream.listeners]

    async def close(self) -> None:
        """Close every subscription; bounded by what closing a connection takes. To be called when
        no stream is left."""
        if self._grace is not None:
            self._grace.cancel()
        for upstream in list(self._upstreams.values()):
            self._close(upstream)
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


def _saturated(detail: str) -> Problem:
    return Problem(catalogue.SATURATED, detail, retry_after=RETRY_AFTER)
