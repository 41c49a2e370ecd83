"""Keys for tests, made once per process and reused.

Making an RSA key takes a tenth of a second and more; never use these for anything that must stay
secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from scamp import keys


@dataclass(frozen=True, slots=True)
class TestIdentity:
    """A key and the certificate that it signed, both PEM, and the certificate's fingerprint."""

    __test__ = False  # for pytest, which would take it for a test

    key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    fingerprint: str


def make_identity(number: int = 0) -> TestIdentity:
    """The identity with this number: the same one for the whole process, made at first use.

    Different numbers give different keys.
    """
    return _make(number)  # called with and without a number it must give the same


@lru_cache(maxsize=64)
def _make(number: int) -> TestIdentity:
    key, certificate = keys.generate(f"test-{number}", now=datetime.now(UTC))
    return TestIdentity(key, certificate, keys.fingerprint(certificate))
