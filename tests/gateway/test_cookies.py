"""Tickets in a cookie: where they are found, and which pages may act with them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.credentials import AuthMode, Credentials, DifferentTicketsError
from gateway.lifecycle import running
from gateway.problems import Problem
from scamp.authz import AuthzSource
from scamp.testing import ScriptedPeer, make_identity
from scamp.tickets import TicketVerifier
from stand import stand

Make = Callable[..., str]
Fields = list[tuple[str, str]]

CALLED = "/api/Test.echo"
OWN = ("Origin", "http://test")
"""`Fronted` sends ``Host: test``."""
LISTED = ("Origin", "https://app.example:8443")
FOREIGN = ("Origin", "https://evil.example")


async def table() -> bytes:
    return b'{"test.echo": []}'


@pytest.fixture
def make_auth(ticket_key: RSAPrivateKey) -> Callable[..., Authenticator]:
    def make(mode: AuthMode = "enforce", *, scheme: str | None = None) -> Authenticator:
        return Authenticator(
            mode,
            TicketVerifier([ticket_key.public_key()]),
            AuthzSource(table),
            credentials=Credentials("ticket", origins=(LISTED[1], "*"), scheme=scheme),
        )

    return make


def of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json().get("code", "")


def cookie(value: str) -> tuple[str, str]:
    return "Cookie", f"ticket={value}"


def packed_by_python(ticket: str) -> str:
    return SimpleCookie({"ticket": ticket})["ticket"].OutputString().partition("=")[2]


@pytest.mark.parametrize(
    "write",
    [
        lambda ticket: f"ticket={ticket}",
        lambda ticket: f'ticket="{ticket}"',
        lambda ticket: f"ticket={packed_by_python(ticket)}",
        lambda ticket: f"ticket={quote(ticket)}",
        lambda ticket: f"a=b; ticket={ticket} ;c",
        lambda ticket: f'"; {{}}=[]=;;\\;Ticket=x; my-ticket=y; ticketx=z;ticket={ticket};$Path="/',
        lambda ticket: f"ticket=; ticket={ticket}; ticket={quote(ticket)}",
    ],
)
async def test_a_ticket_is_found_among_cookies_of_any_form(
    make_auth: Callable[..., Authenticator], make_ticket: Make, write: Callable[[str], str]
) -> None:
    peer, ticket = ScriptedPeer(flags="read"), make_ticket((1, 2))
    async with Fronted(peer, auth=make_auth()) as gateway:
        answer = await gateway.request("GET", CALLED, [("Cookie", write(ticket))])
        assert answer.status == 200
        assert peer.headers[0]["ticket"] == ticket
        assert peer.headers[0]["client_id"] == 42
        assert gateway.log.lines[0]["user_id"] == 7


async def test_without_the_setting_no_cookie_is_looked_at(
    ticket_key: RSAPrivateKey, make_ticket: Make
) -> None:
    auth = Authenticator("verify", TicketVerifier([ticket_key.public_key()]))
    async with Fronted(ScriptedPeer(flags="read"), auth=auth) as gateway:
        answer = await gateway.request("GET", CALLED, [cookie(make_ticket())])
        assert of(answer) == (401, "ticket_missing")


@pytest.mark.parametrize("value", ["", '""', " ", ";"])
async def test_an_empty_cookie_is_no_ticket(
    make_auth: Callable[..., Authenticator], value: str
) -> None:
    async with Fronted(ScriptedPeer(flags="read"), auth=make_auth()) as gateway:
        assert of(await gateway.request("GET", CALLED, [cookie(value)])) == (401, "ticket_missing")


@pytest.mark.parametrize("mode", ["enforce", "verify", "forward"])
async def test_a_cookie_that_differs_from_another_ticket_is_refused(
    make_auth: Callable[..., Authenticator], make_ticket: Make, mode: AuthMode
) -> None:
    first, second = make_ticket(), make_ticket(user=8)
    both: list[Fields] = [
        [("Authorization", f"Bearer {first}"), cookie(second)],
        [("X-SCAMP-Ticket", first), cookie(second)],
        [cookie(first), cookie(second)],
        [("Cookie", f"ticket={first}; a=b; ticket={second}")],
    ]
    auth = make_auth(mode)
    async with Fronted(ScriptedPeer(flags="noauth,read"), auth=auth) as gateway:
        for fields in both:
            assert of(await gateway.request("GET", CALLED, fields)) == (400, "tickets_differ")
        same = [("Authorization", f"Bearer {first}"), cookie(first)]
        assert (await gateway.request("GET", CALLED, same)).status == 200
    assert auth.results["different"] == len(both)


TRUSTED: list[Fields] = [
    [OWN],
    [("Origin", "https://test")],
    [LISTED],
    [("Sec-Fetch-Site", "same-origin")],
    [("Sec-Fetch-Site", "none")],
    [OWN, ("Sec-Fetch-Site", "cross-site")],
]
FOREIGNERS: list[Fields] = [
    [],
    [FOREIGN],
    [("Origin", "null")],
    [("Origin", "*")],
    [("Origin", "http://")],
    [("Origin", "ftp://test")],
    [("Origin", "http://test:81")],
    [("Origin", "http://test.evil.example")],
    [("Origin", "http://test"), FOREIGN],
    [("Sec-Fetch-Site", "cross-site")],
    [("Sec-Fetch-Site", "same-site")],
    [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
    [FOREIGN, ("Sec-Fetch-Site", "same-origin")],
]


@pytest.mark.parametrize("mode", ["enforce", "verify", "forward"])
async def test_pages_that_may_act_with_a_cookie_are_told_from_those_that_may_not(
    make_auth: Callable[..., Authenticator], make_ticket: Make, mode: AuthMode
) -> None:
    peer, ticket, auth = ScriptedPeer(flags="read,update,destroy"), make_ticket(), make_auth(mode)
    async with Fronted(peer, auth=auth) as gateway:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for fields in TRUSTED:
                answer = await gateway.request(method, CALLED, [cookie(ticket), *fields])
                assert answer.status == 200, fields
                assert peer.headers[-1]["ticket"] == ticket
            sent = len(peer.headers)
            for fields in FOREIGNERS:
                answer = await gateway.request(method, CALLED, [cookie(ticket), *fields])
                assert of(answer) == (403, "origin_refused"), fields
                assert ticket not in answer.body.decode()
                origin = dict(reversed(fields)).get("Origin")
                seen = f"`Origin` is {origin}." if origin else "There is no `Origin`."
                assert answer.json()["detail"].endswith(seen)
            assert len(peer.headers) == sent, "nothing reached the service"
        assert auth.results["foreign_origin"] == 4 * len(FOREIGNERS)
        for method in ("GET", "HEAD"):  # change nothing, and the page cannot read the answer
            assert (await gateway.request(method, CALLED, [cookie(ticket), FOREIGN])).status == 200


async def test_who_comes_without_a_ticket_is_told_all_places_for_one(
    make_auth: Callable[..., Authenticator],
) -> None:
    async with Fronted(ScriptedPeer(flags="read"), auth=make_auth()) as gateway:
        answer = await gateway.request("POST", CALLED)
        assert answer.json()["detail"] == (
            "The action needs a ticket: `Authorization: Bearer TICKET` or "
            "`X-SCAMP-Ticket: TICKET` or the cookie `ticket`."
        )


async def test_a_ticket_in_a_header_needs_no_origin(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    ticket = make_ticket()
    async with Fronted(ScriptedPeer(flags="read"), auth=make_auth()) as gateway:
        fields = [("X-SCAMP-Ticket", ticket), cookie(ticket), FOREIGN]
        assert (await gateway.request("POST", CALLED, fields)).status == 200


async def test_a_gateway_that_speaks_tls_itself_is_of_scheme_https_only(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    async with Fronted(ScriptedPeer(flags="read"), auth=make_auth(scheme="https")) as gateway:
        fields = [cookie(make_ticket()), OWN]
        assert of(await gateway.request("POST", CALLED, fields)) == (403, "origin_refused")
        fields[1] = ("Origin", "https://test")
        assert (await gateway.request("POST", CALLED, fields)).status == 200


@pytest.mark.parametrize("mode", ["enforce", "verify", "forward"])
async def test_an_open_action_is_served_without_the_cookie_of_a_foreign_page(
    make_auth: Callable[..., Authenticator], make_ticket: Make, mode: AuthMode
) -> None:
    peer, ticket, auth = ScriptedPeer(flags="noauth"), make_ticket(), make_auth(mode)
    async with Fronted(peer, auth=auth) as gateway:
        assert (await gateway.request("POST", CALLED, [cookie(ticket), FOREIGN])).status == 200
        assert "ticket" not in peer.headers[-1]
        assert "client_id" not in peer.headers[-1]
        assert (await gateway.request("POST", CALLED, [cookie(ticket), OWN])).status == 200
        assert peer.headers[-1]["ticket"] == ticket
    assert auth.results["dropped"] == 1


ROUTES = """
[[routes]]
method = ["PUT", "POST"]
path = "/v1/echo"
action = "Test.echo"
body = "*"
ticket = true
"""


async def test_a_route_asks_for_the_origin_as_the_action_does(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    peer, ticket = ScriptedPeer(flags="noauth,read"), make_ticket()
    async with Fronted(peer, auth=make_auth(), routes=ROUTES) as gateway:
        for method, fields, status in (
            ("PUT", [LISTED], 200),
            ("POST", [OWN], 200),
            ("POST", [FOREIGN], 403),
            ("POST", [], 403),
        ):
            answer = await gateway.request(method, "/v1/echo", [cookie(ticket), *fields])
            assert answer.status == status


async def test_an_open_action_drops_a_cookies_bad_ticket(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    peer = ScriptedPeer(flags="noauth")
    async with Fronted(peer, auth=make_auth()) as gateway:
        for bad in (make_ticket(start=-100, length=50), "rubbish", "%00", "%ff"):
            assert (await gateway.request("POST", CALLED, [cookie(bad), OWN])).status == 200
            assert "ticket" not in peer.headers[-1]


@pytest.mark.parametrize("bad", ["%0d%0aX: y", "%FF", "%00", "ü"])
async def test_forward_takes_no_cookie_that_could_not_be_a_ticket(
    make_auth: Callable[..., Authenticator], bad: str
) -> None:
    async with Fronted(ScriptedPeer(flags="read"), auth=make_auth("forward")) as gateway:
        assert of(await gateway.request("GET", CALLED, [cookie(bad)])) == (401, "ticket_invalid")


async def test_a_flood_of_cookies_costs_one_refusal(
    make_auth: Callable[..., Authenticator],
) -> None:
    flood = [("Cookie", ";" * 1000 + "a=b;\t \t" * 1500) for _ in range(90)]
    async with Fronted(ScriptedPeer(flags="read"), auth=make_auth()) as gateway:
        assert of(await gateway.request("GET", CALLED, flood)) == (431, "header_too_large")
        assert of(await gateway.request("GET", CALLED, flood[:5])) == (401, "ticket_missing")


@given(st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))))
def test_no_cookie_of_anybody_breaks_anything(lines: list[str]) -> None:
    lines = [line.replace("t", "ticket=") for line in lines]
    with suppress(DifferentTicketsError):
        text, ambient = Credentials("ticket").find(headers(*[("Cookie", line) for line in lines]))
        assert ambient == (text is not None)


# -- without an action ------------------------------------------------------------------


def headers(*fields: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict([("Host", "test"), *fields]))


async def test_a_caller_is_known_without_an_action(
    make_auth: Callable[..., Authenticator], make_ticket: Make
) -> None:
    auth = make_auth()
    assert auth.identify_any(headers()) is None
    caller = auth.identify_any(headers(cookie(make_ticket((3,)))))
    assert caller is not None
    assert caller.claims is not None
    assert caller.user_id == 7
    assert caller.claims.privileges == {3}
    assert caller.to_check is None
    for fields, method, code in (
        ([cookie("rubbish")], "GET", "ticket_invalid"),
        ([cookie(make_ticket()), FOREIGN], "POST", "origin_refused"),
        ([("X-SCAMP-Ticket", "a"), cookie("b")], "GET", "tickets_differ"),
    ):
        with pytest.raises(Problem) as caught:
            auth.identify_any(headers(*fields), method)
        assert caught.value.kind.code == code
    with pytest.raises(Problem) as caught:
        auth.require_any(headers())
    assert caught.value.kind.code == "ticket_missing"
    forwarded = make_auth("forward").require_any(headers(cookie("anything")))
    assert (forwarded.ticket, forwarded.claims) == ("anything", None)


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "ü", "x" * 101])
def test_what_is_no_name_of_a_cookie_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cookie"):
        Credentials(name)


# -- all of it --------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
async def test_the_real_gateway_takes_what_is_set_for_browsers(tmp_path: Path, tls: bool) -> None:
    settings: dict[str, Any] = {
        "ticket_cookie": "ticket",
        "cors_origins": (LISTED[1],),
        "cors_max_age": 7,
        "compress_replies": True,
        "decompress_requests": False,
    }
    if tls:
        identity = make_identity(1)
        for name, content in (("certificate", identity.certificate), ("key", identity.key)):
            path = settings[f"tls_{name}"] = tmp_path / f"public.{name}"
            path.write_bytes(content)
    async with (
        stand(tmp_path) as mesh,
        running(mesh.loaded(authz_table=mesh.write_table(), **settings)) as gateway,
        aiohttp.ClientSession(gateway.public.url) as http,
    ):
        ticket = mesh.ticket()["Authorization"].removeprefix("Bearer ")
        call = partial(http.request, ssl=False)
        cookies = {"Cookie": f"ticket={ticket}"}
        guarded = "/api/Test.Gate.guarded"
        authority = gateway.public.url.partition("://")[2]
        for origin, status in (
            (gateway.public.url, 200),
            (f"http://{authority}", 403 if tls else 200),
            (LISTED[1], 200),
            (FOREIGN[1], 403),
        ):
            fields = {**cookies, "Origin": origin, "Content-Type": "application/json"}
            async with call("POST", guarded, headers=fields) as answer:
                assert answer.status == status, origin
                readable = answer.headers.get("Access-Control-Allow-Credentials")
                assert readable == ("true" if origin == LISTED[1] else None)
        async with call("GET", "/whoami", headers=cookies) as answer:
            told = await answer.json()
            assert told["ticket"]["privileges"] == [{"id": 1, "name": "gate_pass"}]
            assert "Test.Gate.guarded~1" in told["permits"]
        asks = {"Origin": LISTED[1], "Access-Control-Request-Method": "POST"}
        async with call("OPTIONS", guarded, headers=asks) as answer:
            assert answer.headers["Access-Control-Max-Age"] == "7"
        packed = {**mesh.ticket(), "Content-Encoding": "gzip", "Content-Type": "application/json"}
        async with call("POST", guarded, headers=packed, data=gzip.compress(b"{}")) as answer:
            assert answer.status == 415
        many = {**mesh.ticket(range(1, 200)), "Accept-Encoding": "gzip"}
        async with call("GET", "/whoami", headers=many) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert len((await answer.json())["ticket"]["privileges"]) == 199
