"""What the kernel tells of a client's socket."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios


def in_kernel(sock: socket.socket | None) -> int:
    """Bytes in a socket's send queue; 0 where the system does not tell."""
    if sock is None:
        return 0
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])


def has_something(sock: socket.socket) -> bool:
    """Whether bytes are there to be read; the end is none. With TLS it may be an alert."""
    ready = select.poll()
    ready.register(sock.fileno(), select.POLLIN)
    if not ready.poll(0):
        return False
    # The loop's sockets cannot be read by others (uvloop's have no `recv`), but looked into.
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as twin:
            return bool(twin.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
