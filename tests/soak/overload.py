"""Twice as much as a service can do, for as long as it lasts, and another service beside it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from fronted import Fronted
from scamp.client import ClientOptions
from scamp.testing import GO, ScriptedPeer, make_identity
from scamp.testing.scripts import slow
from soaking import Options, Outcome

TAKES: Final = 0.1
"""Seconds for each request."""

AT_ONCE: Final = 4
"""Connections, each with one request."""

OFFERED: Final = 2 * AT_ONCE / TAKES
"""Requests a second: twice as many as are served."""

BESIDE: Final = 20.0
"""Requests a second to the other service."""


@dataclass(slots=True)
class Load:
    """Requests at a fixed rate, whatever becomes of them."""

    gateway: Fronted
    target: str
    statuses: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    async def run(self, rate: float, seconds: float) -> None:
        """All of them, and their answers."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(began + number / rate - loop.time())
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        began = time.monotonic()
        answer = await self.gateway.request("POST", self.target, body=b"[%d]" % number)
        self.statuses.append(answer.status)
        if answer.status == 200:
            self.waits.append(time.monotonic() - began)


async def overload(options: Options) -> Outcome:
    """What is refused was not executed, what is executed is answered, others are served on."""
    seconds = max(6.0, options.minutes * 60) if options.full else 6.0
    weak = ScriptedPeer(slow(TAKES), manners=GO, actions=("Weak.work",))
    other = ScriptedPeer(actions=("Other.echo",), identity=make_identity(1))
    client = ClientOptions(max_connections=AT_ONCE, queue_target=0.5, queue_interval=1.0)
    outcome = Outcome()
    async with Fronted(weak, other, client=client) as gateway:
        work, beside = Load(gateway, "/api/Weak.work"), Load(gateway, "/api/Other.echo")
        await asyncio.gather(work.run(OFFERED, seconds), beside.run(BESIDE, seconds))
        await gateway.mesh.settled()
        served, refused = work.statuses.count(200), work.statuses.count(503)
        outcome.counts.update(
            {
                "offered": len(work.statuses),
                "served": served,
                "refused": refused,
                "beside": len(beside.statuses),
                "median_ms": round(median(work.waits) * 1000),
                "longest_ms": round(max(work.waits) * 1000),
            }
        )
        outcome.require(served + refused == len(work.statuses), "an answer is neither 200 nor 503")
        outcome.require(refused > 0, "nothing was refused")
        outcome.require(weak.executed.total() == served, "what was refused was executed")
        outcome.require(set(weak.executed.values()) == {1}, "something was executed twice")
        outcome.require(set(beside.statuses) == {200}, "the other service's requests failed")
        outcome.require(gateway.front.in_flight == 0, "requests are left")
        left = {places.in_flight for places in gateway.front.routing._places.values()}
        outcome.require(left <= {0}, "places are left")
    return outcome
