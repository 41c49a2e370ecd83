"""Access log: what a line has, and that writing it stops nobody."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from offers import registry_of, service

from gateway.access_lines import Form, line_of
from gateway.access_log import MAX_BATCH, AccessLog
from gateway.actions import Target, announced
from gateway.exchange import Exchange, Serving
from gateway.metrics import Metrics
from scamp import logs
from scamp.discovery import Registry

FIELDS = [
    *("time", "request_id", "trace_id", "client", "method", "route", "action", "version"),
    *("sector", "status", "cause", "upstream_code", "instance", "attempts", "bytes_in"),
    *("bytes_out", "total_ms", "upstream_ms", "queue_ms", "user_id", "client_id"),
]


def exchange(request_id: str = "id-1") -> Exchange:
    request = cast(web.BaseRequest, make_mocked_request("POST", "/"))
    made = Exchange(request, Serving(), Metrics(Registry()).none, 0.0, 1_700_000_000.25)
    made.request_id = request_id
    made.status = 200
    return made


async def test_a_line_has_every_field_every_time() -> None:
    line = orjson.loads(line_of(exchange(), 0.0123456))
    assert list(line) == FIELDS
    assert line["time"] == "2023-11-14T22:13:20.250000Z"
    assert line["total_ms"] == 12.346


async def test_a_line_ends_with_its_only_newline() -> None:
    made = exchange()
    made.upstream_code = "a\nb"
    line = line_of(made, 0.0)
    assert line.index(b"\n") == len(line) - 1


async def test_names_that_strangers_chose_are_cut() -> None:
    made = exchange()
    made.asked = Target("s" * 5000, "a" * 5000, 1)
    made.upstream_code = "c" * 5000
    assert len(line_of(made, 0.0)) < 1500


# -- as text ----------------------------------------------------------------------------


def words(line: bytes) -> dict[str, str]:
    """What any reader of logfmt gets."""
    assert line.endswith(b"\n")
    found = {}
    for name, quoted, bare in re.findall(r'(\w+)=(?:("(?:[^"\\]|\\.)*")|(\S*))', line.decode()):
        found[name] = orjson.loads(quoted) if quoted else bare
    return found


async def test_a_line_of_text_has_what_json_has_that_is_known() -> None:
    made = exchange()
    made.route = "/api/{action}"
    line = line_of(made, 0.0123456, 2, form="text", weight=10)
    assert line.startswith(b"time=2023-11-14T22:13:20.250000Z request_id=id-1 method=POST route=")
    known = orjson.loads(line_of(made, 0.0123456, 2, weight=10))
    assert words(line) == {name: str(value) for name, value in known.items() if value is not None}


EVIL: Final = (
    'a" status=200 "b',
    "a\nstatus=200 b",
    "a\r\n\x1b[2J\x9b31m",
    "a\u202eb\u2066c\u2028d",
    "a\udc80b",
    "back\\slash",
    "",
)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("text", EVIL)
async def test_no_name_makes_a_line_a_field_or_moves_the_cursor(text: str, form: Form) -> None:
    made = exchange()
    made.asked = Target(text, text, 1)
    made.upstream_code = text
    made.status = 404
    line = line_of(made, 0.0, form=form)
    decoded = line.decode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", decoded)
    assert decoded.count("\n") == 1
    found = orjson.loads(line) if form == "json" else words(line)
    assert str(found["status"]) == "404"
    for name in ("action", "sector", "upstream_code"):
        assert found[name] == logs.escape(text)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("before", ["", "x" * 190, "no good: "])
async def test_a_ticket_that_a_service_quotes_is_in_no_line(form: Form, before: str) -> None:
    ticket = f"1,7,9,1700000,60,1+2,{'Sig_' * 85}"
    for spelling in (ticket, quote(ticket, safe=""), f"Bearer {'t0k_' * 20}"):
        made = exchange()
        made.upstream_code = f"{before}{spelling} is no good"
        line = line_of(made, 0.0, form=form).decode()
        assert "Sig_Sig_Sig_" not in line
        assert "t0k_t0k_" not in line


# -- what is left out -------------------------------------------------------------------


def ended(status: int = 200, cause: str | None = None, *, cut: bool = False) -> Exchange:
    made = exchange()
    made.status, made.cause, made.was_cut = status, cause, cut
    return made


async def test_of_requests_that_ended_well_a_share_is_written_with_its_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = random.Random(1)  # noqa: S311 - no secret
    monkeypatch.setattr("gateway.access_log.random", drawn)
    path = tmp_path / "access.log"
    log = AccessLog(str(path), sample=0.1)
    log.start()
    made = ended()
    for _ in range(4000):
        log.record(made, 0.01)
    log.close()
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert 300 < len(lines) < 500
    assert {line["weight"] for line in lines} == {10}
    assert log.unsampled == 4000 - len(lines)
    assert log.dropped == 0


ALWAYS: Final = {
    "refused": (ended(404), 0.0),
    "failed": (ended(503), 0.0),
    "left": (ended(499, "client_left"), 0.0),
    "left after the head": (ended(200, "client_stalled"), 0.0),
    "cut": (ended(200, cut=True), 0.0),
    "slow": (ended(), 2.0),
    "at the limit": (ended(), 1.0),
}


@pytest.mark.parametrize("case", ALWAYS)
async def test_what_did_not_end_well_or_was_slow_is_always_written(
    tmp_path: Path, case: str
) -> None:
    made, total = ALWAYS[case]
    path = tmp_path / "access.log"
    log = AccessLog(str(path), sample=0.0, form="text")
    log.start()
    for _ in range(20):
        log.record(made, total)
    log.record(ended(), 0.99)
    log.record(ended(304), 0.0)
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert [words(line)["weight"] for line in lines] == ["1"] * 20
    assert log.unsampled == 2


async def test_what_is_left_out_is_not_made_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("a line was made")

    monkeypatch.setattr("gateway.access_log.line_of", never)
    log = AccessLog(str(tmp_path / "access.log"), sample=0.0)
    log.start()
    log.record(ended(), 0.0)
    log.close()


async def test_without_a_sample_every_line_is_written_and_has_no_weight(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.start()
    made = ended()
    for _ in range(50):
        log.record(made, 0.0)
    log.close()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 50
    assert "weight" not in orjson.loads(lines[0])


# -- writing ----------------------------------------------------------------------------


def read(path: Path) -> list[str]:
    return [orjson.loads(line)["request_id"] for line in path.read_bytes().splitlines()]


async def test_lines_are_appended_in_order(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(line_of(exchange("before"), 0.0))
    log = AccessLog(str(path))
    log.start()
    made = exchange()
    for number in range(1000):
        made.request_id = str(number)
        log.record(made, 0.0)
        if number % 100 == 0:
            await asyncio.sleep(0)
    log.close()
    log.close()
    assert read(path) == ["before", *map(str, range(1000))]
    assert log.dropped == 0


@pytest.mark.parametrize("form", ["json", "text"])
async def test_many_in_one_turn_of_the_loop_are_made_in_batches_and_in_order(
    tmp_path: Path, form: Form
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), form=form, sample=0.5, worker=3)
    log.start()
    made, expected = ended(), []
    offers = registry_of(service("shop", "Shop.buy noauth")).find("main", "Shop.buy")
    for number in range(5 * MAX_BATCH):
        made.request_id = str(number)
        made.action = announced(offers, 1.0) if number % 3 else None
        made.cause = None if number % 5 else "client_stalled"
        log.record(made, 1 + number / 7000)
        assert len(log._batch) < MAX_BATCH
        expected.append(line_of(made, 1 + number / 7000, 3, form=form, weight=1))
    log.close()
    assert path.read_bytes() == b"".join(expected)


async def test_what_there_is_no_room_for_is_dropped_and_what_comes_after_has_a_chance() -> None:
    log = AccessLog("off", max_waiting=12)
    assert log._admitted([b"12345\n", b"1234567\n", b"123\n", b"\n"]) == [
        b"12345\n",
        b"123\n",
        b"\n",
    ]
    assert (log.dropped, log._handed) == (1, 11)
    assert log._admitted([b"\n", b"\n"]) == [b"\n"]
    assert (log.dropped, log._handed) == (2, 12)


async def test_a_line_is_written_soon_without_another(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.start()
    for count in (1, 2):
        log.record(exchange(), 0.0)
        async with asyncio.timeout(5):
            while len(read(path)) < count:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.005)
    log.close()


async def test_what_is_written_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = b"a line of its own\n" * 2
    monkeypatch.setattr("gateway.access_log.line_of", lambda *_, **__: line)
    before = sys.getrefcount(line)
    log = AccessLog(str(tmp_path / "log"))
    log.start()
    log.record(exchange(), 0.0)
    async with asyncio.timeout(5):
        while (  # noqa: ASYNC110 - a file tells nobody
            (tmp_path / "log").read_bytes() != line or sys.getrefcount(line) > before
        ):
            await asyncio.sleep(0.005)
    log.close()


async def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path))
    log.start()
    log.record(exchange("old"), 0.0)
    await asyncio.sleep(0)
    path.rename(moved)
    log.record(exchange("still old"), 0.0)
    log.reopen()
    log.record(exchange("new"), 0.0)
    log.close()
    assert (read(moved), read(path)) == (["old", "still old"], ["new"])


async def test_a_file_that_cannot_be_opened_anew_leaves_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path, moved = folder / "access.log", tmp_path / "moved"
    log = AccessLog(str(path))
    log.start()
    folder.rename(moved)
    log.reopen()
    log.record(exchange("kept"), 0.0)
    log.close()
    assert read(moved / "access.log") == ["kept"]
    assert "going on with the old file" in caplog.text


async def test_a_file_that_cannot_be_opened_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        AccessLog(str(tmp_path / "missing" / "access.log")).start()


async def test_a_pipe_that_nobody_reads_stops_nobody_and_fills_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path), max_waiting=200_000)
    log.start()
    made = exchange()
    for number in range(3000):  # some 450 bytes each; a pipe holds 64 KiB
        made.request_id = str(number)
        log.record(made, 0.0)
        if number % 50 == 0:
            log._hand_over()
    assert log.dropped > 1000
    assert log._handed - log._written <= 200_000
    got = b""
    while b'"request_id":"100"' not in got:
        try:
            got += os.read(reader, 65536)
        except BlockingIOError:
            await asyncio.sleep(0.001)
    os.close(reader)
    log.close()


async def test_that_the_disk_has_room_again_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    log = AccessLog(str(tmp_path / "access.log"))
    log._fd = log._open()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        log._write([b"a\n", b"b\n"])
    log._write([b"c\n"])
    os.close(log._fd)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert caplog.records[-1].getMessage().endswith("is written again; 2 were lost")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_a_disk_that_fails_is_counted_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = AccessLog("/dev/full")
    log.start()
    for _ in range(3):
        log.record(exchange(), 0.0)
        log._hand_over()
    log.close()
    assert log.dropped == 3
    assert caplog.text.count("No space left") == 1


async def test_off_writes_nothing_and_needs_no_thread() -> None:
    log = AccessLog("off")
    log.start()
    log.record(exchange(), 0.0)
    log.reopen()
    log.close()
    assert log._thread is None


async def test_standard_output_is_written_to(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("-")
    log.start()
    log.record(exchange("out"), 0.0)
    log.reopen()
    log.close()
    assert orjson.loads(capfd.readouterr().out)["request_id"] == "out"
    os.fstat(1)


async def test_lines_of_several_processes_do_not_mix_in_a_pipe(tmp_path: Path) -> None:
    """A pipe takes more than 4 KiB from one writer in pieces, and others come between."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = asyncio.create_task(asyncio.to_thread(path.read_bytes))
    logs = [AccessLog(str(path), worker=number, lock=tmp_path / "lock") for number in range(4)]
    keep = await asyncio.to_thread(os.open, path, os.O_WRONLY)
    for one in logs:
        one.start()
    made = exchange("x" * 150)
    for _ in range(3):
        for one in logs:
            for _ in range(1000):
                one.record(made, 0.0)
        await asyncio.sleep(0)
    for one in logs:
        await asyncio.to_thread(one.close, 20.0)
    os.close(keep)
    workers = [orjson.loads(line)["worker"] for line in (await reading).splitlines()]
    assert sorted(workers) == [number for number in range(4) for _ in range(3000)]
