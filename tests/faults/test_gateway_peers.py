"""Bad peers behind a whole HTTP front: what callers get, and that nobody else is hurt.

Every fault of the table meets the same caller, with an action that reads and with one that changes
something, alone and with a good instance of the same service beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from fronted import Answer, Fronted
from gateway.front import FrontOptions
from scamp.client import ClientOptions
from scamp.client import health as health_module
from scamp.limits import MAX_INFLIGHT, SILENT_AFTER
from scamp.testing import (
    GO,
    AtHeader,
    Manners,
    PeerRequest,
    Script,
    ScriptedPeer,
    make_identity,
    until,
)
from scamp.testing.manners import beyond_sent, no_advance
from scamp.testing.scripts import (
    bad_line,
    bad_trailer,
    crumbs,
    cut_midway,
    dispatch_failure,
    echo,
    endless,
    events,
    every,
    first,
    hang_up,
    oversized,
    raw,
    shuffled,
    silent,
    slow,
    twice,
    txerr,
)

SMALL: Final = b'{"caller":1}'
LARGE: Final = b'"' + bytes(range(48, 58)) * (MAX_INFLIGHT // 2) + b'"'
"""Five windows."""

Outcome = tuple[int, str]
"""Status and code; for a good answer nothing, or ``cut`` where it ends without its last chunk."""

FINE: Final = frozenset({(200, "")})
CUT: Final = frozenset({(200, "cut")})
LOST: Final = frozenset({(502, "connection_lost")})
BROKE: Final = frozenset({(502, "upstream_protocol")})
OVER: Final = frozenset({(502, "reply_failed")})
LATE: Final = frozenset({(504, "reply_timeout")})
UNDISPATCHED: Final = frozenset({(502, "dispatch_failed")})
NOT_GENUINE: Final = frozenset({(502, "fingerprint_mismatch")})
NOT_THERE: Final = frozenset({(502, "connect_failed")})
WAITED: Final = frozenset({(504, "queue_timeout")})
NO_TLS: Final = frozenset({(504, "connect_timeout")})

OPTIONS: Final = ClientOptions(retry_minimum=1000, max_connections=8, reply_hold=5.0)


@dataclass(frozen=True)
class Fault:
    """What a peer does, and what a caller gets of it."""

    update: frozenset[Outcome]
    """POST of an action that changes something, no other instance there. More than one where it
    hangs on what the network brings first."""
    read: frozenset[Outcome] | None = None
    """The same for one that reads, when that differs."""
    saved: frozenset[Outcome] | None = None
    """For an update, with a good instance, when that differs from `update`."""
    script: Script | AtHeader = echo
    manners: Manners = field(default_factory=Manners)
    body: bytes = SMALL
    answer: bytes | None = None
    """What a good answer is, when not an echo."""
    shows: int = 0


async def begins_and_stops(request: PeerRequest) -> None:
    """Some of the reply, and then nothing any more."""
    await request.open().write(bytes(3 * MAX_INFLIGHT))


def by_action(scripts: dict[str, Script]) -> Script:
    async def script(request: PeerRequest) -> None:
        await scripts.get(request.header["action"], echo)(request)

    return script


async def answers_before_the_end(request: PeerRequest) -> None:
    await request.reply(SMALL)


async def type_unknown(request: PeerRequest) -> None:
    """A message of a type that nobody knows, before the reply."""
    odd = request.connection.open({"type": "shout", "request_id": request.header["request_id"]})
    await odd.write(b"x" * 1000)
    odd.end()
    await echo(request)


CLOSES = frozenset(("ping", "null client_id", "envelope", "request_id", "type"))

FAULTS: Final[dict[str, Fault]] = {
    # What the gateway puts up with.
    "renumbering": Fault(FINE, manners=GO),
    "renumbering, a large body": Fault(FINE, manners=GO, body=LARGE),
    "out of order": Fault(FINE, script=shuffled(4)),
    "slow": Fault(FINE, script=slow(0.05)),
    "oversized DATA": Fault(FINE, script=oversized(1 << 20), answer=bytes(1 << 20)),
    "late ACK": Fault(FINE, manners=Manners(late_ack=True), body=LARGE),
    "closes on PING": Fault(FINE, manners=Manners(closes_on=CLOSES)),
    "closes on null client_id": Fault(FINE, manners=Manners(echoes_ids=False, closes_on=CLOSES)),
    "event messages": Fault(FINE, script=events(100)),
    "a type nobody knows": Fault(FINE, script=type_unknown),
    "one-byte packets": Fault(FINE, script=crumbs(), body=b'"' + b"x" * 20_000 + b'"'),
    "two replies": Fault(FINE, script=twice),
    "an answer before the request has ended": Fault(
        FINE, script=AtHeader(answers_before_the_end), answer=SMALL
    ),
    "then a bare line feed": Fault(FINE, script=bad_line),
    # Never sent: elsewhere, whatever it is.
    "wrong fingerprint": Fault(NOT_GENUINE, saved=FINE, shows=1),
    "says nothing, not even TLS": Fault(NO_TLS, saved=FINE, manners=Manners(shakes_hands=False)),
    "not dispatched": Fault(UNDISPATCHED, saved=FINE, script=dispatch_failure),
    # The request may be out before it is known that nobody will read it.
    "closes at once": Fault(
        LOST | NOT_THERE, saved=LOST | FINE, manners=Manners(closes_at_once=True)
    ),
    # Sent, and maybe executed: elsewhere only what reads.
    "silent": Fault(LATE, script=silent),
    "hangs up": Fault(LOST, script=hang_up),
    "TXERR at once": Fault(OVER, script=txerr()),
    "no packets at all": Fault(BROKE, script=raw(b"HTTP/1.1 200 OK\r\n\r\n")),
    "an ACK of what was never sent": Fault(BROKE, manners=Manners(acks=beyond_sent), body=LARGE),
    "an ACK that is no advance": Fault(BROKE, manners=Manners(acks=no_advance), body=LARGE),
    # Begun: what reads is held for a moment, and saved; anything else may have gone out.
    "TXERR after some": Fault(OVER | CUT, OVER, script=txerr(after=bytes(1000))),
    "cut in a packet": Fault(LOST | CUT, LOST, script=cut_midway(1000)),
    "bad trailer": Fault(BROKE | CUT, BROKE, script=bad_trailer),
    # Begun, and more than is held.
    "TXERR after much": Fault(CUT, script=txerr(after=bytes(4 * MAX_INFLIGHT))),
    "cut after much": Fault(CUT, script=cut_midway(8 * MAX_INFLIGHT)),
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An instance that is out may be tried again at once when there is no other."""
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
    caplog.set_level(logging.CRITICAL)


class Stand:
    """A gateway with a bad peer, maybe a good one of the same service, and a bystander."""

    def __init__(self, gateway: Fronted, bad: ScriptedPeer, good: ScriptedPeer | None) -> None:
        self.gateway = gateway
        self.bad = bad
        self.good = good

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What the access log has of calls to the service in question."""
        return [line for line in self.gateway.log.lines if line["action"] == "Test.echo"]

    async def ask(self, body: bytes, action: str = "Test.echo", seconds: float = 10) -> Answer:
        return await self.gateway.request(
            "POST", f"/api/{action}", [("X-SCAMP-Timeout", str(seconds))], body
        )


@asynccontextmanager
async def standing(
    fault: Fault,
    flags: str,
    *,
    twin: bool = False,
    actions: tuple[str, ...] = ("Test.echo",),
    weight: int = 10**6,
    **changed: Any,
) -> AsyncIterator[Stand]:
    """`weight` is the bad peer's: nearly everything goes there first. `changed`: client options."""
    patience = 10.0 if fault.manners.shakes_hands else 0.2
    options = replace(OPTIONS, connect_timeout=patience, **changed)
    bad = ScriptedPeer(
        fault.script,
        manners=fault.manners,
        flags=flags,
        actions=actions,
        weight=weight,
        shows=make_identity(fault.shows),
    )
    good = ScriptedPeer(flags=flags, identity=make_identity(1)) if twin else None
    by = ScriptedPeer(actions=("By.echo",), flags="noauth", identity=make_identity(2))
    async with Fronted(
        *(peer for peer in (bad, good, by) if peer), client=options, options=front(options)
    ) as gateway:
        stand = Stand(gateway, bad, good)
        async with bystander(stand):
            yield stand
        await left_empty(stand)


def front(options: ClientOptions) -> FrontOptions:
    return FrontOptions(request_timeout=options.request_timeout, body_idle=options.body_idle)


@asynccontextmanager
async def bystander(stand: Stand) -> AsyncIterator[None]:
    """Somebody who calls another service all the while, and is answered every time."""
    over = False

    async def call() -> int:
        count = 0
        while not over:
            body = b'{"by":%d}' % count
            answer = await stand.ask(body, "By.echo")
            assert (answer.status, answer.body) == (200, body)
            count += 1
            await asyncio.sleep(0)
        return count

    task = asyncio.create_task(call())
    try:
        yield
    finally:
        over = True
        assert await task


async def left_empty(stand: Stand) -> None:
    """Nothing is remembered of any request."""
    gateway = stand.gateway
    await gateway.mesh.settled()
    assert gateway.front.in_flight == 0
    requester = gateway.mesh.requester
    assert not requester._uploads
    for one in requester._router._instances.values():
        assert one.waiting == 0
        for connection in one.connections:
            channel = connection.channel
            assert channel is not None
            assert connection.in_flight == len(connection._exchanges) == connection._unwanted
            assert channel.open_messages <= connection.in_flight
            assert not channel.stalled


def outcome(answer: Answer) -> Outcome:
    if answer.status == 200:
        return (200, "" if answer.whole else "cut")
    return (answer.status, answer.json()["code"])


def expected(fault: Fault, flags: str, *, twin: bool) -> frozenset[Outcome]:
    update = "update" in flags
    alone = fault.update if update or fault.read is None else fault.read
    if not twin:
        return alone
    if update:
        return fault.saved or alone
    retried = alone not in (FINE, CUT, LATE) and len(fault.body) <= MAX_INFLIGHT
    return FINE if retried else alone


def cells(fault: Fault) -> Iterable[tuple[str, bool]]:
    """Flag, and whether there is a good instance too: those in which it makes a difference."""
    if fault.update is FINE:
        return [("update", False)]
    cells = [("update", True), ("read", False), ("read", True)]
    return cells if fault.saved is None else [("update", False), *cells]


CELLS: Final = [
    pytest.param(fault, f"noauth,{flag}", twin, id=f"{name}-{flag}-{'twin' if twin else 'alone'}")
    for name, fault in FAULTS.items()
    for flag, twin in cells(fault)
]


@pytest.mark.parametrize(("fault", "flags", "twin"), CELLS)
async def test_what_a_caller_gets_of_it(fault: Fault, flags: str, twin: bool) -> None:
    async with standing(fault, flags, twin=twin) as stand:
        answer = await stand.ask(fault.body, seconds=0.3 if fault.update is LATE else 10)
        assert outcome(answer) in expected(fault, flags, twin=twin)
        saved = stand.good is not None and stand.good.requests == 1
        if outcome(answer) in FINE:
            wanted = fault.body if saved or fault.answer is None else fault.answer
            assert answer.body == wanted
        if "update" in flags and fault.script is not dispatch_failure:
            assert stand.bad.requests + saved <= 1
        assert (stand.bad.upset, stand.bad.pings) == ({}, 0)
        if fault.shows:
            assert stand.bad.bytes_received == 0
        await until(lambda: stand.lines)
        assert [line["status"] for line in stand.lines] == [answer.status]


# -- many callers -------------------------------------------------------------------------

MIXED: Final[dict[str, tuple[Script, Manners]]] = {
    "renumbering, some silent": (every(11, silent), GO),
    "renumbering, some broken off": (every(7, txerr(after=bytes(10))), GO),
    "some silent": (every(11, silent), Manners()),
    "some late": (every(5, slow(0.3)), Manners()),
    "out of order": (shuffled(4), Manners()),
    "some lost": (every(13, hang_up), Manners()),
    "some lost in a packet": (every(13, cut_midway(50_000)), Manners()),
    "some broken off": (every(5, txerr(after=bytes(70_000))), Manners()),
    "some with a bad trailer": (every(13, bad_trailer), Manners()),
    "some answered twice": (every(3, twice), Manners()),
    "events between": (every(2, events(5)), Manners()),
}


@pytest.mark.parametrize(("script", "manners"), MIXED.values(), ids=MIXED)
async def test_whatever_fails_nothing_crosses(script: Script, manners: Manners) -> None:
    """Sixteen callers with bodies of their own: who gets a whole answer gets his own."""
    async with standing(Fault(FINE, script=script, manners=manners), "noauth,update") as stand:
        assert (await stand.ask(SMALL)).status in (200, 502)
        right = 0

        async def caller(number: int) -> None:
            nonlocal right
            for count in range(12):
                body = b'{"caller":%d,"count":%d}' % (number, count)
                answer = await stand.ask(body, seconds=0.2)
                if outcome(answer) in FINE:
                    assert answer.body == body
                    right += 1
                else:
                    assert outcome(answer) in CUT | LOST | BROKE | OVER | LATE | WAITED

        await asyncio.gather(*(caller(number) for number in range(16)))
        assert right > 16
        assert set(stand.bad.executed.values()) == {1}


# -- replies that take their time ---------------------------------------------------------


async def test_a_reply_without_an_end_is_over_when_its_client_leaves() -> None:
    """What is under way is bounded; the connection serves the others until it is too much."""
    fault = Fault(FINE, script=by_action({"Test.endless": endless(bytes(10_000))}))
    async with standing(fault, "noauth,update", actions=("Test.echo", "Test.endless")) as stand:
        assert (await stand.ask(SMALL)).body == SMALL
        for leaves_after in (1, 3 * MAX_INFLIGHT):
            wire = await stand.gateway.connect()
            wire.send("POST", "/api/Test.endless", body=b"{}")
            assert (await wire.head())[0] == 200
            read = 0
            while read < leaves_after:
                read += len(await wire.chunk())
            await wire.close()
            assert (await stand.ask(SMALL)).body == SMALL
        await until(lambda: stand.gateway.front.in_flight == 0)
        assert [line["status"] for line in stand.gateway.log.lines].count(499) == 2


async def test_a_reply_that_stands_still_is_cut_after_the_idle_limit() -> None:
    fault = Fault(FINE, script=by_action({"Test.stops": begins_and_stops}))
    async with standing(
        fault, "noauth,update", actions=("Test.echo", "Test.stops"), body_idle=0.2
    ) as stand:
        assert (await stand.ask(SMALL)).body == SMALL
        answer = await stand.ask(SMALL, "Test.stops")
        assert outcome(answer) in CUT
        assert len(answer.body) == 3 * MAX_INFLIGHT
        assert (await stand.ask(SMALL)).body == SMALL
        assert stand.bad.accepted == 2, "the connection that stood still takes nothing new"


@pytest.mark.parametrize("size", [10, 1000])
async def test_a_read_that_was_cut_comes_whole_and_with_its_length(size: int) -> None:
    """Nobody can tell it from one that came at once."""
    halves = first(1, cut_midway(size))
    async with standing(Fault(FINE, script=halves), "noauth,read") as stand:
        answer = await stand.ask(SMALL)
        assert (answer.status, answer.body, answer.whole) == (200, SMALL, True)
        assert answer.headers["Content-Length"] == str(len(SMALL))
        assert "Transfer-Encoding" not in answer.headers
        await until(lambda: stand.lines)
        assert stand.lines[0]["attempts"] == 2


# -- instances that hang ------------------------------------------------------------------


async def test_an_instance_that_hangs_gets_no_more_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It accepts connections and answers nothing; that costs those that it has, and no more."""
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 60.0)
    async with standing(Fault(FINE), "noauth,update", twin=True, request_timeout=1.0) as stand:

        async def call(number: int) -> int:
            body = b"[%d]" % number
            answer = await stand.gateway.request("POST", "/api/Test.echo", body=body)
            assert answer.status == 504 or answer.body == body
            return answer.status

        assert await call(0) == 200
        assert stand.bad.requests == 1
        stand.bad.script = silent
        statuses = await asyncio.gather(*(call(number) for number in range(4 * SILENT_AFTER)))
        assert statuses.count(504) >= SILENT_AFTER
        assert stand.gateway.mesh.views()[0].state == "out"
        assert [await call(number) for number in range(10)] == [200] * 10


async def test_pings_to_a_peer_that_closes_on_them_cost_only_its_own_calls() -> None:
    """A mistake in the configuration: it shows, and nobody else is hurt."""
    fault = Fault(LOST, script=silent, manners=Manners(closes_on=CLOSES))
    async with standing(
        fault, "noauth,update", ping_services=("peer",), ping_interval=0.1
    ) as stand:
        assert outcome(await stand.ask(SMALL)) in LOST
        assert stand.bad.upset == {"ping": 1}
