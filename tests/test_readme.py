"""The README's service, client and commands, done as a newcomer does them: copied out and run."""

from __future__ import annotations

import json
import re
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from pages import Page, running, shell

from benchmarks.processes import started
from gateway.cli import main
from gateway.routes.load import parse_routes
from gateway.settings import Settings

README: Final = Page("README.md")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that the README has done up to its client."""
    folder = tmp_path_factory.mktemp("readme")
    for name, script in README.scripts().items():
        (folder / name).write_text(script)
    shell(README.block_with("sh", "scamp keygen"), folder)
    with running("prices.py", folder, folder / "prices.announcement"):
        shell(README.block_with("sh", "> cache"), folder)
        yield folder


def test_the_client_gets_what_the_readme_says(mesh: Path) -> None:
    printed = shell("python ask.py", mesh)
    assert f"`python ask.py` prints `{printed.strip()}`" in README.text
    assert printed == "{'price': 4900}\n"


def test_the_command_lists_and_calls(mesh: Path) -> None:
    listing, request, fingerprint = README.block_with("sh", "scamp list actions").splitlines()
    rows = [line.split() for line in shell(listing, mesh).splitlines()]
    assert ["main:Price.fetch~1", "read,noauth,t5", "json", "1"] in rows[1:]
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
    shown = README.block_with("toml", "# gateway.toml")
    assert set(tomllib.loads(shown)) <= set(Settings.model_fields)
    path = tmp_path / "gateway.toml"
    path.write_text(shown)
    result = CliRunner().invoke(main, ["config", "--config", str(path)])
    assert result.exit_code == 0, result.output
    assert f"({path}:3)" in result.output


@pytest.mark.parametrize("page", ["README.md", "docs/routes.md"])
def test_the_routes_shown_can_be_loaded(page: str) -> None:
    shown = [block for block in Page(page).blocks("toml") if "[[" in block]
    assert shown
    for block in shown:
        assert parse_routes(block).routes


def test_the_first_call_is_one_that_the_demo_prints() -> None:
    shown = README.block_with("sh", "curl http://127.0.0.1:8080/")
    assert re.fullmatch(r"curl http://127\.0\.0\.1:8080/api/Product\.Sku\.ping\n", shown)
    assert set(json.loads(README.blocks("json")[0])) == {"pong", "instance"}
