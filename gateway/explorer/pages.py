"""Serves the explorer's files, which lie in ``page`` beside this module.

They are read once. Nothing in them is filled in by the server: what the page shows it fetches, as
any other client would, so it needs no secrets and may be seen by everybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from gateway import catalogue
from gateway.endpoints import send_tagged
from gateway.exchange import Exchange
from gateway.problems import Problem

PREFIX: Final = "/docs/"
"""Where the files are."""

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Content type by suffix. What has another one is not served."""

_PAGES: Final = (PREFIX, f"{PREFIX}events")
"""Addresses of views. All are one page, which looks at its address."""

_HEADERS: Final = (
    # A new version of the gateway is seen at once; as long as it is the same nothing is sent.
    ("Cache-Control", "no-cache"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("X-Frame-Options", "DENY"),  # for what knows no frame-ancestors
)


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    type: str
    etag: str


class Explorer:
    """The `Endpoint` for ``/docs`` and all below it."""

    route: Final = "/docs/{file}"
    methods: Final = ("GET", "HEAD")

    def __init__(self) -> None:
        self._files = _load()

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Send a file, or 304 when the caller has it. Raises Problem (unknown_path)."""
        found = self._files.get(path)
        if found is None:
            raise Problem(catalogue.UNKNOWN_PATH, "The explorer has no such file.")
        await send_tagged(exchange, found.type, found.content, found.etag, _HEADERS)


def _load() -> Mapping[str, _File]:
    """Every file by its path. Blocks for some milliseconds."""
    loaded = {}
    for one in files("gateway.explorer").joinpath("page").iterdir():
        kind = _TYPES.get(one.name.rpartition(".")[2])
        if kind is not None:
            loaded[PREFIX + one.name] = _file(one.read_bytes(), kind)
    index = loaded.pop(PREFIX + "index.html")
    loaded |= dict.fromkeys(_PAGES, index)
    # References are relative, so that it works below any prefix that a proxy adds; without the
    # slash at the end they start one level higher.
    above = index.content.replace(b'="./', b'="docs/')
    return {**loaded, PREFIX.rstrip("/"): _file(above, index.type)}


def _file(content: bytes, kind: str) -> _File:
    return _File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:20]}"')
