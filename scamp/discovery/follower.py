"""Following the discovery cache file: the shell that has a clock, a thread and an event loop.

What counts as damaged, cut off or a replay is decided in `loader`. Here the file is looked at, in
one worker thread of our own, which also builds the next state of the registry; the loop only puts
it in force.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from scamp import limits
from scamp.discovery import loader
from scamp.discovery.cachefile import FileState, FileUnusableError, read_file
from scamp.discovery.pace import Pace, let_go
from scamp.discovery.registry import Change, Draft, Registry
from scamp.discovery.rules import Rules, is_settled, read_rules
from scamp.discovery.status import DiscoveryStatus, LoadReport, log_difference
from scamp.discovery.worker import Worker

logger: logging.Logger = logging.getLogger("scamp.discovery")

_COMMIT_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class _Seen:
    """The cache file as last looked at, and what was wrong with it."""

    file: FileState | None = None
    settled: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """All that one look hands on to the next. `good` is the state of the last good version."""

    loaded: loader.Loaded = field(default_factory=loader.Loaded)
    seen: _Seen = _Seen()
    rules: Rules = field(default_factory=Rules)
    good: FileState | None = None


@dataclass(slots=True)
class _Look:
    """What one look gave."""

    known: _Known
    step: loader.Step | None = None
    draft: Draft | None = None
    change: Change = field(default_factory=Change)
    size: int = 0
    cpu: float = 0.0


class Retired(Protocol):
    """A state that was replaced. `parts` are what it is made of."""

    def parts(self) -> list[object]: ...


class CacheFollower:
    """Keeps a `Registry` as the cache file says, and says how that goes in `status`.

    `authorized_path` names an authorized_services file; without one everything is permitted. Until
    it can be read nothing is loaded; when it breaks later (unreadable, empty, or not one line of it
    good) the last good one stays in force. `max_age` and `poll_interval` are seconds. `on_load` is
    called on the event loop after each version of the file that was taken or found damaged.

    The registry may have other sources: only services that came from this file are ever removed.
    Methods belong to the loop that `start` runs on.
    """

    def __init__(
        self,
        path: Path | str,
        registry: Registry,
        *,
        authorized_path: Path | str | None = None,
        max_age: float = limits.CACHE_MAX_AGE,
        poll_interval: float = 1.0,
        on_load: Callable[[LoadReport], None] | None = None,
    ) -> None:
        self._path = Path(path)
        self._registry = registry
        self._authorized_path = None if authorized_path is None else Path(authorized_path)
        self._max_age = max_age
        self._poll_interval = poll_interval
        self._on_load = on_load
        self._known = _Known()
        self._renewed = 0.0
        self._lock = asyncio.Lock()
        self._worker = Worker("scamp-discovery")
        self._task: asyncio.Task[None] | None = None
        self.status: DiscoveryStatus = DiscoveryStatus()

    async def start(self) -> None:
        """Look at the file once, completely, then go on in a task of our own.

        Does not fail when the file is missing or bad: see `status`. Cancelling it leaves the
        follower stopped. Raises `RuntimeError` when already started.
        """
        if self._task is not None:
            raise RuntimeError("already started")
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name="scamp-discovery")

    async def stop(self) -> None:
        """End the task and the thread. What is in the registry stays there. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        async with self._lock:
            await self._worker.stop()

    async def refresh(self) -> None:
        """Read the files now, whether or not they seem to have changed, and put in force what they
        say. Never fails because of them. Cancelling it is safe: the work is thrown away."""
        await self._guarded(force=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_interval)
            await self._guarded(force=False)

    async def _guarded(self, *, force: bool) -> None:
        """Whatever goes wrong with one look, the next may go well."""
        async with self._lock:
            try:
                await self._check(force=force)
            except Exception as exc:
                text = f"unexpected: {exc!r}"
                if self.status.last_error != text:
                    logger.exception("discovery failed")
                    self.status = replace(self.status, last_error=text)

    async def _check(self, *, force: bool) -> None:
        began = time.perf_counter()
        look: _Look = await self._worker.run(self._look, self._known, force)
        change = await self._put_in_force(look)
        before, self._known = self._known, look.known
        fresh = look.step is not None and look.step.state is not before.loaded
        failed = look.known.seen.error is not None and (
            look.known.seen.error != before.seen.error or look.known.seen.file != before.seen.file
        )
        rules = look.known.rules.error
        if rules is not None and rules != before.rules.error:
            failed = True
        self._update_status(fresh=fresh, failed=failed)
        retired: list[Retired] = [before.loaded]
        if look.draft is not None:
            retired.append(look.draft.base)
        report = self._report(look, change, time.perf_counter() - began)
        if fresh:
            # The last reference to a large old state would free it here, on the loop.
            del before, look, change
            self._worker.submit(partial(_let_go, retired))
        if self._on_load is not None and (fresh or failed):
            try:
                self._on_load(report)
            except Exception:
                logger.exception("what is told of loads failed")

    async def _put_in_force(self, look: _Look) -> Change:
        for _ in range(_COMMIT_ATTEMPTS):
            if look.draft is None or self._registry.commit(look.draft, look.change):
                return look.change
            # Another source has changed the registry since: once more, from the new state.
            await self._worker.run(_draft, look, self._registry)
        if look.step is None:  # pragma: no cover - a draft comes from a step
            return look.change
        return self._registry.apply(added=look.step.added, removed=look.step.removed)

    # -- in the worker ------------------------------------------------------------------

    def _look(self, known: _Known, force: bool) -> _Look:
        cpu = time.thread_time()
        rules = known.rules
        if self._authorized_path is not None:
            rules = read_rules(self._authorized_path, rules, force=force, pause=Pace())
        look = _Look(replace(known, rules=rules))
        if self._authorized_path is not None and rules.services is None:
            look.known = replace(look.known, seen=_Seen(error=rules.error))
            return look
        seen = known.seen
        unchanged = seen.file if seen.settled and not force else None
        try:
            data, file = read_file(self._path, limits.MAX_CACHE_FILE, unchanged)
            if data is not None:
                look.size = len(data)
                seen = _Seen(file, is_settled(file))
                look.step = loader.load(
                    known.loaded, data, rules.services, Pace(), wall=time.time()
                )
                look.known = replace(look.known, good=file)
        except FileUnusableError as exc:
            seen = _Seen(error=str(exc))
        except loader.FileDamagedError as exc:
            seen = replace(seen, error=f"{self._path}: {exc}")
        if look.step is None:
            look.step = loader.authorize(known.loaded, rules.services, Pace())
        look.known = replace(look.known, seen=seen, loaded=look.step.state)
        if look.step.added or look.step.removed:
            _draft(look, self._registry)
        look.cpu = time.thread_time() - cpu
        return look

    # -- on the loop --------------------------------------------------------------------

    def _update_status(self, *, fresh: bool, failed: bool) -> None:
        known, old = self._known, self.status
        loaded = known.loaded
        mtime = None if known.good is None else known.good.mtime
        now = time.monotonic()
        if mtime != old.mtime:
            self._renewed = now
        rejected = old.rejected
        shown = old.rejected_records
        if fresh:
            rejected = MappingProxyType(loader.count_reasons(loaded.rejections))
            shown = loaded.rejections[: limits.MAX_REJECTED_SHOWN]
        self.status = DiscoveryStatus(
            loaded=known.good is not None,
            # The second when the clock was set back: then the file is from a time to come.
            stale=mtime is not None
            and (time.time() - mtime > self._max_age or now - self._renewed > self._max_age),
            mtime=mtime,
            accepted=len(loaded.in_force) - loaded.kept,
            kept=loaded.kept,
            rejected=rejected,
            rejected_records=shown,
            unauthorized=loaded.unauthorized,
            loads=old.loads + fresh,
            failed_loads=old.failed_loads + failed,
            last_error=known.seen.error or known.rules.error,
        )
        log_difference(old, self.status, len(loaded.in_force))

    def _report(self, look: _Look, change: Change, seconds: float) -> LoadReport:
        return LoadReport(
            error=look.known.seen.error or look.known.rules.error,
            seconds=seconds,
            cpu=look.cpu,
            size=look.size,
            records=len(look.known.loaded.records),
            verified=0 if look.step is None else look.step.verified,
            added=len(change.added),
            removed=len(change.removed),
        )


def _let_go(retired: list[Retired]) -> None:
    """Free what has been replaced. Bit by bit: a whole index at once keeps the interpreter lock,
    and with it the event loop, for some 20 ms."""
    parts = [part for one in retired for part in one.parts()]
    retired.clear()
    let_go(parts, Pace(), stride=16)


def _draft(look: _Look, registry: Registry) -> None:
    """Prepare the next state of the registry."""
    if look.step is not None:
        look.draft, look.change = registry.prepare(look.step.added, look.step.removed, Pace())
