"""The Dockerfile and its locks, read: they agree with the project. What it builds is tried in
tests/servers."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway.settings import ENV_PREFIX, Settings
from gateway.sources import CONFIG_VARIABLE, load
from locks import FOLDER, locked, requirements

ROOT: Final = Path(__file__).parents[1]

SHIPPED: Final = "all"
"""The extra whose packages are in the image."""


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def steps() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with what stands behind them, each in one line."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r" *\\\n *", " ", text)
    return [
        (line.partition(" ")[0], line.partition(" ")[2].strip())
        for line in filter(None, joined.splitlines())
    ]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in steps() if name == instruction]


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for one in arguments("ENV") for word in shlex.split(one))


# -- locks ------------------------------------------------------------------------------


def asked_for(extra: str | None = None) -> Iterator[Requirement]:
    """What pyproject.toml wants for itself and with the extra, extras in extras unfolded."""
    about = project()["project"]
    wanted = about["dependencies"] if extra is None else about["optional-dependencies"][extra]
    for one in map(Requirement, wanted):
        if canonicalize_name(one.name) == about["name"]:
            for inner in one.extras:
                yield from asked_for(inner)
        else:
            yield one


def test_the_lock_has_what_pyproject_asks_for() -> None:
    found = locked("gateway")
    wanted = [*asked_for(), *asked_for(SHIPPED)]
    assert {"aiohttp", "gunicorn", "opentelemetry-sdk", "redis"} <= {one.name for one in wanted}
    for one in wanted:
        name = str(canonicalize_name(one.name))
        assert name in found, f"deploy/image/lock has to be run: {one}"
        assert one.specifier.contains(found[name]), f"deploy/image/lock has to be run: {one}"


def test_the_lock_of_what_builds_has_what_pyproject_asks_for() -> None:
    found = locked("build")
    for one in map(Requirement, project()["build-system"]["requires"]):
        assert one.specifier.contains(found[str(canonicalize_name(one.name))]), one


@pytest.mark.parametrize("name", ["build", "gateway"])
def test_a_lock_names_nothing_but_versions_and_hashes(name: str) -> None:
    for requirement, hashes in requirements(name):
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        assert requirement.url is None
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement
    text = (FOLDER / f"{name}.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("--hash", ""), re.MULTILINE)  # no options of pip


def test_the_image_gets_its_packages_from_the_locks_alone() -> None:
    calls = [
        call
        for one in arguments("RUN")
        for call in one.split(" && ")
        if re.search(r"\bpip\b.* (?:install|wheel|download) ", call)
    ]
    assert len(calls) == 4
    for call in calls:
        words = set(shlex.split(call))
        assert {"--require-hashes", "--only-binary=:all:"} <= words or {
            *("--no-index", "--no-deps")
        } <= words, call


def test_the_page_tells_of_every_extra_that_users_have() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    (table,) = re.findall(r"^\| extra \|.*\n\|.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    told = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert told == {SHIPPED} | {
        extra
        for one in project()["project"]["optional-dependencies"][SHIPPED]
        for extra in Requirement(one).extras
    }


# -- the Dockerfile ---------------------------------------------------------------------


def test_every_stage_begins_with_the_one_base_of_a_full_version() -> None:
    assert re.fullmatch(r"PYTHON=python:\d+\.\d+\.\d+-slim-[a-z]+", arguments("ARG")[0])
    assert [one.partition(" ")[0] for one in arguments("FROM")] == ["${PYTHON}"] * 2


def test_signals_reach_the_gateway_and_it_is_nobody() -> None:
    """Exec forms: with a shell in between it would be the shell that is told."""
    (start,) = arguments("ENTRYPOINT")
    assert start == '["scamp-gateway"]'
    assert arguments("CMD") == ['["run"]']
    (check,) = arguments("HEALTHCHECK")
    assert check.endswith('CMD ["python", "-m", "gateway.health"]')
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert arguments("USER") == ["10001:10001"]


def test_its_environment_sets_what_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name: is_ for name, is_ in environment().items() if name.startswith(ENV_PREFIX)}
    assert ours.pop(CONFIG_VARIABLE) == "/etc/scamp-gateway/gateway.toml"
    assert any(">/etc/scamp-gateway/gateway.toml" in one for one in arguments("RUN"))
    assert {name.removeprefix(ENV_PREFIX).lower() for name in ours} <= set(Settings.model_fields)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = load({}, environ={}).settings
    assert settings.admin_bind.host is None  # a port of a container does not arrive on a loopback
    assert arguments("EXPOSE") == [f"{settings.bind.port} {settings.admin_bind.port}"]


def test_its_label_has_the_version_and_so_has_its_name_wherever_it_stands() -> None:
    version = project()["project"]["version"]
    labels = dict(word.split("=", 1) for one in arguments("LABEL") for word in shlex.split(one))
    assert labels["org.opencontainers.image.version"] == version
    named = {
        (str(path.relative_to(ROOT)), tag)
        for path in [ROOT / "Dockerfile", *(ROOT / "docs").glob("*.md"), *ROOT.glob("deploy/**/*")]
        if path.is_file()
        for tag in re.findall(rb"scamp-gateway:(\d[\w.]*)", path.read_bytes())
    }
    assert named
    assert {tag.decode() for _, tag in named} == {version}, named


# -- the context ------------------------------------------------------------------------


def copied() -> set[str]:
    """Files and directories of the project that the Dockerfile copies."""
    return {
        name
        for one in arguments("COPY")
        if not one.startswith("--from=")
        for name in shlex.split(one)[:-1]
    }


def sent(path: str) -> bool:
    """Whether .dockerignore lets the file into the build: as documented, the last line that
    matches it or a directory above it decides."""
    parts = path.split("/")
    above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    result = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            if any(_matches(pattern, one) for one in above):
                result = line.startswith("!")
    return result


def _matches(pattern: str, path: str) -> bool:
    inner = pattern.removeprefix("**/")
    if inner != pattern:
        return any(fnmatchcase(part, inner) for part in path.split("/"))
    ours, theirs = pattern.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(map(fnmatchcase, theirs, ours))


def test_what_is_copied_reaches_the_build_and_nothing_else_does() -> None:
    names = copied()
    assert {"pyproject.toml", "scamp", "gateway", "deploy/image/gateway.lock"} <= names
    here = {
        str(path.relative_to(ROOT))
        for top in ROOT.iterdir()
        if top.name not in (".git", ".venv", "build")
        for path in ([top] if top.is_file() else top.rglob("*"))
        if path.is_file()
    }
    wanted = {
        path
        for path in here
        if any(path == name or path.startswith(f"{name}/") for name in names)
        and "__pycache__" not in path
    }
    assert {name for name in names if not (ROOT / name).exists()} == set()
    assert {path for path in here if sent(path)} == wanted
    strangers = (".env", ".git/config", "deploy/key.pem", "scamp.conf", "scamp/__pycache__/a.pyc")
    assert [path for path in strangers if sent(path)] == []
