"""Lines on standard output, and those who read them slowly, or not at all."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scamp.cli.lines import Lines
from scamp.testing.ends import until


class Reader:
    """The other end of a pipe."""

    def __init__(self) -> None:
        self.fd, end = os.pipe()
        os.set_blocking(self.fd, False)
        self.writer = os.fdopen(end, "w")

    def read(self) -> bytes:
        """All that is there now."""
        found = b""
        try:
            while piece := os.read(self.fd, 65536):
                found += piece
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()
    reader.writer.close()


def gap(count: int) -> str:
    return f"{count} lost"


def ignored() -> None:
    """`Lines.error` tells as well."""


async def test_who_reads_nothing_holds_up_nobody_and_is_told_what_was_lost(reader: Reader) -> None:
    limit = 1_000_000
    lines = Lines(reader.writer, limit, gap, ignored)
    line = "x" * 99
    for _ in range(20_000):  # which a pipe of 64 KiB does not take
        lines.write(line)
    drained = asyncio.create_task(lines.drain())
    seen = b""
    while not drained.done():
        await asyncio.sleep(0)
        seen += reader.read()
    seen += reader.read()
    lines.write("after")
    await asyncio.wait_for(lines.drain(), 10)
    lines.close()
    *whole, told, after = (seen + reader.read()).decode().splitlines()
    assert (len(whole), set(whole)) == (10_000, {line})
    assert (told, after) == ("10000 lost", "after")


async def test_a_line_that_is_longer_than_the_limit_is_taken_when_nothing_waits(
    reader: Reader,
) -> None:
    lines = Lines(reader.writer, 10, gap, ignored)
    for _ in range(2):
        lines.write("x" * 99)
        await asyncio.wait_for(lines.drain(), 10)
    lines.close()
    assert reader.read() == 2 * (b"x" * 99 + b"\n")


async def test_waiting_for_the_reader_ends_when_it_is_closed(reader: Reader) -> None:
    lines = Lines(reader.writer, 1 << 20, gap, ignored)
    for _ in range(2_000):
        lines.write("x" * 99)
    drained = asyncio.create_task(lines.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    lines.close()
    lines.close()
    await asyncio.wait_for(drained, 10)
    lines.write("too late")
    assert reader.read().startswith(b"x" * 99 + b"\n")
    assert not reader.read()


async def test_what_can_be_written_is_written_when_it_is_closed(reader: Reader) -> None:
    lines = Lines(reader.writer, 1 << 20, gap, ignored)
    lines.write("first")
    lines.write("second")
    lines.close()
    assert reader.read() == b"first\nsecond\n"


async def test_a_reader_that_goes_is_noticed_without_a_line(reader: Reader) -> None:
    calls: list[int] = []
    lines = Lines(reader.writer, 1 << 20, gap, lambda: calls.append(1))
    reader.close()
    await until(lambda: calls)
    assert isinstance(lines.error, BrokenPipeError)
    lines.write("into the void")
    await asyncio.wait_for(lines.drain(), 10)
    lines.close()
    assert calls == [1]


async def test_a_reader_that_goes_while_lines_wait_is_noticed(reader: Reader) -> None:
    calls: list[int] = []
    lines = Lines(reader.writer, 1 << 20, gap, lambda: calls.append(1))
    for _ in range(2_000):
        lines.write("x" * 99)
    reader.close()
    await asyncio.wait_for(lines.drain(), 10)
    await until(lambda: lines.error is not None)
    assert calls == [1]
    lines.close()


async def test_a_pipe_that_can_be_read_from_as_well_has_no_reader_that_goes(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with os.fdopen(os.open(tmp_path / "pipe", os.O_RDWR), "r+b", buffering=0) as both:
        file = io.TextIOWrapper(both, "utf-8")
        lines = Lines(file, 1 << 20, gap, ignored)
        lines.write("one")
        await asyncio.wait_for(lines.drain(), 10)
        for _ in range(10):  # in which the loop looks at what there is to read
            await asyncio.sleep(0)
        lines.close()
        assert lines.error is None
        assert os.read(both.fileno(), 100) == b"one\n"
        file.detach()


async def test_a_file_has_each_line_at_once(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w", encoding="ascii") as file:
        lines = Lines(file, 10, gap, ignored)
        lines.write("a line that is longer than the limit of what may wait, and a \u2603")
        found = (tmp_path / "file").read_text()
        lines.close()
    assert found == "a line that is longer than the limit of what may wait, and a ?\n"
