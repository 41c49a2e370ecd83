"""What real services of other editions send by multicast, and what ours makes of it."""

from __future__ import annotations

import pytest
from editions import Edition, Place, running

from scamp.client import Requester
from scamp.discovery import Observer, Registry
from scamp.testing import until

pytestmark = pytest.mark.timeout(120)


async def test_an_observer_hears_a_real_service_and_can_call_it(
    peer: Edition, place: Place
) -> None:
    registry = Registry()
    observer = Observer(
        place.group,
        registry,
        authorized_path=place.config().authorized_services,
        listen_first=0.0,
    )
    await observer.start()
    try:
        with place.process((*peer.command, str(place.config_file)), "service.log"):
            await until(lambda: bool(registry.find("main", "Interop.echo")), timeout=30)
            (service,) = registry.services()
            assert service.name == "interop"
            assert observer.status.rejected == {}
            async with Requester(registry) as requester:
                reply = await requester.request("Interop.echo", b'{"heard":true}')
                assert await reply.read_all() == b'{"heard":true}'
        # Some say that they leave; those who do not fall silent.
        await until(lambda: not registry.services(), timeout=30)
    finally:
        await observer.stop()


def test_a_real_service_gets_into_the_cache_file(peer: Edition, place: Place) -> None:
    with running(peer, place) as service:
        assert service.name == "interop"
        assert service.sector == "main"
        assert service.weight > 0
        assert "Interop.echo" in [action.spelling for action in service.actions]
