"""What every operation can answer besides its success, and the headers of both directions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.catalogue import CATALOGUE, TYPE_PREFIX
from gateway.credentials import AuthMode
from gateway.problems import PROBLEM_TYPE

PROBLEM_SCHEMA: Final = "Problem"

_RESPONSES: Final = "#/components/responses/"
_TITLES: Final = {
    400: "The request cannot be understood.",
    401: "A ticket is needed, or the one that came is not valid.",
    403: "The ticket is valid and does not permit this.",
    404: "There is no such action or path, or the service does not find what was asked for.",
    405: "The action does not take this method.",
    408: "The request's body came too slowly.",
    413: "The request's body is too large.",
    414: "Path and query together are too long.",
    415: "The action does not take this content type or encoding.",
    417: "The expectation is not understood.",
    429: "The caller has asked too often.",
    431: "The request's header is too large.",
    500: "The service, or the gateway, failed.",
    502: "The service could not be reached, or broke off.",
    503: "The service or the gateway cannot take the request now.",
    504: "There was no answer in time.",
}
_OF_STATUS: Final = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}
"""A header that comes with a status."""
_OF_SERVICES: Final = frozenset((400, 401, 403, 404, 500))
"""Statuses that a service's own error becomes without settings."""

HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-ID": {
        "description": "The request's id, also in the logs.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Proxy-Status": {
        "description": "RFC 9209: why the gateway answered in the service's place. Not on the "
        "service's own errors.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "RFC 6750: what is wrong with the ticket.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Allow": {
        "description": "The methods that there are.",
        "required": True,
        "schema": {"type": "string"},
    },
}

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "X-SCAMP-Timeout": {
        "name": "X-SCAMP-Timeout",
        "in": "header",
        "description": "Seconds until the reply has to begin; lowers the action's own limit.",
        "schema": {
            "type": "string",
            "pattern": r"^([1-9][0-9]{0,8}(\.[0-9]{1,9})?|0\.[0-9]{0,8}[1-9])$",
        },
        "example": "10",
    },
    "X-Request-ID": {
        "name": "X-Request-ID",
        "in": "header",
        "description": "An id for the request, to be found again in logs. Taken over when it has "
        "up to 128 printable ASCII characters and no space, else one is made.",
        "schema": {"type": "string"},
    },
}

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457, with the gateway's own members.",
    "required": ["code", "detail", "instance", "status", "title", "type"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": [f"{TYPE_PREFIX}107"]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "A sentence on this very case."},
        "instance": {"type": "string", "description": "The request id."},
        "code": {"type": "string", "description": "The kind of problem, in one word."},
        "action": {"type": "string", "description": "The action, as it is announced."},
        "upstream_code": {
            "type": ["string", "null"],
            "description": "The service's own code, for `service_error`.",
        },
        "error_data": {
            "type": ["object", "null"],
            "description": "What the service says besides, for `service_error`.",
        },
    },
}


def parameter(name: str) -> dict[str, Any]:
    """One of `PARAMETERS`."""
    return {"$ref": f"#/components/parameters/{name}"}


def header(name: str) -> dict[str, Any]:
    """One of `HEADERS`."""
    return {"$ref": f"#/components/headers/{name}"}


def problems(statuses: Iterable[int]) -> dict[str, Any]:
    """Responses for these statuses, and for whatever else the service may come up with."""
    named = {str(status): {"$ref": f"{_RESPONSES}Problem{status}"} for status in statuses}
    return {**named, "default": {"$ref": f"{_RESPONSES}Problem"}}


def statuses_of(
    *, mode: AuthMode, ticket: bool, body: bool, limited: bool = False, rated: bool = False
) -> list[int]:
    """What can go wrong with one operation: one that needs a `ticket`, that takes a `body`, whose
    body is `limited` in size, that is `rated`: callers may ask too often."""
    found = [400, 404, 405, 431, 500, 502, 503, 504]
    if ticket and mode != "forward":
        found += [401, 403] if mode == "enforce" else [401]
    found += [408, 415] if body else [414]
    if body and limited:
        found.append(413)
    if rated:
        found.append(429)
    return sorted(found)


def responses() -> dict[str, Any]:
    """``components/responses``: one for each status of the catalogue, and one for all others."""
    found = {"Problem": _response("Anything else that went wrong.", "Proxy-Status")}
    for status in sorted({kind.status for kind in CATALOGUE.values()}):
        codes = sorted(kind.code for kind in CATALOGUE.values() if kind.status == status)
        if status in _OF_SERVICES and "service_error" not in codes:
            codes.append("service_error")
        listed = ", ".join(f"`{code}`" for code in codes)
        own = [_OF_STATUS[status]] if status in _OF_STATUS else []
        title = _TITLES.get(status, "It did not end well.")
        found[f"Problem{status}"] = _response(f"{title} Codes: {listed}.", "Proxy-Status", *own)
    return found


def _response(description: str, *headers: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{PROBLEM_SCHEMA}"}
    return {
        "description": description,
        "headers": {name: header(name) for name in ("X-Request-ID", *headers)},
        "content": {PROBLEM_TYPE: {"schema": schema}},
    }
