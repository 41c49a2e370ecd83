"""Packets to test with, signed by keys made here."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from scamp.discovery import Action, AnnouncementSpec, build_announcement

TIME = 1_700_000_000.0


@dataclass(frozen=True)
class Signer:
    """A key with its certificate, long expired as real ones are."""

    key: rsa.RSAPrivateKey
    pem: bytes
    fingerprint: str

    def sign(self, text: str | bytes) -> bytes:
        """A packet around any text, rightly signed."""
        signed = text.encode() if isinstance(text, str) else text
        signature = self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return b"%b\n\n%b\n\n%b" % (signed, self.pem.strip(), base64.encodebytes(signature))

    def packet(self, **changes: Any) -> bytes:
        """A version 3 packet, its elements replaced by name."""
        elements: dict[str, Any] = {
            "version": 3,
            "identity": "shop:" + "A" * 24,
            "sector": "main",
            "weight": 1,
            "interval": 5000,
            "uri": "beepish+tls://10.0.0.1:30100",
            "envelopes": ["json"],
            "classes": [["Product.Sku", ["fetch", "read,t30", 1], ["list", ""]]],
            "timestamp": TIME,
        }
        if not changes.keys() <= elements.keys():
            raise TypeError(changes)
        return self.sign(json.dumps(list({**elements, **changes}.values())))

    def announce(
        self,
        identity: str,
        *actions: str,
        timestamp: float = TIME,
        flags: tuple[str, ...] = (),
        **changes: Any,
    ) -> bytes:
        """A service that announces ``Namespace.name`` actions, by our own writer."""
        sector = changes.get("sector", "main")
        parts = [action.rpartition(".") for action in actions or ("Product.fetch",)]
        spec: dict[str, Any] = {
            "identity": identity,
            "sector": sector,
            "weight": 1,
            "interval": 5.0,
            "uri": "beepish+tls://10.0.0.1:30100",
            "envelopes": ("json",),
            "actions": tuple(Action(sector, space, name, 1, flags) for space, _, name in parts),
        }
        return build_announcement(
            AnnouncementSpec(**{**spec, **changes}), self.key, self.pem, timestamp=timestamp
        )


def make_signer() -> Signer:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    digest = certificate.fingerprint(hashes.SHA1())  # noqa: S303 - the name by which it is known
    fingerprint = ":".join(f"{byte:02X}" for byte in digest)
    return Signer(key, certificate.public_bytes(serialization.Encoding.PEM), fingerprint)


@pytest.fixture(scope="session")
def signer() -> Signer:
    return make_signer()


@pytest.fixture(scope="session")
def other_signer() -> Signer:
    return make_signer()


@pytest.fixture(scope="session")
def announce(signer: Signer) -> Callable[..., bytes]:
    return signer.announce


@pytest.fixture(scope="session")
def announce_other(other_signer: Signer) -> Callable[..., bytes]:
    """The same by another certificate."""
    return other_signer.announce


@pytest.fixture(scope="session")
def packet(signer: Signer) -> Callable[..., bytes]:
    return signer.packet


@pytest.fixture(scope="session")
def sign(signer: Signer) -> Callable[[str | bytes], bytes]:
    return signer.sign
