"""What pages of other origins may do with the gateway: the Fetch standard's CORS, by a list."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.credentials import ANY_ORIGIN, TICKET_HEADER

Fields = list[tuple[str, str]]

MAX_ASKED: Final = 50
"""Header fields that one preflight may ask for besides those we know; more are not named."""

KNOWN_FIELDS: Final = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Last-Event-ID",
    "traceparent",
    "tracestate",
    "X-Request-ID",
    TICKET_HEADER,
    "X-SCAMP-Timeout",
)
"""Fields of requests that mean something to us."""

EXPOSED_FIELDS: Final = (
    "Accept",
    "Accept-Encoding",
    "Allow",
    "ETag",
    "Location",
    "Proxy-Status",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Request-ID",
)
"""Fields of answers that pages may read, besides the few that every page may."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_KNOWN: Final = frozenset(name.lower() for name in KNOWN_FIELDS)
_EXPOSED: Final = ", ".join(EXPOSED_FIELDS)
_ASKS: Final = f"{hdrs.ACCESS_CONTROL_REQUEST_METHOD}, {hdrs.ACCESS_CONTROL_REQUEST_HEADERS}"


class Cors:
    """Which origins may read answers. Pages of others are served without it: their browser keeps
    the answer from them, and everything that is no browser does not care."""

    def __init__(
        self, origins: Collection[str], *, max_age: int = 600, credentials: bool = False
    ) -> None:
        """`origins` as `credentials.check_origins` takes them; `max_age` seconds may a browser
        remember a preflight. `credentials`: pages may send cookies; never those of ``*``."""
        self._any = ANY_ORIGIN in origins
        self._origins = frozenset(origins)
        self._max_age = str(max_age)
        self._credentials = credentials and not self._any

    def mark(self, answer: CIMultiDict[str], asked: CIMultiDictProxy[str]) -> None:
        """Add to the header of any answer what its reader's browser wants to see there; `asked` is
        the request's header."""
        if self._any:
            answer[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = ANY_ORIGIN
            answer[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
            return
        vary = answer.get(hdrs.VARY)
        answer[hdrs.VARY] = hdrs.ORIGIN if vary is None else f"{hdrs.ORIGIN}, {vary}"
        origin = self._listed(asked)
        if origin is None:
            return
        answer[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        answer[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
        if self._credentials:
            answer[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"

    def preflight(self, asked: CIMultiDictProxy[str], allow: str) -> Fields:
        """Fields for the answer to an OPTIONS request, besides those of `mark`; `allow` are the
        methods that its target takes."""
        fields: Fields = [(hdrs.VARY, _ASKS)]
        if hdrs.ACCESS_CONTROL_REQUEST_METHOD in asked and (
            self._any or self._listed(asked) is not None
        ):
            names = ", ".join((*KNOWN_FIELDS, *_asked_for(asked)))
            fields += [
                (hdrs.ACCESS_CONTROL_ALLOW_METHODS, allow),
                (hdrs.ACCESS_CONTROL_ALLOW_HEADERS, names),
                (hdrs.ACCESS_CONTROL_MAX_AGE, self._max_age),
            ]
        return fields

    def _listed(self, asked: CIMultiDictProxy[str]) -> str | None:
        if hdrs.ORIGIN not in asked:  # the header of what is no HTTP request is a plain dict
            return None
        origins = asked.getall(hdrs.ORIGIN)
        return origins[0] if len(origins) == 1 and origins[0] in self._origins else None


def _asked_for(asked: CIMultiDictProxy[str]) -> list[str]:
    """What a preflight asks for and we do not know: it means nothing to us, so it does no harm."""
    names = ",".join(asked.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ())).lower().split(",")
    wanted = dict.fromkeys(name.strip() for name in names)
    return [name for name in wanted if name not in _KNOWN and _TOKEN.fullmatch(name)][:MAX_ASKED]
