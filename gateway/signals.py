"""What tells a running gateway to stop or reload; signals pull it, and so can a test."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Triggers:
    """Three events. `stop`: drain and end; `now`: end without waiting; `reload`: look at files.

    `hurry` is set when nobody needs to learn first that we are leaving: the drain delay is for load
    balancers, and a person who types Ctrl-C is none. `replaced`: another process serves in our
    place; the listeners that it has from us, else None.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self.reload = asyncio.Event()
        self.hurry = False
        self.replaced: frozenset[str] | None = None

    def terminate(self) -> None:
        """SIGTERM: the first time stop, the second time now."""
        if self.stop.is_set():
            self.now.set()
        self.stop.set()

    def interrupt(self) -> None:
        """SIGINT: as `terminate`, without the drain delay."""
        if not self.stop.is_set():
            self.hurry = True
        self.terminate()

    def replace(self, names: frozenset[str]) -> None:
        """Another process serves on the sockets of these listeners, too. If the public one is
        among them nobody has to be told."""
        self.replaced = names
        self.hurry = self.hurry or "public" in names
        self.stop.set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Pulled by SIGTERM, SIGINT and SIGHUP until the block ends. For the main thread; in any
        other, signals stay what they are."""
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.terminate,
            signal.SIGINT: self.interrupt,
            signal.SIGHUP: self.reload.set,
        }
        installed = []
        for number, handler in handlers.items():
            try:
                loop.add_signal_handler(number, handler)
            except (NotImplementedError, RuntimeError, ValueError):
                break  # not the main thread
            installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)
