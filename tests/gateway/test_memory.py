"""When memory is given back: once after each peak, and only after a real one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway import memory
from gateway.memory import AGAIN, PEAK, Peak, Trimmer


def test_memory_is_given_back_when_half_of_a_peak_has_gone_and_later_again() -> None:
    peak = Peak()
    loads = (10, 2 * PEAK, PEAK, PEAK - 1, *[0] * 100)
    seen = [at - 3 for at, load in enumerate(loads) if peak.due(load, load)]
    assert seen == [0, *AGAIN]


def test_what_is_usual_is_no_peak() -> None:
    peak = Peak()
    assert not any(peak.due(load, load) for load in (0, PEAK - 1, 0, 1, PEAK - 1, 0))


def test_a_peak_between_two_looks_counts() -> None:
    peak = Peak()
    assert [peak.due(0, most) for most in (0, PEAK, 0)] == [False, True, False]


async def test_the_end_of_a_peak_is_acted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LOOK", 0)
    loads, over = iter([PEAK, PEAK, 0]), asyncio.Event()
    trims: list[int] = []
    loop = asyncio.get_running_loop()

    def load() -> tuple[int, int]:
        now = next(loads, 0)
        if now:
            assert not trims
        return now, now

    def trim() -> None:
        trims.append(1)
        loop.call_soon_threadsafe(over.set)

    task = asyncio.create_task(Trimmer(load, trim).run())
    async with asyncio.timeout(5):
        await over.wait()
    task.cancel()


async def test_who_makes_one_peak_after_another_gets_a_part_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "LOOK", 0)
    now, peaks, trims, over = 1000.0, 0, 0, asyncio.Event()
    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: now))

    def load() -> tuple[int, int]:
        nonlocal now, peaks
        peaks += 1
        now += 0.5
        if peaks == 1000:
            over.set()
        return 0, PEAK

    def trim() -> None:
        nonlocal now, trims
        now += 1.0
        trims += 1

    task = asyncio.create_task(Trimmer(load, trim).run())
    async with asyncio.timeout(5):
        await over.wait()
    assert 4 <= trims <= 6  # of a second each, in 500
    task.cancel()


async def test_the_c_library_is_asked_where_it_can_be() -> None:
    trim = memory._malloc_trim()
    assert trim is None or trim() in (0, 1)


async def test_without_such_a_c_library_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    await asyncio.wait_for(Trimmer(lambda: (0, 0)).run(), 5)
