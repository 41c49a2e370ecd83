"""The lines of the access log: one per request, as JSON or as text.

A ticket never gets here: there is no field for what could hold one, and what others chose goes
through `_told`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson

from scamp import logs

if TYPE_CHECKING:
    from gateway.exchange import Exchange

MAX_FIELD: Final = 200
"""Characters of a value that somebody else chose."""

MAX_MIDDLES: Final = 4096
"""Of what many requests have in common, most of a line, so many are kept ready: some 600 bytes for
each action, route, method, status and instance that go together."""

Form: TypeAlias = Literal["json", "text"]

_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z

_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")
"""Printable ASCII without space, quotes, equals sign and backslash."""


def line_of(
    exchange: Exchange,
    total: float,
    worker: int | None = None,
    *,
    form: Form = "json",
    weight: float | None = None,
) -> bytes:
    """The line for one request that took `total` seconds, in this one of several `worker`
    processes; it stands for `weight` requests. Times in it are milliseconds."""
    fields = fields_of(exchange, total, worker, weight)
    return _logfmt(fields) if form == "text" else orjson.dumps(fields, option=_OPTIONS)


def fields_of(
    exchange: Exchange, total: float, worker: int | None, weight: float | None
) -> dict[str, Any]:
    """What a line says, as `line_of`, in its order."""
    action, asked, caller = exchange.action, exchange.asked, exchange.caller
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(exchange.wall, UTC),
        "request_id": exchange.request_id,
        "trace_id": exchange.trace_id,
        "client": exchange.client,
        "method": exchange.method,
        "route": exchange.route,
        "action": None,
        "version": None,
        "sector": None,
        "status": exchange.status,
        "cause": exchange.cause,
        "upstream_code": _told(exchange.upstream_code),
        "instance": exchange.address,
        "attempts": exchange.attempts,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "total_ms": round(total * 1000, 3),
        "upstream_ms": round(exchange.upstream * 1000, 3),
        "queue_ms": round(exchange.queued * 1000, 3),
        "user_id": caller.user_id if caller is not None else None,
        "client_id": caller.client_id if caller is not None else None,
    }
    if action is not None:
        fields["action"] = action.spelling
        fields["version"] = action.version
        fields["sector"] = action.sector
    elif asked is not None:
        fields["action"] = _told(asked.action)
        fields["version"] = asked.version
        fields["sector"] = _told(asked.sector)
    if worker is not None:
        fields["worker"] = worker
    if weight is not None:
        fields["weight"] = weight
    return fields


# -- the same bytes, many at a time -----------------------------------------------------

Taken: TypeAlias = tuple[Any, ...]
"""What `lines_of` needs to know of a request."""


def taken(exchange: Exchange, total: float, weight: float | None) -> Taken | None:
    """The values of a request that ended well, as they are now; None for any other: its line is to
    be had of `line_of`."""
    action, caller = exchange.action, exchange.caller
    if action is None or exchange.cause is not None or exchange.upstream_code is not None:
        return None
    return (
        exchange.wall,
        exchange.request_id,
        exchange.trace_id,
        exchange.client,
        exchange.method,
        exchange.route,
        action,
        exchange.status,
        exchange.address,
        exchange.attempts,
        exchange.bytes_in,
        exchange.bytes_out,
        total,
        exchange.upstream,
        exchange.queued,
        None if caller is None else caller.user_id,
        None if caller is None else caller.client_id,
        weight,
    )


def lines_of(requests: Iterable[Taken | bytes], worker: int | None) -> list[bytes]:
    """Lines of JSON, as `line_of` makes them; those that are lines already stay as they are.

    In the middle of a request a line costs 4 µs, most of it waiting for memory; here, where one is
    made after the other, 1.
    """
    lines = []
    began, second = -1.0, ""
    for one in requests:
        if isinstance(one, bytes):
            lines.append(one)
            continue
        (wall, request_id, trace_id, client, method, route, action, status, address, attempts,
         bytes_in, bytes_out, total, upstream, queued, user_id, client_id, weight,
        ) = one  # fmt: skip
        since = wall - began
        if not 0.0 <= since < 1.0:
            began = wall // 1.0
            second, since = f"{datetime.fromtimestamp(began, UTC):%Y-%m-%dT%H:%M:%S}.", wall - began
        micro = round(since * 1e6)
        fields = {
            # What orjson would make of the datetime. Noughts in front would cost what this saves.
            "time": f"{second}{micro}Z"
            if 100_000 <= micro < 1_000_000
            else datetime.fromtimestamp(wall, UTC),
            "request_id": request_id,
            "trace_id": trace_id,
            "client": client,
            "method": _middle(
                method,
                route,
                action.spelling,
                action.version,
                action.sector,
                status,
                address,
                attempts,
            ),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "total_ms": _milliseconds(total),
            "upstream_ms": _milliseconds(upstream),
            "queue_ms": _milliseconds(queued) if queued else queued,
            "user_id": user_id,
            "client_id": client_id,
        }
        if worker is not None:
            fields["worker"] = worker
        if weight is not None:
            fields["weight"] = weight
        lines.append(orjson.dumps(fields, None, _OPTIONS))
    return lines


@lru_cache(MAX_MIDDLES)
def _middle(
    method: str,
    route: str | None,
    spelling: str,
    version: int,
    sector: str,
    status: int,
    address: str | None,
    attempts: int | None,
) -> orjson.Fragment:
    """The value of ``method`` and all that follows until ``attempts``, as it is to stand there."""
    fields = {
        "method": method,
        "route": route,
        "action": spelling,
        "version": version,
        "sector": sector,
        "status": status,
        "cause": None,
        "upstream_code": None,
        "instance": address,
        "attempts": attempts,
    }
    return orjson.Fragment(orjson.dumps(fields).removeprefix(b'{"method":').removesuffix(b"}"))


_TO_INTEGER: Final = 1.5 * 2**52
"""A double of this size has no room for a fraction: adding it rounds to an integer, half to even,
and taking it away again leaves that."""


def _milliseconds(seconds: float) -> float:
    """``round(seconds * 1000, 3)``, which is four times as slow since it rounds in decimal. Here a
    half could be missed by the last bit of a product, so whatever is near one goes that way."""
    micro = seconds * 1e6
    if 0.0 < micro < 1e9:
        whole = micro + _TO_INTEGER - _TO_INTEGER
        if -0.49 < micro - whole < 0.49:
            return whole / 1000
    return round(seconds * 1000, 3)


# -- text -------------------------------------------------------------------------------


def _logfmt(fields: Mapping[str, Any]) -> bytes:
    """``name=value name="another value"``, without what is not known. ASCII."""
    words = [f"{name}={_word(value)}" for name, value in fields.items() if value is not None]
    return " ".join(words).encode() + b"\n"


def _word(value: object) -> str:
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, datetime):
        return f"{value.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _told(text: str | None) -> str | None:
    """What somebody else chose: cut, on one line, and no ticket."""
    if text is None:
        return None
    return logs.escape(logs.redact(text[:_LOOKED_AT])[:MAX_FIELD])


_LOOKED_AT: Final = 8 * MAX_FIELD
"""Characters in which a ticket is looked for: more than one that begins in the first has."""
