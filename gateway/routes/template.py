"""The parts of an entry that have a grammar of their own: path templates and names of actions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast, get_args

from gateway.actions import Target
from gateway.routes.entries import MAX_PATH, MAX_SEGMENTS, ResourceEntry
from gateway.routes.model import Parameter, ParameterType, Segment
from gateway.sources import suggest
from gateway.translate import RESERVED, parse_target

_TYPES: Final = get_args(ParameterType)
_LITERAL: Final = re.compile(r"[A-Za-z0-9_.~!$&'()*+,;=:@-]+")
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})(?::([a-z]+))?\}")


class BadEntry(Exception):
    """What is wrong with one entry, and with which of its keys."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


def segments_of(path: str) -> tuple[Segment, ...]:
    if not path.startswith("/") or path == "/" or len(path) > MAX_PATH:
        raise BadEntry("path", f"{path[:100]!r} is not a path such as /v1/skus/{{code}}")
    for reserved in RESERVED:
        if path == reserved or path.startswith(f"{reserved}/"):
            raise BadEntry("path", f"{reserved} is the gateway's own")
    parts = path[1:].split("/")
    if len(parts) > MAX_SEGMENTS:
        raise BadEntry("path", f"more than {MAX_SEGMENTS} segments")
    segments = tuple(_segment(part) for part in parts)
    names = [segment.name for segment in segments if segment.name]
    if len(set(names)) < len(names):
        raise BadEntry("path", "a parameter is in the path twice")
    return segments


def _segment(text: str) -> Segment:
    if text in ("", ".", ".."):
        raise BadEntry("path", "a segment is empty, or consists of dots")
    if _LITERAL.fullmatch(text):
        return Segment(text)
    match = _PARAMETER.fullmatch(text)
    if match is None:
        raise BadEntry(
            "path", f"{text[:100]!r} is neither plain text nor {{name}} nor {{name:type}}"
        )
    kind = match[2] or "string"
    if kind not in _TYPES:
        hint = suggest(kind, _TYPES)
        raise BadEntry("path", f"there is no type {kind!r}{hint}; there are {', '.join(_TYPES)}")
    return Segment(name=match[1], type=cast(ParameterType, kind))


def target_of(key: str, text: str) -> Target:
    target = parse_target(text)
    if target is None:
        raise BadEntry(key, f"{text[:100]!r} is not [SECTOR:]Namespace.name[~VERSION]")
    return target


def member_of(entry: ResourceEntry, verb: str, action: str) -> Target:
    """``name`` is within the namespace; with a dot it is an action of any."""
    if "." in action:
        return target_of(verb, action)
    if parse_target(f"{entry.namespace}.x") is None or "~" in entry.namespace:
        raise BadEntry("namespace", f"{entry.namespace[:100]!r} is not [SECTOR:]Namespace")
    return target_of(verb, f"{entry.namespace}.{action}~{entry.version}")


def path_parameters_of(
    segments: Sequence[Segment], members: Mapping[str, str]
) -> tuple[Parameter, ...]:
    names = [segment.name for segment in segments if segment.name]
    for name in members:
        if name not in names:
            raise BadEntry("members", f"{name!r} is not in the path{suggest(name, names)}")
    return tuple(
        Parameter(one.name, members.get(one.name, one.name), one.type, required=True)
        for one in segments
        if one.name
    )
