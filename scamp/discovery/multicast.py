"""Announcements on the network: the form of a datagram, and the sockets that carry them.

A packet is a record, zlib-compressed (Go sends it as it is), sent to a UDP multicast group on
every interface that is named. Protocol: section 6.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import sys
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from scamp import limits
from scamp.config import ScampConf
from scamp.errors import AnnouncementError, ConfigError

logger: logging.Logger = logging.getLogger("scamp.discovery")

PREFIXES: Final = (b"R", b"D")
_IP_MULTICAST_ALL: Final = 49  # Linux; Python has no name for it
_GONE: Final = (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO)


@dataclass(frozen=True, slots=True)
class MulticastGroup:
    """Where announcements are sent: an IPv4 multicast address, a port, and the interfaces, each by
    an IPv4 address of its own. Raises `ConfigError` for what cannot be one."""

    address: str
    port: int
    interfaces: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _is_ipv4(self.address) or not ipaddress.IPv4Address(self.address).is_multicast:
            raise ConfigError(f"{self.address} is not an IPv4 multicast address (239.x.x.x)")
        if not 0 < self.port < 65536:
            raise ConfigError(f"{self.port} is not a UDP port")
        if not self.interfaces:
            raise ConfigError("no interface for multicast: name one by its IPv4 address")
        for interface in self.interfaces:
            if not _is_ipv4(interface) or ipaddress.IPv4Address(interface).is_multicast:
                raise ConfigError(f"{interface}: multicast goes by an interface's IPv4 address")

    @classmethod
    def from_config(
        cls,
        conf: ScampConf,
        *,
        address: str | None = None,
        port: int | None = None,
        interfaces: Sequence[str] = (),
    ) -> MulticastGroup:
        """``discovery.multicast_address``, ``discovery.port`` and ``discovery.address``.

        What is given goes before the configuration; `interfaces` may be ``if:NAME`` as there.
        Raises `ConfigError`.
        """
        if interfaces:
            conf_of_them = ScampConf({"discovery.address": (",".join(interfaces), 0)})
            found = conf_of_them.discovery_addresses()
        else:
            found = conf.discovery_addresses()
        return cls(address or conf.multicast_group, port or conf.multicast_port, found)

    def __str__(self) -> str:
        return f"{self.address}:{self.port} on {', '.join(self.interfaces)}"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


# -- the form of a datagram -------------------------------------------------------------


def encode_packet(record: bytes) -> bytes:
    """The datagram that announces `record`.

    Raises `AnnouncementError` (``limit``) when it would not fit in one, which takes some thousand
    actions.
    """
    packet = zlib.compress(record, 9)
    if len(packet) > limits.MAX_DATAGRAM:
        detail = f"compressed it has {len(packet)} bytes, a datagram at most {limits.MAX_DATAGRAM}"
        raise AnnouncementError("limit", detail)
    return packet


def decode_packet(packet: bytes) -> bytes:
    """The record in a datagram, compressed or not, behind a prefix ``R`` or ``D`` or none.

    What follows the compressed stream is ignored, as JavaScript and Rust do: it is not part of
    what was signed. Inflating stops at `limits.MAX_ANNOUNCEMENT` bytes. Raises `AnnouncementError`
    (``malformed``, ``limit``) and nothing else.
    """
    if packet.startswith(PREFIXES):
        packet = packet[1:]
    if not packet:
        raise AnnouncementError("malformed", "an empty packet")
    if not is_zlib(packet):
        return packet
    inflater = zlib.decompressobj()
    try:
        record = inflater.decompress(packet, limits.MAX_ANNOUNCEMENT + 1)
    except zlib.error as exc:
        raise AnnouncementError("malformed", f"does not inflate: {exc}") from exc
    if len(record) > limits.MAX_ANNOUNCEMENT:
        detail = f"inflates to more than {limits.MAX_ANNOUNCEMENT} bytes"
        raise AnnouncementError("limit", detail)
    if not inflater.eof:
        raise AnnouncementError("malformed", "the compressed packet is cut off")
    return record


def is_zlib(packet: bytes) -> bool:
    """Whether it begins as zlib does (RFC 1950, 2.2); no JSON begins so."""
    return len(packet) > 1 and packet[0] & 15 == 8 and (packet[0] << 8 | packet[1]) % 31 == 0


# -- sending ----------------------------------------------------------------------------


class MulticastSender:
    """Sends packets to the group, once on each interface; never waits.

    An interface that fails costs the others nothing. It is tried anew at the next packet, so that
    one which comes back is used again, and what is wrong is logged when it changes. Raises
    `ConfigError` when not one interface can be used at the start.
    """

    def __init__(self, group: MulticastGroup) -> None:
        self.group = group
        self._sockets: dict[str, socket.socket] = {}
        self._problems: dict[str, str | None] = {}
        self._closed = False
        for interface in group.interfaces:
            self._open(interface)
        if not self._sockets:
            problems = "; ".join(filter(None, self._problems.values()))
            raise ConfigError(f"no interface to send announcements on: {problems}")

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong now, by interface; empty when all is well."""
        return {name: text for name, text in self._problems.items() if text is not None}

    def send(self, packet: bytes, only: Collection[str] | None = None) -> None:
        """Send `packet`, as `encode_packet` made it, on every interface, or those of `only`.

        Raises nothing. Where the socket's buffer is full the packet is lost there; there will be
        another.
        """
        interfaces = self.group.interfaces if only is None else only
        for interface in () if self._closed else interfaces:
            sock = self._sockets.get(interface) or self._open(interface)
            if sock is None:
                continue
            try:
                sock.sendto(packet, (self.group.address, self.group.port))
            except OSError as exc:
                self._tell(interface, _describe(interface, exc))
                if not isinstance(exc, BlockingIOError):
                    self._sockets.pop(interface).close()
            else:
                self._tell(interface, None)

    def close(self) -> None:
        """Close the sockets; what is sent afterwards is lost. May be called twice."""
        self._closed = True
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _open(self, interface: str) -> socket.socket | None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)  # as all the others do
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        except OSError as exc:
            sock.close()
            self._tell(interface, _describe(interface, exc))
            return None
        self._sockets[interface] = sock
        return sock

    def _tell(self, interface: str, problem: str | None) -> None:
        before = self._problems.get(interface)
        self._problems[interface] = problem
        if problem == before:
            return
        if problem is not None:
            logger.warning("announcements are not sent on %s", problem)
        else:
            logger.info("announcements are sent on %s again", interface)


# -- receiving --------------------------------------------------------------------------


def open_receiver(group: MulticastGroup) -> socket.socket:
    """A non-blocking socket that receives what is sent to the group on its interfaces.

    Others on this machine may receive it as well. Raises `ConfigError` when an interface is not
    there or the port cannot be had.
    """
    sock, problems = open_receiver_anyway(group)
    if problems:
        sock.close()
        raise ConfigError("; ".join(problems))
    return sock


def open_receiver_anyway(group: MulticastGroup) -> tuple[socket.socket, list[str]]:
    """The same on those interfaces that are there, and what is wrong with the others.

    Raises `ConfigError` when the port cannot be had.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            # Else it is given what other sockets of this machine joined on other interfaces.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        else:  # pragma: no cover - there SO_REUSEADDR is not enough to share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.MULTICAST_BUFFER)
        # Bound to the group and not to any address: other groups on this port are not for us.
        sock.bind((group.address, group.port))
    except OSError as exc:
        sock.close()
        where = f"{group.address}:{group.port}"
        raise ConfigError(
            f"cannot listen for announcements on {where}: {exc.strerror or exc}"
        ) from exc
    problems = []
    for interface in group.interfaces:
        try:
            membership = socket.inet_aton(group.address) + socket.inet_aton(interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:  # two addresses of one interface
                what = f"cannot listen for announcements on {_describe(interface, exc)}"
                problems.append(what)
    return sock, problems


def _describe(interface: str, exc: OSError) -> str:
    if exc.errno in _GONE:
        return (
            f"{interface}: no interface of this machine has this address; "
            "correct discovery.address, or name the interface as if:NAME"
        )
    return f"{interface}: {exc.strerror or exc}"
