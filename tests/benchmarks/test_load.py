"""A generator that miscounts would make every figure wrong without anyone noticing."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path

import pytest

from benchmarks.figures import Options
from benchmarks.http1 import Target, all_requests, read_answer, request_bytes
from benchmarks.load import Outcome
from benchmarks.pace import CONNECTIONS, OverHttp, Run
from benchmarks.processes import ProcessFailedError, started
from benchmarks.stand import stand
from benchmarks.work import WAIT
from benchmarks.wrk import read_wrk

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


def test_the_generator_counts_echoes_and_says_what_was_none() -> None:
    with stand(Options(generator="python")) as here:
        bare = here.bare()
        load = here.aimed(Target(f"{bare.url}/api/Bench.echo", b'{"a":1}'), 4)
        first, second = load.run(0.1), load.run(0.1)
        wrong = here.aimed(Target(f"{bare.url}/none", b"{}"), 1).run(0.05)
    for outcome in (first, second):
        assert outcome.requests > 4
        assert outcome.failures == 0
        assert 0.09 < outcome.seconds < 5  # the loop counts milliseconds
    assert wrong.failures == wrong.requests > 0


def test_each_request_has_the_next_ticket(tmp_path: Path) -> None:
    target = Target("http://h/a", b"{}", (("A", "b"),), ("one", "two"))
    first, second = all_requests(target)
    assert b"\r\nA: b\r\nAuthorization: Bearer one\r\n\r\n{}" in first
    assert b"\r\nA: b\r\nAuthorization: Bearer two\r\n\r\n{}" in second
    target.write(tmp_path / "target.json")
    assert Target.read(tmp_path / "target.json") == target
    assert all_requests(Target("http://h/a", b"{}")) == [request_bytes(Target("http://h/a", b"{}"))]


async def test_latency_counts_from_the_time_at_which_a_request_was_due() -> None:
    """A server that stands still for a moment has made all of those late that came meanwhile."""
    run = Run()

    class Stalling:
        """Answers nothing for a fifth of a second, then all at once."""

        def __init__(self) -> None:
            self.held: list[float] = []
            self.stalled = True
            asyncio.get_running_loop().call_later(0.2, self.release)

        def send(self, intended: float) -> None:
            if self.stalled:
                self.held.append(intended)
            else:
                run.answered(intended, right=True)

        def release(self) -> None:
            self.stalled = False
            for intended in self.held:
                run.answered(intended, right=True)

    told = await run.go(Stalling(), rate=100, seconds=0.3)
    assert len(told.latencies) == len(told.lateness) == 30
    assert told.failures == 0
    waited = sorted(told.latencies, reverse=True)[:10]
    assert waited[0] > waited[9] > 0.02  # not one of them, as where each waits for the last


async def test_a_generator_that_is_late_says_so() -> None:
    run = Run()

    class Blocking:
        """Keeps the loop from anything else for a while, once."""

        def __init__(self) -> None:
            self.first = True

        def send(self, intended: float) -> None:
            if self.first:
                self.first = False
                time.sleep(0.1)
            run.answered(intended, right=True)

    told = await run.go(Blocking(), rate=100, seconds=0.2)
    assert max(told.lateness) > 0.05
    assert max(told.latencies) >= max(told.lateness)


async def test_what_waits_for_a_connection_is_late_from_when_it_was_due() -> None:
    """An answer takes half a second, and there are fewer connections than requests till then."""
    rate, seconds = 4 * CONNECTIONS, WAIT
    with stand(Options()) as here:
        run, target = Run(), Target(f"{here.bare().url}/api/Bench.wait", b"{}")
        async with OverHttp.open(target, run) as caller:
            told = await run.go(caller, rate, seconds)
    assert len(told.latencies) == rate * seconds > CONNECTIONS
    assert told.failures == 0
    assert min(told.latencies) > 0.9 * WAIT
    # All are taken after half of the time, and the next one waits for the first to be answered.
    assert max(told.latencies) > 1.2 * WAIT


def test_a_process_that_does_not_come_up_is_told_with_what_it_logged(tmp_path: Path) -> None:
    command = tmp_path / "broken"
    command.write_text("#!/bin/sh\necho 'no such luck' >&2\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    with (
        pytest.raises(ProcessFailedError, match="ended:\nno such luck"),
        started([command], tmp_path / "log"),
    ):
        pass


def test_one_that_ends_while_it_is_asked_is_told_likewise(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo ready; read line; echo gone >&2"]
    with (
        started(command, tmp_path / "log") as process,
        pytest.raises(ProcessFailedError, match="gone"),
    ):
        process.ask("1")
