"""What services say of themselves: asked once each, of one instance, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from stepping import nothing_unhandled

from gateway.openapi import documentation
from gateway.openapi.documentation import CONCURRENCY, FAILURE_MEMORY, Documentation
from gateway.openapi.schemas import MAX_SCHEMA
from gateway.openapi.sections import (
    MAX_DESCRIPTION,
    MAX_SUMMARY,
    Section,
    merged,
    read_documentation,
)
from scamp.discovery import Action, Announcement
from scamp.server import Request, Service
from scamp.testing import make_identity, until
from scamp.testing.mesh import Mesh


def announced(*spellings: str, sector: str = "main") -> Announcement:
    split = (spelling.rsplit(".", 1) for spelling in spellings)
    actions = tuple(Action(sector, one[0], one[1], 1, (), ("json",)) for one in split)
    return Announcement("s", "F", "main", 1, 5.0, "u", "h", 1, ("json",), actions, 1.0)


def read(*entries: Any, **more: Any) -> dict[str, Section]:
    body = orjson.dumps({"service": "s", "sector": "main", "actions": list(entries), **more})
    return read_documentation(body, announced("Shop.fetch", "Shop.list"))


# -- reading ----------------------------------------------------------------------------


def test_sections_are_found_by_the_action_they_are_about() -> None:
    schema = {"type": "object"}
    found = read(
        {"name": "shop.Fetch", "version": 1, "summary": " Gets\x00it ", "request": schema},
        {"name": "Shop.list", "version": 2, "summary": "another version"},
        {"name": "Shop.list"},
    )
    assert found == {"main:shop.fetch.v1": Section("Gets it", request=orjson.dumps(schema))}


def test_nobody_describes_the_actions_of_others() -> None:
    assert read({"name": "Bank.pay", "version": 1, "summary": "Free money"}) == {}
    assert read({"name": "Shop.list", "sector": "web", "summary": "elsewhere"}) == {}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"nonsense", b"[]", b"5", b'{"actions":5}', b'{"actions":[5,null,[]]}'),
        b'{"actions":[{"name":5,"version":{},"summary":[],"request":"text"}]}',
        b'{"sector":[],"actions":[{"name":"Shop.list","summary":"x"}]}',
        b'{"actions":[{"name":"Shop.list","version":1,"summary":5,"reply":"text"}]}',
    ],
)
def test_whatever_is_answered_costs_nobody_anything(body: bytes) -> None:
    assert read_documentation(body, announced("Shop.list")) == {}


def test_texts_and_schemas_have_limits() -> None:
    (section,) = read(
        {
            "name": "Shop.list",
            "summary": "s" * 9000,
            "description": "d" * 9000,
            "request": {"enum": ["x" * MAX_SCHEMA]},
        }
    ).values()
    assert len(section.summary) == MAX_SUMMARY
    assert len(section.description) == MAX_DESCRIPTION
    assert section.request is None


# -- asking -----------------------------------------------------------------------------


class Shop:
    """A service that counts how often it was asked."""

    def __init__(
        self, name: str, number: int = 0, *, summary: str = "", said: Any = None, **gate: Any
    ) -> None:
        identity = make_identity(number)
        self.asked = 0
        self.gate: asyncio.Event | None = gate.get("gate")
        self.service = Service(
            name,
            key=identity.key,
            certificate=identity.certificate,
            require_tickets=False,
            queue_depth=False,
            documentation=False,
        )
        text = {"actions": [{"name": "Shop.list", "version": 1, "summary": summary}]}

        @self.service.action("_meta.documentation", flags="noauth,read")
        async def describe(request: Request) -> Any:
            self.asked += 1
            if self.gate is not None:
                await self.gate.wait()
            return text if said is None else said

        @self.service.action("Shop.list", flags="read,noauth")
        async def list_all(request: Request) -> object:
            return []

    def announcement(self) -> bytes:
        return self.service.announcement()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A mesh of shops and the documentation of it."""

    def __init__(self, *shops: Shop, max_wait: float = 20.0) -> None:
        self.shops = shops
        self.clock = Clock()
        self.mesh = Mesh(*shops)
        self.max_wait = max_wait

    async def __aenter__(self) -> Stage:
        for shop in self.shops:
            await shop.service.start(port=0)
        await self.mesh.__aenter__()
        self.known = Documentation(
            self.mesh.registry, self.mesh.requester, clock=self.clock, max_wait=self.max_wait
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.known.close()
        await self.mesh.__aexit__(*exc_info)
        for shop in self.shops:
            await shop.service.stop(grace=0)

    def summary(self) -> str:
        section = merged(self.known.snapshot()).get("main:shop.list.v1", Section())
        return section.summary


async def test_a_service_is_asked_once_whatever_number_of_instances_it_has() -> None:
    async with Stage(*(Shop("shop", number, summary="Lists") for number in range(3))) as stage:
        await stage.known.refresh()
        await stage.known.refresh()
        assert stage.summary() == "Lists"
        assert sum(shop.asked for shop in stage.shops) == 1
        assert stage.known.version == 1


async def test_of_two_services_the_first_by_name_counts() -> None:
    shops = [Shop("zoo", 0, summary="from zoo"), Shop("arc", 1, summary="from arc")]
    async with Stage(*shops) as stage:
        await stage.known.refresh()
        assert stage.summary() == "from arc"
        stage.mesh.remove(shops[1])
        await stage.known.refresh()
        assert stage.summary() == "from zoo"
        assert stage.known.version == 3


async def test_failure_is_remembered_for_a_while_and_then_another_instance_asked() -> None:
    async with Stage(Shop("shop", 0), Shop("shop", 1)) as stage:
        await stage.shops[0].service.stop(grace=0)
        await stage.shops[1].service.stop(grace=0)
        await stage.known.refresh()
        failed = [one.failures for one in stage.known._services.values()]
        await stage.known.refresh()
        assert failed == [one.failures for one in stage.known._services.values()] == [1]
        stage.clock.now += FAILURE_MEMORY
        await stage.known.refresh()
        assert [one.failures for one in stage.known._services.values()] == [2]
        assert stage.known.version == 0


async def test_who_waits_for_a_document_does_not_wait_for_the_slowest() -> None:
    gate = asyncio.Event()
    slow, quick = Shop("slow", 0, summary="late", gate=gate), Shop("quick", 1, summary="at once")
    async with Stage(slow, quick, max_wait=0.2) as stage:
        await stage.known.refresh()
        assert slow.asked == 1
        gate.set()
        await until(lambda: stage.known.version == 2)
        assert len(stage.known.snapshot()) == 2


async def test_a_flood_of_services_is_asked_a_few_at_a_time_and_forgotten_when_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documentation, "MAX_SERVICES", CONCURRENCY + 3)
    gate = asyncio.Event()
    shops = [
        Shop(f"shop{number:02d}", number % 3, summary="x", gate=gate)
        for number in range(CONCURRENCY + 6)
    ]
    async with Stage(*shops, max_wait=0.2) as stage:
        await stage.known.refresh()
        await until(lambda: sum(shop.asked for shop in shops) == CONCURRENCY)
        assert len(stage.known._tasks) == CONCURRENCY
        gate.set()
        await until(lambda: stage.known.version == CONCURRENCY + 3)
        assert sum(shop.asked for shop in shops) == CONCURRENCY + 3
        for shop in shops:
            stage.mesh.remove(shop)
        await stage.known.refresh()
        assert stage.known.snapshot() == ()
        assert stage.known._held == 0


async def test_what_there_is_no_room_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documentation, "MAX_HELD", 10)
    async with Stage(Shop("shop", summary="too much")) as stage:
        await stage.known.refresh()
        assert stage.known.snapshot() == ()
        assert stage.known.version == 0


async def test_a_bug_in_reading_is_told_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def reads_badly(body: bytes, service: Announcement) -> dict[str, Section]:
        if service.name == "a":
            raise RuntimeError("a bug")
        return read_documentation(body, service)

    monkeypatch.setattr(documentation, "read_documentation", reads_badly)
    with nothing_unhandled():
        async with Stage(Shop("a", summary="A"), Shop("b", 1, summary="B")) as stage:
            await stage.known.refresh()
            assert stage.summary() == "B"
    assert "could not be read" in caplog.text


async def test_after_the_end_nobody_is_asked() -> None:
    async with Stage(Shop("shop", gate=asyncio.Event()), max_wait=0.1) as stage:
        await stage.known.refresh()
        await stage.known.close()
        await stage.known.close()
        await stage.known.refresh()
        assert stage.shops[0].asked == 1


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if "Documentation" in repr(task)]
    assert left == []
