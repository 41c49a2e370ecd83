"""Brings the demo up, keeps it up, and takes all of it down again."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import click

from gateway.demo.folder import CacheWriter, Folder
from gateway.demo.process import END_LIMIT, Child
from gateway.demo.services import PRIVILEGES
from gateway.demo.store import Store
from gateway.demo.tour import script
from gateway.listener import open_sockets
from gateway.setting_types import Address
from scamp.errors import ConfigError

SERVICES: Final = {"auth": "Auth", "shop-1": "Product", "shop-2": "Product"}
"""Processes by name, with what they are authorized to offer."""

USERS: Final = {
    "alice": (1001, range(1, len(PRIVILEGES) + 1)),
    "bob": (1002, (PRIVILEGES.index("sku_read") + 1,)),
}

START_LIMIT: Final = 30.0
"""Seconds that services and gateway may take to come up."""

_COMPOSE_INTERVAL: Final = 0.1
_RESTART_DELAY: Final = 1.0
_READY: Final = re.compile(r"scamp-gateway ready: (\S+) admin (\S+)")


async def run_demo(
    *,
    host: str = "127.0.0.1",
    port: int,
    admin_port: int,
    folder: Path | None,
    quiet: bool = False,
    tracing: str | None = None,
    mesh: str | None = None,
    stop: asyncio.Event | None = None,
) -> int:
    """Run until SIGINT, SIGTERM, SIGHUP or `stop`; the exit status.

    Both listen on `host`, an address without brackets; `port` and `admin_port` may be 0. With
    `mesh` there are the services alone, for a gateway that finds them under this name: on another
    machine, or in another container. `tracing` is the URL that traces go to. Without `folder`
    everything lies in a temporary directory that is removed at the end. Whatever happens, no
    process is left: when this one is killed, the kernel kills the others. Raises `ConfigError` when
    there is no place for a temporary directory.
    """
    stop = stop or asyncio.Event()
    with _signals(stop), _directory(folder) as place:
        demo = Demo(Folder(place), quiet=quiet, host=mesh, tracing=tracing)
        try:
            if mesh is not None:
                return await demo.serve(stop)
            listeners = Address(host, port), Address(host, admin_port)
            _check_free(*listeners)
            return await demo.run(*listeners, stop)
        except ConfigError as exc:
            problem = str(exc)
        except OSError as exc:
            problem = f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)
        finally:
            await demo.end()
        # Last, so that it is not lost among what the services say.
        click.echo(f"scamp-gateway: {problem}", err=True)
        return 1


def _check_free(*addresses: Address) -> None:
    """Raise `ConfigError` when one is taken: better now than when everything else runs."""
    for address in addresses:
        try:
            for sock in open_sockets(address):
                sock.close()
        except ConfigError as exc:
            raise ConfigError(f"{exc}; --port 0 --admin-port 0 take any that are free") from exc


@contextlib.contextmanager
def _directory(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder.absolute()
        return
    try:
        made = tempfile.TemporaryDirectory(prefix="scamp-demo-")
    except OSError as exc:
        raise ConfigError(
            f"no place for the demo's files: {exc.strerror}; --dir can name one"
        ) from exc
    with made as name:
        yield Path(name)


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class Demo:
    """The processes of one demo."""

    def __init__(
        self,
        folder: Folder,
        *,
        quiet: bool,
        host: str | None = None,
        tracing: str | None = None,
    ) -> None:
        """Services are announced as `host`, by default on the loopback address."""
        self._folder = folder
        self._host = host
        self._tracing = tracing
        self._quiet = quiet
        self._running: dict[str, Child] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._gateway: Child | None = None

    async def run(self, public: Address, admin: Address, stop: asyncio.Event) -> int:
        """Start everything, show what to try, wait for the end."""
        if not await self._start_services(stop):
            return 0
        self._gateway = await self._start_gateway(public, admin)
        addresses = asyncio.create_task(self._until_ready(self._gateway))
        if not await _within(addresses, stop, "the gateway does not come up"):
            return 0
        self._show(*addresses.result())
        ended = asyncio.create_task(self._gateway.wait())
        try:
            if await self._until(stop, ended):
                return 0
        finally:
            await _cancel([ended])
        raise ConfigError(f"the gateway has ended by itself ({await self._gateway.wait()})")

    async def serve(self, stop: asyncio.Event) -> int:
        """The services alone: start them, say what a gateway needs, wait for the end."""
        if await self._start_services(stop):
            self._show_mesh()
            await self._until(stop)
        return 0

    async def _start_services(self, stop: asyncio.Event) -> bool:
        """False when stopped before all of them are announced."""
        await asyncio.to_thread(self._folder.prepare, SERVICES, USERS)
        await asyncio.to_thread(Store(self._folder.database).prepare)
        complete = asyncio.Event()
        self._tasks = [
            *(asyncio.create_task(self._keep(name)) for name in SERVICES),
            asyncio.create_task(self._compose(complete)),
        ]
        announced = asyncio.create_task(complete.wait())
        return await _within(announced, stop, "the services do not come up")

    async def _until(self, stop: asyncio.Event, *others: asyncio.Task[Any]) -> bool:
        """Wait for the end; False when one of `others` came first. Raises what a task of ours
        raises."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *others, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel([stopping])
        for task in self._tasks:
            if task.done() and not stop.is_set():
                task.result()
        return stop.is_set()

    async def end(self) -> None:
        """End every process, the gateway first; bounded."""
        await _cancel(self._tasks)
        if self._gateway is not None:
            await self._gateway.end(signal.SIGTERM)
        await asyncio.gather(*(child.end(signal.SIGTERM) for child in self._running.values()))

    # -- services -----------------------------------------------------------------------

    async def _keep(self, name: str) -> None:
        """Run a service, and another one in its place when it ends."""
        kind = "auth" if name == "auth" else "shop"
        command = [sys.executable, "-m", "gateway.demo.services", kind, name]
        command += [str(self._folder.path)]
        if self._host is not None:
            command += ["--host", self._host]
        while True:
            child = await Child.start(command, quiet=self._quiet)
            self._running[name] = child
            status = await child.wait()
            del self._running[name]
            self._folder.record(name).unlink(missing_ok=True)
            click.echo(f"# {name} ended ({status}); it comes back in a second", err=True)
            await asyncio.sleep(_RESTART_DELAY)

    async def _compose(self, complete: asyncio.Event) -> None:
        """Keep the discovery cache as the services say, and fresh."""
        writer = CacheWriter(self._folder)
        while True:
            if await asyncio.to_thread(writer.update, tuple(self._running)) == len(SERVICES):
                complete.set()
            await asyncio.sleep(_COMPOSE_INTERVAL)

    # -- gateway ------------------------------------------------------------------------

    async def _start_gateway(self, public: Address, admin: Address) -> Child:
        folder = self._folder
        return await Child.start(
            [
                *(sys.executable, "-m", "gateway.cli", "run"),
                *("--bind", str(public), "--admin-bind", str(admin)),
                *("--discovery-cache", str(folder.cache)),
                *("--authorized-services", str(folder.authorized)),
                *("--ticket-key", str(folder.ticket_key)),
                *("--routes", str(folder.routes)),
                *(("--tracing", "--tracing-endpoint", self._tracing) if self._tracing else ()),
                *("--access-log", str(folder.access_log)),
                *("--discovery-poll-interval", "0.25"),
                *("--log-level", "warning", "--log-format", "text"),
                # Ended by SIGTERM, which is silent while Python is still starting.
                *("--drain-delay", "0", "--drain-limit", f"{END_LIMIT / 2:g}"),
            ],
            output=True,
        )

    async def _until_ready(self, gateway: Child) -> tuple[str, str]:
        """Both addresses, once the gateway says that it is ready."""
        line = await gateway.line()
        match = _READY.fullmatch(line)
        if match is None:
            raise ConfigError(f"the gateway did not start ({line or await gateway.wait()})")
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{match[2]}/readyz") as answer:
                    if answer.status == 200:
                        return match[1], match[2]
                await asyncio.sleep(_COMPOSE_INTERVAL)

    def _processes(self) -> str:
        return ", ".join(f"{name} {child.pid}" for name, child in self._running.items())

    def _show_mesh(self) -> None:
        folder = self._folder
        click.echo(
            f"# mesh    {self._processes()} at {self._host}\n"
            "#         on every interface: who reaches this machine can call them, with tickets or "
            "actions that need none\n"
            f"# files   {folder.path}\n"
            "# A gateway that has these files and reaches this host:\n"
            f"scamp-gateway run --discovery-cache {folder.cache} --authorized-services "
            f"{folder.authorized} --ticket-key {folder.ticket_key} --routes {folder.routes}\n"
            "# Ctrl-C ends all of it."
        )
        sys.stdout.flush()

    def _show(self, public: str, admin: str) -> None:
        folder = self._folder
        open_to_all = "" if _is_here(admin) else _OPEN
        public, admin = map(reachable, (public, admin))
        click.echo(
            f"# gateway {public} (process {self._gateway.pid if self._gateway else '?'})\n"
            f"# admin   {admin}\n{open_to_all}"
            f"# mesh    {self._processes()}; kill -9 one of them and it goes on\n"
            f"# files   {folder.path}\n"
            f"# explore {public}/docs with the ticket in {folder.ticket('alice')}\n"
            "# alice has every privilege, bob may only read. Paste what you like:\n\n"
            f"{script(folder, public, admin)}\n"
            "# Ctrl-C ends all of it."
        )
        sys.stdout.flush()


def _is_here(url: str) -> bool:
    """Whether nobody else reaches it."""
    return ip_address(urlsplit(url).hostname or "").is_loopback


_OPEN: Final = "#         both for whoever reaches this machine; the admin one asks for no ticket\n"


def reachable(url: str) -> str:
    """Something to paste: for every address of a container the one where it is published."""
    return re.sub(r"//(?:0\.0\.0\.0|\[::\])(?=:)", "//127.0.0.1", url)


async def _within(task: asyncio.Task[Any], stop: asyncio.Event, problem: str) -> bool:
    """Wait for `task`; False when stopped before. Raises `ConfigError` after `START_LIMIT`."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(
            {task, stopping}, timeout=START_LIMIT, return_when=asyncio.FIRST_COMPLETED
        )
        if stop.is_set():
            return False
        if not task.done():
            raise ConfigError(f"{problem} within {START_LIMIT:g} s")
        task.result()
        return True
    finally:
        await _cancel([stopping, task])


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
