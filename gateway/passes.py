"""Tickets that have just passed, remembered with what they permit: those of usual requests."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.credentials import ticket_in
from scamp.errors import AuthorizationError

if TYPE_CHECKING:
    from gateway.actions import Guarded
    from gateway.auth import Authenticator, Caller
    from scamp.authz import AuthzTable

MAX_PASSES: Final = 1024
"""Tickets that are remembered, by all bytes of the header field in which they came."""

MAX_PASS: Final = 2048
"""Bytes of a field that is remembered; larger ones, such as those with blanks around a small
ticket, are looked at each time."""

MAX_PERMITS: Final = 64
"""Actions that are remembered for one ticket."""


@dataclass(slots=True)
class _Pass:
    caller: Caller
    begins: float = -math.inf
    ends: float = math.inf
    permits: dict[str, AuthzTable] = field(default_factory=dict)
    """By an action's spelling, as the table has it, the one by which the caller may call it."""


class Passes:
    """Says who asks where everything is right, and nothing where it is not.

    What it lets through `Authenticator` would let through at this moment: a ticket's time and the
    privilege table are looked at anew for each request, and other keys make all of it void.
    """

    __slots__ = ("_auth", "_generation", "_passes")

    def __init__(self, auth: Authenticator) -> None:
        self._auth = auth
        self._passes: dict[tuple[str, bytes], _Pass] = {}
        self._generation = 0

    def __len__(self) -> int:
        """How many tickets are remembered."""
        return len(self._passes)

    @property
    def permits(self) -> int:
        """Actions that are remembered for one of them, at most."""
        return max((len(one.permits) for one in self._passes.values()), default=0)

    def caller(self, name: str, value: bytes, action: Guarded) -> Caller | None:
        """Who asks for `action`, with the one ticket in the header field `name` (lower case); None
        says nothing: the authenticator has to be asked. Counts nothing, see `count`."""
        auth = self._auth
        if auth.verifier is not None and auth.verifier.generation != self._generation:
            self._passes.clear()
            self._generation = auth.verifier.generation
        held = self._passes.get((name, value))
        if held is None or not held.begins <= auth.now() < held.ends:
            held = self._look_at(name, value)
        if held is None:
            return None
        if auth.mode == "enforce" and action.privileges and not action.noauth:
            assert auth.authz is not None  # noqa: S101 - its constructor saw to it
            table = auth.authz.current()
            if table is None or not (
                held.permits.get(action.spelling) is table or _permits(held, action, table)
            ):
                return None
        return held.caller

    def _look_at(self, name: str, value: bytes) -> _Pass | None:
        caller = self._auth.genuine(ticket_in(name, value.decode("utf-8", "surrogateescape")))
        if caller is None:
            self._passes.pop((name, value), None)
            return None
        held, claims, verifier = _Pass(caller), caller.claims, self._auth.verifier
        if claims is not None and verifier is not None:
            held.begins, held.ends = claims.validity_start - verifier.leeway, claims.expires
        if len(value) > MAX_PASS:
            return held
        if len(self._passes) >= MAX_PASSES:
            del self._passes[next(iter(self._passes))]  # the oldest
        self._passes[name, value] = held
        return held


def _permits(held: _Pass, action: Guarded, table: AuthzTable) -> bool:
    claims = held.caller.claims
    if claims is None:
        return False
    try:
        table.check(action.spelling, claims)
    except AuthorizationError:
        return False
    if len(held.permits) >= MAX_PERMITS:
        held.permits.clear()
    held.permits[action.spelling] = table
    return True
