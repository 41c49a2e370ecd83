"""What the gateway answers when a request does not end well: one exception, one rendering.

Answers are ``application/problem+json`` (RFC 9457), their kinds those of `catalogue`. What callers
read never names addresses of the mesh; the logs do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from gateway import catalogue
from scamp import errors
from scamp.wire import ReplyHeader

PROBLEM_TYPE: Final = "application/problem+json"
PROXY_NAME: Final = "scamp-gateway"

INDEX_RETRY_AFTER: Final = 5.0
"""Seconds after which to ask again when the index is missing or stale."""

UNKNOWN_RETRY_AFTER: Final = 1.0
"""Seconds in ``Retry-After`` where nobody can know: the least that it can say."""

MAX_TOLD: Final = 86_400.0
"""Seconds above which a service's own ``retry_after`` is not believed."""

_NOT_QUOTABLE: Final = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


class Problem(Exception):
    """A request that does not end well, with all that the answer needs.

    `detail` is for the caller: one sentence without secrets or addresses. `retry_after` is in
    seconds. `status` stands in for the kind's own. `close` ends the HTTP connection.
    """

    def __init__(
        self,
        kind: catalogue.Kind,
        detail: str = "",
        *,
        action: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        upstream_code: str | None = None,
        error_data: Mapping[str, Any] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(kind.code, detail)
        self.kind = kind
        self.detail = detail or kind.description
        self.action = action
        self.status = kind.status if status is None else status
        self.retry_after = retry_after
        self.headers = headers
        self.upstream_code = upstream_code
        self.error_data = error_data
        self.close = close

    @property
    def by_service(self) -> bool:
        """True when it is the service's own answer."""
        return self.kind is catalogue.SERVICE_ERROR

    def body(self, request_id: str) -> bytes:
        """The problem document."""
        members: dict[str, Any] = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.status,
            "detail": self.detail,
            "instance": request_id,
            "code": self.kind.code,
        }
        if self.action is not None:
            members["action"] = self.action
        if self.by_service:
            members["upstream_code"] = self.upstream_code or None
            members["error_data"] = self.error_data
        try:
            return orjson.dumps(members)
        except orjson.JSONEncodeError:  # it reads what is nested deeper than it can write
            return orjson.dumps({**members, "error_data": None})

    def header_fields(self) -> Iterator[tuple[str, str]]:
        """Header fields beyond type and length."""
        if self.kind.proxy_error is not None:
            yield "Proxy-Status", self.proxy_status
        if self.retry_after is not None:
            yield "Retry-After", str(max(1, math.ceil(self.retry_after)))
        yield from self.headers

    @property
    def proxy_status(self) -> str:
        """RFC 9209: who answered instead of the service, and why."""
        return f'{PROXY_NAME}; error={self.kind.proxy_error}; details="{self.kind.code}"'


def quotable(text: str) -> str:
    """`text` as it may stand between quotes in a header: ASCII, no quotes, one line."""
    return _NOT_QUOTABLE.sub("?", text.replace('"', "'"))[:300]


# -- errors of the library --------------------------------------------------------------

_BY_CLASS: Final[dict[type[BaseException], catalogue.Kind]] = {
    errors.FingerprintMismatch: catalogue.FINGERPRINT_MISMATCH,
    errors.ConnectTimeout: catalogue.CONNECT_TIMEOUT,
    errors.ConnectFailed: catalogue.CONNECT_FAILED,
    errors.ConnectionLost: catalogue.CONNECTION_LOST,
    errors.QueueTimeout: catalogue.QUEUE_TIMEOUT,
    errors.ReplyTimeout: catalogue.REPLY_TIMEOUT,
    errors.IdleTimeout: catalogue.UPSTREAM_STALLED,
    errors.UnknownAction: catalogue.UNKNOWN_ACTION,
    errors.UnknownService: catalogue.UNKNOWN_SERVICE,
    errors.EnvelopeNotOffered: catalogue.UNSUPPORTED_ENVELOPE,
    errors.DiscoveryUnavailable: catalogue.DISCOVERY_UNAVAILABLE,
    errors.NoUsableInstance: catalogue.NO_USABLE_INSTANCE,
    errors.Saturated: catalogue.SATURATED,
    errors.DispatchFailed: catalogue.DISPATCH_FAILED,
    errors.ReplyFailed: catalogue.REPLY_FAILED,
    errors.RemoteProtocolError: catalogue.UPSTREAM_PROTOCOL,
    errors.SubscriptionRefused: catalogue.SUBSCRIPTION_REFUSED,
    errors.MissingPrivilege: catalogue.PRIVILEGE_MISSING,
    errors.UnconfiguredAction: catalogue.ACTION_UNCONFIGURED,
    errors.AuthzTableUnavailable: catalogue.AUTHORIZATION_UNAVAILABLE,
}


def from_error(error: errors.ScampError, action: str | None = None) -> Problem:
    """What an error of the library comes to over HTTP; for one without a place, a bug of ours."""
    kind = next(
        (_BY_CLASS[one] for one in type(error).__mro__ if one in _BY_CLASS), catalogue.INTERNAL
    )
    if isinstance(error, errors.ConnectionLost):
        if not error.written:
            kind = catalogue.CONNECT_FAILED
        elif error.reason.startswith("protocol error"):  # then we have ended it
            kind = catalogue.UPSTREAM_PROTOCOL
    retry_after = getattr(error, "retry_after", None)
    if retry_after is None and kind.status == 503:
        retry_after = UNKNOWN_RETRY_AFTER
    detail = ""
    if isinstance(error, errors.EnvelopeNotOffered | errors.Saturated):
        detail = str(error)
    elif isinstance(error, errors.ScampTimeout) and not isinstance(error, errors.ConnectTimeout):
        detail = f"{kind.description} The limit was {error.seconds:g} s."
    return Problem(kind, detail, action=action, retry_after=retry_after)


# -- errors of services -----------------------------------------------------------------

DEFAULT_STATUSES: Final[Mapping[str, int]] = {
    "bad_request": 400,
    "invalid*": 400,
    "unauthorized": 401,
    "access_denied": 403,
    "verification": 403,
    "not_found": 404,
    "conflict": 409,
}
"""HTTP status by a service's ``error_code``; a ``*`` at the end stands for anything."""


class StatusMap:
    """Which status a service's ``error_code`` becomes: exact words first, then the longest prefix.

    `overrides` go before the defaults, entry by entry; compared without case. Raises ValueError
    for a status outside of 400 to 599, or a ``*`` that is not at the end.
    """

    def __init__(self, overrides: Mapping[str, int] | None = None) -> None:
        self._exact: dict[str, int] = {}
        prefixes: dict[str, int] = {}
        given = {code.lower(): status for code, status in (overrides or {}).items()}
        for code, status in {**DEFAULT_STATUSES, **given}.items():
            if not 400 <= status <= 599:
                raise ValueError(f"error_status {code!r}: {status} is not between 400 and 599")
            if "*" in code[:-1]:
                raise ValueError(f"error_status {code!r}: * may stand at the end only")
            if code.endswith("*"):
                prefixes[code[:-1]] = status
            else:
                self._exact[code] = status
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))

    def status_of(self, code: str) -> int:
        """The status for this code; 500 when nothing fits."""
        code = code.lower()
        status = self._exact.get(code)
        if status is not None:
            return status
        for prefix, status in self._prefixes:
            if code.startswith(prefix):
                return status
        return 500


def _retry_after(status: int, data: Mapping[str, Any] | None) -> float | None:
    """Seconds, as the service tells them in ``error_data``; a 503 has some in any case."""
    if status not in (429, 503):
        return None
    told = (data or {}).get("retry_after")
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told <= MAX_TOLD:
        return told
    return UNKNOWN_RETRY_AFTER if status == 503 else None


def from_reply(header: ReplyHeader, statuses: StatusMap, action: str) -> Problem:
    """The service's own error."""
    status = statuses.status_of(header.error_code)
    return Problem(
        catalogue.SERVICE_ERROR,
        header.error or header.error_code,
        action=action,
        status=status,
        retry_after=_retry_after(status, header.error_data),
        headers=(("WWW-Authenticate", "Bearer"),) if status == 401 else (),
        upstream_code=header.error_code,
        error_data=header.error_data,
    )


# -- the page ---------------------------------------------------------------------------

_GROUPS: Final = {
    1: "The request itself",
    2: "Who asks",
    3: "The way to the service",
    4: "What the service did",
    5: "The gateway",
}


def catalogue_markdown() -> str:
    """The text of ``docs/errors.md``."""
    lines = [
        "# Errors",
        "",
        "<!-- Made from gateway/problems.py; a test holds the two together. -->",
        "",
        "Every answer with a status of 400 or above is `application/problem+json` (RFC 9457):",
        "",
        "| member | what it is |",
        "|---|---|",
        f"| `type` | `{catalogue.TYPE_PREFIX}NUMBER`; numbers keep their meaning |",
        "| `title`, `status` | as below |",
        "| `detail` | a sentence on this very case |",
        "| `instance` | the request id, also in `X-Request-ID` and in the logs |",
        "| `code` | the word below |",
        "| `action` | the action in its announced spelling, when the request reached one |",
        "| `upstream_code`, `error_data` | what the service gave, for `service_error` |",
        "",
        "Those that the gateway made itself carry `Proxy-Status` (RFC 9209); the service's own "
        "errors do not.",
        "503 always comes with `Retry-After`, in seconds: for `no_usable_instance` until the next "
        "attempt to connect in the background (or the next announcement, while all instances have "
        "weight 0), for `authorization_unavailable` until the table is fetched again, for a "
        "service's own error the `retry_after` of its `error_data`, "
        f"for `discovery_unavailable` {INDEX_RETRY_AFTER:g}. Where nobody can know it is 1, the "
        "least that the header can say. `retried` tells what the gateway has tried by itself "
        "before it answers.",
    ]
    for group, title in _GROUPS.items():
        lines += ["", f"## {title}", "", "| number | code | status | retried | meaning |"]
        lines.append("|---|---|---|---|---|")
        for kind in catalogue.CATALOGUE.values():
            if kind.number // 100 == group:
                lines.append(
                    f"| {kind.number} | `{kind.code}` | {kind.status} | {kind.retried} "
                    f"| **{kind.title}.** {kind.description} |"
                )
    lines += [
        "",
        "## Status of a service's own error",
        "",
        "| `error_code` | status |",
        "|---|---|",
    ]
    lines += [f"| `{code}` | {status} |" for code, status in DEFAULT_STATUSES.items()]
    lines += [
        "| any other, or none | 500 |",
        "",
        "The setting `error_status` adds to this and overrides it; a `*` at the end of a code "
        "stands for anything.",
        "",
        "## Broken off",
        "",
        "When a reply fails after its first byte has gone out, there is no status left to change: "
        "the connection is cut without the final chunk (HTTP/1.0: reset), so that a truncated "
        "answer never looks whole. When the client leaves, the log says status 499.",
        "",
    ]
    return "\n".join(lines)
