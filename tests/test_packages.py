"""Wheel and sdist: what is in them, that they come out the same each time, and that an installed
wheel is all of it. Needs no index: what builds is there already."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

import pytest
from demos import LAST_LINE

ROOT: Final = Path(__file__).parents[1]

PACKAGES: Final = ("scamp", "gateway")
COMMANDS: Final = ("scamp", "scamp-gateway")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, built as for a release."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def build(source: Path, into: Path, *options: str) -> Path:
    """The sdist, and the wheel out of it, unless `options` say otherwise."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", into, *options, source)
    return into


def run(*command: str | Path, **environ: str) -> str:
    """What it prints; it may not fail, nor complain."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "NO_COLOR": "1", **environ},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def clone() -> set[str]:
    """What belongs to the project here, whether or not it is committed yet."""
    asked = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(["git", "-C", ROOT, *asked], capture_output=True, text=True, check=False)
    if done.returncode or not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def test_the_sdist_is_a_clone(built: Path) -> None:
    """So whatever `make test` needs is there."""
    with tarfile.open(one(built, "*.tar.gz")) as archive:
        members = archive.getmembers()
    top = f"scamp_gateway-{version()}"
    assert all(member.isfile() and member.name.startswith(f"{top}/") for member in members)
    inside = {member.name.removeprefix(f"{top}/") for member in members}
    assert inside - {"PKG-INFO"} == clone()
    executable = {member.name.removeprefix(f"{top}/") for member in members if member.mode & 0o111}
    assert {".ci/run", "deploy/image/lock"} <= executable


def test_the_wheel_has_both_packages_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(one(built, "*.whl")) as archive:
        names = set(archive.namelist())
        about = f"scamp_gateway-{version()}.dist-info"
        commands = archive.read(f"{about}/entry_points.txt").decode().split()
    code = {name for name in names if not name.startswith(f"{about}/")}
    assert code == {name for name in clone() if name.startswith(tuple(f"{p}/" for p in PACKAGES))}
    assert {name.removeprefix(f"{about}/") for name in names - code} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= code
    assert {name.rpartition(".")[2] for name in code if "/page/" in name} >= {"html", "js", "css"}
    assert {"scamp", "scamp-gateway"} <= set(commands)


def test_twine_has_nothing_to_say(built: Path) -> None:
    said = run(sys.executable, "-m", "twine", "check", "--strict", *sorted(built.iterdir()))
    assert said.count("PASSED") == 2, said


def test_a_second_build_is_the_same_byte_by_byte(built: Path, tmp_path: Path) -> None:
    """Elsewhere, of files with other dates that only their owner may read; and without the sdist
    in between, as the image does it."""
    with tarfile.open(one(built, "*.tar.gz")) as archive:
        archive.extractall(tmp_path / "elsewhere", filter="data")
    source = one(tmp_path / "elsewhere", "*")
    for path in source.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(path.stat().st_mode & 0o700)
    again = build(source, tmp_path / "again", "--sdist", "--wheel")
    assert digests(again) == digests(built)


async def test_an_installed_wheel_serves_the_demo(built: Path, tmp_path: Path) -> None:
    # What it depends on is here already; of this checkout nothing is in reach.
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    scripts = tmp_path / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--no-index")
    run(*pip, "--no-deps", "--quiet", one(built, "*.whl"))
    packages = one(tmp_path / "venv", "lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    where = "import gateway, scamp; print(gateway.__file__, scamp.__file__)"
    assert all(
        Path(file).is_relative_to(packages)
        for file in run(scripts / "python", "-c", where, PYTHONPATH="").split()
    )
    for command in COMMANDS:
        assert version() in run(scripts / command, "--version")
    process = await asyncio.create_subprocess_exec(
        *(scripts / "scamp-gateway", "demo", "--port", "0", "--admin-port", "0"),
        *("--quiet-services", "--dir", tmp_path / "demo"),
        stdout=asyncio.subprocess.PIPE,
        cwd="/",
    )
    assert process.stdout is not None
    try:
        said = await process.stdout.readuntil(LAST_LINE.encode())
        assert b"Product.Sku.ping" in said
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
