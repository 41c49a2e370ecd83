"""Log lines: nobody adds one of his own, no ticket is in one, and no flood fills the disk."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import given
from hypothesis import strategies as st

from scamp import keys, limits, logs
from scamp.errors import ConfigError
from scamp.testing import make_identity
from scamp.tickets import issue_ticket

FORMS: list[logs.Form] = ["text", "json", "scamp"]
log = logging.getLogger("scamp.tests")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What `configure` changes in the process is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        if handler not in handlers:
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.getLogger("scamp.tests").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def written(form: logs.Form, say: Callable[[], object], **options: Any) -> list[str]:
    """The lines that come of what `say` logs."""
    stream = io.StringIO()
    handler = logs.configure("shop", form=form, stream=stream, **options)
    say()
    handler.close()
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def raised(error: Exception) -> Exception:
    """The error with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.fixture(scope="module")
def ticket() -> str:
    key = keys.load_private_key(make_identity().key)
    assert isinstance(key, RSAPrivateKey)
    return issue_ticket(key, user_id=7, client_id=9, privileges=[1, 2], start=1_700_000, length=60)


# -- forms ------------------------------------------------------------------------------


def test_a_line_of_text_has_time_level_logger_and_message() -> None:
    (line,) = written("text", lambda: log.warning("%d left", 3))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING scamp\.tests: 3 left", line
    )


def test_a_line_of_scamp_has_date_tag_pid_severity_and_message() -> None:
    (line,) = written("scamp", lambda: log.error("%s\tgone", "it"))
    date, tag, pid, severity, message = line.split("\t")
    assert datetime.fromisoformat(date).tzinfo == UTC
    assert (tag, pid, severity) == ("shop", str(os.getpid()), "error")
    assert message == r"it\tgone"


def test_a_line_of_json_has_names_that_stay() -> None:
    (line,) = written("json", lambda: log.info("told %s", "it", extra={"what": "cache"}))
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("time")).tzinfo == UTC
    assert found == {
        "level": "INFO",
        "logger": "scamp.tests",
        "message": "told it",
        "service": "shop",
        "pid": os.getpid(),
        "what": "cache",
    }


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        *((5, "debug"), (10, "debug"), (20, "info"), (25, "info")),
        *((30, "warning"), (40, "error"), (50, "fatal"), (60, "fatal")),
    ],
)
def test_levels_become_severities(level: int, severity: str) -> None:
    (line,) = written("scamp", lambda: log.log(level, "x"), level=1)
    assert line.split("\t")[3] == severity


@pytest.mark.parametrize("form", FORMS)
def test_a_traceback_stays_on_the_line(form: logs.Form) -> None:
    error = ValueError("first\nsecond")
    (line,) = written(form, lambda: log.error("it broke", exc_info=raised(error)))
    assert "Traceback" in line
    assert r"first\nsecond" in line


@pytest.mark.parametrize("form", FORMS)
@given(text=st.text())
def test_no_text_makes_a_second_line(form: logs.Form, text: str) -> None:
    def say() -> None:
        with logs.bind(action=text):
            log.info("%s", text, extra={"given": text})

    (line,) = written(form, say)
    assert line.splitlines() == [line]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", line)
    line.encode()
    if form == "json":
        assert json.loads(line)["message"] == text


def test_text_that_looks_like_a_line_end_and_a_record_is_visibly_none() -> None:
    (line,) = written("text", lambda: log.info("user %s", "x\n2026-01-01T00:00:00.000Z ERROR a: b"))
    assert r"x\n2026" in line


# -- what is bound ----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_what_is_bound_goes_with_every_record(form: logs.Form) -> None:
    def say() -> None:
        with logs.bind(request_id=17, action="A.b"):
            with logs.bind(user_id=4, action=None):
                log.info("inner")
            log.info("outer")
        log.info("neither")

    inner, outer, neither = written(form, say)
    if form == "json":
        assert (json.loads(inner)["request_id"], json.loads(inner)["user_id"]) == (17, 4)
        assert json.loads(outer)["action"] == "A.b"
        assert "action" not in json.loads(inner)
    else:
        assert inner.endswith("inner [request_id=17 user_id=4]")
        assert outer.endswith("outer [request_id=17 action=A.b]")
    assert "request_id" not in neither


def test_what_is_bound_hides_nothing_of_the_record() -> None:
    def say() -> None:
        with logs.bind(message="lie", level="lie", what="lie"):
            log.info("truth", extra={"what": "truth"})

    (line,) = written("json", say)
    assert "lie" not in line


def test_what_is_learned_on_the_way_is_bound_as_long_as_the_block_lasts() -> None:
    with logs.bind(action="a.b"):
        logs.bind_more(user_id=7)
        assert dict(logs.bound()) == {"action": "a.b", "user_id": 7}
    assert not logs.bound()


def test_a_bound_value_cannot_pose_as_another_field() -> None:
    def say() -> None:
        with logs.bind(action='x user_id=1 ["'):
            log.info("m")

    (line,) = written("text", say)
    assert line.endswith(r'm [action="x user_id=1 [\""]')


async def test_tasks_keep_what_was_bound_where_they_began() -> None:
    stream = io.StringIO()
    logs.configure("shop", stream=stream)
    go = asyncio.Event()

    async def work(number: int) -> None:
        with logs.bind(request_id=number):
            await go.wait()
            log.info("done")

    tasks = [asyncio.create_task(work(number)) for number in range(3)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert re.findall(r"request_id=(\d)", stream.getvalue()) == ["0", "1", "2"]
    assert logs.bound() == {}


def test_fields_are_not_bound_without_end() -> None:
    with logs.bind(**{f"f{number}": number for number in range(1000)}):
        assert len(logs.bound()) == limits.MAX_LOG_FIELDS


# -- tickets ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_ticket_is_in_no_line_however_it_gets_there(form: logs.Form, ticket: str) -> None:
    def say() -> None:
        log.info("%s", ticket)
        log.info("given %r", {"ticket": ticket.encode()})
        log.info("GET /?ticket=%s HTTP/1.1", ticket.replace(",", "%2C").replace("+", "%2B"))
        log.info("x", extra={"header": {"ticket": ticket}})
        log.info(ticket)
        with logs.bind(ticket=ticket):
            log.info("y")
        log.error("z", exc_info=raised(ValueError(ticket)))

    signature = ticket.rpartition(",")[2]
    lines = written(form, say)
    assert len(lines) == 7
    assert signature[:16] not in "\n".join(lines)
    assert sum(logs.HIDDEN in line for line in lines) >= 6


def test_a_ticket_without_privileges_is_known_too(ticket: str) -> None:
    signature = ticket.rpartition(",")[2]
    for fields in ("1,7,9,1700000,60", "1,7,9,1700000,60,", "1,7,9,1700000,60,3"):
        assert logs.redact(f"<{fields},{signature}>") == "<[ticket]>"


@pytest.mark.parametrize(
    "spell",
    [
        lambda ticket: quote(ticket, safe=""),
        lambda ticket: quote(quote(ticket, safe=""), safe=""),
        lambda ticket: ticket.replace("+", " "),
        lambda ticket: ticket.replace(",", "\\u002c").replace("+", "\\u002B"),
        lambda ticket: ticket.replace("-", "%2d").replace("_", "%5F"),
        lambda ticket: ticket.replace("-", "+").replace("_", "\\/") + "==",
    ],
    ids=["in a URL", "in a URL in a URL", "in a form", "in JSON", "all of it", "as base64"],
)
def test_a_ticket_is_known_however_it_is_written(ticket: str, spell: Callable[[str], str]) -> None:
    assert logs.redact(f"<{spell(ticket)}>") == "<[ticket]>"


@pytest.mark.parametrize(
    "glue", ["/", "%2F", "=", "+", "-", "_", "", "9", "x", "&ticket=", "%3D%3D", "%31", "\n"]
)
def test_of_two_tickets_the_first_does_not_hide_where_the_second_begins(
    ticket: str, glue: str
) -> None:
    for first, second in product((ticket, quote(ticket, safe="")), repeat=2):
        shown = logs.redact(f"<{first}{glue}{second}>")
        assert shown.count("[ticket]") == 2
        assert len(shown) <= len("<[ticket][ticket]>") + len(glue)


@pytest.mark.parametrize("before", ["7", "/items/42", "%31"])
def test_a_ticket_behind_a_number_is_known_by_its_length(ticket: str, before: str) -> None:
    assert logs.redact(f"{before}{ticket}") == f"{before}[ticket]"


def test_a_ticket_that_is_wrapped_is_known_to_its_end(ticket: str) -> None:
    lines = [ticket[start : start + 76] for start in range(0, len(ticket), 76)]
    shown = logs.redact("\r\n".join([*lines, "the next line"]))
    assert all(line not in shown for line in lines if len(line) >= 40)
    assert shown.endswith("the next line")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer eyJhbGciOi.J9.sig-n_a~ture=", "Authorization: Bearer [ticket]"),
        ("?a=bearer%20eyJhbGciOiJIUzI1NiJ9&b", "?a=bearer%20[ticket]&b"),
        ("Bearer \t eyJhbGciOiJIUzI1NiJ9", "Bearer \t [ticket]"),
        ("redis://:p@ss@a:1/0?x=y@z", "redis://:[secret]@a:1/0?x=y@z"),
        ('Bearer error="invalid_token"', 'Bearer error="invalid_token"'),
        ("the bearer of bad news", "the bearer of bad news"),
        ("redis://:hunter2@a:1/0 redis://u:p@b", "redis://:[secret]@a:1/0 redis://u:[secret]@b"),
        ("http://10.0.0.1:8080/a@b", "http://10.0.0.1:8080/a@b"),
        ("http://h/x:y@z", "http://h/x:y@z"),
    ],
)
def test_tokens_and_passwords_of_urls_are_known_too(text: str, shown: str) -> None:
    assert logs.redact(text) == shown


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1, 2, 3, 4, 5, 6, 7", "11,7,9,1700000,60,abcdefghijklmnop", "{}"]
)
def test_what_is_no_ticket_stays(text: str) -> None:
    assert logs.redact(text) == text


# -- floods -----------------------------------------------------------------------------


def test_equal_messages_are_counted_instead_of_written() -> None:
    def say() -> None:
        for number in range(1000):
            log.warning("refused %d", number)
        log.warning("something else")

    lines = written("text", say, burst=5, interval=3600)
    assert len(lines) == 7
    assert [line.rpartition(": ")[2] for line in lines[:5]] == [f"refused {n}" for n in range(5)]
    assert lines[5].endswith("something else")
    assert lines[6].endswith("WARNING scamp.tests: 995 more suppressed: refused %d")


def test_the_next_interval_says_how_many_there_were_and_begins_anew() -> None:
    flood = logs.Flood(burst=2, interval=10)
    key = ("a", logging.INFO, "m")
    assert [flood.admit(key, now) for now in (0, 1, 2, 9)] == [True, True, False, False]
    assert flood.ended(9.9) == []
    assert flood.ended(10) == [(key, 2)]
    assert flood.admit(key, 10)
    assert flood.ended(20) == []
    assert len(flood) == 0


def test_levels_and_loggers_are_counted_apart() -> None:
    flood = logs.Flood(burst=1, interval=10)
    assert flood.admit(("a", logging.INFO, "m"), 0)
    assert flood.admit(("a", logging.ERROR, "m"), 0)
    assert flood.admit(("b", logging.INFO, "m"), 0)
    assert not flood.admit(("b", logging.INFO, "m"), 0)


def test_ever_new_messages_take_neither_memory_nor_disk_without_end() -> None:
    flood = logs.Flood(burst=2, interval=10)
    passed = sum(flood.admit(("a", logging.INFO, str(n)), 0) for n in range(100_000))
    assert len(flood) == limits.MAX_LOG_MESSAGES + 1
    assert passed == limits.MAX_LOG_MESSAGES + 2
    ((key, held),) = flood.ended(10)
    assert key == ("", 0, "")
    assert held == 100_000 - passed
    assert len(flood) == 0


def test_all_is_written_where_no_limit_is_wanted() -> None:
    def say() -> None:
        for _ in range(500):
            log.info("x")

    assert len(written("text", say, burst=None)) == 500


@pytest.mark.parametrize("form", FORMS)
def test_a_line_has_an_end(form: logs.Form) -> None:
    huge = "x" * 1_000_000

    def say() -> None:
        with logs.bind(**{f"f{number}": huge for number in range(50)}):
            log.info("%s", huge, extra={"deep": {"er": huge}})

    (line,) = written(form, say)
    assert len(line) < 2 * limits.MAX_LOG_LINE
    if form == "json":
        json.loads(line)


# -- failures ---------------------------------------------------------------------------


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("not told")

    __repr__ = __str__


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_logged_costs_one_line_and_nothing_else(form: logs.Form) -> None:
    def say() -> None:
        log.info("%d", "secret")
        log.info("%s", Unspeakable())
        log.info("fine")

    first, second, fine = written(form, say)
    assert "cannot be logged: TypeError" in first
    assert "secret" not in first
    assert "cannot be logged: RuntimeError" in second
    assert "fine" in fine


@pytest.mark.parametrize("form", FORMS)
def test_a_value_that_cannot_be_told_raises_nowhere(form: logs.Form) -> None:
    def say() -> None:
        with logs.bind(who=Unspeakable()):
            log.info("m")

    assert len(written(form, say)) == 1


def test_a_stream_that_is_gone_is_no_error_of_the_caller() -> None:
    stream = io.StringIO()
    logs.configure("shop", stream=stream)
    stream.close()
    log.error("nobody hears it")


# -- setting it up ----------------------------------------------------------------------


def test_levels_hold_for_the_process_and_for_single_loggers() -> None:
    def say() -> None:
        log.info("no")
        log.error("one")
        logging.getLogger("other").info("two")
        logging.getLogger("other").debug("no")

    lines = written("text", say, levels={"scamp.tests": "error"})
    assert [line.rpartition(": ")[2] for line in lines] == ["one", "two"]


def test_a_second_setting_up_takes_the_place_of_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("shop", stream=first)
    logs.configure("shop", stream=second)
    log.info("x")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_a_file_is_appended_to_and_opened_again_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "shop.log"
    path.write_text("before\n")
    logs.configure("shop", file=path)
    log.info("one \ud800 half")
    path.rename(tmp_path / "shop.log.1")
    log.info("two")
    assert (tmp_path / "shop.log.1").read_text().splitlines()[0] == "before"
    assert (tmp_path / "shop.log.1").read_text().endswith("one \\ud800 half\n")
    assert path.read_text().endswith("two\n")


@pytest.mark.parametrize("options", [{"level": "loud"}, {"form": "xml"}, {"levels": {"a": "b"}}])
def test_settings_that_do_not_exist_change_nothing(options: dict[str, Any]) -> None:
    before = logging.getLogger().handlers[:]
    with pytest.raises(ConfigError):
        logs.configure("shop", **options)
    assert logging.getLogger().handlers == before


# -- what strangers make us say -----------------------------------------------------------


def test_equal_messages_are_counted_without_any_set_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = logs.Sparing(logging.getLogger("test.strangers"))
    for number in range(limits.LOG_BURST + 7):
        log.warning("said %d", number)
    log.error("something else")
    assert [record.getMessage() for record in caplog.records][-2:] == ["said 199", "something else"]
    assert caplog.records[0].filename == "test_logs.py"
    now += limits.LOG_INTERVAL
    log.warning("said again")
    assert [record.getMessage() for record in caplog.records][-2:] == [
        "7 more suppressed: said %d",
        "said again",
    ]
    assert len(caplog.records) == limits.LOG_BURST + 3


def test_what_is_not_logged_is_not_counted() -> None:
    log = logs.Sparing(logging.getLogger("test.quiet"))
    log.debug("unheard")
    assert len(logs._strangers) == 0
