"""Discovery cache files to measure with: really signed announcements, and newer versions of them.

A service has 20 actions that nobody else has, an identity, and one certificate together with four
others, as instances do. All certificates are of a few keys, because 1,000 keys take minutes to
make: what is done with a certificate and a signature is the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from scamp import keys
from scamp.discovery import (
    Action,
    AnnouncementSpec,
    build_announcement,
    new_identity,
    write_cache,
)

ACTIONS: Final = 20
INSTANCES: Final = 5
KEYS: Final = 8
INTERVAL: Final = 5.0

_LATER: Final = 0.25
"""Seconds from one announcement to the next. A service may step back by a second, so that a few
versions of a file can be put in force over and over."""

_PAST: Final = 3600.0
"""Seconds ago, when the first of them was signed: none is from a time to come."""

_FLAGS: Final = (("read", "t30"), ("create",), ("update", "t60"), ("destroy",), ())
_NAMES: Final = ("fetch", "add", "change", "remove", "search")


@dataclass(frozen=True, slots=True)
class _Announcer:
    """What a service needs to say who it is, again and again."""

    spec: AnnouncementSpec
    pem: bytes
    key: RSAPrivateKey

    def announce(self, timestamp: float) -> bytes:
        return build_announcement(self.spec, self.key, self.pem, timestamp=timestamp)

    def with_one_more(self) -> _Announcer:
        added = replace(self.spec.actions[0], name=f"added{len(self.spec.actions)}")
        return replace(self, spec=replace(self.spec, actions=(*self.spec.actions, added)))


class AnnouncedMesh:
    """So many services, and the file `cache` that tells of them.

    `others` are records of services that are there, written behind them. `authorized` is the file
    authorized_services, which permits all of them everything in sector main.
    """

    def __init__(
        self, services: int, folder: Path, others: Sequence[bytes] = (), permitted: str = ""
    ) -> None:
        """`permitted` are lines of authorized_services for the others."""
        self.cache = folder / f"announced-{services}"
        self.authorized = folder / f"permitted-{services}"
        self._others = others
        self._began = time.time() - _PAST
        self._first = tuple(_announcers(services))
        self._fresh = tuple(one.announce(self._began) for one in self._first)
        prints = {keys.fingerprint(one.pem) for one in self._first}
        lines = (f"{one} main:ALL\n" for one in sorted(prints))
        self.authorized.write_text(permitted + "".join(lines))
        self.begin()

    def __len__(self) -> int:
        return len(self._first)

    def begin(self) -> None:
        """Put everything back as it was at first, and write it."""
        self._now = self._began
        self._announcers = list(self._first)
        self._put(self._fresh)

    def write(self) -> None:
        """Put a new file in the place of `cache`, as its writers do."""
        write_cache(self.cache, (*self._records, *self._others))

    def touch(self) -> None:
        """Give it another mtime, and nothing else."""
        os.utime(self.cache)

    def renew(self, *places: int) -> None:
        """These services announce themselves again, with a new time and nothing else new."""
        self._now += _LATER
        for place in places:
            self._records[place] = self._announcers[place].announce(self._now)
        self.write()

    def change(self, place: int) -> None:
        """A service has one action more than before."""
        self._announcers[place] = self._announcers[place].with_one_more()
        self.renew(place)

    def renew_all(self, signed: Sequence[bytes] = ()) -> tuple[bytes, ...]:
        """All of them do, with what was `signed` for it before if there is any. Returns that."""
        if signed:
            self._put(signed)
        else:
            self.renew(*range(len(self)))
        return tuple(self._records)

    def _put(self, records: Sequence[bytes]) -> None:
        self._records = list(records)
        self.write()


def _announcers(services: int) -> Iterator[_Announcer]:
    now = datetime.now(UTC)
    several = cycle(
        [keys.load_private_key(keys.generate("bench", now=now)[0]) for _ in range(KEYS)]
    )
    for number in range(services):
        if not number % INSTANCES:
            key = next(several)
            pem = _certificate(key, f"bench-{number}", now)
        yield _Announcer(_spec(number), pem, key)


def _certificate(key: RSAPrivateKey, name: str, now: datetime) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _spec(number: int) -> AnnouncementSpec:
    identity = new_identity(f"bench-{number // INSTANCES}")
    host, port = (
        f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        30_100 + number % 300,
    )
    return AnnouncementSpec(
        identity,
        "main",
        1,
        INTERVAL,
        f"beepish+tls://{host}:{port}",
        ("json",),
        tuple(
            Action("main", namespace(number, place), _NAMES[place % 5], 1, _FLAGS[place % 5])
            for place in range(ACTIONS)
        ),
    )


def namespace(number: int, place: int = 0) -> str:
    """Of the action with this place of the service with this number."""
    return f"Bench.Service{number:05}.Part{place // 5}"
