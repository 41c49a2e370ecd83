"""RSA keys, self-signed certificates and their fingerprints.

SCAMP has no certificate authority: a service is known by the fingerprint of its certificate, which
nobody signed but itself. So a key pair is made here in one step, and no certificate is ever refused
for its age, its name or its hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.x509.oid import NameOID

from scamp.errors import ConfigError

MIN_BITS: Final = 2048
"""Shortest RSA key that is made; TLS libraries refuse shorter ones."""
MAX_BITS: Final = 8192
"""Longest RSA key that is made; to make one takes seconds."""
MAX_DAYS: Final = 36_500
"""Longest validity of a certificate; nobody checks it."""
MAX_COMMON_NAME: Final = 64
"""X.520's upper bound; longer names make certificates that other implementations refuse."""

_BACKDATED: Final = timedelta(hours=1)
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----"
)
_PRIVATE: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def generate(
    name: str, *, bits: int = 2048, days: int = 3650, now: datetime
) -> tuple[bytes, bytes]:
    """Make a key and a certificate that it signs itself; returns both as PEM, the key first.

    `name` becomes the common name (1 to 64 characters). `bits` is 2048 to 8192, `days` 1 to 36500,
    counted from `now`, which must know its time zone; the certificate begins an hour earlier,
    for clocks that are behind. Takes from a tenth of a second to many seconds, with the bits.
    Raises `ConfigError` when an argument is out of range.
    """
    if not 1 <= len(name) <= MAX_COMMON_NAME or not name.isprintable():
        raise ConfigError(f"a key's name has 1 to {MAX_COMMON_NAME} printable characters")
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"an RSA key has {MIN_BITS} to {MAX_BITS} bits, not {bits}")
    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"a certificate is valid for 1 to {MAX_DAYS} days, not {days}")
    if now.tzinfo is None:
        raise ConfigError("the time at which a certificate begins needs a time zone")
    key = generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def fingerprint(certificate: bytes) -> str:
    """SHA-1 of the DER certificate as upper-case hex pairs joined by ``:`` (59 characters).

    Takes DER, or PEM of which the first certificate counts. The certificate's content is not
    looked at: what an old implementation made is as good as any. Raises `ConfigError` when the
    bytes are neither.
    """
    return der_fingerprint(_der(certificate))


def der_fingerprint(der: bytes) -> str:
    """As `fingerprint`, for what is known to be the DER of a certificate."""
    return hashlib.sha1(der, usedforsecurity=False).digest().hex(":").upper()


def load_private_key(pem: bytes) -> RSAPrivateKey:
    """Read an unencrypted RSA private key from PEM (PKCS#8 or PKCS#1).

    Raises `ConfigError` when it is not readable, encrypted, or not RSA. The text does not repeat
    any of the key.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as exc:
        raise ConfigError("the private key is encrypted; store it without a passphrase") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigError("not a readable PEM private key") from exc
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError("the private key is not RSA, and SCAMP knows no other kind")
    return key


def load_public_key(pem: bytes) -> RSAPublicKey:
    """Read an RSA public key from a PEM public key, or out of a PEM certificate.

    Raises `ConfigError` when it is not readable or not RSA, and when it is a private key: that
    has no place where only signatures are checked.
    """
    if _PRIVATE.search(pem):
        raise ConfigError("this is a private key; give the public key or the certificate")
    try:
        key: object = (
            x509.load_pem_x509_certificate(pem).public_key()
            if b"-----BEGIN CERTIFICATE-----" in pem
            else serialization.load_pem_public_key(pem)
        )
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise ConfigError("not a readable PEM public key or certificate") from exc
    if not isinstance(key, RSAPublicKey):
        raise ConfigError("the public key is not RSA, and SCAMP knows no other kind")
    return key


def public_key_pem(private_pem: bytes) -> bytes:
    """The public half of a private key, as PEM: what checks the signatures that it makes.

    Raises `ConfigError` like `load_private_key`.
    """
    return (
        load_private_key(private_pem)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _der(certificate: bytes) -> bytes:
    if found := _CERTIFICATE.search(certificate):
        try:
            der = base64.b64decode(b"".join(found[1].split()), validate=True)
        except binascii.Error as exc:
            raise ConfigError("the certificate's base64 is damaged") from exc
    else:
        der = certificate
    if not _is_one_sequence(der):
        raise ConfigError("not a certificate, in PEM or in DER")
    return der


def _is_one_sequence(der: bytes) -> bool:
    """Whether the bytes are one DER SEQUENCE of the length that it claims, and nothing else."""
    if len(der) < 4 or der[0] != 0x30:
        return False
    if der[1] < 0x80:
        return len(der) == 2 + der[1]
    count = der[1] & 0x7F
    if not 1 <= count <= 4:
        return False
    return len(der) == 2 + count + int.from_bytes(der[2 : 2 + count])
