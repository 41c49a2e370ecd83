"""Memory that is free goes back to the operating system, as far as the C library is concerned.

glibc gives back by itself only what is free at the end of its heap, and something always lives
there. So large pieces stay out of it (`large_pieces_apart`), and after a peak what is free in the
middle is given back too (`Trimmer`). `docs/capacity.md` has figures, and says what Python keeps.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

log = logging.getLogger("gateway.memory")

LARGE: Final = 256 * 1024
"""Bytes from which on a piece is one of its own: such as each connection's buffer for TLS (256 KiB
in uvloop), which in the heap would become resident as a whole, and leave a hole. glibc goes up to
32 MiB with the largest piece that was freed. It begins with 128 KiB; then every large read of a
body (250 KiB at most) is had of the system, page by page: a third of what an upload cost."""

TOP: Final = 1024 * 1024
"""Bytes at the end of the heap that may be free: not each request moves it."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

LOOK: Final = 2.0
"""Seconds between looks at how many clients there are."""

PEAK: Final = 500
"""Fewer connections than these at once are no peak: they leave a few mebibytes."""

PART: Final = 0.01
"""Of the time, what it may take: clients choose when there is a peak, and a collection goes over
all that is in memory while nobody is served."""

AGAIN: Final = (2, 8, 64)
"""Looks after the end of a peak at which there may be more: what clients had is gone by then, and
the connections to services that were made for them, which are idle for a while first."""


def large_pieces_apart(environment: Mapping[str, str] = os.environ) -> bool:
    """Have glibc keep pieces of LARGE bytes and more out of its heap; False where there is no
    glibc, or where the environment says itself how it is to be. To be called once, at the start."""
    own = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if any(name in environment for name in own):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE) and mallopt(_M_TRIM_THRESHOLD, TOP))


class Peak:
    """Says when to give memory back: at the end of a peak, when there is less than half of what
    there was, and some time later again. Pure."""

    __slots__ = ("_highest", "_since")

    def __init__(self) -> None:
        self._highest = 0
        self._since = max(AGAIN)

    def due(self, load: int, highest: int) -> bool:
        """To be called at each look. `highest` is the most that there was since the last one."""
        self._highest = max(self._highest, highest)
        self._since += 1
        if self._highest < PEAK or load * 2 >= self._highest:
            return self._since in AGAIN
        self._highest = load
        self._since = 0
        return True


class Trimmer:
    """Gives memory back after each peak of `load`, which is asked for every LOOK seconds: how much
    there is, and the most that there was since it was asked last."""

    def __init__(
        self, load: Callable[[], tuple[int, int]], trim: Callable[[], object] | None = None
    ) -> None:
        """`trim` is called in a thread, by default the C library's; without one `run` returns."""
        self._load = load
        self._trim = trim or _malloc_trim()
        self._peak = Peak()

    async def run(self) -> None:
        """Look until cancelled."""
        owed, rest = False, 0.0
        while self._trim is not None:
            await asyncio.sleep(LOOK)
            load, highest = self._load()
            owed = self._peak.due(load, highest) or owed
            if owed and (began := time.monotonic()) >= rest:
                owed = False
                if load < PEAK:  # else it would hold requests up for some tens of milliseconds
                    # Empties Python's lists of free objects too: each keeps a page from going.
                    gc.collect()
                await asyncio.to_thread(self._trim)
                took = time.monotonic() - began
                rest = began + took / PART
                log.debug("gave memory back, in %.0f ms", took * 1000)


def _malloc_trim() -> Callable[[], object] | None:
    """The function of that name, which only glibc has."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    trim.argtypes = [ctypes.c_size_t]
    return lambda: trim(0)
