"""A script for `ScriptedPeer` that publishes, with the habits of JavaScript services."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from scamp.testing.peer_connection import PeerConnection, PeerReply, PeerRequest
from scamp.wire import PacketType


class Publisher:
    """Answers ``subscribe`` and hears ``notify``; everything else gets no answer.

    Like JavaScript services it sends the HEADERs of the first event and of ``subscribe_done``
    before either body, so that a large event ends after the answer; it publishes a list or an
    object again though it is the same; and a filter of null is answered and changes nothing.

    `answer` is the body of ``subscribe_done``, None for none at all; with `error` set a subscribe
    message gets a reply with that error, as from a service that knows nothing of subscriptions.
    """

    def __init__(
        self,
        values: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        answer: bytes | None = b"true",
        error: str = "",
    ) -> None:
        self.values: dict[str, dict[str, Any]] = {
            code: dict(keys) for code, keys in (values or {}).items()
        }
        self.answer = answer
        self.error = error
        self.first: bytes | None = None
        """Sent as the first event, instead of the values."""
        self.filters: list[Any] = []
        """Bodies of subscribe messages, parsed."""
        self.notices: list[Any] = []
        """Bodies of notify messages, parsed."""
        self._subscribed: dict[PeerConnection, list[str]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def __call__(self, request: PeerRequest) -> None:
        kind = request.header.get("type")
        if kind == "notify":
            self.notices.append(orjson.loads(request.body))
        elif kind == "subscribe" and self.error:
            await request.reply(error_code="bad_request", error=self.error)
        elif kind == "subscribe":
            self._subscribe(request)

    def _subscribe(self, request: PeerRequest) -> None:
        codes = orjson.loads(request.body)
        self.filters.append(codes)
        if codes is not None:
            self._subscribed[request.connection] = codes
            first = self._now(codes) if self.first is None else self.first
            self._send(request.connection, {"type": "event"}, first)
        if self.answer is not None:
            header = {"type": "subscribe_done", "request_id": request.header["request_id"]}
            self._send(request.connection, header, self.answer)

    def _now(self, codes: list[str]) -> bytes:
        return orjson.dumps(
            [
                {"code": code, "key": key, "value": value}
                for code in codes
                for key, value in self.values.get(code, {}).items()
            ]
        )

    def put(self, code: str, key: str, value: Any) -> None:
        """Publish; None deletes."""
        old = self.values.setdefault(code, {}).get(key)
        if old == value and not isinstance(value, list | dict):
            return
        if value is None:
            del self.values[code][key]
        else:
            self.values[code][key] = value
        record = [{"code": code, "key": key, "value": value}]
        for connection, codes in self._subscribed.items():
            if code in codes:
                self._send(connection, {"type": "event"}, orjson.dumps(record))

    def send(self, body: bytes, txerr: str = "") -> None:
        """An event with any body to all who have subscribed; broken off when `txerr` is given."""
        for connection in self._subscribed:
            self._send(connection, {"type": "event"}, body, txerr)

    def _send(
        self, connection: PeerConnection, header: dict[str, Any], body: bytes, txerr: str = ""
    ) -> None:
        if connection.lost.is_set():
            return
        message = connection.open(header)
        task = asyncio.create_task(self._write(connection, message, body, txerr))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _write(
        self, connection: PeerConnection, message: PeerReply, body: bytes, txerr: str
    ) -> None:
        writing = asyncio.create_task(message.write(body))
        lost = asyncio.create_task(connection.lost.wait())
        await asyncio.wait((writing, lost), return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            connection.packet(
                PacketType.TXERR if txerr else PacketType.EOF, message.msgno, txerr.encode()
            )
        writing.cancel()
        lost.cancel()
