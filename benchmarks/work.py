"""What there is to do, for the service behind the gateway and for what is measured beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

PIECE: Final = bytes(range(256)) * 256
"""64 KiB, of which large bodies are made, over and over."""

WAIT: Final = 0.5
"""Seconds that an echo waits of which many are to be under way at once."""

HOLD: Final = 2.0
"""Seconds that one waits while somebody looks at what it takes."""


def pieces(size: int) -> Iterator[bytes]:
    """A body of `size` bytes."""
    for start in range(0, size, len(PIECE)):
        yield PIECE[: size - start]
