"""Reading announcements: split, check the signature, parse.

The packet is JSON, a blank line, a PEM certificate, a blank line and a base64 signature over the
JSON's exact bytes. What the JSON may be is the business of `body`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

from scamp import limits
from scamp.discovery.body import read_json, read_timestamp
from scamp.discovery.certificate import load_certificate
from scamp.discovery.model import Announcement, packed_actions, with_actions
from scamp.discovery.pace import no_pause
from scamp.errors import AnnouncementError

_TIMESTAMP_TAIL = re.compile(rb"\s*(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,17})?\s*\]\s*\Z")
# Bounded, because a search keeps other threads out: two megabytes of blanks take 20 ms.
_IDENTITY_HEAD = re.compile(rb'\s{0,64}\[\s{0,64}[0-9]\s{0,64},\s{0,64}"([^"\\\x00-\x1f]{1,1020})"')
_IDENTITY_FIELD = re.compile(
    rb'\s{0,64}\{[^\n]{0,65536}?"ident"\s{0,64}:\s{0,64}"([^"\\\x00-\x1f]{1,1020})"'
)

_MAX_PARTS: Final = 8


def parse_announcement(
    raw: bytes, *, verify: bool = True, pause: Callable[[], None] = no_pause
) -> Announcement:
    """One announcement from its text, as found in the cache file or in an inflated packet.

    `verify` False leaves out the signature (not the certificate, which gives the fingerprint).
    `pause` is called now and then while there are many actions, for a worker thread to let others
    run.
    Interval and timestamp come out in seconds whatever unit the packet used.

    Raises `AnnouncementError` and nothing else; its `reason` is ``malformed``, ``version``
    (neither 3 nor 4), ``certificate``, ``signature`` or ``limit`` (`limits.MAX_ANNOUNCEMENT`,
    `MAX_ANNOUNCED_ACTIONS`, `MAX_NAME`). Protocol: section 6.
    """
    text, pem, signature = split_parts(raw)
    certificate = load_certificate(pem)
    if verify:
        certificate.verify(text, decode_signature(signature))
    return read_json(text, certificate.fingerprint, pause)


def parse_renewed(raw: bytes, known_raw: bytes, known: Announcement) -> Announcement | None:
    """`raw` as an announcement, if it differs from one parsed before in its timestamp only.

    Services sign anew at every interval. Such a packet is verified like any other, but not parsed
    again: the actions are those of `known`. None when anything else differs. Raises
    `AnnouncementError` when the signature is bad.
    """
    text, pem, signature = split_parts(raw)
    known_text, known_pem, _ = split_parts(known_raw)
    cut, known_cut = text.rfind(b","), known_text.rfind(b",")
    if cut != known_cut or text[:cut] != known_text[:cut] or pem != known_pem:
        return None
    tail = text[cut + 1 :]
    if not (_TIMESTAMP_TAIL.match(tail) and _TIMESTAMP_TAIL.match(known_text[cut + 1 :])):
        return None
    load_certificate(pem).verify(text, decode_signature(signature))
    timestamp = read_timestamp(float(tail.strip().rstrip(b"]")))
    return with_actions(known, packed_actions(known), timestamp)


def split_parts(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """JSON, certificate and signature, as they stand. Raises `AnnouncementError`."""
    if len(raw) > limits.MAX_ANNOUNCEMENT:
        raise AnnouncementError("limit", f"longer than {limits.MAX_ANNOUNCEMENT} bytes")
    parts = [part for part in raw.split(b"\n\n", _MAX_PARTS) if part and not part.isspace()]
    if len(parts) != 3:
        raise AnnouncementError("malformed", f"{len(parts)} parts in place of three")
    return parts[0], parts[1], parts[2]


def decode_signature(text: bytes) -> bytes:
    """The bytes of a base64 signature in lines. Too much padding is allowed: Go has written it.

    Raises `AnnouncementError`.
    """
    digits = b"".join(text.split()).rstrip(b"=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise AnnouncementError("malformed", f"the signature is not base64: {exc}") from exc


def is_cut(raw: bytes) -> bool:
    """Whether a record that was refused looks like the beginning of one: a part is missing, or the
    signature is shorter than its key makes them."""
    try:
        _, pem, signature = split_parts(raw)
    except AnnouncementError as exc:
        return exc.reason == "malformed"
    if not pem.rstrip().endswith(b"-----END CERTIFICATE-----"):
        return True
    try:
        certificate = load_certificate(pem)
        return len(b"".join(signature.split()).rstrip(b"=")) * 6 // 8 < certificate.signature_size
    except AnnouncementError:
        return False


def identity_hint(raw: bytes) -> str | None:
    """The identity that a refused record seems to be about; good for nothing but what to keep, and
    to be shown. None for what cannot be one."""
    match = _IDENTITY_HEAD.match(raw) or _IDENTITY_FIELD.match(raw)
    if match is None:
        return None
    identity = match[1].decode("utf-8", "replace")
    return identity if identity.isprintable() and len(identity) <= limits.MAX_NAME else None
