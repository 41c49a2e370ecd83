"""Discovery of a mock mesh: the same records in a registry and in a cache file."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Hashable
from pathlib import Path
from typing import Final

from scamp.discovery import Offer, Registry, parse_announcement, write_cache
from scamp.testing.calls import Recorder, UnexpectedCall

_TOUCHED_EVERY: Final = 30.0  # seconds; readers take a file of 120 s for stale
_CONFIGURED_AGE: Final = 86_400


class WatchedRegistry(Registry):
    """A registry that notes what was looked for in vain."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def find(self, sector: str, action: str, version: int = 1) -> tuple[Offer, ...]:
        """As in every registry."""
        found = super().find(sector, action, version)
        if not found:
            self._recorder.unexpected.append(
                UnexpectedCall(f"{sector}:{action}", version, "no service announces it")
            )
        return found


class Directory:
    """Records by owner, in a registry and in `folder`: files ``discovery`` and ``scamp.conf``.

    Every change is at once in the registry and in the cache file, which is replaced as a whole.
    """

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.registry = registry
        self.cache_file: Path = folder / "discovery"
        self.config_file: Path = folder / "scamp.conf"
        self._records: dict[Hashable, tuple[bytes, tuple[str, str]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Write both files, and keep the cache file fresh from now on."""
        self.config_file.write_text(
            f"discovery.cache_path = {self.cache_file}\n"
            f"discovery.cache_max_age = {_CONFIGURED_AGE}\n"
            "bus.address = 127.0.0.1\n"
            f"discovery.port = {_free_udp_port()}\n"
        )
        self._write()
        self._keep_fresh()

    def close(self) -> None:
        """Leave the files as they are."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def put(self, records: dict[Hashable, bytes]) -> None:
        """Put the record of each owner in, in place of its last, and of what another owner said of
        the same service. Raises AnnouncementError."""
        added, removed = [], []
        for owner, raw in records.items():
            announced = parse_announcement(raw)
            before = self._records.get(owner)
            if before is not None and before[1] != announced.key:
                removed.append(before[1])
            for other in [one for one, (_, key) in self._records.items() if key == announced.key]:
                del self._records[other]
            self._records[owner] = (raw, announced.key)
            added.append(announced)
        self.registry.apply(added=added, removed=removed)
        self._write()

    def drop(self, owner: Hashable) -> None:
        """Take the record of an owner out, if there is one."""
        before = self._records.pop(owner, None)
        if before is not None:
            self.registry.apply(removed=(before[1],))
            self._write()

    def _write(self) -> None:
        write_cache(self.cache_file, [raw for raw, _ in self._records.values()])

    def _keep_fresh(self) -> None:
        os.utime(self.cache_file)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_TOUCHED_EVERY, self._keep_fresh)


def _free_udp_port() -> int:
    """One that nobody listens on, so that a mesh under test never meets a real one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
