"""``scamp fingerprint`` and ``scamp keygen``."""

from __future__ import annotations

import os
import re
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from scamp import keys, limits
from scamp.cli.address import show_address, to_address
from scamp.cli.common import FILE, read_file
from scamp.errors import ConfigError, ConnectFailed
from scamp.transport.tls import client_context, peer_fingerprint

MAX_CERTIFICATE_FILE: Final = limits.MIB
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@click.command("fingerprint")
@click.argument("files", nargs=-1, type=FILE)
@click.option(
    "--connect",
    "addresses",
    multiple=True,
    metavar="HOST:PORT",
    callback=to_address,
    help="Ask a running service for its certificate. Nothing is sent but the TLS handshake.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=limits.CONNECT_TIMEOUT,
    show_default=True,
    help="How long to wait for each connection.",
)
def fingerprint(
    files: tuple[Path, ...], addresses: tuple[tuple[str, int], ...], timeout: float
) -> None:
    """Print the fingerprint by which a service is known.

    FILE is a certificate, PEM or DER. With one certificate only the fingerprint is printed, with
    several a line "FINGERPRINT  NAME" for each. Lines of authorized_services begin with it.

    \b
    Examples:
      scamp fingerprint shop.crt
      scamp fingerprint --connect 10.0.0.5:30100
    """
    if not files and not addresses:
        raise click.UsageError("give a certificate FILE or --connect HOST:PORT")
    found = [(_of_file(path), str(path)) for path in files]
    found += [(shown_by(*address, timeout), show_address(*address)) for address in addresses]
    for print_, name in found:
        click.echo(print_ if len(found) == 1 else f"{print_}  {name}")


@click.command("keygen")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Directory to write to.",
)
@click.option(
    "--bits",
    type=click.IntRange(keys.MIN_BITS, keys.MAX_BITS),
    default=2048,
    show_default=True,
    help="Length of the RSA key.",
)
@click.option(
    "--days",
    type=click.IntRange(1, keys.MAX_DAYS),
    default=3650,
    show_default=True,
    help="How long the certificate says that it is valid; SCAMP does not check it.",
)
@click.option("--force", is_flag=True, help="Replace files that are there already.")
def keygen(name: str, out: Path, bits: int, days: int, force: bool) -> None:
    """Make a key and a self-signed certificate for a service.

    Writes NAME.key, which only you can read, and NAME.crt, and prints the certificate's
    fingerprint for authorized_services. Existing files are left alone unless --force is given.

    \b
    Example:
      scamp keygen shop --out keys
    """
    if not _NAME.fullmatch(name):
        raise click.BadParameter(
            "letters, digits, '.', '_' and '-' make a name", param_hint="'NAME'"
        )
    key_path, certificate_path = out / f"{name}.key", out / f"{name}.crt"
    present = [path for path in (key_path, certificate_path) if path.exists()]
    if present and not force:
        raise ConfigError(f"{present[0]} is there already; --force replaces it")
    key, certificate = keys.generate(name, bits=bits, days=days, now=datetime.now(UTC))
    _write(key_path, key, mode=0o600, force=force)
    _write(certificate_path, certificate, mode=0o644, force=force)
    click.echo(f"wrote {key_path} and {certificate_path}", err=True)
    click.echo(keys.fingerprint(certificate))


def _of_file(path: Path) -> str:
    try:
        return keys.fingerprint(read_file(path, MAX_CERTIFICATE_FILE))
    except ConfigError as exc:
        text = str(exc)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from exc


def shown_by(host: str, port: int, timeout: float) -> str:
    """The fingerprint of whatever certificate is shown there. Raises `ConnectFailed`."""
    address = show_address(host, port)
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            client_context(legacy_rsa=True).wrap_socket(plain) as connection,
        ):
            found = peer_fingerprint(connection)
    except TimeoutError as exc:
        raise ConnectFailed(address, f"no answer within {timeout:g} s") from exc
    except ssl.SSLError as exc:
        raise ConnectFailed(address, f"TLS: {exc.reason or exc}") from exc
    except OSError as exc:
        raise ConnectFailed(address, exc.strerror or str(exc)) from exc
    if not found:
        raise ConnectFailed(address, "the peer showed no certificate")
    return found


def _write(path: Path, content: bytes, *, mode: int, force: bool) -> None:
    """Write a file that has its mode from the first byte on; replaces at once or not at all."""
    target = path.with_name(f".{path.name}.{os.getpid()}") if force else path
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(target, path)
        except BaseException:
            target.unlink(missing_ok=True)  # half a key is of no use, and a whole one is secret
            raise
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
