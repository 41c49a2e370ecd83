"""The operations of one action, as OpenAPI has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from gateway.actions import Announced
from gateway.credentials import TICKET_HEADER, AuthMode
from gateway.openapi.components import Components
from gateway.openapi.responses import header, parameter, problems, statuses_of
from gateway.openapi.schemas import Schema
from gateway.openapi.sections import NOTHING, Section
from gateway.translate import (
    JSON,
    JSON_TYPE,
    MediaTypes,
    content_type_of,
    is_envelope,
)

MAX_QUERY_PARAMETERS: Final = 100
"""Query parameters of one operation; an action with more is better called with POST."""

MAX_FLAGS: Final = 32
"""Flags that are shown of one action."""

_TIMEOUT_FLAG: Final = re.compile(r"t[0-9]+")
_PLAIN_ID: Final = re.compile(
    r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*(?:\.[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*)+"
)
_LIKE_OURS: Final = re.compile(r"\.(?:v[0-9]+|x[0-9a-f]{8})\Z", re.IGNORECASE)
NOT_WORD: Final = re.compile(r"[^A-Za-z0-9]+")
_SCALARS: Final = frozenset(("boolean", "integer", "null", "number", "string"))
_FREE_QUERY: Final[dict[str, Any]] = {
    "name": "query",
    "in": "query",
    "description": "Every parameter becomes a member of the action's JSON object; one that is "
    "given twice becomes an array.",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": True},
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds for every operation of one gateway."""

    mode: AuthMode = "enforce"
    cookie: str | None = None
    """Name of the cookie that may carry a ticket."""
    limited: bool = False
    """Bodies may be too large."""
    rated: bool = False
    """Callers may ask too often."""
    media_types: MediaTypes = field(default_factory=dict)
    """Envelopes by media type, besides those that every gateway knows."""
    events_open: bool = False
    """There are services whose events take no ticket."""
    title: str = "SCAMP services"
    version: str = "1"


def security(facts: Facts, *, needed: bool) -> list[dict[str, list[str]]]:
    """How a ticket comes along; empty where none is needed."""
    if not needed:
        return []
    ways: list[dict[str, list[str]]] = [{name: []} for name in security_schemes(facts)]
    return ways if facts.mode != "forward" else [*ways, {}]


def security_schemes(facts: Facts) -> dict[str, Any]:
    """``components/securitySchemes``."""
    schemes: dict[str, Any] = {
        "ticket": {"type": "http", "scheme": "bearer", "bearerFormat": "SCAMP ticket"},
        "ticketHeader": {"type": "apiKey", "in": "header", "name": TICKET_HEADER},
    }
    if facts.cookie is not None:
        schemes["ticketCookie"] = {"type": "apiKey", "in": "cookie", "name": facts.cookie}
    return schemes


def operation_id(method: str, action: Announced) -> str:
    """``get_Product_Sku_fetch``; ``_v2`` at the end for version 2.

    It depends on nothing but the action. A name that could look like another's has a digest at its
    end, and an underscore within a name is doubled.
    """
    name = action.spelling
    plain = action.sector.lower() == "main" and _PLAIN_ID.fullmatch(name) is not None
    if plain and _LIKE_OURS.search(name) is None:
        words = name.replace("_", "__").replace(".", "_")
    else:
        plain, words = False, NOT_WORD.sub("_", f"{action.sector}_{name}").strip("_")
    version = "" if action.version == 1 else f"_v{action.version}"
    suffix = "" if plain else f"_x{digest(action.label)}"
    return f"{method.lower()}_{words}{version}{suffix}"


def digest(text: str) -> str:
    """Eight characters that stand for `text`, whatever its case."""
    return sha256(text.lower().encode()).hexdigest()[:8]


# -- one action -------------------------------------------------------------------------


@dataclass(slots=True)
class Described:
    """An action with what its service says of it. `request` and `reply` are None when unknown."""

    action: Announced
    section: Section = NOTHING
    request: Schema | None = None
    reply: Schema | None = None
    members: Mapping[str, Schema] = field(default_factory=dict)
    """The request's top-level members, when it is an object."""
    required: Collection[str] = ()


def describe(action: Announced, section: Section, components: Components) -> Described:
    """Put the action's schemas into `components`."""
    namespace, _, name = action.spelling.rpartition(".")
    request = components.add(section.request, namespace, f"{name}_request")
    reply = components.add(section.reply, namespace, f"{name}_reply")
    resolved = components.resolve(request)
    members = resolved.get("properties", {})
    return Described(action, section, request, reply, members, resolved.get("required", ()))


def native_item(of: Described, facts: Facts) -> dict[str, Any]:
    """The path item of an action."""
    return {
        method.lower(): _native(method, of, facts)
        for method in of.action.methods
        if method != "OPTIONS" and (method not in ("GET", "HEAD") or takes_json(of.action))
    }


def takes_json(action: Announced) -> bool:
    """Whether the action can be called with a query."""
    return any(name.lower() == JSON for name in action.envelopes)


def _native(method: str, of: Described, facts: Facts) -> dict[str, Any]:
    action = of.action
    by_query = method in ("GET", "HEAD") or (method == "DELETE" and _fits_query(of))
    made = common(of, facts, ticket=not action.noauth)
    made["operationId"] = operation_id(method, action)
    made["parameters"] = [parameter("X-SCAMP-Timeout"), parameter("X-Request-ID")]
    if by_query:
        made["parameters"] += query_parameters(of)
    else:
        types = media_types(action, facts)
        made["requestBody"] = {
            "content": {
                one: {"schema": or_any(of.request)} if one == JSON_TYPE else {} for one in types
            },
            "required": bool(of.required) or JSON_TYPE not in types,
        }
    types = [JSON_TYPE] if by_query else reply_types(action, facts)
    content = {one: {"schema": or_any(of.reply)} if one == JSON_TYPE else {} for one in types}
    made["responses"] = {
        "200": success(content, head=method == "HEAD"),
        **problems(
            statuses_of(
                mode=facts.mode,
                ticket=not action.noauth,
                body=not by_query,
                limited=facts.limited,
                rated=facts.rated,
            )
        ),
    }
    return made


def common(of: Described, facts: Facts, *, ticket: bool) -> dict[str, Any]:
    """What an operation has to say of its action, however it is called."""
    action, section = of.action, of.section
    made: dict[str, Any] = {
        "tags": [action.spelling.rpartition(".")[0]],
        "summary": section.summary or action.spelling,
        "security": security(facts, needed=ticket),
        "x-scamp-action": action.label,
        "x-scamp-flags": shown_flags(action),
        "x-scamp-retry": "always" if action.read else "not-sent",
        "x-scamp-timeout": seconds(action.timeout),
    }
    if section.description:
        made["description"] = section.description
    return made


def shown_flags(action: Announced) -> list[str]:
    """The announced flags that say something besides the timeout."""
    shown = (
        flag
        for flag in action.flags
        if flag.isprintable() and len(flag) <= 64 and not _TIMEOUT_FLAG.fullmatch(flag)
    )
    return sorted(shown)[:MAX_FLAGS]


def seconds(value: float) -> int | float:
    """Without a fraction where there is none."""
    return int(value) if value == int(value) else value


def media_types(action: Announced, facts: Facts) -> list[str]:
    """What stands for the announced envelopes that HTTP can name, in requests."""
    names = _envelopes(action)
    also = (one for one, envelope in facts.media_types.items() if envelope.lower() in names)
    return sorted({*map(content_type_of, names.values()), *also})


def reply_types(action: Announced, facts: Facts) -> list[str]:
    """The same in replies, one for each envelope."""
    names = _envelopes(action).values()
    return sorted({content_type_of(name, facts.media_types) for name in names})


def _envelopes(action: Announced) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(action.envelopes):
        if is_envelope(name):
            found.setdefault(name.lower(), name)
    return found


def success(content: Mapping[str, Any], *, head: bool = False) -> dict[str, Any]:
    """The response of what went well."""
    made: dict[str, Any] = {
        "description": "What the action gives.",
        "headers": {"X-Request-ID": header("X-Request-ID")},
    }
    if content and not head:
        made["content"] = dict(content)
    return made


def or_any(schema: Schema | None) -> Schema:
    """The schema that fits everything where there is none."""
    return {} if schema is None else schema


# -- queries ----------------------------------------------------------------------------


def query_parameters(of: Described, besides: Collection[str] = ()) -> list[dict[str, Any]]:
    """What the query may hold, without the members `besides`: those of the request's schema that a
    query can carry, anything when there is no schema."""
    if of.request is None:
        return [_FREE_QUERY]
    fitting = [
        name
        for name in sorted(of.members)
        if name not in besides and _is_scalar(of.members[name]) and _is_parameter(name)
    ]
    return [
        {
            "name": name,
            "in": "query",
            "schema": of.members[name],
            **({"required": True} if name in of.required else {}),
        }
        for name in fitting[:MAX_QUERY_PARAMETERS]
    ]


def _fits_query(of: Described) -> bool:
    """Whether everything that the action needs can stand in a query."""
    if not takes_json(of.action):
        return False
    return of.request is None or all(
        name in of.members and _is_scalar(of.members[name]) for name in of.required
    )


def _is_parameter(name: str) -> bool:
    return 0 < len(name) <= 100 and name.isprintable()


def _is_scalar(schema: Schema) -> bool:
    """Whether values are single texts, numbers and the like, as far as can be seen here."""
    if not isinstance(schema, dict):
        return False
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return all(_is_scalar(one) for one in choices)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds:
        return _SCALARS.issuperset(kinds)
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return bool(values) and not any(isinstance(one, dict | list) for one in values)
