"""``scamp verify``: which records are accepted, and why others are not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from scamp import keys
from scamp.discovery import Action, AnnouncementSpec, build_announcement, write_cache

Run = Callable[..., Result]
Record = Callable[..., bytes]

FETCH = Action("main", "Product.Sku", "fetch", 1, ("read",))
COUNT = Action("back", "Stock", "count", 2)


@pytest.fixture
def record(made: Path) -> Record:
    """A signed record; what differs from the ordinary one is given."""
    key = keys.load_private_key((made / "shop.key").read_bytes())
    certificate = (made / "shop.crt").read_bytes()

    def record(name: str = "shop", timestamp: float = 1e9, **changed: Any) -> bytes:
        spec: dict[str, Any] = {
            "identity": f"{name}:{'A' * 24}",
            "sector": "main",
            "weight": 1,
            "interval": 5.0,
            "uri": "beepish+tls://10.0.0.5:30100",
            "envelopes": ("json",),
            "actions": (FETCH, COUNT),
            **changed,
        }
        return build_announcement(AnnouncementSpec(**spec), key, certificate, timestamp=timestamp)

    return record


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def rows(result: Result) -> list[list[str]]:
    """The table's lines below the header, cut at two spaces and more."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in result.stdout.splitlines()[1:]
    ]


def test_good_records_are_accepted_with_a_line_each(run: Run, cache: Path, record: Record) -> None:
    write_cache(cache, [record(), record("b", uri="beepish+tls://[::1]:5", sector="back")])
    result = run("verify", cache)
    assert result.exit_code == 0
    assert result.stderr == "2 records, 0 refused\n"
    assert rows(result) == [
        ["1", "good", f"shop:{'A' * 24}", "main", "10.0.0.5:30100", "2"],
        ["2", "good", f"b:{'A' * 24}", "back", "[::1]:5", "2"],
    ]


def test_refused_records_are_told_with_their_reason_and_make_exit_1(
    run: Run, cache: Path, record: Record
) -> None:
    forged = record("forged").replace(b"10.0.0.5", b"10.6.6.6")
    write_cache(cache, [b"nonsense", forged, record()])
    result = run("verify", cache)
    assert result.exit_code == 1
    assert result.stderr == "3 records, 2 refused\n"
    first, second, third = rows(result)
    assert first[:3] == ["1", "refused", "?"]
    assert first[3].startswith("malformed: ")
    assert second[:3] == ["2", "refused", f"forged:{'A' * 24}"]
    assert second[3].startswith("signature: ")
    assert third[:2] == ["3", "good"]


def test_older_record_of_a_service_is_told_and_does_no_harm(
    run: Run, cache: Path, record: Record
) -> None:
    write_cache(cache, [record(timestamp=1000.0), record(timestamp=2000.0), record("b")])
    result = run("verify", cache)
    assert result.exit_code == 0
    assert [row[1] for row in rows(result)] == ["older", "good", "good"]
    assert "replay: a newer one stands in the same file" in result.stdout


def test_file_that_breaks_off_is_recognized(run: Run, cache: Path, record: Record) -> None:
    write_cache(cache, [record(), record("b")])
    cache.write_bytes(cache.read_bytes()[:-200])
    result = run("verify", cache)
    assert result.exit_code == 1
    assert [row[1] for row in rows(result)] == ["good", "refused"]
    assert "cut off" in result.stdout


def test_what_is_not_permitted_is_named_and_no_reason_to_refuse(
    run: Run, cache: Path, record: Record, made: Path, tmp_path: Path
) -> None:
    authorized = tmp_path / "authorized_services"
    fingerprint = keys.fingerprint((made / "shop.crt").read_bytes())
    authorized.write_text(f"{fingerprint} Product\nrubbish\n")
    write_cache(cache, [record()])
    result = run("verify", cache, "--authorized-services", authorized)
    assert result.exit_code == 0
    assert "1 not permitted: back:Stock.count~2" in result.stdout
    assert "note: skipped: " in result.stderr
    as_json = run("verify", cache, "--json", "--authorized-services", authorized)
    (facts,) = json.loads(as_json.stdout)
    assert facts["not_permitted"] == ["back:Stock.count~2"]
    assert facts["actions"] == ["main:Product.Sku.fetch~1", "back:Stock.count~2"]


def test_service_that_leaves_is_told(run: Run, cache: Path, record: Record) -> None:
    write_cache(cache, [record(weight=0, actions=())])
    assert "leaving: weight 0" in run("verify", cache).stdout


def test_json_carries_every_detail(run: Run, cache: Path, record: Record, made: Path) -> None:
    write_cache(cache, [record(), b"nonsense"])
    result = run("verify", "--json", cache)
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)
    assert good == {
        "number": 1,
        "status": "good",
        "identity": f"shop:{'A' * 24}",
        "reason": None,
        "detail": None,
        "name": "shop",
        "fingerprint": keys.fingerprint((made / "shop.crt").read_bytes()),
        "sector": "main",
        "uri": "beepish+tls://10.0.0.5:30100",
        "weight": 1,
        "interval": 5.0,
        "timestamp": 1e9,
        "actions": ["main:Product.Sku.fetch~1", "back:Stock.count~2"],
        "not_permitted": [],
    }
    assert (bad["status"], bad["reason"]) == ("refused", "malformed")
    assert set(bad) == {"number", "status", "identity", "reason", "detail"}


@pytest.mark.parametrize("content", [b"rubbish\n", b"\n%%%"])
def test_file_without_records_is_exit_2(run: Run, cache: Path, content: bytes) -> None:
    cache.write_bytes(content)
    result = run("verify", cache)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not a discovery cache file" in result.stderr


def test_file_that_is_not_there_is_exit_2(run: Run, cache: Path) -> None:
    result = run("verify", cache)
    assert result.exit_code == 2
    assert "cache: No such file" in result.stderr


def test_standard_input_is_read_from_a_pipe(cache: Path, record: Record) -> None:
    write_cache(cache, [record(), b"nonsense"])
    command = [sys.executable, "-m", "scamp.cli", "verify", "-"]
    done = subprocess.run(command, input=cache.read_bytes(), capture_output=True, check=False)
    assert done.returncode == 1
    assert b"1   good     shop:" in done.stdout
    assert done.stderr == b"2 records, 1 refused\n"


def test_separator_at_the_very_start_begins_the_first_record(
    run: Run, cache: Path, record: Record
) -> None:
    cache.write_bytes(b"%%%\n" + record() + b"\n%%%\n" + record("b"))
    assert [row[1] for row in rows(run("verify", cache))] == ["good", "good"]


def test_announced_text_cannot_move_the_cursor(run: Run, cache: Path) -> None:
    write_cache(cache, [b'[3,"\x1b[2Jx",\n\nx\n\ny'])
    assert "\x1b" not in run("verify", cache).stdout
