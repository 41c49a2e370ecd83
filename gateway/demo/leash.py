"""``python -m gateway.demo.leash PARENT COMMAND…``: a command that does not outlive its parent.

Asks the kernel for SIGKILL at the parent's death, however that comes about, then becomes COMMAND.
Linux; elsewhere it only becomes COMMAND.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> None:
    """Does not return: the process becomes the command, or ends if the parent is gone already."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it died before the kernel knew of our wish
    os.execv(command[0], command)  # noqa: S606 - the supervisor's own command line


if __name__ == "__main__":
    main(sys.argv[1:])
