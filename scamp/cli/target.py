"""Where a request goes: by the discovery cache file, or straight to an address."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

import click

from scamp import limits
from scamp.cli.address import show_address
from scamp.cli.common import one_line
from scamp.cli.index import find_sources, load_index
from scamp.cli.keys import shown_by
from scamp.client import parse_action
from scamp.discovery import Action, Announcement, Offer, Registry
from scamp.errors import UnknownAction

_FINGERPRINT: Final = re.compile(r"(?:[0-9A-F]{2}:){19}[0-9A-F]{2}")


def to_fingerprint(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Callback of ``--fingerprint``: upper case, checked for its form."""
    if value is None:
        return None
    found = value.strip().upper()
    if not _FINGERPRINT.fullmatch(found):
        raise click.BadParameter("a fingerprint is 20 hex pairs, such as AB:CD:…")
    return found


def by_cache(
    action: str,
    service: str | None,
    config: Path | None,
    cache: Path | None,
    authorized_services: Path | None,
) -> tuple[Registry, tuple[Offer, ...]]:
    """The index and who offers the action there, of `service` (identity or name) if given.

    Raises UnknownAction, and what `load_index` raises.
    """
    index = load_index(find_sources(config, cache, authorized_services))
    for note in index.notes:
        click.echo(f"note: {one_line(note)}", err=True)
    offers = index.registry.find(*parse_action(action))
    if not offers:
        raise UnknownAction(action)
    if service is not None:
        wanted = service.lower()
        chosen = tuple(
            offer
            for offer in offers
            if offer.service.identity == service or offer.service.name.lower() == wanted
        )
        if not chosen:
            names = sorted({offer.service.name for offer in offers})
            raise UnknownAction(f"{action} as service {service}; {', '.join(names[:10])} would")
        offers = chosen
    return index.registry, offers


def by_address(
    action: str,
    envelope: str,
    address: tuple[str, int],
    fingerprint: str | None,
    timeout: float | None,
) -> tuple[Registry, tuple[Offer, ...]]:
    """An index that knows nothing but this address, as if it had announced the action.

    Without a fingerprint the peer is asked for its certificate first, which then has to be the
    same; that is told on stderr. Raises ConnectFailed.
    """
    host, port = address
    if fingerprint is None:
        patience = limits.CONNECT_TIMEOUT if timeout is None else timeout
        fingerprint = shown_by(host, port, min(patience, limits.CONNECT_TIMEOUT))
        click.echo(f"note: certificate {fingerprint} not checked (see --fingerprint)", err=True)
    sector, spelling, version = parse_action(action)
    namespace, _, name = spelling.rpartition(".")
    offered = Action(sector, namespace, name, version, (), (envelope,))
    place = show_address(host, port)
    service = Announcement(
        identity=place,
        fingerprint=fingerprint,
        sector=sector,
        weight=1,
        interval=5.0,
        uri=f"beepish+tls://{place}",
        host=host,
        port=port,
        envelopes=(envelope,),
        actions=(offered,),
        timestamp=time.time(),
    )
    registry = Registry()
    registry.apply(added=[service])
    return registry, (Offer(service, offered),)
