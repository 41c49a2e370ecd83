"""``scamp request``: call one action, bytes in and bytes out."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from scamp import limits
from scamp.cli.common import Exit, discovery_options, one_line, read_file, read_ticket
from scamp.cli.index import find_sources, load_index
from scamp.client import Requester, parse_action
from scamp.discovery import Registry
from scamp.errors import ConfigError, ServiceError

_PIECE: Final = 64 * limits.KIB
_HELD: Final = 64 * limits.KIB
"""A body file up to this size is held, so that it can be sent again; larger ones stream."""


MakeBody = Callable[[], bytes | AsyncIterator[bytes]]


def _action(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parse_action(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    return value


@click.command("request")
@click.argument("action", metavar="ACTION[~VERSION]", callback=_action)
@click.argument("body", metavar="[BODY|-|@FILE]", default="{}")
@discovery_options
@click.option("--ticket", envvar="SCAMP_TICKET", help="Ticket to send. [env: SCAMP_TICKET]")
@click.option(
    "--ticket-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that holds the ticket; other users cannot see it, unlike --ticket.",
)
@click.option("--envelope", default="json", show_default=True, help="Form of the body.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Seconds to wait for the reply. [default: the action's own, else {limits.RPC_TIMEOUT:g}]",
)
def request(
    action: str,
    body: str,
    config: Path | None,
    cache: Path | None,
    authorized_services: Path | None,
    ticket: str | None,
    ticket_file: Path | None,
    envelope: str,
    timeout: float | None,
) -> None:
    """Call ACTION and write the body of its reply to standard output as it arrives.

    ACTION is [SECTOR:]Namespace.name; the sector is 'main' and the version 1 unless given. BODY is
    sent as it stands; '-' sends standard input, '@FILE' a file. Without one '{}' is sent.

    \b
    Examples:
      scamp request Product.Sku.fetch~1 '{"id": 7}' --ticket-file my.ticket
      scamp request back:Image.store~2 @photo.jpg --envelope octets > reply.json
    """
    if ticket_file is not None:
        ticket = read_ticket(f"@{ticket_file}")
    elif ticket is not None:
        ticket = ticket.strip()
    index = load_index(find_sources(config, cache, authorized_services))
    for note in index.notes:
        click.echo(f"note: {one_line(note)}", err=True)
    content = _body(body)
    try:
        asyncio.run(_call(index.registry, action, content, ticket, envelope, timeout))
    except ServiceError as exc:
        if exc.data is not None:
            click.echo(f"error_data: {json.dumps(exc.data)}", err=True)
        raise
    except KeyboardInterrupt:
        click.echo("Error: interrupted; the request may have been executed", err=True)
        raise SystemExit(Exit.FAILED) from None


async def _call(
    registry: Registry,
    action: str,
    make_body: MakeBody,
    ticket: str | None,
    envelope: str,
    timeout: float | None,
) -> None:
    out = sys.stdout.buffer
    async with Requester(registry) as requester:
        reply = await requester.request(
            action,
            make_body(),
            ticket=ticket,
            envelope=envelope,
            timeout=timeout,
        )
        last = b"\n"
        async for chunk in reply:
            out.write(chunk)
            out.flush()
            last = chunk[-1:]
    if last != b"\n" and out.isatty():
        out.write(b"\n")


def _body(body: str) -> MakeBody:
    """Read what is small; what streams is opened, and read once the loop runs."""
    if body == "-":
        try:
            descriptor = sys.stdin.fileno()
        except (OSError, ValueError, io.UnsupportedOperation):
            read = sys.stdin.buffer.read()  # no real file behind it, so nothing to wait for
            return lambda: read
        return lambda: _pieces(descriptor, close=False)
    if not body.startswith("@"):
        return lambda: body.encode("utf-8", "surrogateescape")
    path = Path(body[1:])
    try:
        if path.is_file() and path.stat().st_size <= _HELD:
            held = read_file(path, _HELD)
            return lambda: held
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
    return lambda: _pieces(descriptor, close=True)


async def _pieces(descriptor: int, *, close: bool) -> AsyncIterator[bytes]:
    """What can be read from the descriptor, as it comes.

    A thread of its own reads, since reading a terminal or a pipe may never return: such a thread
    of the loop's executor would keep the process from ending. It reads one piece ahead at most.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    wanted = threading.Semaphore(1)
    stopped = threading.Event()

    def read() -> None:
        piece: bytes | OSError = b" "
        while isinstance(piece, bytes) and piece:
            wanted.acquire()
            if stopped.is_set():
                break
            try:
                piece = os.read(descriptor, _PIECE)
            except OSError as exc:
                piece = exc
            with suppress(RuntimeError):  # the loop is gone: nobody wants the piece
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
        if close:
            os.close(descriptor)

    threading.Thread(target=read, name="scamp-body", daemon=True).start()
    try:
        while True:
            piece = await pieces.get()
            wanted.release()
            if isinstance(piece, OSError):
                raise ConfigError(f"the body cannot be read: {piece.strerror}") from piece
            if not piece:
                return
            yield piece
    finally:
        stopped.set()
        wanted.release()
