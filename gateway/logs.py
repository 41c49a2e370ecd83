"""Operational log lines: JSON for machines or plain text for people, always on stderr."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, TextIO

from scamp import logs


def configure(
    level: str = "info",
    form: Literal["json", "text"] = "json",
    stream: TextIO | None = None,
    *,
    levels: Mapping[str, str] | None = None,
) -> logging.Handler:
    """Send what every logger of the process says to `stream` (stderr), replacing what was set up.

    Lines are those of `scamp.logs`, without the name of a service. `levels` are for single loggers
    and those below them.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    return logs.configure(
        None,
        level=level,
        form=form,
        stream=stream,
        levels={
            # One line for each connection that a stranger breaks off is a way to fill our disk.
            "aiohttp.server": max(logging.ERROR, least),
            "asyncio": max(logging.WARNING, least),
            **(levels or {}),
        },
    )
