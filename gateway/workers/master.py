"""The master of several workers: gunicorn's arbiter, with the rules of this gateway.

gunicorn forks, reaps, watches heartbeats and replaces. What is ours: who listens on which socket,
what a signal means, that one ready line is printed, that bad settings end everything, and that a
worker which dies again and again is not started faster than that does good. See docs/decisions.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config

from gateway.accepting import BACKLOG
from gateway.activation import Notifier
from gateway.sources import Loaded
from gateway.successors import Successors, held
from gateway.takeover import Acquired, acquire
from gateway.workers import worker as messages
from gateway.workers.ledger import Ledger
from gateway.workers.shares import warnings
from gateway.workers.team import Team
from gateway.workers.worker import MAX_MESSAGE, GatewayWorker, LoopFactory, Shared
from scamp.errors import ConfigError

log = logging.getLogger("gateway.workers")

STEADY: Final = 60.0
"""Seconds after which the death of a worker is no longer one in a row."""

MAX_PAUSE: Final = 5.0
"""Longest pause before a worker that dies again and again is started once more. Connections to its
socket wait for so long."""

_LEAVING: Final = 25.0
"""Seconds beyond delay and limit of draining after which workers are killed."""

_FORK_PAUSE: Final = 1.0

Ready = Callable[[str, str], None]


@dataclass(slots=True)
class Slot:
    """The place of one worker, whoever fills it."""

    index: int
    worker: GatewayWorker | None = None
    serving: bool = False
    """Beside the process that is to be replaced."""
    ready: bool = False
    deaths: int = 0
    """In a row."""
    due: float = 0.0

    def died(self, now: float) -> float:
        """The pause before the next: none after the first death, then 1 s, doubling."""
        worker, self.worker, self.serving, self.ready = self.worker, None, False, False
        lived = now - worker.began if worker is not None else 0.0
        self.deaths = self.deaths + 1 if lived < STEADY else 1
        pause = min(2.0 ** (self.deaths - 2), MAX_PAUSE) if self.deaths > 1 else 0.0
        self.due = now + pause
        return pause


def run_workers(
    loaded: Loaded,
    *,
    ready: Ready,
    loop_factory: LoopFactory | None = None,
) -> int:
    """Serve with several processes until told to stop; the exit status.

    `ready` is called once with the URLs of both listeners when all workers answer, and the process
    that was to be replaced knows. Raises `ConfigError` when they cannot start. In each worker it
    ends with SystemExit.
    """
    for warning in warnings(loaded.settings, limits_rates=loaded.settings.limits_rates):
        log.warning("%s", warning)
    # Until the arbiter takes signals: what was made so far is taken away again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pid = os.getpid()
    acquired = acquire(loaded.settings)
    try:
        ledger = Ledger.made()
        try:
            return _run(loaded, acquired, ledger, ready, loop_factory)
        finally:
            if os.getpid() == pid:
                ledger.remove()
    finally:
        if os.getpid() == pid:
            acquired.close()


def _run(
    loaded: Loaded,
    acquired: Acquired,
    ledger: Ledger,
    ready: Ready,
    loop_factory: LoopFactory | None,
) -> int:
    def team(index: int, birth: int) -> Team:
        count = loaded.settings.workers
        return Team(loaded, ledger, number=index + 1, count=count, birth=birth)

    shared = Shared(loaded, acquired.sockets, ledger.directory, loop_factory, team)
    master = Master(Application(shared), ledger, ready, acquired, Notifier())
    # What is there now stays, and is shared: no worker's collections should touch its pages.
    gc.collect()
    gc.freeze()
    try:
        master.run()
    except SystemExit as exc:
        if os.getpid() != master.pid:
            raise
        if master.bad_settings is not None:
            raise ConfigError(master.bad_settings) from None
        return exc.code if isinstance(exc.code, int) else 1
    return 0


class Log:
    """What gunicorn says, among our own lines."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.critical, self.error, self.warning = log.critical, log.error, log.warning
        self.info, self.debug, self.exception = log.info, log.debug, log.exception
        self.log = log.log

    def setup(self, cfg: Config) -> None:
        """Nothing: lines go where all of ours go."""

    reopen_files = close_on_exec = lambda self: None


class Application(BaseApplication):
    """What gunicorn asks for its settings, and workers for what they share."""

    filling: Slot
    """Whose worker is being made."""
    abandon: Callable[[], None]
    """Closes in a worker what only the master should have."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        super().__init__()

    def load_config(self) -> None:
        """Only what is given here: no file, no environment."""
        settings = self.shared.loaded.settings
        given: dict[str, Any] = {
            "bind": "127.0.0.1:0",  # unused, as sockets are ours, but read
            "workers": settings.workers,
            "worker_class": GatewayWorker,
            "timeout": settings.worker_timeout,
            "logger_class": Log,
            "proc_name": "scamp-gateway",
            "control_socket_disable": True,
            "worker_tmp_dir": str(self.shared.directory),
            "child_exit": lambda master, worker: master.lost(worker),
        }
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Nothing: a worker makes its gateway itself."""


class Master(Arbiter):
    """`bad_settings` is why they cannot start, once that is known."""

    app: Application
    WORKERS: dict[int, GatewayWorker]  # type: ignore[assignment, misc]  # those of our class
    SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]  # noqa: RUF012 - as there

    def __init__(
        self,
        app: Application,
        ledger: Ledger,
        ready: Ready,
        acquired: Acquired,
        notifier: Notifier,
    ) -> None:
        super().__init__(app)
        self._ledger = ledger
        self._say_ready = ready
        self._said = False
        self._notifier = notifier
        self._reloading: set[int] = set()
        """The births of those that were told to look at their files and have not said more."""
        self._acquired = acquired
        app.shared.replaces = acquired.predecessor is not None
        self._successors: Successors | None = None
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._leaving: bytes | None = None
        self.bad_settings: str | None = None
        self.slots = [Slot(index) for index in range(app.shared.loaded.settings.workers)]
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._woken = socket.socketpair()
        app.abandon = self._abandon

    def _abandon(self) -> None:
        """As long as a worker has the master's end of another's channel, that one does not see
        that the master died."""
        self._selector.close()
        self._wakeup.close()
        self._woken.close()
        # Nor may it keep the connection with another gateway, which would not see it either.
        if self._successors is not None:
            self._successors.abandon()
        if self._acquired.predecessor is not None:
            self._acquired.predecessor.close()
        for slot in self.slots:
            if slot.worker is not None:
                slot.worker.master_end.close()
                slot.worker.channel.close()

    # -- starting -----------------------------------------------------------------------

    def start(self) -> None:
        """Take signals. gunicorn's own would open sockets, and tell systemd of a readiness that is
        yet to come."""
        self.pid = os.getpid()
        self.init_signals()
        for end in (self._wakeup, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self.watch(self._woken, self._awake)

    def spawn_workers(self) -> None:
        """Fill the places that are empty and due."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.worker is None and slot.due <= now and self._leaving is None:
                self.app.filling = slot
                try:
                    self._fill(slot)
                except OSError as exc:  # no memory, processes or descriptors: for now
                    slot.due = now + _FORK_PAUSE
                    log.error("worker %d cannot be started: %s", slot.index + 1, exc)

    def _fill(self, slot: Slot) -> None:
        pid = self.spawn_worker()
        slot.worker = worker = self.WORKERS[pid]
        worker.channel.close()
        self.watch(worker.master_end, lambda: self._hear(worker))
        log.info("worker %d is process %d", slot.index + 1, pid)

    # -- what workers say ---------------------------------------------------------------

    def wait_for_signals(self, timeout: float | None = 1.0) -> list[int]:
        """Signals that came, after at most `timeout` seconds; hears workers meanwhile."""
        now, due = time.monotonic(), []
        if self._leaving is None:
            due = [slot.due - now for slot in self.slots if slot.worker is None]
        limit = max(0.0, min([timeout or 0.0, *due]))
        if self._timers:
            limit = min(limit, max(0.0, self._timers[0][0] - now))
        for key, _ in self._selector.select(limit):
            key.data()
        self._notifier.alive()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        came = super().wait_for_signals(0)
        if not came:  # no death, and nobody told us to stop: once the other left there is only us
            self._try_to_replace()
        return came

    def watch(self, sock: socket.socket, act: Callable[[], object]) -> None:
        """Call `act`, which must not block, in the master whenever `sock` can be read. The master
        has no event loop, and may have no threads, as it forks."""
        self._selector.register(sock, selectors.EVENT_READ, act)

    def unwatch(self, sock: socket.socket) -> None:
        """No longer. May be called twice."""
        with suppress(KeyError, ValueError):  # ValueError: it is closed already
            self._selector.unregister(sock)

    def later(self, seconds: float, act: Callable[[], object]) -> Callable[[], object]:
        """Call `act`, which must not block, once; what it returns calls that off."""
        timer = (time.monotonic() + seconds, next(self._numbers), act)
        heapq.heappush(self._timers, timer)

        def call_off() -> None:
            if timer in self._timers:
                self._timers.remove(timer)
                heapq.heapify(self._timers)

        return call_off

    def _awake(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(1024)

    def _hear(self, worker: GatewayWorker) -> None:
        """Everything that a worker has said so far."""
        with suppress(BlockingIOError, ConnectionError):
            while message := worker.master_end.recv(MAX_MESSAGE):
                what, *texts = message.decode(errors="replace").split("\0")
                self._take(worker, what.encode(), texts)
            self.unwatch(worker.master_end)  # it has closed its end; its death will be told

    def _take(self, worker: GatewayWorker, what: bytes, texts: list[str]) -> None:
        slot = worker.slot
        if what == messages.SERVING:
            slot.serving = True
        elif what == messages.READY:
            slot.ready = True
            unsaid = not self._said and self._leaving is None
            if unsaid and all(one.ready for one in self.slots):
                self._all_ready(*texts)
        elif what == messages.RELOADED:
            self._reloaded(worker)
        elif self._leaving is not None:
            pass  # the first has told why
        elif self._said:
            log.error("worker %d cannot serve: %s", slot.index + 1, "; ".join(texts))
        elif what == messages.BAD_SETTINGS:
            self._give_up("\n".join(texts), 2)
        else:
            self._give_up(None, 1)

    def _all_ready(self, public: str, admin: str) -> None:
        self._said = True
        shared = self.app.shared
        settings = shared.loaded.settings
        if settings.takeover_socket is not None:
            try:
                self._successors = Successors(
                    settings.takeover_socket,
                    held(settings, shared.sockets),
                    self._replaced,
                    self,
                    self._acquired.take_post(),
                )
            except ConfigError as exc:
                self._give_up(str(exc), 2)
            self._successors.start()
        self._notifier.ready()
        log.info("all %d workers serve %s, admin %s", len(self.slots), public, admin)
        self._say_ready(public, admin)

    def _reloaded(self, worker: GatewayWorker) -> None:
        """It has looked at its files, or never will."""
        if worker.age in self._reloading:
            self._reloading.discard(worker.age)
            if not self._reloading:
                self._notifier.ready()

    def _give_up(self, bad_settings: str | None, status: int) -> NoReturn:
        """The first workers cannot serve: the next ones could not either."""
        self.bad_settings = bad_settings
        self._leaving = messages.INTERRUPT
        self.halt(exit_status=status)
        raise SystemExit(status)  # as it has

    def lost(self, worker: GatewayWorker) -> None:
        """A worker is gone; gunicorn calls it."""
        self._hear(worker)
        slot = worker.slot
        pause = slot.died(time.monotonic())
        try:
            self._ledger.bury(worker.age, "hung" if worker.aborted else "died")
        except (OSError, ValueError) as exc:
            log.error("what worker %d had counted is lost: %s", slot.index + 1, exc)
        self.unwatch(worker.master_end)
        worker.master_end.close()
        self._reloaded(worker)
        if self._leaving is None and pause:
            log.warning("worker %d is started again in %g s", slot.index + 1, pause)

    # -- other gateways -----------------------------------------------------------------

    def _try_to_replace(self) -> None:
        """Tell the process that is to be replaced, if all workers serve. The admin listener comes
        last: whoever asked it before would hear of workers that are not ready yet."""
        shared, predecessor = self.app.shared, self._acquired.predecessor
        if predecessor is None or not shared.replaces or self._leaving is not None:
            return
        if not all(slot.serving for slot in self.slots):
            return
        try:
            for sock in shared.sockets.admin:
                sock.listen(BACKLOG)  # if it is a new address: now or never
            predecessor.replace()
        except OSError as exc:
            self._give_up(f"cannot listen on {shared.loaded.settings.admin_bind}: {exc}", 2)
        except ConfigError as exc:
            self._give_up(str(exc), 2)
        shared.replaces = False
        self._order(messages.ALONE)

    def _replaced(self, names: frozenset[str]) -> None:
        """Another gateway serves, on the sockets of these listeners."""
        self._leaving = b"\0".join([messages.REPLACED, *(name.encode() for name in names)])
        raise StopIteration  # how the arbiter's loop ends

    # -- signals ------------------------------------------------------------------------

    def handle_hup(self) -> None:
        """Every worker looks at its files, and opens the access log anew."""
        if self._said:
            self._notifier.reloading()
            self._reloading = {one.age for one in self.WORKERS.values()}
            if not self._reloading:
                self._notifier.ready()
        self._order(messages.RELOAD)

    def handle_term(self) -> None:
        """Drain and stop."""
        self._leaving = messages.TERMINATE
        raise StopIteration  # how the arbiter's loop ends

    def handle_int(self) -> None:
        """Likewise, without the delay."""
        self._leaving = messages.INTERRUPT
        raise StopIteration

    def _order(self, what: bytes) -> None:
        for slot in self.slots:
            if slot.worker is not None:
                with suppress(OSError):  # dead, or it hangs
                    slot.worker.master_end.send(what)

    def stop(self, graceful: bool = True) -> None:
        """Let all workers drain, pass on what further signals say, and wait until they are gone.

        From here on they alone have the sockets, so that nobody listens any more when they stop.
        """
        settings = self.app.shared.loaded.settings
        successors = self._successors
        if self._said and (successors is None or not successors.left):
            self._notifier.stopping()  # else it is the other's service now
        if successors is not None:
            successors.close()
        self.app.shared.sockets.close()
        orders = [self._leaving or messages.TERMINATE]
        if not graceful:
            orders *= 2
        end = time.monotonic() + settings.drain_delay + settings.drain_limit + _LEAVING
        while True:
            for order in orders:
                self._order(order)
            self.reap_workers()
            if not self.WORKERS or time.monotonic() > end:
                break
            self.murder_workers()
            came = self.wait_for_signals(1.0)
            orders = [_AGAIN[one] for one in came if one in _AGAIN]
        self.kill_workers(signal.SIGKILL)
        while self.WORKERS:
            self.wait_for_signals(0.1)
            self.reap_workers()


_AGAIN: Final[Mapping[int, bytes]] = {
    signal.SIGTERM: messages.TERMINATE,
    signal.SIGINT: messages.INTERRUPT,
    signal.SIGHUP: messages.RELOAD,
}
