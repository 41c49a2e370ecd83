"""Any messages, in any chunking, between two sides joined back to back."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from string import ascii_letters

from hypothesis import given, settings
from hypothesis import strategies as st

from scamp.limits import MAX_OPEN_MESSAGES
from scamp.wire import (
    DataReceived,
    Event,
    Header,
    MessageEnded,
    MessageFailed,
    MessageStarted,
    ProtocolBroken,
    ReplyHeader,
    RequestHeader,
    Role,
    WireConnection,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAME = st.text(ascii_letters, min_size=1, max_size=10)
REQUESTS = st.builds(
    RequestHeader,
    action=NAME,
    request_id=st.integers(1, 2**31 - 1),
    version=st.integers(1, 1000),
    envelope=NAME,
    ticket=st.none() | NAME,
    identifying_token=st.none() | NAME,
    client_id=st.none() | st.integers(0, 2**53),
)
REPLIES = st.builds(
    ReplyHeader,
    request_id=st.integers(0, 2**53) | TEXT,
    error=TEXT,
    error_code=TEXT,
    error_data=st.none() | st.dictionaries(NAME, st.booleans(), max_size=3),
    extra=st.just({}),
)


@dataclass
class Message:
    """What is sent, and what of it has been."""

    header: Header
    body: bytes
    failure: str
    msgno: int = -1
    sent: int = 0
    done: bool = False


@dataclass
class Received:
    header: Header
    body: bytearray = field(default_factory=bytearray)
    end: str | None = None


def messages(headers: st.SearchStrategy[Header]) -> st.SearchStrategy[list[Message]]:
    failure = st.just("") | NAME
    return st.lists(
        st.builds(Message, headers, st.binary(max_size=60), failure), min_size=1, max_size=5
    )


class Side:
    """One machine, the messages that it sends and those that it got."""

    def __init__(self, role: Role, to_send: list[Message], window: int) -> None:
        self.wire = WireConnection(role, max_inflight=window)
        self.to_send = to_send
        self.got: dict[int, Received] = {}
        self.pipe = b""  # what this side has sent and the other has not read

    def advance(self, data: st.DataObject) -> None:
        """Send a bit of one message that can go on."""
        able = [m for m in self.to_send if not m.done and self._can_go_on(m)]
        if able:
            self._send_some(data.draw(st.sampled_from(able)), data)
        self.pipe += self.wire.data_to_send()

    def _can_go_on(self, message: Message) -> bool:
        left = len(message.body) - message.sent
        return message.msgno < 0 or not left or self.wire.window(message.msgno) > 0

    def _send_some(self, message: Message, data: st.DataObject) -> None:
        left = len(message.body) - message.sent
        if message.msgno < 0:
            message.msgno = self.wire.open_message(message.header)
        elif left:
            most = min(left, self.wire.window(message.msgno))
            size = data.draw(st.integers(1, most))
            self.wire.send_data(message.msgno, message.body[message.sent : message.sent + size])
            message.sent += size
        elif message.failure:
            self.wire.fail_message(message.msgno, message.failure)
            message.done = True
        else:
            self.wire.end_message(message.msgno)
            message.done = True

    def take(self, raw: bytes) -> None:
        for event in self.wire.receive(raw):
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        assert not isinstance(event, ProtocolBroken), event
        if isinstance(event, MessageStarted):
            assert event.msgno == len(self.got)
            self.got[event.msgno] = Received(event.header)
        elif isinstance(event, DataReceived):
            assert event.data
            self.got[event.msgno].body += event.data
            self.wire.consumed(event.msgno, len(event.data))
        elif isinstance(event, MessageEnded):
            self.got[event.msgno].end = ""
        elif isinstance(event, MessageFailed):
            self.got[event.msgno].end = event.text


def move(source: Side, target: Side, data: st.DataObject) -> None:
    """Some of what `source` sent reaches `target`."""
    if source.pipe:
        size = data.draw(st.integers(1, len(source.pipe)))
        chunk, source.pipe = source.pipe[:size], source.pipe[size:]
        target.take(chunk)


def check(sender: Side, receiver: Side) -> None:
    for message in sender.to_send:
        got = receiver.got[message.msgno]
        assert got.header == message.header
        assert bytes(got.body) == message.body
        assert got.end == message.failure


@settings(max_examples=60, deadline=None)
@given(requests=messages(REQUESTS), replies=messages(REPLIES), data=st.data())
def test_every_message_arrives_whole_whatever_the_chunks(
    requests: list[Message], replies: list[Message], data: st.DataObject
) -> None:
    window = data.draw(st.integers(1, 40))
    client = Side(Role.CLIENT, requests, window)
    server = Side(Role.SERVER, replies, window)
    sides = (client, server)
    for _ in range(2000):
        for side, other in (sides, sides[::-1]):
            side.advance(data)
            move(side, other, data)
        if all(m.done for side in sides for m in side.to_send) and not (client.pipe or server.pipe):
            break
    check(client, server)
    check(server, client)
    assert client.wire.at_boundary
    assert server.wire.at_boundary


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_rubbish_never_raises_and_breaks_alike_in_any_chunking(raw: bytes, cuts: list[int]) -> None:
    assert_same_in_chunks(raw, cuts)


FRAGMENTS = st.sampled_from(
    [
        b'HEADER 0 31\r\n{"action":"a.b","request_id":1}END\r\n',
        b'HEADER 1 31\r\n{"action":"a.b","request_id":1}END\r\n',
        b"DATA 0 3\r\nabcEND\r\n",
        b"DATA 0 3\r\nabc",
        b"EOF 0 0\r\nEND\r\n",
        b"TXERR 0 1\r\neEND\r\n",
        b"ACK 0 1\r\n1END\r\n",
        b"PING 0 0\r\nEND\r\n",
        b"END\r\n",
        b"\r\n",
        b"x",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12),
    cuts=st.lists(st.integers(0, 300), max_size=5),
)
def test_almost_right_bytes_break_alike_in_any_chunking(
    parts: list[bytes], cuts: list[int]
) -> None:
    assert_same_in_chunks(b"".join(parts), cuts)


def assert_same_in_chunks(raw: bytes, cuts: list[int]) -> None:
    whole = summary(WireConnection(Role.SERVER).receive(raw))
    wire = WireConnection(Role.SERVER)
    events: list[Event] = []
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for start, stop in pairwise(edges):
        events += wire.receive(raw[start:stop])
    assert summary(events) == whole
    assert wire.open_incoming <= MAX_OPEN_MESSAGES


def summary(events: list[Event]) -> tuple[list[object], dict[int, bytes]]:
    """Events without the cuts in bodies."""
    order: list[object] = []
    bodies: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, DataReceived):
            bodies[event.msgno] = bodies.get(event.msgno, b"") + event.data
        else:
            order.append("broken" if isinstance(event, ProtocolBroken) else event)
    return order, bodies
