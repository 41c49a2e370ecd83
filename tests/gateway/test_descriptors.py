"""How many clients there are descriptors for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway import checks, descriptors
from gateway.descriptors import OWN, room_for_clients, shortage
from gateway.factory import client_limits
from gateway.settings import Settings
from gateway.sources import Loaded


@pytest.mark.parametrize(
    ("most", "room"), [(0, 1), (OWN, 1), (1024, 576), (13_600, 10_008), (1 << 20, 786_240)]
)
def test_clients_get_what_is_not_kept_for_others(most: int, room: int) -> None:
    assert room_for_clients(most) == room


def test_who_wants_more_is_told_what_there_is_and_what_to_do() -> None:
    assert shortage(576, 1024) is None
    told = shortage(577, 1024)
    assert told is not None
    assert "577 and the limit of open files 1024: 576 clients are let in" in told
    assert "LimitNOFILE" in told


def test_settings_that_ask_for_more_get_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "limit", lambda: 1024)
    assert client_limits(Settings()).connections == 576
    assert client_limits(Settings(max_connections=5)).connections == 5
    assert client_limits(Settings(max_connections_per_address=0)).per_address is None


@pytest.mark.parametrize(("most", "level"), [(1024, "warn"), (1 << 20, "ok")])
def test_check_tells_before_anything_is_started(
    most: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "most_possible", lambda: most)
    findings = checks.examine(Loaded(Settings(), {}))
    assert [one.level for one in findings if one.about == "open files"] == [level]


def test_the_limit_is_raised_to_all_that_there_is() -> None:
    program = (
        "import resource; from gateway.descriptors import *; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); "
        "print(limit(), most_possible(), raise_limit(), limit())"
    )
    root = Path(__file__).parents[2]
    said = subprocess.run([sys.executable, "-c", program], cwd=root, check=True, stdout=-1).stdout
    assert said.split() == [b"100", b"300", b"300", b"300"]
