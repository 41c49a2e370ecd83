"""Every file that is followed, changed for good and for bad while requests come in."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import generate_latest

from gateway.lifecycle import Gateway, running
from scamp.testing import TestIdentity, make_identity, until
from stand import OTHER_TICKET_KEY, Stand, stand

SERVER, OTHER_SERVER, CLIENT, OTHER_CLIENT = 11, 12, 13, 14


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


def put(path: Path, content: bytes | str) -> None:
    """As whoever replaces a file should."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content.encode() if isinstance(content, str) else content)
    fresh.replace(path)


class Files:
    """All of them, each with contents that are good and one that is not."""

    def __init__(self, mesh: Stand) -> None:
        self.mesh = mesh
        self.folder = mesh.folder
        self.routes = self.folder / "routes.toml"
        self.table = mesh.write_table()
        self.certificate, self.key = self.folder / "public.crt", self.folder / "public.key"
        self.ca = self.folder / "ca.pem"
        self.put_server(make_identity(SERVER))
        self.put_clients(CLIENT)
        put(self.routes, self.route("/v1/open"))

    def settings(self) -> dict[str, Path]:
        return {
            "routes": self.routes,
            "authz_table": self.table,
            "tls_certificate": self.certificate,
            "tls_key": self.key,
            "tls_client_ca": self.ca,
        }

    @staticmethod
    def route(*paths: str) -> str:
        return "".join(
            f'[[routes]]\nmethod = "GET"\npath = "{path}"\naction = "Test.Gate.open"\n'
            for path in paths
        )

    def put_server(self, identity: TestIdentity) -> None:
        put(self.key, identity.key)
        put(self.certificate, identity.certificate)

    def put_clients(self, *numbers: int) -> None:
        put(self.ca, b"".join(make_identity(number).certificate for number in numbers))

    def changes(self) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
        """By the name under which it is counted: a good change, and a bad one."""
        authorized, cache = self.mesh.authorized, self.mesh.cache
        allowed, keys = authorized.read_text(), self.mesh.ticket_key
        good = json.dumps({**self.mesh.table, "other.action": [3]})
        return {
            "ticket_keys": (
                lambda: self.mesh.use_ticket_key(OTHER_TICKET_KEY),
                lambda: put(keys, "rubbish"),
            ),
            "authz_table": (lambda: put(self.table, good), lambda: put(self.table, "[]")),
            "routes": (
                lambda: put(self.routes, self.route("/v1/open", "/v1/more")),
                lambda: put(self.routes, "routes = 1"),
            ),
            "tls": (
                lambda: self.put_server(make_identity(OTHER_SERVER)),
                lambda: put(self.ca, "rubbish"),
            ),
            "discovery": (self.mesh.announce, lambda: put(cache, "rubbish")),
            "discovery of who is authorized": (
                lambda: put(authorized, allowed.replace("main:ALL", "Test,Auth")),
                lambda: put(authorized, "rubbish\n"),
            ),
        }


def counted(gateway: Gateway, what: str, result: str) -> int:
    text = generate_latest(gateway.parts.state.exposition).decode()
    wanted = f'scamp_gateway_reloads_total{{result="{result}",what="{what.split()[0]}"}} '
    return sum(int(float(line.rpartition(" ")[2]))
               for line in text.splitlines() if line.startswith(wanted))  # fmt: skip


def client_context(number: int, folder: Path) -> ssl.SSLContext:
    identity = make_identity(number)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = folder / f"client{number}.crt", folder / f"client{number}.key"
    certificate.write_bytes(identity.certificate)
    key.write_bytes(identity.key)
    context.load_cert_chain(certificate, key)
    return context


async def status(url: str, context: ssl.SSLContext) -> int:
    """On a connection of its own."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(url, ssl=context) as got,
    ):
        await got.read()
        return got.status


async def test_every_file_is_followed_a_bad_one_refused_and_no_request_fails(
    mesh: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(mesh)
    context = client_context(CLIENT, mesh.folder)
    seen: Counter[int] = Counter()
    over = asyncio.Event()
    async with running(mesh.loaded(**files.settings())) as gateway:
        kept = aiohttp.ClientSession()

        async def on_one_connection(url: str, ticket: dict[str, str]) -> None:
            while not over.is_set():
                async with kept.get(url, ssl=context, headers=ticket) as answer:
                    await answer.read()
                    seen[answer.status] += 1

        async def on_new_ones(url: str) -> None:
            while not over.is_set():
                seen[await status(url, context)] += 1

        async with kept, asyncio.TaskGroup() as group:
            url = gateway.public.url
            for path in ("/v1/open", "/api/Test.Gate.open", "/openapi.json"):
                group.create_task(on_one_connection(f"{url}{path}", {}))
                group.create_task(on_new_ones(f"{url}{path}"))
            for what, (good, bad) in files.changes().items():
                for change, result in ((bad, "failed"), (good, "ok")):
                    before = counted(gateway, what, result)
                    change()
                    gateway.triggers.reload.set()
                    await until(lambda: counted(gateway, what, result) > before)  # noqa: B023
                    some = seen.total()
                    await until(lambda: seen.total() > some + 6)  # noqa: B023
                    if what == "tls" and result == "failed":
                        files.put_clients(CLIENT)
            over.set()
        assert set(seen) == {200}
        assert await status(f"{gateway.public.url}/v1/more", context) == 200
    for word in ("ticket_keys", "authz_table", "routes", "tls"):
        assert f"{word} not reloaded, the last good one stays: " in caplog.text


async def test_the_client_ca_is_followed(mesh: Stand) -> None:
    files = Files(mesh)
    one, other = (client_context(number, mesh.folder) for number in (CLIENT, OTHER_CLIENT))
    async with running(mesh.loaded(**files.settings())) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.open"
        assert await status(url, one) == 200
        with pytest.raises(aiohttp.ClientError):
            await status(url, other)
        files.put_clients(OTHER_CLIENT)
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "tls", "ok") >= 1)
        assert await status(url, other) == 200
        with pytest.raises(aiohttp.ClientError):
            await status(url, one)
        put(files.ca, "rubbish")
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "tls", "failed") >= 1)
        assert await status(url, other) == 200
        with pytest.raises(aiohttp.ClientError):
            await status(url, one)


async def test_a_bad_list_of_authorized_services_takes_nobody_out_and_lets_nobody_in(
    mesh: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(mesh.loaded()) as gateway, aiohttp.ClientSession() as http:
        url = f"{gateway.public.url}/api/Test.Gate.open"
        for bad in ("rubbish\n", None):
            before = counted(gateway, "discovery", "failed")
            if bad is None:
                mesh.authorized.unlink()
            else:
                put(mesh.authorized, bad)
            gateway.triggers.reload.set()
            await until(lambda: counted(gateway, "discovery", "failed") > before)  # noqa: B023
            async with http.get(url) as answer:
                assert answer.status == 200
            async with http.get(f"{gateway.admin.url}/readyz") as answer:
                assert answer.status == 200
    assert str(mesh.authorized) in caplog.text
