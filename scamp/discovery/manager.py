"""Writing the discovery cache file from what is heard on the network.

There is one such process on each machine; every client there reads the file that it writes.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from scamp import limits
from scamp.discovery.authorized import AuthorizedServices
from scamp.discovery.cachefile import (
    FileState,
    FileUnusableError,
    read_file,
    split_records,
    write_cache,
)
from scamp.discovery.listening import MAX_WAIT, PAUSE, Listening, Round
from scamp.discovery.live import Kind, LiveIndex, restore
from scamp.discovery.multicast import MulticastGroup
from scamp.discovery.pace import Pace
from scamp.discovery.rules import Rules, read_rules
from scamp.errors import ConfigError

logger: logging.Logger = logging.getLogger("scamp.discovery")

COALESCE: Final = 0.1
"""Seconds for which news waits for more before the file is written."""

RENEW_INTERVAL: Final = 2.0
"""Seconds between writings of the file for renewed timestamps alone. Some readers take a record for
dead that is older than 2.1 of its service's intervals, even in a file that is new."""

TOUCH_INTERVAL: Final = 60.0
"""Longest time between writings, or touches when nothing is new. Protocol: section 7."""

_RETRY: Final = 1.0
_LOOKS: Final = 1.0  # seconds between looks at authorized_services
_CLOCK_STEP: Final = 5.0  # seconds
_NEWS: Final = (Kind.NEW, Kind.CHANGED, Kind.LEFT, Kind.EXPIRED)


class CacheManager:
    """Keeps the file at `path` as the group's services announce themselves.

    `max_age` is what readers of the file take for its greatest age, in seconds: it is touched at
    least twice as often, and when the clock was set. News is written at once, mere renewals every
    `renew_interval` seconds. `on_round` is told, on the event loop, of all that was heard and
    refused.

    The file holds everybody whose signature is good: its readers decide whom they believe. With
    `authorized_path`, those whom that authorized_services file does not name have a tenth of the
    room, so that nobody can keep others out by making keys.

    The records of a file that is there and not too old are verified and kept as if they had just
    been heard, so that a restart costs no service. One that is too old, or without a good record,
    stays as it is until something was heard and we listened for `limits.LISTEN_FIRST` seconds. When
    nobody is heard, of those whom the file names, it stays as it is too. So long it tells by its
    age that nobody knows. When all services have left the file is empty. What cannot be written is
    logged once and tried again every second; the file is never half written, and stays when we
    stop. One that somebody else has replaced or changed is written again, at the next touch.

    Only one manager can write a file: `PATH.lock` is locked. Methods belong to the loop that
    `start` runs on.
    """

    def __init__(
        self,
        group: MulticastGroup,
        path: Path | str,
        *,
        max_age: float = limits.CACHE_MAX_AGE,
        renew_interval: float = RENEW_INTERVAL,
        authorized_path: Path | str | None = None,
        on_round: Callable[[Round], None] | None = None,
    ) -> None:
        self._path = Path(path)
        self._max_age = max_age
        self._renew_interval = renew_interval
        self._touch_interval = min(TOUCH_INTERVAL, max_age / 2)
        self._authorized_path = None if authorized_path is None else Path(authorized_path)
        self._rules = Rules()
        self._looked = -math.inf
        self._on_round = on_round
        self._index = LiveIndex(Pace())
        self._listening = Listening(group, self._index)
        self._lock: _FileLock | None = None
        self._task: asyncio.Task[None] | None = None
        self._write_at = math.inf
        self._touch_at = math.inf
        self._not_before = 0.0
        self._written_at = -math.inf
        self._ours: FileState | None = None
        self._clock = 0.0
        self.services: int = 0
        """Services that are alive."""
        self.writes: int = 0
        """How often the file was written."""
        self.last_error: str | None = None
        """Why the file could not be written, None when it could."""

    @property
    def problem(self) -> str | None:
        """What is wrong now: the file cannot be written, authorized_services cannot be read, or
        nothing is heard."""
        return self.last_error or self._rules.error or self._listening.problem

    @property
    def authorized(self) -> AuthorizedServices | None:
        """What authorized_services permits, as last read. None without such a file, or while it
        could not be read yet."""
        return self._rules.services

    async def start(self) -> None:
        """Lock the file, take what it holds, join the group, and go on in a task of our own.

        Raises `ConfigError` when another manager has the file, its directory cannot be written to,
        or the group cannot be joined; `RuntimeError` when already started.
        """
        if self._task is not None:
            raise RuntimeError("already started")
        self._lock = _FileLock.take(self._path)
        try:
            self._listening.start()
            await self._follow_rules()
            await self._take_over()
        except BaseException:
            await self._listening.stop()
            self._lock.release()
            raise
        self._task = asyncio.create_task(self._run(), name="scamp-cache-manager")

    async def stop(self) -> None:
        """Write what is not written yet, and end. The file stays. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if self._write_at < math.inf and self._not_before <= self._now():
                await self._write()
        await self._listening.stop()
        if self._lock is not None:
            self._lock.release()

    # -- starting -----------------------------------------------------------------------

    async def _take_over(self) -> None:
        now = self._now()
        self._clock = time.time() - now
        old: list[bytes] | None
        old, self._ours = await self._listening.in_worker(_read_old, self._path, self._max_age)
        if old is None:
            return
        refused = await self._listening.in_worker(restore, self._index, old, now, Pace())
        self.services = len(self._index)
        if self.services:
            self._touch_at = now
            self._write_at = now if refused else math.inf
            kept, bad = self.services, refused or "none"
            logger.info("%s: %d services kept, records refused: %s", self._path, kept, bad)
        else:
            logger.info("%s: nothing in it can be kept", self._path)
            self._not_before = now + limits.LISTEN_FIRST

    # -- running ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            due = min(max(self._write_at, self._not_before), self._touch_at)
            wait = min(MAX_WAIT, max(0.0, due - self._now()))
            try:
                await self._follow_rules()
                self._take(await self._listening.next_round(wait))
                await self._write_if_due()
            except Exception:
                logger.exception("unexpected; going on")
                await asyncio.sleep(PAUSE)

    async def _follow_rules(self) -> None:
        path, before = self._authorized_path, self._rules
        if path is None or self._now() - self._looked < _LOOKS:
            return
        self._looked = self._now()
        self._rules = await self._listening.in_worker(read_rules, path, before)
        if self._rules.services is not None:
            self._index.trusts = self._rules.services.names
        if self._rules.error != before.error and self._rules.error is not None:
            logger.warning("%s", self._rules.error)

    def _take(self, heard: Round) -> None:
        self.services = len(self._index)
        now = self._now()
        kinds = {one.kind for one in heard.heard}
        if not kinds.isdisjoint(_NEWS):
            self._write_at = min(self._write_at, now + COALESCE)
        elif Kind.RENEWED in kinds:
            soon = max(now + COALESCE, self._written_at + self._renew_interval)
            self._write_at = min(self._write_at, soon)
        if self._on_round is not None:
            try:
                self._on_round(heard)
            except Exception:
                logger.exception("what is told of announcements failed")

    async def _write_if_due(self) -> None:
        now = self._now()
        clock, self._clock = self._clock, time.time() - now
        if abs(self._clock - clock) > _CLOCK_STEP:
            self._touch_at = min(self._touch_at, now)  # the file looks older or younger than it is
        if self._write_at <= now and self._not_before <= now:
            await self._write()
        elif self._touch_at <= now:
            if self._hears(now):
                await self._touch()
            else:
                self._touch_at = now + MAX_WAIT  # or who is due and hears nothing never rests

    def _hears(self, now: float) -> bool:
        """Whether we know that what the file says is so."""
        heard = self._listening.heard_at is not None and not self._index.is_deaf(now)
        return heard or not self.services

    async def _write(self) -> None:
        try:
            self._ours = await self._listening.in_worker(_write, self._path, self._index)
        except OSError as exc:
            self._tell(f"{self._path} cannot be written: {exc.strerror or exc}")
            self._write_at = self._now() + _RETRY
            return
        self._tell(None)
        self.writes += 1
        self._written_at = self._now()
        self._write_at = math.inf
        self._touch_at = self._written_at + self._touch_interval

    async def _touch(self) -> None:
        """Show that we live. A file that is not ours any more is written again."""
        self._touch_at = self._now() + self._touch_interval
        if not await self._listening.in_worker(_touch, self._path, self._ours):
            self._write_at = self._now()

    def _tell(self, error: str | None) -> None:
        if error != self.last_error:
            if error is not None:
                logger.error("%s; trying again", error)
            else:
                logger.info("%s is written again", self._path)
        self.last_error = error

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _read_old(path: Path, max_age: float) -> tuple[list[bytes] | None, FileState | None]:
    """The records of the file, None when there is no file, and its state. None of one that is too
    old, or from a time that is still to come."""
    if not path.exists():
        return None, None
    try:
        data, state = read_file(path, limits.MAX_CACHE_FILE)
    except FileUnusableError as exc:
        logger.warning("%s", exc)
        return [], None
    good = abs(time.time() - state.mtime) <= max_age
    return (split_records(data or b"") if good else []), state


def _write(path: Path, index: LiveIndex) -> FileState:
    return write_cache(path, index.records())


def _touch(path: Path, ours: FileState | None) -> bool:
    """Touch the file if it is the one that is known as ours; False when it is not."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            same = ours is not None and ours.is_file(os.fstat(fd))
            if same:
                os.utime(fd)
            return same
        finally:
            os.close(fd)
    except OSError:
        return False


class _FileLock:
    """A lock on ``PATH.lock`` that ends with the process. The file stays: to take it away would let
    two have the lock."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    @classmethod
    def take(cls, path: Path) -> Self:
        """Raises `ConfigError` when another process has it, or the directory is no good."""
        name = path.with_name(path.name + ".lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(name, flags, 0o600)  # who can open it can lock it
        except OSError as exc:
            raise ConfigError(f"{name}: {exc.strerror or exc}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            who = f" (process {holder})" if holder.isdigit() else ""
            raise ConfigError(
                f"another cache manager{who} writes {path}; stop it, or give another --cache"
            ) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        return cls(fd)

    def release(self) -> None:
        """Let others have it. May be called twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
