"""Figures as tables: for a terminal, and for the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Figure, read_figure

BEGIN: Final = "<!-- figures -->"
END: Final = "<!-- end of figures -->"
"""Lines of a page between which the tables stand."""


def plain(figure: Figure) -> str:
    """A table for a terminal."""
    lines = [f"{figure.name}: {figure.about}", "", *columns(figure.rows())]
    return "\n".join([*lines, *(f"\n{note}" for note in figure.notes)])


def markdown(figure: Figure) -> str:
    """A section with a table."""
    head, *body = figure.rows()
    rows = [head, ("---",) * len(head), *body]
    table = "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)
    return "\n\n".join([f"### {figure.name}", f"{_sentence(figure.about)}", table, *figure.notes])


def heading(facts: dict[str, Any]) -> str:
    """When, where and with what."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    commit = f", commit {facts['commit']}" if facts.get("commit") else ""
    return (
        f"{facts['date']}{commit}. {facts['cores']} cores ({facts['processor']}), load "
        f"{facts['load_average']} before it began, {facts['system']}, Python {facts['python']}, "
        f"{versions}."
    )


def result(facts: dict[str, Any]) -> str:
    """A whole result as Markdown: all that stands between the lines of a page."""
    figures = (markdown(read_figure(one)) for one in facts["figures"])
    return "\n\n".join([heading(facts), *figures])


def put(text: str, page: Path) -> None:
    """Replace what stands between the two lines of the page. Raises ValueError without them."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned columns: the first and the last to the left, numbers to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
