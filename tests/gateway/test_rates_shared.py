"""Counts that are kept in Redis, when it is away, hangs, talks rubbish, or comes back.

What the real server makes of our script is in tests/servers/test_redis.py.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pretender import Pretender, pretending

from fronted import Fronted
from gateway.auth import ANONYMOUS, Caller
from gateway.problems import Problem
from gateway.ratelimit import shared
from gateway.ratelimit.limiter import OnFailure, RateLimiter, Verdict
from gateway.ratelimit.rate import Rate
from gateway.ratelimit.shared import SharedCountError, SharedCounts
from gateway.ratelimit.url import check_url
from scamp.errors import ConfigError
from scamp.testing import ScriptedPeer, until

SOON = 0.3
LATE = 20.0
RATE = Rate.parse("5/d")
ANNA = Caller("t", 1, 9)


@asynccontextmanager
async def limiting(
    url: str,
    *,
    timeout: float = LATE,
    pause: float = 0.01,
    on_failure: OnFailure = "local",
    user: Rate | None = RATE,
) -> AsyncIterator[RateLimiter]:
    counts = SharedCounts(url, timeout=timeout, pause=pause)
    try:
        await counts.start()
        yield RateLimiter(user=user, shared=counts, on_failure=on_failure)
    finally:
        await counts.close()


def counts_of(limiter: RateLimiter) -> SharedCounts:
    assert limiter.shared is not None
    return limiter.shared


async def ask(limiter: RateLimiter, caller: Caller = ANNA) -> Verdict:
    verdict = await limiter.check(caller, "10.0.0.1")
    assert verdict is not None
    return verdict


# -- while it is there ------------------------------------------------------------------


async def test_redis_decides_and_its_count_is_told() -> None:
    async with pretending() as redis, limiting(redis.url) as limiter:
        assert counts_of(limiter).available
        for _ in range(9):  # it says each time that this was the first
            verdict = await ask(limiter)
            assert verdict.refused_by is None
            assert verdict.fields[1][1] == '"user";r=4;t=17280'
        assert redis.scripts == 9
        redis.mood = "refuse"
        verdict = await ask(limiter)
        assert (verdict.refused_by is not None, verdict.retry_after) == (True, 17280)


async def test_who_is_known_to_be_refused_is_not_asked_about() -> None:
    async with pretending() as redis, limiting(redis.url) as limiter:
        redis.mood = "refuse"
        for _ in range(20):
            assert (await ask(limiter)).refused_by is not None
        assert redis.scripts == 1


async def test_requests_at_once_go_together_on_one_connection() -> None:
    async with pretending() as redis, limiting(redis.url) as limiter:
        verdicts = await asyncio.gather(*(ask(limiter, Caller("t", n, 9)) for n in range(1000)))
        assert all(one.refused_by is None for one in verdicts)
        assert redis.scripts == 1000
        assert redis.connections == 1


async def test_a_request_that_is_given_up_costs_the_others_nothing() -> None:
    async with pretending() as redis, limiting(redis.url) as limiter:
        tasks = [asyncio.create_task(ask(limiter, Caller("t", n, 9))) for n in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in results[::2])
        assert all(isinstance(one, Verdict) for one in results[1::2])
        assert redis.connections == 1
        assert not counts_of(limiter).failures


async def test_a_redis_that_has_forgotten_the_script_is_given_it_again() -> None:
    async with pretending() as redis, limiting(redis.url) as limiter:
        redis.mood = "forget"
        verdicts = await asyncio.gather(*(ask(limiter, Caller("t", n, 9)) for n in range(5)))
        assert all(one.refused_by is None for one in verdicts)
        assert redis.loads == 2
        assert redis.scripts == 6  # only the one that was unknown is asked again
        assert not counts_of(limiter).failures


# -- while it is not --------------------------------------------------------------------


async def test_one_that_never_answers_is_waited_for_a_few_times_only() -> None:
    async with pretending() as redis, limiting(redis.url, timeout=SOON) as limiter:
        redis.mood = "hang"
        for _ in range(3):
            assert (await ask(limiter)).refused_by is None
        counts = counts_of(limiter)
        await until(lambda: not counts.available)
        asked = redis.scripts
        results = [(await ask(limiter)).refused_by is not None for _ in range(3)]
        assert results == [False, False, True]  # five a day, counted here
        assert redis.scripts == asked
        assert counts.failures["timeout"] == 3
        assert counts.failures["away"] == 2


async def test_one_that_does_not_even_take_connections_is_waited_for_by_nobody() -> None:
    pretender = Pretender()
    await pretender.start()
    await pretender.stop()
    async with limiting(pretender.url) as limiter:
        assert not counts_of(limiter).available
        results = [(await ask(limiter)).refused_by is not None for _ in range(6)]
        assert results == [False] * 5 + [True]


@pytest.mark.parametrize("mood", ["error", "rubbish"])
async def test_one_that_refuses_or_talks_rubbish_counts_as_away(mood: str) -> None:
    async with pretending() as redis, limiting(redis.url, pause=LATE) as limiter:
        redis.mood = mood
        for _ in range(5):
            assert (await ask(limiter)).refused_by is None
        assert counts_of(limiter).failures == {"error": 3, "away": 2}
        assert (await ask(limiter)).refused_by is not None


async def test_a_single_failure_is_no_reason_to_leave_it() -> None:
    async with pretending() as redis, limiting(redis.url) as limiter:
        for _ in range(4):
            redis.mood = "error"
            await ask(limiter, Caller("t", 2, 9))
            redis.mood = "admit"
            await ask(limiter)
        assert counts_of(limiter).available
        assert counts_of(limiter).failures == {"error": 4}


async def test_it_is_found_again_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.ratelimit")
    async with pretending() as redis, limiting(redis.url) as limiter:
        counts = counts_of(limiter)
        await redis.stop()
        for _ in range(5):
            await ask(limiter)
        assert not counts.available
        await asyncio.sleep(0.05)  # several looks
        await redis.start()
        await until(lambda: counts.available)
        before = redis.scripts
        await ask(limiter, Caller("t", 2, 9))
        assert redis.scripts == before + 1
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert "is away" in lines[0]
        assert "is there again" in lines[1]
        assert f"redis://127.0.0.1:{redis.port}/0" in lines[0]
        assert "hunter2" not in "".join(lines)


async def test_the_count_goes_on_from_what_redis_said_last() -> None:
    async with pretending() as redis, limiting(redis.url, pause=LATE, timeout=SOON) as limiter:
        await ask(limiter)  # four are left
        redis.mood = "hang"
        results = [(await ask(limiter)).refused_by is not None for _ in range(5)]
        assert results == [False] * 4 + [True]


async def test_open_lets_everybody_through_and_says_nothing() -> None:
    async with limiting("redis://127.0.0.1:1", on_failure="open") as limiter:
        assert [await limiter.check(ANNA, None) for _ in range(20)] == [None] * 20


async def test_closed_lets_nobody_through_whom_a_limit_is_for() -> None:
    async with limiting("redis://127.0.0.1:1", on_failure="closed") as limiter:
        with pytest.raises(Problem) as caught:
            await limiter.check(ANNA, None)
        assert (caught.value.status, caught.value.kind.number) == (503, 209)
        assert dict(caught.value.header_fields())["Retry-After"] == "1"
        assert await limiter.check(ANONYMOUS, None) is None


async def test_too_many_that_wait_are_decided_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MAX_QUEUED", 10)
    async with pretending() as redis, limiting(redis.url) as limiter:
        redis.mood = "hang"
        callers = [Caller("t", n, 9) for n in range(50)]
        tasks = [asyncio.create_task(ask(limiter, one)) for one in callers]
        await redis.asked.wait()
        done = [task for task in tasks if task.done()]
        assert len(done) == 40
        assert counts_of(limiter).failures == {"full": 40}
        await counts_of(limiter).close()
        verdicts = await asyncio.gather(*tasks)
        assert all(one.refused_by is None for one in verdicts)


async def test_closing_ends_whoever_waits() -> None:
    async with pretending() as redis, limiting(redis.url) as limiter:
        redis.mood = "hang"
        first = asyncio.create_task(ask(limiter))
        await redis.asked.wait()
        second = asyncio.create_task(ask(limiter, Caller("t", 2, 9)))
        await asyncio.sleep(0)
        await counts_of(limiter).close()
        assert (await first).refused_by is None
        assert (await second).refused_by is None
        with pytest.raises(SharedCountError):
            await counts_of(limiter).take([])


async def test_over_http_with_a_redis_that_goes_away() -> None:
    async with pretending() as redis:
        counts = SharedCounts(redis.url, timeout=SOON, pause=LATE)
        await counts.start()
        limiter = RateLimiter(address=Rate.parse("50/d"), shared=counts)
        async with Fronted(ScriptedPeer(), limiter=limiter) as gateway:
            try:
                answer = await gateway.request("POST", "/api/Test.echo")
                assert answer.headers["RateLimit"] == '"address";r=49;t=1728'
                assert "scamp_gateway_rate_limit_redis_up 1.0" in gateway.scrape()
                redis.mood = "hang"
                for _ in range(3):
                    assert (await gateway.request("POST", "/api/Test.echo")).status == 200
                await until(lambda: not counts.available)
                for _ in range(3):
                    assert (await gateway.request("POST", "/api/Test.echo")).status == 200
                scraped = gateway.scrape()
                assert "scamp_gateway_rate_limit_redis_up 0.0" in scraped
                assert (
                    'scamp_gateway_rate_limit_redis_failures_total{reason="timeout"} 3.0' in scraped
                )
                assert 'scamp_gateway_rate_limit_redis_failures_total{reason="away"} 3.0' in scraped
            finally:
                await counts.close()


# -- URLs, and what is not installed ----------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "redis.example:6379", "http://:pw@x", "redis//x", "rediss://[x"]
)
def test_what_is_no_url_of_a_redis_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="not redis://HOST:PORT/DB") as caught:
        check_url(url)
    assert "pw" not in str(caught.value)


def test_a_url_that_redis_does_not_understand_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="does not understand the URL") as caught:
        SharedCounts("redis://:hunter2@redis.example:port", timeout=1)
    assert "hunter2" not in str(caught.value)


def test_without_the_extra_the_setting_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[redis\]'"):
        SharedCounts("redis://127.0.0.1", timeout=1)
