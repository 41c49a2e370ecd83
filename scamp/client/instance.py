"""One instance of a service: its connections, who waits for one, and whether it is up."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from scamp.client.call import Call
from scamp.client.connection import ClientConnection
from scamp.client.deadline import Deadline
from scamp.client.dialing import Dialer, format_address, is_resumed
from scamp.client.exchange import Exchange
from scamp.client.health import BACKOFF_MAX, Health
from scamp.client.options import ClientOptions
from scamp.client.pool import PROBE_DELAY, Need, PoolCore
from scamp.client.queueing import StandingQueue
from scamp.client.states import TAKES_NOTHING, SlotState
from scamp.client.stats import ClientStats
from scamp.client.traits import PeerKind, TraitStore
from scamp.discovery import Action, Announcement
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    LocalProtocolError,
    QueueTimeout,
    Saturated,
    ScampError,
    anew,
)
from scamp.limits import CLOSE_TIMEOUT
from scamp.wire import RequestTemplate

log: logging.Logger = logging.getLogger("scamp.client")

WARM_FIRST: Final = 0.05
"""Seconds after which a connection that an idle service closed is opened again; doubles."""
DIAL_PATIENCE: Final = 0.5
"""Seconds after which who waits for a first connection may go elsewhere: the host may take
connections and go no further."""
LOOKS: Final = 4
"""How often within `ClientOptions.queue_target` a queue is looked at."""

_SHARED: Final = Need.SHARED  # members are slow to get at in Python 3.11


class OnlyWaited(Exception):
    """It waited for a connection that takes longer than DIAL_PATIENCE, or that could not be made
    for another request, which is what `error` says. Going elsewhere is no retry."""

    def __init__(self, error: ConnectFailed | None = None) -> None:
        super().__init__(error)
        self.error = error


@dataclass(slots=True)
class Waiter:
    """A request that waits for a connection.

    `future` is resolved by `Instance._serve` after `starter` was called, or with an error by
    whoever finds that there will be no connection.
    """

    future: asyncio.Future[None]
    starter: Callable[[ClientConnection], None]


class Instance(Health):
    """Connections to one (address, fingerprint), and what they tell of its health.

    A service that closes an idle connection just as a request is on its way is as healthy as
    before. One that is out is dialled in the background until that succeeds.
    """

    def __init__(
        self,
        service: Announcement,
        options: ClientOptions,
        dialer: Dialer,
        traits: TraitStore,
        stats: ClientStats,
    ) -> None:
        super().__init__(options.slow_start)
        self.service = service
        self.host: str = service.host
        self.port: int = service.port
        self.fingerprint: str = service.fingerprint
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._dialer = dialer
        self._traits = traits
        self._stats = stats
        self._pool: PoolCore[ClientConnection, Waiter] = PoolCore(
            traits.kind(service.key),
            max_connections=options.max_connections,
            max_waiters=options.max_waiters,
            standing=StandingQueue(options.queue_target, options.queue_interval),
        )
        self._connections: set[ClientConnection] = set()  # retired ones too
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovery: asyncio.Task[None] | None = None
        self._closed = False
        self._last_used = 0.0
        self._warm_delay = WARM_FIRST
        self._timer: asyncio.TimerHandle | None = None  # while requests wait
        self._limit = options.max_in_flight or math.inf
        self.since: float = self._loop.time()
        """Loop time since when it is in use."""
        self.in_flight: int = 0
        """Requests that the requester has given to this instance and that are not over."""
        self.tight: int = min(options.max_in_flight or sys.maxsize, max(1, options.max_waiters))
        """Requests in flight below which it is not full for certain."""

    # -- what others ask ----------------------------------------------------------------

    @property
    def address(self) -> str:
        """``host:port``."""
        return format_address(self.host, self.port)

    @property
    def kind(self) -> PeerKind:
        """What was learned of the peer."""
        return self._pool.kind

    @property
    def connections(self) -> frozenset[ClientConnection]:
        """Every connection that is not closed."""
        return frozenset(self._connections)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return self._pool.waiting

    @property
    def full(self) -> bool:
        """True when it has as many requests in flight, or waiting, as it may have."""
        return self.in_flight >= self._limit or self._pool.waiting >= self._pool.max_waiters

    def saturated(self) -> Saturated:
        """What to tell when it is full."""
        if self.in_flight >= self._limit:
            return Saturated("requests in flight on one instance", reason="instance")
        return Saturated("requests waiting for a connection to one instance", reason="queue_full")

    def may_panic(self, now: float) -> bool:
        """As for any `Health`; and where there is a connection, or soon may be, at any time."""
        reachable = self._pool.dialing or any(slot.room for slot in self._pool.slots)
        return bool(reachable) or super().may_panic(now)

    @property
    def withdrawn(self) -> bool:
        """True when it takes nothing new: not announced any more, or the client is closed."""
        return self._closed

    def serves(self, service: Announcement) -> bool:
        """True when `service` is the same process at the same place, maybe announced anew."""
        return service.key == self.service.key and service.uri == self.service.uri

    def release(self) -> None:
        """A request that the requester gave to this instance is over."""
        self.in_flight -= 1

    # -- requests -----------------------------------------------------------------------

    async def place(
        self,
        starter: Callable[[ClientConnection], None],
        *,
        need: Need,
        deadline: Deadline,
        patient: bool = False,
    ) -> None:
        """Call `starter` with a connection that has a place, now or when one comes free.

        `starter` must begin the request at once, and with Need.ALONE let nothing else on. Who is
        `patient` waits for a first connection however long that takes.

        Raises ConnectFailed, QueueTimeout, Saturated, OnlyWaited, and whatever `starter` raises.
        When cancelled nothing has been started, or `starter` has been called and its exchange must
        be abandoned.
        """
        self._last_used = self._loop.time()
        self._warm_delay = WARM_FIRST
        if need is Need.FRESH and self.refusing:
            need = Need.SHARED  # there will be no other connections than there are
        connection = self._pool.pick(need)
        if connection is not None:
            starter(connection)
            return
        if self._closed:
            raise ConnectionLost(self.address, "the client is closed", written=False)
        if self._pool.full(need):
            raise self.saturated()
        loop = self._loop
        waiter = Waiter(loop.create_future(), starter)
        self._pool.wait(waiter, need, loop.time())
        self._dial()
        timers = [loop.call_at(deadline.at, _expire, waiter, deadline.seconds)]
        if not patient and not self._pool.slots:
            timers.append(loop.call_later(DIAL_PATIENCE, self._still_connecting, waiter))
        try:
            await waiter.future
        except BaseException:
            self._pool.forget(waiter)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            del waiter  # it has the error, whose frames have us

    def start(
        self, call: Call, action: Action, template: RequestTemplate, body: bytes, now: float
    ) -> Exchange | None:
        """Begin `call` on a connection that has a place now, at loop time `now`; None when there is
        none, or it cannot be sent, and nothing has happened. It releases its part of `in_flight`
        when it is over."""
        connection = self._pool.pick(_SHARED)
        if connection is None:
            return None
        try:
            if call.extra:
                encode = partial(call.encode, action)
                exchange = connection.start(encode, body, end=True, exclusive=False)
            else:
                exchange = connection.start_whole(template, call.ticket, call.client_id, body)
        except (ConnectionLost, LocalProtocolError):
            return None
        self._last_used = now
        self._warm_delay = WARM_FIRST
        self.in_flight += 1
        exchange.on_done = self.release
        return exchange

    def _look_later(self) -> None:
        """While requests wait, see from time to time whether to dial or to refuse more."""
        delay = PROBE_DELAY if self._pool.probing else self._options.queue_target / LOOKS
        if delay and self._timer is None and self._pool.waiting:
            self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        for waiter in self._pool.overdue(self._loop.time()):
            _fail(waiter, Saturated("time to wait for a connection", reason="queue_delay"))
        self._dial()

    def _serve(self) -> None:
        """Give free places to those who wait, and dial for the rest."""
        while (granted := self._pool.grant()) is not None:
            waiter, connection = granted
            if waiter.future.done():
                continue
            try:
                waiter.starter(connection)
            except Exception as exc:
                waiter.future.set_exception(exc)  # whatever it is, it is this request's affair
            else:
                waiter.future.set_result(None)
        self._dial()

    # -- connections --------------------------------------------------------------------

    def _dial(self) -> None:
        if self._closed:
            return
        self._look_later()
        if self.refusing and self._pool.slots and self.resting(self._loop.time()):
            return  # those who wait are served by the connections that work
        for _ in range(self._pool.dials(self._loop.time())):
            self._pool.dialing += 1
            self._spawn(self._dial_once())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _dial_once(self) -> None:
        try:
            await self._connect()
        except ConnectFailed as exc:
            self._pool.dialing -= 1
            if not self._pool.slots:
                # One failure is one try, of whoever has waited for longest.
                self._fail_waiters(exc, OnlyWaited(exc))
        except Exception as exc:
            # Those who wait must not wait for ever because of it.
            self._pool.dialing -= 1
            self._fail_waiters(self._unforeseen(exc))
        except BaseException:
            self._pool.dialing -= 1
            raise
        else:
            self._pool.dialing -= 1
        self._serve_open()

    def _serve_open(self) -> None:
        if self._pool.waiting and not self._closed:
            self._serve()

    def _still_connecting(self, waiter: Waiter) -> None:
        """A first connection takes long: let who waits for it look elsewhere."""
        if not self._pool.slots and not self._closed:
            self.shunned = True
            _fail(waiter, OnlyWaited())

    async def _connect(self) -> None:
        """Open one connection and add it. Raises ConnectFailed, after noting it."""
        connection = ClientConnection(
            self._pool.kind,
            stats=self._stats,
            on_change=self._changed,
            on_learned=self._learned,
            max_streams=self._options.max_streams,
            on_answered=self._answered,
        )
        began = time.monotonic()
        try:
            await self._dialer.dial(
                self.host,
                self.port,
                self.fingerprint,
                connection,
                idle_limit=self._options.idle_timeout,
            )
        except ConnectFailed as exc:
            self._failed(exc)
            raise
        if self._closed:
            connection.close("the client is closed")
            return
        if connection.state in TAKES_NOTHING:
            gone = ConnectFailed(self.address, "closed by the peer at once")
            self._stats.connect_failures["other"] += 1
            self._unanswered(connection)
            self._failed(gone)
            raise gone
        connection.dialled = (began, time.monotonic())
        connection.learn(self._pool.kind)  # shown by another one meanwhile
        self._stats.connects += 1
        self._stats.resumed += is_resumed(connection.channel)
        channel, service = connection.channel, self.service
        if channel is not None and self._options.pings(service.sector, service.name):
            channel.set_heartbeat(self._options.ping_interval)
        self._connections.add(connection)
        self._pool.add(connection)
        if self.connected(self._loop.time()):
            log.info("%s (%s) is back", self.address, self.service.identity)

    def _changed(self, connection: ClientConnection) -> None:
        """A connection has a free place, takes nothing new any more, or is closed."""
        if connection.state in TAKES_NOTHING:
            self._lost_place(connection)
        if self._pool.waiting and not self._closed:
            self._serve()

    def _lost_place(self, connection: ClientConnection) -> None:
        self._pool.remove(connection)
        if connection.state is SlotState.CLOSED and connection in self._connections:
            self._connections.discard(connection)
            if connection.lost_to_peer and not connection.answered:
                self._unanswered(connection)
            lost_in_use = connection.lost_in_use and not connection.lost_in_race
            if lost_in_use or connection.unresponsive:
                error = connection.channel.failure if connection.channel is not None else None
                self._failed(error or ConnectionLost(self.address, "lost", written=True))
            elif connection.lost_to_peer:
                self._warm()

    def _answered(self, connection: ClientConnection) -> None:
        self.answered()
        if connection.channel is not None:
            self._dialer.keep(connection.channel)

    def _unanswered(self, connection: ClientConnection) -> None:
        if connection.channel is not None:
            self._dialer.drop(connection.channel)

    def _warm(self) -> None:
        """The peer closed an idle connection of a service in use: have one before it is needed."""
        idle = self._loop.time() - self._last_used
        if self._closed or self._pool.slots or idle > self._options.idle_timeout:
            return
        delay, self._warm_delay = self._warm_delay, min(BACKOFF_MAX, self._warm_delay * 2)
        self._spawn(self._warm_after(delay * random.uniform(0.5, 1.0)))  # noqa: S311 - jitter

    async def _warm_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if self._pool.slots or self._pool.dialing or self.out:
            return
        self._pool.dialing += 1
        await self._dial_once()

    def _learned(self, kind: PeerKind) -> None:
        self._traits.learn(self.service.key, kind)
        self._pool.learned(kind)
        if kind is not PeerKind.UNKNOWN:
            log.debug("%s (%s) %s request ids", self.address, self.service.identity, kind.value)
            for connection in self._pool.slots:
                connection.learn(kind)
            if self._pool.waiting:  # not now: the reply that showed it is not yet matched
                self._loop.call_soon(self._serve_open)

    def _fail_waiters(self, first: Exception, others: Exception | None = None) -> None:
        waiting = [waiter for waiter in self._pool.take_waiters() if not waiter.future.done()]
        for number, waiter in enumerate(waiting):
            _fail(waiter, others if number and others is not None else first)

    # -- health -------------------------------------------------------------------------

    def _failed(self, error: ScampError) -> None:
        """Take the instance out for a while and recover it in the background."""
        was_out, now = self.out, self._loop.time()
        if self._closed:
            self.note(error, now)
            return
        if self.failed(error, now) and not was_out:
            log.warning("%s (%s) is out: %s", self.address, self.service.identity, error)
        if self._recovery is None:
            self._recovery = self._spawn(self._recover())

    def _unforeseen(self, exc: Exception) -> ConnectFailed:
        log.exception("dialling %s failed", self.address)
        error = ConnectFailed(self.address, repr(exc))
        self._failed(error)
        return error

    def left_unanswered(self, error: ScampError) -> None:
        """A request ran out of time, and nothing that shared its connection had a reply either."""
        if self.unanswered():
            self._failed(error)

    async def _recover(self) -> None:
        """Dial in the background until it works."""
        loop = self._loop
        try:
            while self.out:
                await asyncio.sleep(max(0.0, self.retry_at - loop.time()))
                if not self.out:
                    return
                try:
                    await self._connect()
                except ConnectFailed:
                    continue
                except Exception as exc:
                    self._unforeseen(exc)  # nor must it stay out for ever
                    continue
                self._stats.reconnects += 1
                self._serve()
        finally:
            self._recovery = None

    # -- ending -------------------------------------------------------------------------

    def leave(self) -> None:
        """The service is no longer announced: finish what is in flight, take nothing new."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in list(self._tasks):
            task.cancel()
        self._fail_waiters(ConnectionLost(self.address, "no longer announced", written=False))
        for connection in list(self._connections):
            connection.retire()

    async def close(self) -> None:
        """Close every connection now; requests in flight fail with ConnectionLost."""
        channels = [c.channel for c in self._connections if c.channel is not None]
        self.leave()
        for connection in list(self._connections):
            connection.close("the client is closed")
        await asyncio.gather(*(channel.wait_closed(CLOSE_TIMEOUT) for channel in channels))
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _fail(waiter: Waiter, error: Exception) -> None:
    if not waiter.future.done():
        # Others may be told the same, and the instance keeps it.
        waiter.future.set_exception(anew(error) if isinstance(error, ScampError) else error)


def _expire(waiter: Waiter, seconds: float) -> None:
    _fail(waiter, QueueTimeout(seconds))
