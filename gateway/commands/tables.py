"""Text for terminals: columns, and what must not move the cursor."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

WIDTH: Final = 100
"""Columns that running text takes."""


def one_line(text: str) -> str:
    """The text without anything that could move the cursor: strangers announce names."""
    return "".join(char if char.isprintable() else "?" for char in text)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines, two spaces between columns, none at the end of a line."""
    lines = [header, *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    """Running text in lines of `WIDTH`; long words stay whole."""
    return textwrap.wrap(
        one_line(text),
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def plural(count: int, word: str) -> str:
    """``1 route``, ``2 routes``."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def few(names: Sequence[str], limit: int) -> str:
    """Names with commas, at most `limit` of them, and how many more there are."""
    shown = ", ".join(names[:limit])
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown
