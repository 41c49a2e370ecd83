"""Headers on their way out: what must not be sent cannot be encoded.

The header types take whatever a peer may have sent, since they are what `parse_header` makes of it.
`EncodedHeader` is the one gate from there to the wire: it can only be made from a header, and only
from one that every peer bears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from scamp.errors import LocalProtocolError
from scamp.limits import MAX_PACKET_BODY, MAX_REQUEST_ID, MAX_REQUEST_ID_TEXT
from scamp.wire.header import (
    OTHER_FIELDS,
    REPLY_FIELDS,
    REQUEST_FIELDS,
    TYPES,
    EventHeader,
    Header,
    NotifyHeader,
    OtherHeader,
    ReplyHeader,
    RequestHeader,
    header_type,
)

_MAX_INTEGER: Final = (1 << 63) - 1
"""What fits the integers of every peer but JavaScript, which rounds above 2**53."""

_KNOWN_TYPES: Final = frozenset(TYPES.values())


class EncodedHeader(bytes):
    """The body of a HEADER packet, made from a header that may be sent.

    Raises LocalProtocolError when a value cannot be sent: of a wrong type, out of its range, not
    JSON, a field of the protocol's among `extra`, or too large altogether.
    """

    __slots__ = ()

    def __new__(cls, header: Header) -> EncodedHeader:
        try:
            body = orjson.dumps(_fields(header))
        except (TypeError, ValueError) as exc:  # orjson's errors are these
            raise LocalProtocolError(f"header cannot be encoded: {exc}") from exc
        if len(body) > MAX_PACKET_BODY:
            raise LocalProtocolError(f"header of {len(body)} bytes, the limit is {MAX_PACKET_BODY}")
        return bytes.__new__(cls, body)


class RequestTemplate:
    """What the HEADERs of all requests to one action with one envelope have in common.

    Raises LocalProtocolError when no such request can be sent.
    """

    __slots__ = ("_head",)

    def __init__(self, action: str, version: int, envelope: str) -> None:
        head = EncodedHeader(RequestHeader(action, 1, version, envelope))
        fields = orjson.loads(bytes(head))
        del fields["request_id"]
        self._head = orjson.dumps(fields)[:-1] + b',"request_id":'

    def encode(self, request_id: int, ticket: str | None, client_id: int | None) -> EncodedHeader:
        """The HEADER body of one of them: `EncodedHeader` of the same fields, in a quarter of the
        time. Raises as that does. Nothing of it is kept: a ticket is a secret."""
        if type(request_id) is not int or not 0 < request_id <= MAX_REQUEST_ID:
            raise LocalProtocolError(f"request_id must be from 1 to {MAX_REQUEST_ID}")
        end = b"}"
        if client_id is not None:
            if type(client_id) is not int or not 0 <= client_id <= _MAX_INTEGER:
                _integer("client_id", client_id, 0, _MAX_INTEGER)
            end = b',"client_id":%d}' % client_id
        if ticket is None:
            body = b"%b%d%b" % (self._head, request_id, end)
        else:
            if not isinstance(ticket, str):
                _text("ticket", ticket)
            try:
                body = b'%b%d,"ticket":%b%b' % (self._head, request_id, orjson.dumps(ticket), end)
            except TypeError as exc:  # orjson's error is one
                raise LocalProtocolError(f"header cannot be encoded: {exc}") from exc
        if len(body) > MAX_PACKET_BODY:
            raise LocalProtocolError(f"header of {len(body)} bytes, the limit is {MAX_PACKET_BODY}")
        return bytes.__new__(EncodedHeader, body)


def encode_header(header: Header) -> EncodedHeader:
    """The header as the body of a HEADER packet. Raises LocalProtocolError, see `EncodedHeader`."""
    return EncodedHeader(header)


def _fields(header: Header) -> dict[str, Any]:
    if isinstance(header, RequestHeader):
        return _request_fields(header)
    if isinstance(header, ReplyHeader):
        return _reply_fields(header)
    if not isinstance(header, OtherHeader) and type(header) not in TYPES:
        raise LocalProtocolError(f"{type(header).__name__} is no header")
    kind = header_type(header)
    if isinstance(header, OtherHeader):
        _text("type", kind)
        if not kind or kind in _KNOWN_TYPES or header.problem:
            raise LocalProtocolError(f"type {kind!r} has a class of its own")
    fields = {**_checked(header.extra, OTHER_FIELDS), "type": kind}
    if not isinstance(header, EventHeader | NotifyHeader) and header.request_id is not None:
        _check_answered_id(header.request_id)
        fields["request_id"] = header.request_id
    return fields


def _request_fields(header: RequestHeader) -> dict[str, Any]:
    fields = {
        "type": "request",
        "request_id": header.request_id,
        "action": header.action,
        "version": header.version,
        "envelope": header.envelope,
    }
    if not (
        type(header.request_id) is int  # not isinstance: a bool would be sent as true or false
        and 0 < header.request_id <= MAX_REQUEST_ID
        and type(header.version) is int
        and 0 < header.version <= MAX_REQUEST_ID
        and header.action
        and isinstance(header.action, str)
        and header.envelope
        and isinstance(header.envelope, str)
    ):
        raise LocalProtocolError(
            f"a request needs an action, an envelope, and request_id and version from 1 to "
            f"{MAX_REQUEST_ID}: {header.request_id!r}, {header.version!r}, {header.action!r:.99}, "
            f"{header.envelope!r:.99}"
        )
    if header.extra:
        fields.update(_checked(header.extra, REQUEST_FIELDS))
    if header.ticket is not None:
        _text("ticket", header.ticket)
        fields["ticket"] = header.ticket
    if header.identifying_token is not None:
        _text("identifying_token", header.identifying_token)
        fields["identifying_token"] = header.identifying_token
    if header.client_id is not None:  # null makes some peers close
        _integer("client_id", header.client_id, 0, _MAX_INTEGER)
        fields["client_id"] = header.client_id
    return fields


def _reply_fields(header: ReplyHeader) -> dict[str, Any]:
    request_id = header.request_id
    if request_id is not None and type(request_id) is not int:
        _check_answered_id(request_id)
    fields: dict[str, Any] = {"type": "reply", "request_id": request_id}
    if header.extra:
        fields.update(_checked(header.extra, REPLY_FIELDS))
    if header.error:
        _text("error", header.error)
        fields["error"] = header.error
    if header.error_code:
        _text("error_code", header.error_code)
        fields["error_code"] = header.error_code
    if header.error_data is not None:
        if header.dispatch_failure and not header.failed:
            raise LocalProtocolError("a dispatch_failure needs an error")
        fields["error_data"] = header.error_data
    return fields


def _checked(extra: Mapping[str, Any], known: frozenset[str]) -> Mapping[str, Any]:
    """`extra`, if none of its fields would stand for one of the header's own."""
    if not known.isdisjoint(extra):
        taken = ", ".join(sorted(known.intersection(extra)))
        raise LocalProtocolError(f"extra fields must not name the header's own: {taken}")
    return extra


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise LocalProtocolError(f"{name} must be a string, not {type(value).__name__}")


def _integer(name: str, value: object, least: int, most: int) -> None:
    # type(), not isinstance: a bool would be sent as true or false.
    if type(value) is not int or not least <= value <= most:
        raise LocalProtocolError(f"{name} must be an integer from {least} to {most}, not {value!r}")


def _check_answered_id(value: object) -> None:
    """What a peer chose goes back as it came: any integer, or a string that is not endless."""
    if type(value) is int:
        return
    if not isinstance(value, str) or len(value) > MAX_REQUEST_ID_TEXT:
        raise LocalProtocolError("request_id is neither an integer nor a short string")
