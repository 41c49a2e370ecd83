"""The demo as a process of its own, for tests that want it as a user has it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

LAST_LINE: Final = "# Ctrl-C ends all of it."
"""Once it is printed everything answers."""


def demo_command(folder: Path, *options: str) -> tuple[str, ...]:
    """What starts it, with its files in `folder`, at ports that are free."""
    ports = ("--port", "0", "--admin-port", "0")
    return (sys.executable, "-m", "gateway.cli", "demo", *ports, "--dir", str(folder), *options)


@asynccontextmanager
async def demo_process(
    folder: Path, *options: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and what it has printed, once it serves; ended as by Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *demo_command(folder, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        printed = ""
        while LAST_LINE not in printed:
            line = (await process.stdout.readline()).decode()
            assert line, f"{printed}\n{(await process.stderr.read()).decode()}"
            printed += line
        yield process, printed
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
        sys.stderr.write(said.decode())  # shown when the test fails
