"""Handlers with types: the body as a value that fits an annotation, and what is known of both ends.

::

    @service.action("Product.Sku.fetch", flags="read")
    async def fetch(request: Request, body: Fetch) -> Sku:
        ...

`Fetch` may be a dataclass, a TypedDict, a model of pydantic or a plain type such as
``dict[str, int]``. pydantic checks the body; it is imported only where a handler has such types.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, get_origin, get_type_hints

import orjson

from scamp.errors import ConfigError, ServiceError
from scamp.limits import MAX_BODY_ERRORS, MAX_BODY_KEY, MAX_ERROR_REASON, MAX_NAME

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from scamp.server.request import Request

Handler: TypeAlias = Callable[["Request"], Awaitable[object] | AsyncIterable[bytes]]
"""A coroutine function, or an async generator function that makes the body piece by piece."""

TypedHandler: TypeAlias = Callable[["Request", Any], Awaitable[object] | AsyncIterable[bytes]]
"""The same with a second parameter: the JSON body, as its annotation says."""

_UNTYPED: Final = (object, Any, bytes, bytearray, memoryview, inspect.Parameter.empty)
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class HandlerInfo:
    """What a handler tells of itself: its docstring, and the types of body and reply.

    `body` checks the request's body, None for a handler that reads it itself. `reply` is the
    return annotation, ``object`` when nothing is known.
    """

    doc: str = ""
    body: TypeAdapter[Any] | None = None
    reply: object = object

    def request_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the body; None when there is none."""
        return None if self.body is None else _schema(self.body, "validation")

    def reply_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the reply; None for bytes, streams and what pydantic cannot tell."""
        origin = get_origin(self.reply) or self.reply
        if self.reply in _UNTYPED or (
            isinstance(origin, type) and issubclass(origin, AsyncIterable | AsyncIterator)
        ):
            return None
        try:
            adapter = _adapter(self.reply)
        except Exception:  # it has no one base, and a reply need not have a schema
            return None
        return _schema(adapter, "serialization")


UNKNOWN: Final = HandlerInfo()
"""Of a handler that was not looked at."""


def inspect_handler(
    handler: Handler | TypedHandler, names: Mapping[str, Any], max_body: int
) -> tuple[Handler, HandlerInfo]:
    """What to call with a request, and what is known of it.

    `names` are the local names where the handler was defined, for annotations that mention them;
    `max_body` is the largest body in bytes that a typed handler is given. A second parameter
    without a default is the body. Raises ConfigError when its annotation is missing or of no use,
    and for what cannot be called so.
    """
    if not callable(handler):
        raise ConfigError(f"{handler!r} is no function that could answer")
    doc = inspect.cleandoc(_function(handler).__doc__ or "")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return cast("Handler", handler), HandlerInfo(doc)
    taken = [one for one in signature.parameters.values() if one.kind in _POSITIONAL]
    typed = len(taken) > 1 and taken[1].default is inspect.Parameter.empty
    try:
        signature.bind(*(None, None) if typed else (None,))
    except TypeError as exc:
        raise ConfigError(f"{_named(handler)} takes other things than a request: {exc}") from exc
    reply = _hint(handler, signature.return_annotation, names, object)
    if not typed:
        return cast("Handler", handler), HandlerInfo(doc, None, reply)
    adapter = _body_adapter(handler, taken[1], names)
    call = partial(_call_typed, cast("TypedHandler", handler), adapter, max_body)
    return call, HandlerInfo(doc, adapter, reply)


def _named(handler: object) -> str:
    return str(getattr(handler, "__qualname__", handler))


def _body_adapter(
    handler: object, parameter: inspect.Parameter, names: Mapping[str, Any]
) -> TypeAdapter[Any]:
    where = f"{_named(handler)}, parameter {parameter.name}"
    if parameter.annotation is inspect.Parameter.empty:
        raise ConfigError(f"{where}: annotate it with the type of the request's body")
    kind = _hint(handler, parameter.annotation, names, None)
    if kind is None:
        raise ConfigError(f"{where}: {parameter.annotation} cannot be found from there")
    try:
        return _adapter(kind)
    except Exception as exc:  # pydantic's, which have no one base
        raise ConfigError(f"{where}: no type that a body can be checked against: {exc}") from exc


def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # takes a moment to import, and few handlers need it

    return TypeAdapter(kind)


def _schema(adapter: TypeAdapter[Any], mode: Any) -> dict[str, Any] | None:
    try:
        schema = adapter.json_schema(mode=mode)
        orjson.dumps(schema)
    except Exception:  # types that can be checked and not described
        return None
    return schema


def _function(handler: object) -> Any:
    """What stands behind methods, partials and decorators."""
    found: Any = handler
    while isinstance(found, partial):
        found = found.func
    found = inspect.unwrap(found)
    return getattr(found, "__func__", found)


def _hint(handler: object, annotation: object, names: Mapping[str, Any], missing: object) -> object:
    """The annotation as a type; `missing` when it is none or mentions what is not there."""
    if annotation is inspect.Parameter.empty:
        return missing
    function = _function(handler)
    if not hasattr(function, "__globals__"):
        function = _function(type(function).__call__)
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        found = get_type_hints(
            holder, getattr(function, "__globals__", {}), dict(names), include_extras=True
        )
    except Exception:  # whatever an expression may raise
        return missing
    return found["it"]


async def _call_typed(
    handler: TypedHandler, adapter: TypeAdapter[Any], max_body: int, request: Request
) -> object:
    """Read and check the body, then do what the handler says."""
    from pydantic import ValidationError

    body = await request.read_all(max_body)
    if _may_have_long_key(body) and _has_long_key(body):
        raise ServiceError("bad_request", f"a key of the body exceeds {MAX_BODY_KEY} characters")
    try:
        value = adapter.validate_json(body if body.strip() else b"{}")
    except ValidationError as exc:
        raise _unfit(exc) from None
    outcome = handler(request, value)
    return await outcome if inspect.isawaitable(outcome) else outcome


def _may_have_long_key(body: bytes) -> bool:
    """False when no key can exceed MAX_BODY_KEY: a look at the bytes, as `_has_long_key` takes as
    long as all of the checking.

    A key ends with ``":``, and within it that stands behind a backslash only. So no key is longer
    than what lies between two of these, and the colon that it may begin with.
    """
    if len(body) <= MAX_BODY_KEY:
        return False
    return b'\\":' in body or max(map(len, body.split(b'":'))) >= MAX_BODY_KEY


def _has_long_key(body: bytes) -> bool:
    """Whether some key exceeds MAX_BODY_KEY. False for what is no JSON."""
    try:
        left: list[Any] = [orjson.loads(body)]
    except orjson.JSONDecodeError:
        return False
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if any(len(key) > MAX_BODY_KEY for key in value):
                return True
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False


def _unfit(error: ValidationError) -> ServiceError:
    """What does not fit, by field, without the values: they may be secrets."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return ServiceError("bad_request", f"the body is not JSON: {found[0]['msg'][:200]}")
    reasons = [
        {"field": _field(one["loc"]), "reason": one["msg"][:MAX_ERROR_REASON]}
        for one in found[:MAX_BODY_ERRORS]
    ]
    first = reasons[0]
    text = f"{first['field']}: {first['reason']}" if first["field"] else first["reason"]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ServiceError("bad_request", f"the body does not fit: {text}{more}", {"errors": reasons})


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:MAX_NAME] for part in location[:8])[:MAX_NAME]
