"""The admin listener: health, metrics and state, for operators and machines. Reads only.

It has no authentication and shows what the mesh looks like inside: it belongs on an address that
strangers cannot reach, and never on the public one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, Protocol

import orjson
from aiohttp import hdrs, web

from gateway.console.pages import ConsolePages
from gateway.lists import action_pieces, listed, service_pieces
from scamp.discovery import DiscoveryStatus, Registry
from scamp.logs import redact


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of being ready."""

    name: str
    ok: bool
    detail: str


class State(Protocol):
    """What the pages show; the running gateway."""

    @property
    def registry(self) -> Registry: ...
    def discovery(self) -> DiscoveryStatus:
        """The follower's latest snapshot."""
        ...

    async def connections(self) -> list[dict[str, Any]]:
        """Every instance that requests have gone to, as JSON has it."""
        ...

    async def under_way(self) -> int:
        """Public requests under way."""
        ...

    async def checks(self) -> list[Check]:
        """The gateway is ready when all of them are good."""
        ...

    def configuration(self) -> Mapping[str, Any]:
        """Every setting with value and origin, secrets left out."""
        ...

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its full content type, in the format that `accept` asks for."""
        ...

    async def overview(self, wanted: str) -> Mapping[str, Any]:
        """Everything in one piece, cut to what a page shows; rows have `wanted` in them."""
        ...

    def exposed(self, sector: str) -> bool:
        """Whether actions of the sector are reachable over HTTP."""
        ...


STATE: Final = web.AppKey("state", State)
HOSTS: Final = web.AppKey("hosts", frozenset[str])

_HARMLESS: Final = ("/livez", "/readyz")
"""They tell nothing, and whatever probes them may call us as it likes."""

_PORT: Final = re.compile(r":[0-9]*\Z")

_PAGES: Final = {
    "/metrics": "Prometheus",
    "/livez": "the process runs",
    "/readyz?verbose": "the conditions of being ready",
    "/services": "services in force, and records refused",
    "/actions": "actions in force",
    "/connections": "instances in use",
    "/config": "settings and where they came from",
    "/overview": "what this page shows",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def admin_application(state: State, hosts: Collection[str] = ()) -> web.Application:
    """The application behind the admin listener. `hosts` are names by which it may be called,
    besides ``localhost`` and addresses; without any all will do where it is no loopback address."""
    app = web.Application(middlewares=[_problems, _own_name])
    app[STATE] = state
    app[HOSTS] = frozenset(host.lower() for host in hosts)
    app.add_routes(
        [
            *ConsolePages(state, _PAGES).routes(),
            web.get("/metrics", _metrics),
            web.get("/livez", _livez),
            web.get("/readyz", _readyz),
            web.get("/services", _services),
            web.get("/actions", _actions),
            web.get("/connections", _connections),
            web.get("/config", _config),
        ]
    )
    return app


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as exc:
        detail = {
            404: f"there is nothing at {redact(request.path)}; / lists what there is",
            405: f"{request.path} is only read: use GET, not {request.method}",
        }.get(exc.status, exc.reason)
        response = _problem(exc.status, detail)
        if hdrs.ALLOW in exc.headers:
            response.headers[hdrs.ALLOW] = exc.headers[hdrs.ALLOW]
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers[hdrs.SERVER] = "scamp-gateway"  # not what it is made of, as on the public port
    return response


@web.middleware
async def _own_name(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep out pages that have their own name lead to a loopback address (DNS rebinding): to the
    browser of whoever sits at this machine they are of the same origin as we are, and may read
    all."""
    # Whoever has named names means all addresses: a container's is published on a loopback one.
    checked = bool(request.app[HOSTS]) or _by_loopback(request)
    if request.path not in _HARMLESS and checked and not _is_own(request):
        return _problem(
            HTTPStatus.MISDIRECTED_REQUEST,
            "The admin listener is called localhost or by its address here; "
            "the setting admin_hosts has other names.",
        )
    return await handler(request)


def _by_loopback(request: web.Request) -> bool:
    name = request.get_extra_info("sockname")
    address = _address(name[0]) if isinstance(name, tuple) else None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address is not None and address.is_loopback


def _is_own(request: web.Request) -> bool:
    hosts = request.headers.getall(hdrs.HOST, ())
    if not hosts:
        return True  # no browser leaves it out
    host = _PORT.sub("", hosts[0].lower())
    return len(hosts) == 1 and (
        host == "localhost"
        or host.endswith(".localhost")
        or host in request.app[HOSTS]
        or _address(host.removeprefix("[").removesuffix("]")) is not None
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _problem(status: int, detail: str) -> web.Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/problem+json"
    )


def _json(content: Any) -> web.Response:
    return web.Response(
        body=orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
    )


# -- machines ---------------------------------------------------------------------------


async def _metrics(request: web.Request) -> web.Response:
    accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
    body, content_type = await request.app[STATE].metrics(accept)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


async def _livez(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    checks = await request.app[STATE].checks()
    ready = all(check.ok for check in checks)
    text = "ready\n" if ready else "not ready\n"
    if "verbose" in request.query or not ready:
        text = "".join(
            f"[{'+' if check.ok else '-'}] {check.name}: {check.detail}\n" for check in checks
        ) + text  # fmt: skip
    return web.Response(text=text, status=200 if ready else 503)


# -- state as JSON ----------------------------------------------------------------------


async def _services(request: web.Request) -> web.Response:
    state = request.app[STATE]
    services, status = state.registry.services(), state.discovery()
    rest = {
        "discovery": _discovery(status),
        "rejected_records": [
            {"identity": redact(identity), "reason": reason, "detail": redact(detail)}
            for identity, reason, detail in status.rejected_records
        ],
    }
    pieces = await asyncio.to_thread(service_pieces, services)
    return listed("services", pieces, rest)


def _discovery(status: DiscoveryStatus) -> dict[str, Any]:
    return {
        "loaded": status.loaded,
        "stale": status.stale,
        "age": status.age(time.time()),
        "accepted": status.accepted,
        "kept": status.kept,
        "rejected": dict(status.rejected),
        "unauthorized": status.unauthorized,
        "loads": status.loads,
        "failed_loads": status.failed_loads,
        "last_error": status.last_error,
    }


async def _actions(request: web.Request) -> web.Response:
    state = request.app[STATE]
    pieces = await asyncio.to_thread(action_pieces, state.registry.actions(), state.exposed)
    return listed("actions", pieces, {})


async def _connections(request: web.Request) -> web.Response:
    found = await request.app[STATE].connections()
    return _json({"instances": [{**one, "identity": redact(one["identity"])} for one in found]})


async def _config(request: web.Request) -> web.Response:
    return _json(request.app[STATE].configuration())
