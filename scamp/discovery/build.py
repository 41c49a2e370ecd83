"""Writing announcements: what a service of ours says about itself, signed."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from scamp.discovery.announcement import parse_announcement
from scamp.discovery.model import Action, count_actions
from scamp.discovery.runlength import compress_columns
from scamp.errors import AnnouncementError

_COLUMNS = ("acsec", "acns", "acname", "acver", "acflag", "acenv")


@dataclass(frozen=True, slots=True)
class AnnouncementSpec:
    """What to announce. `interval` is in seconds; `weight` 0 with no actions says "leaving".

    `weight` is a whole number: one record with a fraction in it, and Go reads nothing of the whole
    cache file; Rust refuses the record.

    Actions in the service's own sector with its own envelopes (or with none given) are written as
    version 3, the others as version 4.
    """

    identity: str
    sector: str
    weight: int | float
    interval: float
    uri: str
    envelopes: tuple[str, ...]
    actions: tuple[Action, ...]


def new_identity(name: str) -> str:
    """``name:`` and 18 random bytes in base64: a new one for every start of a service."""
    return f"{name}:{base64.b64encode(os.urandom(18)).decode('ascii')}"


def build_announcement(
    spec: AnnouncementSpec,
    key: rsa.RSAPrivateKey,
    certificate_pem: bytes,
    *,
    timestamp: float,
) -> bytes:
    """The signed text of an announcement, as version 3 with the signature in lines of 76.

    `timestamp` is the time in seconds. It must grow from one announcement to the next: peers
    refuse an older one as a replay. Raises `AnnouncementError` for what peers would refuse, and
    (``signature``) when `key` does not belong to the certificate. Signs with the CPU for about a
    millisecond. Protocol: section 6.
    """
    weight = spec.weight
    if isinstance(weight, float):
        if not weight.is_integer():
            raise AnnouncementError("malformed", f"the weight {weight} is not a whole number")
        weight = int(weight)
    own, other = _sort(spec)
    envelopes: list[Any] = list(spec.envelopes)
    if other:
        # Rust takes a missing accompat for 0, and skips the actions.
        compatible = [[len(other), 1]]
        columns = compress_columns(other, _COLUMNS)
        envelopes.append({"vmaj": 4, "vmin": 0, **columns, "accompat": compatible})
    try:
        # All ASCII: JavaScript takes packets from the network for Latin-1.
        text = json.dumps(
            [
                3,
                spec.identity,
                spec.sector,
                weight,
                round(spec.interval * 1000),
                spec.uri,
                envelopes,
                [[namespace, *entries] for namespace, entries in own.items()],
                timestamp,
            ],
            separators=(",", ":"),
            allow_nan=False,
        ).encode("ascii")
    except (TypeError, ValueError, OverflowError) as exc:
        raise AnnouncementError("malformed", f"cannot be written as JSON: {exc}") from exc
    signature = key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    pem = certificate_pem.replace(b"\r\n", b"\n").strip()
    raw = b"%b\n\n%b\n\n%b" % (text, pem, base64.encodebytes(signature))
    if count_actions(parse_announcement(raw)) != len(spec.actions):
        raise AnnouncementError("malformed", "an action has a name that nobody could address")
    return raw


def _sort(spec: AnnouncementSpec) -> tuple[dict[str, list[Any]], list[tuple[str | int, ...]]]:
    """Version 3 entries by namespace, and version 4 rows."""
    own: dict[str, list[Any]] = {}
    other: list[tuple[str | int, ...]] = []
    for action in spec.actions:
        flags = ",".join(action.flags)
        envelopes = action.envelopes or spec.envelopes
        if action.sector == spec.sector and envelopes == spec.envelopes:
            entry: list[Any] = [action.name, flags]
            if action.version != 1:
                entry.append(action.version)
            own.setdefault(action.namespace, []).append(entry)
        else:
            row = (action.sector, action.namespace, action.name, action.version, flags)
            other.append((*row, ",".join(envelopes)))
    return own, other
