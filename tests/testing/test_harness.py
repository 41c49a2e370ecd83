"""A service under test in a mesh of mocks."""

from __future__ import annotations

import asyncio

import pytest

from scamp.errors import ConfigError, ScampError, ServiceError
from scamp.server import Request, Service
from scamp.testing import (
    MockMesh,
    ServiceHarness,
    TestIdentity,
    make_identity,
    make_ticket,
    make_verifier,
)


def shop(mesh: MockMesh | None = None, identity: TestIdentity | None = None) -> Service:
    """A shop that asks for prices elsewhere."""
    keys = identity or make_identity()
    service = Service(
        "shop", key=keys.key, certificate=keys.certificate, ticket_verifier=make_verifier()
    )

    @service.action("Shop.who")
    async def who(request: Request) -> object:
        assert request.ticket is not None
        return {
            "user": request.ticket.user_id,
            "client": request.ticket.client_id,
            "may": sorted(request.ticket.privileges),
            "body": await request.json(),
        }

    @service.action("Shop.total", flags="noauth")
    async def total(request: Request) -> object:
        assert mesh is not None
        return sum([await mesh.call("Price.fetch", sku) for sku in await request.json()])

    @service.action("Shop.sleep", flags="noauth")
    async def sleep(request: Request) -> object:
        return await asyncio.get_running_loop().create_future()

    return service


async def test_a_service_is_called_with_tickets() -> None:
    async with ServiceHarness(shop()) as harness:
        ticket = make_ticket(user_id=7, client_id=8, privileges=[2, 1])
        assert await harness.call("Shop.who", {"a": 1}, ticket=ticket) == {
            "user": 7,
            "client": 8,
            "may": [1, 2],
            "body": {"a": 1},
        }
        with pytest.raises(ServiceError):
            await harness.call("Shop.who")
        assert harness.tested.uri
        assert harness.unexpected == []


async def test_a_service_that_calls_others_is_made_with_the_mesh() -> None:
    async with ServiceHarness(shop) as harness:
        harness.action("Price.fetch", handler=lambda call: {"a": 2, "b": 3}[call.json])
        assert await harness.call("Shop.total", ["a", "b"]) == 5
        assert [call.json for call in harness.calls("Price.fetch")] == ["a", "b"]


async def test_several_services_serve_in_one_mesh() -> None:
    async with MockMesh() as mesh:
        first = await mesh.serve(shop(mesh))
        await mesh.serve(shop(mesh, make_identity(1)))
        assert len(mesh.registry.find("main", "Shop.who")) == 2
        mesh.forget(first)
        assert len(mesh.registry.find("main", "Shop.who")) == 1
        mesh.announce([first])
        assert len(mesh.registry.find("main", "Shop.who")) == 2


async def test_a_service_that_runs_already_is_not_stopped() -> None:
    service = shop()
    await service.start("127.0.0.1", 0)
    async with MockMesh() as mesh:
        await mesh.serve(service)
        await mesh.call("Shop.who", ticket=make_ticket())
    assert not service.stopping
    await service.stop(0)


async def test_the_end_does_not_wait_for_requests() -> None:
    async with ServiceHarness(shop) as harness:
        waiting = asyncio.create_task(harness.call("Shop.sleep"))
        while not harness.tested.in_flight:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)
    assert harness.tested.in_flight == 0
    with pytest.raises(ScampError):
        await waiting


async def test_what_cannot_start_leaves_nothing_behind() -> None:
    keys = make_identity()
    service = Service("shop", key=keys.key, certificate=keys.certificate)
    service.action("Shop.who")(lambda request: asyncio.sleep(0))
    with pytest.raises(ConfigError, match="ticket_verifier"):
        async with ServiceHarness(service):
            pass
