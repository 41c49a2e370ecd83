"""Starting, reloading, draining and stopping, over real sockets and real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest

from gateway import assembly
from gateway.lifecycle import Gateway, run, running
from gateway.listener import Listener, open_sockets
from gateway.setting_types import Address
from gateway.signals import Triggers
from gateway.sources import Loaded
from scamp.discovery import write_cache
from scamp.errors import ConfigError
from scamp.testing import ScriptedPeer, TestIdentity, make_identity, until
from stand import OTHER_TICKET_KEY, Stand, eventually, stand


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


class Running:
    """A gateway under `run`, as the command does it, with its triggers in our hands."""

    def __init__(self, task: asyncio.Task[int], triggers: Triggers) -> None:
        self.task = task
        self.triggers = triggers
        self.public = self.admin = ""


@asynccontextmanager
async def under_run(loaded: Loaded) -> AsyncIterator[Running]:
    triggers = Triggers()
    addresses: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        run(loaded, ready=lambda *both: addresses.set_result(both), triggers=triggers)
    )
    one = Running(task, triggers)
    both: set[asyncio.Future[Any]] = {task, addresses}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        addresses.cancel()
        task.result()
    one.public, one.admin = addresses.result()
    try:
        yield one
    finally:
        triggers.now.set()
        triggers.stop.set()
        await asyncio.wait({task})


async def status(http: aiohttp.ClientSession, url: str, **more: dict[str, str]) -> int:
    async with http.get(url, **more) as answer:  # type: ignore[arg-type]
        await answer.read()
        return answer.status


def counted(gateway: Gateway, what: str, result: str) -> int:
    text = generate_latest(gateway.parts.state.exposition).decode()
    wanted = f'scamp_gateway_reloads_total{{result="{result}",what="{what}"}} '
    return next((int(float(line.rpartition(" ")[2]))
                 for line in text.splitlines() if line.startswith(wanted)), 0)  # fmt: skip


# -- starting ---------------------------------------------------------------------------


async def test_serves_and_says_where_and_stops_with_status_0(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with under_run(mesh.loaded()) as gateway:
        assert await status(http, f"{gateway.public}/api/Test.Gate.open") == 200
        assert await status(http, f"{gateway.admin}/readyz") == 200
        gateway.triggers.terminate()
        assert await gateway.task == 0


async def test_without_a_cache_it_starts_and_is_ready_when_there_is_one(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    mesh.cache.unlink()
    async with running(mesh.loaded()) as gateway:
        async with http.get(f"{gateway.admin.url}/readyz") as answer:
            assert answer.status == 503
            assert "[-] index: not loaded" in await answer.text()
        async with http.get(f"{gateway.public.url}/api/Test.Gate.open") as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
        async with http.get(f"{gateway.public.url}/openapi.json") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert (await answer.json())["code"] == "discovery_unavailable"
        mesh.announce()
        await until(lambda: all(check.ok for check in gateway.parts.state.readiness()))
        assert await status(http, f"{gateway.public.url}/api/Test.Gate.open") == 200


async def test_without_an_index_nobody_is_told_that_there_is_nothing(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    mesh.cache.unlink()
    async with running(mesh.loaded(authz_table=mesh.write_table())) as gateway:

        async def who() -> dict[str, Any]:
            async with http.get(f"{gateway.public.url}/whoami", headers=mesh.ticket()) as answer:
                assert answer.status == 200
                told: dict[str, Any] = await answer.json()
                return told

        before = await who()
        assert (before["permits"], before["ticket"]["user_id"]) == (None, 7)
        assert before["note"].startswith("The index is not loaded yet")
        mesh.announce()
        await until(lambda: all(check.ok for check in gateway.parts.state.readiness()))
        after = await who()
        assert "Test.Gate.guarded~1" in after["permits"]
        assert "note" not in after
        assert await status(http, f"{gateway.public.url}/openapi.json") == 200


async def test_stale_index_stays_ready_and_is_told(
    mesh: Stand, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    os.utime(mesh.cache, (1, 1))
    async with running(mesh.loaded()) as gateway:
        async with http.get(f"{gateway.admin.url}/readyz?verbose") as answer:
            assert answer.status == 200
            assert "[+] index: stale, 1 services" in await answer.text()
        assert await status(http, f"{gateway.public.url}/api/Test.Gate.open") == 200
        assert await status(http, f"{gateway.public.url}/api/Test.Gate.none") == 503
        assert (
            "scamp_gateway_discovery_stale 1.0"
            in generate_latest(gateway.parts.state.exposition).decode()
        )
    assert sum("stale" in record.message for record in caplog.records) == 1


async def test_told_to_stop_before_it_is_up(mesh: Stand) -> None:
    triggers = Triggers()
    triggers.terminate()
    said: list[str] = []
    assert await run(mesh.loaded(), ready=lambda *both: said.extend(both), triggers=triggers) == 0
    assert said == []


async def test_address_in_use_is_told(mesh: Stand) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        for name in ("bind", "admin_bind"):
            with pytest.raises(ConfigError, match=f"cannot listen on {where}: Address already"):
                await run(mesh.loaded(**{name: where}), ready=lambda *both: None)


async def test_bad_keys_table_and_log_are_told(mesh: Stand) -> None:
    nowhere = mesh.folder / "none" / "file"
    for settings in (
        {"ticket_keys": (nowhere,)},
        {"tls_certificate": nowhere, "tls_key": nowhere},
        {"access_log": str(nowhere)},
    ):
        with pytest.raises(ConfigError, match="No such file"):
            await run(mesh.loaded(**settings), ready=lambda *both: None)


def test_every_interface_means_both_families_on_one_port() -> None:
    sockets = open_sockets(Address(None, 0))
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert sockets[0].family == socket.AF_INET
    finally:
        for sock in sockets:
            sock.close()


# -- draining ---------------------------------------------------------------------------


async def test_while_draining_it_is_unready_and_answers_with_connection_close(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with under_run(mesh.loaded(drain_delay=1000)) as gateway:
        url = f"{gateway.public}/api/Test.Gate.open"
        async with http.get(url) as answer:
            assert "Connection" not in answer.headers
        gateway.triggers.terminate()

        async def unready() -> bool:
            return await status(http, f"{gateway.admin}/readyz") == 503

        await eventually(unready)
        assert await status(http, f"{gateway.admin}/livez") == 200
        async with http.get(url) as answer:
            assert answer.status == 200
            assert answer.headers["Connection"] == "close"
        gateway.triggers.terminate()
        assert await gateway.task == 0


async def test_request_under_way_is_finished_after_the_listener_has_closed(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with under_run(mesh.loaded()) as gateway:
        url = f"{gateway.public}/api/Test.Gate.wait"
        request = asyncio.create_task(status(http, url))
        await until(lambda: mesh.waiting == 1)
        gateway.triggers.terminate()
        port = int(gateway.public.rpartition(":")[2])
        await eventually(lambda: refuses(port))
        assert not gateway.task.done()
        mesh.gate.set()
        assert await request == 200
        assert await gateway.task == 0


async def test_request_that_outlasts_the_drain_limit_is_told(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with under_run(mesh.loaded(drain_limit=0.1)) as gateway:
        request = asyncio.create_task(status(http, f"{gateway.public}/api/Test.Gate.wait"))
        await until(lambda: mesh.waiting == 1)
        gateway.triggers.terminate()
        assert await gateway.task == 0
        assert await request == 503


async def test_second_signal_ends_every_wait(mesh: Stand, http: aiohttp.ClientSession) -> None:
    loaded = mesh.loaded(drain_delay=1000, drain_limit=1000)
    async with under_run(loaded) as gateway:
        request = asyncio.create_task(status(http, f"{gateway.public}/api/Test.Gate.wait"))
        await until(lambda: mesh.waiting == 1)
        gateway.triggers.terminate()
        gateway.triggers.terminate()
        assert await gateway.task == 0
        assert await request == 503


async def test_interrupt_skips_the_drain_delay(mesh: Stand) -> None:
    async with under_run(mesh.loaded(drain_delay=1000)) as gateway:
        gateway.triggers.interrupt()
        assert await gateway.task == 0


async def refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:  # refused, or reset when it came at the moment of closing
        return True
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return False


# -- tickets, keys and the table --------------------------------------------------------


async def test_table_comes_from_the_auth_service(mesh: Stand, http: aiohttp.ClientSession) -> None:
    async with running(mesh.loaded()) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.guarded"
        assert await status(http, url) == 401
        assert await status(http, url, headers=mesh.ticket()) == 200
        async with http.get(url, headers=mesh.ticket(())) as answer:
            assert answer.status == 403
            assert "gate_pass" in (await answer.json())["detail"]


async def test_table_is_kept_fresh_though_nobody_asks(
    mesh: Stand,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("gateway.assembly._TABLE_LOOK", 0.01)
    caplog.set_level("INFO")
    async with running(mesh.loaded(authz_ttl=0.01)) as gateway:
        assert gateway.parts.authentication.table is not None
        await until(lambda: mesh.tables_given >= 3)
        allowed = mesh.authorized.read_text()
        mesh.authorized.write_text(allowed.replace("main:ALL", "Test"))
        await until(lambda: "the old privilege table serves on" in caplog.text)
        url = f"{gateway.public.url}/api/Test.Gate.guarded"
        assert await status(http, url, headers=mesh.ticket()) == 200
        monkeypatch.setattr(gateway.parts.authentication.table, "_grace", 0.0)
        await until(lambda: "protected actions answer 503" in caplog.text)
        assert await status(http, url, headers=mesh.ticket()) == 503
        given = mesh.tables_given
        mesh.authorized.write_text(allowed)
        await until(lambda: mesh.tables_given > given)
        await until(lambda: "the privilege table is fresh again" in caplog.text)
        assert caplog.text.count("the old privilege table serves on") == 1


async def test_services_that_come_and_go_are_told_but_not_those_of_the_start(
    mesh: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    other = ScriptedPeer()
    other.port = 1
    one, two = mesh.service.identity, other.identity
    async with running(mesh.loaded()):
        write_cache(mesh.cache, [mesh.service.announcement(), other.announcement()])
        await until(lambda: f"came or changed: {two}; left: none; in force: 2" in caplog.text)
        write_cache(mesh.cache, [other.announcement()])
        await until(lambda: f"came or changed: none; left: {one}; in force: 1" in caplog.text)
        assert caplog.text.count("came or changed") == 2


def test_of_many_services_that_come_at_once_some_are_named() -> None:
    peers = [ScriptedPeer(name=f"n{number}") for number in range(8)]
    for peer in peers:
        peer.port = 1
    told = assembly._named([peer.service() for peer in peers])
    assert told == f"{', '.join(peer.identity for peer in peers[:5])} and 3 more"


async def test_auth_service_that_comes_late_is_asked_at_once(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    content = mesh.authorized.read_text()
    mesh.authorized.write_text(content.replace("main:ALL", "Test"))
    async with running(mesh.loaded()) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.guarded"
        assert await status(http, url, headers=mesh.ticket()) == 503
        mesh.authorized.write_text(content)
        await until(lambda: bool(gateway.parts.registry.find("main", "Auth.getAuthzTable", 1)))
        assert await status(http, url, headers=mesh.ticket()) == 200


async def test_new_ticket_key_is_followed_and_a_bad_one_is_not(
    mesh: Stand, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(mesh.loaded()) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.guarded"
        old, new = mesh.ticket(), mesh.ticket(key=OTHER_TICKET_KEY)
        assert (await status(http, url, headers=old), await status(http, url, headers=new)) == (
            *(200, 401),
        )
        mesh.use_ticket_key(OTHER_TICKET_KEY)
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "ticket_keys", "ok") == 1)
        assert await status(http, url, headers=old) == 401
        assert await status(http, url, headers=new) == 200
        mesh.ticket_key.write_text("rubbish")
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "ticket_keys", "failed") == 1)
        assert await status(http, url, headers=new) == 200
        assert "ticket.pem: not a readable PEM public key" in caplog.text


async def test_the_key_is_changed_without_turning_anybody_away(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    second = mesh.folder / "second.pem"
    second.write_bytes(mesh.ticket_key.read_bytes())
    async with running(mesh.loaded(ticket_keys=(mesh.ticket_key, second))) as gateway:
        old, new = mesh.ticket(), mesh.ticket(key=OTHER_TICKET_KEY)

        async def both() -> list[int]:
            return [
                await status(http, f"{gateway.public.url}{path}", headers=ticket)
                for path in ("/api/Test.Gate.guarded", "/whoami")
                for ticket in (old, new)
            ]

        assert await both() == [200, 401, 200, 401]
        first = mesh.ticket_key
        mesh.ticket_key = second
        mesh.use_ticket_key(OTHER_TICKET_KEY)
        await until(lambda: counted(gateway, "ticket_keys", "ok") == 1)
        assert await both() == [200] * 4
        mesh.ticket_key = first
        mesh.use_ticket_key(OTHER_TICKET_KEY)
        await until(lambda: counted(gateway, "ticket_keys", "ok") == 2)
        assert await both() == [401, 200, 401, 200], "what was proved by the old key is forgotten"


async def test_table_file_is_followed_and_a_bad_one_is_not(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    path = mesh.write_table()
    async with running(mesh.loaded(authz_table=path)) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.guarded"
        assert await status(http, url, headers=mesh.ticket()) == 200
        path.write_text("[]")
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "authz_table", "failed") == 1)
        assert await status(http, url, headers=mesh.ticket()) == 200
        path.write_text(json.dumps({"test.gate.guarded": [2]}))
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "authz_table", "ok") == 1)
        assert await status(http, url, headers=mesh.ticket()) == 403


def route(path: str, action: str = "Test.Gate.open") -> str:
    return f'[[routes]]\nmethod = "GET"\npath = "{path}"\naction = "{action}"\n'


async def test_routes_file_is_followed_and_a_bad_one_is_not(
    mesh: Stand, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    path = mesh.folder / "routes.toml"
    path.write_text(route("/v1/open") + route("/v1/gone", "Test.Gate.gone"))
    async with running(mesh.loaded(routes=path)) as gateway:
        url = gateway.public.url
        assert f"{path}:5: GET /v1/gone: no service announces Test.Gate.gone~1" in caplog.text
        assert await status(http, f"{url}/v1/open") == 200
        assert await status(http, f"{url}/v1/gone") == 404
        path.write_text(route("/v2/open") + route("/v2/open"))
        await until(lambda: counted(gateway, "routes", "failed") == 1)
        assert f"{path}:7: GET /v2/open is taken by /v2/open at {path}:1" in caplog.text
        assert await status(http, f"{url}/v1/open") == 200
        assert await status(http, f"{url}/v2/open") == 404
        path.write_text(route("/v2/open") + route("/v2/closed", "Test.Gate.guarded"))
        await until(lambda: counted(gateway, "routes", "ok") == 1)
        assert await status(http, f"{url}/v1/open") == 404
        assert await status(http, f"{url}/v2/open") == 200
        assert await status(http, f"{url}/v2/closed") == 401
        path.unlink()
        await until(lambda: counted(gateway, "routes", "failed") == 2)
        assert await status(http, f"{url}/v2/open") == 200


async def test_a_route_is_told_when_its_action_is_missing_once_the_index_is_there(
    mesh: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    path = mesh.folder / "routes.toml"
    path.write_text(route("/v1/open") + route("/v1/gone", "Test.Gate.gone"))
    mesh.cache.unlink()
    allowed = mesh.authorized.read_text()
    async with running(mesh.loaded(routes=path)) as gateway:
        gateway.parts.lost_routes.close()  # the missing cache is a reason to look again later
        gateway.parts.lost_routes.settle = 0
        assert "/v1/" not in caplog.text, "nobody can know yet"
        mesh.announce()
        await until(lambda: f"{path}:5: GET /v1/gone: no service announces" in caplog.text)
        assert "/v1/open: no" not in caplog.text
        for _ in range(2):  # what comes back is told again when it leaves
            mesh.authorized.write_text(allowed.replace("main:ALL", "Other"))
            await until(lambda: f"{path}:1: GET /v1/open: no service announces" in caplog.text)
            assert caplog.text.count("/v1/gone: no service") <= 1, "it was told before"
            caplog.clear()
            mesh.authorized.write_text(allowed)
            await until(lambda: bool(gateway.parts.registry.find("main", "Test.Gate.open", 1)))
            gateway.parts.lost_routes.look()
        assert "lead" not in caplog.text
        assert "no service" not in caplog.text


async def test_a_request_under_way_goes_on_when_its_route_has_gone(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    path = mesh.folder / "routes.toml"
    path.write_text(route("/v1/wait", "Test.Gate.wait"))
    async with running(mesh.loaded(routes=path)) as gateway:
        url = f"{gateway.public.url}/v1/wait"
        waiting = asyncio.create_task(status(http, url))
        await until(lambda: mesh.waiting == 1)
        path.write_text("")
        await until(lambda: counted(gateway, "routes", "ok") == 1)
        assert await status(http, url) == 404
        mesh.gate.set()
        assert await waiting == 200


async def test_requests_do_not_notice_that_routes_are_read_anew(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    path = mesh.folder / "routes.toml"
    path.write_text(route("/v1/open"))
    async with running(mesh.loaded(routes=path)) as gateway:
        url = f"{gateway.public.url}/v1/open"
        seen: list[int] = []
        done = asyncio.Event()

        async def keep_asking() -> None:
            while not done.is_set():
                seen.append(await status(http, url))

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(keep_asking())
            for number in range(10):
                text = route("/v1/open") + route(f"/v1/more{number}")
                for content, result in ((text, "ok"), (f"{text}x", "failed")):
                    before, asked = counted(gateway, "routes", result), len(seen)
                    fresh = path.with_suffix(".new")
                    fresh.write_text(content)
                    fresh.replace(path)
                    gateway.triggers.reload.set()
                    await until(lambda: counted(gateway, "routes", result) > before)  # noqa: B023
                    await until(lambda: len(seen) > asked + 8)  # noqa: B023
                assert await status(http, f"{gateway.public.url}/v1/more{number}") == 200
            done.set()
        assert set(seen) == {200}


async def test_a_rate_of_a_route_comes_and_goes_with_the_file(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    path = mesh.folder / "routes.toml"
    path.write_text(route("/v1/open"))
    async with running(mesh.loaded(routes=path)) as gateway:
        url = f"{gateway.public.url}/v1/open"
        assert [await status(http, url) for _ in range(3)] == [200] * 3
        assert gateway.parts.front.limiter is None  # nothing is counted for nothing
        limited = route("/v1/open") + 'rate = "2/d"\n'
        path.write_text(limited)
        await until(lambda: counted(gateway, "routes", "ok") == 1)
        assert [await status(http, url) for _ in range(3)] == [200, 200, 429]
        path.write_text(limited + route("/v1/other"))
        await until(lambda: counted(gateway, "routes", "ok") == 2)
        assert await status(http, url) == 429
        path.write_text(route("/v1/open"))
        await until(lambda: counted(gateway, "routes", "ok") == 3)
        assert await status(http, url) == 200
        assert gateway.parts.limiter.entries["route"] == 0


async def test_bad_routes_file_keeps_it_from_starting(mesh: Stand) -> None:
    path = mesh.folder / "routes.toml"
    path.write_text(route("/api/x"))
    with pytest.raises(ConfigError, match="/api is the gateway's own"):
        async with running(mesh.loaded(routes=path)):
            pass


async def test_files_are_followed_without_being_told(mesh: Stand) -> None:
    path = mesh.write_table()
    async with running(mesh.loaded(authz_table=path)) as gateway:
        path.write_text(json.dumps({"test.gate.guarded": [2, 3]}))
        await until(lambda: counted(gateway, "authz_table", "ok") == 1)


async def test_damaged_cache_leaves_the_last_good_in_force(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with running(mesh.loaded()) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.open"
        mesh.cache.write_bytes(b"garbage")
        await until(lambda: counted(gateway, "discovery", "failed") == 1)
        assert await status(http, url) == 200
        mesh.announce()
        await until(lambda: gateway.parts.state.discovery().last_error is None)
        assert await status(http, url) == 200


async def test_mode_forward_needs_no_key(mesh: Stand, http: aiohttp.ClientSession) -> None:
    async with running(mesh.loaded(ticket_keys=(), auth_mode="forward")) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.guarded"
        assert await status(http, url, headers=mesh.ticket()) == 200
        assert await status(http, url) == 401  # the service's own word


# -- TLS and the access log -------------------------------------------------------------


def put_certificate(folder: Path, identity: TestIdentity) -> dict[str, Path]:
    certificate, key = folder / "public.crt", folder / "public.key"
    certificate.write_bytes(identity.certificate)
    key.write_bytes(identity.key)
    return {"tls_certificate": certificate, "tls_key": key}


async def fingerprint_at(listener: Listener) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
    try:
        from scamp.transport.tls import peer_fingerprint

        return peer_fingerprint(writer.get_extra_info("ssl_object"))
    finally:
        writer.close()
        await writer.wait_closed()


async def test_tls_files_are_followed_and_bad_ones_are_not(mesh: Stand) -> None:
    one, two = make_identity(1), make_identity(2)
    files = put_certificate(mesh.folder, one)
    async with running(mesh.loaded(**files)) as gateway:
        assert gateway.public.url.startswith("https://")
        assert await fingerprint_at(gateway.public) == one.fingerprint
        exposed = generate_latest(gateway.parts.state.exposition).decode()
        assert "\nscamp_gateway_certificate_expiry_timestamp_seconds 2" in exposed or (
            "\nscamp_gateway_certificate_expiry_timestamp_seconds 1" in exposed
        )
        files["tls_certificate"].write_text("rubbish")
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "tls", "failed") >= 1)
        assert await fingerprint_at(gateway.public) == one.fingerprint
        put_certificate(mesh.folder, two)
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "tls", "ok") >= 1)
        assert await fingerprint_at(gateway.public) == two.fingerprint


async def test_tls_files_that_change_while_the_gateway_starts_are_noticed(mesh: Stand) -> None:
    one, two = make_identity(1), make_identity(2)
    gateway = Gateway(mesh.loaded(**put_certificate(mesh.folder, one)), Triggers())
    try:
        put_certificate(mesh.folder, two)
        await gateway.start()
        await until(lambda: counted(gateway, "tls", "ok") >= 1)
        assert await fingerprint_at(gateway.public) == two.fingerprint
    finally:
        await gateway.close()


async def test_connection_outlives_a_change_of_certificate(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    files = put_certificate(mesh.folder, make_identity(1))
    async with running(mesh.loaded(**files)) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.wait"
        request = asyncio.create_task(ask_insecurely(http, url))
        await until(lambda: mesh.waiting == 1)
        put_certificate(mesh.folder, make_identity(2))
        gateway.triggers.reload.set()
        await until(lambda: counted(gateway, "tls", "ok") >= 1)
        mesh.gate.set()
        assert await request == 200


async def ask_insecurely(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url, ssl=False) as answer:
        return answer.status


async def test_client_certificate_is_demanded_when_a_ca_is_set(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    identity = make_identity(1)
    files = put_certificate(mesh.folder, identity)
    async with running(mesh.loaded(**files, tls_client_ca=files["tls_certificate"])) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.open"
        with pytest.raises(aiohttp.ClientError):
            await ask_insecurely(http, url)
        context = ssl.create_default_context(cadata=identity.certificate.decode())
        context.check_hostname = False
        context.load_cert_chain(files["tls_certificate"], files["tls_key"])
        async with http.get(url, ssl=context) as answer:
            assert answer.status == 200


async def test_access_log_is_opened_anew_when_told_to_reload(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    path = mesh.folder / "access.log"
    async with running(mesh.loaded(access_log=str(path))) as gateway:
        url = f"{gateway.public.url}/api/Test.Gate.open"
        await status(http, url)
        await until(lambda: path.read_text().count("\n") == 1)
        path.rename(mesh.folder / "access.log.1")
        gateway.triggers.reload.set()
        await until(path.exists)
        await status(http, url)
        await until(lambda: path.read_text().count("\n") == 1)


# -- the process ------------------------------------------------------------------------


@pytest.mark.one_loop
async def test_process_prints_one_line_reloads_on_sighup_and_ends_with_0_on_sigterm(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "run", "--bind", "127.0.0.1:0"),
        *("--admin-bind", "127.0.0.1:0", "--discovery-cache", str(mesh.cache)),
        *("--authorized-services", str(mesh.authorized), "--ticket-key", str(mesh.ticket_key)),
        *("--access-log", "off", "--drain-delay", "0", "--log-level", "info"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    word, ready, public, middle, admin = line.split()
    assert (word, ready, middle) == ("scamp-gateway", "ready:", "admin")
    assert await status(http, f"{public}/api/Test.Gate.open") == 200
    process.send_signal(signal.SIGHUP)

    async def reloaded() -> bool:
        async with http.get(f"{admin}/metrics") as answer:
            return 'result="ok",what="authz_table"' in await answer.text()

    await eventually(reloaded)
    process.send_signal(signal.SIGTERM)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out == b""
    messages = [json.loads(one)["message"] for one in err.decode().splitlines()]
    assert messages[0].startswith(f"serving {public}, admin {admin}: version ")
    assert "told to reload: looking at all followed files" in messages
    assert "looked at all followed files" in messages
    assert any(one.startswith("draining: 0 requests and 0 event streams") for one in messages)
    assert messages[-2].startswith("drained in ")
    assert messages[-1] == "stopped"
