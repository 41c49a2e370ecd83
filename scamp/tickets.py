"""Tickets: who the caller is and what the caller may do, signed by the Auth service.

``1,USER_ID,CLIENT_ID,VALIDITY_START,VALIDITY_LENGTH,PRIV+PRIV,SIGNATURE``, where the signature is
base64url without padding, RSA PKCS#1 v1.5 with SHA-256 over all that stands before the last comma.
The privileges may be empty, or missing together with their comma.

The text of a ticket is a password for as long as it is valid. It is kept nowhere here, not in a
ticket, an exception or the cache, so that none of these can carry it into a log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from scamp import limits
from scamp.errors import (
    ConfigError,
    TicketBadSignature,
    TicketExpired,
    TicketMalformed,
    TicketNotYetValid,
)
from scamp.keys import load_public_key

MAX_DIGITS: Final = 18
"""Digits in a number of a ticket, so that each fits into 63 bits."""

MAX_KEY_FILE: Final = 64 * limits.KIB
"""A key file larger than this is not read."""

_NUMBER: Final = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}")
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9_-]+")
_FIELDS: Final = ("version", "user id", "client id", "validity start", "validity length")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says. Times are seconds since 1970; the signature is not part of it."""

    version: int
    user_id: int
    client_id: int
    validity_start: int
    validity_length: int
    privileges: frozenset[int] = field(default=frozenset(), repr=False)

    @property
    def expires(self) -> int:
        """The first second in which the ticket is no longer valid."""
        return self.validity_start + self.validity_length


def parse_ticket(text: str) -> Ticket:
    """Read a ticket without checking its signature or its time: for showing it, not for trust.

    Raises `TicketMalformed` for anything but version 1, numbers of at most 18 ASCII digits and a
    signature in the strict base64url alphabet, and above `limits.MAX_TICKET` characters.
    """
    return _parse(text)[0]


def issue_ticket(
    private_key: RSAPrivateKey,
    *,
    user_id: int,
    client_id: int,
    privileges: Iterable[int],
    start: int,
    length: int,
) -> str:
    """Sign a ticket that is valid for `length` seconds from `start`.

    The Auth service does this in a real mesh; tests and demonstrations do it here. Raises
    `TicketMalformed` when a number is negative or too long, or the whole is.
    """
    listed = "+".join(str(number) for number in sorted(set(privileges)))
    payload = f"1,{user_id},{client_id},{start},{length},{listed}"
    signature = private_key.sign(payload.encode(), PKCS1v15(), SHA256())
    text = f"{payload},{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    parse_ticket(text)
    return text


_UNKNOWN_SIGNER: Final = "the ticket is signed by none of the known keys"


class TicketVerifier:
    """Says whether a ticket is genuine and in force, and remembers the genuine ones.

    `keys` are tried in turn, so that an old and a new key hold during a rotation; with none,
    every ticket has a bad signature. `leeway` (seconds) is how far ahead of ours the issuer's
    clock may be; it does not lengthen a ticket's life. Up to `cache_size` tickets are remembered,
    by their digest; the least recently used goes first. Of failures only the last bad signature
    is remembered, for who asks twice: nobody can push a genuine ticket out with rubbish.

    For one thread at a time.
    """

    def __init__(
        self,
        keys: Sequence[RSAPublicKey],
        *,
        leeway: float = limits.TICKET_LEEWAY,
        cache_size: int = limits.TICKET_CACHE,
    ) -> None:
        self._keys = tuple(keys)
        self._leeway = leeway
        self._cache_size = cache_size
        self._genuine: OrderedDict[bytes, Ticket] = OrderedDict()
        self._forged = b""
        self.generation: int = 0
        """How often the keys were replaced: what was verified before is not verified any more."""

    @property
    def leeway(self) -> float:
        """Seconds that the issuer's clock may be ahead of ours."""
        return self._leeway

    def __repr__(self) -> str:
        return f"<TicketVerifier keys={len(self._keys)} remembered={len(self._genuine)}>"

    def __len__(self) -> int:
        """How many tickets are remembered."""
        return len(self._genuine)

    def verify(self, text: str, now: float) -> Ticket:
        """Check shape, signature and time, in this order; `now` is in seconds since 1970.

        A ticket is in force while ``start - leeway <= now < start + length``. Raises
        `TicketMalformed`, `TicketBadSignature`, `TicketNotYetValid` or `TicketExpired`.
        """
        if len(text) > limits.MAX_TICKET or not text.isascii():
            raise TicketMalformed(_too_long_or_foreign(text))
        digest = hashlib.sha256(text.encode("ascii")).digest()
        ticket = self._genuine.get(digest)
        if ticket is None:
            ticket, payload, signature = _parse(text)
            if digest == self._forged:
                raise TicketBadSignature(_UNKNOWN_SIGNER)
            try:
                self._check_signature(payload, signature)
            except TicketBadSignature:
                self._forged = digest
                raise
        else:
            self._genuine.move_to_end(digest)
        if now >= ticket.expires:
            self._genuine.pop(digest, None)
            raise TicketExpired("the ticket has expired")
        if now < ticket.validity_start - self._leeway:
            raise TicketNotYetValid("the ticket is not valid yet")
        self._remember(digest, ticket)
        return ticket

    def replace_keys(self, keys: Sequence[RSAPublicKey]) -> None:
        """Use other keys from now on, and forget what the old ones proved."""
        self._keys = tuple(keys)
        self._genuine.clear()
        self._forged = b""
        self.generation += 1

    def _check_signature(self, payload: bytes, signature: bytes) -> None:
        for key in self._keys:
            try:
                key.verify(signature, payload, PKCS1v15(), SHA256())
            except InvalidSignature:
                continue
            return
        raise TicketBadSignature(_UNKNOWN_SIGNER)

    def _remember(self, digest: bytes, ticket: Ticket) -> None:
        if self._cache_size <= 0 or digest in self._genuine:
            return
        while len(self._genuine) >= self._cache_size:
            self._genuine.popitem(last=False)
        self._genuine[digest] = ticket


class TicketKeys:
    """The public keys in a list of files, followed as the files change.

    Reads a few small files in the calling thread. One key per file: a PEM public key or a
    certificate. A file that goes bad, or goes away, leaves its last good key in force.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [_KeyFile(Path(path)) for path in paths]
        self._changed = False

    @property
    def errors(self) -> dict[Path, str]:
        """What is wrong at present, by file; empty when all is well."""
        return {file.path: file.error for file in self._files if file.error is not None}

    def load(self) -> list[RSAPublicKey]:
        """Read every file. Raises `ConfigError`, naming file and reason, if one is no good."""
        for file in self._files:
            file.refresh()
            if file.error is not None:
                raise ConfigError(file.error)
        self._changed = False
        return self._keys()

    def poll(self) -> list[RSAPublicKey] | None:
        """Look whether files changed; the keys if they now are others, None if not.

        A file counts as changed when its mtime, size or inode does. Raises `ConfigError` once
        per change that is no good; good changes seen at the same time come with the next call.
        """
        problems = []
        for file in self._files:
            before = file.key
            if not file.refresh():
                continue
            if file.error is not None:
                problems.append(file.error)
            elif before is None or not _same_key(before, file.key):
                self._changed = True
        if problems:
            raise ConfigError("; ".join(problems))
        if not self._changed:
            return None
        self._changed = False
        return self._keys()

    def _keys(self) -> list[RSAPublicKey]:
        return [file.key for file in self._files if file.key is not None]


class _KeyFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.key: RSAPublicKey | None = None
        self.error: str | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._seen = False

    def refresh(self) -> bool:
        """Read the file again if it is not the one last read, good or bad; True if it was not."""
        try:
            stamp = _stamp(os.stat(self.path))
        except OSError as exc:
            return self._settle(None, f"{self.path}: {exc.strerror or exc}")
        if self._seen and stamp == self._stamp:
            return False
        try:
            with self.path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                content = file.read(MAX_KEY_FILE + 1)
            if len(content) > MAX_KEY_FILE:
                return self._settle(stamp, f"{self.path}: too large for a key")
            self.key = load_public_key(content)
        except OSError as exc:
            return self._settle(stamp, f"{self.path}: {exc.strerror or exc}")
        except ConfigError as exc:
            return self._settle(stamp, f"{self.path}: {exc}")
        return self._settle(stamp, None)

    def _settle(self, stamp: tuple[int, int, int] | None, error: str | None) -> bool:
        news = not self._seen or stamp != self._stamp
        self._seen, self._stamp, self.error = True, stamp, error
        return news


def _parse(text: str) -> tuple[Ticket, bytes, bytes]:
    if len(text) > limits.MAX_TICKET or not text.isascii():
        raise TicketMalformed(_too_long_or_foreign(text))
    payload, _, encoded = text.rpartition(",")
    fields = payload.split(",")
    if not len(_FIELDS) <= len(fields) <= len(_FIELDS) + 1:
        raise TicketMalformed("a ticket has 6 or 7 fields")
    version, user, client, start, length = map(_number, _FIELDS, fields)
    if version != 1:
        raise TicketMalformed("tickets of this version are not known")
    listed = fields[len(_FIELDS)] if len(fields) > len(_FIELDS) else ""
    privileges = frozenset(_number("privilege", one) for one in listed.split("+") if listed)
    ticket = Ticket(version, user, client, start, length, privileges)
    return ticket, payload.encode("ascii"), _signature(encoded)


def _number(what: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise TicketMalformed(f"the {what} is not a number of 1 to {MAX_DIGITS} digits")
    return int(value)


def _signature(encoded: str) -> bytes:
    padded = encoded + "=" * (-len(encoded) % 4)
    if not _SIGNATURE.fullmatch(encoded) or len(encoded) % 4 == 1:
        raise TicketMalformed("the signature is not base64url without padding")
    try:
        signature = base64.urlsafe_b64decode(padded)
    except binascii.Error as exc:
        raise TicketMalformed("the signature is not base64url without padding") from exc
    if base64.urlsafe_b64encode(signature).decode() != padded:
        raise TicketMalformed("the signature's base64url has stray bits at its end")
    return signature


def _too_long_or_foreign(text: str) -> str:
    if len(text) > limits.MAX_TICKET:
        return f"a ticket has at most {limits.MAX_TICKET} characters"
    return "a ticket is plain ASCII"


def _same_key(one: RSAPublicKey, other: RSAPublicKey | None) -> bool:
    return other is not None and one.public_numbers() == other.public_numbers()


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
