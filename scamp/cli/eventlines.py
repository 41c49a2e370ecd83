"""How ``scamp watch`` writes an event: a line for people, or a JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from scamp.cli.address import show_address
from scamp.cli.common import one_line
from scamp.cli.differences import FIELDS, Difference
from scamp.cli.events import CAME, INDEX, Event
from scamp.discovery import Announcement
from scamp.discovery.live import Kind
from scamp.discovery.model import count_actions

_NAMED: Final = 5
"""Actions, and other things in a list, are named up to this many in a line for people."""

_LABELS: Final = {"uri": "address"}


def as_text(event: Event, when: float) -> str:
    """One line, without anything in it that could move the cursor. `when` is in seconds since
    1970."""
    details = "; ".join(filter(None, _details(event)))
    who = event.identity or "-"
    return one_line(f"{_instant(when)} {event.about:<12} {event.what:<8} {who} {details}")


def as_json(event: Event, when: float) -> str:
    """One object in one line, ASCII only."""
    facts: dict[str, Any] = {"time": _instant(when), "about": event.about, "event": event.what}
    if event.identity:
        facts["identity"] = event.identity
    if event.service is not None:
        facts |= _service(event.service) | _changes(event)
    if event.not_permitted:
        facts["not_permitted"] = [str(name) for name in event.not_permitted]
    if event.reason:
        facts["reason"] = event.reason
    if event.detail:
        facts["detail"] = event.detail
    if event.count:
        facts["count"] = event.count
    return json.dumps(facts)


def gap(count: int, when: float, *, as_object: bool) -> str:
    """Stands for so many lines that were left out because nobody read them."""
    if as_object:
        facts = {"time": _instant(when), "about": "output", "event": "lost", "count": count}
        return json.dumps(facts)
    noun = "line" if count == 1 else "lines"
    return f"{_instant(when)} {'output':<12} {'lost':<8} - {count} {noun}, not read fast enough"


def _instant(when: float) -> str:
    moment = datetime.fromtimestamp(when, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


# -- for programs -----------------------------------------------------------------------


def _service(service: Announcement) -> dict[str, Any]:
    return {
        "name": service.name,
        "fingerprint": service.fingerprint,
        "sector": service.sector,
        "uri": service.uri,
        "weight": service.weight,
        "interval": service.interval,
        "envelopes": list(service.envelopes),
        "timestamp": service.timestamp,
        "actions": count_actions(service),
    }


def _changes(event: Event) -> dict[str, Any]:
    found = event.difference
    facts: dict[str, Any] = {}
    if found.fields:
        facts["changes"] = {name: list(both) for name, both in found.fields.items()}
    for key, names in (
        ("added", found.added),
        ("removed", found.removed),
        ("altered", found.altered),
        ("unoffered", event.unoffered),
    ):
        if names:
            facts[key] = [str(name) for name in names]
    return facts


# -- for people -------------------------------------------------------------------------


def _details(event: Event) -> Iterator[str]:
    service = event.service
    if event.reason:
        yield f"{event.reason}: {event.detail}"
    elif event.count:
        yield f"{event.count} {'packet' if event.count == 1 else 'packets'}: {event.detail}"
    elif service is not None and event.what == Kind.CHANGED.value:
        yield from _differences(event.difference)
    elif service is not None and event.what == Kind.EXPIRED.value:
        yield f"{_place(service)}; silent for more than two of its intervals"
    elif service is not None:
        yield _place(service)
        if event.what != Kind.LEFT.value:
            yield f"weight {service.weight:g}"
            listed = event.about == INDEX and event.what == CAME
            yield _count(count_actions(service), event.difference.added if listed else ())
    if event.not_permitted:
        yield f"not permitted: {_list(event.not_permitted)}"
    if event.unoffered:
        yield f"nobody offers now: {_list(event.unoffered)}"


def _place(service: Announcement) -> str:
    return f"{service.sector} at {show_address(service.host, service.port)}"


def _count(count: int, names: Sequence[object] = ()) -> str:
    noun = f"{count} {'action' if count == 1 else 'actions'}"
    return f"{noun}: {_list(names)}" if names else noun


def _differences(found: Difference) -> Iterator[str]:
    if not found:
        yield "nothing but the order of its actions"
    for name in FIELDS:
        if name in found.fields:
            was, is_now = map(_value, found.fields[name])
            yield f"{_LABELS.get(name, name)} {was} -> {is_now}"
    for word, names in (
        ("added", found.added),
        ("removed", found.removed),
        ("altered", found.altered),
    ):
        if names:
            yield f"{word} {_list(names)}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return _list(value) or "none"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _list(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    more = len(shown) - _NAMED
    named = ", ".join(shown[:_NAMED])
    return f"{named} and {more} more" if more > 0 else named
