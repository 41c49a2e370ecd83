"""The JSON of an announcement: an array of version 3, which may carry the actions of version 4 as
an object at the end of its envelopes, or an object of version 4.

What has the wrong shape is refused as a whole. An action that nobody could address (a sector with
``:``, a name with ``.``, an unprintable or empty name) is left out and costs the others nothing,
as in the JavaScript implementation.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from sys import intern
from typing import Any, Final, NoReturn

import orjson

from scamp import limits
from scamp.discovery.model import Announcement
from scamp.discovery.pace import STRIDE, no_pause
from scamp.discovery.runlength import expand, expanded_length
from scamp.errors import AnnouncementError

_URI = re.compile(
    r"(?:beepish|scamp)\+tls://(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,255})):([0-9]{1,5})/?\Z"
)
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?\Z", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,10}\Z", re.ASCII)
_KEY_MARK = re.compile(rb'"[ \t\r\n]*:')

_MILLISECONDS: Final = 1e11  # as seconds this is the year 5138, as milliseconds 1973
_MAX_NUMBER: Final = 1e15
_MAX_VERSION: Final = (1 << 31) - 1


def read_json(text: bytes, fingerprint: str, pause: Callable[[], None] = no_pause) -> Announcement:
    """The announcement in the JSON of a packet signed by the certificate with that fingerprint.
    `pause` is called now and then.

    Raises `AnnouncementError` and nothing else.
    """
    return _from_json(_load_json(text), fingerprint, pause)


def _load_json(text: bytes) -> Any:
    try:
        value = orjson.loads(text)
    except (ValueError, RecursionError) as exc:
        raise AnnouncementError("malformed", f"not JSON: {exc}") from exc
    _refuse_duplicate_keys(text, value)
    return value


def _refuse_duplicate_keys(text: bytes, value: Any) -> None:
    """The parser lets the last of duplicate keys win. In a text without backslashes every key
    shows as a quote and a colon, so that counting settles nearly all cases; the rest is parsed
    again, slowly."""
    body = value
    if type(value) is list:
        extended = len(value) > 6 and type(value[6]) is list and value[6]
        body = value[6][-1] if extended else None
    expected = len(body) if type(body) is dict else 0
    if b"\\" not in text and len(_KEY_MARK.findall(text)) == expected:
        return

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            _malformed("duplicate keys")
        return found

    try:
        json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as exc:
        raise AnnouncementError("malformed", f"not JSON: {exc}") from exc


def _from_json(value: Any, fingerprint: str, pause: Callable[[], None]) -> Announcement:
    if type(value) is list:
        if len(value) != 9:
            _malformed(f"{len(value)} elements in place of nine")
        if type(value[0]) is not int or value[0] != 3:
            raise AnnouncementError("version", "an array that does not begin with 3")
        _, identity, sector, weight, interval, uri, envelopes, classes, timestamp = value
        if type(envelopes) is list and envelopes and type(envelopes[-1]) is dict:
            *envelopes, extension = envelopes
        else:
            extension = {}
    elif type(value) is dict:
        major = value.get("vmaj")
        if type(major) is not int or major > 4:
            raise AnnouncementError("version", "an object whose vmaj is not 4 or less")
        identity, uri, timestamp = value.get("ident"), value.get("uri"), value.get("ts")
        weight, interval = value.get("wgt"), value.get("intvl")
        sector = value.get("sector")
        sector = "main" if sector is None else sector
        envelopes, classes, extension = value.get("env"), None, value
        envelopes = [] if envelopes is None else envelopes
    else:
        _malformed("neither an array nor an object")

    if type(sector) is not str or not _is_name(sector) or ":" in sector:
        _malformed("no usable sector")
    if type(identity) is not str or not _is_name(identity):
        _malformed("no usable identity")
    if type(uri) is not str:
        _malformed("no address")
    host, port = _address(uri)
    service_envelopes = _envelopes(envelopes)
    flat: list[Any] = []
    pause()
    _read_classes(classes, intern(sector), intern(",".join(service_envelopes)), flat, pause)
    pause()
    _read_columns(extension, flat, pause)
    return Announcement(
        identity,
        fingerprint,
        sector,
        _number(weight, "weight"),
        _number(interval, "interval") / 1000,
        uri,
        host,
        port,
        service_envelopes,
        tuple(flat),
        read_timestamp(timestamp),
    )


# -- single values ----------------------------------------------------------------------


def _is_name(text: str) -> bool:
    if len(text) > limits.MAX_NAME:
        raise AnnouncementError("limit", f"a name of more than {limits.MAX_NAME} characters")
    return text != "" and text.isprintable()


def _number(value: object, what: str) -> int | float:
    if type(value) is str and _NUMBER.match(value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _malformed(f"{what} is not a number")
    number: int | float = value
    if not 0 <= number <= _MAX_NUMBER:  # nor is NaN
        _malformed(f"{what} is not a number that makes sense")
    return number


def read_timestamp(value: object) -> float:
    """Seconds, from seconds or milliseconds. Raises `AnnouncementError`."""
    if type(value) is str:
        _malformed("timestamp is not a number")
    number = float(_number(value, "timestamp"))
    return number / 1000 if number > _MILLISECONDS else number


def _version(value: object) -> int:
    if value is None:
        return 1
    if type(value) is str and _DIGITS.match(value):
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MAX_VERSION:
        _malformed("the version of an action is not a whole number")
    return value


def _address(uri: str) -> tuple[str, int]:
    match = _URI.match(uri)
    if match is None or not 0 < int(match[3]) < 65536:
        _malformed("the address is not beepish+tls://HOST:PORT")
    if match[1]:
        try:
            ipaddress.IPv6Address(match[1])
        except ValueError as exc:
            raise AnnouncementError("malformed", f"the address: {exc}") from exc
    return match[1] or match[2], int(match[3])


def _envelopes(value: object) -> tuple[str, ...]:
    if type(value) is not list:
        _malformed("envelopes are not a list")
    for envelope in value:
        if type(envelope) is not str or not _is_name(envelope) or "," in envelope:
            _malformed("an envelope is not a name")
    return tuple(value)


# -- actions ----------------------------------------------------------------------------


def _read_classes(
    classes: object, sector: str, envelopes: str, flat: list[Any], pause: Callable[[], None]
) -> None:
    """The actions of version 3: ``[[namespace, [name, flags, version?], …], …]``."""
    if classes is None:
        return
    if type(classes) is not list:
        _malformed("the list of namespaces is not a list")
    for entries in classes:
        if type(entries) is not list or not entries or type(entries[0]) is not str:
            _malformed("a namespace is not [name, action, …]")
        namespace = entries[0]
        addressable = _is_name(namespace) and ":" not in namespace
        for number, entry in enumerate(entries[1:]):
            if not number % STRIDE:
                pause()
            if type(entry) is not list or not entry or type(entry[0]) is not str:
                _malformed("an action is not [name, flags, version]")
            name = entry[0]
            size = len(entry)
            flags = entry[1] if size > 1 else ""
            if type(flags) is not str:
                flags = _flags(flags)
            version = _version(entry[2]) if size > 2 else 1
            if addressable and _is_name(name) and "." not in name and ":" not in name:
                flat += (sector, namespace, name, version, intern(flags), envelopes)
        if len(flat) > 6 * limits.MAX_ANNOUNCED_ACTIONS:
            _too_many()


def _read_columns(columns: object, flat: list[Any], pause: Callable[[], None]) -> None:
    """The actions of version 4: one run-length-coded list per field."""
    if type(columns) is not dict or columns.get("acname") is None:
        return
    length = expanded_length(columns["acname"], "acname")
    if len(flat) + 6 * length > 6 * limits.MAX_ANNOUNCED_ACTIONS:
        _too_many()
    columns = {field: value for field, value in columns.items() if value is not None}
    ones = [[length, 1]]
    compatible = expand(columns.get("accompat", ones), "accompat", length)
    rows = zip(
        expand(columns.get("acsec"), "acsec", length),
        expand(columns.get("acns"), "acns", length),
        expand(columns["acname"], "acname", length),
        expand(columns.get("acver", ones), "acver", length),
        expand(columns.get("acflag", [[length, ""]]), "acflag", length),
        expand(columns.get("acenv"), "acenv", length),
        compatible,
        strict=True,
    )
    for number, (sector, namespace, name, version, flags, envelopes, compat) in enumerate(rows):
        if not number % STRIDE:
            pause()
        if type(sector) is not str or type(namespace) is not str or type(name) is not str:
            _malformed("the names of an action are not all strings")
        if type(flags) is not str:
            flags = _flags(flags)
        if type(envelopes) is not str:
            _malformed("the envelopes of an action are not a string")
        version = _version(version)
        if _version(compat) != 1 or ":" in sector or ":" in namespace:
            continue
        if "." in name or ":" in name:
            continue
        if _is_name(sector) and _is_name(namespace) and _is_name(name):
            flat += (intern(sector), intern(namespace), name, version)
            flat += (intern(flags), intern(envelopes))


def _malformed(detail: str) -> NoReturn:
    raise AnnouncementError("malformed", detail)


def _flags(value: object) -> str:
    if value is not None:
        _malformed("flags are not a string")
    return ""


def _too_many() -> NoReturn:
    raise AnnouncementError("limit", f"more than {limits.MAX_ANNOUNCED_ACTIONS} actions")
