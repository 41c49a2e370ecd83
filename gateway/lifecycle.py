"""One running gateway: everything built, started, watched, drained and taken down again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.admin import admin_application
from gateway.assembly import Assembly
from gateway.exposition import gauge
from gateway.following import FollowedTls, Following
from gateway.listener import Listener, Sockets, tls_context
from gateway.public import public_server
from gateway.signals import Triggers
from gateway.sources import Loaded

if TYPE_CHECKING:
    from gateway.workers.team import Team

log = logging.getLogger("gateway")

GC_THRESHOLD: Final = 5_000
"""Objects more than at the last collection that make for the next. The requests under way alone are
more than Python's 700, and there is hardly anything to be collected."""

_STEP: Final = 0.025
_CLOSE_LIMIT: Final = 5.0
"""Seconds that each of the last steps may take."""


async def run(
    loaded: Loaded,
    *,
    ready: Callable[[str, str], None],
    triggers: Triggers | None = None,
    sockets: Sockets | None = None,
    team: Team | None = None,
) -> int:
    """Serve until told to stop; the exit status. `sockets` are those to listen on, else they are
    opened as the settings say. `team` is for one worker of several.

    `ready` is called once with the URLs of both listeners when requests are answered. Stopping
    is bounded: drain delay, drain limit, and a few seconds. Raises `ConfigError` when it cannot
    start. Cancelling takes everything down at once.
    """
    triggers = triggers or Triggers()
    with triggers.on_signals():
        gateway = Gateway(loaded, triggers, sockets, team)
        try:
            starting = asyncio.create_task(gateway.start())
            if not await _unless(triggers.stop, starting):
                return 0
            ready(gateway.public.url, gateway.admin.url)
            await gateway.serve()
            await gateway.drain()
        finally:
            await gateway.close()
    return 0


async def _unless(event: asyncio.Event, task: asyncio.Task[None]) -> bool:
    """Wait for `task`; False, with the task cancelled, when `event` comes before it is done, or
    with it. Raises what the task raises."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
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
        sockets: Sockets | None = None,
        team: Team | None = None,
    ) -> None:
        """Reads ticket keys and the TLS files; raises `ConfigError` when they are no good.
        `sockets` are closed with the gateway. With a `team` the admin pages tell of all of it."""
        settings = loaded.settings
        self._settings = settings
        self._sockets = sockets
        self._team = team
        self.triggers = triggers
        self._tls_stamps = FollowedTls.stamps(settings)
        self._context = tls_context(settings)
        log_of_worker = team.access_log(settings.access_log) if team is not None else None
        self.parts = parts = Assembly(loaded, self._listening, log_of_worker)
        self._server = public_server(parts.front)
        self._public_runner = web.ServerRunner(self._server)
        self._admin_runner = web.AppRunner(
            admin_application(
                parts.state if team is None else team.state_of_all(parts.state),
                settings.admin_hosts,
            ),
            access_log=None,
            shutdown_timeout=_CLOSE_LIMIT,
        )
        self._tasks: set[asyncio.Task[None]] = set()
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

    def _listening(self) -> bool:
        return self._public is not None and self._public.open

    # -- starting -----------------------------------------------------------------------

    async def start(self) -> None:
        """Bind both addresses, serve the admin one, read discovery, serve the public one.

        A discovery cache that is missing or bad does not fail it: requests get 503, and so does
        `readyz`, until there is a good one. Raises `ConfigError`.
        """
        settings, parts = self._settings, self.parts
        await self._public_runner.setup()
        await self._admin_runner.setup()
        sockets = self._sockets or Sockets.opened(settings)
        self._public = Listener(self._public_runner, sockets.public)
        self._admin = Listener(self._admin_runner, sockets.admin)
        if self._team is not None:
            await self._team.start()
        await self._admin.start()
        await parts.start()
        # What is loaded now stays: no later collection has to walk through modules and index.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        await self._public.start(self._context)
        things = [*parts.followed]
        if self._context is not None:
            tls = FollowedTls(settings, self._public, self._tls_stamps)
            await tls.read_expiry()
            parts.state.exposition.register(CertificateCollector(lambda: tls.expires))
            things.append(tls)
        self._following = Following(things, parts.reloaded)
        self._spawn(self._following.run(), "files")
        self._spawn(self._reload_when_told(), "reload")
        log.info("serving %s, admin %s", self._public.url, self._admin.url)

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
            log.info("told to reload")
            await self.parts.reload()
            await self._following.look(force=True)

    # -- stopping -----------------------------------------------------------------------

    async def drain(self) -> None:
        """Leave in good order: unready at once, accepting for the drain delay, then finishing.

        Ends early when nothing is under way, and at once when told so a second time.
        """
        settings, parts = self._settings, self.parts
        parts.drain()
        delay = 0.0 if self.triggers.hurry else settings.drain_delay
        log.info(
            "draining: %d requests under way, accepting for %g s", parts.front.in_flight, delay
        )
        await self._wait(lambda: False, delay)
        await self.public.stop()
        # Gives requests that the kernel had accepted already the turn in which they begin.
        await asyncio.sleep(0)
        self._server.pre_shutdown()
        if not await self._wait(lambda: not parts.busy, settings.drain_limit):
            log.warning("%d requests cut off", parts.front.in_flight)

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
        """Take everything down now. Each step is bounded, and none keeps another from its turn."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_LIMIT)
        for listener in (self._public, self._admin):
            if listener is not None:
                await _bounded("listener", listener.stop())
        await _bounded("requests", self._server.cut_off(_CLOSE_LIMIT / 2))
        await _bounded("public runner", self._public_runner.cleanup())
        await _bounded("mesh", self.parts.close())
        await _bounded("admin runner", self._admin_runner.cleanup())
        if self._team is not None:
            await _bounded("team", self._team.close())
        log.info("stopped")


async def _bounded(what: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(_CLOSE_LIMIT):
            await work
    except TimeoutError:
        log.error("%s did not close within %g s", what, _CLOSE_LIMIT)
    except Exception:
        log.exception("%s did not close well", what)


class CertificateCollector(Collector):
    """One gauge, there only when the public listener speaks TLS."""

    def __init__(self, expires: Callable[[], float | None]) -> None:
        self._expires = expires

    def collect(self) -> Iterable[Metric]:
        """When the certificate in force expires."""
        yield gauge(
            "certificate_expiry_timestamp_seconds",
            "When the public certificate in force expires, in seconds since 1970.",
            self._expires(),
        )


@contextlib.asynccontextmanager
async def running(loaded: Loaded, triggers: Triggers | None = None) -> AsyncIterator[Gateway]:
    """A gateway in this event loop, for tests and for embedding; closed without draining."""
    gateway = Gateway(loaded, triggers or Triggers())
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.close()
