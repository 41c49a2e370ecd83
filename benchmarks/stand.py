"""Where sides are set up: a folder, processes that end with it, and the options."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.figures import Options
from benchmarks.http1 import Target
from benchmarks.load import PythonLoad
from benchmarks.mesh import Gateway, Mesh, mesh
from benchmarks.pace import PacedLoad
from benchmarks.processes import Process, Server, Serving, module, started
from benchmarks.sides import ClientLoad, Side
from benchmarks.wrk import WrkLoad

BODY: Final = b'{"sku":"A-1001","quantity":3,"note":"echo"}'
ECHO: Final = "Bench.echo"

SEVERAL: Final = 4
"""Services for very many requests at once: one has a queue of `max_waiters_per_instance`, and what
does not fit in is refused, as it should be."""

FROM_ONE_ADDRESS: Final = ("--max-connections-per-address", "0")
"""For a gateway whose clients are very many, all of them on this machine."""

WITHOUT_NGINX: Final = "nginx is not installed: its column is missing."

NGINX: Final = """
daemon off;
worker_processes 1;
error_log stderr;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    upstream echo {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass https://echo;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_buffer_size 64k;
            proxy_buffers 4 64k;
            client_body_buffer_size 64k;
        }}
    }}
}}
"""
"""As lean as it can be: one worker, no log, and bodies pass as they come."""


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Proxy(Server):
    """A server with another one behind it."""

    behind: tuple[Process, ...] = ()


class Stand:
    """Starts what a figure needs. All of it ends with the block of `stand`."""

    def __init__(self, folder: Path, options: Options, stack: ExitStack) -> None:
        self.folder = folder
        self.options = options
        self._stack = stack
        self._numbers = count()

    def mesh(self, *, services: int = 1, silent: int = 0) -> Mesh:
        """Services of our own."""
        return self._stack.enter_context(mesh(self.folder, services=services, silent=silent))

    def given_mesh(self) -> Mesh:
        """The services that the options name, else one of our own."""
        options = self.options
        return self._stack.enter_context(
            mesh(
                self.folder,
                cache=options.upstream_cache,
                authorized=options.upstream_authorized,
                actions=(options.action,),
            )
        )

    def gateway(self, behind: Mesh, *arguments: str) -> Gateway:
        return self._stack.enter_context(behind.gateway(*arguments))

    def bare(self, *arguments: str | Path) -> Server:
        """An echo of aiohttp: one of the forms of `benchmarks.bare`."""
        return self._stack.enter_context(
            bare(self.folder / f"bare{next(self._numbers)}.log", *arguments)
        )

    def nginx(self) -> Proxy | None:
        """nginx in front of a bare echo that speaks TLS; None where it is not installed.

        There must be a mesh: the echo has key and certificate of its service.
        """
        if shutil.which("nginx") is None:
            return None
        behind = self.bare("application", self.folder)
        # Bound and listening here, so that the port is free and whoever comes first waits.
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as sock:
            listen = f"127.0.0.1:{sock.getsockname()[1]}"
            upstream = behind.url.removeprefix("https://")
            configuration = NGINX.format(folder=self.folder, listen=listen, upstream=upstream)
            (self.folder / "nginx.conf").write_text(configuration)
            passed = f"echo ready; NGINX='{sock.fileno()};' exec nginx -c {self.folder}/nginx.conf"
            process = self._started(["sh", "-c", passed], "nginx.log", sock.fileno())
        return Proxy(process, f"http://{listen}", behind=(behind.process,))

    def side(
        self,
        name: str,
        server: Serving,
        *,
        action: str = ECHO,
        body: bytes = BODY,
        headers: Headers | None = None,
        tickets: tuple[str, ...] = (),
        clients: int | None = None,
        behind: tuple[Process, ...] = (),
    ) -> Side:
        """That server under load, with `headers` instead of those that it needs if they are given.

        The number of clients is by default that of the options.
        """
        sent = server.headers if headers is None else headers
        target = Target(f"{server.url}/api/{action}", body, sent, tickets)
        load = self.aimed(target, clients or self.options.clients)
        return Side(name, server.process, load, behind)

    def aimed(self, target: Target, clients: int) -> ClientLoad:
        """A generator: wrk or our own, as the options have it."""
        stem, wanted = f"load{next(self._numbers)}", self.options.generator
        if wanted == "wrk" or (wanted == "auto" and shutil.which("wrk")):
            return WrkLoad(target, clients, self.folder / stem)
        described = self.folder / f"{stem}.json"
        target.write(described)
        command = module("benchmarks.load", described, "--clients", str(clients))
        return PythonLoad(self._started(command, f"{stem}.log"))

    def paced(self, target: Target, *mesh: Path) -> PacedLoad:
        """A generator with a fixed rate: over HTTP, or to the service itself in that folder."""
        described = self.folder / f"load{next(self._numbers)}.json"
        target.write(described)
        direct: tuple[str | Path, ...] = ("--mesh", *mesh) if mesh else ()
        command = module("benchmarks.pace", described, *direct)
        return PacedLoad(self._started(command, f"{described.stem}.log"))

    def _started(self, command: list[str | Path], log: str, *sockets: int) -> Process:
        return self._stack.enter_context(started(command, self.folder / log, sockets=sockets))


@contextmanager
def bare(log: Path, *arguments: str | Path) -> Iterator[Server]:
    """The same, for the block."""
    with started(module("benchmarks.bare", *arguments), log) as process:
        yield Server(process, process.said)


@contextmanager
def stand(options: Options) -> Iterator[Stand]:
    """One with a folder of its own, for the block."""
    with tempfile.TemporaryDirectory(prefix="scamp-bench-") as folder, ExitStack() as stack:
        yield Stand(Path(folder), options, stack)
