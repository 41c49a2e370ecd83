"""``scamp list services`` and ``scamp list actions``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from scamp.cli.common import discovery_options, table
from scamp.cli.completion import complete_sector
from scamp.cli.filters import fits, is_sector
from scamp.cli.index import find_sources, load_index
from scamp.discovery import Announcement, Offer

Facts = dict[str, Any]


@click.group("list")
def list_group() -> None:
    """Show what the mesh offers, from the discovery cache file.

    Works offline: nothing is contacted. Records that are refused are told on stderr, with the
    reason.
    """


@list_group.command("services")
@discovery_options
@click.option("--sector", shell_complete=complete_sector, help="Only services of this sector.")
@click.option("--name", metavar="GLOB", help="Only services whose name fits, such as 'shop*'.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, with every detail.")
def services(
    config: Path | None,
    cache: Path | None,
    authorized_services: Path | None,
    sector: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """List running services.

    ACTIONS counts those that authorized_services permits. A service of weight 0 is leaving and
    gets no requests.

    \b
    Examples:
      scamp list services --sector main
      scamp list services --cache trial.cache --json
    """
    index = load_index(find_sources(config, cache, authorized_services))
    index.report()
    found = sorted(
        (_service(service) for service in index.registry.services()),
        key=lambda facts: (facts["sector"].lower(), facts["name"].lower(), facts["identity"]),
    )
    chosen = [
        facts
        for facts in found
        if is_sector(facts["sector"], sector) and fits((facts["name"], facts["identity"]), name)
    ]
    if as_json:
        click.echo(json.dumps(chosen, indent=2))
        return
    rows = [
        (
            facts["name"],
            facts["sector"],
            f"{facts['host']}:{facts['port']}",
            f"{facts['weight']:g}",
            str(facts["actions"]),
            ",".join(facts["envelopes"]),
            facts["fingerprint"],
        )
        for facts in chosen
    ]
    header = ("NAME", "SECTOR", "ADDRESS", "WEIGHT", "ACTIONS", "ENVELOPES", "FINGERPRINT")
    click.echo(table(rows, header))


@list_group.command("actions")
@discovery_options
@click.option("--sector", shell_complete=complete_sector, help="Only actions of this sector.")
@click.option("--name", metavar="GLOB", help="Only actions that fit, such as 'Product.*'.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, with every detail.")
def actions(
    config: Path | None,
    cache: Path | None,
    authorized_services: Path | None,
    sector: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """List actions, once each, with the number of services that offer them.

    ACTION can be given to 'scamp request' as it stands. FLAGS are those of the first service:
    'noauth' takes no ticket, 't30' has a deadline of 30 seconds.

    \b
    Examples:
      scamp list actions --name 'Product.*'
      scamp list actions --sector background --json
    """
    index = load_index(find_sources(config, cache, authorized_services))
    index.report()
    found = sorted(
        (_action(offers) for offers in index.registry.actions()),
        key=lambda facts: (facts["sector"].lower(), facts["name"].lower(), facts["version"]),
    )
    chosen = [
        facts
        for facts in found
        if is_sector(facts["sector"], sector)
        and fits((facts["name"], f"{facts['name']}~{facts['version']}", facts["action"]), name)
    ]
    if as_json:
        click.echo(json.dumps(chosen, indent=2))
        return
    rows = [
        (
            facts["action"],
            ",".join(facts["flags"]),
            ",".join(facts["envelopes"]),
            str(len(facts["services"])),
        )
        for facts in chosen
    ]
    click.echo(table(rows, ("ACTION", "FLAGS", "ENVELOPES", "SERVICES")))


def _service(service: Announcement) -> Facts:
    return {
        "name": service.name,
        "identity": service.identity,
        "fingerprint": service.fingerprint,
        "sector": service.sector,
        "weight": service.weight,
        "interval": service.interval,
        "uri": service.uri,
        "host": service.host,
        "port": service.port,
        "envelopes": list(service.envelopes),
        "actions": len(service.actions),
        "timestamp": service.timestamp,
    }


def _action(offers: tuple[Offer, ...]) -> Facts:
    first = min(offers, key=lambda offer: offer.service.identity).action
    envelopes = dict.fromkeys(one for offer in offers for one in offer.action.envelopes)
    return {
        "action": f"{first.sector}:{first.spelling}~{first.version}",
        "sector": first.sector,
        "name": first.spelling,
        "version": first.version,
        "flags": list(first.flags),
        "timeout": first.timeout,
        "noauth": first.noauth,
        "envelopes": list(envelopes),
        "services": sorted(offer.service.identity for offer in offers),
    }
