"""The two commands as they are installed. What they import takes a while, and Ctrl-C in that time
ends them as it ends a program in C: at once, by the signal, without a traceback. SIGTERM, too."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# Only what costs nothing may be imported here: the rest is imported below.


@contextmanager
def _ended_by_sigint() -> Iterator[None]:
    # Whoever started us may have it ignored, as shells do for what runs in the background.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end if os.getpid() == 1 else signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _heard_by_process_1() -> None:
    """The kernel keeps process 1 of a container from signals that it has no handler for: whoever is
    told to end before it can drain anything would be killed when all patience is at an end."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def scamp() -> None:
    """The command ``scamp``."""
    _heard_by_process_1()
    with _ended_by_sigint():
        from scamp.cli.main import main
    main()


def scamp_gateway() -> None:
    """The command ``scamp-gateway``."""
    _heard_by_process_1()
    with _ended_by_sigint():
        from gateway.cli import main
    main()
