"""What an event stream is asked for, out of path and query, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway import catalogue
from gateway.actions import in_sector
from gateway.problems import Problem
from gateway.translate import parse_service, query_object
from scamp.limits import MAX_FILTER_CODES, MAX_SUBDATA_NAME
from scamp.server.service import ANNOUNCE
from scamp.wire.subdata import is_name

PREFIX: Final = "/api/events/"
RESUME_PARAMETER: Final = "last_event_id"
"""For those whose EventSource cannot send ``Last-Event-ID``."""

Key = tuple[str, str, tuple[str, ...]]
"""What is the same for all who can share a subscription."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A service and codes. Sector and service are in the caller's spelling and compared without
    case; codes are exact, each there once and in order."""

    sector: str
    service: str
    codes: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Equal for topics that mean the same."""
        return self.sector.lower(), self.service.lower(), self.codes

    @property
    def name(self) -> str:
        """``[SECTOR:]SERVICE``, sector left out when it is main."""
        return in_sector(self.sector, self.service)

    # What the privilege table has for it, see `auth.Guarded`.

    @property
    def spelling(self) -> str:
        """The pseudo action."""
        return f"{self.service}._events"

    @property
    def label(self) -> str:
        """The pseudo action with its sector."""
        return f"{self.name}._events"

    @property
    def noauth(self) -> bool:
        """It takes a ticket; what is open is settled elsewhere."""
        return False

    @property
    def privileges(self) -> bool:
        """What the table does not list is for nobody."""
        return True


@dataclass(frozen=True, slots=True)
class OpenTopic:
    """Stands for a topic that takes no ticket, see `auth.Guarded`."""

    label: str
    spelling: str
    noauth: bool = True
    privileges: bool = False


def service_key(text: str) -> tuple[str, str]:
    """Sector and service, lower case, of a ``[SECTOR:]SERVICE`` that is well formed."""
    named = parse_service(text)
    assert named is not None, text  # noqa: S101 - see the docstring
    return named[0].lower(), named[1].lower()


def parse(path: str, query: str) -> tuple[Topic, str | None]:
    """The topic that a request means, and the event id that its query has.

    `path` comes from `translate.split_target`, `query` is raw. Raises Problem: unknown_path,
    bad_path, bad_query. Parameters of other names mean nothing.
    """
    name = path.removeprefix(PREFIX)
    if not name or "/" in name:
        raise Problem(catalogue.UNKNOWN_PATH, f"Events are at {PREFIX}[SECTOR:]SERVICE?code=CODE.")
    named = parse_service(name)
    if named is None:
        raise Problem(
            catalogue.BAD_PATH,
            "A service is written [SECTOR:]SERVICE, in A-Z, a-z, 0-9, _, . and -.",
        )
    fields: dict[str, Any] = orjson.loads(query_object(query))
    resume = _listed(fields.get(RESUME_PARAMETER))
    if len(resume) > 1:
        raise Problem(catalogue.BAD_QUERY, f"There is more than one {RESUME_PARAMETER}.")
    codes = _checked(_listed(fields.get("code")))
    return Topic(*named, codes), next(iter(resume), None)


def _listed(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _checked(given: list[str]) -> tuple[str, ...]:
    codes = tuple(sorted(set(given)))
    if not codes:
        raise Problem(catalogue.BAD_QUERY, "Name what to follow: code=CODE, up to 10 of them.")
    if len(codes) > MAX_FILTER_CODES:
        raise Problem(
            catalogue.BAD_QUERY, f"{len(codes)} codes; at most {MAX_FILTER_CODES} are possible."
        )
    if not all(is_name(code) for code in codes):
        raise Problem(catalogue.BAD_QUERY, f"A code has more than {MAX_SUBDATA_NAME} characters.")
    if ANNOUNCE in codes:  # every service publishes its record there, with its address
        raise Problem(catalogue.BAD_QUERY, f"The code {ANNOUNCE} is for the mesh alone.")
    return codes
