"""The admin listener's long lists are whole, whatever the number of their pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from offers import service

from gateway.lists import action_pieces, listed, service_pieces
from scamp.discovery import Registry
from scamp.discovery.pace import STRIDE


async def content(answer: web.Response) -> Any:
    async def handle(request: web.Request) -> web.Response:
        return answer

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestClient(TestServer(app)) as client, client.get("/") as got:
        assert got.content_type == "application/json"
        return json.loads(await got.read())


@pytest.mark.parametrize("size", [0, 1, STRIDE, STRIDE + 1, 3 * STRIDE])
async def test_lists_of_any_length(size: int) -> None:
    registry = Registry()
    registry.apply(
        added=[service(f"s{number}", f"Ns.x{number:05}") for number in reversed(range(size))]
    )
    actions = action_pieces(registry.actions(), lambda sector: True)
    services = service_pieces(registry.services())
    assert len(actions) == len(services) == -(-size // STRIDE)
    found = (await content(listed("actions", actions, {})))["actions"]
    assert [one["action"] for one in found] == [f"main:Ns.x{n:05}~1" for n in range(size)]
    whole = await content(listed("services", services, {"rest": {"a": 1}, "more": []}))
    assert {one["name"] for one in whole["services"]} == {f"s{n}" for n in range(size)}
    assert len(whole["services"]) == size
    assert (whole["rest"], whole["more"]) == ({"a": 1}, [])
