"""What Schemathesis finds when it tries the running demo by its own description."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from demos import LAST_LINE, demo_command

LEFT_ALONE: Final = ("export", "slow", "broken")
"""Actions that are large, slow, or answer 500 as they are meant to."""
BY_PATH: Final = "_by_code"
"""In the ids of operations whose path has a parameter."""
PATIENT: Final = ("-H", "X-SCAMP-Timeout: 30")
"""Else it asks for answers within a microsecond, and is told 504."""
IMPATIENT: Final = ("--exclude-checks", "not_a_server_error")

pytestmark = pytest.mark.timeout(150)


@dataclass(frozen=True, slots=True)
class Demo:
    url: str
    folder: Path

    def ticket(self, user: str) -> list[str]:
        """Options that send the ticket in both ways that the document tells of: left to itself,
        Schemathesis makes one up for the other, and two that differ are 400."""
        text = (self.folder / f"{user}.ticket").read_text().strip()
        return ["-H", f"Authorization: Bearer {text}", "-H", f"X-SCAMP-Ticket: {text}"]

    def document(self, user: str, path: Path) -> Path:
        """What the user sees, as a file."""
        text = (self.folder / f"{user}.ticket").read_text().strip()
        asked = urllib.request.Request(  # noqa: S310 - our own
            f"{self.url}/openapi.json", headers={"Authorization": f"Bearer {text}"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            path.write_bytes(answer.read())
        return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo as a user has it: four processes, started by one command."""
    folder = tmp_path_factory.mktemp("demo")
    with subprocess.Popen(
        demo_command(folder, "--quiet-services"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            printed = ""
            for line in process.stdout:
                printed += line
                if LAST_LINE in line:
                    break
            found = re.search(r"# gateway (\S+)", printed)
            assert found is not None, printed
            yield Demo(found[1], folder)
        finally:
            process.terminate()


def run(st: str, folder: Path, location: str | Path, *arguments: str) -> None:
    """Everything that it checks, a few examples of each: it must find nothing."""
    done = subprocess.run(
        [
            *(st, "run", str(location), *arguments, "--checks", "all", "--seed", "1"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "5"),
            *("--generation-deterministic", "--generation-with-security-parameters", "false"),
            *("--continue-on-failure", "--no-color"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert re.search(r"Tested: [1-9]", done.stdout), done.stdout


def ending(*names: str) -> str:
    """Operations of these actions."""
    return "|".join(f"_{name}$" for name in names)


def test_whom_the_mesh_knows(demo: Demo, tool: Callable[[str], str], tmp_path: Path) -> None:
    run(
        tool("st"),
        tmp_path,
        f"{demo.url}/openapi.json",
        *demo.ticket("alice"),
        *("--exclude-operation-id-regex", f"{ending(*LEFT_ALONE)}|{BY_PATH}", *PATIENT),
    )


def test_paths_with_parameters(demo: Demo, tool: Callable[[str], str], tmp_path: Path) -> None:
    """In ASCII: no pattern can say which characters of Unicode are printable."""
    run(
        tool("st"),
        tmp_path,
        f"{demo.url}/openapi.json",
        *demo.ticket("alice"),
        *("--include-operation-id-regex", BY_PATH, "--generation-codec", "ascii", *PATIENT),
    )


def test_actions_that_fail_do_so_as_described(
    demo: Demo, tool: Callable[[str], str], tmp_path: Path
) -> None:
    run(
        tool("st"),
        tmp_path,
        f"{demo.url}/openapi.json",
        *demo.ticket("bob"),
        *("--include-operation-id-regex", ending("broken"), *IMPATIENT),
    )


def test_strangers(demo: Demo, tool: Callable[[str], str], tmp_path: Path) -> None:
    run(tool("st"), tmp_path, f"{demo.url}/openapi.json", *IMPATIENT)


def test_strangers_who_know_what_alice_sees(
    demo: Demo, tool: Callable[[str], str], tmp_path: Path
) -> None:
    document = demo.document("alice", tmp_path / "alice.json")
    run(
        tool("st"),
        tmp_path,
        document,
        "--url",
        demo.url,
        *IMPATIENT,
        *("--exclude-operation-id-regex", f"{ending(*LEFT_ALONE)}|{BY_PATH}"),
    )
