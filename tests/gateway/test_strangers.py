"""A service that authorized_services does not name gets no callers, no tickets and no room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from offers import registry_of, service

from fronted import Fronted
from gateway.auth import Authenticator
from gateway.credentials import Credentials
from gateway.openapi.document import build
from gateway.openapi.documentation import Documentation
from gateway.openapi.operations import Facts
from gateway.openapi.sections import Section
from gateway.openapi.sight import ALL, lead, select
from gateway.routes.load import parse_routes
from gateway.settings import Settings
from gateway.strangers import Trust, is_trusted
from gateway.surface import surface
from gateway.whoami import WhoAmI
from scamp.authz import AuthzSource
from scamp.discovery import Announcement, AuthorizedServices
from scamp.discovery.model import permitted
from scamp.testing import ScriptedPeer, make_identity
from scamp.testing.scripts import silent
from scamp.tickets import TicketVerifier

ROUTES = """
[[routes]]
method = "GET"
path = "/v1/gift"
action = "_meta.gift"
"""


def test_whom_everybody_may_be_is_told_by_what_is_left_of_the_announcement() -> None:
    rules = AuthorizedServices.parse("")
    claims_much, _ = permitted(service("evil", "Shop.list", "_Meta.gift"), rules.permits)
    assert not is_trusted(claims_much)
    assert not is_trusted(service("evil", "_META.x.gift"))
    assert not is_trusted(service("silent"))
    assert is_trusted(service("shop", "_meta.info", "Shop.list"))
    assert is_trusted(service("shop", "_metal.list"))


@pytest.mark.parametrize("flags", ["noauth,read", "read"])
async def test_no_ticket_ever_gets_to_a_stranger(
    flags: str, ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    """`<img src="https://gateway/api/_meta.gift">` on any page makes a browser send its cookie."""
    stranger = ScriptedPeer(actions=("_meta.gift",), flags=flags)
    auth = Authenticator(
        "verify",
        TicketVerifier([ticket_key.public_key()]),
        credentials=Credentials("ticket"),
    )
    cookie = [("Cookie", f"ticket={make_ticket()}")]
    async with Fronted(stranger, auth=auth, routes=ROUTES) as gateway:
        for path in ("/api/_meta.gift", "/api/_META.Gift", "/api/_meta._read", "/v1/gift"):
            answer = await gateway.request("GET", path, cookie)
            assert (answer.status, answer.json()["code"]) == (404, "unknown_action")
        assert stranger.accepted == 0


async def test_a_retry_goes_to_no_stranger_either() -> None:
    shop = ScriptedPeer(silent, actions=("Shop.list", "_meta.info"), flags="noauth,read")
    stranger = ScriptedPeer(actions=("_meta.info",), flags="noauth,read", identity=make_identity(1))
    async with stranger, Fronted(shop) as gateway:
        asked = asyncio.create_task(gateway.request("POST", "/api/_meta.info", body=b"{}"))
        await shop.until(lambda: shop.requests == 1)
        gateway.mesh.announce(stranger)
        await shop.stop()
        assert (await asked).status == 502
        assert stranger.accepted == 0


async def test_with_others_that_offer_the_same_only_they_are_called() -> None:
    stranger = ScriptedPeer(actions=("_meta.info",))
    shop = ScriptedPeer(actions=("Shop.list", "_meta.info"), identity=make_identity(1))
    async with Fronted(stranger, shop) as gateway:
        for _ in range(8):
            assert (await gateway.request("POST", "/api/_meta.info", body=b"{}")).status == 200
        assert (shop.requests, stranger.accepted) == (8, 0)


def test_nothing_shows_what_strangers_offer() -> None:
    registry = registry_of(service("evil", "_meta.gift noauth"), service("shop", "Shop.list read"))
    kept = select(registry.actions(), ALL, sectors=("main",), default_timeout=75, limit=9)
    assert [one.spelling for one in kept.actions] == ["Shop.list"]
    assert lead(registry, parse_routes(ROUTES), ALL, default_timeout=75) == []
    shown = surface(registry, parse_routes(ROUTES), Settings())
    assert [one.url for one in shown.actions] == ["/api/Shop.list"]
    assert [one.problem for one in shown.routes] == ["no service announces _meta.gift~1"]


async def test_strangers_are_not_asked_to_describe_anything() -> None:
    stranger = ScriptedPeer(actions=("_meta.documentation",), flags="noauth,read")
    async with Fronted(stranger) as gateway:
        known = Documentation(gateway.mesh.registry, gateway.mesh.requester)
        await known.refresh()
        await known.close()
        assert (stranger.accepted, known.snapshot()) == (0, ())


def test_what_everybody_may_offer_pushes_nothing_else_out() -> None:
    flood = [f"_meta.a{number}" for number in range(50)]
    registry = registry_of(service("little", "Zoo.feed", *flood), service("shop", "Shop.list"))
    kept = select(registry.actions(), ALL, sectors=("main",), default_timeout=75, limit=10)
    assert [one.spelling for one in kept.actions][:2] == ["Shop.list", "Zoo.feed"]
    assert (len(kept.actions), kept.left_out) == (10, 42)


def test_the_room_for_schemas_is_theirs_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.openapi.components.MAX_ALL_SCHEMAS", 100)
    registry = registry_of(service("shop", "_meta.a", "Shop.list"))
    schema = b'{"properties":{"a":{"type":"string"}},"title":"%b"}'
    said = {
        "main:_meta.a.v1": Section(request=schema % b"Theirs"),
        "main:shop.list.v1": Section(request=schema % b"Ours"),
    }
    kept = select(registry.actions(), ALL, sectors=("main",), default_timeout=75, limit=10)
    text = build(kept.actions, Facts(), sections=said)
    assert b"Shop.Ours" in text
    assert b"Theirs" not in text


async def test_whoami_tells_of_them_last(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    async def table() -> bytes:
        return b"{}"

    verifier = TicketVerifier([ticket_key.public_key()])
    auth = Authenticator("enforce", verifier, AuthzSource(table))
    async with Fronted(auth=auth) as gateway:
        gateway.mesh.registry.apply(
            added=[
                service("evil", "_meta.gift noauth"),
                service("shop", "_meta.info noauth", "Zoo.feed noauth"),
            ]
        )
        endpoint = WhoAmI(auth, gateway.mesh.registry, sectors=("main",), timeout=5)
        gateway.front.endpoints.add("/whoami", endpoint)
        fields = [("Authorization", f"Bearer {make_ticket()}")]
        told = (await gateway.request("GET", "/whoami", fields)).json()
        assert told["permits"] == ["Zoo.feed~1", "_meta.info~1"]


def test_a_flood_of_their_actions_costs_one_look_at_each_service() -> None:
    flood = service("evil", *(f"_meta.a{number}" for number in range(300)))
    looks = 0

    class Counted(Trust):
        def trusts(self, service: Announcement) -> bool:
            nonlocal looks
            before = len(self._known)
            found = super().trusts(service)
            looks += len(self._known) - before
            return found

    trust = Counted()
    assert not any(trust.reachable(offers) for offers in registry_of(flood).actions())
    assert looks == 1
