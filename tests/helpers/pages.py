"""What is shown on a page, copied out and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 20.0


class Page:
    """A page of ours, by its path in the project."""

    def __init__(self, path: str) -> None:
        self.text = (ROOT / path).read_text()

    def blocks(self, kind: str) -> list[str]:
        """The blocks of code that begin with three backticks and `kind`."""
        return re.findall(
            rf"^```{re.escape(kind)}\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE
        )

    def block_with(self, kind: str, text: str) -> str:
        """The one block with this text in it."""
        (found,) = [block for block in self.blocks(kind) if text in block]
        return found

    def scripts(self) -> dict[str, str]:
        """The blocks of Python by the file that their first line names."""
        found = {}
        for script in self.blocks("python"):
            name = re.match(r"# (\w+\.py)\n", script)
            assert name is not None, "a script says first what file it is"
            found[name[1]] = script
        return found


def environment() -> dict[str, str]:
    """With the commands of this installation first, and no mesh of the machine's own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SCAMP")}
    return {**own, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def shell(text: str, folder: Path) -> str:
    """Run it there; what it prints. It must succeed."""
    done = subprocess.run(
        ["sh", "-euc", text],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def running(script: str, folder: Path, sign: Path) -> Iterator[None]:
    """A Python script, from when the file `sign` is there until the end of the block."""
    said = folder / f"{script}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, script], cwd=folder, env=environment(), stderr=log
        )
    try:
        end = time.monotonic() + PATIENCE
        while not sign.exists():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()
