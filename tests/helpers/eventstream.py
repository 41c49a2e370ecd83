"""A browser's side of an event stream, and a service that publishes.

For tests, not for production::

    async with published(price={"apple": 3}) as shop:
        async with Fronted(shop, events_open=["shop"]) as gateway:
            browser = await follow(gateway, "/api/events/shop?code=price")
            first = await browser.next()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from multidict import CIMultiDict

from fronted import Fronted, Wire
from scamp.server import Service
from scamp.testing import make_identity


@dataclass(frozen=True, slots=True)
class Event:
    """One event as a browser dispatches it."""

    name: str
    data: Any
    id: str


class Browser:
    """Reads the stream of one connection, as the HTML standard says."""

    def __init__(self, wire: Wire, status: int, headers: CIMultiDict[str]) -> None:
        self.wire = wire
        self.status = status
        self.headers = headers
        self.comments = 0
        self.retry = 0
        self.values: dict[str, dict[str, Any]] = {}
        """What a page would show: made of snapshots and changes alone."""
        self.ready: bool | None = None
        self.last_id = ""
        self._text = b""

    async def next(self, timeout: float = 10.0) -> Event | None:
        """The next event; None when the stream has ended in good order.

        Raises IncompleteReadError or ConnectionResetError when it was cut.
        """
        async with asyncio.timeout(timeout):
            while True:
                while b"\n\n" not in self._text:
                    piece = await self.wire.chunk()
                    if not piece:
                        assert self._text == b""
                        return None
                    self._text += piece
                block, _, self._text = self._text.partition(b"\n\n")
                event = self._parse(block.decode())
                if event is not None:
                    return event

    def _parse(self, block: str) -> Event | None:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if not name:
                self.comments += 1
            elif name == "retry":
                self.retry = int(value)
            else:
                assert name in ("id", "event", "data"), line
                assert name not in fields
                fields[name] = value.removeprefix(" ")
        if not fields:
            return None
        event = Event(fields["event"], orjson.loads(fields["data"]), fields["id"])
        self.last_id = event.id
        self._show(event)
        return event

    def _show(self, event: Event) -> None:
        data = event.data
        if event.name == "snapshot":
            self.values = data["codes"]
        elif event.name == "change" and data.get("deleted"):
            self.values.setdefault(data["code"], {}).pop(data["key"], None)
        elif event.name == "change":
            self.values.setdefault(data["code"], {})[data["key"]] = data["value"]
        else:
            assert data == {}
            self.ready = event.name == "ready"

    async def take(self, count: int) -> list[Event]:
        """The next `count` events."""
        found: list[Event] = []
        for _ in range(count):
            event = await self.next()
            assert event is not None, f"ended after {found}"
            found.append(event)
        return found

    async def until(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Read on until the page shows `values`."""
        while self.values != values:
            assert await self.next() is not None, f"ended with {self.values}"

    async def close(self) -> None:
        """Close the tab."""
        await self.wire.close()


async def follow(gateway: Fronted, target: str, headers: Iterable[tuple[str, str]] = ()) -> Browser:
    """Open a stream; its head is here, whatever the status."""
    wire = await gateway.connect()
    wire.send("GET", target, [("Accept", "text/event-stream"), *headers])
    return Browser(wire, *await wire.head())


def make_shop(name: str = "shop", **values: Mapping[str, Any]) -> Service:
    """A service that publishes `values`, by code; not started."""
    identity = make_identity()
    service = Service(name, key=identity.key, certificate=identity.certificate)
    for code, keys in values.items():
        for key, value in keys.items():
            service.publish(code, key, value)
    return service


@asynccontextmanager
async def published(name: str = "shop", **values: Mapping[str, Any]) -> AsyncIterator[Service]:
    """`make_shop`, running."""
    service = make_shop(name, **values)
    await service.start(port=0)
    try:
        yield service
    finally:
        await service.stop(grace=1)
