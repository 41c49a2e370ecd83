"""A generator that miscounts would make every figure wrong without anyone noticing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from benchmarks.figures import Series, columns, ratios
from benchmarks.load import Outcome, Target, aimed, read_answer, read_wrk
from benchmarks.processes import ProcessFailedError, module, started

WRK = """\
Running 5s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.60ms  240.16us  13.33ms   93.55%
    Req/Sec    40.19k     1.26k   41.66k    88.24%
  203788 requests in 5.10s, 31.48MB read
"""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", (200, b"{}")),
        (b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: 2\r\nC: d\r\n\r\n{}", (200, b"{}")),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", (503, b"")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", None),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            (200, b"{}"),
        ),
    ],
)
def test_answers_are_read(data: bytes, expected: tuple[int, bytes] | None) -> None:
    assert read_answer(data) == expected


def test_what_wrk_prints_is_read() -> None:
    assert read_wrk(WRK) == Outcome(203788, 0, 5.1)
    more = "  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 7\n"
    assert read_wrk(WRK + more).failures == 11
    with pytest.raises(ValueError, match="not what wrk prints"):
        read_wrk("wrk: unknown option")


def test_the_generator_counts_echoes_and_says_what_was_none(tmp_path: Path) -> None:
    with started(module("benchmarks.bare"), tmp_path / "bare.log") as bare:
        with aimed(Target(bare.said, b'{"a":1}'), 4, "python", tmp_path) as load:
            first, second = load.run(0.1), load.run(0.1)
        with aimed(Target(f"{bare.said}/none", b"{}"), 1, "python", tmp_path) as load:
            wrong = load.run(0.05)
    for outcome in (first, second):
        assert outcome.requests > 4
        assert outcome.failures == 0
        assert 0.09 < outcome.seconds < 5  # the loop counts milliseconds
    assert wrong.failures == wrong.requests > 0


def test_a_process_that_does_not_come_up_is_told_with_what_it_logged(tmp_path: Path) -> None:
    command = tmp_path / "broken"
    command.write_text("#!/bin/sh\necho 'no such luck' >&2\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    with (
        pytest.raises(ProcessFailedError, match="ended:\nno such luck"),
        started([command], tmp_path / "log"),
    ):
        pass


def test_ratios_are_of_what_ran_next_to_each_other() -> None:
    found = ratios("ratio", Series("a", "us", [2.0, 9.0, 4.0]), Series("b", "us", [1.0, 3.0, 2.0]))
    assert found.samples == [2.0, 3.0, 2.0]
    assert found.row() == ("ratio", "2.00", "2.00", "3.00", "x")
    assert columns([("", "n"), ("ab", "1")]) == ["    n", "ab  1"]
