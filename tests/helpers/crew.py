"""``scamp-gateway run`` with several workers, as processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import psutil

from stand import Stand, eventually

_READY = re.compile(r"scamp-gateway ready: (\S+) admin (\S+)\n")


class Crew:
    """A running master and its workers."""

    def __init__(self, process: asyncio.subprocess.Process, ready: str, runtime: Path) -> None:
        found = _READY.fullmatch(ready)
        assert found is not None, ready
        self.public, self.admin = found.groups()
        self.process = process
        self.master = psutil.Process(process.pid)
        self.runtime = runtime
        """Where it has its directory."""

    def workers(self) -> list[psutil.Process]:
        """Those that live, oldest first."""
        with suppress(psutil.NoSuchProcess):
            return self.master.children()
        return []

    def signal(self, number: signal.Signals) -> None:
        """To the master."""
        self.process.send_signal(number)

    async def metrics(self, http: aiohttp.ClientSession) -> dict[str, float]:
        """Every sample, by name with labels."""
        async with http.get(f"{self.admin}/metrics") as answer:
            assert answer.status == 200
            lines = (await answer.text()).splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    async def all_ready(self, http: aiohttp.ClientSession) -> None:
        """Wait for every worker."""

        async def ready() -> bool:
            async with http.get(f"{self.admin}/readyz") as answer:
                return answer.status == 200

        await eventually(ready)


def arguments(mesh: Stand, *flags: str) -> list[str]:
    """The command line of a gateway for this stand, on free ports; `flags` go over them."""
    return [
        *(sys.executable, "-m", "gateway.cli", "run", "--workers", "2"),
        *("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"),
        *("--discovery-cache", str(mesh.cache), "--authorized-services", str(mesh.authorized)),
        *("--ticket-key", str(mesh.ticket_key), "--access-log", "off", "--drain-delay", "0"),
        *flags,
    ]


def environment(mesh: Stand) -> tuple[dict[str, str], Path]:
    """That of this process, with a place of its own for temporary files."""
    runtime = mesh.folder / "run"
    runtime.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(runtime)}, runtime


@asynccontextmanager
async def crew(mesh: Stand, *flags: str) -> AsyncIterator[Crew]:
    """A gateway with two workers that is ready; whatever is left of it at the end is killed. What
    it logs is in ``crew.log`` in the stand's folder."""
    env, runtime = environment(mesh)
    with (mesh.folder / "crew.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *arguments(mesh, *flags),
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdout is not None
    family: list[psutil.Process] = []
    try:
        ready = (await process.stdout.readline()).decode()
        assert ready, (mesh.folder / "crew.log").read_text()
        one = Crew(process, ready, runtime)
        family = [one.master, *one.workers()]
        yield one
        if process.returncode is None:
            one.signal(signal.SIGINT)
            assert await process.wait() == 0
        assert not await process.stdout.read(), "one line on stdout and no more"
    finally:
        with suppress(psutil.NoSuchProcess):
            family += psutil.Process(process.pid).children()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        await process.wait()
