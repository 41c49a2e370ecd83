"""How nobody new gets as far as a listening socket that is about to be closed (Linux).

Who connects between the last look at the queue and the close is reset, perhaps with a request on
its way that nobody may send again. So first the kernel is told to drop what begins a connection;
whoever is in the middle of it still comes through. Who was dropped tries again after a second, as
TCP does, and is refused: then it goes elsewhere with whatever it has, since it sent nothing.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

SETTLING: Final = 0.1
"""Seconds in which connections that had begun are made: more than a round trip in most networks."""

_SO_ATTACH_FILTER: Final = 26
_FLAGS: Final = 13
_SYN: Final = 0x02
_ALL: Final = 0xFFFFFFFF

_NO_SYN: Final = b"".join(
    struct.pack("=HBBI", *step)
    for step in (
        (0x30, 0, 0, _FLAGS),  # load the byte of TCP's header that has the flags
        (0x45, 0, 1, _SYN),  # unless SYN is among them skip one
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, _ALL),  # take all of it
    )
)
"""A program of the classic packet filter (Linux's Documentation/networking/filter.rst)."""


def take_no_new(sock: socket.socket) -> bool:
    """No connection begins on this listening socket any more, in whatever process, and for good.
    False where the system does not do that."""
    if not sys.platform.startswith("linux"):
        return False
    program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
    told = struct.pack("@HP", len(_NO_SYN) // 8, ctypes.addressof(program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)
    except OSError:
        return False
    return True
