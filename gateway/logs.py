"""Operational log lines: JSON for machines or plain text for people, always on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_JSON: Final = "%(levelname)s %(name)s %(message)s"


def configure(
    level: str = "info",
    form: Literal["json", "text"] = "json",
    stream: TextIO | None = None,
) -> logging.Handler:
    """Send what every logger of the process says to `stream` (stderr), replacing what was set up.

    A JSON line has ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``, whatever the
    call gave as ``extra``, and ``exc_info`` where there is a traceback.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter(_TEXT) if form == "text" else _json_formatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    # One line for each connection that a stranger breaks off is a way to fill our disk.
    logging.getLogger("aiohttp.server").setLevel(max(logging.ERROR, root.level))
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))
    return handler


def _json_formatter() -> logging.Formatter:
    return JsonFormatter(
        _JSON,
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp="time",
        json_ensure_ascii=False,
    )
