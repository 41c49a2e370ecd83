"""One running gateway: everything built, started, watched, drained and taken down again."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

from gateway.accepting import MAX_AT_ONCE, Gate
from gateway.activation import NAMES, Notifier
from gateway.admin import admin_application
from gateway.assembly import Assembly
from gateway.descriptors import raise_limit
from gateway.exposition import build_version
from gateway.following import CertificateCollector, FollowedTls, Following
from gateway.listener import Listener, Sockets, tls_context
from gateway.memory import Trimmer, large_pieces_apart
from gateway.public import public_server
from gateway.signals import Triggers
from gateway.sources import Loaded
from gateway.successors import LoopWatching, Successors, held
from gateway.takeover import READY_LIMIT, Acquired, Predecessor
from scamp.errors import ConfigError

if TYPE_CHECKING:
    from gateway.workers.team import Team

log = logging.getLogger("gateway")

GC_THRESHOLD: Final = 5_000
"""Objects more than at the last collection that make for the next. The requests under way alone are
more than Python's 700, and there is hardly anything to be collected."""

LINGER: Final = 2.0
"""Seconds that a connection without a request is kept while draining. Whoever uses it meanwhile is
told that it ends, and loses nothing."""

_STEP: Final = 0.025
_CLOSE_LIMIT: Final = 5.0
"""Seconds that each of the last steps may take."""


class Trial(Protocol):
    """The time in which we serve, and so does the process that is to be replaced: it does not know
    of us yet. For one worker of several; whoever is alone has a `Predecessor` itself."""

    @property
    def over(self) -> bool:
        """Whether the other process knows, as soon as that is so."""
        ...

    async def until_over(self) -> None:
        """Tell that we serve, and wait until the other process knows."""
        ...


async def run(
    loaded: Loaded,
    *,
    ready: Callable[[str, str], None],
    triggers: Triggers | None = None,
    sockets: Sockets | None = None,
    acquired: Acquired | None = None,
    team: Team | None = None,
    trial: Trial | None = None,
    notifier: Notifier | None = None,
) -> int:
    """Serve until told to stop; the exit status. The sockets to listen on are `sockets`, or those
    `acquired`, else they are opened as the settings say; they are closed at the end. `team` and
    `trial` are for one worker of several. `notifier` is told how it is in place of systemd.

    `ready` is called once with the URLs of both listeners when requests are answered, and the
    process that was to be replaced knows. Stopping is bounded: drain delay, drain limit, and a few
    seconds. Raises `ConfigError` when it cannot start. Cancelling takes everything down at once.
    """
    triggers = triggers or Triggers()
    raise_limit()
    large_pieces_apart()
    notifier = notifier or Notifier()
    if acquired is None and sockets is not None:
        acquired = Acquired(sockets)
    with contextlib.ExitStack() as stack:
        if acquired is not None:
            stack.callback(acquired.close)
        stack.enter_context(triggers.on_signals())
        if notifier.pause is not None:
            faulthandler.enable()  # tells where we hang, when systemd sends SIGABRT
            stack.callback(asyncio.create_task(_show_life(notifier, notifier.pause)).cancel)
        gateway = Gateway(loaded, triggers, acquired, notifier, team, trial)
        try:
            starting = asyncio.create_task(gateway.start())
            if await _unless(triggers.stop, starting):
                notifier.ready()
                ready(gateway.public.url, gateway.admin.url)
                await gateway.serve()
                if triggers.replaced is None:  # else it is the other's service now
                    notifier.stopping()
            await gateway.drain()
        except ConfigError:  # we may have been accepting for a moment
            await gateway.drain()
            raise
        finally:
            await gateway.close()
    return 0


async def _show_life(notifier: Notifier, pause: float) -> None:
    """As long as the event loop runs, to the end of the drain."""
    while True:
        notifier.alive()
        await asyncio.sleep(pause / 2)


async def _unless(event: asyncio.Event, task: asyncio.Task[None]) -> bool:
    """Wait for `task`; False, with the task cancelled, when `event` comes before it is done, or
    with it. Raises what the task raises."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            task.result()
        return not event.is_set()
    finally:
        for one in (waiting, task):
            one.cancel()
        await asyncio.wait({waiting, task})


class Gateway:
    """The listeners around an `Assembly`, and the order in which things happen."""

    def __init__(
        self,
        loaded: Loaded,
        triggers: Triggers,
        acquired: Acquired | None = None,
        notifier: Notifier | None = None,
        team: Team | None = None,
        trial: Trial | None = None,
    ) -> None:
        """Reads ticket keys and the TLS files; raises `ConfigError` when they are no good. What is
        `acquired` is closed with the gateway. With a `team` the admin pages tell of all of it."""
        settings = loaded.settings
        self._settings = settings
        self._acquired = acquired
        self._notifier = notifier or Notifier({})
        self._successors: Successors | None = None
        self._trial = trial
        self._on_trial = False
        """As `Trial` says."""
        self._team = team
        self.triggers = triggers
        self._tls_stamps = FollowedTls.stamps(settings)
        self._context = tls_context(settings)
        log_of_worker = team.access_log(settings) if team is not None else None
        self.parts = parts = Assembly(loaded, self._listening, log_of_worker)
        self._server = public_server(parts.front)
        self._public_runner = web.ServerRunner(self._server)
        self._admin_runner = web.AppRunner(
            admin_application(
                parts.state if team is None else team.state_of_all(parts.state),
                settings.admin_hosts,
            ),
            access_log=None,
            keepalive_timeout=parts.admin_clients.limits.keepalive,
            shutdown_timeout=_CLOSE_LIMIT,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._public: Listener | None = None
        self._admin: Listener | None = None

    @property
    def public(self) -> Listener:
        """The public listener; only after `start`."""
        assert self._public is not None  # noqa: S101 - `start` made it
        return self._public

    @property
    def admin(self) -> Listener:
        """The admin listener; only after `start`."""
        assert self._admin is not None  # noqa: S101 - `start` made it
        return self._admin

    def _public_url(self) -> str | None:
        return self._public.url if self._public is not None and self._public.open else None

    def _listening(self) -> bool:
        return self._public is not None and self._public.open

    # -- starting -----------------------------------------------------------------------

    async def start(self) -> None:
        """Bind both addresses, serve the admin one, read discovery, serve the public one.

        A discovery cache that is missing or bad does not fail it: requests get 503, and so does
        `readyz`, until there is a good one. Who replaces a running process waits for that first,
        then serves both, then tells it. Raises `ConfigError`.
        """
        await self._public_runner.setup()
        await self._admin_runner.setup()
        if self._acquired is None:
            self._acquired = Acquired(Sockets.opened(self._settings))
        sockets, predecessor = self._acquired.sockets, self._acquired.predecessor
        at_once = 1 if sockets.crowded else MAX_AT_ONCE
        gate = Gate(self.parts.clients, self._server.make_room, at_once)
        self._public = Listener(self._public_runner, sockets.public, gate, own=sockets.own)
        self.parts.state.public_url = self._public_url
        self._admin = Listener(self._admin_runner, sockets.admin, Gate(self.parts.admin_clients))
        if self._team is not None:
            await self._team.start()
        replaces = predecessor is not None or self._trial is not None
        if not replaces:
            await self._admin.start()
        # Before the index is there, which takes 30 ms to walk through when it is large.
        gc.collect()
        gc.set_threshold(GC_THRESHOLD)
        await self.parts.start()
        # What is loaded now stays: no later collection has to walk through modules and index.
        gc.freeze()
        if replaces:
            await self._until_loaded()
            self._on_trial = True
        await self._public.start(self._context)
        if predecessor is not None:
            await self._admin.start()
            await self._replace(predecessor)
        elif self._trial is not None:
            await self._trial.until_over()
            await self._admin.start()  # not before: those that are not ready yet would be asked
        self._await_successors(self._acquired)
        await self._follow_files(self._public)
        self._tell_serving(self._public.url, self._admin.url)

    def _tell_serving(self, public: str, admin: str) -> None:
        settings = self._settings
        log.info(
            "serving %s, admin %s: version %s, process %d, workers %d, auth_mode %s, services %d",
            *(public, admin, build_version(), os.getpid()),
            self._team.count if self._team is not None else 1,
            *(settings.effective_auth_mode, len(self.parts.registry.services())),
        )

    async def _until_loaded(self) -> None:
        """Whoever takes over has to be as good as what it replaces."""
        try:
            async with asyncio.timeout(READY_LIMIT):
                while not self.parts.follower.status.loaded:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(_STEP)
        except TimeoutError:
            why = self.parts.follower.status.last_error or "nothing heard"
            raise ConfigError(
                f"not ready within {READY_LIMIT:g} s, the old process goes on: no index: {why}"
            ) from None

    async def _replace(self, predecessor: Predecessor) -> None:
        """Raises `ConfigError` when it goes on, and CancelledError when we have been told to stop:
        once it has left there is nobody else."""
        if self.triggers.stop.is_set():
            raise asyncio.CancelledError
        self._on_trial = False
        try:
            await asyncio.to_thread(predecessor.replace)
        except ConfigError:
            self._on_trial = True
            raise

    def _await_successors(self, acquired: Acquired) -> None:
        """Raises `ConfigError` when the path cannot be had."""
        settings = self._settings
        if settings.takeover_socket is None or self._team is not None:
            return  # or the master does that
        self._successors = Successors(
            settings.takeover_socket,
            held(settings, acquired.sockets),
            self.triggers.replace,
            LoopWatching(),
            acquired.take_post(),
        )
        self._successors.start()

    async def _follow_files(self, public: Listener) -> None:
        parts = self.parts
        things = [*parts.followed]
        if self._context is not None:
            tls = FollowedTls(self._settings, public, self._tls_stamps)
            await tls.read_expiry()
            parts.state.exposition.register(CertificateCollector(lambda: tls.expires))
            things.append(tls)
        self._following = Following(things, parts.reloads.note)
        self._spawn(self._following.run(), "files")
        self._spawn(self._reload_when_told(), "reload")
        self._spawn(Trimmer(self.parts.clients.load).run(), "memory")

    async def serve(self) -> None:
        """Wait until told to stop."""
        await self.triggers.stop.wait()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"gateway {name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=failure)

    # -- in the background --------------------------------------------------------------

    async def _reload_when_told(self) -> None:
        while True:
            await self.triggers.reload.wait()
            self.triggers.reload.clear()
            log.info("told to reload: looking at all followed files")
            self._notifier.reloading()
            await self.parts.reload()
            await self._following.look(force=True)
            self._notifier.ready()
            log.info("looked at all followed files")

    # -- stopping -----------------------------------------------------------------------

    async def drain(self) -> None:
        """Leave in good order: unready at once, accepting for the drain delay, then finishing.

        Ends early when nothing is under way, and at once when told so a second time. Who has been
        replaced does not accept any longer, nor does who has not come to serve.
        """
        parts, triggers = self.parts, self.triggers
        if self._public is None or not self._public.open:
            return
        began = asyncio.get_running_loop().time()
        if self._on_trial and (self._trial is None or not self._trial.over):
            triggers.replace(frozenset(NAMES))  # whom we wanted to replace goes on
        passed = triggers.replaced or frozenset()
        if "admin" in passed and self._admin is not None:
            parts.state.replaced = True
            await self._admin.stop()  # the other process tells how it is from now on
        parts.drain()
        delay = 0.0 if triggers.hurry else self._settings.drain_delay
        log.info(
            "draining: %d requests and %d event streams under way, accepting for %g s, then up to "
            "%g s for the rest",
            *(parts.front.in_flight, parts.hub.streams, delay, self._settings.drain_limit),
        )
        await self._wait(lambda: triggers.hurry, delay)
        if self._successors is not None:
            self._successors.close()
        if not triggers.stop.is_set():  # a worker that failed: the next one gets its socket
            self._public.own = False
        await self._public.stop(serve_rest="public" not in passed)
        closed = asyncio.get_running_loop().time()
        # What the kernel had accepted already needs a moment to become a connection.
        await asyncio.sleep(_STEP)
        if not await self._wait(lambda: self._finished(began, closed), self._settings.drain_limit):
            log.warning(
                "%d requests and %d event streams cut off after %.1f s of draining",
                *(parts.front.in_flight, parts.hub.streams, _since(began)),
            )
        else:
            log.info("drained in %.1f s: nothing is under way", _since(began))

    def _finished(self, began: float, closed: float) -> bool:
        """Whether nothing is under way. Ends connections that nobody has used for a while.

        Each has some time after `began`, since when answers end them: a client or a proxy may have
        sent the next request already. Who is shaking hands since before `closed` is not seen.
        """
        idle = self._server.retire(began, LINGER) and (
            self._context is None or asyncio.get_running_loop().time() >= closed + LINGER
        )
        return idle and self._server.settled and not self.parts.busy

    async def _wait(self, done: Callable[[], bool], limit: float) -> bool:
        """Wait for `done`, `limit` seconds at most or until told that it is enough."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while not done():
            left = end - loop.time()
            if left <= 0 or self.triggers.now.is_set():
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _STEP)):
                    await self.triggers.now.wait()
        return True

    async def close(self) -> None:
        """Take everything down now. Each step is bounded, and none keeps another from its turn.

        When cancelled it goes on to the end all the same. May be called twice.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="gateway close")
        cancelled: asyncio.CancelledError | None = None
        while not self._closing.done():
            try:
                await asyncio.wait({self._closing})
            except asyncio.CancelledError as exc:
                cancelled = exc
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_LIMIT)
        if self._successors is not None:
            self._successors.close()
        for listener in (self._public, self._admin):
            if listener is not None:
                await _bounded("listener", listener.close())
        await _bounded("requests", self._server.cut_off(_CLOSE_LIMIT / 2))
        await _bounded("public runner", self._public_runner.cleanup())
        await _bounded("mesh", self.parts.close())
        await _bounded("admin runner", self._admin_runner.cleanup())
        if self._acquired is not None:
            self._acquired.close()
        if self._team is not None:
            await _bounded("team", self._team.close())
        log.info("stopped")


def _since(began: float) -> float:
    return asyncio.get_running_loop().time() - began


async def _bounded(what: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(_CLOSE_LIMIT):
            await work
    except TimeoutError:
        log.error("%s did not close within %g s", what, _CLOSE_LIMIT)
    except Exception:
        log.exception("%s did not close well", what)


@contextlib.asynccontextmanager
async def running(loaded: Loaded, triggers: Triggers | None = None) -> AsyncIterator[Gateway]:
    """A gateway in this event loop, for tests and for embedding; closed without draining."""
    gateway = Gateway(loaded, triggers or Triggers())
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.close()
