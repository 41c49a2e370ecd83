"""What the page on logs says is what the gateway writes: fields, loggers, lines, files to copy."""

from __future__ import annotations

import ast
import json
import logging
import re
import tomllib
from pathlib import Path
from typing import Final, cast

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pages import ROOT, Page

from gateway.access_lines import line_of
from gateway.access_log import MAX_WAITING
from gateway.exchange import Exchange, Serving
from gateway.loggers import LOGGERS
from gateway.metrics import Metrics
from gateway.settings import Settings
from scamp import limits, logs
from scamp.discovery import Registry

PAGE: Final = Page("docs/logging.md")
CODE: Final = [*sorted((ROOT / "gateway").rglob("*.py")), *sorted((ROOT / "scamp").rglob("*.py"))]
ELSEWHERE: Final = {"scamp.server", "scamp.cache", "scamp.cli", "opentelemetry.util.re"}
"""Of services and of the command scamp: nobody logs with them in a gateway. And one that tracing
only listens to."""
LIBRARIES: Final = {"aiohttp.server", "asyncio", "py.warnings"}


def table(head: str) -> dict[str, str]:
    """The rows of the table with this head, the first column without its backticks."""
    rows = re.search(
        rf"^\| {re.escape(head)} \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE.text, re.MULTILINE
    )
    assert rows is not None, head
    cells = [row.strip("| ").split(" | ", 1) for row in rows[1].splitlines()]
    return {first.strip("`"): rest for first, rest in cells}


def literals() -> str:
    """Every text in the code, one after the other."""
    return "\n".join(
        node.value
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def loggers() -> set[str]:
    """Names that are given to ``getLogger`` in both packages."""
    return {
        node.args[0].value
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "getLogger"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


async def test_fields_of_the_access_log_are_those_that_are_written() -> None:
    request = cast(web.BaseRequest, make_mocked_request("POST", "/"))
    made = Exchange(request, Serving(), Metrics(Registry()).none, 0.0, 0.0)
    written = orjson.loads(line_of(made, 0.0, 1, weight=10))
    assert list(table("field | is")) == list(written)
    (shown,) = [block for block in PAGE.blocks("json") if "request_id" in block]
    assert list(json.loads(shown)) == [name for name in written if name not in ("worker", "weight")]


def test_lines_of_text_that_are_shown_are_those_of_json() -> None:
    first, second = (json.loads(block) for block in PAGE.blocks("json"))
    lines = [block for block in PAGE.blocks("text") if first["message"] in block]
    assert lines == [
        f"{first['time'][:23]}Z {first['level']} {first['logger']}: {first['message']}\n"
    ]
    (line,) = [block for block in PAGE.blocks("text") if block.startswith("time=")]
    known = [f"{name}={value}" for name, value in second.items() if value is not None]
    assert line.split() == known


def test_fields_of_the_operational_log_are_those_that_are_written() -> None:
    formatter = logs.JsonLineFormatter(None)
    bug = (ValueError, ValueError("x"), None)
    record = logging.LogRecord("gateway", logging.ERROR, "", 0, "x", (), bug)
    with logs.bind(worker=1):
        written = json.loads(formatter.format(record))
    assert set(table("field of JSON | is")) == set(written)
    assert f"at most {limits.MAX_LOG_TEXT // 1024} KiB" in PAGE.text
    assert f"{limits.LOG_BURST} are written within {limits.LOG_INTERVAL:g} s" in PAGE.text
    assert f"Up to {MAX_WAITING >> 20} MiB wait" in PAGE.text


def test_loggers_are_those_that_there_are() -> None:
    assert table("logger | tells of") == LOGGERS
    ours = {name for name in loggers() if name not in ELSEWHERE}
    assert LOGGERS.keys() - LIBRARIES - {"scamp"} == ours
    used = {name for name in loggers() if name.startswith("gateway")}
    assert used <= LOGGERS.keys()


def test_lines_to_know_are_those_that_are_logged() -> None:
    said = literals()
    for line in table("line | means | do"):
        for part in line.split("…"):
            assert part.strip(" ,") in said, line


def test_settings_that_are_shown_are_there() -> None:
    (shown,) = PAGE.blocks("toml")
    settings = Settings(**tomllib.loads(shown))
    assert settings.log_levels == {"gateway.auth": "debug", "scamp.client": "error"}
    for name in re.findall(r"`((?:access_log|log)_[a-z_]+)[ =`]", PAGE.text):
        assert name in Settings.model_fields
    flags = re.findall(r"--log-level (\S+)", PAGE.text)
    assert [flag for flag in flags if "=" in flag] == [
        f"{name}={level}" for name, level in settings.log_levels.items()
    ]
    assert f"({settings.access_log_slow:g} s)" in PAGE.text


def test_the_rotation_that_is_shown_is_the_file_to_copy() -> None:
    copied = (ROOT / "deploy/logrotate/scamp-gateway").read_text()
    assert copied in PAGE.blocks("text")
    unit = (ROOT / "deploy/systemd/scamp-gateway.service").read_text()
    (reloaded,) = re.findall(r"systemctl reload (\S+)", copied)
    assert (ROOT / "deploy/systemd" / reloaded).exists()
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in unit
    (folder,) = re.findall(r"^LogsDirectory=(\S+)$", unit, re.MULTILINE)
    assert copied.startswith(f"/var/log/{folder}/")


@pytest.mark.parametrize("path", ["docs/logging.md", "docs/metrics.md"])
def test_the_site_has_the_page(path: str) -> None:
    assert f"- {Path(path).name}\n" in (ROOT / "mkdocs.yml").read_text()
