"""The ``scamp`` command itself; its subcommands are in the modules beside."""

from __future__ import annotations

from typing import Final

import click

from scamp.cli.common import EPILOG, ScampGroup
from scamp.cli.lazy import Later

_COMMANDS: Final = (
    ("announce", "Sign a record for discovery.", "announce:announce"),
    ("completion", "Print the script that completes 'scamp'.", "completion:completion"),
    ("fingerprint", "Print the fingerprint of a certificate.", "keys:fingerprint"),
    ("keygen", "Make a key and a certificate.", "keys:keygen"),
    ("list", "Show what the mesh offers.", "listing:list_group"),
    ("request", "Call one action.", "request:request"),
    ("serve", "Serve a few actions, for trying things.", "serve:serve"),
    ("ticket", "Read, check and make tickets.", "ticket:ticket"),
    ("verify", "Check the records of a discovery cache file.", "verify:verify"),
)
"""Name, one line, and where it is below this package."""


@click.group(
    "scamp",
    cls=ScampGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="scamp-gateway", prog_name="scamp")
def main() -> None:
    """Look at a mesh of SCAMP services, call its actions, and make what a service needs.

    'scamp COMMAND --help' tells more, with examples.

    \b
    Try it, in two terminals:
      scamp serve --cache trial.cache
      scamp request --cache trial.cache Scamp.echo '{"hello": "world"}'
    """


for _name, _short, _target in _COMMANDS:
    main.add_command(Later(_name, _short, f"scamp.cli.{_target}"))
