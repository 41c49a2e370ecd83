"""Who may call what: privileges from the table, and what callers are told who may not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import orjson
import pytest

from scamp import keys
from scamp.authz import AuthzSource, AuthzTable
from scamp.errors import ConfigError
from scamp.server import Request, Service
from scamp.testing import TestPeer, make_identity
from scamp.tickets import TicketVerifier, issue_ticket
from scamp.wire import ReplyHeader, RequestHeader

Connect = Callable[[Service], Awaitable[TestPeer]]

TABLE = {"shop.buy": [1, 2], "shop.look": [], "_NAMES": [None, "buyer", "payer", "boss"]}


def ticket(privileges: Iterable[int] = (), *, signer: int = 0) -> str:
    return issue_ticket(
        keys.load_private_key(make_identity(signer).key),
        user_id=5,
        client_id=6,
        privileges=privileges,
        start=int(time.time()) - 10,
        length=100,
    )


async def fetch_table() -> bytes:
    return orjson.dumps(TABLE)


def make_shop(authz: AuthzSource | None = None) -> Service:
    identity = make_identity()
    shop = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        ticket_verifier=TicketVerifier([keys.load_private_key(identity.key).public_key()]),
        authz=authz or AuthzSource(fetch_table),
    )

    async def done(request: Request) -> str:
        return "done"

    for name in ("Shop.buy", "Shop.look", "Shop.unlisted"):
        shop.action(name)(done)
    shop.action("Shop.open", flags="noauth")(done)

    @shop.action("Shop.command", flags="noauth")
    async def command(request: Request) -> int:
        return request.require(3).user_id

    @shop.action("Shop.Look", version=2)
    async def look(request: Request) -> int:
        return request.require(3).user_id

    return shop


async def ask(peer: TestPeer, action: str, text: str | None, version: int = 1) -> ReplyHeader:
    reply = await peer.call(RequestHeader(action, 7, version=version, ticket=text))
    await reply.read_all(1000)
    assert isinstance(reply.header, ReplyHeader)
    return reply.header


async def test_every_listed_privilege_lets_a_caller_in(connect: Connect) -> None:
    client = await connect(make_shop())
    assert not (await ask(client, "shop.BUY", ticket((1, 2, 9)))).failed
    assert not (await ask(client, "Shop.look", ticket())).failed


async def test_a_missing_privilege_is_named(connect: Connect) -> None:
    header = await ask(await connect(make_shop()), "Shop.buy", ticket((1,)))
    assert header.error_code == "access_denied"
    assert "payer" in header.error
    assert header.error_data == {"privilege": 2, "name": "payer"}


async def test_an_action_that_is_not_listed_is_refused(connect: Connect) -> None:
    header = await ask(await connect(make_shop()), "Shop.unlisted", ticket((1, 2, 3)))
    assert header.error_code == "access_denied"
    assert header.error_data == {"unconfigured": True}


@pytest.mark.parametrize("text", [None, "rubbish", ticket((1, 2), signer=1)])
async def test_privileges_of_no_good_ticket_count_for_nothing(
    connect: Connect, text: str | None
) -> None:
    client = await connect(make_shop())
    assert (await ask(client, "Shop.buy", text)).error_code == "unauthorized"
    assert (await ask(client, "Shop.look", text)).error_code == "unauthorized"
    assert not (await ask(client, "Shop.open", text)).failed


async def test_without_a_table_nothing_protected_is_served(connect: Connect) -> None:
    async def fail() -> bytes:
        raise ConnectionRefusedError("nobody there")

    client = await connect(make_shop(AuthzSource(fail)))
    header = await ask(client, "Shop.look", ticket((1, 2, 3)))
    assert header.error_code == "authorization_unavailable"
    assert "nobody there" in header.error
    assert header.error_data is not None
    assert header.error_data["retry_after"] > 0
    assert not (await ask(client, "Shop.open", None)).failed


async def test_a_table_that_does_not_come_is_waited_for_no_longer_than_the_action_may_take(
    connect: Connect,
) -> None:
    async def hang() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    source = AuthzSource(hang)
    shop = make_shop(source)
    for served in shop.actions:
        object.__setattr__(served, "timeout", 0.02)
    header = await ask(await connect(shop), "Shop.buy", ticket((1, 2)))
    assert header.error_code == "authorization_unavailable"
    await source.close()


async def test_a_fresh_table_is_used_without_waiting(connect: Connect) -> None:
    class Fresh:
        def current(self) -> AuthzTable:
            return AuthzTable({"shop.look": frozenset()})

        async def get(self) -> AuthzTable:
            raise AssertionError("asked although there was one")

    client = await connect(make_shop(Fresh()))  # type: ignore[arg-type] # it has what is needed
    assert not (await ask(client, "Shop.look", ticket())).failed


async def test_a_handler_may_ask_for_more(connect: Connect) -> None:
    client = await connect(make_shop())
    header = await ask(client, "Shop.look", ticket((1,)), version=2)
    assert (header.error_code, header.error_data) == (
        "access_denied",
        {"privilege": 3, "name": "boss"},
    )
    assert not (await ask(client, "Shop.look", ticket((3,)), version=2)).failed
    assert (await ask(client, "Shop.command", None)).error_code == "unauthorized"
    header = await ask(client, "Shop.command", ticket())
    assert header.error_data == {"privilege": 3, "name": "3"}  # no table was looked at


async def test_serving_everybody_and_checking_privileges_exclude_each_other() -> None:
    identity = make_identity()
    with pytest.raises(ConfigError, match="require_tickets"):
        Service(
            "shop",
            key=identity.key,
            certificate=identity.certificate,
            require_tickets=False,
            authz=AuthzSource(fetch_table),
        )
