"""The document without a gateway: out of a discovery cache file."""

from __future__ import annotations

from pathlib import Path

from gateway.offline import read_discovery
from gateway.openapi.document import build
from gateway.openapi.options import openapi_options
from gateway.openapi.own import own_items
from gateway.openapi.sight import ALL, Sight, lead, select
from gateway.routes.model import RouteTable
from gateway.settings import Settings
from scamp import limits
from scamp.authz import AuthzTable
from scamp.discovery import Registry
from scamp.discovery.cachefile import read_file
from scamp.errors import ConfigError, ScampError, TicketError
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
    content, _ = read_file(settings.authz_table, limits.MAX_AUTHZ_TABLE)
    try:
        table = AuthzTable.parse(content or b"")
    except ScampError as exc:
        raise ConfigError(f"{settings.authz_table}: {exc}") from exc
    return Sight(table=table, privileges=claims.privileges)


def document(settings: Settings, ticket: Path | None, *, routes: RouteTable) -> bytes:
    """What a gateway would serve to the holder of the ticket in this file (to one who sees
    everything without a file), but for what services say of their actions: nobody is asked.

    Blocks. Raises ConfigError, DiscoveryError and OSError.
    """
    path = settings.discovery_cache
    if path is None:
        raise ConfigError(
            "no discovery cache: give --discovery-cache FILE, or --scamp-conf FILE "
            "(or $SCAMP) for a scamp.conf that says where it is"
        )
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
    return build(
        selection.actions,
        options.facts,
        routes=lead(registry, routes, sight, default_timeout=options.default_timeout),
        own=own_items(options.facts),
        left_out=selection.left_out,
    )
