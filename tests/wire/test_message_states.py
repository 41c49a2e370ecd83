"""The life of a message, step by step, in both directions: what the table has and what not."""

from __future__ import annotations

from itertools import product

import pytest

from scamp.errors import LocalProtocolError
from scamp.wire import (
    TRANSITIONS,
    AckPacket,
    DataPacket,
    EofPacket,
    Event,
    Header,
    HeaderPacket,
    MessageEnded,
    MessageFailed,
    MessageState,
    OutgoingPacket,
    PacketType,
    ProtocolBroken,
    ReplyHeader,
    RequestHeader,
    Role,
    TxErrPacket,
    WireConnection,
)

HEADERS: dict[Role, Header] = {Role.CLIENT: RequestHeader("a.b", 1), Role.SERVER: ReplyHeader(1)}
OTHER = {Role.CLIENT: Role.SERVER, Role.SERVER: Role.CLIENT}
PAIRS = [
    pair
    for pair in product(MessageState, PacketType)
    if pair[1] not in (PacketType.PING, PacketType.PONG)
]
PATHS = {
    MessageState.UNSEEN: (),
    MessageState.OPEN: (PacketType.HEADER, PacketType.DATA),
    MessageState.ENDED: (PacketType.HEADER, PacketType.DATA, PacketType.EOF),
    MessageState.FAILED: (PacketType.HEADER, PacketType.DATA, PacketType.TXERR),
}
"""How message 0 gets there."""


def packet(kind: PacketType, sender: Role) -> OutgoingPacket:
    made: dict[PacketType, OutgoingPacket] = {
        PacketType.HEADER: HeaderPacket(0, HEADERS[sender]),
        PacketType.DATA: DataPacket(0, b"xyz"),
        PacketType.EOF: EofPacket(0),
        PacketType.TXERR: TxErrPacket(0, "gone"),
        PacketType.ACK: AckPacket(0, 3),
    }
    return made[kind]


def send(wire: WireConnection, kind: PacketType) -> None:
    if kind is PacketType.HEADER:
        wire.open_message(HEADERS[wire.role])
    elif kind is PacketType.DATA:
        wire.send_data(0, b"xyz")
    elif kind is PacketType.EOF:
        wire.end_message(0)
    else:
        wire.fail_message(0, "gone")


def state_of(wire: WireConnection, events: list[Event]) -> MessageState:
    """Where the peer's only message stands."""
    if wire.open_incoming:
        return MessageState.OPEN
    if any(isinstance(event, MessageEnded) for event in events):
        return MessageState.ENDED
    failed = any(isinstance(event, MessageFailed) for event in events)
    return MessageState.FAILED if failed else MessageState.UNSEEN


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "kind"), PAIRS)
def test_what_the_peer_sends(role: Role, state: MessageState, kind: PacketType) -> None:
    """Its own message, or an ACK for ours."""
    wire = WireConnection(role)
    events: list[Event] = []
    for one in PATHS[state]:
        if kind is PacketType.ACK:
            send(wire, one)
        else:
            events += wire.receive(packet(one, OTHER[role]).encode())
    got = wire.receive(packet(kind, OTHER[role]).encode())
    broken = any(isinstance(event, ProtocolBroken) for event in got)
    assert broken is ((state, kind) not in TRANSITIONS)
    if broken:
        assert got == [got[-1]], "nothing of it is told"
    elif kind is PacketType.ACK:
        assert wire.open_outgoing == (state is MessageState.OPEN)
    else:
        assert state_of(wire, events + got) is TRANSITIONS[state, kind]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "kind"), [p for p in PAIRS if p[1] is not PacketType.ACK])
def test_what_we_are_asked_to_send(role: Role, state: MessageState, kind: PacketType) -> None:
    wire = WireConnection(role)
    peer = WireConnection(OTHER[role])
    for one in PATHS[state]:
        send(wire, one)
    events = peer.receive(wire.data_to_send())
    if kind is PacketType.HEADER and state is not MessageState.UNSEEN:
        send(wire, kind)  # cannot be asked for: it is another message, with the next number
        assert peer.receive(wire.data_to_send())[0].msgno == 1  # type: ignore[union-attr]
    elif (state, kind) in TRANSITIONS:
        send(wire, kind)
        events += peer.receive(wire.data_to_send())
        assert state_of(peer, events) is TRANSITIONS[state, kind]
        assert wire.open_outgoing == peer.open_incoming
    else:
        with pytest.raises(LocalProtocolError, match="message 0, which"):
            send(wire, kind)
        assert not wire.has_data_to_send


# How a message ended is forgotten with it: FAILED is looked up as ENDED.
LOOKED_UP = [key for key in TRANSITIONS if key[0] is not MessageState.FAILED]


@pytest.mark.parametrize("key", LOOKED_UP, ids=lambda key: f"{key[0].name}-{key[1].name}")
def test_the_code_runs_from_the_table(
    key: tuple[MessageState, PacketType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one of its entries, both sides refuse what it stood for."""
    state, kind = key
    assert isinstance(TRANSITIONS, dict)
    wire, ours = WireConnection(Role.SERVER), WireConnection(Role.SERVER)
    for one in PATHS[state]:
        if kind is PacketType.ACK:
            send(wire, one)
        else:
            wire.receive(packet(one, Role.CLIENT).encode())
            send(ours, one)
    monkeypatch.delitem(TRANSITIONS, key)
    (event,) = wire.receive(packet(kind, Role.CLIENT).encode())
    assert isinstance(event, ProtocolBroken)
    if kind is not PacketType.ACK:
        with pytest.raises(LocalProtocolError):
            send(ours, kind)


@pytest.mark.parametrize("state", [MessageState.ENDED, MessageState.FAILED])
def test_there_is_no_way_back(state: MessageState) -> None:
    assert {after for (before, _), after in TRANSITIONS.items() if before is state} == {state}


def test_both_ends_of_a_message_are_alike() -> None:
    ended, failed = (
        {event for before, event in TRANSITIONS if before is state}
        for state in (MessageState.ENDED, MessageState.FAILED)
    )
    assert ended == failed
