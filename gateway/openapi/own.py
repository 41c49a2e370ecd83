"""What the gateway serves besides actions, as the document has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.events.stream import MEDIA_TYPE
from gateway.events.topic import PREFIX, RESUME_PARAMETER
from gateway.openapi.document import PathItems
from gateway.openapi.operations import Facts, security
from gateway.openapi.responses import header, parameter, problems, statuses_of
from gateway.translate import JSON_TYPE
from scamp.limits import MAX_FILTER_CODES, MAX_SUBDATA_NAME

OPENAPI_PATH: Final = "/openapi.json"
WHOAMI_PATH: Final = "/whoami"
EVENTS_PATH: Final = f"{PREFIX}{{service}}"

TAG: Final = "gateway"

_SERVICE: Final = r"^([A-Za-z0-9_.-]+:)?[A-Za-z0-9_-][A-Za-z0-9_.-]*$"

_WHOAMI: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["mode", "permits", "ticket"],
    "properties": {
        "mode": {"enum": ["enforce", "forward", "verify"]},
        "ticket": {
            "type": ["object", "null"],
            "description": "What the ticket says; null where tickets are passed on unread.",
        },
        "permits": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "Actions that it permits; null where that is not checked here.",
        },
        "permits_left_out": {"type": "integer", "minimum": 0},
        "note": {"type": "string"},
    },
}
_DOCUMENT: Final[dict[str, Any]] = {"type": "object", "required": ["info", "openapi", "paths"]}
_NONE_MATCH: Final = {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}


def own_items(facts: Facts) -> PathItems:
    """The path items of what every gateway serves."""
    return {
        OPENAPI_PATH: _openapi(facts),
        WHOAMI_PATH: _whoami(facts),
        EVENTS_PATH: {"get": _events(facts)},
    }


def _openapi(facts: Facts) -> dict[str, dict[str, Any]]:
    etag = {"ETag": {"required": True, "schema": {"type": "string"}}}
    return _readable(
        facts,
        "openapi",
        "This document, as the caller may see it",
        _DOCUMENT,
        optional=True,
        headers=etag,
        more={"304": {"description": "What the caller has is still right.", "headers": etag}},
        parameters=[_NONE_MATCH],
    )


def _whoami(facts: Facts) -> dict[str, dict[str, Any]]:
    return _readable(facts, "whoami", "What the caller's ticket says, and permits", _WHOAMI)


def _events(facts: Facts) -> dict[str, Any]:
    name = {"type": "string", "minLength": 1, "maxLength": MAX_SUBDATA_NAME}
    ways = security(facts, needed=True)
    if facts.events_open and {} not in ways:
        ways.append({})
    wrong = problems(statuses_of(mode="enforce", ticket=True, body=False, rated=facts.rated))
    return {
        "operationId": "get_events",
        "summary": "Values that a service publishes, as they change",
        "tags": [TAG],
        "parameters": [
            {
                "name": "service",
                "in": "path",
                "required": True,
                "description": "[SECTOR:]SERVICE",
                "schema": {"type": "string", "pattern": _SERVICE},
            },
            {
                "name": "code",
                "in": "query",
                "required": True,
                "description": "Under which the values are published.",
                "schema": {
                    "type": "array",
                    "items": name,
                    "minItems": 1,
                    "maxItems": MAX_FILTER_CODES,
                },
            },
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "The last event that the caller has seen.",
                "schema": {"type": "string"},
            },
            {
                "name": RESUME_PARAMETER,
                "in": "query",
                "description": "The same, for callers who cannot set the header.",
                "schema": {"type": "string"},
            },
            parameter("X-Request-ID"),
        ],
        "security": ways,
        "responses": {
            "200": {
                "description": "Server-Sent Events, until one side ends it.",
                "headers": {"X-Request-ID": header("X-Request-ID")},
                "content": {MEDIA_TYPE.partition(";")[0]: {}},
            },
            **wrong,
        },
    }


def _readable(
    facts: Facts,
    name: str,
    summary: str,
    schema: Mapping[str, Any],
    *,
    optional: bool = False,
    headers: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """GET and HEAD of a JSON document that takes a ticket; an `optional` one may be missing."""
    wrong = problems(statuses_of(mode=facts.mode, ticket=True, body=False, rated=facts.rated))
    wrong.pop("403", None)
    ways = security(facts, needed=True)
    if optional and {} not in ways:
        ways.append({})
    found: dict[str, Any] = {
        "description": "What was asked for.",
        "headers": {"X-Request-ID": header("X-Request-ID"), **(headers or {})},
    }
    made: dict[str, dict[str, Any]] = {}
    for method in ("get", "head"):
        whole = {**found, "content": {JSON_TYPE: {"schema": dict(schema)}}}
        made[method] = {
            "operationId": f"{method}_{name}",
            "summary": summary,
            "tags": [TAG],
            "parameters": [parameter("X-Request-ID"), *(parameters or ())],
            "security": ways,
            "responses": {"200": whole if method == "get" else found, **(more or {}), **wrong},
        }
    return made
