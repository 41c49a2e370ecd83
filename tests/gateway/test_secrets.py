"""Tickets, passwords and keys wherever somebody can put one: in nothing that a gateway writes."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import aiohttp
import pytest
from click.testing import CliRunner

from fronted import Wire
from gateway.cli import main
from scamp import keys
from scamp.discovery import write_cache
from scamp.testing import ScriptedPeer, make_identity
from scamp.testing.peer_connection import PeerRequest
from scamp.tickets import issue_ticket
from scamp.wire import PacketType
from stand import TICKET_KEY, eventually

WINDOW: Final = 24
"""Characters of a secret that nobody may see together."""

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """``run`` sets up logging for the whole process."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.captureWarnings(False)


class Secrets:
    """Texts that nobody has seen, by where they were put."""

    def __init__(self) -> None:
        self.by_place: dict[str, str] = {}

    def ticket(self, place: str, size: int = 128) -> str:
        """One that is well formed and signed by nobody; `size` is the signature's, in bytes."""
        signature = base64.urlsafe_b64encode(os.urandom(size)).decode().rstrip("=")
        self.keep(place, signature)
        return f"1,7,9,1700000000,3600,1+2,{signature}"

    def keep(self, place: str, text: str) -> str:
        """Text that is to be seen nowhere."""
        self.by_place[place] = text
        return text

    def seen_in(self, written: bytes) -> set[str]:
        """Places whose secret is there, in part at least, plain or encoded."""
        text = written.decode("utf-8", "backslashreplace")
        texts = (text, unquote(text), unquote(unquote(text)), text.replace("\\/", "/"))
        return {
            place
            for place, secret in self.by_place.items()
            for start in range(0, max(1, len(secret) - WINDOW), 8)
            if any(secret[start : start + WINDOW] in one for one in texts)
        }


def test_a_secret_is_found_in_part_and_encoded() -> None:
    secrets = Secrets()
    ticket = secrets.ticket("here")
    secrets.ticket("elsewhere")
    for text in (ticket, quote(ticket, safe=""), quote(quote(ticket)), ticket[90:150]):
        assert secrets.seen_in(f"x{text}y".encode()) == {"here"}
    assert secrets.seen_in(ticket[:40].encode()) == set()


# -- a gateway that is told all kinds of secrets ----------------------------------------


async def quote_it(request: PeerRequest) -> None:
    """A service that repeats the ticket, in the way that the request's body says."""
    ticket = str(request.header["ticket"])
    connection, how = request.connection, bytes(request.body)
    if how == b"error":
        await request.reply(error_code="no", error=f"no: {ticket}", error_data={"ticket": ticket})
    elif how == b"code":
        await request.reply(error_code=ticket, error="no")
    elif how == b"encoded":
        await request.reply(error_code=quote(ticket, safe=""), error=quote(ticket, safe=""))
    elif how == b"dispatch":
        data = {"dispatch_failure": True, "ticket": ticket}
        await request.reply(error_code="dispatch_failure", error=ticket, error_data=data)
    elif how == b"txerr":
        request.open().fail(ticket)
    elif how == b"cut":
        reply = request.open()
        await reply.write(b'"begun')
        reply.fail(f"failed with {ticket}")
    elif how == b"id":
        await request.reply(request_id=ticket)
        await request.reply()
    elif how == b"type":
        connection.open({"type": ticket, "request_id": ticket}).end()
        await request.reply()
    elif how == b"header":
        connection.packet(PacketType.HEADER, 0, f'{{"type": "reply", "x": "{ticket}'.encode())
    elif how == b"envelope":
        await request.reply(envelope=ticket)
    else:
        connection.packet(PacketType.TXERR, 4711, ticket.encode())


HOWS: Final = (
    *("error", "code", "encoded", "dispatch", "txerr", "cut", "id", "type", "header"),
    *("envelope", "packet"),
)


async def rude_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One that repeats what it does not understand, as they do."""
    with suppress(ConnectionError):
        while line := await reader.readline():
            if not line.startswith((b"*", b"$")):
                said = line.strip().decode()
                writer.write(f"-ERR unknown command, args: '{said}'\r\n".encode())
    writer.close()


class Told:
    """A gateway as a process, with all that it was given and all that it wrote."""

    def __init__(self, folder: Path, peer: ScriptedPeer, secrets: Secrets) -> None:
        self.folder = folder
        self.peer = peer
        self.secrets = secrets
        self.public = self.admin = ""
        self.process: asyncio.subprocess.Process | None = None
        self.answers: list[bytes] = []

    def prepare(self, redis_port: int) -> list[str]:
        """The files, and the command line."""
        folder, secrets = self.folder, self.secrets
        password = secrets.keep("redis password", "Pw" + os.urandom(20).hex())
        announced = self.peer.announcement()
        leaving = ScriptedPeer(name=secrets.ticket("identity of a service"), actions=("Test.b",))
        leaving.port = 1
        records = [
            announced,
            announced.replace(b"Test", secrets.ticket("broken record").encode()),
            secrets.ticket("no record").encode(),
            leaving.announcement(),
            announced.replace(b"127.0.0.1", secrets.ticket("uri").encode()),
        ]
        write_cache(folder / "cache", records)
        (folder / "redis").write_text(f"redis://user:{password}@127.0.0.1:{redis_port}/0")
        (folder / "ticket.pem").write_bytes(keys.public_key_pem(make_identity(TICKET_KEY).key))
        (folder / "table.json").write_text('{"test.quote": [1], "_NAMES": [null, "p"]}')
        (folder / "routes.toml").write_text(
            '[[routes]]\nmethod = "POST"\npath = "/one/{id}"\naction = "Test.quote"\n'
        )
        (folder / "authorized").write_text(f"{make_identity().fingerprint} main:ALL\n")
        return [
            *(sys.executable, "-m", "gateway.cli", "run"),
            *("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--drain-delay", "0"),
            *("--discovery-cache", str(folder / "cache"), "--discovery-max-age", "86400"),
            *("--authorized-services", str(folder / "authorized")),
            *("--ticket-key", str(folder / "ticket.pem")),
            *("--authz-table", str(folder / "table.json"), "--routes", str(folder / "routes.toml")),
            *("--rate-limit-address", "100000/s", "--ticket-cookie", "ticket"),
            *("--rate-limit-redis-file", str(folder / "redis")),
            *("--trusted-proxy", "127.0.0.1", "--retries", "0"),
            *("--body-idle-timeout", "1", "--header-timeout", "1", "--request-timeout", "2"),
            *("--log-level", "debug", "--log-level", "aiohttp.server=debug"),
            *("--log-level", "asyncio=debug", "--access-log", str(folder / "access.log")),
        ]

    def good_ticket(self, place: str) -> str:
        """One that the gateway takes."""
        ticket = issue_ticket(
            keys.load_private_key(make_identity(TICKET_KEY).key),
            user_id=len(self.secrets.by_place),  # or signatures would be equal
            client_id=9,
            privileges=(1,),
            start=1_700_000_000,
            length=10**9,
        )
        self.secrets.keep(place, ticket.rpartition(",")[2])
        return ticket

    async def ask(
        self, method: str, target: str, fields: tuple[tuple[str, str], ...], body: str
    ) -> None:
        """One request on a connection of its own; what is answered is kept."""
        port = int(self.public.rpartition(":")[2])
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
        wire.send(method, target, [*fields, ("Connection", "close")], body.encode())
        with suppress(ConnectionError):
            async with asyncio.timeout(20):
                self.answers.append(await wire.reader.read())
        await wire.close()

    async def ask_all(self) -> None:
        """Requests with a secret in each place that a caller has."""
        new, path = self.secrets.ticket, "/api/Test.quote"
        requests: list[tuple[str, str, tuple[tuple[str, str], ...], str]] = []

        def ask(method: str, target: str, *fields: tuple[str, str], body: str = "") -> None:
            requests.append((method, target, fields, body))

        for scheme in ("Bearer", "bearer", "Basic", "Token"):
            field = ("Authorization", f"{scheme} {new(f'Authorization {scheme}')}")
            ask("POST", path, field)
        ask(
            "POST",
            path,
            ("Authorization", f"Bearer {self.secrets.keep('opaque', os.urandom(40).hex())}"),
        )
        ask("POST", path, ("Authorization", new("Authorization bare")))
        ask("POST", path, ("X-SCAMP-Ticket", new("X-SCAMP-Ticket")))
        ask("GET", path, ("Cookie", f"a=b; ticket={new('cookie')}; c=d"))
        ask("POST", path, ("Cookie", f"ticket={new('cookie unsafe')}"))
        two = (("X-SCAMP-Ticket", new("first")), ("Authorization", f"Bearer {new('second')}"))
        ask("POST", path, *two)
        whole = new("split")
        halves = (("X-SCAMP-Ticket", whole[:200]), ("X-SCAMP-Ticket", whole[200:]))
        ask("POST", path, *halves)
        for target in (
            *(f"{path}?ticket={new('query')}", f"/api/{new('path')}", f"/{new('route')}"),
            *(f"/one/{new('route parameter')}", f"/api/events/{new('event')}"),
            *(f"/docs/{new('docs')}", f"{path}?ticket={quote(new('query encoded'), safe='')}"),
            *(f"/api/{quote(new('path encoded'), safe='')}", f"/api/{quote(quote(new('twice')))}"),
            *(f"http://{new('absolute')}/x", f"{path}#{new('fragment')}", f"/\xff{new('8 bit')}"),
            f"/openapi.json?ticket={new('openapi query')}",
        ):
            for method in ("GET", "POST", "OPTIONS"):
                ask(method, target)
        for name in (
            *("X-Request-ID", "traceparent", "tracestate", "User-Agent", "Referer", "Origin"),
            *("X-Forwarded-For", "Content-Type", "X-SCAMP-Timeout", "Accept", "Expect"),
            *("Content-Encoding", "Last-Event-ID", "Forwarded", "Host", "Range", "Upgrade"),
        ):
            ask("POST", path, (name, new(name)), body="{}")
            ask("POST", path, (name, new(f"{name}, short", 48)))
            ask("POST", "/no/where", (name, quote(new(f"{name} encoded"), safe="")))
        ask("POST", path, (new("name").replace(",", "."), "x"))
        ask("POST", path, (new("bad name"), "x"))
        ask("POST", path, ("X", f"a\x00{new('NUL')}"))
        ask("POST", path, ("X", f"{new('too long')}{'x' * 100_000}"))
        ask("POST", path, ("Content-Length", new("length")))
        ask("POST", path, ("Transfer-Encoding", new("coding")))
        ask(new("method").replace(",", "."), path)
        ask(new("bad method"), path)
        ask("POST", "/one/5", body=f'{{"ticket": "{new("body")}"}}')
        ask("POST", "/one/5", body=f'{{"ticket": "{new("broken body")}')
        chunked = ("Transfer-Encoding", "chunked")
        ask("POST", path, chunked, body=f"{new('chunk size')}\r\n")
        await asyncio.gather(*(self.ask(*one) for one in requests))

    async def ask_service(self) -> None:
        """Requests whose good ticket the service repeats."""
        for how in HOWS:
            ticket = self.good_ticket(f"quoted: {how}")
            trace = ("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01")
            fields = (("Authorization", f"Bearer {ticket}"), trace)
            await self.ask("POST", "/api/Test.quote", fields, how)
        self.answers.clear()  # what a service says goes to whoever asked it

    async def spoil(self) -> None:
        """Files that cannot be used, full of secrets, and a look at them."""
        assert self.process is not None
        key = make_identity(3).key.decode()
        (self.folder / "ticket.pem").write_text(key)
        for number, line in enumerate(key.splitlines()[1:-1]):
            self.secrets.keep(f"line {number} of a key", line)
        broken = self.secrets.ticket("table file")
        (self.folder / "table.json").write_text(f'{{"a": {broken}')
        broken = self.secrets.ticket("routes file")
        (self.folder / "routes.toml").write_text(f"[[routes]]\npath = {broken}\n")
        self.process.send_signal(signal.SIGHUP)

    async def pages(self) -> bytes:
        """All that the admin listener shows."""
        shown = b""
        paths = ("/", "/overview", "/services", "/actions", "/connections", "/config", "/metrics")
        async with aiohttp.ClientSession() as http:
            for path in (*paths, "/readyz?verbose", f"/{self.secrets.ticket('admin path')}"):
                async with http.get(self.admin + path) as answer:
                    shown += await answer.read()
        return shown

    async def refused(self) -> bool:
        """Whether all that was spoilt was looked at."""
        shown = (await self.pages()).decode()
        return all(
            f'scamp_gateway_reloads_total{{result="failed",what="{what}"}}' in shown
            for what in ("ticket_keys", "authz_table", "routes")
        )


@asynccontextmanager
async def told(folder: Path, *flags: str) -> AsyncIterator[Told]:
    secrets = Secrets()
    peer = ScriptedPeer(quote_it, actions=("Test.quote",), flags="read")
    redis = await asyncio.start_server(rude_redis, "127.0.0.1", 0)
    async with peer, redis:
        made = Told(folder, peer, secrets)
        command = made.prepare(redis.sockets[0].getsockname()[1])
        with (folder / "stderr").open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *command, *flags, stdout=asyncio.subprocess.PIPE, stderr=stderr
            )
        made.process = process
        assert process.stdout is not None
        try:
            line = (await process.stdout.readline()).decode().split()
            assert line, (folder / "stderr").read_text()
            made.public, made.admin = line[2], line[4]
            yield made
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        redis.close()


@pytest.mark.parametrize(("form", "workers"), [("json", "1"), ("text", "2")])
async def test_no_secret_is_in_anything_that_is_written(
    tmp_path: Path, form: str, workers: str
) -> None:
    flags = ("--log-format", form, "--access-log-format", form, "--workers", workers)
    async with told(tmp_path, *flags) as gateway:
        await gateway.ask_service()
        await gateway.ask_all()
        await gateway.spoil()
        await eventually(gateway.refused)
        pages = await gateway.pages()
        assert gateway.process is not None
        gateway.process.terminate()
        out, _ = await gateway.process.communicate()
    said, access = ((tmp_path / name).read_bytes() for name in ("stderr", "access.log"))
    secrets = gateway.secrets
    assert len(secrets.by_place) > 80
    # First that there was something to see, from workers too.
    assert (b"worker=2" in said) == (workers == "2")
    assert said.count(b"gateway.front") > 40
    for told_of in (
        b"ticket_keys not reloaded",
        b"routes not reloaded",
        b"is away",
        b"records ref",
    ):
        assert told_of in said
    assert len(access.splitlines()) > 80
    assert b"[ticket]" in said
    assert b"[ticket]" in access
    seen = {
        "stderr": secrets.seen_in(said),
        "stdout": secrets.seen_in(out),
        "access log": secrets.seen_in(access),
        "admin pages": secrets.seen_in(pages),
        "answers": secrets.seen_in(b"".join(gateway.answers)),
    }
    assert {what: places for what, places in seen.items() if places} == {}


# -- commands that only look ------------------------------------------------------------


@pytest.mark.parametrize("command", ["config", "check", "audit", "routes", "openapi", "run"])
def test_no_secret_is_in_what_a_command_prints(tmp_path: Path, command: str) -> None:
    """Of settings that are right, and of files that are the wrong ones."""
    secrets = Secrets()
    key = make_identity(3).key.decode()
    for number, line in enumerate(key.splitlines()[1:-1]):
        secrets.keep(f"line {number} of a key", line)
    (tmp_path / "key.pem").write_text(key)
    (tmp_path / "certificate.pem").write_bytes(make_identity(3).certificate)
    (tmp_path / "ticket").write_text(secrets.ticket("ticket in place of a key"))
    (tmp_path / "cache").write_text(secrets.ticket("ticket in place of a cache"))
    broken = f'[[routes]]\nmethod = "POST"\npath = "/x"\naction = "{secrets.ticket("routes")}"\n'
    (tmp_path / "routes.toml").write_text(broken)
    password = secrets.keep("password", "Pw" + os.urandom(20).hex())
    redis = secrets.keep("redis", "Pw" + os.urandom(20).hex())
    base = f"""
        bind = "127.0.0.1:0"
        admin_bind = "127.0.0.1:0"
        discovery_cache = "{tmp_path}/cache"
        tls_key_password = "{password}"
        rate_limit_redis = "redis://:{redis}@127.0.0.1:1/0"
    """
    wrong = (
        f'tls_certificate = "{tmp_path}/key.pem"\ntls_key = "{tmp_path}/key.pem"',
        f'tls_certificate = "{tmp_path}/certificate.pem"\ntls_key = "{tmp_path}/ticket"',
        f'ticket_keys = ["{tmp_path}/key.pem"]',
        f'ticket_keys = ["{tmp_path}/ticket"]\nauthz_table = "{tmp_path}/ticket"',
        f'auth_mode = "forward"\nroutes = "{tmp_path}/routes.toml"\nretries = "many"',
        f'auth_mode = "forward"\nroutes = "{tmp_path}/key.pem"',
        f'auth_mode = "forward"\nauthorized_services = "{tmp_path}/ticket"\nworkers = 0x10000',
    )
    printed = b""
    for settings in wrong:
        path = tmp_path / "gateway.toml"
        path.write_text(f"{base}\n{settings}\n")
        done = CliRunner().invoke(main, [command, "--config", str(path)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        printed += done.output.encode() + done.stderr.encode()
    assert len(printed) > 200
    assert secrets.seen_in(printed) == set()


def test_a_file_of_settings_that_is_none_is_not_shown(tmp_path: Path) -> None:
    secrets = Secrets()
    for number, text in enumerate((secrets.ticket("ticket"), make_identity(3).key.decode())):
        path = tmp_path / f"{number}.toml"
        path.write_text(f"{text}\n")
        for command in ("run", "check"):
            done = CliRunner().invoke(main, [command, "--config", str(path)])
            assert done.exit_code != 0
            assert secrets.seen_in(done.output.encode() + done.stderr.encode()) == set()
