"""What goes on at a service: who is connected, what is in flight, and how that comes to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from scamp.limits import CLOSE_TIMEOUT
from scamp.server.actions import ActionTable
from scamp.server.connection import KnowsPrivileges, ServerConnection, VerifiesTickets
from scamp.server.listener import Listener
from scamp.server.notices import Notices
from scamp.server.subscriptions import Board
from scamp.transport import Channel


class Traffic:
    """The service as its connections know it (`scamp.server.connection.Site`): what they serve,
    whom they may admit, and whom they tell what they do. Ends all of it when the service stops.
    """

    def __init__(
        self,
        max_requests: int,
        ticket_verifier: VerifiesTickets | None,
        require_tickets: bool,
        authz: KnowsPrivileges | None,
    ) -> None:
        self.actions: ActionTable = ActionTable()
        self.ticket_verifier = ticket_verifier
        self.require_tickets = require_tickets
        self.authz = authz
        self.board: Board = Board()
        self.notices: Notices = Notices(self.moved)
        self.connections: set[ServerConnection] = set()
        self.in_flight: int = 0
        self.requests: int = 0
        """Requests begun so far."""
        self.listener: Listener | None = None
        """None before the service listens; it is to call `moved` after each handshake."""
        self._max_requests = max_requests
        self._moved = asyncio.Event()
        self._closed = False

    # -- for connections ----------------------------------------------------------------

    def admit(self, connection: ServerConnection) -> bool:
        """A connection is open; False: it must be closed."""
        if not self._closed:
            self.connections.add(connection)
        return not self._closed

    def refusal(self) -> str:
        """Why no request may begin now; empty when it may."""
        if self._closed:
            return "the service has stopped"
        if self.in_flight >= self._max_requests:
            return f"more than {self._max_requests} requests at once"
        return ""

    def request_began(self) -> None:
        """One more is in flight."""
        self.in_flight += 1
        self.requests += 1

    def request_ended(self) -> None:
        """One less is."""
        self.in_flight -= 1
        self.moved()

    def connection_lost(self, connection: ServerConnection) -> None:
        """The connection is over, or was refused by `admit`."""
        self.connections.discard(connection)
        if self.listener is not None and connection.channel is not None:
            self.listener.forget(connection.channel)
        self.moved()

    def moved(self) -> None:
        """Something has ended: whoever waits for that is to look."""
        self._moved.set()

    # -- ending -------------------------------------------------------------------------

    async def end(self, grace: float, linger: float) -> None:
        """End all of it, see `Service.stop`. Does nothing where nobody listens."""
        if self.listener is None:
            return
        now = asyncio.get_running_loop().time
        end = now() + max(0.0, grace)
        try:
            await self._wait_until(lambda: self._closed, min(end, now() + linger))
            self.listener.close()
            await self._wait_until(lambda: not self.in_flight and not self.notices.held, end)
            self._closed = True
            self.listener.abandon()
            await self._cancel_requests()
            for channel in self._channels():
                channel.close("the service has stopped")
            await self._wait_until(self._deserted, now() + CLOSE_TIMEOUT)
        except BaseException:
            self.notices.cancel()  # requests end with their connections
            raise
        finally:
            self._closed = True
            self.moved()
            self.listener.close()
            self.listener.abandon()
            for channel in self._channels():
                channel.abort("the service has stopped")
        await self._wait_until(self._deserted, now() + CLOSE_TIMEOUT)

    def _channels(self) -> list[Channel]:
        return [one.channel for one in self.connections if one.channel is not None]

    def _deserted(self) -> bool:
        """Nobody is connected and nobody is about to be."""
        return not self.connections and not (self.listener and self.listener.handshaking)

    async def _cancel_requests(self) -> None:
        tasks: list[asyncio.Task[None]] = self.notices.cancel()
        for connection in list(self.connections):
            connection.cancel_all()
            tasks += connection.tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)

    async def _wait_until(self, done: Callable[[], bool], end: float) -> None:
        """Wait for `done`, looked at whenever a request or connection ends, at most until `end`."""
        try:
            async with asyncio.timeout_at(end):
                while not done():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return
