"""A gateway that is stopped while it starts, drains or closes: nothing of it stays."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pretender import pretending
from stepping import HOWS, How, Stepped, every_step, in_any_task

from gateway.lifecycle import Gateway, run
from gateway.listener import Sockets
from gateway.signals import Triggers
from gateway.sources import Loaded
from scamp.testing import make_identity
from stand import stand


@pytest.fixture
def certified(tmp_path: Path) -> dict[str, Any]:
    """Settings of a public listener with TLS."""
    identity = make_identity(3)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(identity.certificate)
    key.write_bytes(identity.key)
    return {"tls_certificate": certificate, "tls_key": key}


def assert_closed(sockets: Sockets) -> None:
    """Nobody listens where they were."""
    assert all(one.fileno() == -1 for one in (*sockets.public, *sockets.admin))


async def started(loaded: Loaded, stepped: Stepped, *, given: bool) -> None:
    """`Gateway.start`, cancelled, and what comes after that in any case."""
    sockets = Sockets.opened(loaded.settings) if given else None
    gateway = Gateway(loaded, Triggers(), sockets)
    try:
        await stepped.run(gateway.start())
    finally:
        await gateway.close()
    assert not gateway._tasks
    if sockets is not None:
        assert_closed(sockets)


@pytest.mark.parametrize("given", [False, True], ids=["opened", "given"])
@pytest.mark.parametrize("how", HOWS)
async def test_a_start_that_is_cancelled_leaves_nothing(
    how: How, given: bool, tmp_path: Path, certified: dict[str, Any]
) -> None:
    async with stand(tmp_path) as mesh, pretending() as redis:
        loaded = mesh.loaded(
            rate_limit_redis=redis.url, access_log=str(tmp_path / "access.log"), **certified
        )
        async for stepped in every_step(how, at_least=6):
            await started(loaded, stepped, given=given)


@pytest.mark.parametrize("step", ["drain", "close"])
@pytest.mark.parametrize("how", HOWS)
async def test_an_end_that_is_cancelled_comes_to_its_end(
    how: How, step: str, tmp_path: Path
) -> None:
    async with stand(tmp_path) as mesh:
        async for stepped in every_step(how, at_least=1):
            gateway = Gateway(mesh.loaded(), Triggers())
            await gateway.start()
            url = f"{gateway.public.url}/api/Test.Gate.open"
            async with aiohttp.ClientSession() as http, http.get(url) as answer:
                assert answer.status == 200
            await stepped.run(getattr(gateway, step)())
            if step == "drain":
                await gateway.close()
            assert not gateway._tasks


async def test_one_that_is_stopped_before_it_starts_gives_its_sockets_up(tmp_path: Path) -> None:
    async with stand(tmp_path) as mesh:
        loaded, triggers = mesh.loaded(), Triggers()
        sockets = Sockets.opened(loaded.settings)
        triggers.stop.set()
        assert await run(loaded, ready=lambda *_: None, triggers=triggers, sockets=sockets) == 0
        assert_closed(sockets)


async def test_run_cancelled_wherever_it_or_what_it_started_waits(tmp_path: Path) -> None:
    async with stand(tmp_path) as mesh:
        async for stepped in every_step(at_least=8):
            triggers, loaded = Triggers(), mesh.loaded()
            sockets = Sockets.opened(loaded.settings)
            begin = partial(run, loaded, triggers=triggers, sockets=sockets)
            soon = partial(asyncio.get_running_loop().call_soon, triggers.stop.set)
            with in_any_task(stepped):
                running = asyncio.create_task(begin(ready=lambda *_, soon=soon: soon()))
                stepped.cancel = running.cancel
                await asyncio.wait({running})
            assert running.cancelled() or running.result() == 0
            assert_closed(sockets)
