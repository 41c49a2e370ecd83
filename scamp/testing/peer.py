"""Services that misbehave on request, over real TLS.

::

    peer = ScriptedPeer(every(200, silent), manners=GO)
    async with Mesh(peer) as mesh:
        reply = await mesh.requester.request("Test.echo", b"[1]")

A `ScriptedPeer` accepts connections, keeps count of everything that it receives, and has each
request answered by a *script* (`scamp.testing.scripts`). `Manners` say how it treats packets.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from scamp import keys
from scamp.discovery import (
    Action,
    Announcement,
    AnnouncementSpec,
    build_announcement,
    new_identity,
    parse_announcement,
)
from scamp.testing.identity import TestIdentity, make_identity
from scamp.testing.manners import ECHOING, Manners
from scamp.testing.peer_connection import AtHeader, PeerConnection, PeerRequest, Script
from scamp.transport import server_context

_BODY_KEY: Final = 128
"""Bodies longer than this are counted by their SHA-256."""


class ScriptedPeer:
    """A service whose every answer is a script's.

    `script` answers all actions, or each its own when it is a mapping by ``Namespace.name``.
    `shows` is the certificate that clients get to see, when it is to be another than announced.
    Keeps all that it counts: for tests, which end. Belongs to one event loop.
    """

    def __init__(
        self,
        script: Script | AtHeader | Mapping[str, Script | AtHeader] | None = None,
        *,
        manners: Manners = ECHOING,
        actions: tuple[str, ...] = ("Test.echo",),
        flags: str = "noauth",
        envelopes: tuple[str, ...] = ("json",),
        sector: str = "main",
        weight: float = 1,
        name: str = "peer",
        identity: TestIdentity | None = None,
        shows: TestIdentity | None = None,
        seed: int = 0,
    ) -> None:
        self.script: Script | AtHeader | Mapping[str, Script | AtHeader] = script or _echo
        self.manners = manners
        self.weight = weight
        self.sector = sector
        self.envelopes = envelopes
        self.actions: tuple[Action, ...] = tuple(self._action(one, flags) for one in actions)
        self.identity: str = new_identity(name)
        self._keys = identity or make_identity()
        self._shows = shows or self._keys
        self._server: asyncio.Server | None = None
        self._moved = asyncio.Event()
        self.rng: random.Random = random.Random(seed)  # noqa: S311 - to be repeatable, not secret
        self.host: str = "127.0.0.1"
        self.port: int = 0
        self.connections: set[PeerConnection] = set()
        self.accepted = 0
        """Connections that finished TLS."""
        self.bytes_received = 0
        """Application bytes: none may come before the client has checked the certificate."""
        self.headers: list[dict[str, Any]] = []
        """Of all requests."""
        self.executed: Counter[bytes] = Counter()
        """How often a complete request with this body (SHA-256 above 128 bytes) has come."""
        self.aborted = 0
        self.acks = 0
        self.pings = 0
        self.idle_closed = 0
        self.upset: Counter[str] = Counter()
        self.protocol_errors: list[str] = []
        """What the client did wrong."""
        self.errors: list[BaseException] = []
        """What scripts raised: a mistake in the test."""

    def _action(self, spelling: str, flags: str) -> Action:
        namespace, _, name = spelling.rpartition(".")
        words = tuple(flag for flag in flags.split(",") if flag)
        return Action(self.sector, namespace, name, 1, words, self.envelopes)

    # -- listening ----------------------------------------------------------------------

    async def listen(self, sock: socket.socket | None = None) -> None:
        """Accept connections, after `stop_listening` at the same port as before.

        `sock` is bound already: for one that is not on this machine's usual network.
        """
        loop = asyncio.get_running_loop()
        tls = None
        if self.manners.shakes_hands:
            tls = server_context(self._shows.certificate, self._shows.key)
        if sock is None:
            self._server = await loop.create_server(
                lambda: PeerConnection(self), self.host, self.port, ssl=tls
            )
        else:
            self._server = await loop.create_server(
                lambda: PeerConnection(self), sock=sock, ssl=tls
            )
        self.host, self.port = self._server.sockets[0].getsockname()[:2]

    def stop_listening(self) -> None:
        """Refuse new connections; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def cut(self) -> None:
        """Cut every connection, and wait until they are gone."""
        while self.connections:
            connection = next(iter(self.connections))
            connection.cut()
            await connection.lost.wait()

    async def stop(self) -> None:
        """Refuse and cut. What scripts raised is raised here."""
        self.stop_listening()
        await self.cut()
        if self.errors:
            raise self.errors[0]

    async def __aenter__(self) -> ScriptedPeer:
        await self.listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    # -- what it says of itself ---------------------------------------------------------

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    def announcement(self, now: float | None = None, *, uri: str | None = None) -> bytes:
        """The signed record, for a cache file; `uri` where it is to be found elsewhere."""
        spec = AnnouncementSpec(
            identity=self.identity,
            sector=self.sector,
            uri=uri or f"beepish+tls://{self.address}",
            envelopes=self.envelopes,
            actions=self.actions,
            weight=self.weight,
            interval=5.0,
        )
        key = keys.load_private_key(self._keys.key)
        stamp = time.time() if now is None else now
        return build_announcement(spec, key, self._keys.certificate, timestamp=stamp)

    def service(self) -> Announcement:
        """The same as a registry holds it."""
        return parse_announcement(self.announcement())

    # -- for connections and tests ------------------------------------------------------

    def script_for(self, header: Mapping[str, Any]) -> Script | AtHeader:
        """The script that answers a request."""
        if isinstance(self.script, Mapping):
            return self.script[header["action"]]
        return self.script

    def count(self, body: bytes) -> None:
        """A complete request has come."""
        self.executed[body_key(body)] += 1

    def tell(self) -> None:
        """Something has happened."""
        self._moved.set()

    async def until(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until `condition` holds; it is looked at whenever something comes or goes.

        Raises TimeoutError after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    @property
    def requests(self) -> int:
        """Complete requests so far."""
        return self.executed.total()


def body_key(body: bytes) -> bytes:
    """What `ScriptedPeer.executed` counts a body under."""
    return body if len(body) <= _BODY_KEY else hashlib.sha256(body).digest()


async def _echo(request: PeerRequest) -> None:
    await request.reply(bytes(request.body))
