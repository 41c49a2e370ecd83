"""One process of the demo."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from gateway.settings import ENV_PREFIX
from scamp.config import VARIABLES

END_LIMIT: Final = 5.0
"""Seconds between asking a process to end and killing it."""


class Child:
    """A process on the leash: it ends when this one does, and sees no Ctrl-C of the terminal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._exited = asyncio.create_task(process.wait())

    @classmethod
    async def start(
        cls, command: Sequence[str], *, quiet: bool = False, output: bool = False
    ) -> Child:
        """Start `command`, an absolute path and arguments.

        `output`: what it prints is for `line`, not for the terminal; `quiet`: what it logs is not
        shown.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.demo.leash", str(os.getpid()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if output else asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL if quiet else None,
            start_new_session=True,
            env=_environment(),
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The command's process id: the leash becomes the command."""
        return self._process.pid

    async def line(self) -> str:
        """The next line that it prints; empty when it has ended. Safe to cancel."""
        if self._process.stdout is None:
            return ""
        return (await self._process.stdout.readline()).decode("utf-8", "replace").rstrip("\n")

    async def wait(self) -> str:
        """Wait for its end; how it ended, in words. Safe to cancel."""
        status = await asyncio.shield(self._exited)
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    async def end(self, number: signal.Signals) -> None:
        """Ask it to end with a signal; kill it after `END_LIMIT`. May be called twice."""
        for attempt in (number, signal.SIGKILL):
            if self._exited.done():
                break
            self._process.send_signal(attempt)
            await asyncio.wait({self._exited}, timeout=END_LIMIT)


def _environment() -> dict[str, str]:
    """Ours without what would set up a gateway or point at a real mesh: flags alone count here. Nor
    do children speak for us to systemd."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((ENV_PREFIX, "WATCHDOG_"))
        and name not in VARIABLES
        and name != "NOTIFY_SOCKET"
    }
