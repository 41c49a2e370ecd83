"""A gateway whose Auth service goes: a process that is stopped, killed, held or talks rubbish.

Beyond the grace protected actions answer 503, open ones go on, nothing opens; when it is back, so
are they, without a restart. The known service announces ``Auth.getAuthzTable`` too and is not
authorized to: it is never asked.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from auth_service import AuthProcess

from gateway import factory
from gateway.lifecycle import running
from scamp.authz import AuthzSource
from scamp.client import authz_fetcher
from scamp.discovery import write_cache
from stand import Stand, eventually, stand

TABLE: Final = json.dumps(
    {"test.gate.guarded": [1], "stand._events": [1], "_NAMES": [None, "gate_pass"]}
).encode()
GUARDED: Final = "/api/Test.Gate.guarded"
EVENTS: Final = "/api/events/stand?code=price"
NEED_TABLE: Final = (GUARDED, "/whoami", "/openapi.json", EVENTS)
TTL: Final = 0.05
GRACE: Final = 0.2

pytestmark = pytest.mark.one_loop


@dataclass
class Scene:
    """The gateway, the service that it protects, and Auth."""

    mesh: Stand
    auth: AuthProcess
    table: AuthzSource
    http: aiohttp.ClientSession

    def announce(self, *, auth: bool = True) -> None:
        """Write the discovery cache, with or without Auth's record."""
        records = [self.mesh.service.announcement(), *([self.auth.record] if auth else [])]
        write_cache(self.mesh.cache, records)

    async def ask(
        self, path: str, *, ticket: bool = True, privileges: tuple[int, ...] = (1,)
    ) -> tuple[int, str, str | None]:
        """Status, code of the problem, and ``Retry-After``; of a stream the head alone."""
        headers = self.mesh.ticket(privileges) if ticket else {}
        async with self.http.get(path, headers=headers) as answer:
            if answer.status == 200:
                return 200, "", None
            problem = await answer.json(content_type=None)
            return answer.status, problem["code"], answer.headers.get("Retry-After")

    async def is_served(self) -> bool:
        """Whether the table is there."""
        return (await self.ask(GUARDED))[0] == 200

    async def is_gone(self) -> bool:
        """Whether it is, beyond the grace."""
        return (await self.ask(GUARDED))[0] == 503

    async def check_closed(self) -> None:
        """Nothing opens, and what needs no table goes on."""
        for path in NEED_TABLE:
            status, code, retry_after = await self.ask(path)
            assert (status, code) == (503, "authorization_unavailable"), path
            assert retry_after is not None
            assert int(retry_after) >= 1
        assert (await self.ask(GUARDED, privileges=()))[0] == 503
        for path in (GUARDED, "/whoami", EVENTS):
            assert (await self.ask(path, ticket=False))[0] == 401, path
        assert (await self.ask("/api/Test.Gate.open", ticket=False))[0] == 200
        assert (await self.ask("/api/Test.Gate.open"))[0] == 200
        async with self.http.get("/openapi.json") as answer:
            text = await answer.text()
            assert answer.status == 200
            assert "Test.Gate.guarded" not in text
        assert self.mesh.tables_given == 0

    async def check_back(self) -> None:
        """Everything as before."""
        await eventually(self.is_served)
        for path in NEED_TABLE:
            assert (await self.ask(path))[0] == 200, path
        assert (await self.ask(GUARDED, privileges=()))[:2] == (403, "privilege_missing")
        assert self.mesh.tables_given == 0


@asynccontextmanager
async def scene(
    folder: Path, grace: float = GRACE, *, announced: bool = True
) -> AsyncIterator[Scene]:
    """With a good table, and with the record of who has it or not."""
    auth = AuthProcess(folder)
    auth.answers(TABLE)
    async with stand(folder) as mesh:
        own = mesh.authorized.read_text().replace("main:ALL", "Test.Gate, _meta")
        mesh.authorized.write_text(f"{own}{auth.fingerprint} Auth\n")
        await auth.start()
        try:
            write_cache(
                mesh.cache, [mesh.service.announcement(), *([auth.record] if announced else [])]
            )
            settings = mesh.loaded(authz_ttl=TTL, authz_grace=grace, request_timeout=2.0)
            async with (
                running(settings) as gateway,
                aiohttp.ClientSession(gateway.public.url) as http,
            ):
                table = gateway.parts.authentication.table
                assert table is not None
                yield Scene(mesh, auth, table, http)
        finally:
            await auth.kill()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again soon, and given up soon."""
    monkeypatch.setattr(factory, "AuthzSource", partial(AuthzSource, retry_interval=0.05))
    monkeypatch.setattr(factory, "authz_fetcher", partial(authz_fetcher, timeout=0.3))
    monkeypatch.setattr("scamp.client.health.BACKOFF_FIRST", 0.05)


async def test_stopped_killed_held_and_withdrawn(tmp_path: Path) -> None:
    """One after another; each time it is back without a restart of the gateway."""
    async with scene(tmp_path) as here:
        await here.check_back()

        await here.auth.stop()
        await eventually(here.is_gone)
        await here.check_closed()
        await here.auth.start()
        here.announce()
        await here.check_back()

        here.auth.hold()  # callers are not kept longer than a request may take
        await eventually(here.is_gone)
        await here.check_closed()
        here.auth.go_on()
        await here.check_back()

        here.announce(auth=False)
        await eventually(here.is_gone)
        await here.check_closed()
        here.announce()
        await here.check_back()

        await here.auth.kill()
        await eventually(here.is_gone)
        await here.check_closed()
        await here.auth.start()
        here.announce()
        await here.check_back()


RUBBISH: Final = {
    "not JSON": b"\x00\xff rubbish",
    "an error": b"!the database is away",
    "null": b"null",
    "a text for a list": b'{"test.gate.guarded": "1"}',
    "null for a list": b'{"test.gate.guarded": null}',
    "no number in a list": b'{"test.gate.guarded": [true]}',
    "names that are no list": b'{"test.gate.guarded": [], "_NAMES": {}}',
    "cut off": TABLE[:-3],
    "too large": b'{"test.gate.guarded": [], "x": [' + b" " * (1 << 20) + b"]}",
}


async def test_what_is_no_table_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scamp.authz.limits.MAX_AUTHZ_TABLE", 1 << 20)
    monkeypatch.setattr("scamp.client.authz.MAX_AUTHZ_TABLE", 1 << 20)
    async with scene(tmp_path) as here:
        for body in RUBBISH.values():
            await eventually(here.is_served)
            here.auth.answers(body)
            await eventually(here.is_gone)
            assert (await here.ask(EVENTS))[0] == 503
            assert (await here.ask("/api/Test.Gate.open"))[0] == 200
            here.auth.answers(TABLE)
        await here.check_back()


async def test_a_table_without_the_action_permits_nothing(tmp_path: Path) -> None:
    """It is a table, so it counts: nobody may, whatever the ticket says."""

    async def refused() -> bool:
        return (await here.ask(GUARDED))[:2] == (403, "action_unconfigured")

    async with scene(tmp_path) as here:
        for table in (b"{}", b'{"other.action": []}', b'{"_NAMES": [null, "x"]}'):
            await eventually(here.is_served)
            here.auth.answers(table)
            await eventually(refused)
            assert (await here.ask(EVENTS))[:2] == (403, "action_unconfigured")
            assert (await here.ask("/api/Test.Gate.open", ticket=False))[0] == 200
            for path in ("/openapi.json", "/whoami"):
                async with here.http.get(path, headers=here.mesh.ticket()) as answer:
                    assert answer.status == 200
                    assert "Test.Gate.guarded" not in await answer.text()
            here.auth.answers(TABLE)
        await here.check_back()


async def test_within_the_grace_nobody_notices(tmp_path: Path) -> None:
    async with scene(tmp_path, grace=60.0) as here:
        await here.check_back()
        await here.auth.kill()
        here.announce(auth=False)

        async def failed() -> bool:
            await here.ask(GUARDED)
            return here.table.last_error is not None

        await eventually(failed)
        await here.check_back()
        here.auth.answers(b"rubbish")
        await here.auth.start()
        here.announce()
        await here.check_back()


async def test_who_is_not_authorized_is_not_asked_though_there_is_nobody_else(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, announced=False) as here:
        await eventually(here.is_gone)
        await here.check_closed()
        here.announce()
        await here.check_back()
