"""Buckets in a Redis, so that several gateways share one count.

Requests of one turn of the loop go to Redis together, on one connection; while an answer is awaited
the next ones gather. A Redis that fails is asked no more until it has run our script in
the background, so that nobody waits for one that is away.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.ratelimit.rate import MAX_COUNT, Rate
from scamp.errors import ConfigError

log = logging.getLogger("gateway.ratelimit")

PREFIX: Final = "{scamp-gateway}:rate:"
"""Of every key. What is in braces keeps all keys in one slot of a cluster."""

FAILURES: Final = 3
"""Failures one after the other before Redis counts as away: one alone may be a late timer."""

PAUSE: Final = 1.0
"""Seconds between two looks whether it is back."""

CONNECT_LIMIT: Final = 2.0
"""Seconds that such a look may take: connection, TLS and password included."""

MAX_BATCH: Final = 256
"""Requests that go to Redis together: they are back within a few milliseconds."""

MAX_QUEUED: Final = 8192
"""Requests that wait for their turn; further ones are decided without Redis. More than are under
way at once unless `max_in_flight` says otherwise."""

FAILED: Final = ("timeout", "error", "full", "away")
"""Why a request was decided without Redis."""

# All buckets are looked at before any is changed. A bucket is kept as its level and the moment of
# that, in the ticks of `Rate` and microseconds: whole numbers below 2**53, which Lua has exactly.
# (Larger ones, of a million a month, are off by a millionth of a request.)
SCRIPT: Final = """\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local levels, admitted = {}, 1
for i, key in ipairs(KEYS) do
  local token, per_second, room = unpack(ARGV, 3 * i - 2, 3 * i)
  local level, kept = 0, redis.call('GET', key)
  if kept then
    local was, at = string.match(kept, '^(%d+) (%d+)$')
    level = math.max(0, was - math.max(0, now - at) * (per_second / 1000000))
  end
  if level + token > tonumber(room) then admitted = 0 end
  levels[i] = level
end
local answer = {admitted}
for i, key in ipairs(KEYS) do
  local level, per_second = levels[i], ARGV[3 * i - 1]
  if admitted == 1 then
    level = level + ARGV[3 * i - 2]
    local expiry = math.ceil(level * 1000 / per_second)
    redis.call('SET', key, string.format('%.0f %.0f', level, now), 'PX', expiry)
  end
  answer[i + 1] = string.format('%.0f', level)
end
return answer
"""
_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

Wanted = Sequence[tuple[str, Rate]]
Levels = tuple[bool, list[int]]
"""Whether all buckets had a token, and the level of each after that."""


class SharedCountError(Exception):
    """Redis did not decide. `reason` is one of `FAILED`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class _Asked:
    arguments: list[str]
    answer: asyncio.Future[Levels]


class SharedCounts:
    """Takes tokens out of buckets in Redis. `start` it within the loop, `close` it at the end."""

    def __init__(self, url: str, *, timeout: float, pause: float = PAUSE) -> None:
        """`url` as redis-py reads it (``redis://``, ``rediss://``, ``unix://``); `timeout` in
        seconds, for one request. Raises `ConfigError` when redis-py is not installed or does not
        like the URL, which is not shown."""
        self.available = False
        self.failures: Counter[str] = Counter()
        """Requests that Redis did not decide, by reason."""
        self._client = _client(url)
        self._where = _shown(url)
        self._timeout = timeout
        self._pause = pause
        self._in_a_row = 0
        self._queue: list[_Asked] = []
        self._sender: asyncio.Task[None] | None = None
        self._looker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once whether Redis is there; go on looking in the background if it is not."""
        why = await self._look()
        if why is not None:
            self._away(why)

    async def close(self) -> None:
        """End; requests that still wait are decided without Redis. May be called twice."""
        self.available = False
        tasks = {task for task in (self._sender, self._looker) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._fail("away", self._queue)
        with suppress(Exception):
            await self._client.aclose()

    async def take(self, wanted: Wanted) -> Levels:
        """Take a token out of each bucket, or, if one of them has none, out of none.

        Raises SharedCountError when Redis has not answered within the timeout. May be cancelled;
        the tokens may be gone then.
        """
        if not self.available:
            raise self._failed("away")
        if len(self._queue) >= MAX_QUEUED:
            raise self._failed("full")
        loop = asyncio.get_running_loop()
        asked = _Asked(_arguments(wanted), loop.create_future())
        self._queue.append(asked)
        if self._sender is None:
            self._sender = loop.create_task(self._send_all(), name="gateway rate limits")
        try:
            async with asyncio.timeout(self._timeout):
                return await asked.answer
        except TimeoutError:
            raise self._failed("timeout") from None

    def _failed(self, reason: str) -> SharedCountError:
        self.failures[reason] += 1
        return SharedCountError(reason)

    # -- sending ------------------------------------------------------------------------

    async def _send_all(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
                await self._send_batch([one for one in batch if not one.answer.done()])
        finally:
            self._sender = None  # here: who asks before a callback has run needs a new one

    async def _send_batch(self, batch: list[_Asked]) -> None:
        if not batch:
            return
        try:
            async with asyncio.timeout(self._timeout):
                results = await self._send(batch)
            self._hand_out(batch, results)
        except Exception as exc:  # redis-py lets out what sockets and parsers raise
            self._fail("timeout" if isinstance(exc, TimeoutError) else "error", batch)
            self._stumble(type(exc).__name__)
        finally:
            self._fail("away", batch)  # when it is cancelled

    async def _send(self, batch: list[_Asked]) -> list[Any]:
        """What the script says to each, or the exception that it ended with."""
        results = await self._evaluate(batch)
        unknown = [n for n, one in enumerate(results) if type(one).__name__ == "NoScriptError"]
        if unknown:  # it has been restarted, or its scripts were flushed
            await self._client.script_load(SCRIPT)
            again = await self._evaluate([batch[n] for n in unknown])
            for n, result in zip(unknown, again, strict=True):
                results[n] = result
        return results

    async def _evaluate(self, batch: list[_Asked]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for one in batch:
                pipeline.execute_command("EVALSHA", _SHA, *one.arguments)
            results: list[Any] = await pipeline.execute(raise_on_error=False)
        return results

    def _hand_out(self, batch: list[_Asked], results: list[Any]) -> None:
        refused: Exception | None = None
        for one, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                refused = result
                self._fail("error", [one])
            elif not one.answer.done():
                one.answer.set_result((result[0] == 1, [int(level) for level in result[1:]]))
        if refused is None:
            self._in_a_row = 0
        else:
            self._stumble(str(refused)[:200])  # Redis' own words: READONLY, OOM and the like

    def _fail(self, reason: str, batch: list[_Asked]) -> None:
        for one in batch:
            if not one.answer.done():
                one.answer.set_exception(self._failed(reason))

    # -- whether it is there ------------------------------------------------------------

    def _stumble(self, why: str) -> None:
        self._in_a_row += 1
        if self.available and self._in_a_row >= FAILURES:
            self._away(why)

    def _away(self, why: str) -> None:
        self.available = False
        log.warning("rate limits: Redis at %s is away (%s); going on without", self._where, why)
        queue, self._queue = self._queue, []
        self._fail("away", queue)
        self._looker = asyncio.create_task(self._look_again(), name="gateway rate limits: back?")

    async def _look_again(self) -> None:
        while not self.available:
            await asyncio.sleep(self._pause)
            if await self._look() is None:
                log.info("rate limits: Redis at %s is there again", self._where)

    async def _look(self) -> str | None:
        """Why it cannot be asked; None when it can, and will be.

        Only running the script tells: a server that may not write, or has no room, loads it.
        """
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                await self._client.script_load(SCRIPT)
                await self._client.execute_command("EVALSHA", _SHA, *_arguments(_PROBE))
        except Exception as exc:  # whatever it is, it is not there
            return type(exc).__name__
        self._in_a_row = 0
        self.available = True
        return None


_PROBE: Final[Wanted] = (("look", Rate(MAX_COUNT, 1, MAX_COUNT)),)
"""A bucket that is full again within a microsecond."""


def _arguments(wanted: Wanted) -> list[str]:
    arguments = [str(len(wanted))]
    arguments += [f"{PREFIX}{key}" for key, _ in wanted]
    for _, rate in wanted:
        arguments += (str(rate.token), str(rate.per_second), str(rate.room))
    return arguments


def _shown(url: str) -> str:
    """Without user, password and parameters."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _client(url: str) -> Any:
    connect = connector()
    try:
        return connect(url)
    except ValueError:
        raise ConfigError("rate_limit_redis: redis-py does not understand the URL") from None


def connector() -> Callable[[str], Any]:
    """What makes a client of a URL. Raises `ConfigError` when redis-py is not installed."""
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ConfigError(
            "rate_limit_redis needs redis-py: pip install '.[redis]' in a checkout"
        ) from None

    def connect(url: str) -> Any:
        return Redis.from_url(
            url,
            protocol=2,
            max_connections=2,  # one that sends, one that looks
            retry=Retry(NoBackoff(), 0),
            socket_timeout=CONNECT_LIMIT,
            client_name="scamp-gateway",
        )

    return connect
