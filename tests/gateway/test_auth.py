"""Tickets out of headers, the three modes, and what is said to those who may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.actions import Announced, announced
from gateway.auth import Authenticator, Caller
from gateway.credentials import AuthMode
from gateway.problems import Problem
from scamp.authz import AuthzSource
from scamp.client import Deadline
from scamp.discovery import Action, Announcement, Offer
from scamp.tickets import TicketVerifier

SERVICE = Announcement("s", "F", "main", 1, 5.0, "", "127.0.0.1", 1, ("json",), (), 0.0)
TABLE = b'{"product.fetch": [3], "product.open": [], "_NAMES": [null, "a", "b", "Read \\"all\\""]}'

LATER = Deadline.after(3600)

Make = Callable[..., str]


def action(name: str = "fetch", flags: tuple[str, ...] = ()) -> Announced:
    return announced([Offer(SERVICE, Action("main", "Product", name, 1, flags, ("json",)))], 75)


def headers(*fields: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(fields))


async def table() -> bytes:
    return TABLE


async def no_table() -> bytes:
    raise ConnectionRefusedError("Auth is away")


@pytest.fixture
def verifier(ticket_key: RSAPrivateKey) -> TicketVerifier:
    return TicketVerifier([ticket_key.public_key()])


@pytest.fixture
async def enforcing(verifier: TicketVerifier) -> Authenticator:
    return Authenticator("enforce", verifier, AuthzSource(table))


async def admit(
    auth: Authenticator, fields: CIMultiDictProxy[str], which: Announced, deadline: Deadline
) -> Caller:
    """Both steps, as the front does them."""
    caller = auth.identify(fields, which)
    await auth.authorize(caller, which, deadline)
    return caller


async def refused(auth: Authenticator, *fields: tuple[str, str], **which: object) -> Problem:
    with pytest.raises(Problem) as caught:
        await admit(auth, headers(*fields), action(**which), LATER)  # type: ignore[arg-type]
    return caught.value


def challenge(problem: Problem) -> str | None:
    return dict(problem.header_fields()).get("WWW-Authenticate")


@pytest.mark.parametrize(
    "fields",
    [
        [("Authorization", "Bearer {}")],
        [("authorization", "bearer   {} ")],
        [("X-SCAMP-Ticket", "{}")],
        [("Authorization", "Bearer {}"), ("X-SCAMP-Ticket", "{}")],
        [("Authorization", "Basic dTpw"), ("X-SCAMP-Ticket", "{}")],
        [("Authorization", "Bearer"), ("X-SCAMP-Ticket", "{}")],
    ],
)
async def test_a_good_ticket_is_found_wherever_it_may_stand(
    enforcing: Authenticator, make_ticket: Make, fields: list[tuple[str, str]]
) -> None:
    ticket = make_ticket((3, 9))
    caller = await admit(
        enforcing,
        headers(*[(name, value.format(ticket)) for name, value in fields]),
        action(),
        LATER,
    )
    assert (caller.ticket, caller.user_id, caller.client_id) == (ticket, 7, 42)
    assert enforcing.results == {"valid": 1}


@pytest.mark.parametrize("mode", ["enforce", "verify", "forward"])
@pytest.mark.parametrize("flags", [(), ("noauth",)])
@pytest.mark.parametrize("twice", ["Authorization", "X-SCAMP-Ticket", "both"])
async def test_two_different_tickets_are_refused_in_every_mode(
    verifier: TicketVerifier,
    make_ticket: Make,
    mode: AuthMode,
    flags: tuple[str, ...],
    twice: str,
) -> None:
    auth = Authenticator(mode, verifier, AuthzSource(table))
    first, second = make_ticket((3,)), make_ticket((3,), user=8)
    fields = {
        "Authorization": [("Authorization", f"Bearer {one}") for one in (first, second)],
        "X-SCAMP-Ticket": [("X-SCAMP-Ticket", one) for one in (first, second)],
        "both": [("Authorization", f"Bearer {first}"), ("X-SCAMP-Ticket", second)],
    }[twice]
    problem = await refused(auth, *fields, flags=flags)
    assert (problem.status, problem.kind.code) == (400, "tickets_differ")
    assert auth.results == {"different": 1}


@pytest.mark.parametrize("value", [None, "Basic dTpw", "Bearer", "Bearer "])
async def test_a_missing_ticket_gets_a_challenge_without_an_error(
    enforcing: Authenticator, value: str | None
) -> None:
    fields = [] if value is None else [("Authorization", value)]
    problem = await refused(enforcing, *fields)
    assert (problem.status, problem.kind.code) == (401, "ticket_missing")
    assert challenge(problem) == "Bearer"
    assert enforcing.results == {"missing": 1}


async def test_a_bad_ticket_gets_a_challenge_that_says_why(
    enforcing: Authenticator, make_ticket: Make
) -> None:
    cases = {
        "malformed": "rubbish",
        "expired": make_ticket((3,), start=-100, length=50),
        "not_yet_valid": make_ticket((3,), start=1000),
        "bad_signature": make_ticket((3,)).replace("1,7,42", "1,1,42"),
    }
    for result, ticket in cases.items():
        problem = await refused(enforcing, ("Authorization", f"Bearer {ticket}"))
        said = challenge(problem) or ""
        assert (problem.status, problem.kind.code) == (401, "ticket_invalid")
        assert said.startswith('Bearer error="invalid_token", error_description="')
        assert ticket not in said + problem.detail + str(problem)
        assert enforcing.results[result] == 1
    assert 'error_description="the ticket has expired"' in (
        challenge(await refused(enforcing, ("X-SCAMP-Ticket", cases["expired"]))) or ""
    )


async def test_a_missing_privilege_is_named(enforcing: Authenticator, make_ticket: Make) -> None:
    problem = await refused(enforcing, ("X-SCAMP-Ticket", make_ticket((1, 2))))
    assert (problem.status, problem.kind.code) == (403, "privilege_missing")
    assert 'Read "all"' in problem.detail
    said = challenge(problem) or ""
    assert said.startswith('Bearer error="insufficient_scope", error_description="')
    assert "Read 'all'" in said
    assert enforcing.refusals == {"privilege": 1}


async def test_an_action_that_the_table_does_not_list_is_refused(
    enforcing: Authenticator, make_ticket: Make
) -> None:
    problem = await refused(enforcing, ("X-SCAMP-Ticket", make_ticket((1, 2, 3))), name="unlisted")
    assert (problem.status, problem.kind.code) == (403, "action_unconfigured")
    assert 'error="insufficient_scope"' in (challenge(problem) or "")


async def test_an_action_without_privileges_takes_any_good_ticket(
    enforcing: Authenticator, make_ticket: Make
) -> None:
    caller = await admit(
        enforcing, headers(("X-SCAMP-Ticket", make_ticket())), action("open"), LATER
    )
    assert caller.client_id == 42
    assert (await refused(enforcing, name="open")).status == 401


async def test_without_a_table_protected_actions_are_not_available(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator("enforce", verifier, AuthzSource(no_table))
    problem = await refused(auth, ("X-SCAMP-Ticket", make_ticket((3,))))
    assert (problem.status, problem.kind.code) == (503, "authorization_unavailable")
    assert int(dict(problem.header_fields())["Retry-After"]) >= 1
    assert auth.refusals == {"unavailable": 1}
    assert (await refused(auth)).status == 401, "a bad ticket is told first"


async def test_nobody_waits_for_the_table_beyond_the_requests_deadline(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def slow_table() -> bytes:
        return await answer

    source = AuthzSource(slow_table)
    auth = Authenticator("enforce", verifier, source)
    fields = headers(("X-SCAMP-Ticket", make_ticket((3,))))
    with pytest.raises(Problem) as caught:
        await admit(auth, fields, action(), Deadline.after(0.01))
    assert caught.value.kind.code == "authorization_unavailable"
    assert auth.refusals == {"unavailable": 1}
    answer.set_result(TABLE)
    assert (await admit(auth, fields, action(), LATER)).user_id == 7, "the fetch went on for others"


async def test_verify_does_not_ask_for_privileges(
    verifier: TicketVerifier, make_ticket: Make
) -> None:
    auth = Authenticator("verify", verifier)
    caller = await admit(auth, headers(("X-SCAMP-Ticket", make_ticket())), action(), LATER)
    assert caller.client_id == 42
    assert (await refused(auth)).status == 401
    assert (await refused(auth, ("X-SCAMP-Ticket", "rubbish"))).status == 401


async def test_forward_passes_everything_on_unread() -> None:
    auth = Authenticator("forward")
    caller = await admit(auth, headers(("X-SCAMP-Ticket", "anything at all")), action(), LATER)
    assert (caller.ticket, caller.user_id, caller.client_id) == ("anything at all", None, None)
    assert (await admit(auth, headers(), action(), LATER)).ticket is None


async def test_forward_refuses_what_no_header_can_carry() -> None:
    auth = Authenticator("forward")
    assert (await refused(auth, ("X-SCAMP-Ticket", "t\udcffx"))).kind.code == "ticket_invalid"


async def test_an_action_without_authentication_needs_no_ticket_and_passes_a_good_one_on(
    enforcing: Authenticator, make_ticket: Make
) -> None:
    open_action = action(flags=("noauth",))
    assert (await admit(enforcing, headers(), open_action, LATER)).ticket is None
    ticket = make_ticket()
    caller = await admit(enforcing, headers(("X-SCAMP-Ticket", ticket)), open_action, LATER)
    assert (caller.ticket, caller.client_id) == (ticket, 42)


async def test_an_action_without_authentication_drops_a_bad_ticket(
    enforcing: Authenticator, make_ticket: Make
) -> None:
    expired = make_ticket(start=-100, length=50)
    caller = await admit(
        enforcing, headers(("X-SCAMP-Ticket", expired)), action(flags=("noauth",)), LATER
    )
    assert (caller.ticket, caller.client_id) == (None, None)
    assert enforcing.results == {"dropped": 1}


async def test_no_ticket_is_shown_in_a_repr(make_ticket: Make, enforcing: Authenticator) -> None:
    ticket = make_ticket((3,))
    caller = await admit(enforcing, headers(("X-SCAMP-Ticket", ticket)), action(), LATER)
    assert ticket not in repr(caller)


@pytest.mark.parametrize("mode", ["enforce", "verify"])
def test_a_mode_without_what_it_needs_is_refused(mode: AuthMode) -> None:
    with pytest.raises(ValueError, match="needs"):
        Authenticator(mode)


def test_enforce_without_a_table_is_refused(verifier: TicketVerifier) -> None:
    with pytest.raises(ValueError, match="privilege table"):
        Authenticator("enforce", verifier)
