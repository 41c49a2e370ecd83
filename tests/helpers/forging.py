"""Announcements that must not be believed, and the reason that each is refused for."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scamp import keys, limits
from scamp.testing import make_identity

EVIL: Final = 5
"""Number of the identity that most of them are signed with."""


def sign(text: bytes, *, key: int = EVIL, certificate: int | None = None) -> bytes:
    """A record whose text is this, with a good signature of `key`."""
    signature = _private(key).sign(text, padding.PKCS1v15(), hashes.SHA256())
    shown = make_identity(key if certificate is None else certificate).certificate.strip()
    return b"%b\n\n%b\n\n%b" % (text, shown, base64.encodebytes(signature))


@lru_cache
def _private(number: int) -> rsa.RSAPrivateKey:
    return keys.load_private_key(make_identity(number).key)


def evil(port: int, **changes: Any) -> list[Any]:
    """The JSON of a good announcement, with other values in some places."""
    fields = {
        "version": 3,
        "identity": "evil:QTEyMzQ1Njc4OTAxMjM0NTY3",
        "sector": "main",
        "weight": 1,
        "interval": 5000,
        "uri": f"beepish+tls://127.0.0.1:{port}",
        "envelopes": ["json"],
        "classes": [["Evil.Act", ["echo", "noauth,read"]]],
        "timestamp": time.time(),
        **changes,
    }
    return list(fields.values())


def signed(port: int, **changes: Any) -> bytes:
    """The same, signed."""
    return sign(json.dumps(evil(port, **changes)).encode())


def malformed(*values: Any) -> list[tuple[str, Any]]:
    """What each of these is counted as."""
    return [("malformed", value) for value in values]


LONG: Final = "x" * (limits.MAX_NAME + 1)
RUNS: Final = {
    "vmaj": 4,
    "vmin": 0,
    "acsec": [[1, "main"]],
    "acns": [[1, "Evil.Act"]],
    "acname": [[1, "echo"]],
    "acenv": [[1, "json"]],
}
"""Actions as version 4 has them."""

WRONG_FIELDS: Final[dict[str, list[tuple[str, Any]]]] = {
    "version": [("version", 2), ("version", 4), ("version", "3"), ("version", None)],
    "identity": [("malformed", ""), ("malformed", 5), ("malformed", "a\x07"), ("limit", LONG)],
    "sector": [("malformed", ""), ("malformed", "a:b"), ("malformed", 7), ("limit", LONG)],
    "weight": malformed("x", -1, None, True, 1e300, [], "1e3"),
    "interval": malformed("x", -1, None, False, 1e300, {}),
    "uri": malformed(
        *("", None, 5, "http://127.0.0.1:80", "beepish+tls://127.0.0.1", "beepish+tls://:5"),
        *("beepish+tls://h:0", "beepish+tls://h:65536", "beepish+tls://[::g]:1"),
        *("beepish+tls://u@h:1", "beepish+tls://h:1/x", "beepish+tls://h:1\n", "x" * 100_000),
    ),
    "envelopes": [
        ("malformed", "json"),
        ("malformed", [5]),
        ("malformed", ["a,b"]),
        ("malformed", [""]),
        ("limit", [LONG]),
        ("malformed", ["json", {**RUNS, "acname": [[2, "echo"]]}]),
        ("malformed", ["json", {**RUNS, "acsec": [["main", 1]]}]),
        ("malformed", ["json", {**RUNS, "acname": "echo"}]),
        ("malformed", ["json", {**RUNS, "acflag": [[1, 5]]}]),
        ("malformed", ["json", {**RUNS, "acver": [[1, "one"]]}]),
        ("malformed", ["json", {**RUNS, "acns": [[-1, "a"]]}]),
        ("limit", ["json", {**RUNS, "acname": [[limits.MAX_ANNOUNCED_ACTIONS + 1, "echo"]]}]),
        ("limit", ["json", {**RUNS, "acname": [[1 << 60, "echo"]]}]),
    ],
    "classes": [
        ("malformed", {}),
        ("malformed", [[]]),
        ("malformed", [5]),
        ("malformed", [["Evil", []]]),
        ("malformed", [["Evil", [5]]]),
        ("malformed", [["Evil", ["echo", 5]]]),
        ("malformed", [["Evil", ["echo", "", "x"]]]),
        ("malformed", [["Evil", ["echo", "", -1]]]),
        ("limit", [[LONG, ["echo"]]]),
        ("limit", [["Evil", [LONG]]]),
    ],
    "timestamp": malformed("now", None, -1, True, [], "1"),
}


@dataclass(frozen=True)
class Bad:
    """A record, and the reason by which it is counted."""

    name: str
    reason: str
    raw: bytes


def bad_records(port: int, good: bytes, older: bytes) -> list[Bad]:
    """One of each kind. `port` is where whoever is announced would be called; `good` is the record
    of a service that is known, `older` one of the same service from before."""
    text, pem, signature = good.split(b"\n\n", 2)
    plain = signed(port)
    evil_text, evil_pem, evil_signature = plain.split(b"\n\n", 2)
    moved = json.loads(text)
    moved[5] = f"beepish+tls://127.0.0.1:{port}"
    moved[8] = time.time()
    mine = json.dumps(moved).encode()
    found = [
        Bad("forged with another key", "signature", sign(mine, certificate=0)),
        Bad("changed behind the signature", "signature", b"\n\n".join((mine, pem, signature))),
        Bad("signature of another record", "signature", plain.replace(evil_signature, signature)),
        Bad("replayed", "replay", older),
        Bad("not base64", "malformed", b"\n\n".join((evil_text, evil_pem, b"!!!!\n"))),
        Bad("no signature", "malformed", b"\n\n".join((evil_text, evil_pem))),
        Bad("a part too many", "malformed", b"\n\n".join((evil_text, evil_text, evil_pem, b"AA"))),
        Bad("cut certificate", "certificate", plain.replace(evil_pem[300:], b"")),
        Bad("no RSA", "certificate", plain.replace(evil_pem, _elliptic())),
        Bad("too few", "malformed", sign(json.dumps(evil(port)[:8]).encode())),
        Bad("too many", "malformed", sign(json.dumps([*evil(port), 1]).encode())),
        Bad("not JSON", "malformed", sign(evil_text[:-1])),
        Bad("NaN", "malformed", sign(evil_text.replace(b"5000", b"NaN"))),
        Bad("not UTF-8", "malformed", sign(evil_text.replace(b"evil:", b"evil\xff"))),
        Bad("deep", "malformed", sign(b"[" * 50_000)),
        Bad("a number", "malformed", sign(b"17")),
        Bad("of version 5", "version", sign(b'{"vmaj": 5}')),
        Bad("without anything", "malformed", sign(b'{"vmaj": 4}')),
    ]
    for field, values in WRONG_FIELDS.items():
        for reason, value in values:
            raw = signed(port, **{field: value})
            found.append(Bad(f"{field} {value!r:.40}", reason, raw))
    return found


@lru_cache
def _elliptic() -> bytes:
    """Not a certificate of an RSA key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip()
