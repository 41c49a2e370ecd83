"""The operations of one route, as OpenAPI has them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.openapi.operations import (
    NOT_WORD,
    Described,
    Facts,
    common,
    digest,
    media_types,
    or_any,
    query_parameters,
    reply_types,
    seconds,
    success,
)
from gateway.openapi.responses import parameter, problems, statuses_of
from gateway.openapi.schemas import Schema
from gateway.routes.model import JSON_TYPES, WHOLE_BODY, Parameter, Route, Segment
from gateway.translate import JSON_TYPE, content_type_of

_PATH_TEXT: Final = r"^(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]+$"
"""What no path can have in a segment, however it is encoded: see `translate.split_target`."""


def route_id(method: str, route: Route) -> str:
    """``route_get_v1_skus_by_code``, with a digest at its end where another could read alike."""
    words = [f"by_{one.name}" if one.name else one.text for one in route.segments]
    texts = [one.name or one.text for one in route.segments]
    made = f"route_{method.lower()}_{NOT_WORD.sub('_', '_'.join(words)).strip('_')}"
    if all(one.isalnum() and one.isascii() and one != "by" for one in texts):
        return made
    return f"{made}_x{digest(route.plain_template)}"


def route_operations(
    route: Route, of: Described, names: Mapping[str, str], facts: Facts
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Method, in lower case, and operation. `names` are those of the path's parameters in the
    document by those in the route."""
    for method in route.all_methods:
        if of.action.read or method not in ("GET", "HEAD"):
            yield method.lower(), _route(method, route, of, names, facts)


def _route(
    method: str, route: Route, of: Described, names: Mapping[str, str], facts: Facts
) -> dict[str, Any]:
    action = of.action
    ticket = not action.noauth if route.ticket is None else route.ticket
    made = common(of, facts, ticket=ticket)
    made["operationId"] = route_id(method, route)
    if route.summary:
        made["summary"] = route.summary
    if route.description:
        made["description"] = route.description
    if route.timeout is not None:
        made["x-scamp-timeout"] = seconds(route.timeout)
    if not route.retry:
        made["x-scamp-retry"] = "not-sent"
    made["parameters"] = [
        *(_path_parameter(one, route, of, names) for one in route.segments if one.name),
        parameter("X-SCAMP-Timeout"),
        parameter("X-Request-ID"),
        *_route_query(route, of),
    ]
    if route.body is not None:
        made["requestBody"] = _route_body(route, of, facts)
    made["responses"] = {
        str(route.status): success(_route_reply(route, of, facts), head=method == "HEAD"),
        **problems(
            statuses_of(
                mode=facts.mode,
                ticket=ticket,
                body=route.body is not None,
                limited=True,
                rated=facts.rated or route.rate is not None,
            )
        ),
    }
    return made


def _path_parameter(
    segment: Segment, route: Route, of: Described, names: Mapping[str, str]
) -> dict[str, Any]:
    known = next((one for one in route.path_parameters if one.name == segment.name), None)
    schema: dict[str, Any] = {"type": JSON_TYPES[segment.type]}
    if segment.type == "string":
        member = of.members.get(known.member) if known is not None else None
        if isinstance(member, dict) and member.get("type") == "string":
            schema = member
        schema = {"pattern": _PATH_TEXT, **schema}
    made: dict[str, Any] = {
        "name": names[segment.name],
        "in": "path",
        "required": True,
        "schema": schema,
    }
    if known is not None and known.description:
        made["description"] = known.description
    return made


def _route_query(route: Route, of: Described) -> list[dict[str, Any]]:
    if route.query_parameters is None:
        if route.body is not None:
            return []
        set_elsewhere = {one.member for one in route.path_parameters}
        found = query_parameters(of, set_elsewhere)
        return [
            {key: value for key, value in one.items() if key != "required"}
            if one["name"] in route.defaults
            else one
            for one in found
        ]
    return [_query_parameter(one) for one in route.query_parameters]


def _query_parameter(one: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": JSON_TYPES[one.type]}
    made: dict[str, Any] = {
        "name": one.name,
        "in": "query",
        "schema": {"type": "array", "items": schema} if one.many else schema,
    }
    if one.required:
        made["required"] = True
    return {**made, "description": one.description} if one.description else made


def _route_body(route: Route, of: Described, facts: Facts) -> dict[str, Any]:
    schema: Schema = {}
    required = True
    if route.body == WHOLE_BODY:
        schema, required = _without(of, route), bool(of.required)
    elif route.body is not None and route.body in of.members:
        schema = of.members[route.body]
        required = route.body in of.required
    return {
        "content": {
            one: {"schema": schema} if one == JSON_TYPE else {}
            for one in route.consumes or _route_types(route, of, facts)
        },
        "required": required,
    }


def _without(of: Described, route: Route) -> Schema:
    """The request's schema without the members that the rest of the request sets."""
    elsewhere = {one.member for one in (*route.path_parameters, *(route.query_parameters or ()))}
    elsewhere.update(route.defaults)
    if of.request is None or not elsewhere.intersection(of.members):
        return or_any(of.request)
    made: dict[str, Any] = {
        "type": "object",
        "properties": {name: one for name, one in of.members.items() if name not in elsewhere},
    }
    left = sorted(name for name in of.required if name not in elsewhere)
    return {**made, "required": left} if left else made


def _route_reply(route: Route, of: Described, facts: Facts) -> dict[str, Any]:
    if route.produces:
        types = [route.produces]
    elif route.envelope is not None:
        types = [content_type_of(route.envelope, facts.media_types)]
    else:
        types = [JSON_TYPE] if route.body is None else reply_types(of.action, facts)
    return {one: {"schema": or_any(of.reply)} if one == JSON_TYPE else {} for one in types}


def _route_types(route: Route, of: Described, facts: Facts) -> list[str]:
    if route.envelope is not None:
        wanted = route.envelope.lower()
        also = [one for one, name in facts.media_types.items() if name.lower() == wanted]
        return sorted([content_type_of(route.envelope), *also])
    return media_types(of.action, facts)
