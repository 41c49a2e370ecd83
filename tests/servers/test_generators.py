"""wrk and our own generator send the same, in the same order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise

import pytest

from benchmarks.figures import Options
from benchmarks.http1 import Target
from benchmarks.processes import started
from benchmarks.stand import Stand, stand

TICKETS = ("a", "b", "c")


def asked_by(here: Stand, generator: str) -> list[str]:
    """The tickets that a server gets in two runs, one client sending one after the other."""
    seen = here.folder / f"seen-{generator}"
    server = here.folder / "server.py"
    server.write_text(SERVER)
    with started([sys.executable, server, seen], here.folder / "log") as one:
        load = here.aimed(Target(f"{one.said}/", b"{}", tickets=TICKETS), 1)
        counted = load.run(0.1).requests + load.run(0.1).requests
    found = seen.read_text().split()
    assert len(found) >= counted > 3
    return found


SERVER = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.headers["Authorization"].split()[1], file=seen, flush=True)
        head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
        self.wfile.write(head.encode() + body)

    def log_message(self, *arguments):
        pass

seen = open(sys.argv[1], "w")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("generator", ["python", "wrk"])
def test_tickets_go_round_and_on(generator: str, tool: Callable[[str], str]) -> None:
    """Were the first used again before the last, the gateway would have it in mind."""
    if generator == "wrk":
        tool("wrk")
    with stand(Options(generator=generator)) as here:
        found = asked_by(here, generator)
    order = [TICKETS.index(ticket) for ticket in found]
    steps = [(after - before) % len(TICKETS) for before, after in pairwise(order)]
    # Between two runs wrk leaves a request behind that it sent and did not count.
    assert sum(step != 1 for step in steps) <= (generator == "wrk"), order
