"""Changes to good inputs, for Hypothesis and for the plain fuzzer alike: pure, told by numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(rb'"[^"]*"|-?[0-9]+(?:\.[0-9]+)?|[A-Za-z_]+|[^\sA-Za-z0-9]')

INTERESTING: Final = (
    *(b"", b"0", b"-1", b"1", b"2", b"127", b"255", b"65535", b"65536", b"131072", b"131073"),
    *(b"99999", b"100001", b"2147483647", b"2147483648", b"4294967296", b"9007199254740993"),
    *(b"9223372036854775807", b"18446744073709551616", b"1e5", b"1e400", b"-0", b"0.5", b"1.0"),
    *(b"999999999999999999", b"1" * 400, b"true", b"false", b"null", b"NaN", b"[]", b"{}", b'""'),
    *(b'"x"', b"[[2,1]]", b"[100000,1]", b"[[[]]]", b'{"a":1}', b'"\\ud800"', b'"\\u0000"'),
    *(b"[" * 300, b"[" * 1200 + b"]" * 1200, b'{"":' * 300 + b"1" + b"}" * 300),
    *(b"\r\n", b"\n", b"\n\n", b"\n%%%\n", b"\x00", b"\xff\xfe", b"\xc3\xa9", b"\xed\xa0\x80"),
    *(b" ", b",", b":", b".", b"#", b"=", b"+", b"END\r\n", b"~", b"if:", b"\xd9\xa3", b"x" * 300),
)
"""What parsers stumble over."""


class Change(NamedTuple):
    """`place` and `other` are taken modulo what there is; `data` is what to put in."""

    kind: int
    place: int
    other: int
    data: bytes = b""


def apply(seed: bytes, changes: Sequence[Change], seeds: Sequence[bytes], limit: int) -> bytes:
    """`seed` after all the changes, at most `limit` bytes of it."""
    for change in changes:
        seed = _KINDS[change.kind % len(_KINDS)](seed, change, seeds)[:limit]
    return seed


def _insert(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    at = change.place % (len(text) + 1)
    return text[:at] + change.data + text[at:]


def _overwrite(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    at = change.place % (len(text) + 1)
    return text[:at] + change.data + text[at + len(change.data) :]


def _flip(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    if not text:
        return text
    at = change.place % len(text)
    return text[:at] + bytes([text[at] ^ (1 << change.other % 8)]) + text[at + 1 :]


def _delete(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    at = change.place % (len(text) + 1)
    return text[:at] + text[at + 1 + change.other % 32 :]


def _truncate(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    return text[: change.place % (len(text) + 1)]


def _repeat(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    at = change.place % (len(text) + 1)
    piece = text[at : at + 1 + change.other % 200]
    return text[:at] + piece * (2 + change.other % 3) + text[at + len(piece) :]


def _splice(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    other = seeds[change.other % len(seeds)]
    return text[: change.place % (len(text) + 1)] + other[change.other % (len(other) + 1) :]


def _token(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    """Another token in place of one, so that structured text stays structured."""
    found = list(_TOKEN.finditer(text))
    if not found:
        return text + change.data
    token = found[change.place % len(found)]
    new = INTERESTING[change.other % len(INTERESTING)]
    return text[: token.start()] + new + text[token.end() :]


def _swap(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    """A token of the same text in place of another."""
    found = list(_TOKEN.finditer(text))
    if not found:
        return text
    token, other = found[change.place % len(found)], found[change.other % len(found)]
    return text[: token.start()] + other[0] + text[token.end() :]


def _node(text: bytes, change: Change, seeds: Sequence[bytes]) -> bytes:
    """Another value in place of a list or an object."""
    begins = [found.start() for found in re.finditer(rb"[\[{]", text)]
    if not begins:
        return text
    start = begins[change.place % len(begins)]
    depth, end = 0, start
    while end < len(text):
        depth += (text[end] in b"[{") - (text[end] in b"]}")
        end += 1
        if depth == 0:
            break
    return text[:start] + INTERESTING[change.other % len(INTERESTING)] + text[end:]


_KINDS: Final = (
    _insert,
    _overwrite,
    _flip,
    _delete,
    _truncate,
    _repeat,
    _splice,
    *(_token,) * 3,
    _swap,
    _node,
    _node,
)

KINDS: Final = len(_KINDS)
