"""Files that are followed while the gateway runs: ticket keys, privilege table, routes, TLS files.

The discovery cache and authorized_services are followed by what `discovery` makes. What
all have in common: a file that cannot be used leaves the last good one in force, and says why.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.exposition import gauge
from gateway.listener import Listener, certificate_expiry, tls_context
from gateway.routes.load import load_routes
from gateway.routes.model import RouteTable
from gateway.settings import Settings
from scamp.authz import AuthzSource
from scamp.errors import ScampError
from scamp.tickets import TicketKeys, TicketVerifier

log = logging.getLogger("gateway.following")

POLL_INTERVAL: Final = 1.0
"""Seconds between looks at small files."""

MAX_REASONS: Final = 50
"""Mistakes of one file that are logged; what makes files by itself can make one in every line."""

QUIET: Final = 0.1
"""Seconds without a change, after which a file that is written in place is whole."""

QUIET_ROUNDS: Final = 10
"""What never stops changing is read after so many of them all the same."""


class Followed(Protocol):
    """One thing that is made from files. `name` is a metric label."""

    name: str

    async def look(self, *, force: bool) -> bool:
        """Take what changed; True when there was something. Raises `ScampError` or OSError once
        per change that is no good; what was in force stays."""


class Stamps:
    """Whether any of some files is another than when last asked."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._last = self._now()

    def changed(self) -> bool:
        """Compares mtime, size and inode; a missing file differs from one that is there."""
        now = self._now()
        before, self._last = self._last, now
        return now != before

    def _now(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


class FollowedKeys:
    """Ticket keys: what a new file proves replaces what the old one proved."""

    name = "ticket_keys"

    def __init__(self, keys: TicketKeys, verifier: TicketVerifier) -> None:
        self._keys = keys
        self._verifier = verifier

    async def look(self, *, force: bool) -> bool:
        keys = self._keys.poll()
        if keys is None:
            return False
        self._verifier.replace_keys(keys)
        return True


class FollowedTable:
    """The privilege table; `path` is None when the Auth service has it, and only force reads it."""

    name = "authz_table"

    def __init__(self, source: AuthzSource, path: Path | None) -> None:
        self._source = source
        self._stamps = Stamps([path] if path is not None else [])
        self._refused = False

    async def look(self, *, force: bool) -> bool:
        if self._stamps.changed() or force:
            self._refused = True
            await self._source.refresh()
        elif not self._refused or self._source.last_error is not None:
            return False  # else it was fetched since, by whoever keeps it fresh
        self._refused = False
        return True


class FollowedRoutes:
    """The routes file: all of a new one, or none of it.

    The first half of a file is a good one, too, and many editors write in place. So what has
    changed is not read before it has been quiet for a moment.
    """

    name = "routes"

    def __init__(
        self, path: Path, use: Callable[[RouteTable], None], *, quiet: float = QUIET
    ) -> None:
        """`use` is given each table that is good; not the first, which `load` gives. `quiet` is in
        seconds."""
        self._path = path
        self._use = use
        self._quiet = quiet
        self._stamps = Stamps([path])

    def load(self) -> RouteTable:
        """The file as it is; blocks. Raises `ConfigError`."""
        return load_routes(self._path)

    async def look(self, *, force: bool) -> bool:
        changed = self._stamps.changed()
        if not changed and not force:
            return False
        for _ in range(QUIET_ROUNDS if changed else 0):
            await asyncio.sleep(self._quiet)
            if not self._stamps.changed():
                break
        self._use(await asyncio.to_thread(self.load))
        return True


class FollowedTls:
    """Certificate, key and client CA: new connections get them, old ones go on as they are."""

    name = "tls"

    def __init__(self, settings: Settings, listener: Listener, stamps: Stamps) -> None:
        """`stamps`: of the files, from before the context in force was made of them."""
        self._settings = settings
        self._listener = listener
        self._stamps = stamps
        self.expires: float | None = None
        """Seconds since 1970, of the certificate in force."""

    @staticmethod
    def stamps(settings: Settings) -> Stamps:
        """What the files are now."""
        paths = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        return Stamps(path for path in paths if path is not None)

    async def look(self, *, force: bool) -> bool:
        if not (self._stamps.changed() or force) or not self._listener.open:
            return False
        context = await asyncio.to_thread(tls_context, self._settings)
        await self._listener.start(context)
        await self.read_expiry()
        return True

    async def read_expiry(self) -> None:
        """Learn when the certificate in force expires. Raises `ConfigError`."""
        self.expires = await asyncio.to_thread(certificate_expiry, self._settings)


def _log_refused(name: str, reasons: Sequence[str]) -> None:
    """A record for each, as ``check`` has a line for each: within one a line cannot be broken."""
    for reason in reasons[:MAX_REASONS]:
        log.warning("%s not reloaded, the last good one stays: %s", name, reason)
    if len(reasons) > MAX_REASONS:
        more = len(reasons) - MAX_REASONS
        log.warning("%s not reloaded, the last good one stays: %d more mistakes", name, more)


class Following:
    """Looks at everything from time to time, and at once when asked to.

    `report` is called for everything that was taken or refused: with its name, and the error or
    None.
    """

    def __init__(
        self,
        things: Sequence[Followed],
        report: Callable[[str, str | None], None],
        *,
        interval: float = POLL_INTERVAL,
    ) -> None:
        self._things = things
        self._report = report
        self._interval = interval
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.look()

    async def look(self, *, force: bool = False) -> None:
        """Look at each once. Whatever one of them raises, the others are looked at."""
        async with self._lock:
            for thing in self._things:
                await self._look_at(thing, force=force)

    async def _look_at(self, thing: Followed, *, force: bool) -> None:
        try:
            taken = await thing.look(force=force)
        except (ScampError, OSError) as exc:
            _log_refused(thing.name, str(exc).splitlines())
            self._report(thing.name, str(exc))
        except Exception as exc:
            log.exception("%s not reloaded, the last good one stays", thing.name)
            self._report(thing.name, repr(exc))
        else:
            if taken:
                log.info("%s reloaded", thing.name)
                self._report(thing.name, None)


class CertificateCollector(Collector):
    """One gauge, there only when the public listener speaks TLS."""

    def __init__(self, expires: Callable[[], float | None]) -> None:
        self._expires = expires

    def collect(self) -> Iterable[Metric]:
        """When the certificate in force expires."""
        yield gauge("certificate_expiry_timestamp_seconds", self._expires())
