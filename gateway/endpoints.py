"""What the public listener serves besides actions: pages and descriptions of the gateway's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from gateway import catalogue
from gateway.exchange import Exchange
from gateway.problems import Problem

RESERVED: Final = ("/api", "/docs", "/openapi.json", "/whoami")
"""Paths that are ours, with all below them: no route of one's own begins with one of these."""

_BELOW: Final = tuple(f"{path}/" for path in RESERVED)

UNCOUNTED: Final = ("/docs",)
"""Paths below which a page is made of many files: they count for no rate limit."""


class Endpoint(Protocol):
    """One path, or all below one, and what answers there."""

    @property
    def route(self) -> str:
        """What the log says for the route, such as ``/docs/{file}``."""
        ...

    @property
    def methods(self) -> tuple[str, ...]:
        """What it takes, besides OPTIONS; GET without HEAD is possible."""
        ...

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Answer, through `exchange`, one request of one of `methods`.

        `path` is decoded and strict (`translate.split_target`), `query` is raw. Raises Problem,
        ScampError and ConnectionError (the client has left), which the front answers or logs.
        Cancelled when the client leaves, or when the process cannot wait any longer.
        """
        ...


class Endpoints:
    """Endpoints by path. A name that ends in ``/`` takes everything below it."""

    def __init__(self, endpoints: Iterable[tuple[str, Endpoint]] = ()) -> None:
        self._exact: dict[str, Endpoint] = {}
        self._below: list[tuple[str, Endpoint]] = []
        for path, endpoint in endpoints:
            self.add(path, endpoint)

    def add(self, path: str, endpoint: Endpoint) -> None:
        """Serve `endpoint` at `path`. Raises ValueError when something is there already."""
        if path in self._exact or any(path == taken for taken, _ in self._below):
            raise ValueError(f"{path} is taken")
        if path.endswith("/"):
            self._below.append((path, endpoint))
        else:
            self._exact[path] = endpoint

    def find(self, path: str) -> Endpoint | None:
        """What answers at this decoded path."""
        found = self._exact.get(path)
        if found is None:
            for prefix, endpoint in self._below:
                if path.startswith(prefix):
                    return endpoint
        return found


def is_reserved(path: str) -> bool:
    """Whether this decoded path is ours, whatever a template such as ``/{a}/{b}`` takes."""
    return path in RESERVED or path.startswith(_BELOW)


def is_counted(path: str) -> bool:
    """Whether a request for this decoded path counts for its caller's rate limits."""
    return not any(path == one or path.startswith(f"{one}/") for one in UNCOUNTED)


def allow_of(methods: Iterable[str]) -> str:
    """The value of an ``Allow`` header for what takes these methods, and OPTIONS."""
    return ", ".join((*methods, "OPTIONS"))


def check_endpoint_method(method: str, endpoint: Endpoint) -> None:
    """Raise Problem (method_not_allowed) unless `endpoint` takes `method`."""
    if method not in endpoint.methods:
        allowed = allow_of(endpoint.methods)
        raise Problem(
            catalogue.METHOD_NOT_ALLOWED,
            f"{method} is not among what {endpoint.route} takes: {allowed}.",
            headers=(("Allow", allowed),),
        )
