"""Two gateways, nginx and HAProxy in front of both, and a service behind them: all processes.

The proxies run with the files of deploy/, in which only addresses, certificates and paths are
replaced; each of them has to be there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.processes import Process, started
from fronted import Answer, Wire
from scamp import keys
from scamp.tickets import issue_ticket

ROOT: Final = Path(__file__).parents[2]
NGINX: Final = ROOT / "deploy" / "nginx" / "scamp-gateway.conf"
HAPROXY: Final = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
PATIENCE: Final = 30.0

STRANGER: Final = "127.0.0.9"
"""An address of this machine that is no proxy's: clients come from there."""

ROUTES: Final = """
[[routes]]
method = "GET"
path = "/seldom"
action = "Show.hello"
rate = "1/h"
"""

DEBIAN: Final = """
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{ worker_connections 768; }}
http {{
    # As Debian's nginx.conf has it.
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    ssl_prefer_server_ciphers on;
    gzip on;
    access_log {folder}/other.log;
    client_body_temp_path {folder}/temp/body;
    proxy_temp_path {folder}/temp/proxy;
    fastcgi_temp_path {folder}/temp/fastcgi;
    uwsgi_temp_path {folder}/temp/uwsgi;
    scgi_temp_path {folder}/temp/scgi;
    include {folder}/scamp-gateway.conf;
}}
"""


@contextmanager
def reserved(count: int) -> Iterator[list[int]]:
    """Free ports that nobody is given by chance: bound here, not listening."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        yield ports


def replaced(shipped: Path, others: Mapping[str, str]) -> str:
    """The text of a file that is shipped, with the keys of `others` replaced. All are there."""
    text = shipped.read_text()
    for old, new in others.items():
        assert old in text, f"{shipped.name} has no {old!r}"
        text = text.replace(old, new)
    left = re.findall(r"10\.0\.0\.\d|(?<![\w./])/etc/ssl|/etc/haproxy/certs|/var/log", _live(text))
    assert not left, f"{shipped.name} has more to be replaced: {left}"
    return text


def _live(text: str) -> str:
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


def write_certificate(folder: Path) -> ssl.SSLContext:
    """Make one for this machine, as three files; the context of a client that trusts it."""
    pem, _ = keys.generate("balancer", now=datetime.now(UTC))
    key = keys.load_private_key(pem)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "balancer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    (folder / "fullchain.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(certificate + pem)
    return ssl.create_default_context(cafile=folder / "fullchain.pem")


class Gateway:
    """One on fixed ports, which can be stopped, killed and started again."""

    def __init__(self, folder: Path, number: int, public: int, admin: int) -> None:
        self.public, self.admin = public, admin
        self.log = folder / f"access{number}.log"
        self._folder = folder
        self._errors = folder / f"gateway{number}.log"
        self._stack = ExitStack()
        self.process: Process | None = None

    def start(self) -> None:
        """Until it serves; blocks."""
        folder = self._folder
        command = (
            *(Path(sys.executable).with_name("scamp-gateway"), "run"),
            *("--bind", f"127.0.0.1:{self.public}", "--admin-bind", f"127.0.0.1:{self.admin}"),
            *("--discovery-cache", folder / "cache", "--discovery-poll-interval", "0.1"),
            *("--authorized-services", folder / "authorized", "--access-log", self.log),
            *("--auth-mode", "verify", "--ticket-key", folder / "tickets.pub"),
            *("--routes", folder / "routes.toml", "--trusted-proxy", "127.0.0.1"),
            *("--events-open", "show", "--events-heartbeat", "0.5"),
        )
        self.process = self._stack.enter_context(started(list(map(str, command)), self._errors))

    def terminate(self) -> int:
        """SIGTERM, with all that comes of it; the exit status. Blocks."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        popen, self.process = self.process.popen, None
        popen.send_signal(number)
        try:
            return popen.wait(PATIENCE + 15)
        finally:
            self._stack.close()

    def close(self) -> None:
        """Gone, whatever it was."""
        if self.process is not None:
            self.kill()


class Proxy:
    """One of the two in front, with what a client needs to talk to it."""

    def __init__(self, folder: Path, port: int, plain: int, trust: ssl.SSLContext) -> None:
        self.name, self.folder = folder.name, folder
        self.port, self.plain = port, plain
        self.trust = trust
        self.process: subprocess.Popen[bytes] | None = None
        self.command: list[str] = []
        self.check: list[str] = []
        """What looks at the configuration."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """For the block, from when it listens."""
        with (self.folder / "said.log").open("wb") as log:
            self.process = process = subprocess.Popen(self.command, stdout=log, stderr=log)
        try:
            wait_until(lambda: self._listens() or process.poll() is not None, self.said)
            assert process.poll() is None, (self.folder / "said.log").read_text()
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    async def connect(self) -> Wire:
        """One more connection, from an address that is no proxy's."""
        return Wire(
            *await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.trust, local_addr=(STRANGER, 0)
            )
        )

    async def ask(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """One request on a connection of its own; `body` as JSON, or the bytes."""
        wire = await self.connect()
        try:
            async with asyncio.timeout(PATIENCE):
                data = body if isinstance(body, bytes | None) else orjson.dumps(body)
                wire.send(method, target, headers, data)
                return await wire.answer(method)
        finally:
            await wire.close()

    def written(self) -> list[str]:
        """Files that it has put aside."""
        return [str(path) for path in (self.folder / "temp").rglob("*") if path.is_file()]

    def said(self) -> str:
        """Its access log so far."""
        name = "access.log" if self.name == "nginx" else "said.log"
        return (self.folder / name).read_text()


class Balanced:
    """All of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trust = write_certificate(folder)
        self.gateways: list[Gateway] = []
        self.proxies: dict[str, Proxy] = {}
        now = datetime.now(UTC)
        key, certificate = keys.generate("show", now=now)
        (folder / "service.key").write_bytes(key)
        (folder / "service.crt").write_bytes(certificate)
        (folder / "authorized").write_text(f"{keys.fingerprint(certificate)} main:ALL\n")
        (folder / "routes.toml").write_text(ROUTES)
        self._tickets, _ = keys.generate("auth", now=now)
        (folder / "tickets.pub").write_bytes(keys.public_key_pem(self._tickets))

    def ticket(self, privileges: int) -> str:
        """With so many of them, which makes it long."""
        return issue_ticket(
            keys.load_private_key(self._tickets),
            user_id=1001,
            client_id=42,
            privileges=range(1, privileges + 1),
            start=int(time.time()) - 5,
            length=3600,
        )

    def configure(self, nginx: str, haproxy: str, ports: list[int]) -> None:
        """Write what both run with; `ports` are 13."""
        publics, admins, rest = ports[0:2], ports[2:4], ports[4:]
        for number in range(2):
            self.gateways.append(Gateway(self.folder, number, publics[number], admins[number]))
        for name, mine in (("nginx", rest[:4]), ("haproxy", rest[4:8])):
            folder = self.folder / name
            folder.mkdir()
            self.proxies[name] = Proxy(folder, mine[0], mine[2], self.trust)
        self._configure_nginx(nginx, publics, rest[:4], rest[8])
        self._configure_haproxy(haproxy, list(zip(publics, admins, strict=True)), rest[4:8])

    def _configure_nginx(
        self, program: str, publics: list[int], ports: list[int], again: int
    ) -> None:
        proxy = self.proxies["nginx"]
        folder = proxy.folder
        (folder / "temp").mkdir()
        text = replaced(
            NGINX,
            {
                "10.0.0.1:8080": f"127.0.0.1:{publics[0]}",
                "10.0.0.2:8080": f"127.0.0.1:{publics[1]}",
                "127.0.0.1:8079": f"127.0.0.1:{again}",
                "listen 443 ": f"listen 127.0.0.1:{ports[0]} ",
                "listen [::]:443 ": f"listen 127.0.0.1:{ports[1]} ",
                "listen 80;": f"listen 127.0.0.1:{ports[2]};",
                "listen [::]:80;": f"listen 127.0.0.1:{ports[3]};",
                "/etc/ssl/scamp-gateway/fullchain.pem": f"{self.folder}/fullchain.pem",
                "/etc/ssl/scamp-gateway/key.pem": f"{self.folder}/key.pem",
                "/var/log/nginx/scamp-gateway.": f"{folder}/",
            },
        )
        (folder / "scamp-gateway.conf").write_text(text)
        user = "" if os.getuid() else "user root;"  # else it is nobody, who may not read there
        path = folder / "nginx.conf"
        path.write_text(DEBIAN.format(folder=folder, user=user))
        proxy.command = [program, "-c", str(path), "-e", f"{folder}/error.log"]
        proxy.check = [*proxy.command, "-t"]

    def _configure_haproxy(
        self, program: str, gateways: list[tuple[int, int]], ports: list[int]
    ) -> None:
        proxy = self.proxies["haproxy"]
        folder = proxy.folder
        servers = {
            f"server gateway{number} 10.0.0.{number}:8080": f"server gateway{number} "
            f"127.0.0.1:{public} port {admin}"
            for number, (public, admin) in enumerate(gateways, 1)
        }
        text = replaced(
            HAPROXY,
            {
                **servers,
                "/etc/haproxy/certs/scamp-gateway.pem": f"{self.folder}/both.pem",
                "maxconn 20000": "maxconn 500",  # descriptors are few where tests run
                "/dev/log local0": "stdout format raw local0",
                "/run/haproxy/admin.sock": f"{folder}/admin.sock",
                "bind :443 ": f"bind 127.0.0.1:{ports[0]} ",
                "bind :::443 v6only ": f"bind 127.0.0.1:{ports[1]} ",
                "bind :80\n": f"bind 127.0.0.1:{ports[2]}\n",
                "bind :::80 v6only\n": f"bind 127.0.0.1:{ports[3]}\n",
            },
        )
        if os.getuid():
            text = re.sub(r"^    (chroot|user|group) .*\n", "", text, flags=re.MULTILINE)
        path = folder / "haproxy.cfg"
        path.write_text(text)
        proxy.command = [program, "-db", "-f", str(path)]
        proxy.check = [program, "-c", "-f", str(path)]

    def up(self, number: int) -> bool:
        """Whether HAProxy sends requests to that gateway."""
        path = self.proxies["haproxy"].folder / "admin.sock"
        if not path.exists():  # it gets its name a moment after it listens
            return False
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"show stat\n")
            said = b""
            while piece := sock.recv(65536):
                said += piece
        head, *lines = (line.split(",") for line in said.decode().splitlines() if line)
        rows = [dict(zip(head, line, strict=False)) for line in lines]
        return any(
            row["svname"] == f"gateway{number + 1}" and row["status"] == "UP" for row in rows
        )

    async def directly(self, action: str, body: object) -> Answer:
        """Ask a gateway that runs, past the proxies."""
        gateway = [one for one in self.gateways if one.process is not None][-1]
        wire = Wire(*await asyncio.open_connection("127.0.0.1", gateway.public))
        try:
            async with asyncio.timeout(PATIENCE):
                wire.send("POST", f"/api/Show.{action}", body=orjson.dumps(body))
                return await wire.answer()
        finally:
            await wire.close()

    async def line(self, request_id: str) -> dict[str, object]:
        """The gateway's access log line of that request, once it is written."""
        mark = f'"request_id":"{request_id}"'
        async with asyncio.timeout(PATIENCE):
            while True:
                for gateway in self.gateways:
                    for text in gateway.log.read_text().splitlines():
                        if mark in text:
                            found: dict[str, object] = orjson.loads(text)
                            return found
                await asyncio.sleep(0.01)


def wait_until(done: Callable[[], object], why: Callable[[], str] = lambda: "") -> None:
    """Until it is so; blocks. Raises TimeoutError with `why`."""
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(why())
        time.sleep(0.01)


@contextmanager
def balanced(folder: Path, nginx: str, haproxy: str) -> Iterator[Balanced]:
    """Everything up, and HAProxy knows it. Raises TimeoutError, or what a program says."""
    with ExitStack() as stack:
        stand = Balanced(folder)
        stand.configure(nginx, haproxy, stack.enter_context(reserved(13)))
        service: list[str | Path]
        service = [sys.executable, ROOT / "tests" / "helpers" / "balanced_service.py", folder]
        stack.enter_context(started(service, folder / "service.log"))
        for gateway in stand.gateways:
            gateway.start()
            stack.callback(gateway.close)
        for proxy in stand.proxies.values():
            stack.enter_context(proxy.running())
        for number in range(len(stand.gateways)):
            wait_until(lambda: stand.up(number))  # noqa: B023 - at once
        yield stand
