"""``/openapi.json`` over a real socket: who sees what, what is kept, what comes back unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from openapi_spec_validator import validate

from fronted import Answer, Fronted
from gateway.auth import Authenticator, Mode
from gateway.endpoints import Endpoints
from gateway.lifecycle import running
from gateway.openapi import endpoint as module
from gateway.openapi.documentation import Documentation
from gateway.openapi.endpoint import MAX_DOCUMENTS, OpenApi
from gateway.openapi.operations import Facts
from gateway.openapi.options import Audience, OpenApiOptions
from gateway.openapi.own import OPENAPI_PATH as PATH
from gateway.openapi.own import own_items
from gateway.routes.load import parse_routes
from scamp.authz import AuthzSource
from scamp.server.builtin import add_documentation
from scamp.testing import ScriptedPeer, make_identity
from scamp.tickets import TicketVerifier
from stand import stand

TABLE = b'{"shop.read": [1], "shop.both": [1, 2]}'
Make = Callable[..., str]


def bearer(ticket: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {ticket}")]


class Site:
    """A gateway in front of one service, with what makes its description."""

    def __init__(self, gateway: Fronted, openapi: OpenApi) -> None:
        self.gateway = gateway
        self.openapi = openapi

    async def get(self, *headers: tuple[str, str], method: str = "GET") -> Answer:
        return await self.gateway.request(method, PATH, headers)

    async def seen(self, *headers: tuple[str, str]) -> set[str]:
        answer = await self.get(*headers)
        assert answer.status == 200, answer
        document = answer.json()
        validate(document)
        return {path for path in document["paths"] if path not in own_items(Facts())}


@pytest.fixture
def verifier(ticket_key: RSAPrivateKey) -> TicketVerifier:
    return TicketVerifier([ticket_key.public_key()])


async def table() -> bytes:
    return TABLE


async def no_table() -> bytes:
    raise ConnectionRefusedError("Auth is away")


@asynccontextmanager
async def site(
    auth: Authenticator | None = None,
    *peers: ScriptedPeer,
    audience: Audience = "callers",
    **more: Any,
) -> AsyncIterator[Site]:
    peers = peers or (
        ScriptedPeer(actions=("Shop.read", "Shop.both", "Shop.unlisted"), flags="read"),
        ScriptedPeer(actions=("Shop.open",), identity=make_identity(1)),
    )
    # On a busy machine a document is made slowly, and would then serve for longer than it is right.
    more.setdefault("clock", lambda: 0.0)
    endpoints = Endpoints()
    async with Fronted(*peers, auth=auth, endpoints=endpoints) as gateway:
        mode = gateway.auth.mode
        openapi = OpenApi(
            gateway.mesh.registry,
            gateway.auth,
            Documentation(gateway.mesh.registry, gateway.mesh.requester),
            OpenApiOptions(
                audience=audience, facts=Facts(mode=mode, cookie=more.pop("cookie", None))
            ),
            **more,
        )
        endpoints.add(PATH, openapi)
        yield Site(gateway, openapi)
        await openapi.close()


OPEN = {"/api/Shop.open"}
ALL = OPEN | {"/api/Shop.read", "/api/Shop.both", "/api/Shop.unlisted"}


# -- who sees what ----------------------------------------------------------------------


async def test_caller_sees_what_the_ticket_permits(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    async with site(Authenticator("enforce", verifier, AuthzSource(table))) as here:
        assert await here.seen() == OPEN
        assert await here.seen(*bearer(make_ticket((9,)))) == OPEN
        assert await here.seen(*bearer(make_ticket((1,)))) == OPEN | {"/api/Shop.read"}
        both = await here.seen(("X-SCAMP-Ticket", make_ticket((1, 2, 3))))
        assert both == OPEN | {"/api/Shop.read", "/api/Shop.both"}


@pytest.mark.parametrize("mode", ["enforce", "verify"])
async def test_bad_ticket_is_told(mode: Mode, verifier: TicketVerifier, make_ticket: Make) -> None:
    async with site(Authenticator(mode, verifier, AuthzSource(table))) as here:
        answer = await here.get(*bearer(make_ticket((1,), start=-100, length=10)))
        assert answer.status == 401
        assert answer.json()["code"] == "ticket_invalid"
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        different = await here.get(*bearer(make_ticket()), ("X-SCAMP-Ticket", "other"))
        assert (different.status, different.json()["code"]) == (400, "tickets_differ")


async def test_without_a_table_nothing_is_shown_to_those_with_tickets(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    async with site(Authenticator("enforce", verifier, AuthzSource(no_table))) as here:
        assert await here.seen() == OPEN
        answer = await here.get(*bearer(make_ticket()))
        assert (answer.status, answer.json()["code"]) == (503, "authorization_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_where_privileges_are_not_checked_any_ticket_shows_all(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    async with site(Authenticator("verify", verifier)) as here:
        assert await here.seen() == OPEN
        assert await here.seen(*bearer(make_ticket())) == ALL


async def test_where_tickets_are_not_read_all_is_shown() -> None:
    async with site(Authenticator("forward")) as here:
        assert await here.seen() == ALL
        assert "Vary" not in (await here.get()).headers


async def test_everyone_sees_all_when_told_so(verifier: TicketVerifier) -> None:
    auth = Authenticator("enforce", verifier, AuthzSource(table))
    async with site(auth, audience="everyone") as here:
        assert await here.seen(*bearer("nonsense")) == ALL
        answer = await here.get()
        assert answer.headers["Cache-Control"] == "no-cache"
        assert "Vary" not in answer.headers


async def test_routes_in_force_are_shown() -> None:
    text = '[[routes]]\nmethod = "GET"\npath = "/read/{code}"\naction = "Shop.read"\n'
    tables = [parse_routes("")]
    async with site(None, routes=lambda: tables[0]) as here:
        assert await here.seen() == ALL
        tables[0] = parse_routes(text)
        assert await here.seen() == ALL | {"/read/{code}"}


# -- over HTTP --------------------------------------------------------------------------


async def test_answer_that_a_ticket_opens_is_not_for_shared_caches(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    async with site(Authenticator("verify", verifier)) as here:
        for headers in ([], bearer(make_ticket())):
            answer = await here.get(*headers)
            assert answer.headers["Cache-Control"] == "private, no-cache"
            assert "X-SCAMP-Ticket" in answer.headers["Vary"]


async def test_answer_is_for_its_caller_alone(verifier: TicketVerifier) -> None:
    auth = Authenticator("enforce", verifier, AuthzSource(table))
    async with site(auth, cookie="ticket") as here:
        answer = await here.get()
        assert answer.headers.getall("Cache-Control") == ["private, no-cache"]
        assert answer.headers["Vary"] == "Authorization, X-SCAMP-Ticket, Cookie"
        assert answer.headers["Content-Type"] == "application/json"
        head = await here.get(method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["ETag"] == answer.headers["ETag"]
        assert head.headers["Content-Length"] == str(len(answer.body))


async def test_what_the_caller_has_already_is_not_sent_again() -> None:
    async with site() as here:
        etag = (await here.get()).headers["ETag"]
        for given in (etag, f'"other", W/{etag}', "*"):
            answer = await here.get(("If-None-Match", given))
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["ETag"] == etag
            assert "Content-Type" not in answer.headers
        assert (await here.get(("If-None-Match", '"other"'))).status == 200
        assert here.gateway.log.lines[-1]["route"] == PATH


async def test_other_methods_are_told_what_there_is() -> None:
    async with site() as here:
        answer = await here.get(method="POST")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (await here.get(method="OPTIONS")).headers["Allow"] == "GET, HEAD, OPTIONS"


# -- making it --------------------------------------------------------------------------


async def test_document_is_made_once_for_all_who_wait_and_until_something_changes() -> None:
    one, two = ScriptedPeer(), ScriptedPeer(actions=("Shop.new",), identity=make_identity(1))
    async with site(None, one, two) as here:
        answers = await asyncio.gather(*(here.get() for _ in range(10)))
        assert {answer.status for answer in answers} == {200}
        assert here.openapi.built == 1
        await here.get()
        assert here.openapi.built == 1
        here.gateway.mesh.remove(two)
        assert await here.seen() == {"/api/Test.echo"}
        here.gateway.mesh.announce(two)
        assert await here.seen() == {"/api/Test.echo", "/api/Shop.new"}
        assert here.openapi.built == 3


async def test_what_services_say_later_makes_another_document() -> None:
    async with site() as here:
        await here.get()
        here.openapi.documentation.version += 1
        await here.get()
        assert here.openapi.built == 2


async def test_large_mesh_that_changes_all_the_time_is_not_described_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SLOW_BUILD", -1.0)
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0  # so that making the document takes a second
        return now[0]

    peer = ScriptedPeer(actions=("Shop.new",), identity=make_identity(1))
    async with site(None, ScriptedPeer(), peer, clock=clock) as here:
        await here.get()
        here.gateway.mesh.remove(peer)
        assert "/api/Shop.new" in await here.seen()
        now[0] += 20
        assert "/api/Shop.new" not in await here.seen()


async def test_who_leaves_takes_nothing_from_those_who_wait() -> None:
    async with site() as here:
        hurried = await here.gateway.connect()
        async with here.openapi._one_at_a_time:
            hurried.send("GET", PATH)
            patient = asyncio.create_task(here.get())
            while len(here.openapi._making) < 1 or here.gateway.front.in_flight < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await hurried.close()
            while here.gateway.front.in_flight > 1:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert (await patient).status == 200
        assert here.openapi.built == 1


async def test_flood_of_different_callers_keeps_a_bounded_number_of_documents(
    verifier: TicketVerifier, make_ticket: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(Authenticator("enforce", verifier, AuthzSource(table))) as here:
        for number in range(MAX_DOCUMENTS + 5):
            assert await here.seen(*bearer(make_ticket((100 + number,)))) == OPEN
        assert len(here.openapi._kept) == MAX_DOCUMENTS
        monkeypatch.setattr(module, "MAX_KEPT", 1)
        await here.get()
        assert len(here.openapi._kept) == 1


async def test_a_table_that_was_replaced_is_not_held(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    source = AuthzSource(table)
    async with site(Authenticator("enforce", verifier, source)) as here:
        for _ in range(3):
            for privilege in (1, 2):
                await here.get(*bearer(make_ticket((privilege,))))
            await here.get()
            assert len(here.openapi._kept) == 3, "one of them for those without a ticket"
            await source.refresh()


async def test_end_while_a_document_is_made_is_told() -> None:
    async with site() as here:
        async with here.openapi._one_at_a_time:
            waiting = asyncio.create_task(here.get())
            while not here.openapi._making:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await here.openapi.close()
            answer = await waiting
        assert (answer.status, answer.json()["code"]) == (503, "stopping")


# -- in the whole gateway ---------------------------------------------------------------


async def test_gateway_describes_what_its_services_say_of_themselves(tmp_path: Path) -> None:
    async with stand(tmp_path) as mesh, aiohttp.ClientSession() as http:
        add_documentation(mesh.service, 75.0)
        mesh.announce()
        loaded = mesh.loaded(authz_table=mesh.write_table(), openapi_title="Gates")
        async with running(loaded) as gateway:
            url = f"{gateway.public.url}{PATH}"
            async with http.get(url) as answer:
                document = await answer.json()
            async with http.get(url, headers=mesh.ticket()) as answer:
                more = await answer.json()
    validate(document)
    assert document["info"]["title"] == "Gates"
    said = document["paths"]["/api/_meta.documentation"]["get"]["summary"]
    assert said.startswith("Every action of this service")
    assert set(more["paths"]) - set(document["paths"]) == {"/api/Test.Gate.guarded"}


async def test_gateway_that_is_told_so_does_not_describe_itself(tmp_path: Path) -> None:
    async with (
        stand(tmp_path) as mesh,
        running(mesh.loaded(openapi="off")) as gateway,
        aiohttp.ClientSession() as http,
        http.get(f"{gateway.public.url}{PATH}") as answer,
    ):
        assert answer.status == 404
        assert (await answer.json())["code"] == "unknown_path"
