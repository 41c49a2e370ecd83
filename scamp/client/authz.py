"""The privilege table as the Auth service gives it, for `AuthzSource`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from scamp.client.requester import Requester
from scamp.limits import MAX_AUTHZ_TABLE

AUTHZ_ACTION: Final = "main:Auth.getAuthzTable~1"

AUTHZ_TIMEOUT: Final = 10.0
"""Seconds for the Auth service to answer."""


def authz_fetcher(
    requester: Requester, timeout: float = AUTHZ_TIMEOUT, *, action: str = AUTHZ_ACTION
) -> Callable[[], Awaitable[bytes]]:
    """A `fetch` for `AuthzSource` that asks the Auth service: body ``{}``, no ticket.

    `timeout` is in seconds, for the whole of an attempt up to the reply's first byte. What it
    returns raises what `Requester.request` and `Reply.read_all` raise; a table larger than
    `limits.MAX_AUTHZ_TABLE` is refused. Protocol: section 9.
    """

    async def fetch() -> bytes:
        reply = await requester.request(action, timeout=timeout)
        return await reply.read_all(MAX_AUTHZ_TABLE)

    return fetch
