"""The mesh as its files say it is: what a gateway would have in force, without one running."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.actions import label_of
from gateway.routes.load import load_routes
from gateway.routes.model import RouteTable
from gateway.settings import NO_CACHE, Settings
from scamp import limits
from scamp.authz import AuthzTable
from scamp.discovery import Registry
from scamp.discovery.authorized import AuthorizedServices
from scamp.discovery.cachefile import FileState, read_file
from scamp.discovery.loader import InForce, Step, load
from scamp.discovery.loader import Loaded as Discovered
from scamp.errors import ConfigError, DiscoveryError


@dataclass(frozen=True, slots=True)
class Offline:
    """What was read. `age` is that of the discovery cache file, in seconds."""

    registry: Registry = field(default_factory=Registry)
    routes: RouteTable = field(default_factory=RouteTable)
    authz: AuthzTable | None = None
    authorized: AuthorizedServices | None = None
    unauthorized: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Actions that a service announces and may not offer, by the service's identity."""
    rejected: int = 0
    """Records of the cache file that are no good."""
    age: float = 0.0


def read_offline(settings: Settings, now: float | None = None) -> Offline:
    """Read discovery cache, authorized_services, privilege table and routes; blocks.

    `now` is in seconds since 1970. The Auth service is not asked: without a table in a file there
    is none. Raises `ScampError` for what cannot be used, one reason per line.
    """
    authorized = _authorized(settings)
    step, state = read_discovery(settings, cache_of(settings), authorized)
    registry = Registry()
    registry.apply(added=step.added)
    return Offline(
        registry=registry,
        routes=read_routes(settings),
        authz=None if settings.authz_table is None else read_table(settings.authz_table),
        authorized=authorized,
        unauthorized={
            identity: _left_out(one)
            for (_, identity), one in step.state.in_force.items()
            if one.unauthorized
        },
        rejected=len(step.state.rejections),
        age=(time.time() if now is None else now) - state.mtime,
    )


def cache_of(settings: Settings) -> Path:
    """The discovery cache file; raises `ConfigError` when there is none."""
    if settings.discovery_cache is None:
        raise ConfigError(f"{NO_CACHE}; offline there is no other source")
    return settings.discovery_cache


def read_discovery(
    settings: Settings, path: Path, authorized: AuthorizedServices | None = None
) -> tuple[Step, FileState]:
    """What a gateway would take from the discovery cache file at `path`, and the file's state.

    `authorized` saves reading that file once more. Blocks. Raises `DiscoveryError`.
    """
    data, state = read_file(path, limits.MAX_CACHE_FILE)
    try:
        return load(Discovered(), data or b"", authorized or _authorized(settings)), state
    except DiscoveryError as exc:
        raise DiscoveryError(f"{path}: {exc}") from exc


def _authorized(settings: Settings) -> AuthorizedServices | None:
    path = settings.authorized_services
    return None if path is None else read_authorized(path)


def _left_out(one: InForce) -> tuple[str, ...]:
    announced = one.record.service
    assert announced is not None  # noqa: S101 - only accepted records are in force
    kept = set(one.offered.actions)
    labels = (label_of(a.sector, a.spelling, a.version) for a in announced.actions if a not in kept)
    return tuple(sorted(labels))


def read_routes(settings: Settings) -> RouteTable:
    """The routes file's routes; none without one. Raises `ConfigError`."""
    return RouteTable() if settings.routes is None else load_routes(settings.routes)


def read_authorized(path: Path) -> AuthorizedServices:
    """The authorized_services file. Raises `DiscoveryError`."""
    content, _ = read_file(path, limits.MAX_AUTHORIZED_FILE)
    return AuthorizedServices.parse(content or b"", path=str(path))


def read_table(path: Path) -> AuthzTable:
    """The privilege table. Raises `ScampError`."""
    content, _ = read_file(path, limits.MAX_AUTHZ_TABLE)
    try:
        return AuthzTable.parse(content or b"")
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
