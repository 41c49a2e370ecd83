"""One instance of a service: its connections, who waits for one, and whether it is up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from scamp.client.connection import ClientConnection
from scamp.client.deadline import Deadline
from scamp.client.dialing import Dialer, format_address, is_resumed
from scamp.client.options import ClientOptions
from scamp.client.pool import Need, PoolCore
from scamp.client.states import TAKES_NOTHING, SlotState
from scamp.client.stats import ClientStats
from scamp.client.traits import PeerKind, TraitStore
from scamp.discovery import Announcement
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    QueueTimeout,
    Saturated,
    ScampError,
)
from scamp.limits import CLOSE_TIMEOUT

log: logging.Logger = logging.getLogger("scamp.client")

BACKOFF_FIRST: Final = 1.0
BACKOFF_MAX: Final = 60.0
WARM_FIRST: Final = 0.05
"""Seconds after which a connection that an idle service closed is opened again; doubles."""
PANIC_INTERVAL: Final = 0.1
"""Seconds between attempts on an instance that is out, when every instance is."""


@dataclass(slots=True)
class Waiter:
    """A request that waits for a connection.

    `future` is resolved by `Instance._serve` after `starter` was called, or with an error by
    whoever finds that there will be no connection.
    """

    future: asyncio.Future[None]
    starter: Callable[[ClientConnection], None]


class Instance:
    """Connections to one (address, fingerprint), and the health that decides whether to use it.

    A failure to connect or to verify, or the loss of a connection in use, takes it out for a while
    (1 s, doubling to 60 s, with jitter), until a background connection succeeds. Errors that the
    service answers with never do, nor does a service that closes an idle connection just as
    a request is on its way.
    """

    def __init__(
        self,
        service: Announcement,
        options: ClientOptions,
        dialer: Dialer,
        traits: TraitStore,
        stats: ClientStats,
    ) -> None:
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
        )
        self._connections: set[ClientConnection] = set()  # retired ones too
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovery: asyncio.Task[None] | None = None
        self._closed = False
        self._failures = 0
        self._out_until = 0.0
        self._last_refusal = 0.0
        self._last_used = 0.0
        self._warm_delay = WARM_FIRST
        self.out: bool = False
        self.in_flight: int = 0
        """Requests that the requester has given to this instance and that are not over."""
        self.last_error: ScampError | None = None

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

    def retry_at(self) -> float:
        """Loop time of the next attempt, when it is out."""
        return self._out_until

    def may_panic(self, now: float) -> bool:
        """True when it is out but may be tried all the same, because every other one is out too."""
        if self._pool.dialing or any(slot.room for slot in self._pool.slots):
            return True
        return now - self._last_refusal >= PANIC_INTERVAL

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
    ) -> None:
        """Call `starter` with a connection that has a place, now or when one comes free.

        `starter` must begin the request at once, and with Need.ALONE let nothing else on.
        Raises ConnectFailed, QueueTimeout, Saturated, and whatever `starter` raises. When cancelled
        nothing has been started, or `starter` has been called and its exchange must be abandoned.
        """
        self._last_used = self._loop.time()
        self._warm_delay = WARM_FIRST
        connection = self._pool.pick(need)
        if connection is not None:
            starter(connection)
            return
        if self._closed:
            raise ConnectionLost(self.address, "the client is closed", written=False)
        if self._pool.full:
            raise Saturated("requests waiting for a connection to one instance")
        loop = self._loop
        waiter = Waiter(loop.create_future(), starter)
        self._pool.wait(waiter, need)
        self._dial()
        timer = loop.call_at(deadline.at, _expire, waiter, deadline.seconds)
        try:
            await waiter.future
        finally:
            timer.cancel()
            self._pool.forget(waiter)

    def _serve(self) -> None:
        """Give free places to those who wait, and dial for the rest."""
        while (granted := self._pool.grant()) is not None:
            waiter, connection = granted
            if waiter.future.done():
                continue
            try:
                waiter.starter(connection)
            except ScampError as exc:
                waiter.future.set_exception(exc)
            else:
                waiter.future.set_result(None)
        self._dial()

    # -- connections --------------------------------------------------------------------

    def _dial(self) -> None:
        if self._closed:
            return
        if self.out and self._pool.slots and self._loop.time() < self._out_until:
            return  # those who wait are served by the connections that work
        for _ in range(self._pool.dials()):
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
                self._fail_waiters(exc)
        except Exception as exc:
            # Not foreseen; those who wait must not wait for ever because of it.
            self._pool.dialing -= 1
            log.exception("dialling %s failed", self.address)
            self._failed(ConnectFailed(self.address, repr(exc)))
            self._fail_waiters(ConnectFailed(self.address, repr(exc)))
        except BaseException:
            self._pool.dialing -= 1
            raise
        else:
            self._pool.dialing -= 1
        if not self._closed:
            self._serve()

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
        connection.learn(self._pool.kind)  # shown by another one meanwhile
        self._stats.connects += 1
        self._stats.resumed += is_resumed(connection.channel)
        self._connections.add(connection)
        self._pool.add(connection)
        self._recovered()

    def _changed(self, connection: ClientConnection) -> None:
        """A connection has a free place, takes nothing new any more, or is closed."""
        if connection.state in TAKES_NOTHING:
            self._pool.remove(connection)
        if connection.state is SlotState.CLOSED and connection in self._connections:
            self._connections.discard(connection)
            if connection.lost_to_peer and not connection.answered:
                self._unanswered(connection)
            if connection.lost_in_use and not connection.lost_in_race:
                error = connection.channel.failure if connection.channel is not None else None
                self._failed(error or ConnectionLost(self.address, "lost", written=True))
            elif connection.lost_to_peer:
                self._warm()
        if not self._closed:
            self._serve()

    def _answered(self, connection: ClientConnection) -> None:
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
        self._pool.kind = kind
        if kind is not PeerKind.UNKNOWN:
            log.debug("%s (%s) %s request ids", self.address, self.service.identity, kind.value)
            for connection in self._pool.slots:
                connection.learn(kind)

    def _fail_waiters(self, error: ScampError) -> None:
        for waiter in self._pool.take_waiters():
            if not waiter.future.done():
                waiter.future.set_exception(error)

    # -- health -------------------------------------------------------------------------

    def _failed(self, error: ScampError) -> None:
        """Take the instance out for a while and recover it in the background."""
        self.last_error = error
        if isinstance(error, ConnectFailed):
            self._last_refusal = self._loop.time()
        if self._closed:
            return
        loop = self._loop
        if self.out and loop.time() < self._out_until:
            return  # one outage, however many connections it took down
        if not self.out:
            log.warning("%s (%s) is out: %s", self.address, self.service.identity, error)
        self.out = True
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(self._failures, 10))
        delay *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._failures += 1
        self._out_until = loop.time() + delay
        if self._recovery is None:
            self._recovery = self._spawn(self._recover())

    def _recovered(self) -> None:
        if self.out:
            log.info("%s (%s) is back", self.address, self.service.identity)
        self.out = False
        self._failures = 0

    async def _recover(self) -> None:
        """Dial in the background until it works."""
        loop = self._loop
        try:
            while self.out:
                await asyncio.sleep(max(0.0, self._out_until - loop.time()))
                if not self.out:
                    return
                try:
                    await self._connect()
                except ConnectFailed:
                    continue
                except Exception as exc:
                    # Not foreseen; it must not stay out for ever because of it.
                    log.exception("dialling %s failed", self.address)
                    self._failed(ConnectFailed(self.address, repr(exc)))
                    continue
                self._stats.reconnects += 1
                self._serve()
        finally:
            self._recovery = None

    # -- ending -------------------------------------------------------------------------

    def leave(self) -> None:
        """The service is no longer announced: finish what is in flight, take nothing new."""
        self._closed = True
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


def _expire(waiter: Waiter, seconds: float) -> None:
    if not waiter.future.done():
        waiter.future.set_exception(QueueTimeout(seconds))
