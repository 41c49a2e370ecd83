"""Which services and actions a user asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from scamp.cli.differences import ActionName, action_names
from scamp.discovery import Announcement
from scamp.discovery.model import name_of


def is_sector(value: str, wanted: str | None) -> bool:
    """Whether it is that sector, compared without case; every one is when none is wanted."""
    return wanted is None or value.lower() == wanted.lower()


def fits(values: Iterable[str], glob: str | None) -> bool:
    """Whether any of `values` matches, compared without case; all do when there is no `glob`."""
    return glob is None or any(fnmatchcase(value.lower(), glob.lower()) for value in values)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Services of a name, and of them those with actions of a sector that have a name. `name` and
    `action` are globs; None leaves open."""

    sector: str | None = None
    name: str | None = None
    action: str | None = None

    @property
    def every_action(self) -> bool:
        """Whether it leaves open which actions."""
        return self.sector is None and self.action is None

    def has_action(self, action: ActionName) -> bool:
        """Whether this action was asked for."""
        names = (action.spelling, f"{action.spelling}~{action.version}", str(action))
        return is_sector(action.sector, self.sector) and fits(names, self.action)

    def has_service(self, service: Announcement) -> bool:
        """Whether this service was asked for."""
        if not fits((service.name, service.identity), self.name):
            return False
        if self.action is None and is_sector(service.sector, self.sector):
            return True
        return any(self.has_action(action) for action in action_names(service))

    def has_claim(self, identity: str) -> bool:
        """Whether what is refused was asked for, of which nothing is known but what it claims to
        be."""
        return self.every_action and fits((name_of(identity), identity), self.name)
