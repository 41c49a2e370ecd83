"""The life of a connection in the pool, over real TLS: every transition of its table, and what the
table lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product

import pytest

from scamp.client.connection import ClientConnection
from scamp.client.dialing import Dialer
from scamp.client.exchange import Exchange
from scamp.client.states import ONE_PLACE, SLOT_TRANSITIONS, TAKES_NOTHING, SlotEvent, SlotState
from scamp.client.stats import ClientStats
from scamp.client.traits import PeerKind
from scamp.errors import ConnectionLost, LocalProtocolError
from scamp.testing import AtHeader, Manners, PeerRequest, ScriptedPeer, make_identity, until
from scamp.transport import ChannelState, client_context
from scamp.wire import EncodedHeader, RequestHeader

S, E = SlotState, SlotEvent
PATHS: dict[SlotState, tuple[SlotEvent, ...]] = {
    S.DIALING: (),
    S.PROVING: (E.CONNECTED,),
    S.TRIAL: (E.CONNECTED, E.STARTED),
    S.TRIAL_ALONE: (E.CONNECTED, E.STARTED_ALONE),
    S.SHARED: (E.CONNECTED, E.ECHOES),
    S.EXCLUSIVE: (E.CONNECTED, E.ECHOES, E.STARTED_ALONE),
    S.SERIAL: (E.CONNECTED, E.RENUMBERS),
    S.SERIAL_BUSY: (E.CONNECTED, E.RENUMBERS, E.STARTED),
    S.RETIRED: (E.CONNECTED, E.STARTED, E.RETIRE),
    S.CLOSED: (E.CONNECTED, E.CLOSE),
}
"""How a connection gets there, by what the table has."""

BEFORE: dict[tuple[SlotState, SlotEvent], tuple[SlotEvent, ...]] = {
    (S.SHARED, E.FINISHED): (*PATHS[S.SHARED], E.STARTED),
    (S.RETIRED, E.FINISHED): (*PATHS[S.SHARED], E.STARTED, E.STARTED, E.RETIRE),
    (S.CLOSED, E.FINISHED): (E.CONNECTED, E.STARTED),
    (S.CLOSED, E.CONNECTED): (E.CLOSE,),
}
"""Other ways, where there must be something that can finish or connect."""

STARTS = {E.STARTED, E.STARTED_ALONE}


class Stand:
    """One connection to a peer that answers when it is told to."""

    def __init__(self, *, echoes: bool) -> None:
        self.answer = asyncio.Event()
        self.finish = asyncio.Semaphore(0)
        self.peer = ScriptedPeer(AtHeader(self._script), manners=Manners(echoes_ids=echoes))
        self.seen: list[SlotState] = []
        self.exchanges: list[Exchange] = []
        self.connection = ClientConnection(
            PeerKind.UNKNOWN,
            stats=ClientStats(),
            on_change=lambda connection: self.seen.append(connection.state),
            on_learned=lambda kind: None,
            max_streams=4,
        )

    async def _script(self, request: PeerRequest) -> None:
        await self.answer.wait()
        reply = request.open()
        await self.finish.acquire()
        reply.end()

    async def make_happen(self, event: SlotEvent) -> None:
        connection = self.connection
        if event is E.CONNECTED:
            await self._connect()
        elif event in STARTS:
            await self._start(alone=event is E.STARTED_ALONE)
        elif event in (E.ECHOES, E.RENUMBERS):
            await self._learn(event)
        elif event is E.FINISHED:
            await self._finish()
        elif event is E.RETIRE:
            connection.retire()
        elif event is E.CLOSE:
            connection.close("told to")
        else:
            await self.peer.cut()
            channel = connection.channel
            assert channel is not None
            await until(lambda: channel.state in (ChannelState.LOST, ChannelState.CLOSED))

    async def _connect(self) -> None:
        dialer = Dialer(client_context(), timeout=10.0, sessions=None)
        await dialer.dial(
            self.peer.host,
            self.peer.port,
            make_identity().fingerprint,
            self.connection,
            idle_limit=60,
        )
        await self.peer.until(lambda: self.peer.accepted)

    async def _start(self, *, alone: bool) -> None:
        exchange = self.connection.start(
            lambda number: EncodedHeader(RequestHeader("Test.echo", number)),
            b"{}",
            end=not alone,
            exclusive=alone,
        )
        self.exchanges.append(exchange)
        await self.peer.until(lambda: len(self.peer.headers) == len(self.exchanges))

    async def _learn(self, event: SlotEvent) -> None:
        kind = PeerKind.ECHOES if event is E.ECHOES else PeerKind.RENUMBERS
        if self.exchanges:
            # By a reply. A peer that renumbers answers requests that are complete.
            if kind is PeerKind.RENUMBERS:
                self.exchanges[0].request.end()
                await self.peer.until(lambda: self.peer.requests)
            self.answer.set()
            await until(lambda: self.connection.kind is not PeerKind.UNKNOWN)
        else:
            self.connection.learn(kind)  # by another connection
        assert self.connection.kind is kind

    async def _finish(self) -> None:
        if self.exchanges[0].connection.kind is PeerKind.UNKNOWN:
            self.connection.close("told to")  # the only end of an exchange without a reply
        else:
            self.answer.set()
            self.exchanges[0].request.end()
            self.finish.release()
            await until(lambda: self.exchanges[0].reply and self.exchanges[0].reply.ended)
            self.connection.request_ended(self.exchanges[0])
        assert self.exchanges[0].finished


@asynccontextmanager
async def stand(*events: SlotEvent) -> AsyncIterator[Stand]:
    made = Stand(echoes=E.RENUMBERS not in events)
    async with made.peer:
        try:
            yield made
        finally:
            made.connection.close("the test is over")
            if made.connection.channel is not None:
                await made.connection.channel.wait_closed(1)


def name(value: object) -> str:
    assert isinstance(value, S | E)
    return value.name


@pytest.mark.parametrize(("state", "event"), SLOT_TRANSITIONS, ids=name)
async def test_a_connection_moves_by_its_table(state: SlotState, event: SlotEvent) -> None:
    path = BEFORE.get((state, event), PATHS[state])
    async with stand(*path, event) as made:
        connection = made.connection
        for one in path:
            await made.make_happen(one)
        if (state, event) != (S.CLOSED, E.FINISHED):
            assert connection.state is state
        await made.make_happen(event)
        after = SLOT_TRANSITIONS[state, event]
        if after is S.RETIRED and not connection.in_flight:
            assert made.seen == [S.RETIRED, S.CLOSED], "with nothing to finish it closes at once"
        else:
            assert connection.state is after


@pytest.mark.parametrize("state", S, ids=name)
async def test_what_a_state_means_for_the_pool(state: SlotState) -> None:
    async with stand(*PATHS[state]) as made:
        for one in PATHS[state]:
            await made.make_happen(one)
        connection = made.connection
        assert connection.state is state
        assert connection.room == (4 if state is S.SHARED else state in ONE_PLACE)
        assert connection.empty is (state is S.SHARED or state in ONE_PLACE)
        takes_some = any((state, event) in SLOT_TRANSITIONS for event in STARTS)
        assert (connection.room > 0) is takes_some
        if state in TAKES_NOTHING:
            assert not connection.room


ABSENT = [pair for pair in product(S, E) if pair not in SLOT_TRANSITIONS]


@pytest.mark.parametrize(("state", "event"), ABSENT, ids=name)
async def test_what_the_table_lacks_is_refused(state: SlotState, event: SlotEvent) -> None:
    async with stand(*PATHS[state]) as made:
        for one in PATHS[state]:
            await made.make_happen(one)
        connection = made.connection
        if event in STARTS:
            with pytest.raises(ConnectionLost) as caught:
                await made.make_happen(event)
            assert not caught.value.written
            assert len(made.peer.headers) == len(made.exchanges)
        else:
            with pytest.raises(LocalProtocolError):
                connection._move(event)
        assert connection.state is state


async def test_a_shared_connection_with_a_request_is_not_had_alone() -> None:
    async with stand() as made:
        for event in (E.CONNECTED, E.ECHOES, E.STARTED):
            await made.make_happen(event)
        with pytest.raises(ConnectionLost):
            await made.make_happen(E.STARTED_ALONE)
        assert made.connection.state is S.SHARED


async def test_a_connection_given_up_while_it_was_dialled_closes_as_soon_as_it_is_open() -> None:
    async with stand() as made:
        made.connection.retire()
        await made.make_happen(E.CONNECTED)
        channel = made.connection.channel
        assert channel is not None
        await until(lambda: channel.state is ChannelState.CLOSED)
        await made.peer.until(lambda: not made.peer.connections)


async def test_what_is_learned_twice_changes_nothing() -> None:
    async with stand() as made:
        for event in (E.CONNECTED, E.ECHOES):
            await made.make_happen(event)
        made.connection.learn(PeerKind.RENUMBERS)
        made.connection.learn(PeerKind.UNKNOWN)
        assert made.connection.kind is PeerKind.ECHOES
        assert made.connection.state is S.SHARED
