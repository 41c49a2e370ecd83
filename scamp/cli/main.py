"""The ``scamp`` command itself; its subcommands are in the modules beside."""

from __future__ import annotations

import click

from scamp.cli.common import EPILOG, ScampGroup
from scamp.cli.keys import fingerprint, keygen
from scamp.cli.listing import list_group
from scamp.cli.request import request
from scamp.cli.ticket import ticket


@click.group(
    "scamp",
    cls=ScampGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="scamp-gateway", prog_name="scamp")
def main() -> None:
    """Look at a mesh of SCAMP services, call its actions, and make keys and tickets."""


main.add_command(fingerprint)
main.add_command(keygen)
main.add_command(list_group)
main.add_command(request)
main.add_command(ticket)
