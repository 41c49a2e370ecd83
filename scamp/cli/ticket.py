"""``scamp ticket show``, ``verify`` and ``issue``."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from scamp import limits
from scamp.authz import AuthzTable
from scamp.cli.common import FILE, read_file, read_ticket
from scamp.errors import ConfigError
from scamp.keys import load_private_key
from scamp.tickets import (
    MAX_KEY_FILE,
    Ticket,
    TicketKeys,
    TicketVerifier,
    issue_ticket,
    parse_ticket,
)

USUAL_KEYS: Final = (
    "/etc/scamp/auth/ticket_verify_public_key.pem",
    "/etc/GT/auth/ticket_verify_public_key.pem",
)


@click.group("ticket")
def ticket() -> None:
    """Read, check and make tickets.

    A ticket on the command line can be seen by every user of the machine: prefer '-' to read it
    from standard input, or '@FILE'.
    """


@ticket.command("show")
@click.argument("text", metavar="[TICKET|-|@FILE]", default="-")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(text: str, as_json: bool) -> None:
    """Print what a ticket says. Its signature is NOT checked: see 'verify'.

    \b
    Examples:
      scamp ticket show @my.ticket
      scamp ticket show --json < my.ticket
    """
    _print(parse_ticket(read_ticket(text)), time.time(), as_json=as_json)


@ticket.command("verify")
@click.argument("text", metavar="[TICKET|-|@FILE]", default="-")
@click.option(
    "--key",
    "key_paths",
    type=FILE,
    multiple=True,
    help="Public key or certificate of the issuer, PEM; repeat for several. "
    f"[default: {USUAL_KEYS[0]} or {USUAL_KEYS[1]}]",
)
@click.option(
    "--leeway",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=limits.TICKET_LEEWAY,
    show_default=True,
    help="How far the issuer's clock may be ahead.",
)
@click.option("--action", metavar="NAME", help="Also check that it permits this action.")
@click.option("--authz-table", type=FILE, help="The privilege table, JSON, for --action.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def verify(
    text: str,
    key_paths: tuple[Path, ...],
    leeway: float,
    action: str | None,
    authz_table: Path | None,
    as_json: bool,
) -> None:
    """Check a ticket's signature and time, and whether it permits an action.

    Prints what it says and exits with 0 if it is good, with 4 if it is not.

    \b
    Examples:
      scamp ticket verify @my.ticket --key public.pem
      scamp ticket verify - --authz-table authz.json --action Product.Sku.fetch
    """
    if (action is None) != (authz_table is None):
        raise click.UsageError("--action and --authz-table go together")
    verifier = TicketVerifier(TicketKeys(_keys(key_paths)).load(), leeway=leeway)
    now = time.time()
    found = verifier.verify(read_ticket(text), now)
    if action is not None and authz_table is not None:
        table = _table(authz_table)
        table.check(action.partition("~")[0], found)
    _print(found, now, as_json=as_json)


def _table(path: Path) -> AuthzTable:
    content = read_file(path, limits.MAX_AUTHZ_TABLE)
    try:
        return AuthzTable.parse(content)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from exc


@ticket.command("issue")
@click.option(
    "--key", "key_path", type=FILE, required=True, help="The issuer's RSA private key, PEM."
)
@click.option("--user", "user_id", type=click.IntRange(min=0), required=True, help="User id.")
@click.option("--client", "client_id", type=click.IntRange(min=0), required=True, help="Client id.")
@click.option(
    "--privilege",
    "privileges",
    type=click.IntRange(min=0),
    multiple=True,
    help="Number of a privilege; repeat for several.",
)
@click.option(
    "--start",
    type=click.IntRange(min=0),
    help="First second of its validity, since 1970. [default: now]",
)
@click.option(
    "--length",
    metavar="SECONDS",
    type=click.IntRange(min=1),
    default=3600,
    show_default=True,
    help="How long it is valid.",
)
def issue(
    key_path: Path,
    user_id: int,
    client_id: int,
    privileges: tuple[int, ...],
    start: int | None,
    length: int,
) -> None:
    """Sign a ticket and print it: for tests and demonstrations.

    In a real mesh the Auth service does this, with a key that nobody else has.

    \b
    Example:
      scamp keygen auth
      scamp ticket issue --key auth.key --user 7 --client 1 --privilege 3 > my.ticket
      scamp ticket verify @my.ticket --key auth.crt
    """
    try:
        private_key = load_private_key(read_file(key_path, MAX_KEY_FILE))
    except ConfigError as exc:
        text = str(exc)
        raise ConfigError(
            text if text.startswith(str(key_path)) else f"{key_path}: {text}"
        ) from exc
    click.echo(
        issue_ticket(
            private_key,
            user_id=user_id,
            client_id=client_id,
            privileges=privileges,
            start=int(time.time()) if start is None else start,
            length=length,
        )
    )


def _keys(given: tuple[Path, ...]) -> list[Path]:
    if given:
        return list(given)
    for usual in USUAL_KEYS:
        if Path(usual).exists():
            return [Path(usual)]
    raise click.UsageError("no key to verify with: give the issuer's public key with --key")


def _print(found: Ticket, now: float, *, as_json: bool) -> None:
    state = (
        "expired"
        if now >= found.expires
        else "not yet valid"
        if now < found.validity_start
        else "in force"
    )
    if as_json:
        facts = {
            "version": found.version,
            "user_id": found.user_id,
            "client_id": found.client_id,
            "validity_start": found.validity_start,
            "validity_length": found.validity_length,
            "expires": found.expires,
            "state": state,
            "privileges": sorted(found.privileges),
        }
        click.echo(json.dumps(facts))
        return
    click.echo(f"user        {found.user_id}")
    click.echo(f"client      {found.client_id}")
    click.echo(f"valid from  {_date(found.validity_start)}")
    click.echo(f"valid to    {_date(found.expires)} ({state})")
    click.echo(f"privileges  {', '.join(map(str, sorted(found.privileges))) or 'none'}")


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"
