"""The JSON object in a HEADER packet, as types.

A request, a reply and the rest (``subscribe``, ``event`` …) are different things with different
fields. `null` and missing mean the same everywhere. Unknown fields are kept in `extra`, unless the
header is larger than MAX_EXTRA_HEADER.

These types hold what a peer sent, right or wrong. What we send must be right: see `EncodedHeader`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from scamp.errors import RemoteProtocolError
from scamp.limits import (
    MAX_EXTRA_HEADER,
    MAX_REQUEST_ID_TEXT,
)

RequestId: TypeAlias = int | str
"""What a requester chose. Ours are integers; a service echoes whatever it was given."""

_NO_EXTRA: Final[Mapping[str, Any]] = {}
_LEAST_ID: Final = -(1 << 63)  # what JSON of ours can hold: it is to be sent back
_LARGEST_ID: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """``type: request``. `client_id` None leaves the field out: some peers close on null."""

    action: str
    request_id: RequestId | None
    version: int = 1
    envelope: str = "json"
    ticket: str | None = field(default=None, repr=False)
    identifying_token: str | None = field(default=None, repr=False)
    client_id: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class ReplyHeader(NamedTuple):
    """``type: reply``. A non-empty `error` or `error_code` means that the action failed."""

    # A tuple, because one is made for every reply: a dataclass takes three times as long.

    request_id: RequestId | None
    error: str = ""
    error_code: str = ""
    error_data: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = _NO_EXTRA

    @property
    def failed(self) -> bool:
        """True when the service says that the action failed."""
        return bool(self.error or self.error_code)

    @property
    def dispatch_failure(self) -> bool:
        """True when the request reached no service and may be sent elsewhere."""
        return self.error_data is not None and bool(self.error_data.get("dispatch_failure"))


@dataclass(frozen=True, slots=True)
class SubscribeHeader:
    """``type: subscribe``. The body is a JSON array of codes to be told of."""

    request_id: RequestId | None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class SubscribeDoneHeader:
    """``type: subscribe_done``: the values of now have been sent. The body is JSON ``true``,
    or ``false`` when the service does not want the subscription."""

    request_id: RequestId | None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class EventHeader:
    """``type: event``. The body is a JSON array of ``{code, key, value}``; null deletes."""

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class NotifyHeader:
    """``type: notify``: a client tells the service something, and expects no answer. The body is
    JSON."""

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class OtherHeader:
    """A type that we do not know, or a request or subscription of which a field makes no sense:
    then `problem` says which. That costs this message, and not those beside it."""

    type: str
    request_id: RequestId | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold a ticket
    problem: str = ""


class _FieldError(Exception):
    """A field makes no sense."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"HEADER field {name!r} is {what}")


Header: TypeAlias = (
    RequestHeader
    | ReplyHeader
    | SubscribeHeader
    | SubscribeDoneHeader
    | EventHeader
    | NotifyHeader
    | OtherHeader
)

REQUEST_FIELDS: Final = frozenset(
    (
        "type",
        "action",
        "request_id",
        "version",
        "envelope",
        "ticket",
        "identifying_token",
        "client_id",
    )
)
REPLY_FIELDS: Final = frozenset(("type", "request_id", "error", "error_code", "error_data"))
OTHER_FIELDS: Final = frozenset(("type", "request_id"))
_FIELDS: Final = REQUEST_FIELDS | REPLY_FIELDS


TYPES: Final[Mapping[type[Header], str]] = {
    RequestHeader: "request",
    ReplyHeader: "reply",
    SubscribeHeader: "subscribe",
    SubscribeDoneHeader: "subscribe_done",
    EventHeader: "event",
    NotifyHeader: "notify",
}


def header_type(header: Header) -> str:
    """The ``type`` of a header as it stands on the wire."""
    return header.type if isinstance(header, OtherHeader) else TYPES[type(header)]


def parse_header(body: bytes, default_type: str) -> Header:
    """The header in a HEADER packet's body. `default_type` is meant when none is given.

    A field of a wrong type makes an `OtherHeader` of it. Raises RemoteProtocolError when it is not
    a JSON object, or a reply whose `request_id` cannot be one.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise RemoteProtocolError(f"HEADER is not JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise RemoteProtocolError("HEADER is not a JSON object")
    if len(body) > MAX_EXTRA_HEADER:
        fields = {name: value for name, value in fields.items() if name in _FIELDS}
    kind = fields.get("type") or default_type
    if kind == "reply":
        return _parse_reply(fields)
    request_id: RequestId | None = None
    try:
        request_id = _id_to_answer(fields)
        if kind == "request":
            return _parse_request(fields, request_id)
        return _parse_other(kind, fields, request_id)
    except _FieldError as exc:
        name = kind if isinstance(kind, str) else "?"
        return OtherHeader(name, request_id, _extra(fields, _FIELDS), str(exc))


def _parse_reply(fields: dict[str, Any]) -> ReplyHeader:
    """Whatever its fields say, but for the id: nobody knows whose reply it is."""
    data = fields.get("error_data")
    try:
        request_id = _request_id(fields)
    except _FieldError as exc:
        raise RemoteProtocolError(str(exc)) from exc
    if isinstance(request_id, str):
        request_id = request_id[:MAX_REQUEST_ID_TEXT]  # none of ours is as long
    return ReplyHeader(
        request_id=request_id,
        error=_error_text(fields.get("error")),
        error_code=_error_text(fields.get("error_code")),
        error_data=data if isinstance(data, dict) else None,
        extra=_extra(fields, REPLY_FIELDS),
    )


def _parse_request(fields: dict[str, Any], request_id: RequestId | None) -> RequestHeader:
    return RequestHeader(
        action=_text(fields, "action"),
        request_id=request_id,
        version=_integer(fields, "version", 1) or 1,
        envelope=_text(fields, "envelope") or "json",
        ticket=_text(fields, "ticket") or None,
        identifying_token=_text(fields, "identifying_token") or None,
        client_id=_integer(fields, "client_id", None),
        extra=_extra(fields, REQUEST_FIELDS),
    )


def _parse_other(kind: Any, fields: dict[str, Any], request_id: RequestId | None) -> Header:
    if not isinstance(kind, str):
        raise _FieldError("type", "not a string")
    extra = _extra(fields, OTHER_FIELDS)
    if kind == "subscribe":
        return SubscribeHeader(request_id, extra)
    if kind == "subscribe_done":
        return SubscribeDoneHeader(request_id, extra)
    if kind == "event":
        return EventHeader(extra)
    if kind == "notify":
        return NotifyHeader(extra)
    return OtherHeader(kind, request_id, extra)


def _extra(fields: dict[str, Any], known: frozenset[str]) -> Mapping[str, Any]:
    if fields.keys() <= known:
        return _NO_EXTRA
    return {name: value for name, value in fields.items() if name not in known}


def _request_id(fields: dict[str, Any]) -> RequestId | None:
    value = fields.get("request_id")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise _FieldError("request_id", "neither a number nor a string")


def _id_to_answer(fields: dict[str, Any]) -> RequestId | None:
    value = _request_id(fields)
    if isinstance(value, str) and len(value) > MAX_REQUEST_ID_TEXT:
        raise _FieldError("request_id", f"of {len(value)} characters")
    if isinstance(value, int) and not _LEAST_ID <= value <= _LARGEST_ID:
        raise _FieldError("request_id", "no integer of 64 bits")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, list | dict):
        raise _FieldError(name, "not a string")
    return _error_text(value)


def _error_text(value: Any) -> str:
    if not value and not isinstance(value, list | dict):
        return ""  # null, false and 0 say that there is none
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)  # error_code 404 is a code, whatever its JSON type
    return orjson.dumps(value).decode()


def _integer(fields: dict[str, Any], name: str, default: int | None) -> int | None:
    value = fields.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) < 20 and value.isascii() and value.isdigit():
        return int(value)
    raise _FieldError(name, "not an integer")
