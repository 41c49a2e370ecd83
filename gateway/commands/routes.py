"""``scamp-gateway routes``: every URL and where it leads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import click

from gateway.commands.entries import entry_dict, flags_of, methods_of, seconds, who
from gateway.commands.explained import explained, explained_dict
from gateway.commands.options import Refused, SettingsCommand, load, settings_options
from gateway.commands.tables import columns, few, plural, wrapped
from gateway.explain import explain
from gateway.offline import Offline, read_offline
from gateway.own import own_entries
from gateway.settings import Settings
from gateway.surface import Entry, Surface, surface
from scamp.errors import ScampError

HELP: Final = """\
\b
Examples:
  scamp-gateway routes --config gateway.toml
  scamp-gateway routes --config gateway.toml --url '/v1/*' --json
  scamp-gateway routes --config gateway.toml --explain 'GET /v1/skus/5?x=1'

\b
Exit codes:
  0  shown
  1  --check: a route leads nowhere; --explain: no action gets the request
  2  wrong usage, or a file that cannot be used
"""

_NAMES: Final = 2


@click.command(cls=SettingsCommand, epilog=HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a stable order.")
@click.option("--url", metavar="PATTERN", help="Only URLs like this; * stands for anything.")
@click.option("--action", metavar="PATTERN", help="Only actions like this, without case.")
@click.option("--aliases", is_flag=True, help="Show names by flag too, such as Product.Sku._read.")
@click.option("--check", is_flag=True, help="End with status 1 when a route leads nowhere.")
@click.option("--explain", "request", metavar="'METHOD /PATH?QUERY'", help="Say what takes this.")
@settings_options
def routes(
    *,
    as_json: bool,
    url: str | None,
    action: str | None,
    aliases: bool,
    check: bool,
    request: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Show every URL and where it leads, offline, from the discovery cache file.

    The options are those of a gateway; ticket keys are not needed.
    """
    settings = load(config, flags).settings
    try:
        mesh = read_offline(settings)
    except ScampError as exc:
        raise Refused(str(exc)) from exc
    own = own_entries(settings, mesh.registry, mesh.authz)
    view = surface(mesh.registry, mesh.routes, settings, mesh.authz, own)
    if request is not None:
        sys.exit(_explain(request, view, mesh, as_json=as_json))
    broken = [entry for entry in view.routes if entry.broken]
    view = _filtered(view, url, action)
    if as_json:
        click.echo(json.dumps(as_dict(view, settings), indent=2))
    else:
        click.echo("\n".join(lines_of(view, settings, mesh, aliases=aliases)))
    sys.exit(1 if check and broken else 0)


# -- choosing ---------------------------------------------------------------------------


def _filtered(view: Surface, url: str | None, action: str | None) -> Surface:
    if url is None and action is None:
        return view

    def kept(entries: Sequence[Entry]) -> tuple[Entry, ...]:
        return tuple(
            entry
            for entry in entries
            if (url is None or _like(entry.url, url))
            and (action is None or _like(entry.target.lower(), action.lower()))
        )

    return Surface(kept(view.routes), kept(view.actions), kept(view.aliases), kept(view.own))


def _like(text: str, pattern: str) -> bool:
    """A pattern without ``*`` may stand anywhere in the text."""
    # No character classes: brackets are rare in URLs, and surprising in patterns.
    escaped = pattern.replace("[", "[[]")
    return fnmatchcase(text, escaped if "*" in pattern else f"*{escaped}*")


# -- text -------------------------------------------------------------------------------


def lines_of(view: Surface, settings: Settings, mesh: Offline, *, aliases: bool) -> Iterator[str]:
    """The tables, and a line that sums them up."""
    if view.routes:
        yield f"ROUTES FILE {settings.routes}"
        rows = [*map(_route, view.routes)]
        last = "LINE, NOTES" if any(" " in row[-1] for row in rows) else "LINE"
        yield from columns(("METHOD", "URL", "ACTION", "WHO", "TIME", "ON", last), rows)
        for entry in view.routes:
            if entry.problem:
                mark = "!! " if entry.broken else "-- "
                where = f"{methods_of(entry)} {entry.url}"
                yield from wrapped(f"{where}: {entry.problem}", "     ", f"  {mark}")
        yield ""
    if view.actions:
        yield "ACTIONS"
        header = ("METHOD", "URL", "FLAGS", "WHO", "TIME", "ON", "BY")
        yield from columns(header, [*map(_action, view.actions)])
        yield ""
    if aliases and view.aliases:
        yield "ALIASES"
        yield from columns(("METHOD", "URL", "IS", "WHO"), [*map(_alias, view.aliases)])
        yield ""
    if view.own:
        yield "THE GATEWAY'S OWN"
        own = [(methods_of(one), one.url, who(one)) for one in view.own]
        yield from columns(("METHOD", "URL", "WHO"), own)
        yield ""
    yield from _summary(view, settings, mesh, aliases=aliases)


def _route(entry: Entry) -> tuple[str, ...]:
    line = "".join(entry.origin).rpartition(":")[2]
    if entry.problem:
        nowhere = "!! NOWHERE" if entry.broken else "-- not there"
        return methods_of(entry), entry.url, entry.target, nowhere, "", "", line
    notes = [one for one in (entry.rate, "" if _retried(entry) else "no retry") if one]
    return (
        *(methods_of(entry), entry.url, entry.target, who(entry), seconds(entry.timeout)),
        *(str(entry.instances), " ".join([line, *notes])),
    )


def _retried(entry: Entry) -> bool:
    """Only what a route takes away is worth a word."""
    return entry.route is None or entry.route.retry or entry.action is None or not entry.action.read


def _action(entry: Entry) -> tuple[str, ...]:
    return (
        *(methods_of(entry), entry.url, ",".join(flags_of(entry)), who(entry)),
        *(seconds(entry.timeout), str(entry.instances), _by(entry.origin)),
    )


def _alias(entry: Entry) -> tuple[str, ...]:
    return methods_of(entry), entry.url, _meant(entry), who(entry)


def _by(names: Sequence[str]) -> str:
    return few(names, _NAMES if len(names) == _NAMES else 1)


def _meant(entry: Entry) -> str:
    label = entry.action.label if entry.action is not None else ""
    more = len(entry.candidates) - 1
    return f"{label} (of {more + 1})" if more else label


def _summary(view: Surface, settings: Settings, mesh: Offline, *, aliases: bool) -> Iterator[str]:
    nowhere = sum(entry.broken for entry in view.routes)
    counts = [plural(len(view.routes), "route")] if settings.routes is not None else []
    if nowhere:
        counts.append(f"{nowhere} of them to NOWHERE")
    counts.append(f"{plural(len(view.actions), 'action')} in {', '.join(settings.sectors)}")
    if view.aliases and not aliases:
        count = len(view.aliases)
        counts.append(f"{count} alias{'' if count == 1 else 'es'} (--aliases)")
    counts.append(plural(len(mesh.registry.services()), "service"))
    yield "; ".join(counts)
    if view.hidden:
        hidden = [f"{sector} ({count})" for sector, count in view.hidden.items()]
        yield from wrapped(f"not exposed: {', '.join(hidden)}", "  ", "")
    if view.unnamed:
        yield from wrapped(f"no URL can name: {few(view.unnamed, 10)}", "  ", "")
    kinds = {
        entry.access.kind for entry in (*view.routes, *view.actions) if entry.access is not None
    }
    if "nobody" in kinds:
        yield "nobody: the privilege table does not list the action, so every call gets 403"
    if "unknown" in kinds:
        yield "a ticket (?): with which privileges is not known without --authz-table FILE"


# -- JSON -------------------------------------------------------------------------------


def as_dict(view: Surface, settings: Settings) -> dict[str, Any]:
    """All of it for machines."""
    return {
        "sectors": list(settings.sectors),
        "routes_file": None if settings.routes is None else str(settings.routes),
        "routes": [*map(entry_dict, view.routes)],
        "actions": [*map(entry_dict, view.actions)],
        "aliases": [*map(entry_dict, view.aliases)],
        "gateway": [*map(entry_dict, view.own)],
        "not_exposed": dict(view.hidden),
        "unnamed": list(view.unnamed),
    }


# -- one request ------------------------------------------------------------------------


def _explain(request: str, view: Surface, mesh: Offline, *, as_json: bool) -> int:
    try:
        found = explain(request, view, mesh.routes)
    except ValueError as exc:
        raise Refused(f"--explain: {exc}") from exc
    if as_json:
        click.echo(json.dumps(explained_dict(found), indent=2))
    else:
        click.echo("\n".join(explained(found)))
    return 0 if found.status is None else 1
