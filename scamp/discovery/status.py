"""How discovery is doing: what the follower knows about its file, and what one look at it gave."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

logger: logging.Logger = logging.getLogger("scamp.discovery")


def _nothing() -> Mapping[str, int]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DiscoveryStatus:
    """A snapshot, replaced at every check.

    `loaded`: a complete index has been loaded at least once. `stale`: the file that the index comes
    from is older than the max age, so its writer has died; what was known is still served.
    `mtime`: of the last good version of the file, seconds since the epoch; a damaged file does
    not renew it. `accepted`: records of that version that are in force; `kept`: services that are
    in force although their record is refused or cut away now. `rejected`: records refused now, by
    reason; `rejected_records`: (identity or ``?``, reason, detail) of the first 100 of them.
    `unauthorized`: actions announced now that the authorized_services file does not permit.
    `loads` and `failed_loads` count the versions of the file that were taken or found damaged;
    `last_error` is what is wrong with the file now, None when nothing is.
    """

    loaded: bool = False
    stale: bool = False
    mtime: float | None = None
    accepted: int = 0
    kept: int = 0
    rejected: Mapping[str, int] = field(default_factory=_nothing)
    rejected_records: tuple[tuple[str, str, str], ...] = ()
    unauthorized: int = 0
    loads: int = 0
    failed_loads: int = 0
    last_error: str | None = None

    @property
    def available(self) -> bool:
        """Whether the index can be trusted to know what there is."""
        return self.loaded and not self.stale

    def age(self, now: float) -> float | None:
        """Seconds since the last good version of the file was written or touched; None before."""
        return None if self.mtime is None else now - self.mtime


@dataclass(frozen=True, slots=True)
class LoadReport:
    """One look at the file that had something to read.

    `error` is None when the content was taken. `seconds` is the time from the beginning of reading
    to the new index being in force, `cpu` the seconds of CPU that the worker thread used.
    `verified` counts the records whose signature was checked, `added` and `removed` the services
    in the change.
    """

    error: str | None
    seconds: float
    cpu: float
    size: int = 0
    records: int = 0
    verified: int = 0
    added: int = 0
    removed: int = 0


def log_difference(old: DiscoveryStatus, new: DiscoveryStatus, services: int) -> None:
    """Log what has changed for better or worse, once. `services`: how many are in force."""
    if new.last_error != old.last_error:
        if new.last_error is not None:
            logger.warning("%s; %d services stay in force", new.last_error, services)
        else:
            logger.info("discovery is good again: %d services", services)
    if new.stale != old.stale:
        if new.stale:
            logger.warning(
                "the discovery cache is stale: its writer seems to have died; what was known is "
                "served on, see to whoever writes it"
            )
        else:
            logger.info("the discovery cache is being written again")
    if _refused(new) != _refused(old):
        if new.rejected:
            logger.warning(
                "records refused: %s; first: %s", dict(new.rejected), new.rejected_records[:5]
            )
        else:
            logger.info("no record is refused any more")
    if new.unauthorized != old.unauthorized:
        logger.info(
            "actions announced that authorized_services does not permit: %d", new.unauthorized
        )


def _refused(status: DiscoveryStatus) -> list[tuple[str, str]]:
    return [(identity, reason) for identity, reason, _ in status.rejected_records]
