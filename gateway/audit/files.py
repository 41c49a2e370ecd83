"""Files that a gateway trusts: keys, certificates, and who else can get at them. Reads them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from gateway.audit import codes
from gateway.audit.model import Audited, Finding
from gateway.listener import certificate_expiry, tls_context
from gateway.settings import Settings
from scamp.tickets import TicketKeys

MIN_BITS: Final = 2048
SOON: Final = 30 * 86_400.0
"""Seconds before a certificate expires from which on it is told."""


def ticket_keys(audited: Audited) -> Iterator[Finding]:
    """Keys that are too short."""
    for path in audited.settings.ticket_keys:
        for key in TicketKeys([path]).load():
            if key.key_size < MIN_BITS:
                says = f"An RSA key of {key.key_size} bits."
                yield Finding(codes.SHORT_TICKET_KEY, str(path), says)


def certificate(audited: Audited) -> Iterator[Finding]:
    """The public listener's certificate, and whether it will hold."""
    settings = audited.settings
    tls_context(settings)  # it must be usable at all
    expires = certificate_expiry(settings)
    if expires is None or expires - audited.now > SOON:
        return
    day = f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%d}"
    subject = str(settings.tls_certificate)
    if expires <= audited.now:
        yield Finding(codes.CERTIFICATE_EXPIRED, subject, f"It expired on {day}.")
    else:
        yield Finding(codes.CERTIFICATE_EXPIRES, subject, f"It expires on {day}.")


def permissions(audited: Audited) -> Iterator[Finding]:
    """What other users of the machine can read or write."""
    for path in sorted(set(_secrets(audited))):
        if _mode(path) & stat.S_IROTH:
            says = f"Its mode is {_mode(path):04o}."
            yield Finding(codes.READABLE_SECRET, str(path), says)
    for path in sorted(set(_trusted(audited))):
        if _mode(path) & stat.S_IWOTH:
            says = f"Its mode is {_mode(path):04o}."
            yield Finding(codes.WRITABLE_FILE, str(path), says)
            continue
        folder = _mode(path.parent)
        if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
            says = f"The directory that it is in has mode {folder:04o}."
            yield Finding(codes.WRITABLE_FILE, str(path), says)


def _secrets(audited: Audited) -> Iterator[Path]:
    settings = audited.settings
    if settings.tls_key is not None:
        yield settings.tls_key
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and _is_secret(name, value.get_secret_value()):
            # One that comes from a file of its own is not in the settings file.
            path = getattr(settings, f"{name}_file") or _place(audited, name)
            if path is not None:
                yield path


def _is_secret(name: str, value: str) -> bool:
    """The URL of a Redis without a password is none."""
    if name != "rate_limit_redis":
        return True
    url = urlsplit(value)
    return url.password is not None or "password" in parse_qs(url.query)


def _trusted(audited: Audited) -> Iterator[Path]:
    """What decides who may do what. The discovery cache is not among them: it is signed."""
    settings = audited.settings
    yield from settings.ticket_keys
    for path in (
        *(settings.authorized_services, settings.authz_table, settings.routes),
        *(settings.tls_client_ca, settings.scamp_conf),
        *(_place(audited, name) for name in audited.origins),
    ):
        if path is not None:
            yield path


def _place(audited: Audited, name: str) -> Path | None:
    """The settings file that a setting comes from; None when it comes from elsewhere."""
    path, colon, line = audited.origins.get(name, "").rpartition(":")
    return Path(path) if colon and line.isdigit() else None


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
