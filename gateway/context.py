"""What a request brings along besides its meaning: id, trace, deadline, client address."""

from __future__ import annotations

import ipaddress
import itertools
import re
import secrets
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

from gateway import catalogue
from gateway.problems import Problem
from scamp.logs import redact

Network: TypeAlias = IPv4Network | IPv6Network

MAX_REQUEST_ID: Final = 128
"""Characters in an ``X-Request-ID`` that is taken over."""

MAX_TRACESTATE: Final = 512
"""Characters of ``tracestate`` that are passed on (W3C: at least 512); a longer one is dropped."""

MAX_MEMBERS: Final = 32
"""Entries of a ``tracestate`` (W3C); with more it has none for us."""

MAX_PEERS: Final = 1024
"""Peer addresses of which we remember whether they are trusted proxies."""

MAX_FORWARDED: Final = 64
"""Entries of ``X-Forwarded-For`` that are looked at, from the right."""

_REQUEST_ID: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_REQUEST_ID}}}")
_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)
_TRACESTATE: Final = re.compile(rf"[\x20-\x7e]{{1,{MAX_TRACESTATE}}}")
_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")

# -- request ids ------------------------------------------------------------------------


_FIRST: Final = 1 << 48
"""So that the number has twelve digits behind the first in any case: to format it takes longer."""


class RequestIds:
    """Makes ids that are unique over all processes; telling them in advance is of no use."""

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(10)
        self._count = itertools.count(_FIRST + 1)

    def __call__(self) -> str:
        return self._prefix + hex(next(self._count))[3:]


def is_request_id(text: str) -> bool:
    """Whether a caller's ``X-Request-ID`` can be taken over: short, printable ASCII, no space. What
    looks like a ticket is none: it would stand in every log on the way."""
    if _REQUEST_ID.fullmatch(text) is None:
        return False
    return not ("," in text or "%" in text or "\\" in text) or redact(text) == text


# -- traces -----------------------------------------------------------------------------


def parse_traceparent(traceparent: str) -> tuple[str, str, bool] | None:
    """Trace id, the caller's span id, and whether it is sampled (W3C Trace Context, level 1).

    What is not valid is treated as if it were not there: None.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match["version"] == "ff":
        return None
    if match["version"] == "00" and match["more"]:
        return None
    trace = match["trace"]
    if trace.strip("0") == "" or match["parent"].strip("0") == "":
        return None
    return trace, match["parent"], int(match["flags"], 16) & 1 == 1


def usable_tracestate(tracestate: str | None) -> bool:
    """Whether it can be passed on."""
    return bool(tracestate) and _TRACESTATE.fullmatch(tracestate or "") is not None


def tracestate_members(tracestate: str) -> list[tuple[str, str]]:
    """Its entries by key; none when there is something in it that W3C does not have."""
    members: dict[str, str] = {}
    for one in tracestate.split(","):
        if not (one := one.strip(" \t")):
            continue
        match = _MEMBER.fullmatch(one)
        if match is None or match[1] in members:
            return []
        members[match[1]] = match[2]
    return list(members.items()) if len(members) <= MAX_MEMBERS else []


def continue_trace(traceparent: str, tracestate: str | None) -> tuple[str, dict[str, str]] | None:
    """Trace id and the HEADER fields for the service; None when the header cannot be used.

    The trace goes on with a new span id of ours as the parent; whether it is sampled is left as it
    came.
    """
    parsed = parse_traceparent(traceparent)
    if parsed is None:
        return None
    trace, _, sampled = parsed
    fields = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"}
    if tracestate is not None and usable_tracestate(tracestate):
        fields["tracestate"] = tracestate
    return trace, fields


# -- deadlines --------------------------------------------------------------------------


def caller_timeout(text: str) -> float:
    """The seconds of an ``X-SCAMP-Timeout``. Raises Problem (bad_header) unless above 0."""
    if _SECONDS.fullmatch(text) is None or (seconds := float(text)) <= 0:
        raise Problem(
            catalogue.BAD_HEADER, "X-SCAMP-Timeout is a number of seconds greater than 0."
        )
    return seconds


# -- who is asking ----------------------------------------------------------------------


class ClientAddresses:
    """The client's address: the peer's, or what trusted proxies say in ``X-Forwarded-For``.

    The list is read right to left; the first address that is no trusted proxy is the client.
    Where an entry is no address, what stands left of it counts for nothing.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)
        self._peers: dict[str, bool] = {}

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The client for a connection from `peer` with these ``X-Forwarded-For`` lines."""
        if not self._trusted or not forwarded or not self._trusted_peer(peer):
            return peer
        client = peer
        entries = ",".join(forwarded).rsplit(",", MAX_FORWARDED)
        for entry in reversed(entries[-MAX_FORWARDED:]):
            address = _address(entry)
            if address is None:
                break
            client = str(address)
            if not self._is_trusted(address):
                break
        return client

    def _trusted_peer(self, peer: str) -> bool:
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= MAX_PEERS:
                self._peers.clear()
            address = _address(peer)
            known = self._peers[peer] = address is not None and self._is_trusted(address)
        return known

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    text = text.strip()
    if text.startswith("["):  # [IPv6] or [IPv6]:port
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # IPv4:port
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    # Without its zone, which is any text that the sender likes and means nothing here.
    return address.ipv4_mapped or IPv6Address(int(address))
