"""TLS for a mesh without a CA: certificates are known by fingerprint, not by who signed them."""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from scamp.errors import ConfigError
from scamp.keys import der_fingerprint

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:!aNULL"
_LEGACY_RSA: Final = "AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA:AES256-SHA"

SESSIONS_LEAK: Final = (3, 10) <= sys.version_info < (3, 12, 8) or (
    (3, 13) <= sys.version_info < (3, 13, 1)
)
"""True where every look at a connection's session loses 5 KiB (python/cpython#116810)."""


class _Offer:
    """A session for the next handshake of one dial, and for no other."""

    __slots__ = ("session",)

    def __init__(self, session: ssl.SSLSession) -> None:
        self.session: ssl.SSLSession | None = session

    def take(self) -> ssl.SSLSession | None:
        session, self.session = self.session, None
        return session


_OFFER: Final[ContextVar[_Offer | None]] = ContextVar("scamp_tls_offer", default=None)


class ResumingContext(ssl.SSLContext):
    """A client's context whose handshake begins with the session that `offering` gives it.

    `create_connection` has no argument for a session, but asyncio and uvloop both make their TLS
    through `wrap_bio`, in the task that dials.
    """

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As in every context, with the offered session unless another is given."""
        offer = _OFFER.get()
        if session is None and offer is not None:
            session = offer.take()
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


@contextmanager
def offering(session: ssl.SSLSession | None) -> Iterator[None]:
    """Dial within: the handshake offers `session`, which must come from the same context.

    The server may decline it; then this is a full handshake. What runs later on the connection
    inherits the context of the dial, so the offer stands for one handshake only.
    """
    token = _OFFER.set(_Offer(session) if session is not None else None)
    try:
        yield
    finally:
        _OFFER.reset(token)


def resumable_session(connection: ssl.SSLObject | ssl.SSLSocket | None) -> ssl.SSLSession | None:
    """What the peer may be asked to resume; None when it gave no ticket.

    Ask when the peer has sent something: with TLS 1.3 its tickets come after the handshake. See
    SESSIONS_LEAK for what asking may cost.
    """
    session = connection.session if connection is not None else None
    return session if session is not None and session.has_ticket else None


def client_context(*, legacy_rsa: bool = False) -> ResumingContext:
    """A context for connecting to services, TLS 1.2 and 1.3.

    It verifies nothing by itself: `Channel` compares the certificate's fingerprint before the first
    byte. Security level 0, because real services use short keys and SHA-1 signatures, which do not
    matter to a fingerprint. `legacy_rsa` adds RSA key exchange with AES for old Go services; those
    have no forward secrecy.
    """
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{_CIPHERS}{':' + _LEGACY_RSA if legacy_rsa else ''}:@SECLEVEL=0")
    return context


def server_context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """A context for a service, from PEM certificate and private key.

    Raises ConfigError when they do not belong together or cannot be read; the key must not be
    encrypted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{_CIPHERS}:@SECLEVEL=0")
    # The ssl module reads certificates from files only.
    with tempfile.TemporaryDirectory(prefix="scamp-") as folder:
        cert_path, key_path = Path(folder, "cert.pem"), Path(folder, "key.pem")
        cert_path.write_bytes(certificate)
        key_path.touch(mode=0o600)
        key_path.write_bytes(key)
        try:
            # Without a password OpenSSL asks the terminal for the one of an encrypted key.
            context.load_cert_chain(os.fspath(cert_path), os.fspath(key_path), password="")
        except (ssl.SSLError, OSError) as exc:
            raise ConfigError(f"certificate and key cannot be used: {exc}") from exc
    return context


def peer_fingerprint(connection: ssl.SSLObject | ssl.SSLSocket | None) -> str:
    """SHA-1 of the peer's DER certificate as ``AB:CD:…``; empty when it showed none."""
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    return der_fingerprint(der) if der else ""
