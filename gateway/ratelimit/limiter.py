"""Which limits a request falls under, and what all of them together say."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from multidict import istr

from gateway import catalogue
from gateway.problems import Problem
from gateway.ratelimit.buckets import MAX_ENTRIES, Buckets, Key
from gateway.ratelimit.callers import address_key, address_text
from gateway.ratelimit.rate import Rate
from gateway.ratelimit.shared import Levels, SharedCountError, SharedCounts

if TYPE_CHECKING:
    from gateway.auth import Caller
    from gateway.exchange import Exchange

OnFailure = Literal["local", "open", "closed"]

LIMITS: Final = ("user", "client", "address", "route")
"""Names of limits, in headers and metrics."""

MAX_ROUTES: Final = 10_000
"""Routes with a rate of their own whose buckets are kept: more than a routes file has."""

_POLICY: Final = istr("RateLimit-Policy")
_STANDING: Final = istr("RateLimit")

_WHOSE: Final = {
    "user": "the ticket's user",
    "client": "the ticket's client",
    "address": "callers without a good ticket at this address",
    "route": "one caller of this route",
}


class Limit:
    """One limit, with the buckets of all who are under it."""

    __slots__ = ("buckets", "name", "policy", "prefix", "rate")

    def __init__(self, name: str, rate: Rate, max_entries: int, kind: str = "") -> None:
        """`kind` is what the keys of its buckets begin with in Redis, where another rate has other
        buckets."""
        self.name = name
        self.rate = rate
        self.buckets = Buckets(rate, max_entries)
        burst = "" if rate.burst == rate.count else f";scamp-burst={rate.burst}"
        self.policy = f'"{name}";q={rate.count};w={rate.period}{burst}'
        self.prefix = f"{kind or name}:{rate.count}/{rate.period}/{rate.burst}:"

    def shared_key(self, key: Key) -> str:
        """The caller's key in Redis."""
        return f"{self.prefix}{key if isinstance(key, int) else address_text(key)}"


Asked: TypeAlias = list[tuple[Limit, Key]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the limits say to one request."""

    fields: tuple[tuple[str, str], ...]
    """``RateLimit-Policy`` and ``RateLimit``, of the limits that the caller is under."""
    refused_by: Limit | None = None
    """None when the request may go on; else, of those that refuse it, the one for longest."""
    retry_after: int = 0
    """Seconds until none of them would."""


class RateLimiter:
    """Counts requests, for each caller by every limit that there is for it.

    A verified ticket's caller is under the limits for users and clients, anybody else under that
    for addresses, and both under that of a route. One refusal is enough, and then no limit has
    counted the request.
    """

    def __init__(
        self,
        *,
        user: Rate | None = None,
        client: Rate | None = None,
        address: Rate | None = None,
        shared: SharedCounts | None = None,
        on_failure: OnFailure = "local",
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        """`shared` counts in Redis; when it fails, `on_failure` is what happens. `max_entries` is
        for each limit. `clock` gives microseconds and never goes back."""
        self.shared = shared
        self.limited: Counter[str] = Counter()
        """Requests refused, by the limit that was named as the reason."""
        self._user = Limit("user", user, max_entries) if user else None
        self._client = Limit("client", client, max_entries) if client else None
        self._address = Limit("address", address, max_entries) if address else None
        self._routes: dict[str, tuple[Limit, Limit]] = {}
        self._dropped = 0
        self._on_failure = on_failure
        self._max_entries = max_entries
        self._clock = clock

    @property
    def general(self) -> bool:
        """Whether there is any limit besides those of routes."""
        return bool(self._user or self._client or self._address)

    @property
    def entries(self) -> Counter[str]:
        """Buckets held, by limit."""
        held: Counter[str] = Counter()
        for limit in self._all():
            held[limit.name] += len(limit.buckets)
        return held

    @property
    def dropped(self) -> int:
        """Buckets that had to go before they were full, for want of room."""
        return self._dropped + sum(limit.buckets.dropped for limit in self._all())

    def _all(self) -> Sequence[Limit]:
        general = [limit for limit in (self._user, self._client, self._address) if limit]
        return [*general, *(limit for pair in self._routes.values() for limit in pair)]

    # -- one request --------------------------------------------------------------------

    async def admit(
        self,
        exchange: Exchange,
        caller: Caller,
        route_key: str | None = None,
        route_rate: Rate | None = None,
    ) -> None:
        """Count a request; its answer will tell how the limits stand.

        Raises Problem (rate_limited, rate_limit_unavailable). Waits for nothing but Redis, not
        longer than its timeout. Parameters are those of `check`.
        """
        verdict = await self.check(caller, exchange.client, route_key, route_rate)
        if verdict is None:
            return
        exchange.rate_limits = verdict.fields
        limit = verdict.refused_by
        if limit is not None:
            self.limited[limit.name] += 1
            raise Problem(
                catalogue.RATE_LIMITED,
                f"The limit `{limit.name}` is reached: {limit.rate} for {_WHOSE[limit.name]}.",
                action=exchange.action.label if exchange.action is not None else None,
                retry_after=verdict.retry_after,
            )

    def asks(
        self, caller: Caller, address: str | None, route_key: str, route_rate: Rate | None
    ) -> Asked | None:
        """What `count` has to count for a request that is admitted, as can be told without Redis;
        None: leave it to `admit`. Nothing is counted yet."""
        asked = self._asked(caller, address, route_key, route_rate)
        if asked and (self.shared is not None or not self._take(asked, commit=False)[0]):
            return None
        return asked

    def count(self, exchange: Exchange, asked: Asked) -> None:
        """Count a request by what `asks` has just given; its answer will tell how limits stand."""
        if asked:
            exchange.rate_limits = _verdict(asked, *self._take(asked)).fields

    async def check(
        self,
        caller: Caller,
        address: str | None,
        route_key: str | None = None,
        route_rate: Rate | None = None,
    ) -> Verdict | None:
        """Count a request of `caller`, who is at `address`; None when no limit is for it.

        `route_key` names a route that has a rate of its own: any text that is the same for each of
        its requests, here and in other gateways, such as ``GET /things/{id}``.

        Raises Problem (rate_limit_unavailable) when Redis fails and nobody may pass then.
        """
        asked = self._asked(caller, address, route_key, route_rate)
        if not asked:
            return None
        if self.shared is None:
            return _verdict(asked, *self._take(asked))
        # What is known here of a bucket in Redis is true or, where others took from it since, too
        # good: a caller who is refused by it need not be asked about.
        admitted, levels = self._take(asked, commit=False)
        if admitted:
            try:
                admitted, levels = await self._take_shared(asked, self.shared)
            except SharedCountError:
                if self._on_failure == "open":
                    return None
                if self._on_failure == "closed":
                    raise Problem(catalogue.RATE_LIMIT_UNAVAILABLE, retry_after=1) from None
                admitted, levels = self._take(asked)
        return _verdict(asked, admitted, levels)

    def _take(self, asked: Asked, *, commit: bool = True) -> Levels:
        """Decide with the buckets that are here, in one go."""
        now = self._clock()
        levels = []
        admitted = True
        for limit, key in asked:
            level = limit.buckets.level(key, now)
            admitted = admitted and level + limit.rate.token <= limit.rate.room
            levels.append(level)
        if admitted and commit:
            for n, (limit, key) in enumerate(asked):
                levels[n] += limit.rate.token
                limit.buckets.put(key, now, levels[n])
        return admitted, levels

    async def _take_shared(self, asked: Asked, shared: SharedCounts) -> Levels:
        """Decide with those in Redis, and note here how they stand: if Redis goes away, the count
        goes on from there."""
        admitted, levels = await shared.take(
            [(limit.shared_key(key), limit.rate) for limit, key in asked]
        )
        now = self._clock()
        for (limit, key), level in zip(asked, levels, strict=True):
            limit.buckets.put(key, now, level)
        return admitted, levels

    # -- limits -------------------------------------------------------------------------

    def _asked(
        self, caller: Caller, address: str | None, route_key: str | None, route_rate: Rate | None
    ) -> Asked:
        asked: Asked = []
        user, client = caller.user_id, caller.client_id
        where = b""
        if user is None:
            where = address_key(address)
            if self._address is not None:
                asked.append((self._address, where))
        elif self._user is not None:
            asked.append((self._user, user))
        if client is not None and self._client is not None:
            asked.append((self._client, client))
        if route_key is not None and route_rate is not None:
            of_users, of_addresses = self._route(route_key, route_rate)
            asked.append((of_addresses, where) if user is None else (of_users, user))
        return asked

    def _route(self, key: str, rate: Rate) -> tuple[Limit, Limit]:
        """The limits of a route: for users, and for addresses, who must not push out users."""
        pair = self._routes.get(key)
        if pair is None or (pair[0].rate is not rate and pair[0].rate != rate):
            self._forget(key)
            if len(self._routes) >= MAX_ROUTES:
                self._forget(next(iter(self._routes)))
            pair = self._routes[key] = (
                Limit("route", rate, self._max_entries, f"route:{key}:user"),
                Limit("route", rate, self._max_entries, f"route:{key}:address"),
            )
        return pair

    def retain(self, route_keys: Collection[str]) -> None:
        """Forget the buckets of all other routes: those that are gone from the routes file."""
        for key in self._routes.keys() - set(route_keys):
            self._forget(key)

    def _forget(self, key: str) -> None:
        for limit in self._routes.pop(key, ()):
            self._dropped += limit.buckets.dropped


def _verdict(asked: Asked, admitted: bool, levels: list[int]) -> Verdict:
    standing, refused_by, longest = [], None, 0
    for (limit, _), level in zip(asked, levels, strict=True):
        rate = limit.rate
        more = f";t={rate.next_token(level)}" if level else ""
        standing.append(f'"{limit.name}";r={rate.remaining(level)}{more}')
        if not admitted and (wait := rate.wait(level)) > longest:
            refused_by, longest = limit, wait
    policies = ", ".join([limit.policy for limit, _ in asked])
    return Verdict(((_POLICY, policies), (_STANDING, ", ".join(standing))), refused_by, longest)
