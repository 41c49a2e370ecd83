"""The demo's services in this event loop behind a public listener that serves the explorer.

What other parts of the gateway serve, the description and events, is put there by the
test, so that it can be hostile, broken, or change at a chosen moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson

from fronted import Fronted
from gateway.auth import Authenticator
from gateway.credentials import Credentials
from gateway.demo.folder import Folder
from gateway.demo.services import auth_service, shop_service
from gateway.demo.store import Store
from gateway.endpoints import Endpoint, Endpoints
from gateway.exchange import Exchange
from gateway.explorer import Explorer
from gateway.whoami import WhoAmI
from scamp.authz import AuthzSource
from scamp.client import authz_fetcher
from scamp.tickets import TicketKeys, TicketVerifier

SKU: Final = {
    "type": "object",
    "required": ["code", "name", "price"],
    "properties": {
        "code": {
            "type": "string",
            "description": "Article number, such as `LAMP-1`.",
            "minLength": 1,
            "maxLength": 100,
            "examples": ["LAMP-1"],
        },
        "name": {"type": "string", "minLength": 1, "maxLength": 100, "examples": ["Brass lamp"]},
        "price": {"type": "integer", "description": "In cents.", "minimum": 0, "examples": [4900]},
        "tags": {"type": "array", "items": {"type": "string"}, "examples": [["brass"]]},
        "origin": {"$ref": "#/components/schemas/Origin"},
    },
}
CODE: Final = {"name": "code", "in": "query", "required": True, "schema": {"type": "string"}}
FREE: Final[list[dict[str, Any]]] = []

ACTIONS: Final[Mapping[str, tuple[str, str, Any]]] = {
    "Auth.getAuthzTable": ("noauth,read", "The privileges that actions take, by name.", FREE),
    "Product.Price.set": ("update", "Sets the price of an article.", "Price"),
    "Product.Sku.broken": ("read", "Always fails: the label printer is on fire.", FREE),
    "Product.Sku.create": ("create", "Adds an article to the range.", "Sku"),
    "Product.Sku.destroy": ("destroy", "Takes an article out of the range.", "Code"),
    "Product.Sku.export": ("read", "Every article there is, streamed.", FREE),
    "Product.Sku.fetch": ("read", "One article by its number.", [CODE]),
    "Product.Sku.list": ("read", "The articles of the shop.", FREE),
    "Product.Sku.ping": ("noauth,read", "Says which instance answers.", FREE),
    "Product.Sku.slow": ("read,t30", "Takes ten seconds.", FREE),
    "Product.Sku.update": ("update", "Gives an article another name.", "Sku"),
}
"""The demo's actions: flags, description, and the query or the body's schema."""

_METHODS: Final = {
    "read": ("get", "head", "post"),
    "update": ("put", "patch", "post"),
    "destroy": ("delete", "post"),
    "create": ("post",),
}


def description() -> dict[str, Any]:
    """The demo in OpenAPI 3.1, in the gateway's form."""
    tags = sorted({name.rpartition(".")[0] for name in ACTIONS})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shop",
            "version": "1",
            "description": "Actions of the mesh behind this gateway.",
        },
        "tags": [{"name": tag} for tag in tags],
        "security": [{"ticket": []}, {"ticketHeader": []}],
        "paths": {
            f"/api/{name}": path_item(name, flags, text, takes)
            for name, (flags, text, takes) in ACTIONS.items()
        },
        "components": {
            "securitySchemes": {
                "ticket": {"type": "http", "scheme": "bearer"},
                "ticketHeader": {"type": "apiKey", "in": "header", "name": "X-SCAMP-Ticket"},
            },
            "schemas": {
                "Sku": SKU,
                "Code": {
                    "type": "object",
                    "required": ["code"],
                    "properties": {"code": SKU["properties"]["code"]},  # type: ignore[index]
                },
                "Price": {
                    "type": "object",
                    "required": ["code", "price"],
                    "properties": {
                        "code": SKU["properties"]["code"],  # type: ignore[index]
                        "price": SKU["properties"]["price"],  # type: ignore[index]
                    },
                },
                "Origin": {
                    "type": "object",
                    "description": "Where it was made.",
                    "properties": {
                        "country": {"type": "string", "enum": ["DE", "SE", "PT"]},
                        "part_of": {"$ref": "#/components/schemas/Origin"},
                    },
                },
            },
        },
    }


def path_item(name: str, flags: str, text: str, takes: Any = FREE) -> dict[str, Any]:
    """What a description says of one action."""
    words = flags.split(",")
    methods = next((_METHODS[word] for word in words if word in _METHODS), ("post",))
    timeout = next((int(word[1:]) for word in words if word[1:].isdigit()), 75)
    operations: dict[str, Any] = {}
    for method in methods:
        operation: dict[str, Any] = {
            "tags": [name.rpartition(".")[0]],
            "operationId": f"{method}.{name}",
            "description": text,
            "x-scamp-action": name,
            "x-scamp-flags": words,
            "x-scamp-timeout": timeout,
            "responses": {
                "200": {"description": "The action's reply."},
                "403": {"description": "The ticket lacks a privilege."},
            },
        }
        if "noauth" in words:
            operation["security"] = []
        if method in ("get", "head"):
            operation["parameters"] = takes if isinstance(takes, list) else []
        else:
            schema: dict[str, Any] = {"type": "object"}
            if isinstance(takes, str):
                schema = {"$ref": f"#/components/schemas/{takes}"}
            elif takes:
                schema["properties"] = {one["name"]: one["schema"] for one in takes}
            operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        operations[method] = operation
    return operations


class Fixed:
    """Serves what `answer` returns for a request."""

    methods = ("GET", "HEAD", "POST", "DELETE")

    def __init__(self, route: str, answer: Callable[[Exchange], tuple[int, str, bytes]]) -> None:
        self.route = route
        self._answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Raw targets and headers of what came."""

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Answer."""
        self.asked.append((exchange.request.raw_path, dict(exchange.request.headers)))
        await exchange.send_whole(*self._answer(exchange))


class Cut:
    """Begins a reply and breaks it off."""

    route = "/cut"
    methods = ("GET",)

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """A third of a JSON text, then nothing."""
        await exchange.begin("application/json", b'{"rows": [1, 2, ')
        exchange.cut()


class FakeEvents:
    """An events endpoint that says what a test tells it to."""

    route = "/api/events/{service}"
    methods = ("GET",)

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.snapshot: dict[str, Any] = {"codes": {}}
        self._said: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, event: str, data: Any = None, number: int | None = None) -> None:
        """Send one event to who follows, or to who will."""
        head = f"id: {number}\n" if number is not None else ""
        self._said.put_nowait(
            f"{head}event: {event}\ndata: {orjson.dumps(data).decode()}\n\n".encode()
        )

    def hang_up(self) -> None:
        """End the stream."""
        self._said.put_nowait(b"")

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """A snapshot, then whatever is said."""
        self.asked.append((exchange.request.raw_path, dict(exchange.request.headers)))
        first = b"retry: 50\nevent: snapshot\ndata: %b\n\n" % orjson.dumps(self.snapshot)
        await exchange.begin("text/event-stream", first)
        while piece := await self._said.get():
            await exchange.piece(piece)
        await exchange.end()


class Explored:
    """What a test of the explorer has to do with."""

    def __init__(self, front: Fronted, folder: Folder, events: FakeEvents) -> None:
        self.front = front
        self.origin = f"http://127.0.0.1:{front.port}"
        self.events = events
        self.document = description()
        """What ``/openapi.json`` answers with; a test may change it at any time."""
        self._folder = folder

    def ticket(self, user: str) -> str:
        """That of alice or bob."""
        return self._folder.ticket(user).read_text()


@asynccontextmanager
async def explored(
    folder: Folder, more: Mapping[str, Endpoint] | None = None
) -> AsyncIterator[Explored]:
    """An `Explored` with the demo's services and a new database; `folder` is prepared, `more` are
    endpoints by path."""
    folder.database.unlink(missing_ok=True)
    Store(folder.database).prepare()
    auth, shop = auth_service(folder, "auth"), shop_service(folder, "shop-1")
    await auth.start(port=0)
    await shop.start(port=0)
    events = FakeEvents()
    endpoints = Endpoints((*(more or {}).items(), ("/api/events/shop", events)))
    explorer = Explorer()
    endpoints.add("/docs", explorer)
    endpoints.add("/docs/", explorer)
    verifier = TicketVerifier(TicketKeys([folder.ticket_key]).load())
    found: list[Explored] = []
    source = AuthzSource(lambda: authz_fetcher(found[0].front.mesh.requester)())
    checks = Authenticator("enforce", verifier, source, credentials=Credentials("ticket"))
    front = Fronted(auth, shop, auth=checks, endpoints=endpoints)
    endpoints.add(
        "/openapi.json",
        Fixed("/openapi.json", lambda _: _json(200, found[0].document)),
    )
    whoami = WhoAmI(checks, front.mesh.registry, sectors=("main",), timeout=10)
    endpoints.add("/whoami", whoami)
    try:
        async with front:
            found.append(Explored(front, folder, events))
            yield found[0]
            events.hang_up()
    finally:
        await source.close()
        await auth.stop(grace=1)
        await shop.stop(grace=1)


def _json(status: int, what: Any) -> tuple[int, str, bytes]:
    return status, "application/json", orjson.dumps(what)
