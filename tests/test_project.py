"""The project as a whole: it stands alone, agrees with itself, and its pages lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

import scamp
from gateway.cli import main as gateway_command
from scamp.cli.lazy import loaded
from scamp.cli.main import main as scamp_command

ROOT: Final = Path(__file__).parents[1]

MADE: Final = {".git", ".venv", ".hypothesis", "build", "dist", "htmlcov", "__pycache__"}
"""Directories that are made here and belong to nobody's clone; so do those of caches."""


@lru_cache
def files() -> dict[Path, str]:
    """Every text file that belongs to the project, by its path from the root."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False
    )
    if listed.returncode == 0 and (ROOT / ".git").exists():
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:  # unpacked from an archive
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part in MADE or part.endswith(("_cache", ".egg-info"))
                for part in path.relative_to(ROOT).parts
            )
        ]
    found = {}
    for path in sorted(paths):
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                found[path.relative_to(ROOT)] = content.decode()
    return found


@lru_cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pages() -> dict[Path, str]:
    return {path: text for path, text in files().items() if path.suffix == ".md"}


def lines(pattern: str) -> Iterator[str]:
    """Where the project has something that it should not have."""
    for path, text in files().items():
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(pattern, line):
                yield f"{path}:{number}: {line.strip()[:120]}"


# -- it stands alone --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        # Written so that these lines do not match themselves.
        ("a home directory", r"(?<![\w.])/(?:home|root|Users)/(?!\()[\w.]"),
        ("an issue by its number", r"(?i)\b(?:issues?|pull|fix(?:es)?|closes?|see|PR) +#?[0-9]+\b"),
        ("a package index of its own", r"(?i)(?:index-url|--registry|find-links)[ =]+\S*://"),
        ("something left undone", r"\b(?:TO[D]O|FIX[M]E|XX[X])\b"),
        ("a conflict marker", r"^(?:<{7}|>{7}|\|{7})(?: |$)"),
    ],
)
def test_no_file_has(what: str, pattern: str) -> None:
    assert list(lines(pattern)) == [], what


def test_nothing_left_over_from_editing_is_tracked() -> None:
    assert [path for path in files() if path.suffix in (".orig", ".rej", ".bak", ".swp")] == []


# -- its pages lead somewhere -----------------------------------------------------------


def anchor(heading: str) -> str:
    """A heading as the last part of a link, in the way of the forges."""
    text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return text.replace(" ", "-")


def anchors(text: str) -> set[str]:
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", plain, re.MULTILINE)}


def broken_links() -> Iterator[str]:
    for page, text in pages().items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, part = target.partition("#")
            path = (ROOT / page.parent / name).resolve() if name else ROOT / page
            if not path.is_relative_to(ROOT) or not path.exists():
                yield f"{page}: {target} is not there"
            elif part and path.suffix == ".md" and part not in anchors(path.read_text()):
                yield f"{page}: {target} has no such heading"


def test_links_between_pages_hold() -> None:
    assert list(broken_links()) == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "bench", "clean", "help"} <= targets
    named = {
        (str(path), target)
        for path, text in files().items()
        for target in re.findall(
            r"(?:`|^    |^\$ |^)make ([a-z]+)\b(?=`| ARGS| #|$)", text, re.MULTILINE
        )
    }
    assert {target for _, target in named} <= targets, sorted(named)


def test_pages_name_only_options_that_the_commands_have() -> None:
    known = set()
    for command in (gateway_command, scamp_command):
        for shown in _help(command, ()):
            known |= set(re.findall(r"--[a-z][a-z-]+", shown))
    for page, text in pages().items():
        for call in re.findall(
            r"^(?:\$ )?((?:scamp|scamp-gateway) (?:.*\\\n)*.*)$", text, re.MULTILINE
        ):
            assert set(re.findall(r"--[a-z][a-z-]+", call)) <= known, f"{page}: {call}"


def _help(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    # By the command itself: a command below it that is called alone knows of no -h, for ever.
    yield CliRunner().invoke(command, [*path, "--help"]).output
    for name in getattr(_at(command, path), "commands", {}):
        yield from _help(command, (*path, name))


def _at(command: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        command = loaded(command.commands[name])
    return command


# -- it agrees with itself --------------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    here = project()["project"]["version"]
    assert scamp.__version__ == version("scamp-gateway") == here
    newest = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] in (here, "Unreleased")
    for command in (gateway_command, scamp_command):
        assert here in CliRunner().invoke(command, ["--version"]).output


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    for release in releases:
        assert re.fullmatch(
            r"\[(Unreleased|\d+\.\d+\.\d+)\]( - (\d{4}-\d\d-\d\d|unreleased))?", release
        )
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_license_is_the_one_that_is_declared() -> None:
    declared = project()["project"]
    assert declared["license"] == "MIT"
    for name in declared["license-files"]:
        assert (ROOT / name).read_text().startswith("MIT License")
    assert 'licenses="MIT"' in (ROOT / "Dockerfile").read_text()


def test_commands_start_and_both_packages_carry_their_types() -> None:
    scripts = Path(sys.executable).parent
    for name in project()["project"]["scripts"]:
        done = subprocess.run([scripts / name, "--help"], capture_output=True, check=True)
        assert done.stdout.startswith(b"Usage: ")
        assert done.stderr == b""
    for package in project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").exists()


def test_ci_runs_the_gates_that_developers_run() -> None:
    runner = ROOT / ".ci" / "run"
    assert runner.stat().st_mode & 0o111
    assert "make check" in runner.read_text()
    gates = re.search(
        r"^check: (.*?)\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL
    )
    assert gates is not None
    assert "--cov-fail-under" in gates[1]
    assert "lint types" in gates[1]
