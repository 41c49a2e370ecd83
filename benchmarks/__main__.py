"""``python -m benchmarks [FIGURE …]``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from benchmarks import small
from benchmarks.figures import Figure, Options, environment

FIGURES: Final[dict[str, Callable[[Options], Figure]]] = {"small": small.measure}

_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("names", metavar="[FIGURE]...", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--pairs", default=5, show_default=True, help="How often each side is measured.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of each run.")
@click.option("--clients", default=64, show_default=True, help="Keep-alive connections.")
@click.option(
    "--generator",
    type=click.Choice(["auto", "wrk", "python"]),
    default="auto",
    show_default=True,
    help="Where the load comes from; auto is wrk if it is installed.",
)
@click.option("--json", "result", type=_FILE, help="Also write everything to this file.")
@click.option(
    "--upstream-cache",
    type=_FILE,
    default=lambda: os.environ.get("SCAMP_INTEROP_CACHE"),
    help="Discovery cache file of services to measure with, instead of our own. "
    "[env: SCAMP_INTEROP_CACHE]",
)
@click.option("--upstream-authorized", type=_FILE, help="authorized_services for those.")
@click.option("--action", default="Bench.echo", show_default=True, help="What to call: an echo.")
def main(
    names: tuple[str, ...],
    pairs: int,
    seconds: float,
    clients: int,
    generator: str,
    result: Path | None,
    upstream_cache: Path | None,
    upstream_authorized: Path | None,
    action: str,
) -> None:
    """Measure what the gateway costs beside what anyone can run, and print a table for each figure.

    The machine should have nothing else to do.
    """
    options = Options(
        pairs, seconds, clients, generator, upstream_cache, upstream_authorized, action
    )
    facts = environment()
    click.echo(
        f"{facts['date']}  Python {facts['python']}  {facts['system']}  "
        f"{facts['cores']} cores, load {facts['load_average']}\n"
        + "  ".join(f"{name} {version}" for name, version in facts["versions"].items())
    )
    figures = []
    for name in names or FIGURES:
        figures.append(FIGURES[name](options))
        click.echo(f"\n{figures[-1].table()}")
    if result is not None:
        facts["figures"] = [figure.facts() for figure in figures]
        result.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
