"""Which texts are the URL of a Redis."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

SCHEMES: Final = ("redis", "rediss", "unix")


def check_url(url: str) -> None:
    """Raises ValueError, which does not show it, unless it is a URL of a Redis."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in SCHEMES:
        raise ValueError("not redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix://PATH")
