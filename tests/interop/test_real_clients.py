"""Real clients of other editions call a service of ours, which they find by themselves.

The service announces itself by multicast, ``scamp cache`` writes the file, the client reads it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from editions import Edition, Place

from scamp.authz import AuthzTable
from scamp.cli.main import main
from scamp.errors import ServiceError
from scamp.server import Request, Service, run_service
from scamp.testing import make_authz_table, make_identity, make_ticket, make_verifier, until

pytestmark = pytest.mark.timeout(120)

PRIVILEGE = 17
MANY = 300
UNICODE = '{"plain":"Größe €5 ☃ 漢字 🦑","escaped":"\\ud83e\\udd91\\u2028","lines":"a\\r\\nb"}'


class Table:
    """The privilege table of an Auth service that is not needed here."""

    table = AuthzTable.parse(make_authz_table({"Interop.Till.open": [PRIVILEGE]}))

    def current(self) -> AuthzTable | None:
        return self.table

    async def get(self) -> AuthzTable:
        return self.table


def make_service(place: Place) -> Service:
    """The service that is called, and how many connections it has had at most."""
    service = Service(
        "interop",
        key=place.key.read_bytes(),
        certificate=place.certificate.read_bytes(),
        interval=0.2,
        ticket_verifier=make_verifier(),
        authz=Table(),
        config=place.config(),
    )

    @service.action("Interop.echo", flags="noauth,read")
    async def echo(request: Request) -> bytes:
        return await request.read_all()

    @service.action("Interop.streamed", flags="noauth,t20")
    async def streamed(request: Request) -> AsyncIterator[bytes]:
        async for piece in request:
            yield piece

    @service.action("Interop.version", flags="noauth")
    async def first(request: Request) -> int:
        return 1

    @service.action("Interop.version", version=2, flags="noauth")
    async def second(request: Request) -> int:
        return 2

    @service.action("Interop.fail", flags="noauth")
    async def fail(request: Request) -> None:
        raise ServiceError("not_found", "no such thing: ☃", {"id": 42})

    @service.action("Interop.txerr", flags="noauth")
    async def txerr(request: Request) -> AsyncIterator[bytes]:
        yield b'{"half":'
        raise RuntimeError("on purpose")

    @service.action("Interop.shuffled", flags="noauth")
    async def shuffled(request: Request) -> dict[str, int]:
        asked = json.loads(await request.read_all())
        await asyncio.sleep(asked["number"] * 7 % 10 / 100)
        return {**asked, "connections": service.connections}

    @service.action("Interop.Till.open")
    async def till(request: Request) -> dict[str, int]:
        assert request.ticket is not None
        return {"user": request.ticket.user_id, "client": request.ticket.client_id}

    @service.action("Interop.Night.count", flags="noauth", sector="background", version=3)
    async def night(request: Request) -> str:
        return "counted at night"

    return service


@asynccontextmanager
async def announced(service: Service, place: Place) -> AsyncIterator[Service]:
    """`service`, in the cache file by the time that the block begins, and out of it after."""
    trigger = asyncio.Event()
    task = asyncio.create_task(
        run_service(service, trigger=trigger, linger=0.0, farewells=2, farewell_interval=0.05)
    )
    try:
        await until(lambda: task.done() or service.identity in identities(place), timeout=20)
        yield service
    finally:
        trigger.set()
        await task


def identities(place: Place) -> list[str]:
    return [one.identity for one in place.cached()]


@pytest.fixture
async def service(place: Place) -> AsyncIterator[Service]:
    """The service, announced, and heard."""
    with place.cache():
        async with announced(make_service(place), place) as service:
            yield service


@pytest.fixture
def mesh(place: Place, service: Service) -> Place:
    """Where clients find it."""
    return place


SIZES = [0, 1, 65_536, 131_072, 131_073, 2**20 + 7]


@pytest.mark.parametrize("size", SIZES)
async def test_bodies_there_and_back(client: Edition, mesh: Place, size: int) -> None:
    body = os.urandom(size)
    said = await mesh.call(client, "main:Interop.echo~1", body)
    assert said.good() == body


@pytest.mark.parametrize("size", SIZES)
async def test_bodies_that_come_back_while_they_are_sent(
    client: Edition, mesh: Place, size: int
) -> None:
    client.needs("both ways")
    body = os.urandom(size)
    said = await mesh.call(client, "main:Interop.streamed~1", body)
    assert said.good() == body


async def test_text_of_all_languages(client: Edition, mesh: Place) -> None:
    said = await mesh.call(client, "main:Interop.echo~1", UNICODE.encode())
    assert said.good() == UNICODE.encode()


async def test_versions_are_told_apart(client: Edition, mesh: Place) -> None:
    for version in (1, 2):
        said = await mesh.call(client, f"main:Interop.version~{version}", b"{}")
        assert said.good() == b"%d" % version


async def test_an_error_is_one(client: Edition, mesh: Place) -> None:
    said = await mesh.call(client, "main:Interop.fail~1", b"{}")
    assert (said.code != 0, said.reply) == (True, b"")
    assert "not_found" in said.error
    assert "no such thing: ☃" in said.error


async def test_a_reply_that_is_broken_off_is_none(client: Edition, mesh: Place) -> None:
    said = await mesh.call(client, "main:Interop.txerr~1", b"{}")
    assert (said.code != 0, said.reply) == (True, b"")


@pytest.mark.parametrize("action", ["main:Interop.absent~1", "main:Interop.echo~9"])
async def test_what_nobody_offers_is_not_found(client: Edition, mesh: Place, action: str) -> None:
    said = await mesh.call(client, action, b"{}")
    assert (said.code != 0, said.reply) == (True, b"")


async def test_many_requests_share_a_connection_and_get_their_own_answers(
    client: Edition, mesh: Place, service: Service
) -> None:
    lines = [b'{"number":%d}' % number for number in range(MANY)]
    said = await mesh.call(client, "main:Interop.shuffled~1", b"\n".join(lines), lines=True)
    replies = [json.loads(line) for line in said.good().splitlines()]
    assert [reply["number"] for reply in replies] == list(range(MANY))
    assert {reply["connections"] for reply in replies} == {1}
    assert service.requests >= MANY, "more if the client has to ask again"


async def test_an_action_of_another_sector_is_called(client: Edition, mesh: Place) -> None:
    """It stands in the version 4 part of the announcement."""
    client.needs("own sector")
    said = await mesh.call(client, "background:Interop.Night.count~3", b"{}")
    assert said.good() == b'"counted at night"'


async def test_a_ticket_with_the_privilege_opens_what_is_protected(
    client: Edition, mesh: Place
) -> None:
    ticket = make_ticket(user_id=7, client_id=3, privileges=[2, PRIVILEGE])
    said = await mesh.call(client, "main:Interop.Till.open~1", b"{}", ticket=ticket)
    assert json.loads(said.good()) == {"user": 7, "client": 3}


@pytest.mark.parametrize(
    ("ticket", "code"),
    [
        ("", "unauthorized"),
        ("nonsense", "unauthorized"),
        (make_ticket(privileges=[PRIVILEGE], expires_in=-5), "unauthorized"),
        (make_ticket(privileges=[2]), "access_denied"),
    ],
    ids=["none", "nonsense", "expired", "without the privilege"],
)
async def test_other_tickets_do_not(client: Edition, mesh: Place, ticket: str, code: str) -> None:
    said = await mesh.call(client, "main:Interop.Till.open~1", b"{}", ticket=ticket)
    assert (said.code != 0, said.reply) == (True, b"")
    assert code in said.error


async def test_a_service_that_left_is_not_found_and_its_successor_is(
    client: Edition, place: Place
) -> None:
    with place.cache():
        async with announced(make_service(place), place):
            assert (await place.call(client, "main:Interop.echo~1", b"1")).good() == b"1"
        await until(lambda: not identities(place), timeout=20)
        assert (await place.call(client, "main:Interop.echo~1", b"2")).code != 0
        async with announced(make_service(place), place):
            assert (await place.call(client, "main:Interop.echo~1", b"3")).good() == b"3"


# -- records that 'scamp announce' signed -------------------------------------------------


@pytest.fixture
async def unannounced(place: Place) -> AsyncIterator[str]:
    """HOST:PORT of the service, which nobody announces."""
    service = make_service(place)
    host, port = await service.start()
    yield f"{host}:{port}"
    await service.stop(0.0)


def announce(place: Place, address: str, *more: str) -> None:
    signed = ("--key", str(place.key), "--cert", str(place.certificate))
    where = ("--name", "interop", "--address", address, "--append", str(place.cache_file))
    main(["announce", *signed, *where, *more], standalone_mode=False)


@pytest.mark.parametrize(
    "more",
    [
        ("--action", "Interop.echo"),
        ("--action", "Interop.echo~1=noauth,read,t30", "--action", "Interop.version~2=noauth"),
        ("--action", "Interop.echo", "--action", "background:Interop.Night.count~3=noauth"),
        ("--action", "Interop.echo", "--envelope", "json", "--envelope", "jsonstore"),
        ("--action", "Interop.echo", "--weight", "3.0", "--interval", "43200"),
    ],
    ids=["plain", "flags", "sectors", "envelopes", "numbers"],
)
async def test_a_record_of_scamp_announce_leads_to_the_service(
    client: Edition, place: Place, unannounced: str, more: tuple[str, ...]
) -> None:
    announce(place, unannounced, *more)
    said = await place.call(client, "main:Interop.echo~1", b'{"by":"record"}')
    assert said.good() == b'{"by":"record"}'


async def test_records_of_scamp_announce_stand_beside_each_other(
    client: Edition, place: Place, unannounced: str
) -> None:
    for name in ("a", "b", "c"):
        announce(place, "127.0.0.1:9", "--name", name, "--action", f"Other.{name}")
    announce(place, "127.0.0.1:8", "--name", "leaving", "--weight", "0")
    announce(place, unannounced, "--action", "Interop.echo")
    assert (await place.call(client, "main:Interop.echo~1", b"{}")).good() == b"{}"


async def test_an_action_of_another_sector_in_such_a_record(
    client: Edition, place: Place, unannounced: str
) -> None:
    client.needs("own sector")
    announce(place, unannounced, "--action", "background:Interop.Night.count~3=noauth")
    said = await place.call(client, "background:Interop.Night.count~3", b"{}")
    assert said.good() == b'"counted at night"'


async def test_another_key_than_the_services_is_not_trusted(
    client: Edition, place: Place, unannounced: str
) -> None:
    """Whoever checks: a record that a stranger signed for the service's address."""
    client.needs("fingerprint")
    stranger = make_identity(1)
    place.key.write_bytes(stranger.key)
    place.certificate.write_bytes(stranger.certificate)
    announce(place, unannounced, "--action", "Interop.echo")
    said = await place.call(client, "main:Interop.echo~1", b"{}")
    assert (said.code != 0, said.reply) == (True, b"")
