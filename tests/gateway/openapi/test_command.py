"""``scamp-gateway openapi``: the document out of files."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result
from openapi_spec_validator import validate

from gateway.cli import main
from gateway.lifecycle import running
from stand import Stand, stand

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture
async def mesh(tmp_path: Path) -> Stand:
    """Announced, and not running any more."""
    made = Stand(tmp_path)
    await made.service.start(port=0)
    made.announce()
    await made.service.stop(grace=0)
    return made


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["openapi", *map(str, arguments)])


def given(mesh: Stand) -> list[str | Path]:
    return ["--discovery-cache", mesh.cache, "--authorized-services", mesh.authorized]


def paths(result: Result) -> set[str]:
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    validate(document)
    return set(document["paths"])


def ticket(mesh: Stand, *privileges: int) -> Path:
    path = mesh.folder / "ticket"
    path.write_text(mesh.ticket(privileges)["Authorization"].removeprefix("Bearer ") + "\n")
    return path


async def test_everything_that_is_exposed_is_described_without_a_key(mesh: Stand) -> None:
    assert paths(invoke(*given(mesh))) == {
        *("/api/Test.Gate.open", "/api/Test.Gate.wait", "/api/Test.Gate.guarded"),
        *("/api/Auth.getAuthzTable", "/openapi.json", "/whoami", "/api/events/{service}"),
    }


async def test_what_one_ticket_permits_is_told_by_the_table(mesh: Stand) -> None:
    table = ("--authz-table", mesh.write_table())
    may = invoke(*given(mesh), *table, "--ticket", ticket(mesh, 1))
    may_not = invoke(*given(mesh), *table, "--ticket", ticket(mesh, 2))
    assert paths(may) - paths(may_not) == {"/api/Test.Gate.guarded"}
    anyone = invoke(*given(mesh), "--auth-mode", "forward", "--ticket", ticket(mesh, 2))
    assert "/api/Test.Gate.guarded" in paths(anyone)


async def test_routes_and_settings_count(mesh: Stand, tmp_path: Path) -> None:
    routes = tmp_path / "routes.toml"
    routes.write_text('[[routes]]\nmethod = "GET"\npath = "/o"\naction = "Test.Gate.open"\n')
    shown = invoke(*given(mesh), "--routes", routes, "--openapi-title", "Gates",
                   "--openapi-max-actions", "1")  # fmt: skip
    assert paths(shown) == {
        "/api/Auth.getAuthzTable",
        "/o",
        "/openapi.json",
        "/whoami",
        "/api/events/{service}",
    }
    document = json.loads(shown.stdout)
    assert document["info"]["title"] == "Gates"
    assert document["x-scamp-left-out"] == {"actions": 3}


async def test_file_is_written_whole_and_the_same_each_time(mesh: Stand, tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    assert invoke(*given(mesh), "--output", path).output == ""
    first = path.read_bytes()
    assert first.endswith(b"}\n")
    assert invoke(*given(mesh), "--output", path).exit_code == 0
    assert path.read_bytes() == first


ROUTES = """
[[resources]]
path = "/gates"
namespace = "Test.Gate"
id = "gate"
list = "open"
read = "wait"
rate = "5/s"

[[routes]]
method = ["GET", "POST"]
path = "/v1/{a:int}/open"
action = "Test.Gate.open"
query = { "page" = "int", "tag" = { many = true } }
timeout = 3
ticket = true

[[routes]]
method = "PUT"
path = "/raw"
action = "Test.Gate.open"
consumes = ["image/*", "text/csv"]
"""


@pytest.mark.one_loop
async def test_every_process_makes_the_same_bytes_and_a_gateway_too(tmp_path: Path) -> None:
    """Sets have another order in each process, unless PYTHONHASHSEED says which."""
    routes = tmp_path / "routes.toml"
    routes.write_text(ROUTES)
    config = '[media_types]\n"text/csv" = "json"\n"text/tsv" = "json"\n'
    (tmp_path / "gateway.toml").write_text(config)
    async with stand(tmp_path) as mesh:
        given_to_both = {"routes": routes, "media_types": {"text/csv": "json", "text/tsv": "json"}}
        texts = set()
        for seed in ("1", "2"):
            command = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.cli", "openapi", *map(str, given(mesh))),
                *("--routes", str(routes), "--config", str(tmp_path / "gateway.toml")),
                env={"PYTHONHASHSEED": seed, "PATH": os.defpath},
                stdout=asyncio.subprocess.PIPE,
            )
            texts.add((await command.communicate())[0])
            assert command.returncode == 0
        async with (
            running(mesh.loaded(openapi="everyone", **given_to_both)) as gateway,
            aiohttp.ClientSession() as session,
            session.get(f"{gateway.public.url}/openapi.json") as answer,
        ):
            texts.add(await answer.read() + b"\n")
    assert len(texts) == 1
    validate(json.loads(texts.pop()))


@pytest.mark.parametrize("privileges", [(1,), (2,)])
async def test_a_callers_view_is_that_of_a_gateway(
    tmp_path: Path, privileges: tuple[int, ...]
) -> None:
    (tmp_path / "routes.toml").write_text(ROUTES.replace("ticket = true", "ticket = false"))
    async with stand(tmp_path) as mesh:
        files = {"routes": tmp_path / "routes.toml", "authz_table": mesh.write_table()}
        (tmp_path / "ticket").write_text(mesh.ticket(privileges)["Authorization"][7:])
        flags = [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]
        written = invoke(*given(mesh), *flags, "--ticket", tmp_path / "ticket")
        async with (
            running(mesh.loaded(**files)) as gateway,
            aiohttp.ClientSession() as session,
            session.get(
                f"{gateway.public.url}/openapi.json", headers=mesh.ticket(privileges)
            ) as answer,
        ):
            assert await answer.text() + "\n" == written.stdout
    assert ("/api/Test.Gate.guarded" in paths(written)) == (privileges == (1,))


async def test_what_is_wrong_is_told_in_a_line(mesh: Stand, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    one: list[str | Path] = ["--ticket", ticket(mesh, 1)]
    cases: list[tuple[list[str | Path], int, str]] = [
        ([], 2, "no discovery cache: give --discovery-cache"),
        (["--discovery-cache", tmp_path / "none"], 2, "none: "),
        ([*given(mesh), *one], 2, "give --authz-table"),
        ([*given(mesh), *one, "--authz-table", nonsense], 2, "nonsense: the privilege table"),
        ([*given(mesh), "--ticket", nonsense], 2, "nonsense: "),
        ([*given(mesh), "--ticket", tmp_path / "none"], 2, "none"),
        ([*given(mesh), "--routes", nonsense], 2, "nonsense:1: "),
        ([*given(mesh), "--output", tmp_path / "no" / "where"], 1, "where: No such file"),
    ]
    for arguments, status, message in cases:
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (status, ""), arguments
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert mesh.ticket()["Authorization"] not in invoke(*given(mesh), *one).output
