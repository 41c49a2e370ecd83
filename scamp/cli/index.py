"""What commands know of the mesh: one reading of the discovery cache file, without a network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import click

from scamp import limits
from scamp.cli.common import one_line, read_file
from scamp.config import ScampConf
from scamp.discovery import (
    Announcement,
    AuthorizedServices,
    Registry,
    parse_announcement,
    split_records,
)
from scamp.discovery.model import permitted
from scamp.errors import AnnouncementError, ConfigError, DiscoveryUnavailable


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the index comes from: the options of a command, filled up from the configuration."""

    cache: Path
    max_age: float
    authorized_services: Path | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is not used. `number` counts the records of the file from 1."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Index:
    """The registry with permitted actions only, and what is to be said about its making."""

    registry: Registry
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]

    def report(self) -> None:
        """Tell on stderr what was refused and what else is odd."""
        for record in self.refused:
            click.echo(f"refused: record {record.number}: {one_line(record.reason)}", err=True)
        for note in self.notes:
            click.echo(f"note: {one_line(note)}", err=True)


def find_sources(
    config: Path | None, cache: Path | None, authorized_services: Path | None
) -> Sources:
    """Fill up what the options leave open. Raises `ConfigError` for an unusable configuration."""
    needed = config is not None or cache is None or authorized_services is None
    there = config if config is not None else (ScampConf.find() if needed else None)
    conf = ScampConf.parse("") if there is None else ScampConf.load(there)
    return Sources(
        cache or conf.discovery_cache_path,
        conf.discovery_cache_max_age,
        authorized_services or conf.authorized_services,
    )


def load_authorized(path: Path) -> AuthorizedServices:
    """Read an authorized_services file. Raises `ConfigError` when it cannot be read or used."""
    found = AuthorizedServices.parse(read_file(path, limits.MAX_AUTHORIZED_FILE), path=str(path))
    if found.problems and not len(found):
        raise ConfigError(f"{path}: not one good line")
    return found


def load_index(sources: Sources) -> Index:
    """Read, verify and filter. Raises `DiscoveryUnavailable` without a usable cache file,
    `ConfigError` for an unusable authorized_services file."""
    try:
        content = read_file(sources.cache, limits.MAX_CACHE_FILE)
        age = time.time() - sources.cache.stat().st_mtime
    except (ConfigError, OSError) as exc:
        raise DiscoveryUnavailable(str(exc)) from exc
    notes = []
    if age > sources.max_age:
        notes.append(f"{sources.cache} was last written {age:.0f} s ago: its writer seems dead")
    authorized = None
    if sources.authorized_services is None:
        notes.append("no authorized_services file: whatever is announced is believed")
    else:
        authorized = load_authorized(sources.authorized_services)
        notes += [f"skipped: {problem}" for problem in authorized.problems]
    records = split_records(content)
    if content.strip() and not records:
        raise DiscoveryUnavailable(f"{sources.cache}: no separator in the file")
    services: dict[tuple[str, str], Announcement] = {}
    refused = []
    for number, record in enumerate(records, 1):
        try:
            service = parse_announcement(record)
        except AnnouncementError as exc:
            refused.append(Refused(number, str(exc)))
            continue
        known = services.get(service.key)
        if known is None or known.timestamp <= service.timestamp:
            if authorized is not None:
                service, _ = permitted(service, authorized.permits)
            services[service.key] = service
    registry = Registry()
    registry.apply(added=services.values())
    return Index(registry, tuple(refused), tuple(notes))
