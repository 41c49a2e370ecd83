"""Load from wrk (https://github.com/wg/wrk): keep-alive clients in a closed loop."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.environment import program
from benchmarks.http1 import Target, bearer
from benchmarks.load import Outcome

PATIENCE: Final = 30
"""Seconds until an answer that does not come is a failure. By itself wrk waits for 2, and a crowd
that connects all at once may take as long."""

IN_TURN: Final = """
local requests, at = {}, 0
init = function(args)
  for line in io.lines(args[1]) do
    wrk.headers["Authorization"] = line
    requests[#requests + 1] = wrk.format()
  end
  at = tonumber(args[2])
end
request = function()
  at = at % #requests + 1
  return requests[at]
end
"""
"""Arguments: a file with a value of Authorization on each line, and how many to leave out first."""


class WrkLoad:
    """``wrk`` with one thread. It does not compare bodies: bad statuses and broken connections
    are its failures."""

    def __init__(self, target: Target, clients: int, stem: Path) -> None:
        """Files that it needs are named `stem`, with endings of their own."""
        self.name = f"wrk {program('wrk')}"
        self._sent = 0
        self._tickets = target.tickets
        self._list, script = stem.with_suffix(".tickets"), stem.with_suffix(".lua")
        self._list.write_text("".join(f"{bearer(one)[1]}\n" for one in target.tickets))
        lines = ['wrk.method = "POST"', f"wrk.body = {json.dumps(target.body.decode())}"]
        headers = (("Content-Type", "application/json"), *target.headers)
        lines += [f"wrk.headers[{json.dumps(n)}] = {json.dumps(v)}" for n, v in headers]
        script.write_text("\n".join([*lines, IN_TURN if target.tickets else ""]))
        self._command = ["wrk", "-t1", f"-c{clients}", f"--timeout={PATIENCE}s", f"-s{script}"]
        self._url = target.url

    def run(self, seconds: float) -> Outcome:
        command = [*self._command, f"-d{max(1, round(seconds))}s", self._url]
        if self._tickets:
            command += ["--", str(self._list), str(self._sent % len(self._tickets))]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{urlsplit(self._url).netloc}: wrk: {done.stdout}{done.stderr}")
        outcome = read_wrk(done.stdout)
        self._sent += outcome.requests
        return outcome


def read_wrk(text: str) -> Outcome:
    """What wrk printed."""
    total = re.search(r"(\d+) requests in ([\d.]+)(m?s|m)", text)
    if total is None:
        raise ValueError(f"this is not what wrk prints: {text[:500]!r}")
    unit = {"ms": 0.001, "s": 1.0, "m": 60.0}[total[3]]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: (.*)", text)
    failures = int(bad[1]) if bad else 0
    failures += sum(map(int, re.findall(r"\d+", broken[1]))) if broken else 0
    return Outcome(int(total[1]), failures, float(total[2]) * unit)
