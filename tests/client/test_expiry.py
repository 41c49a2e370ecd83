"""Many deadlines and one timer: none is noticed too early, and nothing is kept of who has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import pytest

from scamp.client.expiry import TICK, Expiry

MS: Final = 0.001
"""What a loop's clock may be behind by."""


class Watched:
    """Who waits; `at` is when it was told."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.over = asyncio.Event()

    def expire(self) -> None:
        assert self.at is None, "once"
        self.at = asyncio.get_running_loop().time()
        self.over.set()


@pytest.fixture
def expiry() -> Iterator[Expiry]:
    made = Expiry()
    yield made
    made.close()
    assert made._timer is None


async def test_nobody_is_told_before_the_deadline(expiry: Expiry) -> None:
    now = asyncio.get_running_loop().time()
    deadlines = [now + delay / 100 for delay in (0, 1, 4, 5, 9, 10, 11, 19, 20)]
    those = [Watched() for _ in deadlines]
    for at, one in zip(deadlines, those, strict=True):
        expiry.watch(at, one)
    async with asyncio.timeout(5):
        await asyncio.gather(*(one.over.wait() for one in those))
    for at, one in zip(deadlines, those, strict=True):
        assert one.at is not None
        assert one.at >= at - MS
    assert expiry._ticks == {}
    assert expiry._timer is None


async def test_who_has_gone_is_not_told(expiry: Expiry) -> None:
    at = asyncio.get_running_loop().time() + TICK
    gone, stays = Watched(), Watched()
    waiting = expiry.watch(at, gone)
    assert expiry.watch(at, stays) is waiting
    waiting.discard(gone)
    async with asyncio.timeout(5):
        await stays.over.wait()
    assert gone.at is None


async def test_the_timer_is_for_the_first(expiry: Expiry) -> None:
    now = asyncio.get_running_loop().time()
    late, early, later = Watched(), Watched(), Watched()
    expiry.watch(now + 100, late)
    first = expiry._timer
    expiry.watch(now + TICK, early)
    assert first is not None
    assert first.cancelled()
    second = expiry._timer
    expiry.watch(now + 200, later)
    assert expiry._timer is second
    async with asyncio.timeout(5):
        await early.over.wait()
    assert (late.at, later.at) == (None, None)
    assert expiry._timer is not None


async def test_one_may_begin_to_wait_as_another_is_told(expiry: Expiry) -> None:
    last = Watched()

    class Next(Watched):
        def expire(self) -> None:
            super().expire()
            expiry.watch(asyncio.get_running_loop().time(), last)

    expiry.watch(asyncio.get_running_loop().time(), Next())
    async with asyncio.timeout(5):
        await last.over.wait()


async def test_a_flood_leaves_few_ticks(expiry: Expiry) -> None:
    now = asyncio.get_running_loop().time() + 1000
    stays = Watched()
    expiry.watch(now, stays)
    for number in range(20_000):
        one = Watched()
        expiry.watch(now + number * TICK, one).discard(one)
        assert len(expiry._ticks) <= 64
    assert any(stays in those for those in expiry._ticks.values())
