"""Harnesses for what the gateway reads of requests: targets, queries, bodies of routes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

from gateway.problems import Problem
from gateway.routes.compose import compose, members_of
from gateway.routes.load import parse_routes
from gateway.routes.match import Matcher
from gateway.translate import native_target, query_object, split_target
from scamp.errors import ConfigError

ROUTES: Final = """
[[routes]]
method = "POST"
path = "/v1/{id:int}/{code}"
action = "A.b"
query = { n = "int", t = { many = true } }
defaults = { d = [1] }
[[routes]]
method = "PUT"
path = "/v1/{id:int}"
action = "A.b"
body = "value"
query = "*"
"""
_TABLE: Final = parse_routes(ROUTES)
_MATCHER: Final = Matcher(_TABLE)

TARGETS: Final = (
    b"/api/main:Product.Sku.fetch~1?a=1&b=%C3%BC&a=2",
    b"http://host/api/Product.Sku._read?x",
    b"/v1/7/LAMP%201?n=3&t=a&t=b",
    b"/api/%2e%2e/x",
    b"/api/a%252fb",
)
BODIES: Final = (
    b'/v1/7/x?n=1\n{"a":1.10,"id":7}',
    b'/v1/7/x\n{"id":7,"b":{"id":8}}',
    b'/v1/7?a=b\n[1,{"x":"}"}]',
    b"/v1/7?value=b\n1",
    b'/v1/7/x\n{"\\u0069d":8}',
    b"/v1/7/x\n",
)
FILES: Final = (
    ROUTES.encode(),
    b'[[resources]]\npath = "/v1/skus"\nnamespace = "Product.Sku"\nid = "id"\nlist = false\n',
    b'routes = [{method="GET",path="/a",action="A.b"}]\n',
)


def request_target(data: bytes) -> None:
    """Whatever comes out of a request target can be read in one way only."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(Problem):
        path, query = split_target(text)
        assert path.startswith("/"), path
        assert not any(part in ("", ".", "..") for part in path.split("/")[1:-1])
        assert path.isprintable()
        assert "\\" not in path
        assert len(path) <= len(data) + 1
        target = native_target(path)
        if target is not None:
            assert target.action.isascii()
            assert target.version < 10**9
        with suppress(Problem):
            assert isinstance(json.loads(query_object(query)), dict)


def route_body(data: bytes) -> None:
    """What the URL says stands in the body of the call once, whatever the client's body is."""
    url, _, body = data.partition(b"\n")
    with suppress(Problem):
        path, query = split_target(url.decode("utf-8", "surrogateescape"))
        for match in _MATCHER.find(path):
            members = members_of(match.route, match.values, query)
            outermost = _pairs(compose(match.route, members, body))
            names = [name for name, _ in outermost]
            for name, value in members.items():
                assert names.count(name) == 1
                assert dict(outermost)[name] == value


def routes_file(data: bytes) -> None:
    """A table or reasons with lines."""
    with suppress(ConfigError, UnicodeDecodeError):
        table = parse_routes(data.decode(), "f")
        for route in table.routes:
            assert route.methods
            assert route.template.startswith("/")
            Matcher(table).find(route.plain_template)


def _pairs(text: bytes) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found[:] = pairs
        return dict(pairs)

    json.loads(text, object_pairs_hook=remember)
    return found
