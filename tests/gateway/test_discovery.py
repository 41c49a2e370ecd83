"""A gateway that hears its services by multicast, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multicast import LOOPBACK, free_group, needs_multicast
from prometheus_client import generate_latest

from gateway.checks import examine
from gateway.discovery import multicast_group
from gateway.lifecycle import running
from gateway.sources import Loaded, load
from scamp import limits
from scamp.discovery import MulticastGroup, MulticastSender, encode_packet
from scamp.errors import ConfigError
from scamp.testing import until
from stand import Stand, stand

pytestmark = needs_multicast

NOT_HERE = "192.0.2.77"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        made.cache.unlink()
        yield made


@pytest.fixture
def group() -> MulticastGroup:
    return free_group()


def by_multicast(mesh: Stand, group: MulticastGroup, **more: Any) -> Loaded:
    return mesh.loaded(
        discovery_source="multicast",
        discovery_cache=None,
        multicast_address=group.address,
        multicast_port=group.port,
        multicast_interfaces=(LOOPBACK,),
        **more,
    )


@asynccontextmanager
async def announcing(mesh: Stand, group: MulticastGroup) -> AsyncIterator[None]:
    """The stand's service announces itself, quicker than services do."""
    sender = MulticastSender(group)

    async def announce() -> None:
        while True:
            sender.send(encode_packet(mesh.service.announcement()))
            await asyncio.sleep(0.05)

    task = asyncio.create_task(announce())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        sender.close()


async def test_services_are_found_without_a_cache_file_and_gone_when_they_leave(
    mesh: Stand, group: MulticastGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LISTEN_FIRST", 0.2)
    async with (
        running(by_multicast(mesh, group)) as gateway,
        aiohttp.ClientSession() as http,
    ):
        url = f"{gateway.public.url}/api/Test.Gate.open"
        async with http.get(f"{gateway.admin.url}/readyz") as answer:
            assert answer.status == 503
        async with http.get(url) as answer:
            assert answer.status == 503
        async with announcing(mesh, group):
            await until(lambda: all(check.ok for check in gateway.parts.state.readiness()))
            async with http.get(url) as answer:
                assert (answer.status, await answer.json()) == (200, {"open": True})
            async with http.get(f"{gateway.public.url}/api/Test.Gate.none") as answer:
                assert answer.status == 404
            metrics = generate_latest(gateway.parts.state.exposition).decode()
            assert "scamp_gateway_discovery_services 1.0" in metrics
            assert "scamp_gateway_discovery_stale 0.0" in metrics
            await mesh.service.stop(grace=0)  # from now on its announcements say so
            await until(lambda: not gateway.parts.registry.services())
        async with http.get(url) as answer:
            assert answer.status == 404


async def test_authorized_services_decides_here_too(mesh: Stand, group: MulticastGroup) -> None:
    mesh.authorized.write_text(mesh.authorized.read_text().replace("main:ALL", "Test.Gate.wait"))
    async with running(by_multicast(mesh, group)) as gateway, announcing(mesh, group):
        await until(lambda: gateway.parts.registry.find("main", "Test.Gate.wait"))
        assert not gateway.parts.registry.find("main", "Test.Gate.open")


async def test_an_interface_that_is_not_here_is_told_at_the_start(
    mesh: Stand, group: MulticastGroup
) -> None:
    loaded = by_multicast(mesh, MulticastGroup(group.address, group.port, (LOOPBACK,)))
    changed = loaded.settings.model_copy(update={"multicast_interfaces": (NOT_HERE,)})
    with pytest.raises(ConfigError, match=NOT_HERE):
        async with running(Loaded(changed)):
            pass


def test_the_group_comes_from_scamp_conf_and_flags_go_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "scamp.conf"
    conf.write_text(
        "discovery.multicast_address = 239.255.1.1\ndiscovery.port = 6001\nbus.address = if:lo\n"
    )
    flags = {"scamp_conf": conf, "discovery_source": "multicast"}
    loaded = load(flags)
    assert multicast_group(loaded.settings) == MulticastGroup("239.255.1.1", 6001, (LOOPBACK,))
    assert loaded.origins["multicast_interfaces"] == f"{conf} (bus.address)"
    more = load({**flags, "multicast_port": "6002", "multicast_interfaces": ("127.0.0.2",)})
    assert multicast_group(more.settings) == MulticastGroup("239.255.1.1", 6002, ("127.0.0.2",))


def test_no_cache_is_needed_with_multicast() -> None:
    settings = load({"discovery_source": "multicast", "auth_mode": "forward"}).settings
    assert settings.problems() == []


async def test_check_tries_the_group_in_place_of_the_file(
    mesh: Stand, group: MulticastGroup
) -> None:
    (found,) = [one for one in examine(by_multicast(mesh, group)) if one.about == "multicast"]
    assert (found.level, found.text) == ("ok", f"{group} can be listened to")
    assert not [one for one in examine(by_multicast(mesh, group)) if "cache" in one.about]
    settings = load({"discovery_source": "multicast", "multicast_interfaces": (NOT_HERE,)}).settings
    assert any(one.level == "FAIL" and NOT_HERE in one.text for one in examine(Loaded(settings)))
