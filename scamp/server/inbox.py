"""What clients send besides requests: subscriptions and notices."""

from __future__ import annotations

import logging
from typing import Protocol

import orjson

from scamp import logs
from scamp.errors import RemoteProtocolError, RequestAborted, ScampError
from scamp.limits import MAX_CLIENT_MESSAGE, MAX_CLIENT_MESSAGES
from scamp.server.notices import Notices
from scamp.server.subscriptions import Board, Subscriber
from scamp.transport import Channel, IncomingMessage
from scamp.transport.intake import Intake, whole
from scamp.wire import NotifyHeader, SubscribeHeader
from scamp.wire.subdata import parse_filter

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.server"))


class Audience(Protocol):
    """What the connections of a service share here."""

    board: Board
    notices: Notices


class Inbox:
    """``subscribe`` and ``notify`` messages of one connection, in the order of their HEADERs."""

    def __init__(self, audience: Audience, channel: Channel) -> None:
        self._audience = audience
        self._channel = channel
        self._intake = Intake(
            self._on_message,
            lambda: channel.abort("too much in subscribe and notify messages that do not end"),
            limit=MAX_CLIENT_MESSAGE,
            total=MAX_CLIENT_MESSAGES,
        )
        self._subscribed = 0
        self.subscriber: Subscriber = Subscriber(audience.board, channel)

    def add(self, message: IncomingMessage) -> None:
        """Take a message whose HEADER has come."""
        self._intake.add(message)

    def end(self) -> None:
        """The connection is over. Notices that have come are handled all the same."""
        self.subscriber.end()

    def _on_message(self, message: IncomingMessage, body: bytes | ScampError) -> None:
        header = message.header
        if isinstance(header, SubscribeHeader):
            if not self._channel.closing and not isinstance(body, RequestAborted):
                self._on_subscribe(header, body)
        elif isinstance(header, NotifyHeader):
            self._on_notify(body)

    def _on_notify(self, body: bytes | ScampError) -> None:
        peer = self._channel.address
        try:
            data = orjson.loads(whole(body))
        except (RemoteProtocolError, orjson.JSONDecodeError) as exc:
            log.error("%s sent a notify message that is of no use: %s", peer, exc)
            return
        self._audience.notices.add(self, peer, data)

    def _on_subscribe(self, header: SubscribeHeader, body: bytes | ScampError) -> None:
        try:
            codes = parse_filter(whole(body))
        except RemoteProtocolError as exc:
            log.error("%s cannot subscribe: %s", self._channel.address, exc)
            self.subscriber.unsubscribe(header.request_id, accepted=False)
        else:
            if codes is None:
                self.subscriber.unsubscribe(header.request_id, accepted=True)
            elif self._permits(header, codes):
                self.subscriber.subscribe(codes, header.request_id)
            else:
                self.subscriber.unsubscribe(header.request_id, accepted=False)
        self._hold_open()

    def _permits(self, header: SubscribeHeader, codes: tuple[str, ...]) -> bool:
        ticket = header.extra.get("ticket")
        peer = self._channel.address
        if self._audience.board.permits(peer, codes, ticket if isinstance(ticket, str) else None):
            return True
        log.warning("%s may not subscribe to %r", peer, ", ".join(codes)[:200])
        return False

    def _hold_open(self) -> None:
        """A subscription keeps the connection from being closed as idle: whether the client PINGs
        is its own affair, and TCP finds out when it is dead."""
        subscribed = int(bool(self.subscriber.codes))
        self._channel.busy += subscribed - self._subscribed
        self._subscribed = subscribed
