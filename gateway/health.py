"""``python -m gateway.health [URL]``: whether a gateway beside this process lives, by the status.

For the health check of a container, several times a minute beside requests: so it imports next to
nothing, and knows the admin listener from the environment (``SCAMP_GATEWAY_ADMIN_BIND``) alone.
Where a flag or the configuration file sets it, give the URL. A proxy is never asked.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

TIMEOUT: Final = 2.0
"""Seconds for connecting, and for each wait after it."""

_VARIABLE: Final = "SCAMP_GATEWAY_ADMIN_BIND"
_USUAL: Final = "127.0.0.1:9090"


def admin_url(bind: str) -> str:
    """Where a listener that is bound to ``HOST:PORT`` is asked from the same machine."""
    host, _, port = bind.rpartition(":")
    # The kernel leads 0.0.0.0 and :: to this machine, too.
    return f"http://{'127.0.0.1' if host in ('', '*') else host}:{port}/livez"


def problem(url: str, timeout: float = TIMEOUT) -> str | None:
    """Why the answer of `url` (http only) is not 200; None when it is."""
    parts = urlsplit(url)
    try:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request(
                "GET", f"{parts.path or '/livez'}{parts.query and f'?{parts.query}'}"
            )
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, ValueError, HTTPException) as exc:
        return str(exc) or type(exc).__name__
    return None if status == 200 else f"status {status}"


def main(arguments: list[str]) -> int:
    """The exit status: 0 or 1, as Docker wants it; what is wrong goes to stderr."""
    url = arguments[0] if arguments else admin_url(os.environ.get(_VARIABLE) or _USUAL)
    found = problem(url)
    if found is not None:
        sys.stderr.write(f"{url}: {found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
