"""One URL for tables and for JSON."""

from __future__ import annotations

from typing import Any, Final

from gateway.surface import Entry

_PRIVILEGES: Final = 2
"""Privileges that are named in a table; JSON has all."""


def methods_of(entry: Entry) -> str:
    """HEAD goes with GET."""
    return " ".join(method for method in entry.methods if method != "HEAD")


def flags_of(entry: Entry) -> list[str]:
    """Those that every instance announces."""
    return sorted(entry.action.flags) if entry.action is not None else []


def who(entry: Entry) -> str:
    """Who may, in few words."""
    if entry.access is None:
        return ""
    names = entry.access.privileges
    more = len(names) - _PRIVILEGES
    return f"{' + '.join(names[:_PRIVILEGES])} + {more} more" if more > 0 else str(entry.access)


def seconds(timeout: float) -> str:
    """With the unit."""
    return f"{timeout:g} s"


def entry_dict(entry: Entry) -> dict[str, Any]:
    """One URL; what it has not is not there."""
    found: dict[str, Any] = {"methods": list(entry.methods), "url": entry.url}
    if entry.target:
        found["action"] = entry.target if entry.action is None else entry.action.label
    if entry.action is not None:
        found |= {
            "flags": flags_of(entry),
            "envelopes": list(entry.action.envelopes),
            "timeout": entry.timeout,
            "retry": entry.retry,
            "instances": entry.instances,
            "services": sorted({offer.service.name for offer in entry.action.offers}),
        }
    if entry.access is not None:
        found["access"] = entry.access.kind
        if entry.access.kind == "privileges":
            found["privileges"] = list(entry.access.privileges)
    if entry.candidates:
        found["candidates"] = list(entry.candidates)
    if entry.route is not None:
        found |= {"origin": entry.route.origin, "rate": entry.rate}
        found["problem"] = entry.problem or None
        found["expected"] = entry.route.expected
    return found
