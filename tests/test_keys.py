"""Keys, certificates and fingerprints, checked against what others make of them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from scamp import keys
from scamp.errors import ConfigError

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def pair() -> tuple[bytes, bytes]:
    return keys.generate("shop", days=10, now=NOW)


@pytest.fixture(scope="session")
def elliptic() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_certificate_is_signed_by_its_own_key_and_lasts_as_asked(
    pair: tuple[bytes, bytes],
) -> None:
    certificate = x509.load_pem_x509_certificate(pair[1])
    certificate.verify_directly_issued_by(certificate)
    assert certificate.subject.rfc4514_string() == "CN=shop"
    assert certificate.not_valid_before_utc < NOW
    assert (certificate.not_valid_after_utc - NOW).days == 10
    assert certificate.public_key() == keys.load_private_key(pair[0]).public_key()


@pytest.mark.parametrize(
    ("name", "bits", "days", "now"),
    [
        ("", 2048, 1, NOW),
        ("x" * 65, 2048, 1, NOW),
        ("a\nb", 2048, 1, NOW),
        ("shop", 1024, 1, NOW),
        ("shop", 2048, 0, NOW),
        ("shop", 2048, 1, NOW.replace(tzinfo=None)),
    ],
)
def test_arguments_out_of_range_are_refused(name: str, bits: int, days: int, now: datetime) -> None:
    with pytest.raises(ConfigError):
        keys.generate(name, bits=bits, days=days, now=now)


def test_fingerprint_is_the_same_from_pem_and_der_and_as_others_compute_it(
    pair: tuple[bytes, bytes],
) -> None:
    der = ssl.PEM_cert_to_DER_cert(pair[1].decode())
    expected = x509.load_der_x509_certificate(der).fingerprint(hashes.SHA1())  # noqa: S303
    assert keys.fingerprint(pair[1]) == keys.fingerprint(der) == expected.hex(":").upper()
    assert len(keys.fingerprint(der)) == 59


def test_fingerprint_skips_text_before_the_certificate_and_crlf(
    pair: tuple[bytes, bytes],
) -> None:
    text = b"subject: shop\r\n" + pair[0] + pair[1].replace(b"\n", b"\r\n")
    assert keys.fingerprint(text) == keys.fingerprint(pair[1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x30\x82\x00",
        b"\x30\x05ab",
        b"\x30\x80\x00\x00",
        b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ],
)
def test_fingerprint_of_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError):
        keys.fingerprint(content)


def test_public_key_comes_from_the_certificate_and_from_the_public_pem_alike(
    pair: tuple[bytes, bytes],
) -> None:
    expected = keys.load_private_key(pair[0]).public_key()
    assert keys.load_public_key(pair[1]) == expected
    assert keys.load_public_key(keys.public_key_pem(pair[0])) == expected


def test_private_key_is_not_taken_for_a_public_one(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(ConfigError, match="private key"):
        keys.load_public_key(pair[0])


def test_other_kinds_of_key_are_refused_by_name(elliptic: ec.EllipticCurvePrivateKey) -> None:
    public = elliptic.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(ConfigError, match="not RSA"):
        keys.load_private_key(pem(elliptic))
    with pytest.raises(ConfigError, match="not RSA"):
        keys.load_public_key(public)


def test_encrypted_private_key_is_refused_with_the_remedy(pair: tuple[bytes, bytes]) -> None:
    encrypted = keys.load_private_key(pair[0]).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ConfigError, match="passphrase"):
        keys.load_private_key(encrypted)


@given(st.binary(max_size=200))
def test_rubbish_is_a_config_error_and_nothing_else(content: bytes) -> None:
    for read in (keys.load_private_key, keys.load_public_key, keys.public_key_pem):
        with pytest.raises(ConfigError):
            read(content)
