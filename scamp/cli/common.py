"""What all commands share: exit codes, one-line errors, arguments that may be files."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar

import click

from scamp import errors, limits
from scamp.cli.lazy import LazyGroup
from scamp.config import SEARCHED, VARIABLES
from scamp.errors import ConfigError, ScampError


class Exit(IntEnum):
    """Exit codes. `MEANINGS` tells them to users."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.OK: "done",
    Exit.FAILED: "the service answered with an error, or broke off its reply; the output could "
    "not be written; 'verify' refuses a record; or it was interrupted",
    Exit.USAGE: "wrong usage, or a file or address that is missing or cannot be used",
    Exit.UNREACHABLE: "nothing was reached: no such action, no usable instance, no connection, or "
    "no reply in time",
    Exit.REFUSED: "refused: the ticket is no good, or does not permit this",
}


def _epilog() -> str:
    lines = ["\b", "Exit codes:"]
    for code, meaning in MEANINGS.items():
        first, *others = textwrap.wrap(meaning, 72)
        lines += [f"  {code:d}  {first}", *(f"     {line}" for line in others)]
    return "\n".join(lines) + "\n"


EPILOG: Final = _epilog()

# The first class that fits decides, so subclasses stand before their bases.
_EXIT_CODES: Final[Sequence[tuple[type[ScampError], Exit]]] = (
    (errors.TicketError, Exit.REFUSED),
    (errors.AuthzTableUnavailable, Exit.UNREACHABLE),
    (errors.AuthorizationError, Exit.REFUSED),
    (errors.DiscoveryUnavailable, Exit.USAGE),
    (errors.RoutingError, Exit.UNREACHABLE),
    (errors.TransportError, Exit.UNREACHABLE),
    (errors.ScampTimeout, Exit.UNREACHABLE),
    (ConfigError, Exit.USAGE),
    (errors.DiscoveryError, Exit.USAGE),
)

_HINTS: Final[Sequence[tuple[type[ScampError], str]]] = (
    (errors.UnknownAction, "see what there is with 'scamp list actions'"),
    (errors.EnvelopeNotOffered, "choose one with --envelope"),
    (errors.DiscoveryUnavailable, "name a discovery cache file with --cache"),
    (errors.FingerprintMismatch, "the address is not, or no longer, the announced service's"),
    (errors.ConnectFailed, "check that the service runs and that its address is reachable"),
    (errors.ConnectionLost, "see the service's log"),
    (errors.ReplyTimeout, "it may have been executed; --timeout allows more"),
    (errors.TicketMalformed, "give the whole ticket, and nothing but the ticket"),
    (errors.TicketBadSignature, "check that the key is the issuer's"),
    (errors.TicketExpired, "get a new one"),
    (errors.TicketNotYetValid, "check the clocks"),
    (errors.UnconfiguredAction, "add it to the table"),
)

_REFUSALS: Final = ("unauthorized", "access_denied", "verification")


class _File(click.Path):
    """A file by its name. An empty one, as of a variable that is not set, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name of the file is empty", param, ctx)
        return super().convert(value, param, ctx)


FILE: Final = _File(dir_okay=False, path_type=Path)
"""The type of arguments and options that name a file."""


class ScampGroup(LazyGroup):
    """A group whose commands may raise `ScampError`: the user sees a line and an exit code."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        if sys.stdout is None:  # closed by our caller; a file opened now would take its place
            click.echo("Error: standard output is closed", err=True)
            raise click.exceptions.Exit(Exit.FAILED)
        try:
            return super().make_context(*arguments, **options)  # which prints --help and --version
        except BrokenPipeError:
            raise
        except OSError as exc:
            click.echo(f"Error: {exc.strerror or exc}", err=True)
            raise click.exceptions.Exit(Exit.FAILED) from exc

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ScampError as exc:
            text, code = explain(exc)
            click.echo(f"Error: {text}", err=True)
            ctx.exit(code)
        except BrokenPipeError:
            raise  # click ends quietly: whoever read the output has had enough
        except OSError as exc:
            click.echo(f"Error: {exc.strerror or exc}", err=True)
            ctx.exit(Exit.FAILED)


def explain(error: ScampError) -> tuple[str, Exit]:
    """The error as a user sees it: what happened, what to do about it if known, the exit code."""
    code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), Exit.FAILED)
    if isinstance(error, errors.ServiceError) and error.code.lower().startswith(_REFUSALS):
        code = Exit.REFUSED
    hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), None)
    from scamp.logs import redact  # what goes well need not load it

    # A service may repeat a ticket, and what a command says ends up in the logs of whoever runs it.
    text = one_line(redact(str(error)) or type(error).__name__)
    return (f"{text}; {hint}" if hint else text), code


def one_line(text: str) -> str:
    """The text without anything that could move the cursor: it may come from a stranger."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def read_file(path: Path, limit: int) -> bytes:
    """A whole file. Raises `ConfigError`, naming it, if unreadable or above `limit` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
    if len(content) > limit:
        raise ConfigError(f"{path}: larger than {limit} bytes")
    return content


def check_place(path: Path | None) -> None:
    """Raise `ConfigError` when a file cannot be put there, as something that is none is there.

    To be asked before it is read: a pipe would keep us waiting.
    """
    if path is not None and path.exists() and not path.is_file():
        raise ConfigError(f"{path}: not a regular file; it is left alone")


def standard_input() -> TextIO:
    """Standard input. Raises `ConfigError` when whoever started us has closed it."""
    if sys.stdin is None:
        raise ConfigError("standard input is closed")
    return sys.stdin


def read_ticket(value: str) -> str:
    """A ticket from the command line: itself, ``-`` for standard input, ``@FILE`` for a file."""
    if value == "-":
        stdin = standard_input()
        if stdin.isatty():
            click.echo("reading the ticket from standard input", err=True)
        content = stdin.buffer.read(limits.MAX_TICKET + 2)
    elif value.startswith("@"):
        content = read_file(Path(value[1:]), limits.MAX_TICKET + 2)
    else:
        if "," not in value and Path(value).is_file():
            raise click.UsageError(f"{value} is a file; @{value} reads the ticket in it")
        return value.strip()
    return content.decode("utf-8", "replace").strip()


Command = TypeVar("Command", bound=Callable[..., Any])


def discovery_options(command: Command) -> Command:
    """``--config``, ``--cache`` and ``--authorized-services``, for commands that need an index."""
    for option in (
        click.option(
            "--authorized-services",
            type=FILE,
            help="Who may offer what. [default: bus.authorized_services of the configuration]",
        ),
        click.option(
            "--cache",
            type=FILE,
            help="Discovery cache file. [default: discovery.cache_path of the configuration, "
            "else /tmp/scamp_discovery_cache]",
        ),
        click.option(
            "--config",
            type=FILE,
            help=f"scamp.conf to use. [default: ${', $'.join(VARIABLES)}, then "
            f"{', '.join(SEARCHED)}]",
        ),
    ):
        command = option(command)
    return command


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Rows as aligned columns under a header, two spaces between, none at the end of a line."""
    lines = [header, *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
