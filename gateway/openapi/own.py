"""What the gateway serves besides actions, as the document has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.openapi.document import PathItems
from gateway.openapi.operations import Facts, security
from gateway.openapi.responses import header, parameter, problems, statuses_of
from gateway.translate import JSON_TYPE

OPENAPI_PATH: Final = "/openapi.json"
WHOAMI_PATH: Final = "/whoami"

TAG: Final = "gateway"

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
    return {OPENAPI_PATH: _openapi(facts), WHOAMI_PATH: _whoami(facts)}


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
