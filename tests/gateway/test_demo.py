"""The demo as a user has it: its processes, the lines that it prints, its end."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from click.testing import CliRunner
from demos import demo_process

from gateway.cli import main
from gateway.demo.services import EXPORT_SIZE, authorization_table
from gateway.demo.store import Sku, Store
from scamp.authz import AuthzTable
from stand import eventually

pytestmark = pytest.mark.one_loop


@dataclass
class Line:
    """A printed line and the comment above it."""

    status: int
    says: str
    command: str


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)


class Demo:
    """A demo process and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, printed: str) -> None:
        self.process = process
        self.printed = printed
        self.lines = [
            Line(int(status), says, command)
            for status, says, command in re.findall(
                r"^# (\d{3}): (.+)\n(curl .+)$", printed, re.MULTILINE
            )
        ]
        self.pids = {
            name: int(pid) for name, pid in re.findall(r"(auth|shop-\d) (\d+)[,;]", printed)
        }
        self.public = self._find(r"# gateway (\S+)")
        self.admin = self._find(r"# admin +(\S+)")
        self.folder = Path(self._find(r"# files +(\S+)"))
        self.explorer = self._find(r"# explore (\S+) with the ticket in \S+alice.ticket$")
        self.family = psutil.Process(process.pid).children(recursive=True)

    def _find(self, pattern: str) -> str:
        match = re.search(pattern, self.printed, re.MULTILINE)
        assert match is not None, self.printed
        return match[1]

    def everybody_gone(self) -> bool:
        return not any(one.is_running() and one.status() != "zombie" for one in self.family)


@asynccontextmanager
async def running_demo(folder: Path) -> AsyncIterator[Demo]:
    async with demo_process(folder) as (process, printed):
        yield Demo(process, printed)


# -- the lines --------------------------------------------------------------------------


async def by_curl(line: Line) -> Answer:
    """Run the line as a shell does with what was pasted."""
    process = await asyncio.create_subprocess_shell(
        line.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    # 28: it looked for as long as it was told to.
    assert process.returncode == (28 if "--max-time" in line.command else 0), err.decode()
    shown, _, status = out.rstrip(b"\n").rpartition(b"\n")
    headers = {}
    if shown.startswith(b"HTTP/"):
        head, _, shown = shown.partition(b"\r\n\r\n")
        for one in head.decode().split("\r\n")[1:]:
            name, _, value = one.partition(": ")
            headers[name] = value
    return Answer(int(status), shown, headers)


def header_text(word: str) -> str:
    return Path(word[1:]).read_text().strip() if word.startswith("@") else word


async def by_aiohttp(line: Line) -> Answer:
    """Do the same without curl."""
    words = iter(shlex.split(line.command)[1:])
    method, url, body = "GET", "", None
    headers: dict[str, str] = {}
    for word in words:
        if word in ("-w", "-o", "--max-time"):
            next(words)
        elif word == "-X":
            method = next(words)
        elif word == "-d":
            body = next(words)
        elif word == "-H":
            name, _, value = header_text(next(words)).partition(": ")
            headers[name] = value
        elif not word.startswith("-"):
            url = word
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers, data=body) as answer,
    ):
        if "--max-time" in line.command:
            content = await answer.content.readuntil(b"}}}\n\n")
        else:
            content = await answer.read()
        if "%{size_download}" in line.command:
            content = f"{len(content)} bytes".encode()
        return Answer(answer.status, content, dict(answer.headers))


LAMP = {"code": "LAMP-1", "name": "Brass lamp", "price": 4900}
CHAIR = {"code": "CHAIR-1", "name": "Oak chair", "price": 14900}

CHECKS: dict[str, Callable[[Answer], bool]] = {
    "open to everybody": lambda got: got.json()["pong"] is True,
    "reading: bob may": lambda got: CHAIR in got.json()["skus"],
    "creating: alice may": lambda got: got.json() == LAMP,
    "the created one": lambda got: got.json() == LAMP,
    "conflict": lambda got: got.json()["upstream_code"] == "conflict",
    "no ticket": lambda got: (
        got.headers["WWW-Authenticate"].startswith("Bearer")
        and got.json()["code"] == "ticket_missing"
    ),
    "privilege sku_create": lambda got: "sku_create" in got.json()["detail"],
    "price_set, which bob lacks": lambda got: "price_set" in got.json()["detail"],
    "alice has price_set": lambda got: got.json()["price"] == 4500,
    "updating": lambda got: got.json()["name"] == "Bright lamp",
    "prices, live": lambda got: (
        b'event: snapshot\ndata: {"service":"shop","sector":"main","codes":{"price":{' in got.body
        and b'"CHAIR-1":14900' in got.body
    ),
    "events need a ticket": lambda got: got.json()["code"] == "ticket_missing",
    "no service announces": lambda got: got.json()["code"] == "unknown_action",
    "not_found": lambda got: got.json()["upstream_code"] == "not_found",
    "see Allow": lambda got: "POST" in got.headers["Allow"] and "GET" not in got.headers["Allow"],
    f"streamed download, {EXPORT_SIZE} bytes": lambda got: (
        got.body.decode() == f"{EXPORT_SIZE} bytes"
    ),
    "the caller waits 1": lambda got: got.json()["code"] == "reply_timeout",
    "printer_on_fire": lambda got: got.json()["upstream_code"] == "printer_on_fire",
    "routes.toml": lambda got: got.json()["name"] == "Bright lamp",
    "price as the whole body": lambda got: got.json()["price"] == 4200,
    "it is gone": lambda got: got.json()["upstream_code"] == "not_found",
    "destroying": lambda got: got.json() == {"destroyed": "LAMP-1"},
    "describes itself": lambda got: int(got.body.split()[0]) > 10_000,
    "ready, and why": lambda got: got.body.startswith(b"[+] index: 3 services"),
    "metrics": lambda got: b"scamp_gateway_requests_total" in got.body,
}
"""By what stands in a comment: whether an answer is what it says."""


def check(line: Line, answer: Answer) -> None:
    assert answer.status == line.status, (line, answer)
    (right,) = [one for words, one in CHECKS.items() if words in line.says]
    assert right(answer), (line, answer)


async def test_every_line_gives_what_its_comment_says(tmp_path: Path) -> None:
    async with running_demo(tmp_path) as demo:
        assert {line.status for line in demo.lines} == {200, 401, 403, 404, 405, 409, 500, 504}
        for line in demo.lines:
            check(line, await by_aiohttp(line))
        if shutil.which("curl") is None:
            pytest.skip("the lines were tried without curl, which is not installed")
        for line in demo.lines:
            check(line, await by_curl(line))


async def test_killed_service_is_done_without_and_comes_back_and_the_end_leaves_nobody(
    tmp_path: Path,
) -> None:
    async with running_demo(tmp_path) as demo, aiohttp.ClientSession() as http:
        assert set(demo.pids) == {"auth", "shop-1", "shop-2"}
        identities = await shops(http, demo)
        psutil.Process(demo.pids["shop-1"]).send_signal(signal.SIGKILL)

        async def a_new_one_is_there() -> bool:
            # Meanwhile reading goes on without a single failure.
            async with http.get(f"{demo.public}/api/Product.Sku.ping") as answer:
                assert answer.status == 200
            now = await shops(http, demo)
            return len(now) == 2 and now != identities

        await eventually(a_new_one_is_there)
        demo.family += psutil.Process(demo.process.pid).children(recursive=True)
        demo.process.send_signal(signal.SIGINT)
        assert await demo.process.wait() == 0
        assert demo.everybody_gone()
        assert (tmp_path / "access.log").read_text().count("Product.Sku.ping") >= 1


async def shops(http: aiohttp.ClientSession, demo: Demo) -> set[str]:
    async with http.get(f"{demo.admin}/services") as answer:
        services = (await answer.json())["services"]
    return {one["identity"] for one in services if one["name"].startswith("shop")}


async def test_no_process_outlives_a_killed_demo(tmp_path: Path) -> None:
    async with running_demo(tmp_path) as demo:
        assert len(demo.family) == 4
        demo.process.kill()
        await demo.process.wait()

        async def gone() -> bool:
            return demo.everybody_gone()

        await eventually(gone)


async def test_port_in_use_ends_the_demo_with_a_reason(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", "demo", "--port", str(port)),
            *("--admin-port", "0", "--dir", str(tmp_path), "--quiet-services"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; --port 0" in line


def test_a_file_system_that_is_read_only_ends_the_demo_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(**given: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.TemporaryDirectory", nowhere)
    done = CliRunner().invoke(main, ["demo", "--port", "0", "--admin-port", "0"])
    assert done.exit_code == 2
    assert done.output == (
        "scamp-gateway: no place for the demo's files: "
        "No usable temporary directory found in ['/tmp']; --dir can name one\n"
    )


# -- its parts --------------------------------------------------------------------------


async def test_services_alone_tell_where_they_can_be_reached_and_speak_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    async with demo_process(tmp_path / "demo", "--mesh", "127.0.0.1") as (process, printed):
        assert "every interface" in printed
        assert "scamp-gateway run --discovery-cache" in printed
        services = psutil.Process(process.pid).children()
        assert len(services) == 3
        for service in services:
            assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & service.environ().keys()


@pytest.mark.parametrize(
    ("listening", "printed"),
    [
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://[::]:8080", "http://127.0.0.1:8080"),
        ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
    ],
)
def test_addresses_are_printed_as_they_can_be_pasted(listening: str, printed: str) -> None:
    from gateway.demo.supervisor import reachable

    assert reachable(listening) == printed


async def test_it_listens_where_it_is_told_to(tmp_path: Path) -> None:
    async with demo_process(tmp_path, "--host", "127.0.0.2", "--quiet-services") as (_, printed):
        demo_at = re.findall(r"^# (?:gateway|admin) +(\S+)", printed, re.MULTILINE)
    assert [url.rpartition(":")[0] for url in demo_at] == ["http://127.0.0.2"] * 2
    assert "asks for no ticket" not in printed


async def test_it_says_who_reaches_it_where_others_do(tmp_path: Path) -> None:
    async with demo_process(tmp_path, "--host", "0.0.0.0") as (_, printed):  # noqa: S104
        assert "the admin one asks for no ticket" in printed


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    from gateway.demo.folder import Folder

    folder = Folder(tmp_path / "demo")
    folder.prepare({"shop": "Product"}, {"alice": (1, (1, 2))})
    secrets = [folder.key("shop"), folder.ticket("alice"), folder.header("alice")]
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_routes_that_were_changed_stay_when_the_folder_is_used_again(tmp_path: Path) -> None:
    from gateway.demo.folder import ROUTES, Folder

    folder = Folder(tmp_path / "demo")
    folder.prepare({}, {})
    assert folder.routes.read_text() == ROUTES
    folder.routes.write_text("# mine\n")
    folder.prepare({}, {})
    assert folder.routes.read_text() == "# mine\n"


def test_table_names_every_privilege() -> None:
    table = AuthzTable.parse(json.dumps(authorization_table()).encode())
    assert table.required("Product.Price.set") == frozenset({5})
    assert table.name_of(5) == "price_set"


def test_store_is_one_for_all_who_open_it(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "db"), Store(tmp_path / "db")
    one.prepare()
    two.prepare()
    lamp = Sku("LAMP-1", "Lamp", 100)
    assert one.add(lamp)
    assert not two.add(lamp)
    assert two.get("LAMP-1") == lamp
    assert two.change("LAMP-1", price=50) == Sku("LAMP-1", "Lamp", 50)
    assert one.change("NONE", price=50) is None
    assert len(one.list()) == 4
    assert one.remove("LAMP-1")
    assert not two.remove("LAMP-1")
