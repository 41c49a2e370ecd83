"""``scamp-gateway openapi``: the description of the API as a file, without a running gateway."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from gateway.commands.options import Refused, SettingsCommand, load, settings_options
from scamp.errors import ConfigError, ScampError

OPENAPI_HELP: Final = """\
\b
Exit codes:
  0  written
  1  the output cannot be written
  2  wrong usage, bad settings, or a file that cannot be used
"""


@click.command("openapi", cls=SettingsCommand, epilog=OPENAPI_HELP)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE|-",
    help="Where to write it; - is stdout. [default: -]",
)
@click.option(
    "--ticket",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with a ticket: what its holder sees, by the privilege table. The signature is not "
    "checked. [default: every exposed action]",
)
@settings_options
def openapi(output: Path, ticket: Path | None, config: Path | None, **flags: Any) -> None:
    """Write the OpenAPI document for what the discovery cache file offers.

    Nothing is started or connected to: what services say of their own actions is not in it.
    """
    from gateway.openapi import offline  # the other commands do without

    settings = load(config, flags).settings
    try:
        text = offline.document(settings, ticket)
    except (ScampError, OSError) as exc:
        raise Refused(str(exc)) from exc
    try:
        _write(None if str(output) == "-" else output, text + b"\n")
    except (ConfigError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


def _write(path: Path | None, text: bytes) -> None:
    from scamp.cli.output import opened

    with opened(path) as file:
        file.write(text)
    sys.stdout.flush()
