"""Callers by address: what counts as one of them."""

from __future__ import annotations

import socket
from typing import Final

_MAPPED: Final = bytes(10) + b"\xff\xff"


def address_key(text: str | None) -> bytes:
    """The caller behind an address: IPv4 by itself (4 bytes), IPv6 by its /64 (8 bytes), of which
    anybody who has one has all. What is no address is one caller, the empty one."""
    if not text:
        return b""
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        packed = socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):  # ValueError: a character that no address has
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed[:8]


def address_text(key: bytes) -> str:
    """`key` as people write it."""
    if len(key) == 4:
        return socket.inet_ntop(socket.AF_INET, key)
    return f"{socket.inet_ntop(socket.AF_INET6, key + bytes(8))}/64" if key else "unknown"
