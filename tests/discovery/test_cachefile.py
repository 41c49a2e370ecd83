"""Splitting and writing the cache file."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import resource
import signal
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scamp import limits
from scamp.discovery import cachefile, split_records, write_cache
from scamp.discovery.cachefile import FileUnusableError, read_file, scan

SEPARATOR = b"\n%%%\n"


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (b"no separator", []),
        (b"\n%%%\nA", [b"A"]),
        (b"%%%\nA", [b"A"]),
        (b"ignored\n%%%\nA\n\n%%%\nB\n", [b"A\n", b"B\n"]),
        (b"\n%%%\n\n%%%\n \n\n%%%\nA", [b"A"]),
        (b"\n%%%\nA\n%%%", [b"A"]),
        (b"\n%%%\nA\n%", [b"A"]),
        (b"\n%%%\n50 %%% off", [b"50 %%% off"]),
    ],
)
def test_splitting(data: bytes, records: list[bytes]) -> None:
    assert split_records(data) == records


RECORDS = st.lists(st.binary(min_size=1, max_size=4).map(lambda raw: b"r" + raw + b"."), max_size=8)


@given(RECORDS, RECORDS)
def test_knowing_an_earlier_version_does_not_change_what_is_found(
    before: list[bytes], after: list[bytes]
) -> None:
    data = b"".join(SEPARATOR + record for record in after)
    places = {raw: place for place, raw in enumerate(before)}
    assert list(scan(data, before, places)) == split_records(data)


def test_known_records_come_back_as_the_objects_they_were() -> None:
    before = split_records(b"\n%%%\nA1\n%%%\nB1\n%%%\nC1\n%%%\nD1")
    places = {raw: place for place, raw in enumerate(before)}
    a, _, c, d = before
    found = list(scan(b"\n%%%\nnew\n%%%\nA1\n%%%\nchanged\n%%%\nD1\n%%%\nC1", before, places))
    assert found == [b"new", b"A1", b"changed", b"D1", b"C1"]
    assert [found[1] is a, found[3] is d, found[4] is c] == [True, True, True]


def test_of_an_endless_record_only_enough_to_refuse_it_is_taken() -> None:
    big = b"x" * (2 * limits.MAX_ANNOUNCEMENT)
    sizes = [len(raw) for raw in split_records(SEPARATOR + big + SEPARATOR + b"A")]
    assert sizes == [limits.MAX_ANNOUNCEMENT + 1, 1]


def test_what_is_written_reads_back_and_replaces_the_old_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    write_cache(path, [b"old"])
    with path.open("rb") as reader:
        write_cache(path, [b"A\n", b"B\n"])
        assert split_records(reader.read()) == [b"old"]
    assert path.read_bytes() == b"\n%%%\nA\n\n%%%\nB\n"
    assert list(tmp_path.iterdir()) == [path]


def as_rust_reads(content: bytes) -> list[list[bytes]]:
    """The parts of each record that the reader of the Rust edition finds. It looks for separators
    in pieces of 8 KiB, one by one, and wants nothing behind a blank line after the signature."""
    records, record = [], b""
    for at in range(0, len(content), 8192):
        first, *others = content[at : at + 8192].split(SEPARATOR)
        record += first
        for other in others:
            records.append(record)
            record = other
    found = [record.split(b"\n\n") for record in (*records, record) if record]
    return [parts[:3] for parts in found if len(parts) == 3 or (parts[3:] and not parts[3])]


@pytest.mark.parametrize("newlines", range(6))
@pytest.mark.parametrize("length", range(8165, 8195))
def test_every_record_is_found_as_rust_reads(tmp_path: Path, length: int, newlines: int) -> None:
    path = tmp_path / "cache"
    end = b"\n" * newlines
    signatures = [b"a" * (length - 8) + end, b"b" * 8170 + end, b"c\n", b"d\n"]
    write_cache(path, [b"[%d]\n\nCERT\n\n%b" % record for record in enumerate(signatures)])
    content = path.read_bytes()
    found = [[part.rstrip(b"\n") for part in parts] for parts in as_rust_reads(content)]
    assert found == [[b"[%d]" % n, b"CERT", s.rstrip(b"\n")] for n, s in enumerate(signatures)]
    assert as_go_reads(content) == [b"[0]", b"[1]", b"[2]", b"[3]"]
    assert len(split_records(content)) == 4


def as_go_reads(content: bytes) -> list[bytes]:
    """The JSON of each record that the reader of the Go edition finds."""
    lines = itertools.takewhile(lambda line: len(line) < 65_536, content.split(b"\n"))
    found = []
    for line in lines:
        if line == b"%%%":
            found += [text for text in itertools.islice(lines, 2) if text]
            for part in (lines, lines):  # certificate and signature, up to a blank line
                for line in part:
                    if line in (b"", b"%%%"):
                        break
    return found


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_no_record_hides_the_next_one_from_go(tmp_path: Path, end: bytes) -> None:
    """Its reader takes a separator without a blank line before it for the end of a signature."""
    path = tmp_path / "cache"
    write_cache(path, [b"[%d]\n\ncertificate\n\nsignature" % number + end for number in range(3)])
    assert as_go_reads(path.read_bytes()) == [b"[0]", b"[1]", b"[2]"]


def test_a_record_with_a_line_that_go_cannot_read_comes_last(tmp_path: Path) -> None:
    """Its reader stops there, without an error."""
    path = tmp_path / "cache"
    records = [b"[%b]\n\nC\n\nS\n" % (b" " * size) for size in (65_534, 0, 65_533, 5)]
    write_cache(path, records)
    read = [record.rstrip(b"\n") + b"\n" for record in split_records(path.read_bytes())]
    assert read == [*records[1:], records[0]]
    assert len(as_go_reads(path.read_bytes())) == 3


def test_a_record_with_a_separator_in_it_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    write_cache(path, [b"old"])
    with pytest.raises(ValueError, match="separator"):
        write_cache(path, [b"A", b"x\n%%%\ny"])
    assert split_records(path.read_bytes()) == [b"old"]
    assert list(tmp_path.iterdir()) == [path]


def test_reading_says_when_there_is_nothing_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    data, state = read_file(path, 10)
    assert data == b"x"
    assert read_file(path, 10, state) == (None, state)
    os.utime(path, (1, 1))
    assert read_file(path, 10, state)[0] == b"x"


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileUnusableError, match="not a regular file"):
        read_file(tmp_path / "pipe", 10)


# -- what stands where we write ---------------------------------------------------------


def plant(path: Path, what: str) -> None:
    if what == "pipe":
        os.mkfifo(path)
    elif what == "hard link":
        victim = path.with_name("victim")
        victim.write_bytes(b"precious")
        path.hardlink_to(victim)
    else:
        path.write_bytes(b"x" * 1000)
        path.chmod(0o600)


@pytest.mark.parametrize("what", ["pipe", "hard link", "left by a writer that died"])
def test_what_stands_where_we_write_is_taken_away(tmp_path: Path, what: str) -> None:
    path = tmp_path / "cache"
    plant(tmp_path / "cache.new", what)
    write_cache(path, [b"A"])
    assert split_records(path.read_bytes()) == [b"A"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_nlink == 1
    if what == "hard link":
        assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_link_where_we_write_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "cache.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        write_cache(tmp_path / "cache", [b"A"])
    assert not victim.exists()


def test_a_link_at_the_path_is_replaced_and_not_followed(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    path.symlink_to(elsewhere)
    write_cache(path, [b"A"])
    assert split_records(path.read_bytes()) == [b"A"]
    assert elsewhere.read_bytes() == b"precious"


def test_a_device_or_a_pipe_at_the_path_is_left_alone(tmp_path: Path) -> None:
    """Else root, writing to /dev/null, would put a file in its place."""
    path = tmp_path / "cache"
    os.mkfifo(path)
    with pytest.raises(OSError, match="neither a file nor a link"):
        write_cache(path, [b"A"])
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


def test_many_writers_at_once_never_show_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cachefile, "_PATIENCE", 50.0)  # on a busy machine one may have bad luck
    path = tmp_path / "cache"
    contents = [[bytes([65 + number]) * 3000] * 100 for number in range(4)]
    write_cache(path, contents[0])
    done = threading.Event()

    def write(records: list[bytes]) -> None:
        for _ in range(30):
            write_cache(path, records)

    def read() -> int:
        looks = 0
        while not done.is_set():
            records = split_records(path.read_bytes())
            assert len(records) == 100
            assert len({record.strip() for record in records}) == 1
            looks += 1
        return looks

    with ThreadPoolExecutor(5) as pool:
        looks = pool.submit(read)
        try:
            for writer in [pool.submit(write, records) for records in contents]:
                writer.result()
        finally:
            done.set()
        assert looks.result() > 0


def test_a_writer_that_never_ends_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cachefile, "_PATIENCE", 0.05)
    with (tmp_path / "cache.new").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="somebody else"):
            write_cache(tmp_path / "cache", [b"A"])
    assert (tmp_path / "cache.new").exists()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    write_cache(path, [b"old"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_cache(path, [b"x" * 3000] * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert split_records(path.read_bytes()) == [b"old"]
    assert list(tmp_path.iterdir()) == [path]


def test_where_files_cannot_be_locked_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="no locks"):
            write_cache(tmp_path / "cache", [])
    assert set(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []
