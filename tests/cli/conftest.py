"""The command, run as users run it but for the process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scamp import keys
from scamp.cli.main import main

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Call with the arguments; anything that is no deliberate exit fails the test."""

    def run(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with shop.key, shop.crt and shop.pub; made once, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    key, certificate = keys.generate("shop", now=datetime.now(UTC))
    (folder / "shop.key").write_bytes(key)
    (folder / "shop.crt").write_bytes(certificate)
    (folder / "shop.pub").write_bytes(keys.public_key_pem(key))
    return folder
