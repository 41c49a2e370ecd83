"""What the head of a request says besides what it asks for, and what in it can be read in two ways.

Whatever stands before us may have taken the other: such requests are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs
from multidict import CIMultiDictProxy, istr

from gateway import catalogue
from gateway.actions import Announced
from gateway.connection import MAX_HEAD
from gateway.context import caller_timeout, continue_trace
from gateway.problems import Problem
from gateway.translate import check_host
from scamp.client import Deadline

if TYPE_CHECKING:
    from gateway.exchange import Exchange

NO_FIELDS: Final[Mapping[str, str]] = {}

TRACEPARENT: Final = istr("traceparent")
_TIMEOUT: Final = istr("X-SCAMP-Timeout")
_VERSIONS: Final = (HttpVersion11, HttpVersion10)


def single(headers: CIMultiDictProxy[str], name: str) -> str:
    """The value of a field that is there; of two, what stands before us may have read the other."""
    values = headers.getall(name)
    if len(values) > 1:
        raise Problem(catalogue.BAD_HEADER, f"{name} comes more than once.")
    return values[0]


def deadline_of(headers: CIMultiDictProxy[str], action: Announced) -> tuple[Deadline, bool]:
    """When the request must have its reply, and whether the caller made that sooner."""
    if _TIMEOUT in headers:
        asked = caller_timeout(single(headers, _TIMEOUT))
        if asked < action.timeout:
            return Deadline.after(asked), True
    return Deadline.after(action.timeout), False


def trace_of(headers: CIMultiDictProxy[str], exchange: Exchange) -> Mapping[str, str]:
    """HEADER fields that continue the caller's trace; none without a good one. Notes its id."""
    state = ",".join(headers.getall("tracestate", ()))  # may come in pieces
    continued = continue_trace(",".join(headers.getall(TRACEPARENT)), state)  # may not
    if continued is None:
        return NO_FIELDS
    exchange.trace_id, fields = continued
    return fields


def check_head(exchange: Exchange) -> None:
    """Refuse what aiohttp lets through and what stands before us could have read otherwise.

    Raises Problem: malformed_request, header_too_large, bad_header, bad_framing, bad_path.
    """
    request, headers = exchange.request, exchange.headers
    if request.version not in _VERSIONS:
        raise Problem(catalogue.MALFORMED, "This is HTTP/1.1.", close=True)
    if sum(map(len, chain.from_iterable(request.raw_headers))) > MAX_HEAD:
        raise Problem(catalogue.HEADER_TOO_LARGE, close=True)
    if hdrs.UPGRADE in headers or exchange.method == "CONNECT":
        # aiohttp drops what it read behind an upgrade that it does not know (h2c), and takes the
        # body of CONNECT for the next request: nothing on this connection can be trusted then.
        exchange.close = True
    if hdrs.TRANSFER_ENCODING in headers:
        _check_framing(exchange)
    host = single(headers, hdrs.HOST) if hdrs.HOST in headers else None
    target = request.raw_path
    check_host(host, target)
    if "#" in target:
        raise Problem(catalogue.BAD_PATH, "The request target has a fragment.")


def _check_framing(exchange: Exchange) -> None:
    """RFC 9112, 6.1: HTTP/1.0 knows no chunks, so that what stands before us may see the body end
    elsewhere; and below any other coding is not the body that the service would take it for."""
    codings = exchange.headers.getall(hdrs.TRANSFER_ENCODING)
    if exchange.request.version < HttpVersion11 or [one.lower() for one in codings] != ["chunked"]:
        detail = "The one Transfer-Encoding is chunked, in HTTP/1.1."
        raise Problem(catalogue.BAD_FRAMING, detail, close=True)
