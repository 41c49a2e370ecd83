"""The public listener's HTTP server: aiohttp's low-level one, with our limits and our errors.

The process' lifecycle wires it up so::

    front = Front(registry, requester, ..., options)
    server = public_server(front)
    runner = web.ServerRunner(server)
    await runner.setup()                     # then web.TCPSite or web.SockSite on the runner

    front.draining = True                    # answers say Connection: close from now on
    await site.stop()                        # nothing new
    server.retire(began, linger)             # ends idle connections; again until server.settled
    await server.cut_off()                   # what is left is told 503, or cut
    await runner.cleanup()

`handler_cancellation` is on: a client that leaves cancels its request. A half-closed connection
counts as left. Access log lines are written by the front, not by aiohttp.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway import catalogue
from gateway.connection import Connection
from gateway.front import Front
from gateway.problems import Problem, quotable

MAX_TARGET: Final = 16 * 1024
"""Characters in a request line."""

MAX_FIELD: Final = 12 * 1024
"""Characters in one header field; a ticket may have 8 KiB. Not the same number as `MAX_TARGET`:
aiohttp's error tells by its limit only which of the two was too long."""

MAX_FIELDS: Final = 100
"""Header fields in one request."""

READ_BUFFER: Final = 64 * 1024
"""Body bytes that aiohttp holds before it stops reading; up to twice that much arrives."""

MAX_CANDIDATES: Final = 512
"""Idle connections that are found in one look, to be closed one by one when room is needed."""

MIN_IDLE: Final = 1.0
"""Seconds after which a connection without a request gives way to a new one."""

_LOOK_AGAIN: Final = 0.25
"""Seconds after a look; each goes over all connections."""

_TURNS: Final = 3
"""Of the loop, until the handler has begun: cancelled before, it would say nothing to anybody."""

log = logging.getLogger("gateway.public")


class Protocol(Connection):
    """One connection. What aiohttp itself refuses becomes a problem document too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what never reached the front: bytes that are no HTTP request."""
        server = self._manager
        if not isinstance(server, PublicServer):  # the connection is gone
            raise ConnectionResetError("the client has left")
        return server.front.refuse(request, _problem_of(status, exc))


class PublicServer(web.Server):
    """A factory of `Protocol`s, to be given to ``web.ServerRunner``."""

    def __init__(self, front: Front, **options: Any) -> None:
        super().__init__(front.handle, handler_cancellation=True, **options)
        self.front = front
        self._options = options
        self._idle: deque[tuple[float, Connection]] = deque()
        self._look_at = 0.0

    @property
    def settled(self) -> bool:
        """Whether no connection has anything under way or to be sent."""
        return all(one.settled for one in self._own())

    def retire(self, began: float, linger: float) -> bool:
        """End connections that have waited for a request for `linger` seconds since `began`, in
        the loop's time. True when none is left that waits."""
        latest = asyncio.get_running_loop().time() - linger
        left = False
        for one in self._own():
            since = one.idle_since
            if since is not None and max(since, began) <= latest:
                one.retire()
                since = one.idle_since
            left = left or since is not None
        return not left

    def _own(self) -> list[Protocol]:
        return [one for one in self.connections if isinstance(one, Protocol)]

    async def cut_off(self, timeout: float = 1.0) -> None:
        """End what is under way, and every connection; takes little more than `timeout` seconds.

        aiohttp's own `shutdown` cuts connections before it cancels handlers. This way round the
        front can still say 503 to those who have had no byte yet.
        """
        for one in self._own():
            one.hand_over()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        tasks = [task for one in self.connections if (task := one._task_handler) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        await self.shutdown(0.1)

    def __call__(self) -> Protocol:
        """One more connection."""
        idle, clients = self.front.options.body_idle, self.front.clients
        loop = asyncio.get_running_loop()
        fast = self.front.fast
        return Protocol(self, idle=idle, clients=clients, fast=fast, loop=loop, **self._options)

    def make_room(self) -> bool:
        """Close the connection that has been without a request for longest; False when all have
        one, or had one a moment ago."""
        now = asyncio.get_running_loop().time()
        if not self._idle and now >= self._look_at:
            self._look_at = now + _LOOK_AGAIN
            self._idle.extend(
                heapq.nsmallest(MAX_CANDIDATES, self._without_request(now), key=itemgetter(0))
            )
        while self._idle:
            since, one = self._idle.popleft()
            if one.idle_since == since:
                one.force_close()
                return True
        return False

    def _without_request(self, now: float) -> Iterator[tuple[float, Connection]]:
        for one in self._connections:
            if isinstance(one, Connection):
                since = one.idle_since
                if since is not None and now - since >= MIN_IDLE:
                    yield since, one


def public_server(front: Front, **options: Any) -> PublicServer:
    """The server for `front`; `options` are those of aiohttp's ``RequestHandler``."""
    settings: dict[str, Any] = {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": front.clients.limits.keepalive,
        "max_line_size": MAX_TARGET,
        "max_field_size": MAX_FIELD,
        "max_headers": MAX_FIELDS,
        "read_bufsize": READ_BUFFER,
        **options,
    }
    return PublicServer(front, **settings)


def _problem_of(status: int, exc: BaseException | None) -> Problem:
    if isinstance(exc, LineTooLong):
        target = len(exc.args) > 1 and exc.args[1] == MAX_TARGET
        return Problem(catalogue.URI_TOO_LONG if target else catalogue.HEADER_TOO_LARGE, close=True)
    if isinstance(exc, HttpProcessingError):
        if exc.code == 408:
            return Problem(catalogue.HEADER_TIMEOUT, close=True)
        if exc.message.startswith("Too many headers"):
            return Problem(catalogue.HEADER_TOO_LARGE, close=True)
        return Problem(catalogue.MALFORMED, _reason(exc), close=True)
    log.error("a request failed outside of the front (%s)", status, exc_info=exc)
    return Problem(catalogue.INTERNAL, close=True)


def _reason(exc: HttpProcessingError) -> str:
    """What the parser says in words; what it quotes of the request stays out."""
    lines = exc.message.strip().splitlines()
    words = lines[0].partition(":")[0].strip() if lines else ""
    return f"The bytes on the connection are not HTTP/1.1: {quotable(words)}." if words else ""
