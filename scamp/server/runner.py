"""Running a service as a process: signals, and a record of it for whoever collects them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scamp.limits import STOP_GRACE

if TYPE_CHECKING:
    from scamp.server.service import Service

log = logging.getLogger("scamp.server")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


async def run_service(
    service: Service,
    host: str | None = None,
    port: int | None = None,
    *,
    announce_host: str | None = None,
    announce_file: Path | None = None,
    grace: float = STOP_GRACE,
    linger: float | None = None,
    trigger: asyncio.Event | None = None,
) -> None:
    """Start `service`, serve until SIGTERM or SIGINT, then stop it as `Service.stop` does.

    With `announce_file` the service's record is written there, to PATH.new and then renamed, at
    every interval and when it leaves; then `linger` defaults to one interval, so that clients learn
    of it before connections close, else to 0. A second signal cuts everything short. `trigger`
    stops it like a signal; set it from the same loop. Signals are left alone outside the main
    thread. Cancelling stops it without grace. Raises ConfigError as `start` does, and OSError when
    the file cannot be written at first.
    """
    stop = trigger if trigger is not None else asyncio.Event()
    force = asyncio.Event()
    bound = await service.start(host, port, announce_host=announce_host)
    wait = linger if linger is not None else (service.interval if announce_file else 0.0)
    writer: asyncio.Task[None] | None = None
    with _signals(stop, force):
        try:
            if announce_file is not None:
                write_record(announce_file, service.announcement())
                writer = asyncio.create_task(_keep_writing(service, announce_file))
            log.info(
                "%s serves at %s:%d, actions: %d", service.identity, *bound, len(service.actions)
            )
            await stop.wait()
        except asyncio.CancelledError:
            force.set()
            raise
        finally:
            stopping = asyncio.create_task(service.stop(grace, linger=wait))
            try:
                await _leave(service, announce_file, writer)
                await _first_of(stopping, force)
            finally:
                await _end(stopping)
    log.info("%s has stopped", service.identity)


def write_record(path: Path, record: bytes) -> None:
    """Replace the file at `path` in one step; readers see the old record or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(record)
    os.replace(fresh, path)


async def _keep_writing(service: Service, path: Path) -> None:
    while True:
        await asyncio.sleep(service.interval)
        await _write(service, path)


async def _write(service: Service, path: Path) -> None:
    try:
        await asyncio.to_thread(write_record, path, service.announcement())
    except OSError as exc:
        log.error("cannot write the announcement: %s", exc)


async def _leave(service: Service, path: Path | None, writer: asyncio.Task[None] | None) -> None:
    """Write the record that says so, once `stop` has made it true."""
    if writer is not None:
        await _end(writer)
    await asyncio.sleep(0)  # the task that stops the service begins
    if path is not None:
        await _write(service, path)


async def _first_of(stopping: asyncio.Task[None], force: asyncio.Event) -> None:
    forced = asyncio.create_task(force.wait())
    try:
        await asyncio.wait((stopping, forced), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(forced)


async def _end(task: asyncio.Task[None] | asyncio.Task[bool]) -> None:
    """Cancel a task unless it is done, and take its result."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


class _signals(contextlib.AbstractContextManager[None]):  # noqa: N801 - used like a function
    """The first signal sets `stop`, the next one `force`; undone on leaving."""

    def __init__(self, stop: asyncio.Event, force: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._force = force
        self._set: list[signal.Signals] = []

    def __enter__(self) -> None:
        for number in _SIGNALS:
            try:
                self._loop.add_signal_handler(number, self._on_signal)
            except (NotImplementedError, RuntimeError, ValueError):
                return  # not the main thread, or not this platform
            self._set.append(number)

    def __exit__(self, *_: object) -> None:
        for number in self._set:
            self._loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._force.set()
        self._stop.set()
