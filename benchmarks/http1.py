"""As little HTTP as a load generator needs: requests as bytes, answers, kept connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: a POST of `body`, which is to come back.

    With `tickets`, each request has the next of them, and the first again after the last.
    """

    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    tickets: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Into a file, since a body may be too long for a command line."""
        path.write_text(json.dumps({**asdict(self), "body": self.body.decode()}))

    @classmethod
    def read(cls, path: Path) -> Target:
        facts = json.loads(path.read_text())
        headers = tuple((name, value) for name, value in facts["headers"])
        return cls(facts["url"], facts["body"].encode(), headers, tuple(facts["tickets"]))


def bearer(ticket: str) -> tuple[str, str]:
    """The header that carries a ticket."""
    return ("Authorization", f"Bearer {ticket}")


def request_bytes(target: Target, *more: tuple[str, str]) -> bytes:
    """The request as it goes over the wire, with `more` headers."""
    parts = urlsplit(target.url)
    headers = (
        ("Host", parts.netloc),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(target.body))),
        *target.headers,
        *more,
    )
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + target.body


def all_requests(target: Target) -> list[bytes]:
    """One for each ticket, or the only one."""
    tickets = target.tickets
    return [request_bytes(target, bearer(ticket)) for ticket in tickets] or [request_bytes(target)]


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it.

    `answered` is called with it, status and body; with status 0 when the connection ends instead.
    """

    def __init__(self, answered: Callable[[Connection, int, bytes], None]) -> None:
        self.intended = 0.0
        """When the request should have been sent, for those who go by that."""
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._waiting = False

    @property
    def connected(self) -> bool:
        return self._transport is not None

    async def connect(self, url: str) -> None:
        parts = urlsplit(url)
        await asyncio.get_running_loop().create_connection(
            lambda: self, parts.hostname or "", parts.port or 80
        )

    def ask(self, wire: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self._waiting = True
        self._transport.write(wire)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        answer = read_answer(data)
        if answer is None:
            self._held = data
            return
        self._held = b""
        self._waiting = False
        self._answered(self, *answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._held = b""
        if self._waiting:
            self._waiting = False
            self._answered(self, 0, b"")


def read_answer(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of the HTTP answer that is all of `data`; None while it is not complete."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head, body = data[:head_end].lower(), data[head_end + 4 :]
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        line_end = head.find(b"\r\n", at + 2)
        size = int(head[at + 17 : line_end if line_end >= 0 else None])
        return None if len(body) < size else (int(head[9:12]), body)
    if not body.endswith(b"0\r\n\r\n"):
        return None
    return int(head[9:12]), _without_chunks(body)


def _without_chunks(body: bytes) -> bytes:
    whole, at = b"", 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end].partition(b";")[0], 16)
        if not size:
            return whole
        whole += body[line_end + 2 : line_end + 2 + size]
        at = line_end + 2 + size + 2
