"""What services say of their actions: ``_meta.documentation``, asked of them when it is wanted.

Every service announces an action of that one name, so each call goes to one instance and to no
other. What a service says counts for the actions that it announces itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.openapi.sections import Section, Sections, read_documentation
from gateway.strangers import is_trusted
from scamp.client import Call, Deadline, Requester
from scamp.discovery import Offer, Registry
from scamp.discovery.model import Packed, packed_actions
from scamp.errors import ReplyFailed, ScampError
from scamp.limits import MAX_DOCUMENTATION, MIB

log = logging.getLogger("gateway.openapi")

ACTION: Final = "_meta.documentation"

CONCURRENCY: Final = 8
"""Services that are asked at once."""

FETCH_TIMEOUT: Final = 3.0
"""Seconds for one service's answer."""

MAX_WAIT: Final = 3.0
"""Seconds that a document waits for all of them."""

FAILURE_MEMORY: Final = 60.0
"""Seconds for which a service that did not answer well is not asked again."""

MAX_SERVICES: Final = 2000
"""Services that are asked and remembered; those of one name and the same actions are one."""

MAX_HELD: Final = 32 * MIB
"""Bytes that are remembered in all."""


_Key = tuple[str, Packed]


@dataclass(slots=True)
class _Service:
    """All instances of one name that announce the same."""

    offers: tuple[Offer, ...]
    """By fingerprint and identity."""
    sections: dict[str, Section] | None = None
    failures: int = 0
    next_try: float = 0.0
    asked: bool = False
    gone: bool = False
    size: int = 0


@dataclass(slots=True)
class _Sweep:
    """Until when those who want a document wait for answers."""

    ends: float = 0.0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Documentation:
    """Everything that services have said of themselves so far.

    An answer is kept until the service announces other actions; a failure for `FAILURE_MEMORY`
    seconds, after which another instance has its turn. Belongs to one event loop.
    """

    def __init__(
        self,
        registry: Registry,
        requester: Requester,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_wait: float = MAX_WAIT,
    ) -> None:
        self.version = 0
        """Counts the changes of what is known."""
        self._registry = registry
        self._requester = requester
        self._clock = clock
        self._max_wait = max_wait
        self._generation = -1
        self._services: dict[_Key, _Service] = {}
        self._held = 0
        self._queue: deque[_Service] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep = _Sweep()
        self._closed = False

    def snapshot(self) -> tuple[Sections, ...]:
        """What is known, one mapping for each service; where two describe one action, the first
        counts. Never changed afterwards."""
        return tuple(one.sections for one in self._services.values() if one.sections)

    async def refresh(self) -> None:
        """Ask whom we have not asked yet, and wait for the answers, `max_wait` seconds at most.

        Those that come later are there the next time. Raises nothing; cancelling is safe.
        """
        if self._closed:
            return
        if self._generation != self._registry.generation:
            self._survey()
        now = self._clock()
        due = [one for one in self._services.values() if not one.asked and now >= one.next_try]
        if due and not self._tasks:
            self._sweep = _Sweep(now + self._max_wait)
        for one in due:
            one.asked = True
            self._queue.append(one)
        self._start()
        left = self._sweep.ends - self._clock()
        if self._tasks and left > 0:
            await _within(left, self._sweep.idle)

    async def close(self) -> None:
        """Ask nobody any more. May be called twice."""
        self._closed = True
        self._queue.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _survey(self) -> None:
        """Which services there are now, in an order that depends on nothing but them."""
        self._generation = self._registry.generation
        offers: dict[_Key, list[Offer]] = {}
        for offer in self._offers():
            key = (offer.service.name, packed_actions(offer.service))
            offers.setdefault(key, []).append(offer)
        before, self._services = self._services, {}
        in_order = sorted(offers.items(), key=lambda item: (item[0][0], item[1][0].service.key))
        for key, same in in_order[:MAX_SERVICES]:
            known = before.pop(key, None) or _Service(())
            known.offers = tuple(same)
            self._services[key] = known
        for gone in before.values():
            gone.gone = True
            self._held -= gone.size
            if gone.sections:
                self.version += 1

    def _offers(self) -> list[Offer]:
        sectors = {service.sector.lower() for service in self._registry.services()}
        found = (offer for one in sectors for offer in self._registry.find(one, ACTION))
        # What strangers say of themselves is no use: nobody is sent to them.
        open_ones = (one for one in found if one.action.noauth and is_trusted(one.service))
        return sorted(open_ones, key=lambda offer: offer.service.key)

    def _start(self) -> None:
        while self._queue and len(self._tasks) < CONCURRENCY:
            task = asyncio.create_task(self._ask(self._queue.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("what a service says of itself could not be read", exc_info=bug)
        self._start()
        if not self._tasks:
            self._sweep.idle.set()

    async def _ask(self, service: _Service) -> None:
        offer = service.offers[service.failures % len(service.offers)]
        try:
            body = await self._fetch(offer)
        except (ScampError, TimeoutError) as exc:
            why = str(exc) or "no answer in time"
            log.info("no documentation from %s: %s", offer.service.identity, why)
            self._failed(service)
            return
        sections = await asyncio.to_thread(read_documentation, body, offer.service)
        self._keep(service, sections)

    async def _fetch(self, offer: Offer) -> bytes:
        call = Call(
            offers=(offer,),
            body=b"{}",
            deadline=Deadline.after(FETCH_TIMEOUT),
            retry_safe=True,
            pinned=True,
            caller_lowered=True,
        )
        async with asyncio.timeout(FETCH_TIMEOUT), await self._requester.send(call) as reply:
            if reply.failed:
                raise ReplyFailed(reply.header.error or reply.header.error_code)
            return await reply.read_all(MAX_DOCUMENTATION)

    def _failed(self, service: _Service) -> None:
        service.failures += 1
        service.next_try = self._clock() + FAILURE_MEMORY
        service.asked = False

    def _keep(self, service: _Service, sections: dict[str, Section]) -> None:
        if service.gone:
            return
        size = sum(len(key) + section.size for key, section in sections.items())
        if self._held + size > MAX_HELD:
            log.warning("no room for the documentation of %s", service.offers[0].service.identity)
            self._failed(service)
            return
        service.sections, service.size = sections, size
        self._held += size
        if sections:
            self.version += 1


async def _within(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
