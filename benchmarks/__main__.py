"""``python -m benchmarks [FIGURE …]``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import (
    bodies,
    cache,
    changing,
    crowd,
    footprint,
    latency,
    small,
    start,
    streaming,
    tables,
    ticket,
    workers,
)
from benchmarks.environment import environment
from benchmarks.figures import QUICK, Figure, Options, read_figure
from benchmarks.memory import parse_size
from benchmarks.processes import ROOT

FIGURES: Final[dict[str, Callable[[Options], Figure]]] = {
    "small": small.measure,
    "ticket": ticket.measure,
    "bodies": bodies.measure,
    "streaming": streaming.measure,
    "crowd": crowd.measure,
    "latency": latency.measure,
    "start": start.measure,
    "memory": footprint.measure,
    "workers": workers.measure,
    "cache": cache.measure,
    "changing": changing.measure,
}

KEPT: Final = ROOT / "benchmarks" / "result.json"
PAGES: Final = (ROOT / "docs" / "performance.md", ROOT / "docs" / "capacity.md")
"""The result that is in the repository, and what is made from it."""

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_PATHS: Final = ("upstream_cache", "upstream_authorized")
_DEFAULT: Final = asdict(Options())


def _help(name: str, text: str) -> str:
    return f"{text}  [default: {_DEFAULT[name]}]"


@click.command()
@click.argument("names", metavar="[FIGURE]...", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option(
    "--pairs", type=click.IntRange(1), help=_help("pairs", "How often each side is measured.")
)
@click.option("--seconds", type=float, help=_help("seconds", "Length of each run."))
@click.option("--clients", type=click.IntRange(1), help=_help("clients", "Keep-alive connections."))
@click.option(
    "--crowd", type=click.IntRange(1), help=_help("crowd", "Connections where there are many.")
)
@click.option("--size", callback=parse_size, help="Of a body that streams.  [default: 1GiB]")
@click.option("--paced", type=float, help=_help("paced", "Seconds of each run at a fixed rate."))
@click.option(
    "--generator",
    type=click.Choice(["auto", "wrk", "python"]),
    help=_help("generator", "Where the load comes from; auto is wrk if it is installed."),
)
@click.option("--quick", is_flag=True, help="Each figure once, in no time: numbers say nothing.")
@click.option("--json", "result", type=_FILE, help="Also write everything to this file.")
@click.option("--keep", is_flag=True, help=f"Also write {KEPT.name} and the pages that show it.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option("--read", type=_FILE, help="Measure nothing: show this file that --json wrote.")
@click.option(
    "--upstream-cache",
    type=_FILE,
    default=lambda: os.environ.get("SCAMP_INTEROP_CACHE"),
    help="Discovery cache file of services to measure `small` with, instead of our own. "
    "[env: SCAMP_INTEROP_CACHE]",
)
@click.option("--upstream-authorized", type=_FILE, help="authorized_services for those.")
@click.option("--action", help=_help("action", "What to call of those: an echo."))
def main(
    names: tuple[str, ...],
    quick: bool,
    result: Path | None,
    keep: bool,
    markdown: bool,
    read: Path | None,
    **given: Any,
) -> None:
    """Measure what the gateway costs beside what anyone can run, and print a table for each FIGURE,
    all of them by default.

    The machine should have nothing else to do.
    """
    if read is None:
        chosen = {name: value for name, value in given.items() if value is not None}
        options = replace(Options(), **{**(QUICK if quick else {}), **chosen})
        facts = environment() | {"options": _told(options), "figures": []}
        figures = (FIGURES[name](options) for name in names or FIGURES)
    else:
        facts = json.loads(read.read_text())
        figures = (read_figure(one) for one in facts["figures"])
    shown, facts["figures"] = tables.markdown if markdown else tables.plain, []
    click.echo(tables.heading(facts))
    for figure in figures:
        click.echo(f"\n{shown(figure)}")
        facts["figures"].append(figure.facts())
        if result is not None:  # after each of them, since all take minutes
            _write(facts, result)
    if keep:
        _write(facts, KEPT)
        for page in PAGES:
            page.write_text(tables.put(facts, page.read_text()))


def _told(options: Options) -> dict[str, Any]:
    """Without paths, which mean something on one machine only."""
    told = {name: value for name, value in asdict(options).items() if name not in _PATHS}
    return told | {"upstream": "given" if options.upstream_cache else "own"}


def _write(facts: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
