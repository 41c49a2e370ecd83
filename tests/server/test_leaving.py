"""A service that is told to stop while it is busy: nobody who follows discovery notices."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import leaving
import orjson
import pytest
from multicast import free_group, needs_multicast

from scamp.client import ClientOptions, Requester
from scamp.discovery import CacheFollower, Registry
from scamp.discovery.manager import CacheManager
from scamp.discovery.multicast import MulticastGroup
from scamp.discovery.observer import Observer
from scamp.testing import make_identity, until

pytestmark = pytest.mark.one_loop

HELD: Final = 200
CONNECTIONS: Final = 4


class Stand:
    """A multicast group, a client that follows it, and services as processes."""

    def __init__(self, folder: Path, group: MulticastGroup) -> None:
        identity = make_identity()
        self.group = group
        self.registry = Registry()
        self._arguments = [folder / name for name in ("scamp.conf", "key.pem", "cert.pem")]
        for path, content in zip(
            self._arguments,
            (self._config().encode(), identity.key, identity.certificate),
            strict=True,
        ):
            path.write_bytes(content)

    def _config(self) -> str:
        return (
            f"discovery.multicast_address = {self.group.address}\n"
            f"discovery.port = {self.group.port}\n"
            "discovery.address = 127.0.0.1\n"
            "service.address = 127.0.0.1\n"
        )

    @contextlib.asynccontextmanager
    async def service(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process that serves and that the client knows of."""
        before = len(self.registry.services())
        process = await asyncio.create_subprocess_exec(
            sys.executable, leaving.__file__, *self._arguments
        )
        try:
            await until(lambda: len(self.registry.services()) > before, 20.0)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture(params=["multicast", "cache"])
async def stand(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    """Followed as it is announced, or by way of a cache file that is looked at every second."""
    made = Stand(tmp_path, free_group())
    sources: tuple[Observer | CacheManager | CacheFollower, ...]
    if request.param == "multicast":
        sources = (Observer(made.group, made.registry),)
    else:
        path = tmp_path / "cache"
        sources = (CacheManager(made.group, path), CacheFollower(path, made.registry))
    for source in sources:
        await source.start()
    yield made
    for source in reversed(sources):
        await source.stop()


async def call(requester: Requester, action: str) -> int:
    reply = await requester.request(f"Test.Leave.{action}", timeout=30.0)
    return int(orjson.loads(await reply.read_all(100)))


async def queue_depth(requester: Requester) -> int:
    reply = await requester.request("leaver.queue_depth")
    return int(orjson.loads(await reply.read_all(100))["queue_depth"])


@needs_multicast
async def test_200_requests_in_flight_are_answered_and_others_go_elsewhere(stand: Stand) -> None:
    answers: Counter[int] = Counter()
    over = asyncio.Event()

    async def stream(requester: Requester) -> None:
        while not over.is_set():
            answers[await call(requester, "quick")] += 1

    async with contextlib.AsyncExitStack() as stack:
        # Without retries, which would hide what is lost.
        requesters = [
            await stack.enter_async_context(Requester(stand.registry, ClientOptions(retries=0)))
            for _ in range(2 * CONNECTIONS)
        ]
        first = await stack.enter_async_context(stand.service())
        held = [
            asyncio.create_task(call(requesters[number % CONNECTIONS], "hold"))
            for number in range(HELD)
        ]
        while await queue_depth(requesters[0]) < HELD:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        second = await stack.enter_async_context(stand.service())
        streams = [asyncio.create_task(stream(requester)) for requester in requesters[CONNECTIONS:]]
        await until(lambda: answers[first.pid] > 20 and answers[second.pid] > 20)
        assert not any(task.done() for task in held + streams)

        first.send_signal(signal.SIGTERM)
        assert Counter(await asyncio.gather(*held)) == {first.pid: HELD}
        assert await first.wait() == 0
        now = answers[second.pid]
        await until(lambda: answers[second.pid] > now + 20 or any(s.done() for s in streams))
        over.set()
        await asyncio.gather(*streams)
        assert len(stand.registry.services()) == 1
