"""From HTTP to SCAMP, without I/O: which action a request means, and whether it may be put so.

Paths are taken from the raw request target and never normalized: what does not read as one name
in one way is refused, so that the gateway and whatever stands before it cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

import orjson

from gateway import catalogue
from gateway.actions import Announced, Target, in_sector, label_of
from gateway.problems import Problem, quotable

API_PREFIX: Final = "/api/"
RESERVED: Final = ("/api", "/docs", "/openapi.json", "/whoami")
"""Paths that are ours, with all below them: no route of one's own begins with one of these."""

_BELOW: Final = tuple(f"{path}/" for path in RESERVED)

JSON: Final = "json"
JSON_TYPE: Final = "application/json"
VENDOR_PREFIX: Final = "application/vnd.scamp."
MAX_HOSTS: Final = 64
"""Values of ``Host`` that are not looked at again: a gateway has few names, and one of them comes
with every request."""

MAX_QUERY_FIELDS: Final = 1000
"""Parameters in one query string."""

_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_.:~-]+)+/?")
_DOT_SEGMENT: Final = re.compile(r"/\.{1,2}(?:/|\Z)")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FORBIDDEN_ESCAPE: Final = re.compile(r"%(?:2[fF]|5[cC]|[01][0-9A-Fa-f]|7[fF])")
_ACTION: Final = re.compile(
    r"(?:(?P<sector>[A-Za-z0-9_.-]+):)?"
    r"(?P<namespace>[A-Za-z0-9_.-]+)\.(?P<name>[A-Za-z0-9_-]+)"
    r"(?:~(?P<version>0|[1-9][0-9]{0,8}))?"
)
_ACTION_CHARACTERS: Final = re.compile(r"[A-Za-z0-9_.:~-]+")
_NAME_CHARACTERS: Final = re.compile(r"(?:[A-Za-z0-9_.-]+:)?[A-Za-z0-9_.-]+")
_SERVICE: Final = re.compile(r"(?:(?P<sector>[A-Za-z0-9_.-]+):)?(?P<service>[A-Za-z0-9_.-]+)")
_ENVELOPE: Final = re.compile(r"[A-Za-z0-9_.+-]{1,100}")
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


# -- paths ------------------------------------------------------------------------------


def check_host(host: str | None, target: str) -> None:
    """Raise Problem unless `host` (None without the header) is one, and `target` (raw) is of it.

    Nothing here is told apart by host, but what stands before the gateway may do so; it must not
    take the request for another host's. RFC 9112, 3.2: 400.
    """
    if host is not None and not is_host(host):
        raise Problem(catalogue.BAD_HEADER, "Host is not HOST or HOST:PORT.", close=True)
    if target.startswith("/"):
        return
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return  # a star, or no target at all
    scheme, _, authority = absolute[0].lower().partition("://")
    if not authority or not is_host(authority):
        raise Problem(catalogue.BAD_PATH, "The host of the request target is none.", close=True)
    port = _DEFAULT_PORTS[scheme]
    if host is not None and host.lower().removesuffix(port) != authority.removesuffix(port):
        detail = "The request target has another host than Host."
        raise Problem(catalogue.BAD_PATH, detail, close=True)


@lru_cache(MAX_HOSTS)
def is_host(text: str) -> bool:
    """Whether it may stand in ``Host``."""
    return _HOST.fullmatch(text) is not None


def split_target(raw: str) -> tuple[str, str]:
    """Decoded path and raw query of a request target, in origin or absolute form.

    Raises Problem (bad_path) for whatever could be read in two ways.
    """
    if not raw.startswith("/"):
        absolute = _ABSOLUTE.match(raw)
        if absolute is None:
            raise Problem(catalogue.BAD_PATH, "The request target is not a path.")
        raw = raw[absolute.end() :] or "/"
        if raw.startswith("?"):
            raw = f"/{raw}"
    path, _, query = raw.partition("?")
    if _PLAIN_PATH.fullmatch(path) is None:
        path = _decode(path)
    if _DOT_SEGMENT.search(path):
        raise Problem(catalogue.BAD_PATH, "The path has a dot segment.")
    return path, query


def _decode(path: str) -> str:
    if "#" in path:
        raise Problem(catalogue.BAD_PATH, "The request target has a fragment.")
    if _BAD_ESCAPE.search(path):
        raise Problem(catalogue.BAD_PATH, "The path has a % that is not an escape.")
    if _FORBIDDEN_ESCAPE.search(path):
        raise Problem(
            catalogue.BAD_PATH, "The path has an encoded slash, backslash or control character."
        )
    try:
        decoded = unquote_to_bytes(path.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        raise Problem(catalogue.BAD_PATH, "The path is not UTF-8.") from None
    if "//" in decoded:
        raise Problem(catalogue.BAD_PATH, "The path has an empty segment.")
    if not decoded.isprintable() or "\\" in decoded:
        raise Problem(catalogue.BAD_PATH, "The path has a backslash or control character.")
    return decoded


def is_reserved(path: str) -> bool:
    """Whether this decoded path is ours, whatever a template such as ``/{a}/{b}`` takes."""
    return path in RESERVED or path.startswith(_BELOW)


def parse_target(text: str) -> Target | None:
    """The action that ``[SECTOR:]Namespace.name[~VERSION]`` names; None for any other text."""
    match = _ACTION.fullmatch(text)
    if match is None:
        return None
    action = f"{match['namespace']}.{match['name']}"
    return Target(match["sector"] or "main", action, int(match["version"] or 1))


def native_path(sector: str, action: str, version: int) -> str:
    """``/api/[SECTOR:]Namespace.name[~VERSION]``, the shortest that means the action."""
    return API_PREFIX + in_sector(sector, action if version == 1 else f"{action}~{version}")


def is_addressable(sector: str, action: str, version: int) -> bool:
    """Whether there is a path that means the action: not every announced name can stand in one."""
    target = parse_target(label_of(sector, action, version))
    return target is not None and (
        (target.sector.lower(), target.action, target.version) == (sector.lower(), action, version)
    )


def parse_service(text: str) -> tuple[str, str] | None:
    """Sector and name out of ``[SECTOR:]SERVICE``; None for any other text."""
    match = _SERVICE.fullmatch(text)
    return None if match is None else (match["sector"] or "main", match["service"])


def native_target(path: str) -> Target | None:
    """The action in ``/api/[SECTOR:]Namespace.name[~VERSION]``; None for every other path.

    `path` comes from `split_target`. Raises Problem: bad_path for characters that no name has or
    a version that is no number, unknown_action for what cannot name an action.
    """
    if not path.startswith(API_PREFIX):
        return None
    text = path[len(API_PREFIX) :]
    if not text or "/" in text:
        return None
    target = parse_target(text)
    if target is not None:
        return target
    if _ACTION_CHARACTERS.fullmatch(text) is None:
        raise Problem(catalogue.BAD_PATH, "Names consist of A-Z, a-z, 0-9, _, . and -.")
    name, tilde, _ = text.partition("~")
    if _NAME_CHARACTERS.fullmatch(name) is None:
        raise Problem(catalogue.BAD_PATH, "An action is written [SECTOR:]Namespace.name[~VERSION].")
    if tilde and _ACTION.fullmatch(name) is not None:
        raise Problem(
            catalogue.BAD_PATH,
            "The version after ~ is a number of up to nine digits without leading zeros.",
        )
    raise Problem(catalogue.UNKNOWN_ACTION, "An action is written Namespace.name.")


# -- envelopes --------------------------------------------------------------------------


MediaTypes = Mapping[str, str]
"""Envelopes by media type, besides those that every gateway knows."""

NO_MEDIA_TYPES: Final[MediaTypes] = {}


def media_type_of(content_type: str) -> str:
    """A ``Content-Type`` without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def envelope_named(media_type: str, media_types: MediaTypes = NO_MEDIA_TYPES) -> str | None:
    """The envelope in lower case that `media_type_of` something stands for; None: for none."""
    if not media_type or media_type == JSON_TYPE:
        return JSON
    if media_type in media_types:
        return media_types[media_type].lower()
    if media_type.startswith(VENDOR_PREFIX):
        return media_type.removeprefix(VENDOR_PREFIX)
    return None


def envelope_of(
    content_type: str | None, action: Announced, media_types: MediaTypes = NO_MEDIA_TYPES
) -> str:
    """The envelope that a ``Content-Type`` stands for, in the announced spelling.

    Raises Problem (unsupported_envelope), naming what the action takes.
    """
    if (content_type is None or content_type == JSON_TYPE) and JSON in action.envelopes:
        return JSON  # as nearly all requests
    media_type = media_type_of(content_type or "")
    wanted = envelope_named(media_type, media_types)
    if wanted is None:
        shown = quotable(media_type[:100])
        raise _unsupported(f"{action.label} does not take Content-Type {shown}", action)
    if _ENVELOPE.fullmatch(wanted):  # it also goes into a header of the answer
        for name in action.envelopes:
            if name.lower() == wanted:
                return name
    raise _unsupported(f"{action.label} does not take envelope {quotable(wanted[:100])}", action)


def _unsupported(what: str, action: Announced) -> Problem:
    types = [content_type_of(name) for name in action.envelopes if is_envelope(name)]
    offered = ", ".join(types)
    return Problem(
        catalogue.UNSUPPORTED_ENVELOPE,
        f"{what}; it takes {offered or 'none that HTTP can name'}.",
        action=action.label,
        headers=(("Accept", offered),) if offered else (),
    )


def is_envelope(name: str) -> bool:
    """Whether a ``Content-Type`` can stand for an envelope of this name."""
    return _ENVELOPE.fullmatch(name) is not None


def content_type_of(envelope: str, media_types: MediaTypes = NO_MEDIA_TYPES) -> str:
    """The media type of a reply in this envelope.

    Of several in `media_types` the first counts; multipart is not for replies, which have no
    boundary.
    """
    if envelope == JSON:
        return JSON_TYPE
    if media_types:
        for media_type, name in media_types.items():
            if name.lower() == envelope.lower() and not media_type.startswith("multipart/"):
                return media_type
    return f"{VENDOR_PREFIX}{envelope}"


# -- queries ----------------------------------------------------------------------------


def query_object(query: str) -> bytes:
    """The JSON object that a query string stands for; values are strings.

    A key given twice becomes an array of its values, in their order. A key without ``=`` has the
    value ``""``. Raises Problem (bad_query).
    """
    return orjson.dumps(query_fields(query)) if query else b"{}"


def query_fields(query: str) -> dict[str, str | list[str]]:
    """The same as a dict."""
    if not query:
        return {}
    if query.count("&") >= MAX_QUERY_FIELDS:
        raise Problem(
            catalogue.BAD_QUERY, f"The query has more than {MAX_QUERY_FIELDS} parameters."
        )
    fields: dict[str, str | list[str]] = {}
    for part in query.split("&"):
        if not part:
            continue
        key, _, text = part.partition("=")
        name, value = _unescape(key), _unescape(text)
        held = fields.get(name)
        if held is None:
            fields[name] = value
        elif isinstance(held, list):
            held.append(value)
        else:
            fields[name] = [held, value]
    return fields


def _unescape(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise Problem(catalogue.BAD_QUERY, "The query has a % that is not an escape.")
    raw = text.replace("+", " ").encode("utf-8", "surrogateescape")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Problem(catalogue.BAD_QUERY, "The query is not UTF-8.") from None
