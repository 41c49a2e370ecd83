"""The rotation that is shipped, done by logrotate itself, loses no line."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.mesh import Gateway, gateway

SHIPPED = Path(__file__).parents[2] / "deploy/logrotate/scamp-gateway"
PATIENCE = 20.0


def ids(path: Path) -> list[str] | None:
    """Of the requests in a log; None while there is no file."""
    if not path.exists():
        return None
    return [json.loads(line)["request_id"] for line in path.read_bytes().splitlines()]


def ask(front: Gateway, request_id: str) -> None:
    with closing(http.client.HTTPConnection(urlsplit(front.url).netloc, timeout=PATIENCE)) as wire:
        fields = dict([("X-Request-ID", request_id), front.authorization])
        wire.request("GET", "/whoami", headers=fields)
        assert wire.getresponse().status == 200


def until(path: Path, wanted: list[str]) -> None:
    """Wait until the log has these lines and no others."""
    end = time.monotonic() + PATIENCE
    while ids(path) != wanted:
        assert time.monotonic() < end, (path, ids(path))
        time.sleep(0.01)


def test_a_log_that_is_rotated_goes_on_in_a_new_file(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    logrotate = tool("logrotate")
    with gateway(tmp_path) as front:
        log, old = tmp_path / "access.log", tmp_path / "access.log.1"
        told = SHIPPED.read_text()
        told = told.replace("/var/log/scamp-gateway/access.log", str(log))
        signal = f"kill -HUP {front.process.popen.pid}"
        told = told.replace("systemctl reload scamp-gateway.service", signal)
        assert str(log) in told
        assert signal in told
        (tmp_path / "rotation").write_text(told)
        ask(front, "before")
        until(log, ["before"])
        state = ("--state", str(tmp_path / "state"))
        subprocess.run([logrotate, "--force", *state, str(tmp_path / "rotation")], check=True)
        until(log, [])  # opened anew
        ask(front, "after")
        until(log, ["after"])
        assert ids(old) == ["before"]
