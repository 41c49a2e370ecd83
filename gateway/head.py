"""What the head of a request says besides what it asks for, and what in it can be read in two ways.

Whatever stands before us may have taken the other: such requests are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
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

MAX_SHAPES: Final = 256
"""Orders of fields that are remembered; a client program has one or two."""

MAX_SHAPE: Final = 1024
"""Characters in all names of one that is remembered."""

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


# -- what is known by the names alone ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """What the names of a head's fields tell, in their order. Places are indexes; -1: not there."""

    plain: bool
    """Nothing in it changes how the request is read or answered, but for the fields below, and
    none comes twice."""
    size: int = 0
    """Characters in all of the names."""
    host: int = -1
    content_type: int = -1
    authorization: int = -1
    ticket: int = -1
    request_id: int = -1
    traced: bool = False
    forwarded: bool = False


_ODD: Final = Shape(False)

MEANING: Final = frozenset(
    ("transfer-encoding", "content-encoding", "expect", "upgrade", "x-scamp-timeout")
)
"""Fields because of which a request is not plain: `Front` heeds each of them."""


class Shapes:
    """Remembers what names tell: it is the same for each request of a client program."""

    __slots__ = ("_known", "_meaning")

    def __init__(self, meaning: Collection[str] = MEANING) -> None:
        """`meaning`: fields, in lower case, because of which a request is not plain."""
        self._meaning = frozenset(meaning)
        self._known: dict[tuple[bytes, ...], Shape] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def of(self, names: tuple[bytes, ...]) -> Shape:
        """The shape of a head with these names, as they came."""
        shape = self._known.get(names)
        if shape is None:
            shape = self._look(names)
            if sum(map(len, names)) <= MAX_SHAPE:
                if len(self._known) >= MAX_SHAPES:
                    self._known.clear()
                self._known[names] = shape
        return shape

    def _look(self, raw_names: tuple[bytes, ...]) -> Shape:
        names = [name.decode("latin-1").lower() for name in raw_names]
        places = {name: place for place, name in enumerate(names)}
        if len(places) < len(names) or "host" not in places or not self._meaning.isdisjoint(places):
            return _ODD
        return Shape(
            True,
            sum(map(len, raw_names)),
            host=places["host"],
            content_type=places.get("content-type", -1),
            authorization=places.get("authorization", -1),
            ticket=places.get("x-scamp-ticket", -1),
            request_id=places.get("x-request-id", -1),
            traced="traceparent" in places,
            forwarded="x-forwarded-for" in places,
        )
