"""``scamp completion``, and what completes the arguments that the mesh knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from scamp import limits
from scamp.cli.common import one_line, read_file
from scamp.cli.index import find_sources
from scamp.discovery import Announcement, parse_announcement, split_records
from scamp.errors import ScampError

MAX_ITEMS: Final = 2_000
"""More suggestions than this help nobody, and shells become slow."""

_SHELLS: Final = ("bash", "zsh", "fish")
_VARIABLE: Final = "_SCAMP_COMPLETE"

_BASH_HEAD: Final = """\
# Actions of other sectors than main have a colon in their name; bash would cut words there.
COMP_WORDBREAKS=${COMP_WORDBREAKS//:}
"""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes 'scamp'.

    It completes commands, options, files, the actions for 'request' and the names of services, the
    latter from the discovery cache file. In bash ':' no longer separates words, for all commands:
    actions of other sectors than 'main' have one in their name.

    \b
    Examples:
      eval "$(scamp completion bash)"
      scamp completion zsh > ~/.zfunc/_scamp
      scamp completion fish > ~/.config/fish/completions/scamp.fish
    """
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - all three are there
        raise click.UsageError(f"no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "scamp", _VARIABLE).source()
    click.echo((_BASH_HEAD if shell == "bash" else "") + script.lstrip("\n"))


def complete_action(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Actions as 'request' takes them; the sector only where it is not ``main``."""
    found: dict[str, str] = {}
    for service in _services(ctx):
        for action in service.actions:
            sector = "" if action.sector.lower() == "main" else f"{action.sector}:"
            full = f"{sector}{action.spelling}~{action.version}"
            found.setdefault(full, ",".join(action.flags))
    return _chosen(found, incomplete)


def complete_service(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Identities of services; once the name is there, each with its random part."""
    found: dict[str, str] = {}
    for service in _services(ctx):
        found.setdefault(service.name, f"{service.sector}, {len(service.actions)} actions")
        if incomplete.startswith(service.name):
            found[service.identity] = f"{service.host}:{service.port}"
    return _chosen(found, incomplete)


def complete_sector(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Sectors that are in use."""
    sectors = {action.sector for service in _services(ctx) for action in service.actions}
    return _chosen(dict.fromkeys(sectors, ""), incomplete)


def complete_file_after(mark: str) -> Completer:
    """Completes ``@FILE``: paths behind the mark."""

    def complete(
        ctx: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if not incomplete.startswith(mark):
            return []
        written = incomplete[len(mark) :]
        folder, _, beginning = written.rpartition("/")
        above = f"{folder}/" if "/" in written else ""
        try:
            entries = sorted(Path(above or ".").expanduser().iterdir())
        except OSError:
            return []
        names = (f"{one.name}/" if one.is_dir() else one.name for one in entries)
        return [
            CompletionItem(f"{mark}{above}{name}")
            for name in names
            if name.startswith(beginning) and (beginning or not name.startswith("."))
        ][:MAX_ITEMS]

    return complete


def _services(ctx: click.Context) -> Iterable[Announcement]:
    """What the cache file tells, unchecked: these are suggestions. Empty when there is none."""
    values = ctx.params
    try:
        cache = values.get("cache") or find_sources(values.get("config"), None, None).cache
        records = split_records(read_file(cache, limits.MAX_CACHE_FILE))
    except ScampError:
        return
    for record in records:
        try:
            yield parse_announcement(record, verify=False)
        except ScampError:
            continue


def _chosen(found: dict[str, str], incomplete: str) -> list[CompletionItem]:
    wanted = incomplete.lower()
    fitting = sorted((t for t in found if t.lower().startswith(wanted)), key=str.lower)
    return [
        CompletionItem(one_line(text), help=one_line(found[text]) or None)
        for text in fitting[:MAX_ITEMS]
    ]
