"""The ``scamp`` command itself; its subcommands are in the modules beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from scamp.cli.common import EPILOG, ScampGroup
from scamp.cli.lazy import Later
from scamp.cli.verbosity import FORMS, LEVELS, set_up

if TYPE_CHECKING:
    from scamp.logs import Form

_COMMANDS: Final = (
    ("announce", "Sign a record for discovery, without a running service.", "announce:announce"),
    (
        "cache",
        "Keep the discovery cache file as services announce themselves by multicast.",
        "cache:cache",
    ),
    ("completion", "Print the script that completes 'scamp'.", "completion:completion"),
    ("fingerprint", "Print the fingerprint by which a service is known.", "keys:fingerprint"),
    ("keygen", "Make a key and a self-signed certificate for a service.", "keys:keygen"),
    ("list", "Show what the mesh offers, from the discovery cache file.", "listing:list_group"),
    ("request", "Call an action and print its reply.", "request:request"),
    ("serve", "Serve a few actions, for trying things.", "serve:serve"),
    ("ticket", "Read, check and make tickets.", "ticket:ticket"),
    ("verify", "Check the records of a discovery cache file.", "verify:verify"),
    ("watch", "Show announcements and changes of the index as they happen.", "watch:watch"),
)
"""Name, one line, and where it is below this package."""


@click.group(
    "scamp",
    cls=ScampGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="scamp-gateway", prog_name="scamp")
@click.option("-v", "--verbose", count=True, help="Log more: -v what happens, -vv every detail.")
@click.option(
    "--log-level", type=click.Choice(LEVELS), help="What to log at least. [default: warning]"
)
@click.option(
    "--log-form",
    type=click.Choice(FORMS),
    default=FORMS[0],
    show_default=True,
    help="Form of log lines; 'scamp' is that of other editions.",
)
@click.pass_context
def main(ctx: click.Context, verbose: int, log_level: str | None, log_form: Form) -> None:
    """Look at a mesh of SCAMP services, call its actions, and make what a service needs.

    'scamp COMMAND --help' tells more, with examples.

    \b
    Try it, in two terminals:
      scamp serve --cache trial.cache
      scamp request --cache trial.cache Scamp.echo '{"hello": "world"}'
    """
    set_up(ctx, log_level, verbose, log_form)


for _name, _short, _target in _COMMANDS:
    main.add_command(Later(_name, _short, f"scamp.cli.{_target}"))
