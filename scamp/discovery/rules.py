"""The authorized_services file as every source of discovery follows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from scamp import limits
from scamp.discovery.authorized import AuthorizedServices
from scamp.discovery.cachefile import FileState, FileUnusableError, read_file
from scamp.discovery.pace import no_pause
from scamp.errors import AuthorizedServicesError

UNSETTLED: Final = 2.0
"""A file whose mtime is this near (in seconds) may change again without its mtime doing so."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The file as last read. `services` is None until it could be read once; `error` is what is
    wrong with it now."""

    services: AuthorizedServices | None = None
    seen: FileState | None = None
    error: str | None = None


def read_rules(
    path: Path, known: Rules, *, force: bool = False, pause: Callable[[], None] = no_pause
) -> Rules:
    """Look at the file again; it is read when it has changed or `force` is given, with a `pause`
    after each line.

    When it breaks (unreadable, empty, or not one line of it good) the last good one stays in force,
    with `error` set. A file that permits the same as before gives the same `services` object.
    Blocks; raises nothing.
    """
    try:
        unchanged = None if force else known.seen
        data, file = read_file(path, limits.MAX_AUTHORIZED_FILE, unchanged)
        if data is None:
            return known
        services = AuthorizedServices.parse(data, path=str(path), pause=pause)
    except (FileUnusableError, AuthorizedServicesError) as exc:
        return replace(known, seen=None, error=f"authorized_services: {exc}")
    seen = file if is_settled(file) else None
    if not data or (services.problems and not services):
        what = "not one good line" if data else "empty"
        return replace(known, seen=seen, error=f"authorized_services: {path}: {what}")
    if known.services is not None and services.same_as(known.services):
        services = known.services
    return Rules(services, seen)


def is_settled(file: FileState) -> bool:
    """Whether a change of the file from now on will show in its mtime."""
    return abs(time.time() - file.mtime) > UNSETTLED
