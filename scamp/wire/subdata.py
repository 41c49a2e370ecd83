"""The bodies of subscriptions: filters, and the values that services publish.

A value stands under a code and a key. Here it is kept as JSON text in one canonical form (object
keys sorted), so that two values are equal when their bytes are; comparing what Python makes of them
would not tell ``true`` from ``1``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeGuard

import orjson

from scamp.errors import LocalProtocolError, RemoteProtocolError
from scamp.limits import MAX_FILTER_CODES, MAX_SUBDATA_NAME

NULL: Final = b"null"
"""The value that deletes."""


class Record(NamedTuple):
    """One value as it is now. `value` is canonical JSON; NULL when there is none any more."""

    code: str
    key: str
    value: bytes


def encode_value(value: Any) -> bytes:
    """The canonical JSON of a value. Raises LocalProtocolError when it has none."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, RecursionError) as exc:  # orjson's own error is a TypeError
        raise LocalProtocolError(f"not a JSON value: {exc}") from exc


def encode_record(record: Record) -> bytes:
    """One element of an event's body."""
    name = orjson.dumps(record.code), orjson.dumps(record.key)
    return b'{"code":%b,"key":%b,"value":%b}' % (*name, record.value)


def parse_records(body: bytes) -> tuple[list[Record], int]:
    """What an event's body says, and how many of its elements are malformed and left out.

    Raises RemoteProtocolError when it is no JSON array.
    """
    elements = _loads(body)
    if not isinstance(elements, list):
        raise RemoteProtocolError("the body of an event is not a JSON array")
    records = []
    for element in elements:
        record = _record(element)
        if record is not None:
            records.append(record)
    return records, len(elements) - len(records)


def _record(element: Any) -> Record | None:
    if not isinstance(element, dict) or "value" not in element:
        return None
    code, key = element.get("code"), element.get("key")
    if not is_name(code) or not is_name(key):
        return None
    try:
        return Record(code, key, encode_value(element["value"]))
    except LocalProtocolError:
        return None


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:  # JavaScript cuts strings within a character, which orjson refuses: one bad record
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"not JSON: {exc}") from exc


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def is_name(text: object) -> TypeGuard[str]:
    """True for what can be a code or a key: any string, also the empty one, that is UTF-8."""
    if not isinstance(text, str) or len(text) > MAX_SUBDATA_NAME:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_filter(codes: Iterable[str]) -> bytes:
    """The body of a subscribe message. Raises LocalProtocolError unless there are 1 to 10 codes."""
    wanted = tuple(codes)
    if isinstance(codes, str) or not all(is_name(code) for code in wanted):
        raise LocalProtocolError("codes must be a sequence of strings")
    if not 1 <= len(wanted) <= MAX_FILTER_CODES:
        raise LocalProtocolError(f"{len(wanted)} codes; from 1 to {MAX_FILTER_CODES} are possible")
    return orjson.dumps(wanted)


def parse_filter(body: bytes) -> tuple[str, ...] | None:
    """The codes that a client wants, each once; None when it wants no more events.

    Raises RemoteProtocolError when it is no filter: no JSON, not an array of strings, too many.
    """
    codes = _loads(body)
    if codes is None:
        return None
    if not isinstance(codes, list) or not all(is_name(code) for code in codes):
        raise RemoteProtocolError("the filter is not an array of strings")
    if len(codes) > MAX_FILTER_CODES:
        raise RemoteProtocolError(f"a filter of {len(codes)} codes, at most {MAX_FILTER_CODES}")
    return tuple(dict.fromkeys(codes))


def encode_event(records: Sequence[bytes]) -> bytes:
    """An event's body of encoded records; an empty one says that there is nothing."""
    return b"[%b]" % b",".join(records)
