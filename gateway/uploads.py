"""How many uploads may stream to a service at once.

Each has a connection to an instance for itself for as long as its client likes to take: without a
limit below that of connections, a few slow ones would keep everybody else from the service.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

PART: Final = 0.75
"""Of the connections to an instance, what uploads may take."""


class Uploads:
    """Places for them, by service. Nothing is kept of services that have none under way."""

    __slots__ = ("_per_instance", "_rooms")

    def __init__(self, connections: int) -> None:
        """`connections`: how many there may be to one instance."""
        self._per_instance = max(1, int(connections * PART))
        self._rooms: dict[str, _Room] = {}

    def __len__(self) -> int:
        """Services with uploads under way or waiting."""
        return len(self._rooms)

    async def enter(self, service: str, instances: int, seconds: float) -> None:
        """Take a place, in turn; to be given back with `leave`. Safe to cancel.

        Raises TimeoutError when none came free within `seconds`.
        """
        room = self._rooms.setdefault(service, _Room())
        room.size = self._per_instance * max(1, instances)
        if room.used < room.size and not room.waiting:
            room.used += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        room.waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # its turn came as it gave up
                self.leave(service)
            else:
                with suppress(ValueError):  # who left meanwhile may have passed it over
                    room.waiting.remove(turn)
                self._tidy(service, room)
            raise

    def leave(self, service: str) -> None:
        """Give a place back."""
        room = self._rooms[service]
        room.used -= 1
        while room.waiting and room.used < room.size:
            turn = room.waiting.popleft()
            if not turn.done():
                room.used += 1
                turn.set_result(None)
        self._tidy(service, room)

    def _tidy(self, service: str, room: _Room) -> None:
        if not room.used and not room.waiting and self._rooms.get(service) is room:
            del self._rooms[service]


class _Room:
    __slots__ = ("size", "used", "waiting")

    def __init__(self) -> None:
        self.size = 0
        self.used = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
