"""What is logged while a command runs, and how."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from scamp.logs import Form

LEVELS: Final = ("debug", "info", "warning", "error")
FORMS: Final = ("text", "json", "scamp")

_QUIET: Final = frozenset(("request", "watch"))
"""Commands that say themselves what their log would: they log errors only, unless told to."""


def set_up(ctx: click.Context, level: str | None, verbose: int, form: Form) -> None:
    """Log to stderr until the command is over.

    `verbose` counts ``-v``: info, then debug. Without either, warnings and what is worse.
    """
    if level is None:
        level = ("error" if ctx.invoked_subcommand in _QUIET else "warning", "info", "debug")[
            min(verbose, 2)
        ]
    from scamp import logs  # what only asks for help need not load it

    root = logging.getLogger()
    before = root.handlers[:], root.level
    handler = logs.configure(None, level=level, form=form)
    ctx.call_on_close(lambda: _restore(handler, *before))


def _restore(handler: logging.Handler, handlers: list[logging.Handler], level: int) -> None:
    """As it was: the command may have been called within another program, such as a test."""
    root = logging.getLogger()
    root.removeHandler(handler)
    handler.close()
    for one in handlers:
        root.addHandler(one)
    root.setLevel(level)
    logging.captureWarnings(capture=False)
