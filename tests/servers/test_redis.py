"""What a real Redis makes of our script, and two gateways that share one count."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from benchmarks.mesh import gateway
from fronted import Fronted
from gateway.auth import ANONYMOUS, Caller
from gateway.ratelimit.limiter import RateLimiter
from gateway.ratelimit.rate import Rate
from gateway.ratelimit.shared import SharedCounts
from scamp.testing import ScriptedPeer, until

LATE = 20.0
ANNA = Caller("t", 1, 9)


class Server:
    """A redis-server on a free port, which keeps nothing and takes a password."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"redis://:hunter2@127.0.0.1:{self._port}/3"

    def start(self) -> None:
        command = [
            *(self._program, "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""),
            *("--appendonly", "no", "--dir", str(self._folder), "--requirepass", "hunter2"),
            *("--daemonize", "no", "--databases", "4"),
            *("--unixsocket", str(self._folder / "redis.sock")),
        ]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It holds its connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@pytest.fixture
async def server(tool: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tool("redis-server"), tmp_path)
    server.start()
    try:
        async with asyncio.timeout(LATE), client(server) as redis:
            while True:
                with suppress(Exception):  # it is not there yet, or loads
                    await redis.ping()
                    break
                await asyncio.sleep(0.01)
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[Any]:
    redis = Redis.from_url(server.url, protocol=2)
    try:
        yield redis
    finally:
        await redis.aclose()


@asynccontextmanager
async def limiting(server: Server, *, timeout: float = LATE, **limits: Any) -> AsyncIterator[Any]:
    """A limiter that counts there, with its `SharedCounts` as ``limiter.shared``."""
    counts = SharedCounts(server.url, timeout=timeout, pause=0.02)
    try:
        await counts.start()
        yield RateLimiter(shared=counts, **limits)
    finally:
        await counts.close()


async def refused(limiter: RateLimiter, caller: Caller = ANNA, **more: Any) -> str | None:
    verdict = await limiter.check(caller, "203.0.113.7", **more)
    assert verdict is not None
    return verdict.refused_by.name if verdict.refused_by else None


async def test_limiters_share_one_count(server: Server) -> None:
    rate = Rate.parse("10/d")
    async with limiting(server, user=rate) as one, limiting(server, user=rate) as other:
        both = [one, other] * 15
        results = await asyncio.gather(*(refused(limiter) for limiter in both))
        assert results.count(None) == 10
        assert results.count("user") == 20
        assert await refused(one, Caller("t", 2, 9)) is None
        verdict = await other.check(Caller("t", 2, 9), None)
        assert verdict.fields == (
            ("RateLimit-Policy", '"user";q=10;w=86400'),
            ("RateLimit", '"user";r=8;t=8640'),
        )


async def test_one_refusal_costs_no_token_of_another_limit(server: Server) -> None:
    user, client = Rate.parse("50/d"), Rate.parse("2/d")
    async with limiting(server) as limiter:
        asked = [("user", user), ("client", client)]
        answers = [await limiter.shared.take(asked) for _ in range(9)]
        assert [admitted for admitted, _ in answers] == [True] * 2 + [False] * 7
        (_, (of_user, of_client)) = answers[-1]
        assert (user.remaining(of_user), client.remaining(of_client)) == (48, 0)
        admitted, (of_user,) = await limiter.shared.take(asked[:1])
        assert (admitted, user.remaining(of_user)) == (True, 47)


async def test_tokens_come_back_and_the_wait_is_true(server: Server) -> None:
    """By the server's clock; the only test that has to wait for it."""
    async with limiting(server, user=Rate.parse("2/s;burst=1")) as limiter:
        began = time.monotonic()
        assert await refused(limiter) is None
        admitted = 1
        while admitted < 3:
            admitted += await refused(limiter) is None
        assert time.monotonic() - began > 0.95  # two tokens; clocks are adjusted a little
        verdict = await limiter.check(ANNA, None)
        if verdict.refused_by is not None:
            assert verdict.retry_after == 1
            await asyncio.sleep(verdict.retry_after)
            assert await refused(limiter) is None


async def test_buckets_leave_the_server_when_they_are_full(server: Server) -> None:
    async with (
        limiting(server, user=Rate.parse("1000/s"), address=Rate.parse("10/min")) as limiter,
        client(server) as redis,
    ):
        for number in range(50):
            await refused(limiter, Caller("t", number, 9))
        await refused(limiter, ANONYMOUS)
        rate = Rate.parse("1000000/31d;burst=1000000")
        await refused(limiter, route_key="GET /a/{id}", route_rate=rate)

        async def keys() -> set[bytes]:
            return set(await redis.keys("*"))

        kept = {
            b"{scamp-gateway}:rate:address:10/60/10:203.0.113.7",
            b"{scamp-gateway}:rate:route:GET /a/{id}:user:1000000/2678400/1000000:1",
        }
        async with asyncio.timeout(LATE):
            while await keys() != kept:  # noqa: ASYNC110 - another process has no event for us
                await asyncio.sleep(0.01)
        assert 0 < await redis.pttl(min(kept)) <= 6001


async def test_what_somebody_else_left_there_is_an_error_and_no_answer(server: Server) -> None:
    async with limiting(server, user=Rate.parse("3/d")) as limiter, client(server) as redis:
        await redis.set("{scamp-gateway}:rate:user:3/86400/3:1", "nonsense")
        assert [await refused(limiter) for _ in range(4)] == [None] * 3 + ["user"]
        assert limiter.shared.failures["error"] == 3


async def test_a_server_that_forgets_its_scripts_goes_on_counting(server: Server) -> None:
    async with limiting(server, user=Rate.parse("30/d")) as limiter, client(server) as redis:
        for _ in range(5):
            await refused(limiter)
            await redis.script_flush()
        assert not limiter.shared.failures
        verdict = await limiter.check(ANNA, None)
        assert '"user";r=24;' in verdict.fields[1][1]


async def test_a_connection_that_ended_while_it_was_idle_is_no_failure(server: Server) -> None:
    async with limiting(server, user=Rate.parse("9/d")) as limiter, client(server) as redis:
        for _ in range(3):
            assert await refused(limiter) is None
            assert await redis.client_kill_filter(_type="normal", skipme=True) == 1
        assert await refused(limiter) is None
        assert not limiter.shared.failures


async def test_a_server_that_hangs_and_comes_to_itself(server: Server) -> None:
    async with limiting(server, timeout=0.3, user=Rate.parse("100/d")) as limiter:
        assert await refused(limiter) is None
        with server.stopped():
            for _ in range(3):
                assert await refused(limiter) is None
            await until(lambda: not limiter.shared.available)
            assert await refused(limiter) is None
            away = limiter.shared.failures["away"]
        await until(lambda: limiter.shared.available)
        assert await refused(limiter) is None
        assert limiter.shared.failures["away"] == away


async def test_a_server_that_dies_and_is_started_again(server: Server) -> None:
    async with limiting(server, user=Rate.parse("6/d")) as limiter:
        assert [await refused(limiter) for _ in range(2)] == [None, None]
        server.kill()
        for _ in range(3):  # counted here, from where it was
            assert await refused(limiter) is None
        await until(lambda: not limiter.shared.available)
        assert await refused(limiter) is None
        assert await refused(limiter) == "user"
        server.start()
        await until(lambda: limiter.shared.available)
        assert await refused(limiter) == "user"  # what is known here still counts
        assert await refused(limiter, Caller("t", 2, 9)) is None


async def test_a_server_that_may_not_write_is_one_that_is_away(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        limiting(server, user=Rate.parse("100/d")) as limiter,
        client(server) as redis,
    ):
        await redis.replicaof("127.0.0.1", 1)
        for _ in range(5):
            assert await refused(limiter) is None
        assert limiter.shared.failures == {"error": 3, "away": 2}
        await asyncio.sleep(0.2)  # several looks
        assert not limiter.shared.available
        await redis.replicaof("NO", "ONE")
        await until(lambda: limiter.shared.available)
        assert len(caplog.records) == 1
        assert "read only" in caplog.text


async def test_a_socket_in_the_file_system_will_do(server: Server, tmp_path: Path) -> None:
    server.url = f"unix://:hunter2@{tmp_path}/redis.sock?db=3"
    async with limiting(server, user=Rate.parse("2/d")) as limiter:
        assert [await refused(limiter) for _ in range(3)] == [None, None, "user"]
        assert not limiter.shared.failures


async def test_a_wrong_password_is_a_server_that_is_away(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.url = server.url.replace("hunter2", "hunter3")
    async with limiting(server, user=Rate.parse("1/d")) as limiter:
        assert not limiter.shared.available
        assert [await refused(limiter) for _ in range(2)] == [None, "user"]
    assert "is away (AuthenticationError)" in caplog.text
    assert "hunter" not in caplog.text


async def test_two_gateways_share_one_count_over_http(server: Server) -> None:
    rate = Rate.parse("11/d")
    async with (
        limiting(server, address=rate) as first,
        limiting(server, address=rate) as second,
        Fronted(ScriptedPeer(), limiter=first) as one,
        Fronted(ScriptedPeer(), limiter=second) as other,
    ):
        answers = await asyncio.gather(
            *(where.request("POST", "/api/Test.echo") for where in (one, other) * 10)
        )
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200] * 11 + [429] * 9


async def test_the_real_command_counts_in_redis(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text(server.url + "\n")
    arguments = ("--rate-limit-user", "5/d", "--rate-limit-redis-file", str(secret))
    folder = tmp_path / "mesh"
    folder.mkdir()

    def ask() -> None:
        with gateway(folder, arguments=arguments) as found:
            connection = http.client.HTTPConnection(urlsplit(found.url).netloc, timeout=30)
            statuses = []
            for _ in range(7):
                connection.request("POST", "/api/Bench.echo", b"{}", dict([found.authorization]))
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            connection.close()
            assert statuses == [200] * 5 + [429] * 2

    await asyncio.to_thread(ask)
    async with client(server) as redis:
        keys = await redis.keys("{scamp-gateway}:rate:user:5/86400/5:*")
        assert len(keys) == 1
