"""The admin listener: what it shows, what it refuses, and that the public one has none of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from offers import service

from gateway import admin
from gateway.lifecycle import Gateway, running
from stand import Stand, stand

PAGES = (
    *("/", "/metrics", "/livez", "/readyz", "/services", "/actions", "/connections", "/config"),
    *("/overview", "/page/app.js"),
)

HIDDEN = "hunter2"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


@pytest.fixture
async def gateway(mesh: Stand) -> AsyncIterator[Gateway]:
    loaded = mesh.loaded(tls_key_password=HIDDEN)
    async with running(loaded) as one:
        yield one


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.admin.url) as session:
        yield session


async def content(http: aiohttp.ClientSession, path: str) -> Any:
    async with http.get(path) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        return await answer.json()


@pytest.mark.parametrize("path", PAGES)
async def test_pages_answer_get_and_head(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as answer:
        assert answer.status == 200
        assert await answer.read()
    async with http.head(path) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_not_on_the_public_listener(gateway: Gateway, path: str) -> None:
    async with aiohttp.ClientSession(gateway.public.url) as public, public.get(path) as answer:
        assert answer.status == 404
        assert answer.content_type == "application/problem+json"


async def test_api_is_not_on_the_admin_listener(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/Test.Gate.open") as answer:
        assert answer.status == 404


async def test_other_paths_and_methods_are_problems(http: aiohttp.ClientSession) -> None:
    async with http.get("/nothing") as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")
        problem = await answer.json(content_type=None)
        assert (problem["status"], problem["title"]) == (404, "Not Found")
        assert "/nothing" in problem["detail"]
    async with http.post("/services") as answer:
        assert (answer.status, answer.content_type) == (405, "application/problem+json")
        assert answer.headers["Allow"] == "GET,HEAD"
        assert answer.headers["Server"] == "scamp-gateway"
        assert "use GET" in (await answer.json(content_type=None))["detail"]


async def test_readyz_lists_its_conditions_when_asked_or_when_one_fails(
    gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    async with http.get("/readyz") as answer:
        assert await answer.text() == "ready\n"
    async with http.get("/readyz?verbose") as answer:
        assert await answer.text() == (
            "[+] index: 1 services\n[+] listener: open\n[+] draining: no\nready\n"
        )
    gateway.parts.front.draining = True
    async with http.get("/readyz") as answer:
        assert answer.status == 503
        assert "[-] draining: yes\nnot ready\n" in await answer.text()


async def test_services_with_what_was_refused(
    mesh: Stand, gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    record = mesh.service.announcement()
    mesh.cache.write_bytes(b"\n%%%\n" + record + b"\n%%%\nrubbish")
    await gateway.parts.follower.refresh()
    found = await content(http, "/services")
    (service,) = found["services"]
    assert service["name"] == "stand"
    assert service["fingerprint"] == mesh.service.fingerprint
    assert service["uri"] == mesh.service.uri
    assert service["actions"] == 4
    assert found["discovery"]["accepted"] == 1
    assert found["discovery"]["rejected"] == {"malformed": 1}
    assert found["rejected_records"][0]["reason"] == "malformed"


async def test_actions_in_order_with_flags_and_instances(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    found = (await content(http, "/actions"))["actions"]
    assert [one["action"] for one in found] == [
        "main:Auth.getAuthzTable~1",
        "main:Test.Gate.guarded~1",
        "main:Test.Gate.open~1",
        "main:Test.Gate.wait~1",
    ]
    assert found[2]["flags"] == ["noauth", "read"]
    assert found[2]["instances"] == [mesh.service.identity]
    assert found[2]["exposed"] is True


async def test_what_a_stranger_offers_is_not_exposed(
    gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    gateway.parts.registry.apply(added=[service("evil", "_meta.gift noauth")])
    found = (await content(http, "/actions"))["actions"]
    assert {one["action"]: one["exposed"] for one in found}["main:_meta.gift~1"] is False


async def test_connections_of_instances_in_use(
    mesh: Stand, gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{gateway.public.url}/api/Test.Gate.open") as answer:
        assert answer.status == 200
    (instance,) = (await content(http, "/connections"))["instances"]
    assert instance["identity"] == mesh.service.identity
    assert instance["state"] == "up"
    assert instance["connections"] >= 1
    assert instance["peer"] == "echoes"


async def test_config_shows_values_and_origins_and_no_secret(http: aiohttp.ClientSession) -> None:
    async with http.get("/config") as answer:
        text = await answer.text()
        shown = await answer.json()
    assert HIDDEN not in text
    assert shown["tls_key_password"] == {"value": "**********", "origin": "test"}
    assert shown["retries"] == {"value": 2, "origin": "default"}
    assert shown["admin_bind"]["value"] == "127.0.0.1:0"


async def test_metrics_in_both_formats(http: aiohttp.ClientSession) -> None:
    async with http.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        plain = await answer.text()
    assert re.search(r"^scamp_gateway_build_info\{.*\} 1\.0$", plain, re.MULTILINE)
    accept = "application/openmetrics-text; version=1.0.0"
    async with http.get("/metrics", headers={"Accept": accept}) as answer:
        assert answer.content_type == "application/openmetrics-text"
        assert (await answer.text()).endswith("# EOF\n")


async def test_index_counts_and_links_without_outside_host(
    http: aiohttp.ClientSession,
) -> None:
    async with http.get("/") as answer:
        assert answer.content_type == "text/html"
        page = await answer.text()
    assert "<tr><th>services</th><td>1</td></tr>" in page
    links = re.findall(r'href="([^"]+)"', page)
    assert links
    for link in links:
        async with http.get(link) as answer:
            assert answer.status == 200
    assert "://" not in page


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:9090", "[::1]:9090", "[::1]", "10.1.2.3:80", "localhost"),
        *("LocalHost:9090", "gateway.localhost:1", "Admin.example:9090"),
    ],
)
async def test_its_own_names_are_answered(mesh: Stand, host: str) -> None:
    async with (
        running(mesh.loaded(admin_hosts=("admin.EXAMPLE",))) as gateway,
        aiohttp.ClientSession(gateway.admin.url) as http,
        http.get("/config", headers={"Host": host}) as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9090", "localhost.evil.example", "1.2.3.4.evil", ""]
)
async def test_a_page_whose_name_leads_here_reads_nothing(
    http: aiohttp.ClientSession, host: str
) -> None:
    """DNS rebinding: for the browser it is of our origin."""
    for path in ("/config", "/services", "/metrics", "/", "/nothing"):
        async with http.get(path, headers={"Host": host}) as answer:
            assert answer.status == 421
            assert "admin_hosts" in (await answer.json())["detail"]
    async with http.get("/livez", headers={"Host": host}) as answer:
        assert answer.status == 200


async def test_on_other_addresses_every_name_will_do(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prometheus finds a gateway by whatever name its network has for it."""
    monkeypatch.setattr(admin, "_by_loopback", lambda request: False)
    async with http.get("/config", headers={"Host": "gw1.corp.example:9090"}) as answer:
        assert answer.status == 200


async def test_with_names_of_its_own_no_other_will_do_on_any_address(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published on 127.0.0.1 a container is asked at another address, and by pages here, too."""
    monkeypatch.setattr(admin, "_by_loopback", lambda request: False)
    async with (
        running(mesh.loaded(admin_hosts=("gateway",))) as gateway,
        aiohttp.ClientSession(gateway.admin.url) as http,
    ):
        for path, host, status in (
            *(
                ("/overview", host, 200)
                for host in ("gateway:9090", "localhost:9090", "172.17.0.2")
            ),
            ("/overview", "evil.example:9090", 421),
            ("/livez", "evil.example:9090", 200),
        ):
            async with http.get(path, headers={"Host": host}) as answer:
                assert answer.status == status, (path, host)


async def test_two_hosts_and_none(gateway: Gateway) -> None:
    for lines, status in (("Host: a\r\nHost: localhost\r\n", b"4"), ("", b"200")):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.admin.port)
        version = "1.1" if lines else "1.0"
        writer.write(f"GET /config HTTP/{version}\r\n{lines}\r\n".encode())
        head = await reader.readline()
        assert head.split()[1].startswith(status)
        writer.close()
