"""The ``scamp-gateway`` command, as it is installed."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """As `cli.main`. A SIGTERM before it can drain anything ends process 1 of a container, too.

    The kernel keeps that one from signals that it has no handler for, and the imports take their
    time: it would be killed when all patience is at an end.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)
    from gateway.cli import main as command

    command()


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
