"""The whole audit, from settings to findings."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from gateway.audit import access, files, mesh, routes, settings
from gateway.audit.model import Audited, Check, Ignored, Result, gather
from gateway.offline import read_offline
from gateway.own import own_entries
from gateway.sources import Loaded
from gateway.surface import surface

CHECKS: Final[tuple[Check, ...]] = (
    access.open_actions,
    access.open_events,
    access.mode,
    access.privileges,
    routes.nowhere,
    routes.overlaps,
    routes.into_sectors,
    routes.pages,
    mesh.disagreements,
    mesh.aliases,
    mesh.owners,
    mesh.authorized,
    settings.listeners,
    settings.switches,
    settings.browsers,
    settings.rates,
    settings.times,
    files.ticket_keys,
    files.certificate,
    files.permissions,
)


def audited(loaded: Loaded, now: float | None = None) -> Audited:
    """Everything read that is looked at; blocks. `now` is in seconds since 1970.

    Raises `ScampError` for what a gateway would not start with, or could not use.
    """
    loaded.settings.require_complete()
    now = time.time() if now is None else now
    read = read_offline(loaded.settings, now)
    own = own_entries(loaded.settings, read.registry, read.authz)
    view = surface(read.registry, read.routes, loaded.settings, read.authz, own)
    return Audited(loaded.settings, read, view, loaded.origins, now)


def audit(given: Audited, ignored: Iterable[Ignored] = ()) -> Result:
    """All findings. Raises `ScampError` and OSError for files that cannot be used."""
    return gather(CHECKS, given, ignored)
