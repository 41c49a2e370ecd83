"""Where channels read into."""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

from scamp.limits import READ_SIZE

_BUFFERS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview]] = WeakKeyDictionary()


def buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """The one buffer of all channels of a loop, READ_SIZE bytes.

    Each channel takes what was read before another one reads. An `asyncio.Protocol` is given bytes
    instead: for each record of TLS 256 KiB had of the system, of which 16 KiB are used at most.
    That was half of what a download cost.
    """
    buffer = _BUFFERS.get(loop)
    if buffer is None:
        buffer = _BUFFERS[loop] = memoryview(bytearray(READ_SIZE))
    return buffer
