"""The numbered catalogue of what can go wrong with a request; ``docs/errors.md`` is made from it.

A number and its code word never change their meaning. Descriptions are read by callers: they name
no address of the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

TYPE_PREFIX: Final = "urn:scamp-gateway:error:"


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry of the catalogue. `proxy_error` is its RFC 9209 error type."""

    number: int
    code: str
    status: int
    title: str
    description: str
    proxy_error: str | None = "http_request_error"
    retried: str = "no"

    @property
    def type(self) -> str:
        """The problem's type URI."""
        return f"{TYPE_PREFIX}{self.number}"


CATALOGUE: dict[str, Kind] = {}


def _kind(number: int, code: str, status: int, title: str, text: str, **more: Any) -> Kind:
    kind = Kind(number, code, status, title, text, **more)
    if code in CATALOGUE or any(number == other.number for other in CATALOGUE.values()):
        raise ValueError(f"{number} {code} is in the catalogue already")
    CATALOGUE[code] = kind
    return kind


_DENIED: Final = {"proxy_error": "http_request_denied"}

# -- 1xx: the request itself ------------------------------------------------------------

MALFORMED = _kind(
    101, "malformed_request", 400, "Not a valid HTTP request",
    "The bytes on the connection are not HTTP/1.1. The connection is closed.",
)  # fmt: skip
BAD_PATH = _kind(
    102, "bad_path", 400, "Path not acceptable",
    "The path has a dot segment, an empty segment, an encoded slash, a control character, an "
    "invalid escape, or a character outside of `A-Z a-z 0-9 _ . -` in a name. Nothing is "
    "normalized.",
)  # fmt: skip
BAD_QUERY = _kind(
    103, "bad_query", 400, "Query not acceptable",
    "The query string has an invalid escape, is not UTF-8, has too many parameters, or not those "
    "that are needed.",
)  # fmt: skip
BAD_HEADER = _kind(
    104, "bad_header", 400, "Header not acceptable",
    "A header that means something to the gateway has a value that it cannot have.",
)  # fmt: skip
BAD_FRAMING = _kind(
    105, "bad_framing", 400, "Request body broken",
    "The body's framing (chunks or length) or its compression is broken, or there is a body where "
    "none is taken: GET, HEAD, and routes without one.",
)  # fmt: skip
UNKNOWN_PATH = _kind(
    106, "unknown_path", 404, "No such resource",
    "Nothing is served at this path. Actions are at `/api/[SECTOR:]Namespace.name[~VERSION]`, and "
    "at the paths of the routes file; `/docs` lists them, unless it is switched off.",
)  # fmt: skip
UNKNOWN_ACTION = _kind(
    107, "unknown_action", 404, "No such action",
    "The index is up to date and no service announces this action, or its sector is not exposed.",
    proxy_error="destination_not_found",
)  # fmt: skip
METHOD_NOT_ALLOWED = _kind(
    108, "method_not_allowed", 405, "Method not allowed",
    "POST always works. GET and HEAD need the action's flag `read`, PUT and PATCH `update`, DELETE "
    "`destroy`. Paths of the routes file have the methods that are given there. `Allow` lists what "
    "is taken.",
)  # fmt: skip
REQUEST_TIMEOUT = _kind(
    109, "request_timeout", 408, "Request body too slow",
    "The body stopped coming, or a small one took longer than the whole request may.",
)  # fmt: skip
BODY_TOO_LARGE = _kind(
    110, "body_too_large", 413, "Request body too large",
    "The body, unpacked if it is compressed, is larger than the gateway's limit.",
)  # fmt: skip
URI_TOO_LONG = _kind(
    111, "uri_too_long", 414, "Request target too long",
    "Path and query together are longer than the gateway's limit.",
)  # fmt: skip
UNSUPPORTED_ENVELOPE = _kind(
    112, "unsupported_envelope", 415, "Content type not offered",
    "The `Content-Type` stands for an envelope that the action does not announce, or is none that "
    "the route takes. The detail and the header `Accept` name those that are.",
)  # fmt: skip
UNSUPPORTED_ENCODING = _kind(
    113, "unsupported_encoding", 415, "Content encoding not supported",
    "The body's `Content-Encoding` is none that the gateway unpacks, or more than one. "
    "`Accept-Encoding` names what it takes.",
)  # fmt: skip
EXPECTATION_FAILED = _kind(
    114, "expectation_failed", 417, "Expectation not understood",
    "`Expect` has a value other than `100-continue`.",
)  # fmt: skip
HEADER_TOO_LARGE = _kind(
    115, "header_too_large", 431, "Request header too large",
    "One header field is too long, there are too many, or all together are too long.",
)  # fmt: skip

BAD_BODY = _kind(
    116, "bad_body", 400, "Request body not acceptable",
    "The route puts the body together with parts of the URL, so it has to be JSON, as the detail "
    "says.",
)  # fmt: skip
UNKNOWN_SERVICE = _kind(
    120, "unknown_service", 404, "No such service",
    "The index is up to date and has no service of this name, or its sector is not exposed.",
    proxy_error="destination_not_found",
)  # fmt: skip

# -- 2xx: who asks ----------------------------------------------------------------------

TICKET_MISSING = _kind(
    201, "ticket_missing", 401, "Ticket required",
    "The action needs a ticket: `Authorization: Bearer TICKET` or `X-SCAMP-Ticket: TICKET`.",
    **_DENIED,
)  # fmt: skip
TICKET_INVALID = _kind(
    202, "ticket_invalid", 401, "Ticket not valid",
    "The ticket is malformed, not signed by a known key, expired, or not valid yet.",
    **_DENIED,
)  # fmt: skip
TICKETS_DIFFER = _kind(
    203, "tickets_differ", 400, "More than one ticket",
    "The request carries two different tickets, in headers or cookies.",
    **_DENIED,
)  # fmt: skip
PRIVILEGE_MISSING = _kind(
    204, "privilege_missing", 403, "Privilege missing",
    "The ticket is valid and lacks a privilege that the action takes; the detail names it.",
    **_DENIED,
)  # fmt: skip
ACTION_UNCONFIGURED = _kind(
    205, "action_unconfigured", 403, "Action not configured",
    "The privilege table does not list the action, so nobody may call it.",
    **_DENIED,
)  # fmt: skip
AUTHORIZATION_UNAVAILABLE = _kind(
    206, "authorization_unavailable", 503, "Authorization not available",
    "There is no privilege table, or it is too old to be trusted.",
    proxy_error="destination_unavailable",
)  # fmt: skip
ORIGIN_REFUSED = _kind(
    207, "origin_refused", 403, "Origin not trusted",
    "The ticket came in a cookie, with a method that changes something, and `Origin` (or "
    "`Sec-Fetch-Site`) does not say that a page of this origin, or of one that is listed, sent it. "
    "Programs send the ticket in a header.",
    **_DENIED,
)  # fmt: skip
RATE_LIMITED = _kind(
    208, "rate_limited", 429, "Too many requests",
    "The caller has used up a limit; the detail names it, `RateLimit` and `RateLimit-Policy` tell "
    "how the limits stand. `Retry-After` is when the next request will be let through.",
    **_DENIED,
)  # fmt: skip
RATE_LIMIT_UNAVAILABLE = _kind(
    209, "rate_limit_unavailable", 503, "Count of requests not available",
    "The store that holds the count of requests is away, and nobody may pass uncounted.",
    proxy_error="destination_unavailable",
)  # fmt: skip

# -- 3xx: the way to the service --------------------------------------------------------

CONNECT_FAILED = _kind(
    301, "connect_failed", 502, "Service not reachable",
    "No connection to the service could be made. The request was not sent.",
    proxy_error="connection_refused", retried="yes, any method, on another instance",
)  # fmt: skip
FINGERPRINT_MISMATCH = _kind(
    302, "fingerprint_mismatch", 502, "Service not genuine",
    "What listens at the service's address has another certificate than the one that signed the "
    "announcement. The request was not sent.",
    proxy_error="tls_certificate_error", retried="yes, any method, on another instance",
)  # fmt: skip
CONNECT_TIMEOUT = _kind(
    303, "connect_timeout", 504, "Service does not accept connections in time",
    "TCP or TLS did not finish in time. The request was not sent.",
    proxy_error="connection_timeout", retried="yes, any method, on another instance",
)  # fmt: skip
CONNECTION_LOST = _kind(
    304, "connection_lost", 502, "Connection to the service lost",
    "The connection ended while the request was under way. It may have been executed.",
    proxy_error="connection_terminated",
    retried="if nothing had been sent; else only `read` actions whose body is held (64 KiB)",
)  # fmt: skip
NO_USABLE_INSTANCE = _kind(
    305, "no_usable_instance", 503, "No instance usable",
    "Every instance of the service is out. The request was not sent; `Retry-After` tells when "
    "the next attempt to connect is due.",
    proxy_error="destination_unavailable",
)  # fmt: skip
QUEUE_TIMEOUT = _kind(
    306, "queue_timeout", 504, "No connection came free",
    "The deadline passed while the request waited for a connection. It was not sent.",
    proxy_error="connection_limit_reached",
)  # fmt: skip
DISCOVERY_UNAVAILABLE = _kind(
    307, "discovery_unavailable", 503, "Index not available",
    "The index of actions is missing or stale, so nobody can say whether the action exists.",
    proxy_error="destination_unavailable",
)  # fmt: skip
SATURATED = _kind(
    308, "saturated", 503, "Too much at once",
    "A limit is reached on requests under way, here, of one action or of one instance, or on how "
    "long they may wait; the detail says which. The request was not sent.",
    proxy_error="connection_limit_reached",
)  # fmt: skip

# -- 4xx: what the service did ----------------------------------------------------------

SERVICE_ERROR = _kind(
    401, "service_error", 500, "The service refused or failed",
    "The service's own error: `upstream_code` and `error_data` are what it gave, `detail` is its "
    "message. The status follows from the code, see below.",
    proxy_error=None,
)  # fmt: skip
DISPATCH_FAILED = _kind(
    402, "dispatch_failed", 502, "Request not dispatched",
    "The peer says that the request reached no service.",
    proxy_error="destination_unavailable", retried="yes, any method, on another instance",
)  # fmt: skip
REPLY_FAILED = _kind(
    403, "reply_failed", 502, "Reply broken off",
    "The service broke its reply off (TXERR) before the first byte.",
    proxy_error="http_response_incomplete", retried="only `read` actions",
)  # fmt: skip
REPLY_TIMEOUT = _kind(
    404, "reply_timeout", 504, "No reply in time",
    "The request was sent and no reply came in time. It may have been executed.",
    proxy_error="http_response_timeout",
)  # fmt: skip
UPSTREAM_STALLED = _kind(
    405, "upstream_stalled", 504, "Service stopped moving",
    "The service stopped taking the request's body, or sending the reply's.",
    proxy_error="connection_read_timeout",
)  # fmt: skip
UPSTREAM_PROTOCOL = _kind(
    406, "upstream_protocol", 502, "Service broke the protocol",
    "What came from the service is not SCAMP. It may have executed the request.",
    proxy_error="http_protocol_error",
)  # fmt: skip

SUBSCRIPTION_REFUSED = _kind(
    420, "subscription_refused", 502, "Subscription refused",
    "The service does not want the subscription, or does no subscriptions at all.",
    proxy_error="destination_unavailable", retried="on every other instance",
)  # fmt: skip
TOO_MANY_VALUES = _kind(
    421, "too_many_values", 502, "More values than can be passed on",
    "The service publishes more under these codes than the gateway holds for one subscription.",
    proxy_error="http_response_incomplete",
)  # fmt: skip

# -- 5xx: the gateway -------------------------------------------------------------------

INTERNAL = _kind(
    501, "internal_error", 500, "Error in the gateway",
    "A bug in the gateway. The log has the details under the request id.",
    proxy_error="proxy_internal_error",
)  # fmt: skip
STOPPING = _kind(
    502, "stopping", 503, "Gateway stopping",
    "The gateway stops and could not wait longer for the reply. The request may be executed.",
    proxy_error="connection_terminated",
)  # fmt: skip
