"""Routes that lead nowhere, in the log."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.routes.lost import MAX_TOLD, LostRoutes
from gateway.routes.model import Route, Segment
from gateway.translate import Target
from scamp.testing import until


def route(number: int) -> Route:
    return Route(
        ("GET",), (Segment(f"r{number}"),), Target("main", "No.thing", 1), f"r.toml:{number}"
    )


def test_each_is_told_once_for_as_long_as_it_leads_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = [(route(1), "gone")]
    told = LostRoutes(lambda: lost, lambda: True)
    told.look()
    told.look()
    assert caplog.messages == ["r.toml:1: GET /r1: gone"]
    lost[:] = [(route(1), "gone"), (route(2), "gone")]
    told.look()
    assert caplog.messages[1:] == ["r.toml:2: GET /r2: gone"]
    lost.clear()
    told.look()
    lost[:] = [(route(1), "gone")]
    told.look()
    assert len(caplog.messages) == 3


async def test_nothing_is_told_before_there_is_an_index(caplog: pytest.LogCaptureFixture) -> None:
    loaded = False
    told = LostRoutes(lambda: [(route(1), "gone")], lambda: loaded, settle=0)
    told.look()
    await asyncio.sleep(0)
    assert not caplog.messages
    loaded = True
    await until(lambda: bool(caplog.messages))
    assert told._due is None


def test_a_flood_is_ten_lines_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    LostRoutes(lambda: [(route(n), "gone") for n in range(1000)], lambda: True).look()
    assert len(caplog.messages) == MAX_TOLD + 1
    assert caplog.messages[-1].startswith("990 further routes lead nowhere")


async def test_a_thousand_changes_of_the_index_are_one_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looked = 0

    def unknown() -> list[tuple[Route, str]]:
        nonlocal looked
        looked += 1
        return []

    with caplog.at_level(logging.WARNING):
        told = LostRoutes(unknown, lambda: True, settle=0.01)
        for _ in range(1000):
            told.look_soon()
        await until(lambda: looked > 0)
        assert looked == 1
        told.look_soon()
        told.close()
        assert told._due is None
