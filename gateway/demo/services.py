"""The services of the demo, each one a process: ``python -m gateway.demo.services auth|shop …``."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from gateway.demo.folder import Folder
from gateway.demo.store import Sku, Store
from scamp.errors import ServiceError
from scamp.server import Request, Service
from scamp.tickets import TicketKeys, TicketVerifier

PRIVILEGES: Final = ("sku_read", "sku_create", "sku_update", "sku_destroy", "price_set")
"""Names of the privileges, numbered from 1."""

_REQUIRED: Final = {
    "sku_read": ("Sku.fetch", "Sku.list", "Sku.export", "Sku.slow", "Sku.broken"),
    "sku_create": ("Sku.create",),
    "sku_update": ("Sku.update",),
    "sku_destroy": ("Sku.destroy",),
    "price_set": ("Price.set",),
}

SHOP: Final = "shop"
"""Name of both shops: who follows its prices does not mind which one tells them."""

PRICE_CODE: Final = "price"
_LOOK_INTERVAL: Final = 0.2
"""Seconds between looks at the file, where the other instance writes too."""

EXPORT_ROWS: Final = 80_000
_EXPORT_ROW: Final = '{{"code":"SKU-{:07d}","name":"Article number {:07d}"}}'
_ROWS_AT_ONCE: Final = 500
EXPORT_SIZE: Final = EXPORT_ROWS * (len(_EXPORT_ROW.format(0, 0)) + 1) + 1
"""Bytes of the whole export: rows, what stands between them, the brackets."""

SLOW_SECONDS: Final = 10.0


Code = Annotated[str, Field(min_length=1, max_length=100, examples=["CHAIR-1"])]
Name = Annotated[str, Field(min_length=1, max_length=100, examples=["Oak chair"])]


def _whole(value: object) -> object:
    """JSON has one kind of number: 1.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Price = Annotated[
    int,
    Field(ge=0, lt=10**9, strict=True, description="In cents.", examples=[14900]),
    BeforeValidator(_whole),
]


@dataclass(frozen=True, slots=True)
class Nothing:
    """No members."""


@dataclass(frozen=True, slots=True)
class Wanted:
    code: Code


@dataclass(frozen=True, slots=True)
class New:
    code: Code
    name: Name
    price: Price


@dataclass(frozen=True, slots=True)
class Renamed:
    code: Code
    name: Name


@dataclass(frozen=True, slots=True)
class Priced:
    code: Code
    price: Price


@dataclass(frozen=True, slots=True)
class Listed:
    skus: list[Sku]


@dataclass(frozen=True, slots=True)
class Destroyed:
    destroyed: str


@dataclass(frozen=True, slots=True)
class Pong:
    pong: bool
    instance: str


def authorization_table() -> dict[str, Any]:
    """What ``Auth.getAuthzTable`` returns: privileges by action, and their names."""
    table: dict[str, Any] = {
        f"product.{action.lower()}": [PRIVILEGES.index(name) + 1]
        for name, actions in _REQUIRED.items()
        for action in actions
    }
    # Not an action: who may follow what the shop publishes.
    table[f"{SHOP}._events"] = [PRIVILEGES.index("sku_read") + 1]
    return {**table, "_NAMES": [None, *PRIVILEGES]}


def auth_service(folder: Folder, name: str) -> Service:
    """Knows which privileges actions take."""
    service = _service(folder, name, name)

    @service.action("Auth.getAuthzTable", flags="noauth,read")
    async def get_authz_table(request: Request, body: Nothing) -> dict[str, Any]:
        """Which privileges each action takes, by number, and the names of these."""
        return authorization_table()

    return service


def shop_service(folder: Folder, name: str) -> Service:
    """Sells things. All instances share one sqlite file; `Prices` goes with it.

    Several actions are flagged ``read``; the last one registered is what ``Product.Sku._read``
    means, which is why ``fetch`` stands at the end of them.
    """
    service, store = _service(folder, name, SHOP), Store(folder.database)
    _add_odd_actions(service, name)

    @service.action("Product.Sku.list", flags="read")
    async def list_skus(request: Request, body: Nothing) -> Listed:
        """All articles, by code.

        The first 1000 of them.
        """
        return Listed(await asyncio.to_thread(store.list))

    @service.action("Product.Sku.fetch", flags="read")
    async def fetch(request: Request, body: Wanted) -> Sku:
        """One article.

        Without one of this code the error is `not_found`.
        """
        return _found(body.code, await asyncio.to_thread(store.get, body.code))

    @service.action("Product.Sku.create", flags="create")
    async def create(request: Request, body: New) -> Sku:
        """Add an article.

        When there is one of this code already, the error is `conflict`.
        """
        sku = Sku(body.code, body.name, body.price)
        if not await asyncio.to_thread(store.add, sku):
            raise ServiceError("conflict", f"{sku.code} exists already", {"code": sku.code})
        return sku

    @service.action("Product.Sku.update", flags="update")
    async def update(request: Request, body: Renamed) -> Sku:
        """Give an article another name."""
        changed = await asyncio.to_thread(store.change, body.code, name=body.name)
        return _found(body.code, changed)

    @service.action("Product.Sku.destroy", flags="destroy")
    async def destroy(request: Request, body: Wanted) -> Destroyed:
        """Take an article out."""
        if not await asyncio.to_thread(store.remove, body.code):
            raise _missing(body.code)
        return Destroyed(body.code)

    @service.action("Product.Price.set", flags="update")
    async def set_price(request: Request, body: Priced) -> Sku:
        """Set what an article costs, in cents."""
        changed = await asyncio.to_thread(store.change, body.code, price=body.price)
        return _found(body.code, changed)

    return service


def _add_odd_actions(service: Service, name: str) -> None:
    """A free one, a large one, a slow one and one that fails."""

    @service.action("Product.Sku.ping", flags="noauth,read")
    async def ping(request: Request, body: Nothing) -> Pong:
        """Whether anybody is there, and who; takes no ticket."""
        return Pong(True, name)

    @service.action("Product.Sku.export", flags="read")
    async def export(request: Request, body: Nothing) -> AsyncIterator[bytes]:
        """A long list of made-up articles, as a stream of some 5 MB."""
        for first in range(0, EXPORT_ROWS, _ROWS_AT_ONCE):
            rows = range(first + 1, first + _ROWS_AT_ONCE + 1)
            text = ",".join(_EXPORT_ROW.format(row, row) for row in rows)
            last = first + _ROWS_AT_ONCE == EXPORT_ROWS
            yield f"{',' if first else '['}{text}{']' if last else ''}".encode()

    @service.action("Product.Sku.slow", flags="read,t30")
    async def slow(request: Request, body: Nothing) -> dict[str, float]:
        """Takes ten seconds: try `X-SCAMP-Timeout` on it."""
        await asyncio.sleep(SLOW_SECONDS)
        return {"slept": SLOW_SECONDS}

    @service.action("Product.Sku.broken", flags="read")
    async def broken(request: Request, body: Nothing) -> None:
        """Always fails, with an error of the service's own."""
        raise ServiceError("printer_on_fire", "the label printer is on fire", {"printer": 3})


class Prices:
    """Publishes the price of every article in the file.

    What the file has, and not what this instance was told: so all instances publish the same, and
    who is moved from one to another sees nothing of it.
    """

    def __init__(self, service: Service, store: Store) -> None:
        self._service = service
        self._store = store
        self._published: dict[str, int] = {}

    async def look(self) -> None:
        """Publish what the file has now. For the first time before the service is announced, or who
        subscribes at once would see everything go."""
        now = await asyncio.to_thread(self._store.prices)
        for code in self._published.keys() - now.keys():
            self._service.publish(PRICE_CODE, code, None)
        for code, price in now.items():
            self._service.publish(PRICE_CODE, code, price)
        self._published = now

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_INTERVAL)
            await self.look()


def _service(folder: Folder, files: str, name: str) -> Service:
    keys = TicketKeys([folder.ticket_key]).load()
    return Service(
        name,
        key=folder.key(files).read_bytes(),
        certificate=folder.certificate(files).read_bytes(),
        ticket_verifier=TicketVerifier(keys),
    )


def _found(code: str, sku: Sku | None) -> Sku:
    if sku is None:
        raise _missing(code)
    return sku


def _missing(code: str) -> ServiceError:
    return ServiceError("not_found", f"there is no article {code}", {"code": code})


def main() -> None:
    """Serve until told to stop; the record for discovery goes to the demo's folder."""
    parser = argparse.ArgumentParser(prog="python -m gateway.demo.services")
    parser.add_argument("kind", choices=("auth", "shop"))
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", help="Listen on every interface, and be announced as this.")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"{given.name}: %(message)s")
    folder = Folder(given.folder)
    asyncio.run(_serve(given.kind, folder, given.name, given.host))


async def _serve(kind: str, folder: Folder, name: str, host: str | None) -> None:
    async with asyncio.TaskGroup() as group:
        beside: list[asyncio.Task[None]] = []
        if kind == "auth":
            service = auth_service(folder, name)
        else:
            service = shop_service(folder, name)
            prices = Prices(service, Store(folder.database))
            await prices.look()
            beside.append(group.create_task(prices.follow()))
        # The supervisor takes the record out itself, so nobody needs to be waited for.
        await service.run(
            "0.0.0.0" if host else None,  # noqa: S104 - asked for
            announce_host=host,
            announce_file=folder.record(name),
            linger=0,
            grace=2,
        )
        for task in beside:
            task.cancel()


if __name__ == "__main__":
    main()
