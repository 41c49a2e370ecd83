"""Where a request carries its ticket, and whether a cookie's counts as the caller's own will."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Literal
from urllib.parse import unquote

from multidict import CIMultiDictProxy, istr

AuthMode = Literal["enforce", "verify", "forward"]
"""What is done about tickets, see `auth.Authenticator`."""

TICKET_HEADER: Final = istr("X-SCAMP-Ticket")

SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
"""Methods that change nothing: a foreign page that makes a browser send one cannot read the
answer either."""

_AUTHORIZATION: Final = istr("Authorization")
_COOKIE: Final = istr("Cookie")
_OWN_SITES: Final = frozenset(("same-origin", "none"))
_COOKIE_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OCTAL: Final = re.compile(r"\\([0-3][0-7]{2})")
_ORIGIN: Final = re.compile(
    r"(?P<scheme>https?)://(?:[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_USUAL_PORT: Final = {"http": "80", "https": "443"}

ANY_ORIGIN: Final = "*"


class DifferentTicketsError(Exception):
    """A request carries two tickets, and they differ."""


class Credentials:
    """Finds tickets: ``Authorization: Bearer``, ``X-SCAMP-Ticket``, and a cookie if one is named.

    A cookie's value is the ticket as it is, in double quotes (with ``\\054`` and the like, as
    Python's http.cookies writes commas), or percent-encoded. Of the other cookies in the header
    nothing is read, whatever they look like.
    """

    def __init__(
        self, cookie: str | None = None, *, origins: Collection[str] = (), scheme: str | None = None
    ) -> None:
        """`cookie` is the name of the one to look at. `origins` are those whose pages may act with
        it, besides the gateway's own; `scheme` is that of our own origin, None when something
        before us speaks TLS in our place. Raises ValueError for what is no name of a cookie."""
        if cookie is not None and _COOKIE_NAME.fullmatch(cookie) is None:
            raise ValueError("a cookie's name has up to 100 letters, digits and !#$%&'*+.^_`|~-")
        self.cookie = cookie
        fields = (_AUTHORIZATION, TICKET_HEADER, *(() if cookie is None else (_COOKIE,)))
        self.vary = ", ".join(fields)
        """The value of ``Vary`` for an answer that depends on the ticket."""
        self._origins = frozenset(origins) - {ANY_ORIGIN}
        self._scheme = scheme
        self._value = (
            None if cookie is None else re.compile(rf"(?:^|;)[ \t]*{re.escape(cookie)}=([^;]*)")
        )

    def find(self, headers: CIMultiDictProxy[str]) -> tuple[str | None, bool]:
        """The one ticket, None without one; and whether it came from a cookie alone, which browsers
        add whoever made them send the request.

        Raises DifferentTicketsError. A scheme other than Bearer carries no ticket.
        """
        text: str | None = None
        if _AUTHORIZATION in headers:
            for value in headers.getall(_AUTHORIZATION):
                text = _same(text, _bearer(value))
        if TICKET_HEADER in headers:
            for value in headers.getall(TICKET_HEADER):
                text = _same(text, value.strip())
        if self._value is None or _COOKIE not in headers:
            return text, False
        named = text is not None
        for line in headers.getall(_COOKIE):
            for match in self._value.finditer(line):
                text = _same(text, _plain(match[1]))
        return text, text is not None and not named

    def trusts(self, headers: CIMultiDictProxy[str]) -> bool:
        """Whether a page of our own, or of an origin that is listed, made the browser send this.

        ``Origin`` decides where there is one, else ``Sec-Fetch-Site``; a browser sends at least one
        of them with every unsafe method, so a request without either is not trusted.
        """
        origins = headers.getall("Origin", ())
        if not origins:
            sites = headers.getall("Sec-Fetch-Site", ())
            return len(sites) == 1 and sites[0] in _OWN_SITES
        origin = origins[0].lower()
        if len(origins) > 1:
            return False
        if origin in self._origins:
            return True
        scheme, _, authority = origin.partition("://")
        hosts = headers.getall("Host", ())
        return (
            scheme in ("http", "https")
            and (self._scheme is None or scheme == self._scheme)
            and len(hosts) == 1
            and bool(authority)
            and authority == hosts[0].lower()
        )


def check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """The same origins, if each is what a browser sends: ``https://app.example:8443``, lower case,
    without a path or the scheme's usual port; or ``*`` alone. Raises ValueError."""
    for origin in origins:
        if origin == ANY_ORIGIN:
            if len(origins) > 1:
                raise ValueError("* stands for every origin: name no other")
            continue
        match = _ORIGIN.fullmatch(origin)
        if match is None or int(match["port"] or 0) > 65535:
            raise ValueError(
                f"{origin!r} is no origin: SCHEME://HOST[:PORT] in lower case, without a path"
            )
        if match["port"] == _USUAL_PORT[match["scheme"]]:
            raise ValueError(f"{origin!r}: browsers leave the usual port out")
    return origins


def ticket_in(name: str, value: str) -> str | None:
    """The ticket in the header field `name`, one of the two that hold nothing else, in lower case;
    None where it holds none."""
    return (_bearer(value) if name == "authorization" else value.strip()) or None


def _same(found: str | None, other: str | None) -> str | None:
    if not other or other == found:
        return found
    if found is None:
        return other
    raise DifferentTicketsError


def _bearer(value: str) -> str | None:
    scheme, _, text = value.strip().partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def _plain(value: str) -> str:
    """A cookie's value without what was done to it so that it is one: a ticket has commas."""
    value = value.strip(" \t")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _OCTAL.sub(lambda match: chr(int(match[1], 8)), value[1:-1])
    return unquote(value, errors="replace") if "%" in value else value
