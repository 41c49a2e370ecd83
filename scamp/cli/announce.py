"""``scamp announce``: a signed record for discovery, without a running service."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from scamp import limits
from scamp.cli.address import show_address, to_address
from scamp.cli.common import FILE, check_place, read_file
from scamp.cli.spec import ServiceSpec, parse_action_text, read_spec
from scamp.discovery import (
    AnnouncementSpec,
    build_announcement,
    parse_announcement,
    split_records,
    write_cache,
)
from scamp.discovery.cachefile import SEPARATOR
from scamp.errors import AnnouncementError, ConfigError
from scamp.keys import load_private_key

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def _actions(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(parse_action_text(text) for text in value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


@click.command("announce")
@click.argument("spec", metavar="[SPEC]", type=FILE, required=False)
@click.option("--key", "key_path", type=FILE, required=True, help="Private key, PEM.")
@click.option(
    "--cert",
    "certificate_path",
    type=FILE,
    help="Certificate, PEM. [default: as --key, ending in .crt]",
)
@click.option("--name", help="Name of the service; the random part of its identity is added.")
@click.option("--identity", help="The whole identity, to announce the very same service again.")
@click.option("--sector", help="Its sector. [default: main]")
@click.option("--address", metavar="HOST:PORT", callback=to_address, help="Where it listens.")
@click.option("--envelope", "envelopes", multiple=True, help="Repeat for several. [default: json]")
@click.option(
    "--action",
    "actions",
    multiple=True,
    metavar="NAME[~VERSION][=FLAGS]",
    callback=_actions,
    help="An action, such as 'Shop.Order.fetch~1=read,t30'; repeat for several.",
)
@click.option(
    "--weight",
    metavar="NUMBER",
    type=click.FloatRange(min=0),
    help="Its share of requests, a whole number; 0 says that it leaves. [default: 1]",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.001, max=10_000_000),
    help="Time between announcements. [default: 5]",
)
@click.option(
    "--timestamp",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Time of the record, since 1970. [default: now]",
)
@click.option("-o", "--output", type=FILE, help="Write a cache file with this record alone.")
@click.option(
    "--append", type=FILE, help="Put the record into this cache file, beside what is there."
)
@click.option("--keep", is_flag=True, help="Stay, and sign and write anew at every interval.")
def announce(
    spec: Path | None,
    key_path: Path,
    certificate_path: Path | None,
    timestamp: float | None,
    output: Path | None,
    append: Path | None,
    keep: bool,
    **said: Any,
) -> None:
    """Sign a record for discovery, without a running service.

    For running two components without discovery: the record says where a service is and what it
    offers, and clients that read the discovery cache file believe it. It is printed with
    the separator before it, so that '>> FILE' makes or extends a cache file. --output and
    --append write one in a single step; --append takes out what the file says of the same service
    or the same address.

    SPEC is a file in TOML or JSON; options go before what stands in it:

    \b
      name = "shop"
      address = "10.0.0.5:30100"
      envelopes = ["json"]
      actions = ["Shop.buy", "Shop.Order.fetch~1=read,t30"]

    An action with more to say of it stands in a table of its own, in place of the list:

    \b
      [[actions]]
      name = "Shop.Order.export"
      version = 2
      flags = ["read", "t600"]
      sector = "background"
      envelopes = ["jsonstore"]

    Clients distrust a cache file that was not written for 'discovery.cache_max_age' (120 s): keep
    it fresh with --keep or 'touch'. scamp-rs also ignores records older than 2.1 intervals: without
    --keep, give an --interval of half the time that the record is to be good for.

    \b
    Examples:
      scamp announce --name shop --address 10.0.0.5:30100 --action Shop.buy --key shop.key >> cache
      scamp announce shop.toml --key shop.key --append trial.cache --keep
      scamp announce shop.toml --key shop.key --interval 43200 -o trial.cache
    """
    if output is not None and append is not None:
        raise click.UsageError("--output and --append exclude each other")
    if keep and ((output is None and append is None) or timestamp is not None):
        raise click.UsageError("--keep needs --output or --append, and takes the time of the clock")
    path = output or append
    check_place(path)
    described = _merge(ServiceSpec() if spec is None else read_spec(spec), said).announced()
    sign = _signer(described, key_path, certificate_path)
    if path is None:
        record = sign(time.time() if timestamp is None else timestamp)
        sys.stdout.buffer.write(SEPARATOR + record)
        sys.stdout.buffer.flush()
        return

    def write() -> None:
        record = sign(time.time() if timestamp is None else timestamp)
        _write(path, [record] if append is None else [*_others(path, record), record])

    if keep:
        _repeat(write, described.interval)
    else:
        write()


def _repeat(work: Callable[[], None], interval: float) -> None:
    """Do `work` now and every `interval` seconds, until SIGINT or SIGTERM.

    Signals are asked for in between: one that was an exception could come where none is heeded,
    such as in a destructor, and be lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        work()
        while signal.sigtimedwait(_SIGNALS, interval) is None:
            work()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _merge(base: ServiceSpec, said: dict[str, Any]) -> ServiceSpec:
    changes = {key: value for key, value in said.items() if value not in (None, ())}
    if "address" in changes:
        changes["address"] = show_address(*changes["address"])
    if "name" in changes and "identity" not in changes:
        changes["identity"] = None  # the file's belongs to the file's name
    return dataclasses.replace(base, **changes)


def _signer(
    described: AnnouncementSpec, key_path: Path, certificate_path: Path | None
) -> Callable[[float], bytes]:
    if certificate_path is None:
        certificate_path = key_path.with_suffix(".crt")
    try:
        key = load_private_key(read_file(key_path, limits.MIB))
    except ConfigError as exc:
        text = str(exc)
        raise ConfigError(
            text if text.startswith(str(key_path)) else f"{key_path}: {text}"
        ) from exc
    certificate = read_file(certificate_path, limits.MIB)

    def sign(timestamp: float) -> bytes:
        try:
            return build_announcement(described, key, certificate, timestamp=timestamp)
        except AnnouncementError as exc:
            where = f"{certificate_path}: " if exc.reason in ("certificate", "signature") else ""
            raise ConfigError(f"{where}{exc.detail}") from exc

    return sign


def _others(path: Path, record: bytes) -> list[bytes]:
    """The records of the file that speak of other services. Bad ones are kept as they are."""
    if not path.exists():
        return []
    content = read_file(path, limits.MAX_CACHE_FILE)
    records = split_records(content)
    if content.strip() and not records:
        raise ConfigError(f"{path}: not a discovery cache file; it is left alone")
    own = parse_announcement(record, verify=False)
    kept = []
    for one in records:
        try:
            other = parse_announcement(one, verify=False)
        except AnnouncementError:
            kept.append(one)
            continue
        if other.key != own.key and other.uri != own.uri:
            kept.append(one)
    return kept


def _write(path: Path, records: list[bytes]) -> None:
    try:
        write_cache(path, records)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
