"""The whole surface as a table: method x flags x route x ticket x content type, and its modes.

What each cell gives follows from the few sentences of docs/http.md, written down here once more as
`expected`; the gateway gets there by other ways.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.credentials import AuthMode
from gateway.front import FrontOptions
from scamp.authz import AuthzSource
from scamp.server import Request, Service
from scamp.testing import make_identity
from scamp.tickets import TicketVerifier

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
FLAGS: Final = ("", "read", "create", "update", "destroy", "noauth", "noauth,read", "read,update")
ROUTES: Final = ("native", "alias", "mapped", "through", "raw", "all", "one")
"""``all`` and ``one`` are the two URLs of a resource."""
TICKETS: Final = ("none", "good", "poor", "expired", "forged", "rubbish", "two")
TYPES: Final = ("none", "json", "blob", "csv", "undeclared", "text", "image")

MODES: Final = ("enforce", "verify", "forward")
"""The others, and routes that say themselves whether they need a ticket, in a smaller table."""
SMALL: Final = (
    ("GET", "HEAD", "POST", "DELETE"),
    ("", "read", "noauth", "noauth,read"),
    ("native", "mapped", "needs", "free", "one"),
    TICKETS,
    ("json", "text"),
)

CRUD: Final = {"create", "read", "update", "destroy"}
CONTENT_TYPES: Final = {
    "none": None,
    "json": "application/json; charset=utf-8",
    "blob": "application/vnd.scamp.Blob",
    "csv": "text/csv",
    "undeclared": "application/vnd.scamp.extdirect",
    "text": "text/plain",
    "image": "image/png",
}
ENVELOPES: Final = {"none": "json", "json": "json", "blob": "blob", "csv": "csv"}
REPLY_TYPES: Final = {
    "json": "application/json",
    "blob": "application/vnd.scamp.blob",
    "csv": "text/csv",
}
ALLOWED: Final = {
    "read": ("GET", "HEAD"),
    "update": ("PUT", "PATCH"),
    "destroy": ("DELETE",),
}
BODY: Final = b'{"a": 1.0}'
ID: Final = "x7"


@dataclass(frozen=True)
class Cell:
    method: str
    flags: str
    route: str
    ticket: str
    type: str
    mode: str = "enforce"

    @property
    def namespace(self) -> str:
        return "Of." + (self.flags.replace(",", "_") or "nothing")

    @property
    def flag_set(self) -> frozenset[str]:
        return frozenset(self.flags.split(","))

    @property
    def path(self) -> str:
        if self.route == "native":
            return f"/api/{self.namespace}.call"
        if self.route == "alias":
            return f"/api/{self.namespace}._{self.crud}"
        if self.route in ("all", "one"):
            return f"/res/{self.namespace}" + (f"/{ID}" if self.route == "one" else "")
        return f"/{self.route}/{self.namespace}" + (f"/{ID}" if self.route == "mapped" else "")

    @property
    def crud(self) -> str:
        found = [one for one in ("create", "read", "update", "destroy") if one in self.flag_set]
        return found[0] if found else "read"


# -- what the page says -----------------------------------------------------------------


def allowed(cell: Cell) -> tuple[str, ...]:
    """Native URLs follow the flags, and so do resources. Routes have what is written, GET only for
    what reads."""
    read = ("GET", "HEAD") if "read" in cell.flag_set else ()
    by_flag = [one for flag in cell.flag_set for one in ALLOWED.get(flag, ())]
    if cell.route == "raw":
        return ("PUT", "OPTIONS")
    if cell.route == "all":
        return (*read, *(("POST",) if "create" in cell.flag_set else ()), "OPTIONS")
    if cell.route == "one":
        return (*by_flag, "OPTIONS")
    if cell.route in ("mapped", "through", "needs", "free"):
        return (*read, "POST", "PUT", "OPTIONS")
    return (*by_flag, "POST", "OPTIONS")


def nowhere(cell: Cell) -> bool:
    """Whether nothing that is announced has a flag that the URL stands for."""
    wanted = {"alias": CRUD, "all": {"read", "create"}, "one": CRUD - {"create"}}.get(cell.route)
    return wanted is not None and not cell.flag_set & wanted


def expected_of_ticket(cell: Cell) -> tuple[int, str] | None:
    """What is wrong with the ticket, if anything."""
    if cell.ticket == "two":
        return 400, "tickets_differ"
    open_to_all = "noauth" in cell.flag_set
    needed = {"needs": True, "free": False}.get(cell.route, not open_to_all)
    if not needed or cell.mode == "forward":
        return None
    if cell.ticket == "none":
        return 401, "ticket_missing"
    if cell.ticket in ("expired", "forged", "rubbish"):
        return 401, "ticket_invalid"
    if cell.ticket == "poor" and cell.mode == "enforce" and not open_to_all:
        return 403, "privilege_missing"
    return None


def expected(cell: Cell) -> tuple[int, str | None]:
    """Status and code."""
    if nowhere(cell):
        return 404, "unknown_action"
    if cell.method not in allowed(cell):
        return 405, "method_not_allowed"
    if cell.method == "OPTIONS":
        return 204, None
    wrong_ticket = expected_of_ticket(cell)
    if wrong_ticket is not None:
        return wrong_ticket
    if cell.method in ("GET", "HEAD"):
        return 200, None
    if cell.route == "one" and cell.method == "DELETE":
        return (
            400,
            "bad_framing",
        )  # a resource is destroyed by its URL; every request here has a body
    if cell.route == "raw":
        return (200, None) if cell.type == "image" else (415, "unsupported_envelope")
    only_json = cell.route in ("mapped", "one")
    if cell.type not in ENVELOPES or (only_json and ENVELOPES[cell.type] != "json"):
        return 415, "unsupported_envelope"
    return (201 if cell.route == "all" else 200), None


def expected_body(cell: Cell) -> tuple[str, str]:
    """Content type of the answer and the body that the service got."""
    with_id = cell.route in ("mapped", "one")
    if cell.method in ("GET", "HEAD"):
        return "application/json", '{"q":"1","id":"x7"}' if with_id else '{"q":"1"}'
    if cell.route == "raw":
        return "image/webp", BODY.decode()
    if with_id:
        return "application/json", '{"a": 1.0,"id":"x7"}'
    return REPLY_TYPES[ENVELOPES[cell.type]], BODY.decode()


# -- the mesh ---------------------------------------------------------------------------


def service() -> Service:
    identity = make_identity(0)
    made = Service(
        "everything",
        key=identity.key,
        certificate=identity.certificate,
        queue_depth=False,
        documentation=False,
        envelopes=("json", "blob", "csv"),
        require_tickets=False,  # whom it lets in is for the gateway to say
    )

    async def mirror(request: Request) -> bytes:
        return await request.read_all()

    for flags in FLAGS:
        spelling = Cell("", flags, "native", "", "").namespace + ".call"
        made.action(spelling, flags=flags)(mirror)
    return made


def routes() -> str:
    lines = []
    for flags in FLAGS:
        name = Cell("", flags, "", "", "").namespace
        for methods, path, more in [
            ('"GET", "POST", "PUT"', f"/mapped/{name}/{{id}}", ""),
            ('"GET", "POST", "PUT"', f"/through/{name}", ""),
            ('"GET", "POST", "PUT"', f"/needs/{name}", "ticket = true"),
            ('"GET", "POST", "PUT"', f"/free/{name}", "ticket = false"),
            ('"PUT"', f"/raw/{name}", 'envelope = "blob"\nconsumes = "image/*"\n'
             'produces = "image/webp"'),
        ]:  # fmt: skip
            lines.append(
                f'[[routes]]\nmethod = [{methods}]\npath = "{path}"\naction = "{name}.call"\n{more}'
            )
        lines.append(f'[[resources]]\npath = "/res/{name}"\nnamespace = "{name}"\nid = "id"')
    return "\n".join(lines)


class Surface:
    """The gateway, and the tickets by name."""

    def __init__(self, gateway: Fronted, tickets: dict[str, list[str]]) -> None:
        self.gateway = gateway
        self.tickets = tickets

    async def ask(self, cell: Cell) -> Answer:
        headers = [("Authorization", f"Bearer {one}") for one in self.tickets[cell.ticket][:1]]
        headers += [("X-SCAMP-Ticket", one) for one in self.tickets[cell.ticket][1:]]
        content_type = CONTENT_TYPES[cell.type]
        if content_type is not None:
            headers.append(("Content-Type", content_type))
        with_body = cell.method not in ("GET", "HEAD", "OPTIONS", "TRACE")
        body = BODY if with_body else None
        return await self.gateway.request(cell.method, f"{cell.path}?q=1", headers, body)


@asynccontextmanager
async def surface(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str], mode: AuthMode = "enforce"
) -> AsyncIterator[Surface]:
    names = [Cell("", flags, "", "", "").namespace.lower() for flags in FLAGS]

    async def table() -> bytes:
        listed = ",".join(f'"{name}.call": [3]' for name in names)
        return f'{{{listed}, "_NAMES": [null, "a", "b", "third"]}}'.encode()

    good = make_ticket((3, 4))
    signed, _, signature = good.rpartition(",")
    tickets = {
        "none": [],
        "good": [good],
        "poor": [make_ticket((4,))],
        "expired": [make_ticket((3,), start=-7200, length=3600)],
        "forged": [f"{signed.replace(',42,', ',43,')},{signature}"],
        "rubbish": ["rubbish"],
        "two": [good, make_ticket((3, 4), user=8)],
    }
    authz = AuthzSource(table)
    auth = Authenticator(mode, TicketVerifier([ticket_key.public_key()]), authz)
    made = service()
    await made.start(port=0)
    try:
        async with Fronted(
            made,
            auth=auth,
            routes=routes(),
            options=FrontOptions(media_types={"text/csv": "csv"}),
        ) as gateway:
            yield Surface(gateway, tickets)
    finally:
        await authz.close()
        await made.stop(grace=1)


def wrong(cell: Cell, answer: Answer) -> str | None:
    """What is not as the page says."""
    status, code = expected(cell)
    headers, without_body = answer.headers, cell.method == "HEAD" or status == 204
    if answer.status != status:
        return f"status {answer.status}, not {status}"
    if without_body and answer.body:
        return "a body"
    allow = set(headers["Allow"].split(", ")) if "Allow" in headers else None
    if allow != (set(allowed(cell)) if status in (204, 405) else None):
        return f"Allow: {allow}"
    if headers.getall("Cache-Control", []) != ["no-store"]:
        return "Cache-Control"
    if (f'details="{code}"' in headers.get("Proxy-Status", "")) != (code is not None):
        return f"Proxy-Status: {headers.get('Proxy-Status')}"
    if ("WWW-Authenticate" in headers) != (status in (401, 403)):
        return "WWW-Authenticate"
    if status == 204:
        return None
    if code is None:
        got, wanted = (headers["Content-Type"], answer.body.decode()), expected_body(cell)
    else:
        problem = {} if without_body else answer.json()
        got = (headers["Content-Type"], str(problem.get("code")))
        wanted = ("application/problem+json", code)
    fits = got[0] == wanted[0] and (without_body or got[1] == wanted[1])
    return None if fits else f"{got}, not {wanted}"


async def check(surface: Surface, cells: list[Cell]) -> set[tuple[int, str | None]]:
    """Ask for all of them. Returns what there was to be seen."""
    found: list[str] = []
    left = iter(cells)

    async def work() -> None:
        for cell in left:
            answer = await surface.ask(cell)
            fault = wrong(cell, answer)
            if any(
                one in f"{answer.headers} {answer.body!r}" for one in surface.tickets[cell.ticket]
            ):
                fault = "the ticket is in the answer"
            if fault is not None:
                found.append(f"{cell}: {fault}")

    await asyncio.gather(*(work() for _ in range(16)))
    log = str(surface.gateway.log.lines)
    assert not any(ticket in log for some in surface.tickets.values() for ticket in some)
    assert not found, f"{len(found)} of {len(cells)}:\n" + "\n".join(found[:20])
    return {expected(cell) for cell in cells}


@pytest.mark.one_loop
@pytest.mark.timeout(300)
async def test_every_cell_gives_what_is_documented(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    cells = [Cell(*one) for one in itertools.product(METHODS, FLAGS, ROUTES, TICKETS, TYPES)]
    async with surface(ticket_key, make_ticket) as made:
        seen = await check(made, cells)
    assert len(cells) == 8 * 8 * 7 * 7 * 7
    assert {status for status, _ in seen} == {200, 201, 204, 400, 401, 403, 404, 405, 415}


@pytest.mark.one_loop
@pytest.mark.parametrize("mode", MODES)
async def test_modes_and_routes_that_speak_of_tickets(
    mode: AuthMode, ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    cells = [Cell(*one, mode) for one in itertools.product(*SMALL)]
    async with surface(ticket_key, make_ticket, mode) as made:
        seen = await check(made, cells)
    denied = {status for status, _ in seen} & {401, 403}
    assert denied == {"enforce": {401, 403}, "verify": {401}, "forward": set()}[mode]
