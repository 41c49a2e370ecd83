"""Files of the gateway's own pages, as they are served: read once, nothing filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Content type by suffix. What has another one is not served."""

HEADERS: Final = (
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
"""What holds for each of them: only what comes from here may run or be reached."""

REVALIDATED: Final = ("Cache-Control", "no-cache")
"""A new version of the gateway is seen at once; as long as it is the same nothing is sent."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """`etag` is in quotes."""

    content: bytes
    type: str
    etag: str


def page_file(content: bytes, content_type: str) -> PageFile:
    """One that is made of `content`."""
    return PageFile(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:20]}"')


def page_files(package: str, only: Container[str] | None = None) -> Mapping[str, PageFile]:
    """Those in the directory ``page`` of `package` by name; of these `only` some. Blocks for some
    milliseconds."""
    found = {}
    for one in files(package).joinpath("page").iterdir():
        kind = _TYPES.get(one.name.rpartition(".")[2])
        if kind is not None and (only is None or one.name in only):
            found[one.name] = page_file(one.read_bytes(), kind)
    return found
