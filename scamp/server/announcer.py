"""Saying who a service is, again and again: by multicast, into a file, to subscribers.

A record is made anew, with a new timestamp, at every interval and whenever something changes.
While the service leaves it says so a number of times, one second apart. Protocol: section 6.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from scamp.discovery.cachefile import replace_file
from scamp.discovery.multicast import MulticastGroup, MulticastSender, encode_packet
from scamp.errors import ScampError
from scamp.limits import FAREWELL_INTERVAL, FAREWELLS
from scamp.server.liveness import LivenessFile

log: logging.Logger = logging.getLogger("scamp.server")

_MULTICAST: Final = "by multicast"
_FILE: Final = "in the file"
_LIVENESS: Final = "by a sign of life"


class Announced(Protocol):
    """What an announcer needs of a `Service`."""

    interval: float

    @property
    def uri(self) -> str: ...

    @property
    def stopping(self) -> bool: ...

    def uri_at(self, interface: str) -> str: ...

    def announcement(self, now: float | None = None, *, uri: str | None = None) -> bytes: ...

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]: ...


class Announcer:
    """Announces a started service until it has left.

    `group` is where to send datagrams, `file` where to keep the record (PATH.new is renamed over
    it), `liveness` a file to touch; each may be None. While the service stops, the record that says
    so goes out `farewells` times, `farewell_interval` seconds apart, beginning at once; once only
    where no datagram can be lost.

    Nothing that goes wrong here harms the service: it is logged when it changes, and tried again.
    """

    def __init__(
        self,
        service: Announced,
        group: MulticastGroup | None = None,
        file: Path | None = None,
        liveness: LivenessFile | None = None,
        *,
        farewells: int = FAREWELLS,
        farewell_interval: float = FAREWELL_INTERVAL,
    ) -> None:
        """Raises ConfigError when not one interface of `group` can be used."""
        self._service = service
        self._file = file
        self._liveness = liveness
        self._farewells_due = max(1, farewells) if group is not None else 1
        self._farewell_interval = farewell_interval
        self._changed = asyncio.Event()
        self._problems: dict[str, object] = {}
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._unwatch: Callable[[], None] = _nothing
        self.farewells: int = 0
        """How often it was said that the service leaves."""
        self._sender = None if group is None else MulticastSender(group)

    async def start(self) -> None:
        """Announce at once, and go on.

        Raises OSError when the file cannot be written, AnnouncementError when there can be no
        record. Cancelling is safe; `close` is due then too.
        """
        self._unwatch = self._service.watch(self._changed.set)
        record = self._service.announcement()
        self._begun = True
        if self._file is not None:
            await self._to_thread(replace_file, self._file, (record,))
        self._send()
        self._task = asyncio.create_task(self._run(), name="scamp announcer")

    async def finish(self) -> None:
        """Wait until the service has begun to stop and all farewells are said. Safe to cancel."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def close(self) -> None:
        """End now. A service that is stopping and has not said so yet does that first."""
        self._unwatch()
        self._unwatch = _nothing
        task, self._task = self._task, None
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
            if self._begun and self._service.stopping and not self.farewells:
                await self._announce()
            if task is not None and not task.cancelled():
                task.result()
        finally:
            if self._sender is not None:
                self._sender.close()

    # -- the task -----------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._service.stopping:
            await self._pause(self._service.interval)
            if not self._service.stopping:
                await self._announce()
        while True:
            await self._announce()
            if self.farewells >= self._farewells_due:
                return
            await asyncio.sleep(self._farewell_interval)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    async def _announce(self) -> None:
        leaving = self._service.stopping
        try:
            record = self._send()
            if record is not None:
                await self._write(record)
            if self._liveness is not None:
                self._touch(self._liveness)
        except Exception:
            log.exception("bug in announcing")
        self.farewells += leaving

    def _send(self) -> bytes | None:
        """Send one record for each address that is announced to the interfaces where it is.

        Returns the record of the first address, None when none could be made.
        """
        group = None if self._sender is None else self._sender.group
        interfaces: dict[str, list[str]] = {self._service.uri: []}
        for interface in () if group is None else group.interfaces:
            interfaces.setdefault(self._service.uri_at(interface), []).append(interface)
        record: bytes | None = None
        problem: ScampError | None = None
        # The first comes last, since it is the one that subscribers are to have.
        for uri, only in reversed(interfaces.items()):
            try:
                record = self._service.announcement(uri=uri)
                if self._sender is not None and only:
                    self._sender.send(encode_packet(record), only)
            except ScampError as exc:
                problem = exc
        self._tell(_MULTICAST, problem)
        return record

    async def _write(self, record: bytes) -> None:
        if self._file is None:
            return
        try:
            await self._to_thread(replace_file, self._file, (record,))
        except OSError as exc:
            self._tell(_FILE, exc)
        else:
            self._tell(_FILE, None)

    def _touch(self, liveness: LivenessFile) -> None:
        try:
            liveness.touch()
        except OSError as exc:
            self._tell(_LIVENESS, exc)
        else:
            self._tell(_LIVENESS, None)

    @staticmethod
    async def _to_thread(work: Callable[..., None], *args: object) -> None:
        """As `asyncio.to_thread`, but when cancelled it waits for the thread: an old record must
        not come after a newer one."""
        future = asyncio.get_running_loop().run_in_executor(None, work, *args)
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait((future,))
            raise

    def _tell(self, what: str, problem: Exception | None) -> None:
        """Log `problem` unless one of its kind has been there since it last went well: the texts
        differ from time to time, by the size of a packet."""
        kind = None if problem is None else (type(problem), getattr(problem, "reason", None))
        if kind == self._problems.get(what):
            return
        self._problems[what] = kind
        if problem is not None:
            log.error("cannot announce %s: %s", what, problem)
        else:
            log.info("announcing %s works again", what)


def _nothing() -> None:
    return
