"""What became of followed files: how often each was taken or refused, when last, and why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.metrics import Metrics


@dataclass(slots=True)
class Reloads:
    """Loads of one kind of file. Times are seconds since 1970; None: never."""

    what: str
    ok: int = 0
    failed: int = 0
    last_ok: float | None = None
    last_failed: float | None = None
    error: str | None = None
    """Why the last load failed; None when it was a good one."""


class ReloadLog:
    """Keeps `Reloads` by what was loaded, which is one of a few fixed words, and counts them."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._clock = clock
        self._found: dict[str, Reloads] = {}

    def note(self, what: str, error: str | None) -> None:
        """A file was taken, or refused because of `error`."""
        found = self._found.setdefault(what, Reloads(what))
        if error is None:
            found.ok += 1
            found.last_ok = self._clock()
        else:
            found.failed += 1
            found.last_failed = self._clock()
        found.error = error
        self._metrics.count_reload(what, ok=error is None)

    def all(self) -> list[Reloads]:
        """What there is, in the order in which it was first loaded."""
        return list(self._found.values())
