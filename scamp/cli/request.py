"""``scamp request``: call one action, bytes in and bytes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
from click.core import ParameterSource

from scamp import limits
from scamp.cli import progress
from scamp.cli.address import to_address
from scamp.cli.body import Body, open_body
from scamp.cli.common import FILE, Exit, discovery_options, read_ticket
from scamp.cli.completion import complete_action, complete_file_after, complete_service
from scamp.cli.output import opened
from scamp.cli.progress import Progress, counted
from scamp.cli.target import by_address, by_cache, to_fingerprint
from scamp.client import Call, ClientOptions, Deadline, Reply, Requester, parse_action
from scamp.discovery import Offer, Registry
from scamp.errors import ServiceError
from scamp.logs import redact

_OWN: Final = ("type", "request_id", "action", "version", "envelope", "ticket", "client_id")
"""Fields of the request that options or the library set."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request, as the command line describes it."""

    offers: tuple[Offer, ...]
    body: Body
    ticket: str | None
    client_id: int | None
    extra: Mapping[str, str]
    envelope: str
    timeout: float | None
    legacy_rsa: bool
    progress: bool

    def call(self, source: bytes | AsyncIterator[bytes]) -> Call:
        """What the requester is given; the clock starts."""
        own = max(offer.action.timeout or limits.RPC_TIMEOUT for offer in self.offers)
        return Call(
            offers=self.offers,
            body=source,
            deadline=Deadline.after(own if self.timeout is None else self.timeout),
            envelope=self.envelope,
            ticket=self.ticket,
            client_id=self.client_id,
            extra=self.extra,
            retry_safe=all(offer.action.has("read") for offer in self.offers),
            pinned=True,  # --service may have left some out
            caller_lowered=self.timeout is not None and self.timeout < own,
        )


def _action(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parse_action(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    return value


def _headers(
    ctx: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> dict[str, str]:
    found = {}
    for text in value:
        name, equals, content = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        if name in _OWN:
            raise click.BadParameter(f"{name} is set by other means")
        found[name] = content
    return found


@click.command("request")
@click.argument(
    "action", metavar="ACTION[~VERSION]", callback=_action, shell_complete=complete_action
)
@click.argument(
    "body", metavar="[BODY|-|@FILE]", default="{}", shell_complete=complete_file_after("@")
)
@discovery_options
@click.option(
    "--service",
    metavar="IDENTITY",
    shell_complete=complete_service,
    help="Ask this service only: an identity, or a name for any instance of it.",
)
@click.option(
    "--connect",
    "address",
    metavar="HOST:PORT",
    callback=to_address,
    help="Ask whoever is there, without discovery. The action is sent as spelt: some peers care.",
)
@click.option(
    "--fingerprint",
    metavar="AB:CD:…",
    callback=to_fingerprint,
    help="With --connect: the certificate that must be shown. Without it, any will do.",
)
@click.option("--ticket", envvar="SCAMP_TICKET", help="Ticket to send. [env: SCAMP_TICKET]")
@click.option(
    "--ticket-file",
    type=FILE,
    help="File that holds the ticket; other users cannot see it, unlike --ticket.",
)
@click.option("--client-id", type=int, help="Number of the customer on whose behalf this is.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_headers,
    help="A further field of the request's header, such as traceparent; repeat for several.",
)
@click.option("--envelope", default="json", show_default=True, help="Form of the body.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="How long to wait for the reply. "
    f"[default: the action's own, else {limits.RPC_TIMEOUT:g}]",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="Write the reply to this file, which is made or replaced once the reply is whole.",
)
@click.option(
    "--progress/--no-progress",
    "shown",
    default=None,
    help="Show how far a large body has come. [default: when stderr is a terminal]",
)
@click.option("--legacy-rsa", is_flag=True, help="Accept the TLS of old Go services, too.")
@click.pass_context
def request(
    ctx: click.Context,
    action: str,
    body: str,
    config: Path | None,
    cache: Path | None,
    authorized_services: Path | None,
    service: str | None,
    address: tuple[str, int] | None,
    fingerprint: str | None,
    ticket: str | None,
    ticket_file: Path | None,
    client_id: int | None,
    headers: Mapping[str, str],
    envelope: str,
    timeout: float | None,
    output: Path | None,
    shown: bool | None,
    legacy_rsa: bool,
) -> None:
    """Call an action and print its reply.

    The body of the reply goes to standard output as it arrives, or to a file with --output.

    ACTION is [SECTOR:]Namespace.name; the sector is 'main' and the version 1 unless given. BODY is
    sent as it stands; '-' sends standard input, '@FILE' a file. Without one '{}' is sent.

    Which service to ask comes from the discovery cache file, or from --connect. A ticket goes to no
    service whose certificate is not checked: with --connect it needs --fingerprint.

    \b
    Examples:
      scamp request Product.Sku.fetch~1 '{"id": 7}' --ticket-file my.ticket
      scamp request back:Image.store~2 @photo.jpg --envelope octets > reply.json
      scamp request _meta.documentation --service shop
      scamp request Scamp.time --connect 127.0.0.1:30100
    """
    if ticket_file is not None:
        ticket = read_ticket(f"@{ticket_file}")
    elif ticket is not None:
        ticket = ticket.strip()
    if address is None:
        if fingerprint is not None:
            raise click.UsageError("--fingerprint goes with --connect")
        registry, offers = by_cache(action, service, config, cache, authorized_services)
    else:
        if any(one is not None for one in (config, cache, authorized_services, service)):
            raise click.UsageError(
                "--connect asks no discovery: leave out --config, --cache, --authorized-services "
                "and --service"
            )
        if ticket and fingerprint is None:
            _withhold(ctx)
            ticket = None
        registry, offers = by_address(action, envelope, address, fingerprint, timeout)
    job = Job(
        offers,
        open_body(body),
        ticket,
        client_id,
        headers,
        envelope,
        timeout,
        legacy_rsa,
        progress.wanted(shown),
    )
    try:
        asyncio.run(_run(registry, job, output))
    except ServiceError as exc:
        if exc.data is not None:
            click.echo(f"error_data: {redact(json.dumps(exc.data))}", err=True)
        raise
    except KeyboardInterrupt:
        click.echo("Error: interrupted; the request may have been executed", err=True)
        raise SystemExit(Exit.FAILED) from None


def _withhold(ctx: click.Context) -> None:
    """A ticket is a password: one from the environment is left out, any other is a mistake."""
    if ctx.get_parameter_source("ticket") is not ParameterSource.ENVIRONMENT:
        raise click.UsageError("a ticket needs --fingerprint: nobody knows who is at the address")
    click.echo("note: SCAMP_TICKET not sent, since the certificate is not checked", err=True)


async def _run(registry: Registry, job: Job, output: Path | None) -> None:
    source: Any = job.body.make()
    if not isinstance(source, bytes):
        source = counted(source, Progress("sent", job.body.size, shown=job.progress))
    async with Requester(registry, ClientOptions(legacy_rsa=job.legacy_rsa)) as requester:
        reply = await requester.send(job.call(source))
        if reply.failed:
            header = reply.header
            reply.abandon()
            data = dict(header.error_data) if header.error_data is not None else None
            raise ServiceError(header.error_code, header.error, data)
        with opened(output) as out:
            await _receive(reply, out, shown=job.progress and not out.isatty())


async def _receive(reply: Reply, out: BinaryIO, *, shown: bool) -> None:
    received = Progress("received", shown=shown)
    last = b"\n"
    try:
        async for chunk in reply:
            out.write(chunk)
            out.flush()
            received.add(len(chunk))
            last = chunk[-1:]
    finally:
        received.clear()
    if last != b"\n" and out.isatty():
        out.write(b"\n")
