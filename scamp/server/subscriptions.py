"""Subscriptions, seen from the service: the values that it publishes, and who is told of them.

A client subscribes on a connection by naming up to 10 codes. It is sent all values under them, then
the answer ``subscribe_done``, and from then on what changes. This is state, not a log: a reader
that is slow misses values in between, never the last one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from scamp import logs
from scamp.errors import ConnectionLost, IdleTimeout, LocalProtocolError
from scamp.limits import (
    EVENT_SIZE,
    MAX_BACKLOG,
    MAX_SUBDATA,
    MAX_SUBDATA_CODES,
    MAX_SUBDATA_KEYS,
    MAX_SUBDATA_VALUE,
    MAX_SUBSCRIBERS,
    MAX_UNSENT_REPLIES,
    SUBSCRIBER_PATIENCE,
)
from scamp.transport import Channel
from scamp.wire import EventHeader, RequestId, SubscribeDoneHeader
from scamp.wire.subdata import NULL, Record, encode_event, encode_record, encode_value, is_name

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.server"))

MaySubscribe: TypeAlias = Callable[[str, tuple[str, ...], str | None], bool]
"""Given the client's address, the codes, and the ticket in the HEADER if there is one."""

_Name: TypeAlias = tuple[str, str]
_Names: TypeAlias = OrderedDict[_Name, None]


class Board:
    """The values that a service publishes. Without I/O; belongs to the service's event loop."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, bytes]] = {}  # encoded, with code and key
        self._count = 0
        self._size = 0
        self._subscribers: set[Subscriber] = set()
        self.may_subscribe: MaySubscribe | None = None

    def publish(self, code: str, key: str, value: Any) -> bool:
        """See `Service.publish`."""
        if not is_name(code) or not is_name(key):
            raise LocalProtocolError("code and key must be strings that are not too long")
        text = encode_value(value)
        if len(text) > MAX_SUBDATA_VALUE:
            raise LocalProtocolError(
                f"value of {len(text)} bytes, the limit is {MAX_SUBDATA_VALUE}"
            )
        record = None if text == NULL else encode_record(Record(code, key, text))
        old = self._records.get(code, {}).get(key)
        if record == old:
            return False
        self._store(code, key, old, record)
        for subscriber in self._subscribers:
            subscriber.changed((code, key))
        return True

    def _store(self, code: str, key: str, old: bytes | None, new: bytes | None) -> None:
        count = self._count + (new is not None) - (old is not None)
        size = self._size + len(new or b"") - len(old or b"")
        if new is not None:
            if count > MAX_SUBDATA_KEYS:
                raise LocalProtocolError(f"more than {MAX_SUBDATA_KEYS} values published")
            if size > MAX_SUBDATA:
                raise LocalProtocolError(f"more than {MAX_SUBDATA} bytes published")
            if code not in self._records and len(self._records) >= MAX_SUBDATA_CODES:
                raise LocalProtocolError(f"more than {MAX_SUBDATA_CODES} codes")
            self._records.setdefault(code, {})[key] = new
        else:
            del self._records[code][key]
            if not self._records[code]:
                del self._records[code]
        self._count, self._size = count, size

    def names(self, codes: tuple[str, ...]) -> Iterator[_Name]:
        """Code and key of every value under `codes`."""
        for code in codes:
            for key in self._records.get(code, ()):
                yield code, key

    def record(self, name: _Name) -> bytes:
        """One value as an event tells it; null when it is gone."""
        code, key = name
        return self._records.get(code, {}).get(key) or encode_record(Record(code, key, NULL))

    # -- who is told --------------------------------------------------------------------

    def permits(self, peer: str, codes: tuple[str, ...], ticket: str | None) -> bool:
        """What the service's own check says; a check that fails permits nothing."""
        if self.may_subscribe is None:
            return True
        try:
            return bool(self.may_subscribe(peer, codes, ticket))
        except Exception:
            log.exception("may_subscribe failed for %s", peer)
            return False

    def join(self, subscriber: Subscriber) -> bool:
        """Tell `subscriber` of changes; False when there are too many already."""
        if subscriber not in self._subscribers and len(self._subscribers) >= MAX_SUBSCRIBERS:
            log.warning("subscription refused: the limit of %d is reached", MAX_SUBSCRIBERS)
            return False
        self._subscribers.add(subscriber)
        return True

    def leave(self, subscriber: Subscriber) -> None:
        """Tell it nothing more."""
        self._subscribers.discard(subscriber)

    def __len__(self) -> int:
        """Connections with a subscription."""
        return len(self._subscribers)


class _Answer:
    """A ``subscribe_done`` to be sent, after the values in `names` if there are to be any."""

    __slots__ = ("accepted", "names", "request_id", "tells")

    def __init__(self, request_id: RequestId | None, *, accepted: bool, names: _Names | None):
        self.request_id = request_id
        self.accepted = accepted
        self.tells = names is not None
        self.names: _Names = names if names is not None else OrderedDict()


class Subscriber:
    """The subscription of one connection: what it is still to be sent.

    Changes are kept as names only; the values are looked up when they can be sent, so a slow reader
    holds no memory but those names and one event. While there is something to send a task does so.
    """

    def __init__(self, board: Board, channel: Channel) -> None:
        self._board = board
        self._channel = channel
        self._changed: _Names = OrderedDict()
        self._answers: deque[_Answer] = deque()
        self.codes: frozenset[str] = frozenset()
        """Empty while there is no subscription."""
        self.task: asyncio.Task[None] | None = None

    # -- what is to be sent -------------------------------------------------------------

    def subscribe(self, codes: tuple[str, ...], request_id: RequestId | None) -> None:
        """Have `codes` from now on, in place of what was subscribed to before."""
        if not self._board.join(self):
            self.unsubscribe(request_id, accepted=False)
            return
        self._forget()
        self.codes = frozenset(codes)
        names: _Names = OrderedDict.fromkeys(self._board.names(codes))
        self._answer(_Answer(request_id, accepted=True, names=names))

    def unsubscribe(self, request_id: RequestId | None, *, accepted: bool) -> None:
        """Have no more events, and say whether that is what was wanted."""
        self._board.leave(self)
        self._forget()
        self._answer(_Answer(request_id, accepted=accepted, names=None))

    def _forget(self) -> None:
        self.codes = frozenset()
        self._changed.clear()
        for answer in self._answers:
            answer.names.clear()

    def changed(self, name: _Name) -> None:
        """A value that may be of interest has changed."""
        if name[0] not in self.codes:
            return
        self._changed[name] = None
        self._changed.move_to_end(name)
        if len(self._changed) > MAX_BACKLOG:
            self._changed.clear()
            self._channel.abort("the subscriber does not keep up")
            return
        self._start()

    def _answer(self, answer: _Answer) -> None:
        if len(self._answers) >= MAX_UNSENT_REPLIES:
            self._channel.abort("the peer does not read its replies")
            return
        self._answers.append(answer)
        self._start()

    def _start(self) -> None:
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._send(), name="scamp subscriber")
            self.task.add_done_callback(self._on_done)

    # -- sending ------------------------------------------------------------------------

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("bug in serving a subscription", exc_info=error)
            self._channel.abort("internal error")

    async def _send(self) -> None:
        try:
            while self._answers or self._changed:
                if self._answers:
                    await self._send_answer(self._answers[0])
                    self._answers.popleft()
                else:
                    await self._send_event(self._changed)
        except IdleTimeout:
            log.warning("%s does not read what it subscribed to", self._channel.address)
            self._channel.abort("the subscriber does not read")
        except ConnectionLost:
            return

    async def _send_answer(self, answer: _Answer) -> None:
        if answer.tells:
            await self._send_event(answer.names)
        while answer.names:
            await self._send_event(answer.names)
        out = self._channel.open_message(SubscribeDoneHeader(answer.request_id))
        await out.write(b"true" if answer.accepted else b"false", SUBSCRIBER_PATIENCE)
        out.end()

    async def _send_event(self, names: _Names) -> None:
        """Send the values under the first of `names`, and strike those out."""
        out = self._channel.open_message(EventHeader())
        await out.drain(SUBSCRIBER_PATIENCE)  # the values are those of when they can be sent
        records: list[bytes] = []
        size = 0
        while names and size < EVENT_SIZE:
            name, _ = names.popitem(last=False)
            self._changed.pop(name, None)
            records.append(self._board.record(name))
            size += len(records[-1])
        for piece in _pieces(records):
            await out.write(piece, SUBSCRIBER_PATIENCE)
        out.end()

    def end(self) -> None:
        """The connection is over; the task, if any, finds out by itself."""
        self._board.leave(self)
        self._forget()


def _pieces(records: list[bytes]) -> Iterator[bytes]:
    """The body of an event; a large value is not copied for each subscriber."""
    if records and len(records[-1]) > EVENT_SIZE:
        yield encode_event(records[:-1])[:-1] + (b"," if len(records) > 1 else b"")
        yield records[-1]
        yield b"]"
    else:
        yield encode_event(records)
