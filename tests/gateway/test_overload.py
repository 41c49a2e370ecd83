"""Too much at once: who is refused, and that the others are served on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.factory import client_options, front_options
from gateway.front import FrontOptions
from gateway.settings import Settings
from gateway.shedding import LATE_IN_A_ROW, MOST, Lateness
from scamp.client import ClientOptions
from scamp.testing import GO, ScriptedPeer, make_identity, until
from scamp.testing.scripts import by_body, echo, when
from scamp.tickets import TicketVerifier

pytestmark = pytest.mark.usefixtures("either_way")

LIMIT = 3


class Two:
    """A service with one action that waits for `go`, and one that echoes."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.peer = ScriptedPeer(
            {"Test.slow": when(self.go), "Test.echo": echo}, actions=("Test.slow", "Test.echo")
        )
        self.calls: list[asyncio.Task[Answer]] = []

    async def fill(self, gateway: Fronted, count: int = LIMIT) -> None:
        """Requests under way on the slow one, over different spellings."""
        paths = ("/api/Test.slow", "/api/test.SLOW", "/api/main:Test.slow~1", "/slow")
        before = self.peer.requests
        for number in range(count):
            call = gateway.request("POST", paths[number % len(paths)], body=b"{}")
            self.calls.append(asyncio.create_task(call))
        await self.peer.until(lambda: self.peer.requests == before + count)

    async def finish(self) -> set[int]:
        """Let them be answered."""
        self.go.set()
        return {answer.status for answer in await asyncio.gather(*self.calls)}


ROUTES = """
[[routes]]
path = "/slow"
method = "POST"
action = "Test.slow"
"""


def shed(gateway: Fronted, limit: str) -> float:
    """What the metric says."""
    start = f'scamp_gateway_requests_shed_total{{limit="{limit}"}} '
    (line,) = (one for one in gateway.scrape().splitlines() if one.startswith(start))
    return float(line.removeprefix(start))


def check_refused(answer: Answer) -> str:
    """503 with all that belongs to it; gives the detail."""
    problem = answer.json()
    assert (answer.status, problem["code"]) == (503, "saturated")
    assert answer.headers["Retry-After"] == "1"
    assert "connection_limit_reached" in answer.headers["Proxy-Status"]
    detail = problem["detail"]
    assert isinstance(detail, str)
    return detail


# -- one action -------------------------------------------------------------------------


async def test_a_slow_action_fills_its_own_places_and_no_others() -> None:
    two = Two()
    options = FrontOptions(max_in_flight_per_action=LIMIT)
    async with Fronted(two.peer, options=options, routes=ROUTES) as gateway:
        await two.fill(gateway)
        for path in ("/api/Test.slow", "/slow"):
            answer = await gateway.request("POST", path, body=b"{}")
            assert check_refused(answer) == "Too many requests of Test.slow~1 under way."
            assert answer.json()["action"] == "Test.slow~1"
        assert shed(gateway, "action") == 2
        for _ in range(2 * LIMIT):
            assert (await gateway.request("POST", "/api/Test.echo", body=b"{}")).status == 200
        assert await two.finish() == {200}
        assert (await gateway.request("POST", "/api/Test.slow", body=b"{}")).status == 200
        assert two.peer.requests == 3 * LIMIT + 1


async def test_places_are_counted_on_when_the_index_changes() -> None:
    two = Two()
    options = FrontOptions(max_in_flight_per_action=LIMIT)
    other = ScriptedPeer(actions=("Test.other",), identity=make_identity(1))
    async with Fronted(two.peer, options=options, routes=ROUTES) as gateway, other:
        await two.fill(gateway)
        gateway.mesh.announce(other)
        check_refused(await gateway.request("POST", "/api/Test.slow", body=b"{}"))
        assert await two.finish() == {200}


async def test_who_leaves_gives_the_place_back() -> None:
    two = Two()
    options = FrontOptions(max_in_flight_per_action=1)
    async with Fronted(two.peer, options=options) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.slow", body=b"{}")
        await two.peer.until(lambda: two.peer.requests == 1)
        check_refused(await gateway.request("POST", "/api/Test.slow", body=b"{}"))
        await wire.close()
        await until(lambda: gateway.front.in_flight == 0)
        two.go.set()
        assert (await gateway.request("POST", "/api/Test.slow", body=b"{}")).status == 200


async def test_nobody_takes_a_place_without_a_ticket(
    ticket_key: rsa.RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    two = Two()
    two.peer = ScriptedPeer(when(two.go), actions=("Test.slow",), flags="")
    auth = Authenticator("verify", TicketVerifier([ticket_key.public_key()]))
    ticket = [("X-SCAMP-Ticket", make_ticket())]
    options = FrontOptions(max_in_flight_per_action=1)
    async with Fronted(two.peer, auth=auth, options=options) as gateway:
        call = asyncio.create_task(gateway.request("POST", "/api/Test.slow", ticket, b"{}"))
        await two.peer.until(lambda: two.peer.requests == 1)
        assert (await gateway.request("POST", "/api/Test.slow", body=b"{}")).status == 401
        check_refused(await gateway.request("POST", "/api/Test.slow", ticket, b"{}"))
        two.go.set()
        assert (await call).status == 200
        assert (await gateway.request("POST", "/api/Test.slow", ticket, b"{}")).status == 200


async def test_nothing_is_kept_of_actions_that_have_gone() -> None:
    two = Two()
    async with Fronted(two.peer) as gateway:
        await gateway.request("POST", "/api/Test.echo", body=b"{}")
        places = gateway.front.routing._places
        assert list(places) == ["Test.echo~1"]
        gateway.mesh.remove(two.peer)
        assert (await gateway.request("POST", "/api/Test.echo", body=b"{}")).status == 404
        await asyncio.sleep(0)
        gc.collect()
        assert len(places) == 0


async def test_without_a_limit_there_is_none() -> None:
    two = Two()
    options = FrontOptions(max_in_flight_per_action=0)
    async with Fronted(two.peer, options=options, routes=ROUTES) as gateway:
        await two.fill(gateway, 20)
        assert await two.finish() == {200}


# -- one instance, all requests ---------------------------------------------------------


async def test_a_full_instance_is_told_as_such() -> None:
    two = Two()
    client = ClientOptions(max_in_flight=LIMIT)
    async with Fronted(two.peer, client=client, routes=ROUTES) as gateway:
        await two.fill(gateway)
        detail = check_refused(await gateway.request("POST", "/api/Test.echo", body=b"{}"))
        assert detail == "limit reached: requests in flight on one instance"
        assert shed(gateway, "instance") == 1
        assert await two.finish() == {200}


async def test_all_places_together_are_counted_too() -> None:
    two = Two()
    options = FrontOptions(max_in_flight=LIMIT)
    async with Fronted(two.peer, options=options, routes=ROUTES) as gateway:
        await two.fill(gateway)
        check_refused(await gateway.request("POST", "/api/Test.echo", body=b"{}"))
        assert shed(gateway, "in_flight") == 1
        assert await two.finish() == {200}


# -- queues -----------------------------------------------------------------------------


async def test_overload_is_shed_while_those_who_are_admitted_succeed() -> None:
    """One request at a time is served; the service stands still for a while."""
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b'"busy"': when(go)}), manners=GO)
    client = ClientOptions(max_connections=1, queue_target=0.02, queue_interval=0.05)
    async with Fronted(peer, client=client) as gateway:
        assert (await gateway.request("POST", "/api/Test.echo", body=b'"busy?"')).status == 200
        busy = asyncio.create_task(gateway.request("POST", "/api/Test.echo", body=b'"busy"'))
        await peer.until(lambda: peer.requests == 2)
        waiting = [gateway.request("POST", "/api/Test.echo", body=b"{}") for _ in range(10)]
        for answer in await asyncio.gather(*waiting):
            assert check_refused(answer) == "limit reached: time to wait for a connection"
        go.set()
        assert (await busy).status == 200
        assert (await gateway.request("POST", "/api/Test.echo", body=b"{}")).status == 200
        assert shed(gateway, "queue_delay") == 10
        assert peer.requests == 3


async def test_who_had_to_wait_shows_in_a_histogram() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        await gateway.request("POST", "/api/Test.echo", body=b"{}")  # TLS takes its time
        assert "scamp_gateway_queue_duration_seconds_count 1.0" in gateway.scrape()


# -- a loop that is late ----------------------------------------------------------------


async def test_a_loop_that_stays_late_refuses_a_share_until_it_is_not() -> None:
    two = Two()
    async with Fronted(two.peer, options=FrontOptions(max_loop_lag=0.5)) as gateway:
        for _ in range(LATE_IN_A_ROW + 20):
            gateway.front.lateness.measured(1.0)
        asked = [await gateway.request("POST", "/api/Test.echo", body=b"{}") for _ in range(20)]
        refused = [answer for answer in asked if answer.status != 200]
        assert 15 < len(refused) < 20
        assert {check_refused(answer) for answer in refused} == {"The gateway is overloaded."}
        assert shed(gateway, "loop_lag") == len(refused)
        for _ in range(20):
            gateway.front.lateness.measured(0.0)
        asked = [await gateway.request("POST", "/api/Test.echo", body=b"{}") for _ in range(20)]
        assert {answer.status for answer in asked} == {200}


def test_a_few_late_measurements_refuse_nobody() -> None:
    lateness = Lateness(0.5)
    for _ in range(10):
        for _ in range(LATE_IN_A_ROW - 1):
            lateness.measured(30.0)
        lateness.measured(0.4)
    assert lateness.share == 0.0
    assert not any(lateness.refuses() for _ in range(100))


def test_the_share_grows_while_it_is_late_and_never_to_all() -> None:
    lateness = Lateness(0.5)
    shares = []
    for _ in range(40):
        lateness.measured(0.6)
        shares.append(round(lateness.share, 3))
    assert shares[: LATE_IN_A_ROW + 1] == [0.0] * (LATE_IN_A_ROW - 1) + [0.1, 0.2]
    assert shares[-1] == MOST
    assert sum(lateness.refuses() for _ in range(100)) in (89, 90)
    lateness.measured(0.1)
    lateness.measured(0.6)
    assert lateness.share == pytest.approx(0.8), "one on time takes a step back"


def test_a_share_ends_at_nothing() -> None:
    lateness = Lateness(0.5)
    for _ in range(100):
        lateness.measured(0.6)
    for _ in range(10):
        lateness.measured(0.5)
    assert lateness.share == 0.0


def test_a_limit_of_nought_is_none() -> None:
    lateness = Lateness(0.0)
    for _ in range(100):
        lateness.measured(60.0)
    assert lateness.share == 0.0


# -- settings ---------------------------------------------------------------------------


@pytest.mark.usefixtures("bare_environment")
def test_the_limits_of_one_action_and_one_instance_follow_that_of_all() -> None:
    for given, half in ((5000, 2500), (1, 1)):
        settings = Settings(max_in_flight=given)
        assert front_options(settings).max_in_flight_per_action == half
        assert client_options(settings).max_in_flight == half
    settings = Settings(max_in_flight_per_action=0, max_in_flight_per_instance=7)
    assert front_options(settings).max_in_flight_per_action == 0
    assert client_options(settings).max_in_flight == 7


@pytest.mark.usefixtures("bare_environment")
def test_by_default_two_thousand_may_wait_for_one_slow_action() -> None:
    settings = Settings()
    assert settings.effective_max_per_action > 2000
    assert settings.effective_max_per_instance > 2000
    assert settings.effective_max_per_action < settings.max_in_flight
    assert client_options(settings).queue_target == settings.queue_target > 0
    assert front_options(settings).max_loop_lag == settings.max_loop_lag > 0
