"""``scamp-gateway metrics``: which there are."""

from __future__ import annotations

import click

from gateway.families import FAMILIES
from gateway.metrics_reference import metrics_reference


@click.command()
@click.option("--reference", is_flag=True, help="Print the page docs/metrics.md instead.")
def metrics(reference: bool) -> None:
    """Show every metric that /metrics can have: name, type and meaning."""
    if reference:
        click.echo(metrics_reference(), nl=False)
        return
    width = max(len(family.shown) for family in FAMILIES.values())
    for family in FAMILIES.values():
        click.echo(
            f"{family.shown:<{width}}  {family.kind:<9}  {family.text} {family.when}".rstrip()
        )
