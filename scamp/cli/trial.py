"""The actions of ``scamp serve``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from scamp import limits
from scamp.errors import ServiceError
from scamp.server import Request, Service

MAX_BYTES: Final = 1024 * limits.MIB
"""Largest reply of Scamp.bytes."""

MAX_SLEEP: Final = 3600.0
"""Seconds; longest wait of Scamp.sleep."""

_BLOCK: Final = bytes(range(256)) * 256


def register(service: Service, *, tickets: bool) -> None:
    """Give the service its actions; with `tickets` one that needs a ticket."""

    @service.action("Scamp.echo", flags="noauth")
    async def echo(request: Request) -> AsyncIterator[bytes]:
        """The body, as it came."""

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request:
                yield piece

        return pieces()

    @service.action("Scamp.time", flags="noauth,read")
    async def time(request: Request) -> dict[str, Any]:
        """The time, as text and in seconds since 1970."""
        now = datetime.now(UTC)
        return {"time": now.isoformat(), "seconds": now.timestamp()}

    @service.action("Scamp.caller", flags="noauth")
    async def caller(request: Request) -> dict[str, Any]:
        """What the service knows of the request. The ticket is not repeated."""
        return {
            "peer": request.peer,
            "action": request.header.action,
            "version": request.version,
            "envelope": request.envelope,
            "client_id": request.client_id,
            "ticket": request.ticket_text is not None,
            "header": dict(request.header.extra),
        }

    @service.action("Scamp.sleep", flags=f"noauth,t{MAX_SLEEP:.0f}")
    async def sleep(request: Request) -> dict[str, float]:
        """Answers after ``{"seconds": N}``."""
        seconds = await _number(request, "seconds", 1, MAX_SLEEP)
        await asyncio.sleep(seconds)
        return {"seconds": seconds}

    @service.action("Scamp.bytes", flags="noauth")
    async def some_bytes(request: Request) -> AsyncIterator[bytes]:
        """``{"size": N}`` bytes."""
        return _bytes(int(await _number(request, "size", 1000, MAX_BYTES)))

    @service.action("Scamp.fail", flags="noauth")
    async def fail(request: Request) -> None:
        """The error that ``{"code": TEXT, "message": TEXT, "data": {…}}`` describes."""
        asked = await _object(request)
        data = asked.get("data")
        raise ServiceError(
            str(asked.get("code", "failed")),
            str(asked.get("message", "as you wished")),
            data if isinstance(data, dict) else None,
        )

    if not tickets:
        return

    @service.action("Scamp.ticket")
    async def ticket(request: Request) -> dict[str, Any]:
        """What the caller's ticket says."""
        found = request.ticket
        if found is None:  # pragma: no cover - the service refuses such requests
            raise ServiceError("unauthorized", "no ticket")
        return {
            "user_id": found.user_id,
            "client_id": found.client_id,
            "privileges": sorted(found.privileges),
            "expires": found.expires,
        }


async def _object(request: Request) -> dict[str, Any]:
    found = await request.json()
    if not isinstance(found, dict):
        raise ServiceError("bad_request", "the body is not a JSON object")
    return found


async def _number(request: Request, key: str, default: float, most: float) -> float:
    value = (await _object(request)).get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ServiceError("bad_request", f"{key} is not a number from 0 to {most:.0f}")
    return value


async def _bytes(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, len(_BLOCK)):
        yield _BLOCK[: size - start]
