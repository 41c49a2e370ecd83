"""Running a service as a process: signals, announcements, a sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scamp.config import ScampConf
from scamp.discovery.multicast import MulticastGroup
from scamp.limits import FAREWELL_INTERVAL, FAREWELLS, STOP_GRACE, STOP_LINGER
from scamp.server.announcer import Announcer
from scamp.server.liveness import LivenessFile

if TYPE_CHECKING:
    from scamp.server.service import Service

log: logging.Logger = logging.getLogger("scamp.server")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def run_service(
    service: Service,
    host: str | None = None,
    port: int | None = None,
    *,
    announce_host: str | None = None,
    announce_file: Path | None = None,
    announce: bool | MulticastGroup | None = None,
    grace: float = STOP_GRACE,
    linger: float | None = None,
    farewells: int = FAREWELLS,
    farewell_interval: float = FAREWELL_INTERVAL,
    trigger: asyncio.Event | None = None,
) -> None:
    """Start `service`, announce it, serve until SIGTERM or SIGINT, then leave.

    `announce` says where to announce by multicast: a group, True for the group of the service's
    configuration (or of the protocol, without one), False for nowhere; None means True for a
    service that has a configuration. With `announce_file` the service's record is kept there too,
    written to PATH.new and then renamed, at every interval and when it leaves.

    Leaving: it is announced at once, `farewells` times, `farewell_interval` seconds apart; for
    `linger` seconds connections and requests are accepted as before, then as `Service.stop` says,
    all within `grace` seconds. `linger` defaults to STOP_LINGER with multicast, to one interval
    with a file, else to 0. It ends when both are done; a second signal cuts everything short.
    `trigger` stops it like a signal; set it from the same loop. A signal stops all services of its
    loop; outside the main thread signals are left alone. Cancelling stops it without grace.

    With ``service.running_service_file_dir_path`` in the configuration a file is kept there as long
    as it runs, see `scamp.server.liveness`. Lines of the configuration that are of no use are
    logged.

    Raises ConfigError as `start` does and for what the configuration says of announcing and of that
    directory, and OSError when the record's file cannot be written at first.
    """
    for warning in () if service.config is None else service.config.warnings:
        log.warning("%s", warning)
    group = _group(service, announce)
    stop = trigger if trigger is not None else asyncio.Event()
    force = asyncio.Event()
    if linger is None:
        file_linger = service.interval if announce_file is not None else 0.0
        linger = max(file_linger, STOP_LINGER if group is not None else 0.0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals(stop, force))
        bound = await service.start(host, port, announce_host=announce_host)
        announcer: Announcer | None = None
        try:
            liveness = _liveness(service, stack)
            announcer = Announcer(
                service,
                group,
                announce_file,
                liveness,
                farewells=farewells,
                farewell_interval=farewell_interval,
            )
            await announcer.start()
            where = "" if group is None else f", announced at {group}"
            log.info(
                "%s serves at %s:%d, actions: %d%s",
                service.identity,
                *bound,
                len(service.actions),
                where,
            )
            await stop.wait()
        except BaseException:
            force.set()
            raise
        finally:
            await _leave(service, announcer, force, grace, linger)
    log.info("%s has stopped", service.identity)


def _group(service: Service, announce: bool | MulticastGroup | None) -> MulticastGroup | None:
    if isinstance(announce, MulticastGroup):
        return announce
    wanted = service.config is not None if announce is None else announce
    return MulticastGroup.from_config(service.config or ScampConf({})) if wanted else None


def _liveness(service: Service, stack: contextlib.ExitStack) -> LivenessFile | None:
    folder = None if service.config is None else service.config.running_service_dir
    if folder is None:
        return None
    file = LivenessFile(folder, service.identity)
    file.create()
    stack.callback(file.remove)
    return file


async def _leave(
    service: Service,
    announcer: Announcer | None,
    force: asyncio.Event,
    grace: float,
    linger: float,
) -> None:
    """Stop and say goodbye, until both are done or `force` is set."""
    log.info("%s leaves, requests in flight: %d", service.identity, service.in_flight)
    stopping = asyncio.create_task(service.stop(grace, linger=linger))
    leaving = [stopping]
    try:
        await asyncio.sleep(0)  # the task begins: what is cancelled before that cuts nothing
        if announcer is not None:
            leaving.append(asyncio.create_task(announcer.finish()))
        await _all_or_force(leaving, force)
    finally:
        try:
            for task in leaving:
                await _end(task)
        finally:
            if announcer is not None:
                await announcer.close()


async def _all_or_force(tasks: list[asyncio.Task[None]], force: asyncio.Event) -> None:
    forced = asyncio.create_task(force.wait())
    try:
        pending: set[asyncio.Task[None] | asyncio.Task[bool]] = {*tasks, forced}
        while len(pending) > 1 and forced in pending:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(forced)


async def _end(task: asyncio.Task[None] | asyncio.Task[bool]) -> None:
    """Cancel a task unless it is done, and take its result."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


_running: dict[asyncio.AbstractEventLoop, list[_signals]] = {}
"""Who is to be told of signals: a loop has one handler for each, and may run several services."""


class _signals(contextlib.AbstractContextManager[None]):  # noqa: N801 - used like a function
    """The first signal sets `stop`, the next one `force`; undone on leaving."""

    def __init__(self, stop: asyncio.Event, force: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._force = force

    def __enter__(self) -> None:
        running = _running.setdefault(self._loop, [])
        running.append(self)
        if len(running) > 1:
            return
        for number in _SIGNALS:
            try:
                self._loop.add_signal_handler(number, _on_signal, self._loop)
            except (NotImplementedError, RuntimeError, ValueError):
                return  # not the main thread, or not this platform

    def __exit__(self, *_: object) -> None:
        running = _running[self._loop]
        running.remove(self)
        if running:
            return
        del _running[self._loop]
        for number in _SIGNALS:
            with contextlib.suppress(NotImplementedError, ValueError):
                self._loop.remove_signal_handler(number)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def tell(self, *, again: bool) -> None:
        """A signal has come."""
        if again:
            self._force.set()
        self._stop.set()


def _on_signal(loop: asyncio.AbstractEventLoop) -> None:
    running = _running.get(loop, ())  # it may have been on its way when the last one ended
    # All are asked first: they may share the event that the first of them sets.
    for one, again in [(one, one.stopping) for one in running]:
        one.tell(again=again)
