"""What Prometheus' own checker says of /metrics, and that strangers cannot make series."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from benchmarks.mesh import Gateway


def metrics(front: Gateway) -> str:
    with closing(connect(front.admin)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


def series(front: Gateway) -> set[str]:
    lines = metrics(front).splitlines()
    return {line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")}


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)


@pytest.fixture
def public(front: Gateway) -> Iterator[http.client.HTTPConnection]:
    with closing(connect(front.url)) as connection:
        yield connection


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, *headers: tuple[str, str]
) -> int:
    connection.request(method, path, headers=dict(headers))
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_promtool_has_nothing_to_say(
    front: Gateway, public: http.client.HTTPConnection, tool: Callable[[str], str]
) -> None:
    promtool = tool("promtool")
    ticket = front.authorization
    asked = [
        ("POST", "/api/Bench.echo", ticket, 200),
        ("POST", "/api/Bench.echo", ("Authorization", "Bearer nonsense"), 401),
        ("GET", "/api/Bench.download?bytes=200000", ticket, 200),
        ("GET", "/api/Bench.download?bytes=none", ticket, 400),
        ("GET", "/api/Bench.echo", ticket, 405),
        ("GET", "/api/Bench.none", ticket, 404),
    ]
    for method, path, header, status in asked:
        assert ask(public, method, path, header) == status, path
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=metrics(front),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_thousand_made_up_urls_add_no_series(
    front: Gateway, public: http.client.HTTPConnection
) -> None:
    """Beyond those that the first few of their kind made. Needs no promtool."""
    paths = (
        "/api/Made.up{}",
        "/api/Made.up~{}",
        "/api/sector{}:Made.up",
        "/made/up/{}",
        "/api/Bench.echo~{}",
        "/api/Made._read{}",
        "/api/%7B{}%22",
    )
    methods = ("GET", "POST", "PUT", "DELETE", "BREW", "OPTIONS")

    def ask_all(numbers: range) -> None:
        for number in numbers:
            method = methods[number % len(methods)]
            path = paths[number % len(paths)].format(number + 2)
            assert 400 <= ask(public, method, path, front.authorization) < 500, (method, path)

    ask_all(range(len(paths) * len(methods)))
    before = series(front)
    ask_all(range(1000, 2000))
    assert series(front) == before
