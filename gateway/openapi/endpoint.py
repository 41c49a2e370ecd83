"""``/openapi.json``: the document as the caller may see it, made when it is asked for."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from gateway.actions import Announced
from gateway.auth import Authenticator
from gateway.endpoints import send_tagged
from gateway.exchange import Exchange
from gateway.openapi.document import PathItems, build
from gateway.openapi.documentation import Documentation
from gateway.openapi.options import OpenApiOptions
from gateway.openapi.own import OPENAPI_PATH, own_items
from gateway.openapi.sections import Sections, merged
from gateway.openapi.sight import ALL, OPEN, Sight, lead, select
from gateway.problems import no_index
from gateway.routes.model import Route, RouteTable
from gateway.translate import JSON_TYPE
from scamp.client import Deadline
from scamp.discovery import Registry
from scamp.discovery.pace import Pace
from scamp.limits import MIB

MAX_DOCUMENTS: Final = 32
"""Documents that are kept: as many groups of callers with the same privileges."""

MAX_KEPT: Final = 64 * MIB
"""Bytes of all of them; the newest is kept whatever its size."""

SLOW_BUILD: Final = 0.1
"""Seconds of making a document from which on it may be older than the index: else a large mesh, in
which something changes all the time, could be kept busy by one who asks all the time."""

BUILD_SHARE: Final = 10
"""A slowly made document serves for so many times as long as making it took."""

TABLE_WAIT: Final = 10.0
"""Seconds that a caller waits for the privilege table."""


@dataclass(frozen=True, slots=True)
class Made:
    """A document, and until when it serves though the mesh has changed."""

    state: tuple[object, ...]
    text: bytes
    etag: str
    fresh_until: float


class OpenApi:
    """The endpoint. Belongs to one event loop; documents are made in a thread, one at a time."""

    route = OPENAPI_PATH
    methods = ("GET", "HEAD")

    def __init__(
        self,
        registry: Registry,
        authenticator: Authenticator,
        documentation: Documentation,
        options: OpenApiOptions | None = None,
        *,
        routes: Callable[[], RouteTable] = RouteTable,
        own: PathItems | None = None,
        index_loaded: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`routes` gives the table in force; `own` are path items of what else is served, besides
        those of `own_items`; without an index there is no document."""
        self.options = options or OpenApiOptions()
        self.documentation = documentation
        self.built = 0
        """Documents made so far."""
        self._registry = registry
        self._auth = authenticator
        self._routes = routes
        self._own = {**own_items(self.options.facts), **(own or {})}
        self._index_loaded = index_loaded
        self._clock = clock
        self._kept: OrderedDict[Sight, Made] = OrderedDict()
        self._making: dict[Sight, asyncio.Task[Made]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Answer one request. Raises Problem for a ticket that is not good, and when there is no
        privilege table or no index: a document without actions would be taken for the truth."""
        sight = await self._sight(exchange)
        if not self._index_loaded():
            raise no_index(loaded=False)
        await self.documentation.refresh()
        made = await self._document(sight)
        headers = [("Cache-Control", "no-cache")]
        if self._depends_on_ticket:
            vary = ("Vary", self._auth.credentials.vary)
            headers = [("Cache-Control", "private, no-cache"), vary]
        await send_tagged(exchange, JSON_TYPE, made.text, made.etag, headers)

    @property
    def _depends_on_ticket(self) -> bool:
        return self.options.audience == "callers" and self._auth.mode != "forward"

    async def _sight(self, exchange: Exchange) -> Sight:
        if not self._depends_on_ticket:
            return ALL
        caller = exchange.caller = self._auth.identify_any(exchange.headers)
        if caller is None or caller.claims is None:
            return OPEN
        if self._auth.mode == "verify":
            return ALL
        table = await self._auth.table(Deadline.after(TABLE_WAIT))
        return Sight(table=table, privileges=caller.claims.privileges)

    # -- documents ----------------------------------------------------------------------

    async def _document(self, sight: Sight) -> Made:
        """The one in force, made now if need be; one task makes it for all who wait."""
        kept = self._kept.get(sight)
        if kept is not None and (kept.state == self._state() or self._clock() < kept.fresh_until):
            self._kept.move_to_end(sight)
            return kept
        task = self._making.get(sight)
        if task is None:
            task = self._making[sight] = asyncio.create_task(self._make(sight))
            task.add_done_callback(lambda done: self._ended(sight, done))
        return await asyncio.shield(task)

    def _ended(self, sight: Sight, task: asyncio.Task[Made]) -> None:
        del self._making[sight]
        if not task.cancelled():
            task.exception()  # all who waited for it may have left

    def _state(self) -> tuple[object, ...]:
        return (self._registry.generation, self._routes().version, self.documentation.version)

    async def _make(self, sight: Sight) -> Made:
        async with self._one_at_a_time:
            state, began = self._state(), self._clock()
            routes = lead(
                self._registry,
                self._routes(),
                sight,
                default_timeout=self.options.default_timeout,
            )
            text, tag = await asyncio.to_thread(
                self._build, sight, routes, self.documentation.snapshot()
            )
            took = self._clock() - began
        self.built += 1
        until = self._clock() + (BUILD_SHARE * took if took > SLOW_BUILD else 0.0)
        made = Made(state, text, tag, until)
        self._keep(sight, made)
        return made

    def _build(
        self, sight: Sight, routes: list[tuple[Route, Announced]], known: tuple[Sections, ...]
    ) -> tuple[bytes, str]:
        """In a thread: the document and its tag."""
        options, pause = self.options, Pace()
        selection = select(
            self._registry.actions(),
            sight,
            sectors=options.sectors,
            default_timeout=options.default_timeout,
            limit=options.max_actions,
            pause=pause,
        )
        text = build(
            selection.actions,
            options.facts,
            routes=routes,
            sections=merged(known),
            own=self._own,
            left_out=selection.left_out,
            pause=pause,
        )
        return text, f'"{sha256(text).hexdigest()[:32]}"'

    def _keep(self, sight: Sight, made: Made) -> None:
        if sight.table is not None:
            # Nobody has an older table's sight again, and a table may have tens of megabytes.
            for other in [one for one in self._kept if one.table not in (None, sight.table)]:
                del self._kept[other]
        self._kept[sight] = made
        self._kept.move_to_end(sight)
        size = sum(len(one.text) for one in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > MAX_DOCUMENTS or size > MAX_KEPT):
            _, oldest = self._kept.popitem(last=False)
            size -= len(oldest.text)

    async def close(self) -> None:
        """Ask services no more, and end what is being made; threads run to their end."""
        await self.documentation.close()
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
