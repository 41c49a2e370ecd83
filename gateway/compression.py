"""Replies that go out compressed: for which types and whom. gzip only, which everybody has."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

MIN_SIZE: Final = 1024
"""Bytes; below it a packet more or less is not saved."""

MAX_AT_ONCE: Final = 16 * 1024
"""Bytes that are compressed in the loop's own turn, under a millisecond; more are by a thread."""

_TYPES: Final = frozenset(
    f"application/{name}" for name in ("json", "xml", "javascript", "yaml", "x-ndjson", "x-yaml")
)
_SUFFIXES: Final = ("+json", "+xml", "+yaml")
_NEVER: Final = frozenset(("text/event-stream",))
_WEIGHT: Final = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*")


def worth_it(content_type: str) -> bool:
    """Whether bodies of this type shrink: text, JSON, XML. Never events, which come one by one."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _NEVER:
        return False
    return media_type.startswith("text/") or media_type in _TYPES or media_type.endswith(_SUFFIXES)


def accepts_gzip(asked: CIMultiDictProxy[str]) -> bool:
    """Whether the request wants gzip at least as much as nothing of the kind (RFC 9110, 12.5.3)."""
    if hdrs.ACCEPT_ENCODING not in asked:
        return False
    weights: dict[str, float] = {}
    for part in ",".join(asked.getall(hdrs.ACCEPT_ENCODING)).lower().split(","):
        coding, _, parameter = part.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        weights[coding.strip()] = float(weight[1]) if weight else 0.0 if parameter else 1.0
    wanted = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return wanted > 0 and wanted >= weights.get("identity", 0.0)


def negotiate(answer: CIMultiDict[str], asked: CIMultiDictProxy[str]) -> bool:
    """Whether the answer with this header goes out compressed; notes in it that it depends.

    A strong ``ETag`` becomes a weak one then: it stood for other bytes.
    """
    if hdrs.CONTENT_ENCODING in answer or not worth_it(answer.get(hdrs.CONTENT_TYPE, "")):
        return False
    vary = answer.get(hdrs.VARY)
    answer[hdrs.VARY] = hdrs.ACCEPT_ENCODING if vary is None else f"{vary}, {hdrs.ACCEPT_ENCODING}"
    if not accepts_gzip(asked):
        return False
    tag = answer.get(hdrs.ETAG)
    if tag is not None and not tag.startswith("W/"):
        answer[hdrs.ETAG] = f"W/{tag}"
    return True
