"""Following the network itself: a registry kept live from multicast, without a cache file."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from scamp import limits
from scamp.discovery.authorized import AuthorizedServices
from scamp.discovery.listening import PAUSE, Listening, Round
from scamp.discovery.live import Heard, Kind, LiveIndex
from scamp.discovery.model import Announcement, permitted
from scamp.discovery.multicast import MulticastGroup
from scamp.discovery.pace import Pace
from scamp.discovery.refusals import Refusals
from scamp.discovery.registry import Change, Draft, Key, Registry
from scamp.discovery.rules import Rules, read_rules
from scamp.discovery.status import DiscoveryStatus, LoadReport, log_difference

logger: logging.Logger = logging.getLogger("scamp.discovery")

_COMMIT_ATTEMPTS: Final = 3
_GONE: Final = (Kind.LEFT, Kind.AWAY, Kind.EXPIRED)


@dataclass(frozen=True, slots=True)
class _Offered:
    """What remains of a service after authorization."""

    service: Announcement
    unauthorized: int


@dataclass(frozen=True, slots=True)
class _Step:
    """What one round does to the registry. `applied`: by which rules."""

    added: Mapping[Key, _Offered] = field(default_factory=dict)
    removed: tuple[Key, ...] = ()
    unauthorized: int = 0
    alive: int = 0
    applied: object = None

    @property
    def services(self) -> tuple[Announcement, ...]:
        """Those that are added, as far as they are authorized."""
        return tuple(one.service for one in self.added.values())


class Observer:
    """Keeps a `Registry` as the services announce themselves, and tells how in `status`.

    `authorized_path` names an authorized_services file; without one everything is permitted. Until
    it can be read nothing is taken in; when it breaks later the last good one stays in force.
    `poll_interval` is the pause between looks at it, in seconds. `on_load` is called on the event
    loop after each change, `on_round` before it, with all that was heard and refused.

    In `status`, `loaded` is set when something was heard and we listened for `listen_first`
    seconds, so that an index of the first few services is not taken for a complete one. It is
    `stale` when nothing was heard for `max_age` seconds, or the last service expired in place of
    leaving: it may well be us who do not hear. What is known of several hosts stays in force then
    (see `live`). `mtime` is when the last good announcement came; `rejected` counts what was
    refused in the last minute or two, and as ``overload`` what there was no time to look at.

    Without authorized_services everybody who can send to the group can announce every action, and
    as many services as there is room for.

    The registry may have other sources: only services that came from here are ever removed. Methods
    belong to the loop that `start` runs on.
    """

    def __init__(
        self,
        group: MulticastGroup,
        registry: Registry,
        *,
        authorized_path: Path | str | None = None,
        max_age: float = limits.CACHE_MAX_AGE,
        listen_first: float = limits.LISTEN_FIRST,
        poll_interval: float = 1.0,
        on_load: Callable[[LoadReport], None] | None = None,
        on_round: Callable[[Round], None] | None = None,
    ) -> None:
        self._registry = registry
        self._authorized_path = None if authorized_path is None else Path(authorized_path)
        self._max_age = max_age
        self._listen_first = listen_first
        self._poll_interval = poll_interval
        self._on_load = on_load
        self._on_round = on_round
        self._listening = Listening(group, LiveIndex(Pace()))
        self._refusals = Refusals()
        self._rules = Rules()
        self._applied: object = None
        self._offered: dict[Key, _Offered] = {}
        self._unauthorized = 0
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._started = 0.0
        self._looked = 0.0
        self._told = 0.0
        self.status: DiscoveryStatus = DiscoveryStatus()

    @property
    def authorized(self) -> AuthorizedServices | None:
        """What authorized_services permits, as last read. None without such a file, or while it
        could not be read yet."""
        return self._rules.services

    async def start(self) -> None:
        """Join the group, and go on in a task of our own; what is heard comes later.

        Raises `ConfigError` when the group cannot be joined, `RuntimeError` when already started.
        Cancelling it leaves the observer stopped.
        """
        if self._task is not None:
            raise RuntimeError("already started")
        self._listening.start()
        self._applied = None  # what the last round of a time before gave may be lost
        self._started = asyncio.get_running_loop().time()
        try:
            await self.refresh()
        except BaseException:
            await self._listening.stop()
            raise
        self._task = asyncio.create_task(self._observe(), name="scamp-observer")

    async def stop(self) -> None:
        """End the task and the thread. What is in the registry stays there. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        async with self._lock:
            await self._listening.stop()

    async def refresh(self) -> None:
        """Read authorized_services now, and put in force what it says. Never fails because of it.
        Announcements cannot be asked for: they come."""
        async with self._lock:
            await self._guarded(Round(), force=True)

    async def _observe(self) -> None:
        while True:
            try:
                heard = await self._listening.next_round(self._poll_interval)
            except Exception as exc:
                async with self._lock:
                    self._fail(exc)
                await asyncio.sleep(PAUSE)
                continue
            async with self._lock:
                await self._guarded(heard, force=False)

    async def _guarded(self, heard: Round, *, force: bool) -> None:
        """Whatever goes wrong with one round, the next may go well."""
        try:
            await self._apply(heard, force=force)
        except Exception as exc:
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        text = f"unexpected: {exc!r}"
        if self.status.last_error != text:
            logger.error("discovery failed", exc_info=exc)
            self.status = replace(self.status, last_error=text)
        self._applied = None  # so that the next round begins from the whole index

    async def _apply(self, heard: Round, *, force: bool) -> None:
        began = time.perf_counter()
        now = asyncio.get_running_loop().time()
        path = self._authorized_path
        if path is not None and (force or now - self._looked >= self._poll_interval):
            self._looked = now
            self._rules = await self._listening.in_worker(_read_rules, path, self._rules, force)
        if self._on_round is not None:
            try:
                self._on_round(heard)
            except Exception:
                logger.exception("what is told of announcements failed")
        step = await self._listening.in_worker(self._prepare, heard.heard)
        change = await self._put_in_force(step)
        self._settle(step)
        for rejection in heard.refused:
            self._refusals.add(rejection, now)
        self._refusals.lost(heard.dropped, now)
        self._update_status(now, step.alive, bool(change), force=force)
        if change and self._on_load is not None:
            report = LoadReport(
                error=None,
                seconds=time.perf_counter() - began,
                cpu=heard.cpu,
                records=step.alive,
                verified=heard.verified,
                added=len(change.added),
                removed=len(change.removed),
            )
            try:
                self._on_load(report)
            except Exception:
                logger.exception("what is told of loads failed")

    def _settle(self, step: _Step) -> None:
        """It is in force. Not earlier: who cancels a refresh must not make us believe that."""
        for key in step.removed:
            del self._offered[key]
        self._offered.update(step.added)
        self._unauthorized = step.unauthorized
        self._applied = step.applied

    async def _put_in_force(self, step: _Step) -> Change:
        if not step.added and not step.removed:
            return Change()
        added = step.services
        for _ in range(_COMMIT_ATTEMPTS):
            prepared: tuple[Draft, Change]
            prepared = await self._listening.in_worker(
                self._registry.prepare, added, step.removed, Pace()
            )
            if self._registry.commit(*prepared):
                return prepared[1]
            # Another source has changed the registry since: once more, from the new state.
        return self._registry.apply(added=added, removed=step.removed)

    # -- in the worker ------------------------------------------------------------------

    def _prepare(self, heard: Iterable[Heard]) -> _Step:
        services = self._rules.services
        index = self._listening.index
        if self._authorized_path is not None and services is None:
            return _Step(alive=len(index), applied=self._applied)
        if services is not None:
            index.trusts = services.names
        marker = self._rules.services if self._authorized_path is not None else self
        removed: dict[Key, None] = {}
        touched: dict[Key, Announcement] = {}
        if marker is not self._applied:
            touched = {service.key: service for service in index.services()}
            removed = {key: None for key in self._offered if key not in touched}
        else:
            for one in heard:
                key = one.service.key
                if one.kind in _GONE:
                    touched.pop(key, None)
                    removed[key] = None
                elif one.kind is not Kind.REPEATED:
                    removed.pop(key, None)
                    touched[key] = one.service
        return self._authorize(touched, removed, marker)

    def _authorize(
        self, touched: dict[Key, Announcement], removed: Iterable[Key], marker: object
    ) -> _Step:
        rules = self._rules.services
        gone = tuple(key for key in removed if key in self._offered)
        total = self._unauthorized - sum(self._offered[key].unauthorized for key in gone)
        added: dict[Key, _Offered] = {}
        pause = Pace()
        for key, service in touched.items():
            pause()
            offered, unauthorized = service, 0
            if rules is not None:
                offered, unauthorized = permitted(service, rules.permits)
            held = self._offered.get(key)
            if held is not None and _same(held.service, offered):
                offered = held.service
            added[key] = _Offered(offered, unauthorized)
            total += unauthorized - (0 if held is None else held.unauthorized)
        return _Step(added, gone, total, len(self._listening.index), marker)

    # -- on the loop --------------------------------------------------------------------

    def _update_status(self, now: float, alive: int, changed: bool, *, force: bool) -> None:
        old = self.status
        due = now - self._told >= self._poll_interval or force
        if not (due or changed) and old.loaded:
            return
        heard_at = self._listening.heard_at
        known = self._authorized_path is None or self._rules.services is not None
        listened = now - self._started >= self._listen_first
        loaded = old.loaded or (known and listened and heard_at is not None)
        quiet = heard_at is not None and time.time() - heard_at > self._max_age
        rejected, shown = old.rejected, old.rejected_records
        if due:
            self._told = now
            rejected, shown = self._refusals.counts(now), self._refusals.shown(now)
        error = self._rules.error or self._listening.problem
        deaf = self._listening.index.is_deaf(now)
        if error is None and listened and (heard_at is None or deaf):
            error = f"nothing is heard on {self._listening.group}"
        self.status = DiscoveryStatus(
            loaded=loaded,
            stale=loaded and (quiet or (deaf and not alive)),
            mtime=heard_at,
            accepted=len(self._offered),
            rejected=rejected,
            rejected_records=shown,
            unauthorized=self._unauthorized,
            loads=old.loads + changed,
            last_error=error,
        )
        # Silence is told as the error that it is.
        log_difference(replace(old, stale=False), replace(self.status, stale=False), alive)


def _same(old: Announcement, new: Announcement) -> bool:
    """Whether they come from one record, and permit the same."""
    return old.timestamp == new.timestamp and old == new


def _read_rules(path: Path, known: Rules, force: bool) -> Rules:
    return read_rules(path, known, force=force, pause=Pace())
