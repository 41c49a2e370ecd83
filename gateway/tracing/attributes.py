"""Names and attributes of spans: OpenTelemetry's conventions for HTTP and RPC, and ``scamp.…``.

Nothing is taken from a request but its method, its path and the ``Host`` that it names: no query,
no other header, no body. What others chose is cut to `MAX_VALUE` characters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from aiohttp import HttpVersion10, hdrs

from gateway.actions import METHODS
from gateway.routing import NATIVE_ROUTE
from scamp.logs import redact

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from scamp.discovery import Offer

Attributes: TypeAlias = dict[str, str | int]

MAX_VALUE: Final = 256
"""Characters of a value that somebody else chose."""

_METHODS: Final = frozenset(METHODS)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


def name_of(exchange: Exchange) -> str:
    """The request's span: method and route; an action that is named in the path counts as one."""
    method = exchange.method if exchange.method in _METHODS else "HTTP"
    route = exchange.route
    if route == NATIVE_ROUTE and exchange.action is not None:
        return f"{method} /api/{exchange.action.label}"
    return method if route is None else f"{method} {route}"


def request_attributes(exchange: Exchange) -> Attributes:
    """Of a request that is over."""
    request, method = exchange.request, exchange.method
    found: Attributes = {
        "http.request.method": method if method in _METHODS else "_OTHER",
        "url.scheme": request.scheme,
        "url.path": path_of(request.raw_path),
        "network.protocol.version": "1.0" if request.version == HttpVersion10 else "1.1",
        "scamp.request_id": exchange.request_id,
    }
    if exchange.status:
        found["http.response.status_code"] = exchange.status
    if exchange.route is not None:
        found["http.route"] = exchange.route
    if exchange.client is not None:
        found["client.address"] = exchange.client
    if exchange.cause is not None:
        found["error.type"] = exchange.cause
    found.update(_named(exchange.headers.get(hdrs.HOST, "")))
    return found


def path_of(target: str) -> str:
    """The path of a request target, raw. What may stand around it, query, fragment, or a host with
    credentials, may be a secret."""
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):
        _, _, rest = path.partition("://")
        path = "/" + rest.partition("/")[2]
    if "," in path or "%" in path or "\\" in path:
        path = cut(path)
    # Bytes that are no UTF-8 stand there as half characters, which protobuf does not take.
    return path[:MAX_VALUE].encode("utf-8", "replace").decode()


def cut(text: str) -> str:
    """At most `MAX_VALUE` characters, and no ticket among them."""
    return redact(text[: 8 * MAX_VALUE])[:MAX_VALUE]


def _named(host: str) -> Attributes:
    """The server as the client names it; nothing for what is no name."""
    match = _HOST.fullmatch(host)
    if match is None:
        return {}
    found: Attributes = {"server.address": match[1].strip("[]")}
    if match[2] is not None:
        found["server.port"] = int(match[2])
    return found


def instance_attributes(address: str) -> Attributes:
    """Of the instance at HOST:PORT."""
    host, _, port = address.rpartition(":")
    return {"server.address": host.strip("[]"), "server.port": int(port)}


def attempt_attributes(offer: Offer, address: str, number: int) -> Attributes:
    """Of one attempt, from 1, at an instance."""
    action = offer.action
    return {
        "rpc.system": "scamp",
        "rpc.service": action.namespace,
        "rpc.method": action.name,
        "peer.service": offer.service.name,
        "scamp.sector": action.sector,
        "scamp.version": action.version,
        "scamp.attempt": number,
        **instance_attributes(address),
    }
