"""The first mesh, built as a newcomer builds it: every file is saved and every command run."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
from multicast import needs_multicast
from pages import PATIENCE, Page, environment, shell

PAGE: Final = Page("docs/first-mesh.md")
BINARIES: Final = Path(sys.executable).parent

pytestmark = needs_multicast


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def until(what: Callable[[], bool], say: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, say()
        time.sleep(0.05)


class Desk:
    """A directory, and what runs in its terminals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed = ""
        """By the commands with which bob signs in and asks for something."""
        # Ports that nobody else uses, in place of the usual ones.
        self._ports = {port: free_port() for port in ("5555", "8080", "9090")}

    def mine(self, text: str) -> str:
        for usual, own in self._ports.items():
            text = re.sub(rf"\b{usual}\b", own, text)
        return text

    def files(self) -> None:
        for kind in ("python", "ini", "toml"):
            for text in PAGE.blocks(kind):
                name = re.match(r"# (\S+)\n", text)
                assert name is not None, "a file says its name first"
                (self.folder / name[1]).write_text(self.mine(text))

    def run(self, part: str) -> str:
        """The block of commands with this in it."""
        return shell(self.mine(self.block(part)), self.folder)

    @staticmethod
    def block(part: str) -> str:
        return PAGE.block_with("sh", part)

    @contextmanager
    def terminal(self, command: str, sign: str) -> Iterator[subprocess.Popen[bytes]]:
        """What runs until the end of the block, from when it has said `sign`."""
        assert command in PAGE.text
        program, *rest = command.split()
        said = self.folder / f"{program}-{rest[-1]}.log"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [BINARIES / program, *rest],
                cwd=self.folder,
                env={**environment(), "SCAMP": str(self.folder / "scamp.conf")},
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda: sign in said.read_text() or process.poll() is not None, said.read_text)
            assert process.poll() is None, said.read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def listed(self, name: str) -> bool:
        there = (self.folder / "discovery_cache").exists()
        return there and f"\n{name} " in self.scamp("list services")

    def scamp(self, command: str) -> str:
        return self.with_conf(f"scamp {command}")

    def with_conf(self, command: str) -> str:
        return shell(f'export SCAMP="$PWD/scamp.conf"\n{command}', self.folder)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("mesh")
    desk = Desk(folder)
    desk.files()
    desk.run("scamp keygen stock")
    desk.run("> authorized_services")
    assert desk.block("export SCAMP").startswith('export SCAMP="$PWD/scamp.conf"')
    with ExitStack() as stack:
        stack.enter_context(desk.terminal("scamp -v cache", "writing discovery_cache"))
        # A service is started with a log of its own and is known by what the cache then has.
        for name in ("auth", "stock"):
            stack.enter_context(desk.terminal(f"python {name}.py", ""))
        until(lambda: desk.listed("auth") and desk.listed("stock"), lambda: "not announced")
        gateway = "scamp-gateway run --config gateway.toml"
        stack.enter_context(desk.terminal(gateway, "scamp-gateway ready"))
        desk.printed = desk.run("> bob.header")
        yield desk


def asked(desk: Desk, command: str) -> tuple[int, str]:
    """The status of a call, and the code of its problem, if there is one."""
    printed = shell(desk.mine(command.strip()) + " -w '\n%{http_code}'", desk.folder)
    body, _, status = printed.rpartition("\n")
    return int(status), json.loads(body).get("code", "")


def test_the_mesh_is_there(desk: Desk) -> None:
    assert desk.block("scamp list services") == "scamp list services\nscamp list actions\n"
    actions = desk.scamp("list actions")
    assert "main:Stock.count~1" in actions
    assert "main:Auth.getAuthzTable~1" in actions


def test_the_settings_are_good(desk: Desk) -> None:
    assert "all good" in desk.with_conf(desk.block("scamp-gateway check"))


def test_who_signs_in_may_fetch_and_not_count(desk: Desk) -> None:
    assert desk.printed == PAGE.block_with("json", '"left"').strip()
    count = desk.block("-X PUT")
    assert asked(desk, count) == (403, "privilege_missing")
    assert asked(desk, count.replace("-H @bob.header", "")) == (401, "ticket_missing")
    as_get = re.sub(r"-X PUT --json '.*?'", "", count)
    assert asked(desk, as_get) == (405, "method_not_allowed")
    for code in ("privilege_missing", "ticket_missing", "method_not_allowed"):
        assert f"`{code}`" in PAGE.text
    shown = shell(desk.mine(count), desk.folder)
    assert "count the stock" in json.loads(shown)["detail"]


def test_alice_may_count(desk: Desk) -> None:
    sign_in = desk.block("> bob.header").rpartition("\ncurl")[0]
    shell(desk.mine(sign_in.replace("bob", "alice").replace("coffee", "tea")), desk.folder)
    count = desk.block("-X PUT").replace("@bob", "@alice")
    assert json.loads(shell(desk.mine(count), desk.folder)) == {"left": 11}
    shell(desk.mine(count.replace(": 11", ": 12")), desk.folder)


def test_all_that_is_to_be_looked_at_is_there(desk: Desk) -> None:
    for path in re.findall(r"<(http://\S+)>", PAGE.text):
        where = path if "/whoami" not in path else f"-H @bob.header {path}"
        printed = shell(desk.mine(f"curl -s -o /dev/null -w '%{{http_code}}' {where}"), desk.folder)
        assert printed == "200", path
    assert (desk.folder / "access.log").stat().st_size > 0


def test_what_is_taken_out_of_authorized_services_is_gone(desk: Desk) -> None:
    allowed = desk.folder / "authorized_services"
    both = allowed.read_text()
    fetch = desk.block("> bob.header").splitlines()[-1]
    try:
        allowed.write_text(both.splitlines(keepends=True)[0])
        until(lambda: asked(desk, fetch) == (404, "unknown_action"), lambda: "still there")
    finally:
        allowed.write_text(both)
    until(lambda: asked(desk, fetch)[0] == 200, lambda: "not there again")


def test_a_killed_service_is_no_failed_request(desk: Desk) -> None:
    fetch = desk.block("> bob.header").splitlines()[-1]
    with desk.terminal("python stock.py", ""):
        until(lambda: desk.scamp("list services").count("\nstock ") == 2, lambda: "not announced")
    # Killed. The other one is there, and nothing fails that can be tried again.
    assert {asked(desk, fetch)[0] for _ in range(10)} == {200}
