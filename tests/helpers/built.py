"""The pages as a site, built once for all tests that look at it."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from pages import ROOT


@cache
def built_site() -> Path:
    """As `make docs` builds it; a warning fails. Skips where mkdocs is not installed."""
    folder = Path(tempfile.mkdtemp(prefix="scamp-site-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = build(ROOT, folder / "site")
    assert done.returncode == 0, done.stderr
    return folder / "site"


def build(project: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """With the flags of `make docs`."""
    mkdocs = Path(sys.executable).with_name("mkdocs")
    if not mkdocs.exists():
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    recipe = re.search(r"mkdocs (build .*?) \$\(ARGS\)", (ROOT / "Makefile").read_text())
    assert recipe is not None
    return subprocess.run(
        [mkdocs, *recipe[1].split(), "--site-dir", folder],
        cwd=project,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
