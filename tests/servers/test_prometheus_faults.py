"""Alerts fire when a gateway has the fault that they are for, one after the other, on a real
Prometheus; before that nothing does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from monitoring import Prometheus, alerts, running_prometheus, until

from gateway.lifecycle import Gateway, running
from scamp import keys
from scamp.discovery import write_cache
from scamp.server import Service
from scamp.testing import make_identity
from stand import SERVICE_KEY, Stand, eventually, stand

pytestmark = pytest.mark.timeout(120)

ROUTE: Final = '[[routes]]\nmethod = "GET"\npath = "/v1/open"\naction = "Test.Gate.open"\n'
ACTION: Final = 'action="Test.Gate.open~1"'


@dataclass
class Site:
    """A gateway with its mesh, what goes on around it, and who watches it."""

    mesh: Stand
    gateway: Gateway
    prometheus: Prometheus
    http: aiohttp.ClientSession
    writer: asyncio.Task[None]
    offered: bool = True

    async def ask(self, name: str = "open") -> int:
        headers = self.mesh.ticket() if name == "guarded" else {}
        url = f"{self.gateway.public.url}/api/Test.Gate.{name}"
        async with self.http.get(url, headers=headers) as answer:
            return answer.status

    async def answers(self, status: int) -> bool:
        return await self.ask() == status

    async def until(self, look: Callable[[], object], what: object) -> None:
        await asyncio.to_thread(until, look, what)

    async def fires(self, name: str, cause: Callable[[], Awaitable[object]] | None = None) -> None:
        """Until it does; `cause` is done again and again meanwhile."""
        looking = asyncio.create_task(self.until(lambda: self.prometheus.firing(name), name))
        while not looking.done():
            if cause is not None:
                await cause()
            await asyncio.wait({looking}, timeout=0.1)
        await looking

    def silent(self) -> bool:
        return not self.prometheus.alerts()


async def write(mesh: Stand, other: Service, site: list[Site]) -> None:
    """Keeps the cache, as ``scamp cache`` does."""
    records = [other.announcement(), mesh.service.announcement()]
    while True:
        write_cache(mesh.cache, records if not site or site[0].offered else records[:1])
        await asyncio.sleep(0.2)


def put_certificate(folder: Path, days: int) -> tuple[Path, Path]:
    key, certificate = keys.generate("site", days=days, now=datetime.now(UTC))
    paths = folder / "public.key", folder / "public.crt"
    for path, content in zip(paths, (key, certificate), strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.fixture
async def site(tool: Callable[[str], str], tmp_path: Path, stack: ExitStack) -> AsyncIterator[Site]:
    program = tool("prometheus")
    made: list[Site] = []
    key, certificate = put_certificate(tmp_path, 365)
    routes = tmp_path / "routes.toml"
    routes.write_text(ROUTE)
    at_once = frozenset(alert["alert"] for alert in alerts())
    async with stand(tmp_path) as mesh:
        settings = mesh.loaded(
            routes=routes, tls_key=key, tls_certificate=certificate, discovery_max_age=4,
            authz_ttl=0.5, authz_grace=7,
        )  # fmt: skip
        identity = make_identity(SERVICE_KEY)
        other = Service("other", key=identity.key, certificate=identity.certificate)
        await other.start(port=0)
        writer = asyncio.create_task(write(mesh, other, made))
        connector = aiohttp.TCPConnector(ssl=False)
        async with running(settings) as gateway, aiohttp.ClientSession(connector=connector) as http:
            folder = tmp_path / "prometheus"
            folder.mkdir()
            where = {"127.0.0.1:9090": gateway.admin.url.removeprefix("http://")}
            watching = running_prometheus(program, folder, where, at_once)
            prometheus = await asyncio.to_thread(stack.enter_context, watching)
            made.append(Site(mesh, gateway, prometheus, http, writer))
            try:
                yield made[0]
            finally:
                writer.cancel()
                with suppress(asyncio.CancelledError):
                    await writer
                await other.stop(grace=0)


async def test_alerts_fire_when_what_they_watch_breaks(site: Site) -> None:
    mesh, prometheus = site.mesh, site.prometheus
    usable = f"scamp_gateway_action_usable{{{ACTION}}} == 1"
    assert await site.ask("guarded") == await site.ask() == 200
    await site.until(lambda: prometheus.query(usable), "the action is seen in use")
    await site.until(site.silent, "nothing is wrong")

    # Nobody announces: what ScampGatewayActionGone is made of, but for the five minutes before.
    site.offered = False
    gone = 'increase(scamp_gateway_request_failures_total{cause="unknown_action"}[5m]) > 2'
    await eventually(lambda: site.answers(404))
    for _ in range(5):
        assert await site.ask() == 404
    await site.until(lambda: prometheus.query(gone), gone)
    assert not prometheus.query(f"scamp_gateway_requests_total{{{ACTION}}}")
    assert not prometheus.query(f"scamp_gateway_action_usable{{{ACTION}}}")
    site.offered = True
    await eventually(lambda: site.answers(200))
    await site.until(site.silent, "nothing is wrong")

    # Files that are no good.
    (mesh.folder / "routes.toml").write_text("routes = 1")
    await site.fires("ScampGatewayReloadFailing")
    await asyncio.to_thread(put_certificate, mesh.folder, 10)
    await site.fires("ScampGatewayCertificateExpiresSoon")
    await asyncio.to_thread(put_certificate, mesh.folder, 2)
    await site.fires("ScampGatewayCertificateExpires")
    assert not prometheus.firing("ScampGatewayCertificateExpiresSoon")
    (mesh.folder / "routes.toml").write_text(ROUTE)
    await asyncio.to_thread(put_certificate, mesh.folder, 365)
    await site.until(site.silent, "all is well again")

    # The event loop.
    async def block() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 - as a bug does
        await asyncio.sleep(0)

    await site.fires("ScampGatewayLoopLag", block)

    # The Auth service gives what is no table, then the service is away altogether.
    mesh.table["test.gate.guarded"] = "nothing"
    await site.fires("ScampGatewayPrivilegeTableOld")
    await site.fires("ScampGatewayPrivilegeTableMissing")
    assert not prometheus.firing("ScampGatewayPrivilegeTableOld")
    assert await site.ask("guarded") == 503
    await mesh.service.stop(grace=0)
    await site.fires("ScampGatewayNoInstance", site.ask)
    await site.fires("ScampGatewayErrorBudgetBurnsFast", site.ask)

    async def many() -> None:
        await asyncio.gather(*(site.ask() for _ in range(40)))

    await site.fires("ScampGatewayRetryBudgetSpent", many)

    # Who writes the cache dies.
    assert not prometheus.firing("ScampGatewayDiscoveryStale")
    site.writer.cancel()
    await site.fires("ScampGatewayDiscoveryAging")
    await site.fires("ScampGatewayDiscoveryStale")
    assert not prometheus.firing("ScampGatewayDiscoveryAging")
