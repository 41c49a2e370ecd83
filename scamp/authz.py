"""Which privileges an action takes, and the table that says so.

The Auth service returns ``{"lower.case.action": [privilege, …], "_NAMES": [null, "name of 1"]}``.
`AuthzTable` is that table; `AuthzSource` gets it, keeps it fresh, and stands in for an Auth service
that is away for a while. An action that the table does not list is refused; so is every action
while there is no table. Nothing here ever opens up because something failed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Set
from pathlib import Path
from typing import Final

import orjson

from scamp import limits
from scamp.errors import (
    AuthzTableUnavailable,
    ConfigError,
    MissingPrivilege,
    UnconfiguredAction,
)
from scamp.tickets import MAX_DIGITS, Ticket

_NAMES: Final = "_NAMES"
_PARSE_IN_THREAD: Final = 256 * limits.KIB
_FETCH_TIMEOUT: Final = 30.0
_SILENT: Final[dict[type[Exception], str]] = {TimeoutError: "no answer in time"}


class AuthzTable:
    """The privileges that each action takes. Immutable; made by `parse`."""

    __slots__ = ("_names", "_required")

    def __init__(
        self, required: dict[str, frozenset[int]], names: dict[int, str] | None = None
    ) -> None:
        """`required` by action name; `names` by privilege number."""
        self._required = {action.lower(): needed for action, needed in required.items()}
        self._names = dict(names or {})

    @classmethod
    def parse(cls, body: bytes) -> AuthzTable:
        """Read the Auth service's JSON, all or nothing.

        Privileges are integers from 0 or strings of at most 18 digits. Two spellings of one
        action take the privileges of both. Raises `ConfigError` for any other shape, and above
        `limits.MAX_AUTHZ_TABLE` bytes.
        """
        if len(body) > limits.MAX_AUTHZ_TABLE:
            raise ConfigError(f"the privilege table is larger than {limits.MAX_AUTHZ_TABLE} bytes")
        try:
            table = orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise ConfigError(f"the privilege table is not JSON: {exc}") from exc
        if not isinstance(table, dict):
            raise ConfigError("the privilege table is not a JSON object")
        names = _names(table.pop(_NAMES, []))
        required: dict[str, frozenset[int]] = {}
        # Of 100,000 actions most take the same few sets of privileges. As one object for each they
        # would have 20 MB, and the garbage collector would walk through all of them.
        shared: dict[frozenset[int], frozenset[int]] = {}
        for action, listed in table.items():
            key = action.lower()
            needed = _privileges(action, listed) | required.get(key, frozenset())
            required[key] = shared.setdefault(needed, needed)
        return cls(required, names)

    def __len__(self) -> int:
        """How many actions are listed."""
        return len(self._required)

    def __repr__(self) -> str:
        return f"<AuthzTable actions={len(self._required)} names={len(self._names)}>"

    def actions(self) -> Collection[str]:
        """The actions that are listed, in lower case."""
        return self._required.keys()

    def required(self, action: str) -> frozenset[int] | None:
        """The privileges for ``Namespace.name``, without case; None when it is not listed."""
        return self._required.get(action.lower())

    def name_of(self, privilege: int) -> str:
        """The privilege's name, or its number as text when it has none."""
        return self._names.get(privilege) or str(privilege)

    def permits(self, action: str, privileges: Set[int]) -> bool:
        """Whether these are enough for ``Namespace.name``, which has to be listed."""
        required = self.required(action)
        return required is not None and required <= privileges

    def check(self, action: str, ticket: Ticket) -> None:
        """Return if the ticket permits ``Namespace.name``.

        Raises `UnconfiguredAction` when the table does not list it, and `MissingPrivilege` with
        the lowest privilege that the ticket lacks.
        """
        required = self._required.get(action.lower())
        if required is None:
            raise UnconfiguredAction(action)
        if not required <= ticket.privileges:
            lowest = min(required - ticket.privileges)
            raise MissingPrivilege(action, lowest, self.name_of(lowest))


class AuthzSource:
    """The current table: fetched once for all who wait, refreshed behind, kept for a while.

    `fetch` returns the table's JSON. A table younger than `ttl` is used as it is. Up to `ttl` +
    `grace` it is still used, while a new one is fetched in the background. Beyond that, and
    before the first, callers wait for the fetch, and are refused if it fails. After a failure
    the next fetch begins no sooner than `retry_interval` later. A fetch that takes longer than
    `fetch_timeout`, or whose result does not parse, has failed. All in seconds of `clock`.
    `origin` stands before what is wrong with a table: the file that it is from.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        *,
        ttl: float = limits.AUTHZ_TTL,
        grace: float = limits.AUTHZ_GRACE,
        clock: Callable[[], float] = time.monotonic,
        retry_interval: float = 5.0,
        fetch_timeout: float = _FETCH_TIMEOUT,
        origin: str | None = None,
    ) -> None:
        self._fetch = fetch
        self._ttl = ttl
        self._grace = grace
        self._clock = clock
        self._retry_interval = retry_interval
        self._fetch_timeout = fetch_timeout
        self._origin = origin
        self._table: AuthzTable | None = None
        self._digest = b""
        self._fetched_at = 0.0
        self._retry_at: float | None = None
        self._wanted = 0  # raised by invalidate(); a fetch answers the value it began with
        self._answered = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.last_error: str | None = None
        """Why the latest fetch failed; None once one has succeeded."""

    def age(self, now: float | None = None) -> float | None:
        """Seconds since the table in force was fetched; None when there is none."""
        if self._table is None:
            return None
        return max(0.0, (self._clock() if now is None else now) - self._fetched_at)

    @property
    def ttl(self) -> float:
        """Seconds after which a table is fetched anew."""
        return self._ttl

    @property
    def max_age(self) -> float:
        """Seconds after which a table is not used any longer."""
        return self._ttl + self._grace

    def current(self) -> AuthzTable | None:
        """The table if it is fresh, without waiting; None means: call `get`."""
        if self._table is None or self._answered != self._wanted:
            return None
        return self._table if self._clock() - self._fetched_at < self._ttl else None

    async def get(self) -> AuthzTable:
        """The table in force; waits only when there is none.

        Raises `AuthzTableUnavailable` with `retry_after`. Cancelling is safe, and leaves the
        fetch to the others who wait for it.
        """
        table = self.current()
        if table is not None:
            return table
        table = self._within_grace()
        if table is not None:
            self._start_if_due()
            return table
        task = self._start_if_due()
        if task is not None:
            await asyncio.wait({task})
        table = self._within_grace()
        if table is None:
            raise self._unavailable()
        return table

    def invalidate(self) -> None:
        """Take the table for outdated: the next `get` starts a fetch, whatever failed before.

        The old table stays in force until then, and its grace does not change.
        """
        self._wanted += 1
        self._retry_at = None

    async def refresh(self) -> AuthzTable:
        """Fetch now, and wait for it; a fetch that is under way already does not count.

        Raises `AuthzTableUnavailable` when the fetch fails; `get` goes on with the old table.
        Cancelling is safe.
        """
        self.invalidate()
        wanted = self._wanted
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._answered < wanted:
            self._retry_at = None
            task = self._start_if_due()
            if task is not None:
                await asyncio.wait({task})
        if self._table is None or self._answered < wanted:
            raise self._unavailable()
        return self._table

    async def close(self) -> None:
        """Stop fetching; those who wait get `AuthzTableUnavailable`. May be called twice."""
        self._closed = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _within_grace(self) -> AuthzTable | None:
        if self._table is None:
            return None
        age = self._clock() - self._fetched_at
        return self._table if age < self.max_age else None

    def _start_if_due(self) -> asyncio.Task[None] | None:
        """The fetch under way, begun now if need be; None while it is too soon after a failure."""
        if self._task is not None:
            return self._task
        if self._closed or (self._retry_at is not None and self._clock() < self._retry_at):
            return None
        self._task = asyncio.create_task(self._run(), name="scamp-authz-fetch")
        self._task.add_done_callback(self._forget)
        return self._task

    def _forget(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None

    async def _run(self) -> None:
        wanted = self._wanted
        try:
            async with asyncio.timeout(self._fetch_timeout):
                body = await self._fetch()
                table, digest = (
                    await asyncio.to_thread(self._parse, body)
                    if len(body) > _PARSE_IN_THREAD
                    else self._parse(body)
                )
        except Exception as exc:
            # Whatever a fetcher raises, the old table must stay in force and the reason be told.
            self.last_error = str(exc) or _SILENT.get(type(exc), type(exc).__name__)
            self._retry_at = self._clock() + self._retry_interval
        else:
            self._table, self._digest = table, digest
            self._fetched_at = self._clock()
            self._answered = wanted
            self._retry_at = None
            self.last_error = None

    def _parse(self, body: bytes) -> tuple[AuthzTable, bytes]:
        """The table, and the digest of its text. The same text gives the table that is there: it is
        what nearly every fetch brings, to parse megabytes of it keeps the interpreter lock for
        some 30 ms, and what callers have made of a table stays good."""
        digest = hashlib.sha256(body).digest()
        if self._table is not None and digest == self._digest:
            return self._table, digest
        try:
            return AuthzTable.parse(body), digest
        except ConfigError as exc:
            if self._origin is None:
                raise
            raise ConfigError(f"{self._origin}: {exc}") from exc

    def _unavailable(self) -> AuthzTableUnavailable:
        if self._closed:
            return AuthzTableUnavailable("", "shutting down", self._retry_interval)
        wait = self._retry_interval
        if self._retry_at is not None:
            wait = max(0.0, self._retry_at - self._clock())
        return AuthzTableUnavailable("", self.last_error or "not fetched yet", wait)


def file_fetcher(path: str | Path) -> Callable[[], Awaitable[bytes]]:
    """A `fetch` for `AuthzSource` that reads a file, off the event loop.

    What it returns raises `ConfigError`, naming the file, when that cannot be read or is larger
    than `limits.MAX_AUTHZ_TABLE`.
    """

    def read() -> bytes:
        try:
            with Path(path).open("rb") as file:
                body = file.read(limits.MAX_AUTHZ_TABLE + 1)
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
        if len(body) > limits.MAX_AUTHZ_TABLE:
            raise ConfigError(f"{path}: larger than {limits.MAX_AUTHZ_TABLE} bytes")
        return body

    async def fetch() -> bytes:
        return await asyncio.to_thread(read)

    return fetch


def _names(listed: object) -> dict[int, str]:
    if not isinstance(listed, list):
        raise ConfigError("the privilege table's _NAMES is not a list")
    names = {}
    for number, name in enumerate(listed):
        if name is None:
            continue
        if not isinstance(name, str):
            raise ConfigError(f"the privilege table's _NAMES has no text at {number}")
        if name and name.isprintable():
            names[number] = name
    return names


def _privileges(action: str, listed: object) -> frozenset[int]:
    if not isinstance(listed, list):
        raise ConfigError(f"the privilege table has no list for {action[:100]!r}")
    return frozenset(_privilege(action, one) for one in listed)


def _privilege(action: str, value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**MAX_DIGITS:
        return value
    raise ConfigError(f"the privilege table has a privilege that is none, at {action[:100]!r}")
