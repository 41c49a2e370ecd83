"""``/whoami``: what a ticket says and permits, and nothing that is a secret."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from fronted import Answer, Fronted
from gateway.auth import Authenticator, Mode
from gateway.credentials import Credentials
from gateway.whoami import MAX_PERMITS, WhoAmI
from scamp.authz import AuthzSource
from scamp.discovery import Action, Announcement
from scamp.testing import ScriptedPeer
from scamp.tickets import TicketVerifier, issue_ticket

NOW = 1_700_000_000
TABLE = (
    b'{"shop.read": [1], "shop.write": [1, 2], "shop.any": [], "shop.all": [9],'
    b'"_NAMES": [null, "shop_read", "shop_write"]}'
)
Make = Callable[..., str]


def shop(identity: str, *actions: tuple[str, str], sector: str = "main") -> Announcement:
    announced = tuple(
        Action(sector, "Shop", name, 1, tuple(flags.split(",")), ("json",))
        for name, flags in actions
    )
    return Announcement(
        identity, "F", sector, 1, 5.0, "", "127.0.0.1", 1, ("json",), announced, 0.0
    )


MESH = (
    shop("a", ("Write", ""), ("read", "read"), ("any", ""), ("all", ""), ("open", "noauth")),
    shop("b", ("unlisted", ""), ("half", "noauth")),
    shop("c", ("half", "")),
    shop("d", ("open", "noauth"), sector="Web"),
    shop("e", ("hidden", "noauth"), sector="back"),
)


class Asked(Fronted):
    """A gateway that knows who is who."""

    def __init__(
        self, auth: Authenticator, mesh: Iterable[Announcement] = MESH, now: float | None = None
    ) -> None:
        super().__init__(ScriptedPeer(), auth=auth)
        self._services = tuple(mesh)
        self._now = now

    async def __aenter__(self) -> Asked:
        await super().__aenter__()
        self.mesh.registry.apply(added=self._services)
        more: dict[str, Any] = {} if self._now is None else {"clock": lambda: self._now}
        self.front.endpoints.add(
            "/whoami",
            WhoAmI(self.auth, self.mesh.registry, sectors=("MAIN", "web"), timeout=5, **more),
        )
        return self

    async def ask(self, ticket: str | None = None, method: str = "GET") -> Answer:
        fields = [] if ticket is None else [("Authorization", f"Bearer {ticket}")]
        return await self.request(method, "/whoami", fields)


async def table() -> bytes:
    return TABLE


async def no_table() -> bytes:
    raise ConnectionRefusedError("Auth is away")


@pytest.fixture
def make_auth(ticket_key: RSAPrivateKey) -> Callable[..., Authenticator]:
    def make(mode: Mode = "enforce", **more: Any) -> Authenticator:
        verifier = TicketVerifier([ticket_key.public_key()])
        return Authenticator(mode, verifier, AuthzSource(more.pop("fetch", table)), **more)

    return make


async def test_a_caller_reads_what_the_ticket_says_and_permits(
    make_auth: Callable[..., Authenticator], ticket_key: RSAPrivateKey
) -> None:
    ticket = issue_ticket(
        ticket_key, user_id=7, client_id=42, privileges=(2, 1, 5), start=NOW - 60, length=3600
    )
    async with Asked(make_auth(clock=lambda: NOW), now=NOW + 0.5) as gateway:
        answer = await gateway.ask(ticket)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Vary"] == "Authorization, X-SCAMP-Ticket"
        assert answer.headers["Cache-Control"] == "no-store"
        assert list(answer.json()) == ["mode", "ticket", "permits", "permits_left_out"]
        assert answer.json() == {
            "mode": "enforce",
            "ticket": {
                "version": 1,
                "user_id": 7,
                "client_id": 42,
                "valid_from": "2023-11-14T22:12:20Z",
                "expires_at": "2023-11-14T23:12:20Z",
                "expires_in": 3539,
                "privileges": [
                    {"id": 1, "name": "shop_read"},
                    {"id": 2, "name": "shop_write"},
                    {"id": 5, "name": "5"},
                ],
            },
            "permits": [
                "Shop.any~1",
                "Shop.open~1",
                "Shop.read~1",
                "Shop.Write~1",
                "Test.echo~1",
                "Web:Shop.open~1",
            ],
            "permits_left_out": 0,
        }
        assert ticket.rpartition(",")[2] not in answer.body.decode()
        line = gateway.log.lines[0]
        assert (line["route"], line["user_id"], line["client_id"]) == ("/whoami", 7, 42)
        head = await gateway.ask(ticket, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == answer.headers["Content-Length"]


async def test_what_is_announced_later_is_there_at_once(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    ticket = make_ticket()
    async with Asked(make_auth(), ()) as gateway:
        assert (await gateway.ask(ticket)).json()["permits"] == ["Test.echo~1"]
        gateway.mesh.registry.apply(added=[shop("n", ("any", ""))])
        assert (await gateway.ask(ticket)).json()["permits"] == ["Shop.any~1", "Test.echo~1"]
        gateway.mesh.registry.apply(removed=[("F", "n")])
        assert (await gateway.ask(ticket)).json()["permits"] == ["Test.echo~1"]


async def test_who_has_no_good_ticket_is_told_as_for_an_action(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    async with Asked(make_auth()) as gateway:
        for ticket, code in (
            (None, "ticket_missing"),
            ("rubbish", "ticket_invalid"),
            (make_ticket(start=-100, length=50), "ticket_invalid"),
        ):
            answer = await gateway.ask(ticket)
            assert (answer.status, answer.json()["code"]) == (401, code)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        answer = await gateway.ask(make_ticket(), "POST")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    async with Asked(make_auth(fetch=no_table)) as gateway:
        answer = await gateway.ask(make_ticket())
        assert (answer.status, answer.json()["code"]) == (503, "authorization_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await gateway.ask()).status == 401


async def test_a_mode_that_checks_less_says_so(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    async with Asked(make_auth("verify")) as gateway:
        told = (await gateway.ask(make_ticket((3,)))).json()
        assert told["ticket"]["privileges"] == [{"id": 3, "name": None}]
        assert told["permits"] is None
        assert "not checked" in told["note"]
    async with Asked(make_auth("forward")) as gateway:
        told = (await gateway.ask("anything")).json()
        assert (told["mode"], told["ticket"], told["permits"]) == ("forward", None, None)
        assert "unread" in told["note"]
        assert (await gateway.ask()).status == 401


async def test_a_cookie_will_do_and_is_named_in_vary(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    async with Asked(make_auth(credentials=Credentials("ticket"))) as gateway:
        answer = await gateway.request("GET", "/whoami", [("Cookie", f"ticket={make_ticket()}")])
        assert answer.json()["ticket"]["user_id"] == 7
        assert answer.headers["Vary"] == "Authorization, X-SCAMP-Ticket, Cookie"


async def test_a_time_that_no_calendar_has_is_null(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    async with Asked(make_auth()) as gateway:
        told = (await gateway.ask(make_ticket(length=10**17))).json()["ticket"]
        assert told["expires_at"] is None
        assert told["expires_in"] > 10**16


async def test_a_mesh_without_bounds_is_told_up_to_a_cap_and_holds_nobody_up(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    many = tuple(
        shop(f"s{i}", *((f"a{i:03}x{j:03}", "noauth") for j in range(200))) for i in range(20)
    )
    async with Asked(make_auth(), many) as gateway:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        beside = asyncio.create_task(others())
        told = (await gateway.ask(make_ticket())).json()
        beside.cancel()
        await asyncio.wait({beside})
        assert turns > 2 * 20, "the walk and the check let others run"
        assert len(told["permits"]) == MAX_PERMITS
        assert told["permits"] == sorted(told["permits"], key=str.lower)
        assert told["permits"][0] == "Shop.a000x000~1"
        assert told["permits_left_out"] == 4001 - MAX_PERMITS


async def test_one_who_asks_all_the_time_makes_it_look_once(
    make_auth: Callable[..., Authenticator], make_ticket: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Asked(make_auth()) as gateway:
        endpoint = gateway.front.endpoints.find("/whoami")
        assert isinstance(endpoint, WhoAmI)
        ticket = make_ticket((1,))
        answers = await asyncio.gather(*(gateway.ask(ticket) for _ in range(20)))
        assert len({tuple(one.json()["permits"]) for one in answers}) == 1
        assert endpoint.walks == 1
        await gateway.ask(make_ticket((1, 2)))
        assert endpoint.walks == 2
        # What takes long is not done again for each change of the index.
        monkeypatch.setattr("gateway.whoami.SLOW_WALK", -1.0)
        monkeypatch.setattr("gateway.whoami.WALK_SHARE", 10**9)
        for number in range(5):
            gateway.mesh.registry.apply(added=[shop(f"n{number}", (f"new{number}", "noauth"))])
            await gateway.ask(ticket)
        assert endpoint.walks == 3


async def test_a_flood_of_kinds_of_callers_is_kept_up_to_a_cap(
    make_auth: Callable[..., Authenticator], make_ticket: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.whoami.MAX_KEPT", 3)
    async with Asked(make_auth()) as gateway:
        endpoint = gateway.front.endpoints.find("/whoami")
        assert isinstance(endpoint, WhoAmI)
        for privilege in range(6):
            await gateway.ask(make_ticket((privilege,)))
        await gateway.ask(make_ticket((5,)))
        assert (endpoint.walks, len(endpoint._kept)) == (6, 3)


async def test_a_table_that_was_replaced_is_not_held(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    auth = make_auth()
    async with Asked(auth) as gateway:
        endpoint = gateway.front.endpoints.find("/whoami")
        assert isinstance(endpoint, WhoAmI)
        assert auth.authz is not None
        for _ in range(3):
            for privilege in (1, 2):
                await gateway.ask(make_ticket((privilege,)))
            assert len(endpoint._kept) == 2
            await auth.authz.refresh()
