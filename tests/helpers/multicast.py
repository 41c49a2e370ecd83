"""Multicast on loopback for tests: a group of their own, and whether this machine can do it."""

from __future__ import annotations

import secrets
import select
import socket
from functools import lru_cache

import pytest

from scamp.discovery.multicast import MulticastGroup, MulticastSender, open_receiver
from scamp.errors import ConfigError

LOOPBACK = "127.0.0.1"


def free_group(*interfaces: str) -> MulticastGroup:
    """A group and port that nobody else uses, on loopback if nothing else is said."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    address = f"239.255.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
    return MulticastGroup(address, port, interfaces or (LOOPBACK,))


@lru_cache
def why_not() -> str:
    """Why multicast on loopback does not work here; empty when it does."""
    group = free_group()
    try:
        with open_receiver(group) as receiver:
            sender = MulticastSender(group)
            try:
                sender.send(b"probe")
                if problem := sender.problems.get(LOOPBACK):
                    return f"no multicast on loopback: {problem}"
            finally:
                sender.close()
            arrived, _, _ = select.select([receiver], [], [], 2.0)
            return "" if arrived else "multicast on loopback is sent, and does not arrive"
    except ConfigError as exc:
        return f"no multicast on loopback: {exc}"


needs_multicast = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it works")


def receive(receiver: socket.socket) -> bytes:
    """The next datagram; fails when none comes within 5 seconds."""
    arrived, _, _ = select.select([receiver], [], [], 5.0)
    assert arrived, "no datagram"
    return receiver.recv(65536)
