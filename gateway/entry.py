"""The two commands as they are installed. What they import takes a while, and Ctrl-C in that time
ends them as it ends a program in C: at once, by the signal, without a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

# Only what costs nothing may be imported here: the rest is imported below.


@contextmanager
def _ended_by_sigint() -> Iterator[None]:
    # Whoever started us may have it ignored, as shells do for what runs in the background.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


def scamp() -> None:
    """The command ``scamp``."""
    with _ended_by_sigint():
        from scamp.cli.main import main
    main()


def scamp_gateway() -> None:
    """The command ``scamp-gateway``."""
    with _ended_by_sigint():
        from gateway.cli import main
    main()
