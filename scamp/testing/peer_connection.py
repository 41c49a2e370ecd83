"""One connection of a client to a scripted peer, packet by packet, and the requests on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from scamp.errors import RemoteProtocolError
from scamp.limits import MAX_INFLIGHT
from scamp.wire import Packet, PacketReader, PacketType, encode_packet

if TYPE_CHECKING:
    from scamp.testing.peer import ScriptedPeer


class PeerReply:
    """One reply on its way out, packet by packet."""

    def __init__(self, connection: PeerConnection, msgno: int) -> None:
        self._connection = connection
        self.msgno = msgno
        self.sent: int = 0
        self.acked = 0

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, as the peer's manners have it."""
        connection = self._connection
        if not connection.peer.manners.heeds_acks:
            if data:
                connection.packet(PacketType.DATA, self.msgno, data)
            self.sent += len(data)
            await connection.writable()
            return
        start = 0
        while start < len(data):
            room = MAX_INFLIGHT - (self.sent - self.acked)
            if room <= 0:
                await connection.moved()
                continue
            piece = data[start : start + room]
            connection.packet(PacketType.DATA, self.msgno, piece)
            self.sent += len(piece)
            start += len(piece)
            await connection.writable()

    def end(self) -> None:
        """Send the EOF."""
        self._connection.packet(PacketType.EOF, self.msgno)

    def fail(self, text: str) -> None:
        """Send a TXERR."""
        self._connection.packet(PacketType.TXERR, self.msgno, text.encode())


class PeerRequest:
    """One request, as it came, and the means to answer it."""

    def __init__(
        self, connection: PeerConnection, msgno: int, header: dict[str, Any], number: int
    ) -> None:
        self.connection = connection
        self.msgno = msgno
        self.header = header
        self.number = number
        """Counted over the whole peer, from 1, in the order of HEADERs."""
        self.body: bytearray = bytearray()
        self.received = 0
        self.ended: asyncio.Event = asyncio.Event()
        """Set at EOF, at TXERR, and when the connection is lost."""
        self.aborted: str | None = None
        """The text of a TXERR."""

    def open(self, **fields: Any) -> PeerReply:
        """Send a reply HEADER; `fields` replace or add to the usual ones."""
        connection = self.connection
        connection.replies += 1
        echoes = connection.peer.manners.echoes_ids
        request_id = self.header.get("request_id") if echoes else connection.replies
        return connection.open({"type": "reply", "request_id": request_id, **fields})

    async def reply(self, body: bytes = b"{}", **fields: Any) -> None:
        """Send a whole reply; `fields` as in `open`."""
        reply = self.open(**fields)
        await reply.write(body)
        reply.end()

    def acknowledge(self, size: int) -> None:
        """Send an ACK, for peers whose manners send none."""
        self.connection.packet(PacketType.ACK, self.msgno, b"%d" % size)


Script: TypeAlias = Callable[[PeerRequest], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class AtHeader:
    """A script that begins at the request's HEADER instead of its EOF."""

    script: Script


class PeerConnection(asyncio.Protocol):
    """One connection of a client, seen from the scripted peer."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.peer = peer
        self.replies = 0
        """Replies begun; a peer that renumbers takes its ids from here."""
        self.lost: asyncio.Event = asyncio.Event()
        self._reader = PacketReader()
        self._open: dict[int, PeerRequest] = {}
        self._outgoing: list[PeerReply] = []
        self._line: deque[tuple[Script, PeerRequest]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._moved = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    # -- asyncio.Protocol ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.peer.connections.add(self)
        if not self.peer.manners.shakes_hands:
            return
        self.peer.accepted += 1
        if self.peer.manners.closes_at_once:
            self.close()
        self._tell()

    def data_received(self, data: bytes) -> None:
        if not self.peer.manners.shakes_hands:
            return
        self.peer.bytes_received += len(data)
        packets: list[Packet] = []
        try:
            self._reader.feed(data, packets)
            for packet in packets:
                self._on_packet(packet)
        except RemoteProtocolError as exc:
            self.peer.protocol_errors.append(exc.reason)
            self.cut()
        self._tell()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._writable.set()
        self._stop_idling()
        for task in self._running:
            task.cancel()
        for request in self._open.values():
            request.ended.set()
        self.peer.connections.discard(self)
        self._tell()

    def _tell(self) -> None:
        self._moved.set()
        self.peer.tell()

    # -- packets ------------------------------------------------------------------------

    def _on_packet(self, packet: Packet) -> None:
        kind, msgno, body = packet
        if kind is PacketType.HEADER:
            self._on_header(msgno, body)
        elif kind is PacketType.ACK:
            if msgno < len(self._outgoing):
                self._outgoing[msgno].acked = int(body)
                self.peer.acks += 1
        elif kind is PacketType.PING:
            self.peer.pings += 1
            if not self._upset("ping") and self.peer.manners.answers_pings:
                self.packet(PacketType.PONG, msgno)
        elif kind is not PacketType.PONG:
            self._on_body(kind, self._open[msgno], body)

    def _on_header(self, msgno: int, body: bytes) -> None:
        header = orjson.loads(body)
        self.peer.headers.append(header)
        kind, envelope = header.get("type", "request"), header.get("envelope", "json")
        if (
            (kind not in ("request", "reply") and self._upset("type"))
            or ("client_id" in header and not header["client_id"] and self._upset("null client_id"))
            or (envelope not in ("json", "jsonstore") and self._upset("envelope"))
            or (isinstance(header.get("request_id"), str) and self._upset("request_id"))
        ):
            return
        self._stop_idling()
        request = PeerRequest(self, msgno, header, len(self.peer.headers))
        self._open[msgno] = request
        script = self.peer.script_for(header)
        if isinstance(script, AtHeader):
            self._run(script.script, request)

    def _on_body(self, kind: PacketType, request: PeerRequest, body: bytes) -> None:
        if kind is PacketType.DATA:
            request.body += body
            request.received += len(body)
            acked = self.peer.manners.acks(request)
            if acked is not None:
                self.packet(PacketType.ACK, request.msgno, b"%d" % acked)
            return
        del self._open[request.msgno]
        request.ended.set()
        if kind is PacketType.TXERR:
            request.aborted = body.decode()
            self.peer.aborted += 1
            request.body += body
            if not self.peer.manners.acts_on_txerr:
                return
        self.peer.count(bytes(request.body))
        script = self.peer.script_for(request.header)
        if not isinstance(script, AtHeader):
            self._run(script, request)

    def _upset(self, what: str) -> bool:
        if what not in self.peer.manners.closes_on:
            return False
        self.peer.upset[what] += 1
        self.cut()
        return True

    # -- scripts ------------------------------------------------------------------------

    def _run(self, script: Script, request: PeerRequest) -> None:
        self._line.append((script, request))
        if not (self.peer.manners.serial and self._running):
            self._next()

    def _next(self) -> None:
        if not self._line or self.lost.is_set():
            return
        task = asyncio.create_task(self._play(*self._line.popleft()))
        self._running.add(task)
        task.add_done_callback(self._on_played)

    async def _play(self, script: Script, request: PeerRequest) -> None:
        await script(request)
        if self.peer.manners.late_ack and request.received:
            request.acknowledge(request.received)

    def _on_played(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.peer.errors.append(error)
            self.cut()
        if self._line:
            self._next()
        elif not self._running and not self._open:
            self._start_idling()
        self._tell()

    def _start_idling(self) -> None:
        longest = self.peer.manners.idle_close
        if longest is not None and not self.lost.is_set():
            delay = self.peer.rng.uniform(0, longest)
            self._idle = asyncio.get_running_loop().call_later(delay, self._close_idle)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close_idle(self) -> None:
        self.peer.idle_closed += 1
        self.close()

    # -- sending ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write any bytes, right or wrong; nothing once it is closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def packet(self, kind: PacketType, msgno: int, body: bytes = b"") -> None:
        """Write one packet, of any size."""
        self.send(encode_packet(kind, msgno, body))

    def open(self, header: dict[str, Any]) -> PeerReply:
        """Begin a message of any type."""
        reply = PeerReply(self, len(self._outgoing))
        self._outgoing.append(reply)
        self.packet(PacketType.HEADER, reply.msgno, orjson.dumps(header))
        return reply

    def pause_reading(self) -> None:
        """Take nothing more from the client, not even that it closes."""
        if self._transport is not None:
            self._transport.pause_reading()

    async def writable(self) -> None:
        """Wait until the socket takes more."""
        await self._writable.wait()

    async def moved(self) -> None:
        """Wait for the next thing to come from the client."""
        self._moved.clear()
        await self._moved.wait()

    def close(self) -> None:
        """Close as a service does, after what was written."""
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Close without a word; what was not yet sent is lost."""
        if self._transport is not None:
            self._transport.abort()
