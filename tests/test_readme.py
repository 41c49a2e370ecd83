"""The README's service, client and commands, done as a newcomer does them: copied out and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from benchmarks.processes import started
from gateway.cli import main
from gateway.settings import Settings

README: Final = (Path(__file__).parents[1] / "README.md").read_text()
PATIENCE: Final = 20.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def block_with(language: str, text: str) -> str:
    (found,) = [block for block in blocks(language) if text in block]
    return str(found)


def environment() -> dict[str, str]:
    """With the commands of this installation first, and no mesh of the machine's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SCAMP")}
    return {**own, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def shell(text: str, folder: Path) -> str:
    done = subprocess.run(
        ["sh", "-euc", text],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout


@contextmanager
def running(script: str, folder: Path, sign: Path) -> Iterator[None]:
    """A Python script, from when the file `sign` is there until the end of the block."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, script], cwd=folder, stderr=log)
    try:
        end = time.monotonic() + PATIENCE
        while not sign.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that the README has done up to its client."""
    folder = tmp_path_factory.mktemp("readme")
    for script in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", script)
        assert name is not None, "a script says first what file it is"
        (folder / name[1]).write_text(script)
    shell(block_with("sh", "scamp keygen"), folder)
    with running("prices.py", folder, folder / "prices.announcement"):
        shell(block_with("sh", "> cache"), folder)
        yield folder


def test_the_client_gets_what_the_readme_says(mesh: Path) -> None:
    printed = shell("python ask.py", mesh)
    assert f"`python ask.py` prints `{printed.strip()}`" in README
    assert printed == "{'price': 4900}\n"


def test_the_command_lists_and_calls(mesh: Path) -> None:
    listing, request, fingerprint = block_with("sh", "scamp list actions").splitlines()
    rows = [line.split() for line in shell(listing, mesh).splitlines()]
    assert rows[1:] == [["main:Price.fetch~1", "read,noauth,t5", "json", "1"]]
    assert json.loads(shell(request, mesh)) == {"price": 4900}
    assert (mesh / "authorized_services").read_text().startswith(shell(fingerprint, mesh).strip())


def test_a_gateway_in_front_of_them_answers(mesh: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        Path(sys.executable).with_name("scamp-gateway"),
        *("run", "--auth-mode", "forward", "--discovery-cache", mesh / "cache"),
        *("--authorized-services", mesh / "authorized_services", "--access-log", "off"),
        *("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--drain-delay", "0"),
    ]
    with started(command, tmp_path / "log") as gateway:
        address = re.search(r"http://\S+", gateway.said)
        assert address is not None
        with urllib.request.urlopen(f"{address[0]}/api/Price.fetch?code=LAMP-1") as answer:  # noqa: S310 - http
            assert json.loads(answer.read()) == {"price": 4900}


def test_the_settings_shown_exist_and_can_be_loaded(tmp_path: Path) -> None:
    (shown,) = blocks("toml")
    assert set(tomllib.loads(shown)) <= set(Settings.model_fields)
    path = tmp_path / "gateway.toml"
    path.write_text(shown)
    result = CliRunner().invoke(main, ["config", "--config", str(path)])
    assert result.exit_code == 0, result.output
    assert f"({path}:3)" in result.output


def test_the_first_call_is_one_that_the_demo_prints() -> None:
    shown = block_with("sh", "curl http://127.0.0.1:8080/")
    assert re.fullmatch(r"curl http://127\.0\.0\.1:8080/api/Product\.Sku\.ping\n", shown)
    assert set(json.loads(blocks("json")[0])) == {"pong", "instance"}
