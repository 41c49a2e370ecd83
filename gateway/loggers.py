"""The loggers whose level can be set, and what each tells of. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Final

LOGGERS: Final[Mapping[str, str]] = {
    "gateway": "Starting, serving, draining, stopping; all of the gateway's own loggers below it.",
    "gateway.access_log": "The access log cannot be written, or can be again.",
    "gateway.accepting": "Connections of clients not taken; debug: each failed handshake.",
    "gateway.auth": "The privilege table; debug: why a ticket was refused, never the ticket.",
    "gateway.events": "Live events that a service cannot go on with.",
    "gateway.following": "Followed files: reloaded, or refused and why.",
    "gateway.front": "Requests that failed in the gateway; debug: each problem that was answered.",
    "gateway.memory": "Debug: memory given back.",
    "gateway.openapi": "Documentation that services did not give.",
    "gateway.public": "Bugs in what takes requests.",
    "gateway.ratelimit": "Redis is away, or back.",
    "gateway.routes": "Routes that lead nowhere.",
    "gateway.takeover": "Sockets passed from one process to the next.",
    "gateway.tracing": "Where traces go; a collector that does not take them, or does again.",
    "gateway.workers": "Worker processes: started, ready, replaced.",
    "scamp": "All of the library's loggers below it.",
    "scamp.client": "Instances of services that are out, and back; what they did wrong.",
    "scamp.discovery": "Services that came and left; stale, fresh again; records refused.",
    "scamp.transport": "Connections that broke the protocol.",
    "aiohttp.server": "The HTTP server's library; error and above unless it is set here.",
    "asyncio": "The event loop; warning and above unless it is set here.",
    "py.warnings": "Warnings of Python and of libraries.",
}
"""In the gateway's process; levels of others have no effect there."""


def check_logger(name: str) -> None:
    """Raise ValueError, with the likely name, for one that is none of `LOGGERS`."""
    if name in LOGGERS:
        return
    close = difflib.get_close_matches(name.lower(), list(LOGGERS), 1, 0.6)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"there is no logger {name!r}{hint}; there are {', '.join(LOGGERS)}")


def read_levels(value: object) -> object:
    """Levels by logger, from ``name=level,name=level``, a list of such texts, JSON, or a table in
    which a dot has made tables of its own. Raises ValueError; what is in it is not checked."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return dict(map(_pair, value))
    return dict(_flat(value)) if isinstance(value, Mapping) else value


def _pair(text: object) -> tuple[str, str]:
    name, equals, level = str(text).partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not LOGGER=LEVEL")
    return name.strip(), level.strip()


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """``[log_levels]`` with ``gateway.auth = "debug"``, not in quotes, is a table in a table."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
