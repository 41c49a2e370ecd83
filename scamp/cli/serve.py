"""``scamp serve``: a service with a few actions, for trying things."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from scamp import keys, limits
from scamp.cli.address import show_address
from scamp.cli.common import FILE, check_place, read_file
from scamp.cli.network import find_conf
from scamp.cli.trial import register
from scamp.discovery import parse_announcement, split_records, write_cache
from scamp.errors import AnnouncementError, ConfigError
from scamp.server import Service
from scamp.tickets import TicketKeys, TicketVerifier

log: logging.Logger = logging.getLogger("scamp.cli")


class Trial(Service):
    """Tells what to type next once it listens, and keeps a cache file that holds it alone."""

    cache: Path | None = None
    _writer: asyncio.Task[None] | None = None

    async def start(self, *place: Any, **options: Any) -> tuple[str, int]:
        """As `Service.start`; raises ConfigError also when the cache file cannot be written."""
        address = await super().start(*place, **options)
        try:
            if self.cache is not None:
                self._write(self.cache)
                self._writer = asyncio.create_task(self._keep_writing(self.cache))
            self._tell(self._told(show_address(*address)))
        except BaseException:
            await self.stop(0)
            raise
        return address

    async def stop(self, *grace: Any, **options: Any) -> None:
        """As `Service.stop`; the cache file says at once that the service leaves."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            await asyncio.wait((writer,))
        stopping = asyncio.create_task(super().stop(*grace, **options))
        try:
            await asyncio.sleep(0)  # it begins, and from then on the announcement says so
            if writer is not None and self.cache is not None:
                with contextlib.suppress(ConfigError):
                    self._write(self.cache)
            await stopping
        finally:
            if not stopping.done():
                stopping.cancel()
                await asyncio.wait((stopping,))

    def _write(self, path: Path) -> None:
        try:
            write_cache(path, [self.announcement()])
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror or exc}") from exc

    async def _keep_writing(self, path: Path) -> None:
        while True:
            await asyncio.sleep(self.interval)
            try:
                self._write(path)
            except ConfigError as exc:
                log.error("%s", exc)

    def _tell(self, lines: Iterable[str]) -> None:
        try:
            for line in lines:
                click.echo(line)
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise click.ClickException(f"standard output: {exc.strerror or exc}") from exc

    def _told(self, address: str) -> list[str]:
        lines = [f"{self.identity} serves at {address}", f"certificate {self.fingerprint}", ""]
        action = "Scamp.echo" if self.sector == "main" else f"{self.sector}:Scamp.echo"
        ask = f"""  scamp request {action} '{{"hello": "world"}}'"""
        if self.cache is not None:
            lines.append(f"{ask} --cache {shlex.quote(str(self.cache))}")
        lines.append(f"{ask} --connect {address} --fingerprint {self.fingerprint}")
        return [*lines, "", "Ctrl-C ends it."]


@click.command("serve")
@click.option("--name", default="trial", show_default=True, help="Name of the service.")
@click.option("--sector", default="main", show_default=True, help="Its sector.")
@click.option("--key", "key_path", type=FILE, help="Private key, PEM. [default: made for once]")
@click.option(
    "--cert",
    "certificate_path",
    type=FILE,
    help="Certificate, PEM. [default: as --key, ending in .crt]",
)
@click.option(
    "--host",
    help="Address to listen on. [default: the configuration's with --config, else 127.0.0.1]",
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Port to listen on, 0 for any. "
    "[default: one of beepish.first_port to last_port, 30100 to 30399]",
)
@click.option("--announce-host", help="Address that clients are told. [default: --host]")
@click.option(
    "--config",
    type=FILE,
    help="scamp.conf for addresses, ports and timeouts. [default: none, but with --announce as "
    "other commands]",
)
@click.option(
    "--announce/--no-announce",
    default=None,
    help="Announce it by multicast. [default: with --config]",
)
@click.option("--cache", type=FILE, help="Keep a discovery cache file that holds this service.")
@click.option("--announce-file", type=FILE, help="Keep a file that holds its record, signed.")
@click.option(
    "--ticket-key",
    "ticket_keys",
    type=FILE,
    multiple=True,
    help="Public key of tickets; there is then an action that needs one, Scamp.ticket.",
)
def serve(
    name: str,
    sector: str,
    key_path: Path | None,
    certificate_path: Path | None,
    host: str | None,
    port: int | None,
    announce_host: str | None,
    config: Path | None,
    announce: bool | None,
    cache: Path | None,
    announce_file: Path | None,
    ticket_keys: tuple[Path, ...],
) -> None:
    """Serve a few actions, for trying things.

    \b
      Scamp.echo     the body, as it came
      Scamp.time     the time
      Scamp.caller   what the service knows of the request
      Scamp.sleep    {"seconds": 2}: answers after a while
      Scamp.bytes    {"size": 1000000}: so many bytes
      Scamp.fail     {"code": "conflict", "message": "taken"}: that error
      Scamp.ticket   what the caller's ticket says; with --ticket-key

    Stays until it is told to stop by Ctrl-C or SIGTERM; requests in flight are answered, and what
    was announced is taken back, which takes ten seconds. A second signal cuts that short. The key
    is made for this once unless there is --key.

    \b
    Examples:
      scamp serve --cache trial.cache
      scamp serve --name shop --key shop.key --host 10.0.0.5 --port 30100
      scamp -v serve --announce
    """
    if certificate_path is not None and key_path is None:
        raise click.UsageError("--cert goes with --key")
    check_place(announce_file)
    if cache is not None:
        check_place(cache)
        _check_ours(cache, name)
    key, certificate = _identity(name, key_path, certificate_path)
    service = Trial(
        name,
        key=key,
        certificate=certificate,
        sector=sector,
        ticket_verifier=TicketVerifier(TicketKeys(ticket_keys).load()) if ticket_keys else None,
        config=find_conf(config) if config is not None or announce else None,
    )
    service.cache = cache
    register(service, tickets=bool(ticket_keys))
    try:
        asyncio.run(
            service.run(
                host,
                port,
                announce_host=announce_host,
                announce_file=announce_file,
                announce=announce,
            )
        )
    except KeyboardInterrupt:  # before the loop takes signals, or after
        return
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise ConfigError(f"{exc.filename or announce_file}: {exc.strerror or exc}") from exc


def _identity(
    name: str, key_path: Path | None, certificate_path: Path | None
) -> tuple[bytes, bytes]:
    if key_path is None:
        return keys.generate(name[: keys.MAX_COMMON_NAME] or "trial", now=datetime.now(UTC))
    path = key_path.with_suffix(".crt") if certificate_path is None else certificate_path
    return read_file(key_path, limits.MIB), read_file(path, limits.MIB)


def _check_ours(path: Path, name: str) -> None:
    """Raise ConfigError when the file is there and holds what is not a service of this name."""
    if not path.exists():
        return
    content = read_file(path, limits.MAX_CACHE_FILE)
    records = split_records(content)
    try:
        others = [parse_announcement(record, verify=False).name for record in records]
    except AnnouncementError:
        others = [""]
    if (content.strip() and not records) or any(other != name for other in others):
        raise ConfigError(f"{path} holds other things than this service; name another file")
