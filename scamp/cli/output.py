"""Where a reply goes: standard output, or a file that is there only once it is whole."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scamp.errors import ConfigError


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output for None. A file is written beside `path` and then renamed over it.

    When the block raises, `path` is as it was. What is there and no regular file, such as a pipe,
    is written to as it is. Raises `ConfigError` when the file cannot be made or put in place.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    direct = path.exists() and not path.is_file()
    target = path if direct else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = target.open("wb" if direct else "xb")
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
    try:
        with file:
            yield file
        if not direct:
            _replace(target, path)
    except BaseException:
        if not direct:
            target.unlink(missing_ok=True)
        raise


def _replace(target: Path, path: Path) -> None:
    try:
        os.replace(target, path)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
