"""The certificates that announcements are signed with. There is no CA: a certificate stands for
itself, known by its fingerprint, and may be expired or signed with SHA-1."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from scamp import limits
from scamp.errors import AnnouncementError
from scamp.keys import der_fingerprint

_PEM = re.compile(
    rb"\s*-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*\Z"
)
_PADDING = padding.PKCS1v15()
_SHA256 = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class SigningCertificate:
    """A parsed certificate. `fingerprint`: SHA-1 of the DER, upper-case hex pairs with ``:``."""

    fingerprint: str
    key: rsa.RSAPublicKey

    @property
    def signature_size(self) -> int:
        """Bytes in a signature made with the key."""
        return (self.key.key_size + 7) // 8

    def verify(self, signed: bytes, signature: bytes) -> None:
        """Check an RSA PKCS#1 v1.5 SHA-256 signature.

        Raises `AnnouncementError` (``signature``).
        """
        try:
            self.key.verify(signature, signed, _PADDING, _SHA256)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm) as exc:
            raise AnnouncementError(
                "signature", "the signature does not belong to what is announced"
            ) from exc


@lru_cache(maxsize=limits.MAX_CACHED_CERTIFICATES)
def load_certificate(pem: bytes) -> SigningCertificate:
    """Parse the one PEM certificate in `pem`; white space around it is allowed.

    Raises `AnnouncementError` (``certificate``) for anything else, and for a key that is not RSA.
    """
    match = _PEM.match(pem)
    if match is None:
        raise AnnouncementError("certificate", "the second part is not one PEM certificate")
    try:
        der = base64.b64decode(b"".join(match[1].split()), validate=True)
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise AnnouncementError("certificate", f"the certificate does not parse: {exc}") from exc
    if not isinstance(key, rsa.RSAPublicKey):
        raise AnnouncementError("certificate", "the certificate's key is not RSA")
    return SigningCertificate(der_fingerprint(der), key)
