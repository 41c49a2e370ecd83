"""What every service answers by itself: how much it has to do, and what it offers.

``NAME.queue_depth`` gives the number of requests in flight, as JavaScript's services do.
``_meta.documentation`` describes every action, from the handlers' docstrings and type hints.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from scamp.errors import ConfigError
from scamp.limits import MAX_DOCUMENTATION, MAX_NAME
from scamp.server.actions import ActionTable, ServedAction, make_action
from scamp.server.typed import HandlerInfo

if TYPE_CHECKING:
    from scamp.server.request import Request
    from scamp.server.service import Service

log: logging.Logger = logging.getLogger("scamp.server")

FLAGS: Final = "read,noauth"
DOCUMENTATION: Final = "_meta.documentation"

_LEFT_OUT: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("request", "reply"),
    ("request", "reply", "description"),
    ("request", "reply", "description", "summary"),
)
"""What a documentation that is too large goes without, step by step."""


def queue_depth_action(name: str) -> str | None:
    """The action under which the service `name` tells its queue depth.

    Characters that no action may have stand as ``_``: ``my-shop`` answers
    ``my_shop.queue_depth``. None when no name can be made.
    """
    spelling = re.sub(r"[^A-Za-z0-9_.]", "_", name) + ".queue_depth"
    fits = re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", spelling)
    return spelling if fits and len(spelling) <= MAX_NAME else None


def add_queue_depth(service: Service, default_timeout: float) -> None:
    """Register ``NAME.queue_depth``, unless the service has one of its own or cannot have one."""
    spelling = queue_depth_action(service.name)
    if spelling is None:
        log.warning("%r is no name for an action: no queue_depth is offered", service.name[:64])
        return

    async def queue_depth(request: Request) -> dict[str, int]:
        """How many requests are in flight, this one not counted."""
        return {"queue_depth": service.in_flight - 1}

    info = HandlerInfo(queue_depth.__doc__ or "", None, dict[str, int])
    _add(service, spelling, queue_depth, info, default_timeout)


def add_documentation(service: Service, default_timeout: float) -> None:
    """Register ``_meta.documentation``; to be called when all other actions are there."""
    built: list[bytes] = []

    async def documentation(request: Request) -> bytes:
        """Every action of this service: what it does, what it takes and what it gives."""
        return built[0]

    info = HandlerInfo(documentation.__doc__ or "", None, dict[str, Any])
    _add(service, DOCUMENTATION, documentation, info, default_timeout)
    built.append(describe(service.name, service.sector, service.actions))


def _add(
    service: Service, spelling: str, handler: Any, info: HandlerInfo, default_timeout: float
) -> None:
    action = make_action(service.sector, spelling, 1, FLAGS, ("json",))
    try:
        service.actions.add(action, handler, default_timeout, info)
    except ConfigError:
        log.debug("%s is the service's own", spelling)


def describe(name: str, sector: str, actions: ActionTable, limit: int = MAX_DOCUMENTATION) -> bytes:
    """The JSON text that describes `actions`; the same actions always give the same bytes.

    ``{"service", "sector", "actions": [{"name", "version", "flags", "envelopes", "timeout" in
    seconds, "sector" where it is another, "summary", "description", "request", "reply"}]}``, in
    the order of the names; the last four only where they are known, ``request`` and ``reply`` as
    JSON Schemas. Above `limit` bytes it goes without schemas, then without descriptions, then
    without the last actions, and says so under ``left_out``.
    """
    entries = [_entry(served, sector) for served in actions]
    entries.sort(key=lambda one: (one["name"].lower(), one["version"]))
    for fields in _LEFT_OUT:
        for entry in entries:
            for field in fields:
                entry.pop(field, None)
        text = _dump(name, sector, entries, list(fields))
        if len(text) <= limit:
            return text
    while entries and len(text) > limit:
        del entries[len(entries) * 3 // 4 :]
        text = _dump(name, sector, entries, [*_LEFT_OUT[-1], "actions"])
    return text


def _dump(name: str, sector: str, entries: list[dict[str, Any]], left_out: list[str]) -> bytes:
    described = {"service": name, "sector": sector, "actions": entries}
    if left_out:
        described["left_out"] = left_out
    return orjson.dumps(described, option=orjson.OPT_SORT_KEYS)


def _entry(served: ServedAction, sector: str) -> dict[str, Any]:
    action, info = served.action, served.info
    entry: dict[str, Any] = {
        "name": action.spelling,
        "version": action.version,
        "flags": list(action.flags),
        "envelopes": list(action.envelopes),
        "timeout": served.timeout,
    }
    if action.sector != sector:
        entry["sector"] = action.sector
    # Lone surrogates have no place in UTF-8.
    doc = info.doc.encode("utf-8", "replace").decode()
    summary, _, description = doc.partition("\n\n")
    known = {
        "summary": " ".join(summary.split()),
        "description": description.strip(),
        "request": info.request_schema(),
        "reply": info.reply_schema(),
    }
    entry.update({field: value for field, value in known.items() if value})
    return entry
