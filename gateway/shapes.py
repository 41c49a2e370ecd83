"""What is known of a request's head by its names, and by values that were seen before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from gateway.connection import MAX_HEAD
from gateway.translate import JSON_TYPE, is_host, media_type_of

MAX_SHAPES: Final = 256
"""Orders of fields that are remembered; a client program has one or two."""

MAX_SHAPE: Final = 1024
"""Characters in all names of one that is remembered."""

MAX_SEEN: Final = 64
"""Values of ``Host`` and ``Content-Type`` that are not looked at again, of each."""

MAX_VALUE: Final = 256
"""Characters of one of these."""


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


class PlainHeads:
    """Tells heads of JSON requests in which nothing else matters from all others."""

    __slots__ = ("_hosts", "_types", "shapes")

    def __init__(self, meaning: Collection[str] = MEANING) -> None:
        """`meaning` as for `Shapes`."""
        self.shapes = Shapes(meaning)
        self._hosts: set[bytes] = set()
        self._types: set[bytes] = set()

    def is_plain(self, shape: Shape, values: tuple[bytes, ...]) -> bool:
        """Whether the shape is plain, the head not too large, ``Host`` one, and the body said to be
        JSON. `values` are those of all fields."""
        if not shape.plain or shape.size + sum(map(len, values)) > MAX_HEAD:
            return False
        host = values[shape.host]
        if host not in self._hosts:
            if not is_host(_text(host)):
                return False
            _keep(self._hosts, host)
        if shape.content_type < 0:
            return True
        content_type = values[shape.content_type]
        if content_type not in self._types:
            if media_type_of(_text(content_type)) != JSON_TYPE:
                return False
            _keep(self._types, content_type)
        return True


def _text(value: bytes) -> str:
    """As aiohttp's parser has it for the front: other decodings have other blanks."""
    return value.decode("utf-8", "surrogateescape")


def _keep(seen: set[bytes], value: bytes) -> None:
    if len(value) <= MAX_VALUE:
        if len(seen) >= MAX_SEEN:
            seen.clear()
        seen.add(value)
