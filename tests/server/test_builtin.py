"""What every service answers by itself: queue_depth and _meta.documentation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from scamp.discovery import parse_announcement
from scamp.limits import MIB
from scamp.server import Request, Service
from scamp.server.builtin import describe, queue_depth_action
from scamp.testing import Mesh, TestPeer, make_identity, until
from scamp.wire import RequestHeader

Connect = Callable[[Service], Awaitable[TestPeer]]


@dataclass
class Order:
    sku: str
    count: int = 1


def make_service(name: str = "shop", **options: Any) -> Service:
    identity = make_identity()
    return Service(
        name,
        key=identity.key,
        certificate=identity.certificate,
        require_tickets=False,
        **options,
    )


async def ask(peer: TestPeer, action: str, version: int = 1) -> Any:
    reply = await peer.call(RequestHeader(action, 7, version=version))
    return orjson.loads(await reply.read_all(MIB))


def offered(service: Service) -> list[str]:
    return [one.spelling for one in parse_announcement(service.announcement()).actions]


# -- queue_depth --------------------------------------------------------------------------


async def test_the_queue_depth_counts_the_others(service: Service, connect: Connect) -> None:
    proceed = asyncio.Event()

    @service.action("a.wait")
    async def wait(request: Request) -> None:
        await proceed.wait()

    client = await connect(service)
    assert await ask(client, "shop.queue_depth") == {"queue_depth": 0}
    for number in (1, 2, 3):
        client.channel.open_message(RequestHeader("a.wait", number)).end()
    await until(lambda: service.in_flight == 3)
    assert await ask(client, "SHOP.queue_depth") == {"queue_depth": 3}
    proceed.set()
    await until(lambda: service.in_flight == 0)


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("shop", "shop.queue_depth"),
        ("my-shop", "my_shop.queue_depth"),
        ("my shop:1", "my_shop_1.queue_depth"),
        ("Main.Shop", "Main.Shop.queue_depth"),
        ("", None),
        (".", None),
        ("a..b", None),
        ("x" * 250, None),
    ],
)
def test_names_that_no_action_can_have(name: str, spelling: str | None) -> None:
    assert queue_depth_action(name) == spelling


async def test_a_name_that_gives_no_action_is_told_and_costs_nothing_else(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service("a..b")
    await connect(service)
    assert offered(service) == ["_meta.documentation"]
    assert "a..b" in caplog.text


async def test_both_can_be_left_out_and_be_the_services_own(connect: Connect) -> None:
    bare = make_service(queue_depth=False, documentation=False)
    await connect(bare)
    assert offered(bare) == []
    own = make_service()

    @own.action("Shop.queue_depth", flags="noauth")
    async def mine(request: Request) -> object:
        return "mine"

    assert await ask(await connect(own), "shop.queue_depth") == "mine"
    assert offered(own) == ["Shop.queue_depth", "_meta.documentation"]


async def test_they_need_no_ticket(connect: Connect) -> None:
    identity = make_identity()
    strict = Service("shop", key=identity.key, certificate=identity.certificate)
    client = await connect(strict)  # nothing protected, so no verifier is asked for
    assert await ask(client, "shop.queue_depth") == {"queue_depth": 0}
    assert (await ask(client, "_meta.documentation"))["service"] == "shop"


# -- documentation ------------------------------------------------------------------------


def described() -> Service:
    made = make_service()

    @made.action("Shop.buy", version=2, flags="create,t30", envelopes=("json", "jsonstore"))
    async def buy(request: Request, body: Order) -> list[Order]:
        """Buy something
        or more of it.

        It is taken from
        the store.
        """
        return [body]

    @made.action("Shop.archive", sector="back")
    async def archive(request: Request) -> AsyncIterator[bytes]:
        yield b""

    @made.action("shop.Buy")
    async def old(request: Request) -> object:
        return None

    return made


async def test_the_documentation_tells_what_hints_and_docstrings_tell(connect: Connect) -> None:
    told = await ask(await connect(described()), "_meta.documentation")
    assert (told["service"], told["sector"]) == ("shop", "main")
    names = [(one["name"], one["version"]) for one in told["actions"]]
    assert names == [
        ("_meta.documentation", 1),
        ("Shop.archive", 1),
        ("shop.Buy", 1),
        ("Shop.buy", 2),
        ("shop.queue_depth", 1),
    ]
    _, archive, old, buy, depth = told["actions"]
    assert archive == {
        "name": "Shop.archive",
        "version": 1,
        "flags": [],
        "envelopes": ["json"],
        "timeout": 75.0,
        "sector": "back",
    }
    assert set(old) == {"name", "version", "flags", "envelopes", "timeout"}
    assert buy["flags"] == ["create", "t30"]
    assert buy["envelopes"] == ["json", "jsonstore"]
    assert buy["timeout"] == 30.0
    assert buy["summary"] == "Buy something or more of it."
    assert buy["description"] == "It is taken from\nthe store."
    assert buy["request"]["required"] == ["sku"]
    assert buy["request"]["properties"]["count"]["type"] == "integer"
    assert buy["reply"]["type"] == "array"
    assert depth["flags"] == ["read", "noauth"]
    assert depth["reply"]["additionalProperties"] == {"type": "integer"}


async def test_two_instances_describe_themselves_in_the_same_bytes(connect: Connect) -> None:
    texts = set()
    for service in (described(), described()):
        client = await connect(service)
        reply = await client.call(RequestHeader("_meta.documentation", 7))
        texts.add(await reply.read_all(MIB))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("limit", "left_out", "kept"),
    [
        (100_000, None, 303),
        (60_000, ["request", "reply"], 303),
        (40_000, ["request", "reply", "description"], 303),
        (10_000, ["request", "reply", "description", "summary", "actions"], None),
        (10, ["request", "reply", "description", "summary", "actions"], 0),
    ],
)
def test_the_documentation_of_any_number_of_actions_is_bounded(
    limit: int, left_out: list[str] | None, kept: int | None
) -> None:
    made = described()

    async def handler(request: Request) -> dict[str, int]:
        """A summary.

        A description, longer than that.
        """
        return {}

    for number in range(300):
        made.action(f"Many.n{number}")(handler)
    text = describe("shop", "main", made.actions, limit)
    told = orjson.loads(text)
    assert told.get("left_out") == left_out
    assert len(text) <= max(limit, 200)
    if kept is not None:
        assert len(told["actions"]) == kept


async def test_one_of_many_services_can_be_asked(connect: Connect) -> None:
    services = [make_service(name) for name in ("one", "two", "three")]
    for service in services:
        await connect(service)
    async with Mesh(*services) as mesh:
        for service in services:
            reply = await mesh.requester.request("_meta.documentation", service=service.identity)
            assert orjson.loads(await reply.read_all(MIB))["service"] == service.name
        with pytest.raises(Exception, match="as nobody"):
            await mesh.requester.request("_meta.documentation", service="nobody")


# -- sectors ------------------------------------------------------------------------------


async def test_an_action_may_be_in_another_sector(connect: Connect) -> None:
    made = make_service()

    @made.action("Shop.archive", sector="back", flags="read")
    async def archive(request: Request) -> object:
        return "archived"

    await connect(made)
    first, *own = parse_announcement(made.announcement()).actions
    found = {one.spelling: one.sector for one in (first, *own)}
    assert found["Shop.archive"] == "back"
    assert found["shop.queue_depth"] == "main"
    async with Mesh(made) as mesh:
        reply = await mesh.requester.request("back:Shop.archive")
        assert await reply.read_all(100) == b'"archived"'
        with pytest.raises(Exception, match=r"no service announces"):
            await mesh.requester.request("Shop.archive")
