"""The document without a gateway: out of a discovery cache file."""

from __future__ import annotations

from pathlib import Path

from gateway.offline import cache_of, read_discovery, read_routes, read_table
from gateway.openapi.document import build
from gateway.openapi.options import openapi_options
from gateway.openapi.own import own_items
from gateway.openapi.sight import ALL, Sight, lead, select
from gateway.settings import Settings
from scamp.discovery import Registry
from scamp.errors import ConfigError, TicketError
from scamp.tickets import parse_ticket


def sight_of(settings: Settings, ticket: Path | None) -> Sight:
    """What the holder of the ticket in this file would see; everything without a file.

    The ticket's signature and time are not checked, which takes no key: its privileges count.
    Raises ConfigError and OSError.
    """
    if ticket is None:
        return ALL
    try:
        text = ticket.read_text(encoding="ascii", errors="replace").strip()
        claims = parse_ticket(text)
    except TicketError as exc:
        raise ConfigError(f"{ticket}: {exc.detail}") from None
    if settings.effective_auth_mode != "enforce":
        return ALL
    if settings.authz_table is None:
        raise ConfigError("what a ticket permits is in the privilege table: give --authz-table")
    return Sight(table=read_table(settings.authz_table), privileges=claims.privileges)


def document(settings: Settings, ticket: Path | None) -> bytes:
    """What a gateway would serve to the holder of the ticket in this file (to one who sees
    everything without a file), but for what services say of their actions: nobody is asked.

    Blocks. Raises ConfigError, DiscoveryError and OSError.
    """
    path = cache_of(settings)
    options, sight, registry = openapi_options(settings), sight_of(settings, ticket), Registry()
    step, _ = read_discovery(settings, path)
    registry.apply(added=step.added)
    selection = select(
        registry.actions(),
        sight,
        sectors=options.sectors,
        default_timeout=options.default_timeout,
        limit=options.max_actions,
    )
    table = read_routes(settings)
    routes = lead(registry, table, sight, default_timeout=options.default_timeout)
    return build(
        selection.actions,
        options.facts,
        routes=routes,
        own=own_items(options.facts),
        left_out=selection.left_out,
    )
