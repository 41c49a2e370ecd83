"""The discovery cache file: announcements one after another, each behind a separator line.

``\\n%%%\\n`` and a record, repeated; the first separator may stand at the very start of the file
without its first newline. What stands before it is ignored. Protocol: section 7.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from scamp import limits
from scamp.discovery.pace import no_pause
from scamp.errors import DiscoveryError

SEPARATOR: Final = b"\n%%%\n"
_HEAD: Final = b"%%%\n"
_CUT_SEPARATOR: Final = (b"\n%%%", b"\n%%", b"\n%")
_READ_ATTEMPTS: Final = 3
_PIECE: Final = 8192
_PATIENCE: Final = 1.0  # seconds for which another may be writing
_LINE: Final = 65_536  # with its end
_NO_PLACES: Mapping[bytes, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FileState:
    """Enough to see that a file was replaced, written to or touched. `mtime_ns` in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> FileState:
        return cls(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)

    def is_file(self, info: os.stat_result) -> bool:
        """Whether it is that file, touched perhaps."""
        return (info.st_dev, info.st_ino, info.st_size) == (self.device, self.inode, self.size)

    @property
    def mtime(self) -> float:
        """Seconds since the epoch."""
        return self.mtime_ns / 1e9


class FileUnusableError(DiscoveryError):
    """A file could not be read; the text says why."""


def read_file(
    path: str | os.PathLike[str], limit: int, known: FileState | None = None
) -> tuple[bytes | None, FileState]:
    """The whole content of a regular file of at most `limit` bytes, and its state.

    The content is None when the state is `known`. A file that is renamed over `path` meanwhile does
    no harm: what was opened is read to its end. One that is written to in place meanwhile is read
    again, three times at most. Blocks; never waits for a pipe. Raises `FileUnusableError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for _ in range(_READ_ATTEMPTS):
                info = os.fstat(fd)
                state = FileState.of(info)
                if problem := _unusable(info, limit):
                    raise FileUnusableError(f"{os.fspath(path)} is {problem}")
                if state == known:
                    return None, state
                data = _read_all(fd, state.size)
                if FileState.of(os.fstat(fd)) == state and len(data) == state.size:
                    return data, state
        finally:
            os.close(fd)
    except OSError as exc:
        raise FileUnusableError(f"{os.fspath(path)}: {exc.strerror or exc}") from exc
    raise FileUnusableError(f"{os.fspath(path)} is being written to while it is read")


def _unusable(info: os.stat_result, limit: int) -> str | None:
    if stat.S_ISDIR(info.st_mode):
        return "a directory"
    if not stat.S_ISREG(info.st_mode):
        return "not a regular file"
    return f"larger than {limit} bytes" if info.st_size > limit else None


def _read_all(fd: int, size: int) -> bytes:
    """Up to one byte more than `size`, from the beginning."""
    data = os.pread(fd, size + 1, 0)
    while 0 < len(data) < size:  # only the largest files come in pieces
        more = os.pread(fd, size + 1 - len(data), len(data))
        if not more:
            break
        data += more
    return data


def first_record(data: bytes) -> int:
    """Where the first record begins; -1 when there is no separator."""
    if data.startswith(_HEAD):
        return len(_HEAD)
    found = _find(data, 0, no_pause)
    return found + len(SEPARATOR) if found >= 0 else -1


def _find(data: bytes, start: int, pause: Callable[[], None]) -> int:
    """The next separator. Searches piece by piece, because a search keeps other threads out."""
    step = limits.MAX_ANNOUNCEMENT
    while start < len(data):
        found = data.find(SEPARATOR, start, start + step + len(SEPARATOR) - 1)
        if found >= 0:
            return found
        start += step
        pause()
    return -1


def scan(
    data: bytes,
    known: Sequence[bytes] = (),
    places: Mapping[bytes, int] = _NO_PLACES,
    pause: Callable[[], None] = no_pause,
) -> Iterator[bytes]:
    """The records of a file, in order, blank ones left out.

    `known` are the records of an earlier version, `places` where each stands in it. A record that
    follows the one that it followed then costs one comparison, in place of a search, a copy and a
    hash. Known records are given back as the objects they were. Of a record longer than
    `limits.MAX_ANNOUNCEMENT` one byte more than that is given, enough to see that it is too long.
    `pause` is called once per record.
    """
    at = first_record(data)
    if at < 0:
        return
    expected = 0
    while at < len(data):
        pause()
        if expected < len(known) and data.startswith(known[expected], at):
            end = at + len(known[expected])
            last = end == len(data) and not known[expected].endswith(_CUT_SEPARATOR)
            if last or data.startswith(SEPARATOR, end):
                yield known[expected]
                expected += 1
                at = end + len(SEPARATOR)
                continue
        end = _find(data, at, pause)
        following = len(data) if end < 0 else end + len(SEPARATOR)
        if end < 0:
            end = _without_cut_separator(data, at)
        record = data[at : min(end, at + limits.MAX_ANNOUNCEMENT + 1)]
        place = places.get(record)
        if place is not None:
            record, expected = known[place], place + 1
        elif expected + 1 < len(known) and data.startswith(known[expected + 1], following):
            expected += 1
        if record and not record.isspace():
            yield record
        at = following


def _without_cut_separator(data: bytes, at: int) -> int:
    for cut in _CUT_SEPARATOR:
        if data.endswith(cut, at):
            return len(data) - len(cut)
    return len(data)


def split_records(data: bytes) -> list[bytes]:
    """The records of a cache file, as they stand, good or bad; [] when there is no separator."""
    return list(scan(data))


def _checked(record: bytes) -> bytes:
    if SEPARATOR in b"\n%b\n" % record:
        raise ValueError("a record contains the separator")
    return record


def replace_file(path: str | os.PathLike[str], pieces: Iterable[bytes]) -> None:
    """Write `pieces` to PATH.new first, then rename it over PATH.

    Readers see the old file or the new one, never a part. PATH.new is always a new file, readable
    by all whom the umask allows: what a writer that died left there is taken away, a link is
    refused, and while another writes it (with this function) we wait, a second at most. A link at
    PATH is replaced, not followed; what is neither a file nor a link, such as a device, is refused.
    Blocks. Raises `OSError`, and whatever `pieces` raises; then PATH is as it was.
    """
    _replace(Path(path), pieces)


def _replace(target: Path, pieces: Iterable[bytes]) -> FileState:
    _refuse_special(target)
    fresh = target.with_name(target.name + ".new")
    fd = _create_alone(fresh)
    with open(fd, "wb") as file:  # locked until it has its name, so that nobody takes it away
        try:
            file.writelines(pieces)
            file.flush()
            state = FileState.of(os.fstat(fd))
            os.replace(fresh, target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    return state


def _refuse_special(path: Path) -> None:
    """Or a service of root that writes to /dev/null would put a file in its place."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OSError(errno.EINVAL, "neither a file nor a link; it is left alone", str(path))


def _create_alone(path: Path) -> int:
    """A new file that is locked. One that is there and not locked was left by a writer that died,
    or put there by somebody who would own what we write."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fd = os.open(path, flags, 0o644)
        except FileExistsError:
            _clear_away(path)
        else:
            try:
                if _is_locked(fd, path):
                    return fd
            except BaseException:  # a file system without locks
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
            os.close(fd)
        if time.monotonic() > until:
            raise OSError(errno.EBUSY, "somebody else is writing it", str(path))
        time.sleep(0.01)


def _clear_away(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        if _is_locked(fd, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _is_locked(fd: int, path: Path) -> bool:
    """Lock the file; False when another has it, or it is no longer the one at `path`."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), path.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _laid_out(records: Iterable[bytes]) -> Iterator[bytes]:
    """What the file is made of, so that all can read it: before each separator as many newlines as
    `_gap` says. They belong to no part of a record.

    Records with a line that is longer than Go can read come last, for it reads nothing behind."""
    at = 0
    newlines = 1
    for record in sorted(records, key=_is_long):
        gap = _gap(at, newlines)
        yield (piece := b"\n" * gap + SEPARATOR + _checked(record))
        at += len(piece)
        newlines = len(record) - len(record.rstrip(b"\n"))


def _gap(at: int, newlines: int) -> int:
    """Newlines to write at offset `at`, behind a record that ends with `newlines` of them.

    - No separator lies across a border of `_PIECE` bytes: Rust reads pieces of that size and
      overlooks it there.
    - Three newlines do not stand before one: Rust splits on blank lines, finds a part of one
      newline behind the signature, and refuses the record.
    - A blank line stands before each: Go takes the separator for a part of the signature without
      it, and skips the next record.
    """
    gap = 0 if newlines else 1
    while (at + gap) % _PIECE + len(SEPARATOR) > _PIECE or newlines + gap == 3:
        gap += 1
    return gap


def _is_long(record: bytes) -> bool:
    return len(record) > _LINE and b"\n" not in record[:_LINE]


def write_cache(path: str | os.PathLike[str], records: Iterable[bytes]) -> FileState:
    """Write `records` as a cache file, as `replace_file` does. Gives its state.

    Raises `OSError`, and `ValueError` for a record that contains the separator; then PATH is as it
    was.
    """
    return _replace(Path(path), _laid_out(records))
