"""The body of a request: what is small is held, what streams is read as the service takes it."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scamp import limits
from scamp.cli.common import read_file, standard_input
from scamp.errors import ConfigError

_PIECE: Final = 64 * limits.KIB
_HELD: Final = 64 * limits.KIB
"""A body file up to this size is held, so that it can be sent again; larger ones stream."""


@dataclass(frozen=True, slots=True)
class Body:
    """`make` gives the body, once the loop runs; `size` is in bytes, None where nobody knows."""

    make: Callable[[], bytes | AsyncIterator[bytes]]
    size: int | None = None


def open_body(body: str) -> Body:
    """The body that a command line means: itself, ``-`` for standard input, ``@FILE``.

    Raises `ConfigError` when the file cannot be opened.
    """
    if body == "-":
        stdin = standard_input()
        try:
            descriptor = stdin.fileno()
        except (OSError, ValueError, io.UnsupportedOperation):
            read = stdin.buffer.read()  # no real file behind it, so nothing to wait for
            return Body(lambda: read)
        return Body(lambda: _pieces(descriptor, close=False), _size(descriptor))
    if not body.startswith("@"):
        return Body(lambda: body.encode("utf-8", "surrogateescape"))
    path = Path(body[1:])
    try:
        if path.is_file() and path.stat().st_size <= _HELD:
            held = read_file(path, _HELD)
            return Body(lambda: held)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
    return Body(lambda: _pieces(descriptor, close=True), _size(descriptor))


def _size(descriptor: int) -> int | None:
    """What is left to read, when the descriptor is a file's."""
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return None
        return max(0, info.st_size - os.lseek(descriptor, 0, os.SEEK_CUR))
    except OSError:
        return None


async def _pieces(descriptor: int, *, close: bool) -> AsyncIterator[bytes]:
    """What can be read from the descriptor, as it comes.

    A thread of its own reads, since reading a terminal or a pipe may never return: such a thread
    of the loop's executor would keep the process from ending. It reads one piece ahead at most.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    wanted = threading.Semaphore(1)
    stopped = threading.Event()

    def read() -> None:
        piece: bytes | OSError = b" "
        while isinstance(piece, bytes) and piece:
            wanted.acquire()
            if stopped.is_set():
                break
            try:
                piece = os.read(descriptor, _PIECE)
            except OSError as exc:
                piece = exc
            with suppress(RuntimeError):  # the loop is gone: nobody wants the piece
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
        if close:
            os.close(descriptor)

    threading.Thread(target=read, name="scamp-body", daemon=True).start()
    try:
        while True:
            piece = await pieces.get()
            wanted.release()
            if isinstance(piece, OSError):
                raise ConfigError(f"the body cannot be read: {piece.strerror}") from piece
            if not piece:
                return
            yield piece
    finally:
        stopped.set()
        wanted.release()
