"""How far a large body has come, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from typing import Final

import click

from scamp import limits

SHOWN_FROM: Final = limits.MIB
"""Bytes; smaller bodies are through before anybody could read a line about them."""

_EVERY: Final = 0.1
"""Seconds between two states of the line."""

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def amount(count: float) -> str:
    """Bytes for people: ``12.3 MiB``."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError  # pragma: no cover - the last unit takes everything


def line(verb: str, count: int, total: int | None, seconds: float) -> str:
    """The state as text: what was moved, of how much if that is known, and how fast."""
    of = f" of {amount(total)} ({100 * count // total} %)" if total else ""
    rate = f", {amount(count / seconds)}/s" if seconds > 0 else ""
    return f"{verb} {amount(count)}{of}{rate}"


class Progress:
    """Counts bytes in one direction, and shows them on stderr while it is a terminal."""

    def __init__(self, verb: str, total: int | None = None, *, shown: bool = True) -> None:
        self.verb = verb
        self.total = total
        self.count: int = 0
        self._shown = shown
        self._began = time.monotonic()
        self._drawn_at = 0.0
        self._width = 0

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.count += count
        if not self._shown or self.count < SHOWN_FROM:
            return
        now = time.monotonic()
        if now - self._drawn_at >= _EVERY:
            self._drawn_at = now
            self._draw(line(self.verb, self.count, self.total, now - self._began))

    def clear(self) -> None:
        """Take the line away. Idempotent."""
        if self._width:
            self._draw("")

    def _draw(self, text: str) -> None:
        click.echo(f"\r{text.ljust(self._width)}\r{text}", err=True, nl=False)
        self._width = len(text)


def wanted(asked: bool | None) -> bool:
    """Whether to show a line: as asked, else when stderr is a terminal."""
    if asked is not None:
        return asked
    return sys.stderr is not None and sys.stderr.isatty()  # None when it is closed


async def counted(source: AsyncIterator[bytes], progress: Progress) -> AsyncIterator[bytes]:
    """The pieces of `source`, counted as they are taken."""
    try:
        async for piece in source:
            progress.add(len(piece))
            yield piece
    finally:
        progress.clear()
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
