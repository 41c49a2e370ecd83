"""Figures as tables: for a terminal, and for the page that shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.figures import Figure, read_figure

PLACE: Final = re.compile(
    r"(?P<begin><!-- figures(?:: (?P<names>[a-z ]+))? -->\n)(?P<shown>.*?)"
    r"(?P<end><!-- end of figures -->\n)",
    re.DOTALL,
)
"""Where tables stand in a page: those of all figures, or of some that are named."""


def plain(figure: Figure) -> str:
    """A table for a terminal."""
    lines = [f"{figure.name}: {figure.about}", "", *columns(figure.rows())]
    return "\n".join([*lines, *(f"\n{note}" for note in figure.notes)])


def markdown(figure: Figure) -> str:
    """A sentence and a table."""
    head, *body = figure.rows()
    rows = [head, ("---",) * len(head), *body]
    table = "\n".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in row)}|" for row in rows)
    return "\n\n".join([_sentence(figure.about), table, *figure.notes])


def heading(facts: dict[str, Any]) -> str:
    """When, where and with what."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    commit = f", commit {facts['commit']}" if facts.get("commit") else ""
    return (
        f"{facts['date']}{commit}. {facts['cores']} cores ({facts['processor']}), load "
        f"{facts['load_average']} before it began, {facts['system']}, Python {facts['python']}, "
        f"{versions}."
    )


def put(facts: dict[str, Any], page: str) -> str:
    """The page, with the tables of a result where such tables are.

    Raises ValueError when there is no place for them, and KeyError for a figure that the page
    names and the result does not have.
    """
    figures = {one["name"]: markdown(read_figure(one)) for one in facts["figures"]}

    def shown(place: re.Match[str]) -> str:
        if place["names"] is None:
            tables = [f"### `{name}`\n\n{table}" for name, table in figures.items()]
        else:
            tables = [figures[name] for name in place["names"].split()]
        text = "\n\n".join([heading(facts), *tables])
        return f"{place['begin']}\n{text}\n\n{place['end']}"

    text, count = PLACE.subn(shown, page)
    if not count:
        raise ValueError("the page has no <!-- figures --> and <!-- end of figures -->")
    return text


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
