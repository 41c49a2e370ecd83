"""Settings that are weaker than they need be."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from typing import Final
from urllib.parse import urlsplit

from gateway.audit import codes
from gateway.audit.model import Audited, Finding
from gateway.credentials import ANY_ORIGIN
from gateway.settings import Address

MAX_LEEWAY: Final = 300.0
MAX_GRACE: Final = 3600.0
"""Seconds; more is told."""


def listeners(audited: Audited) -> Iterator[Finding]:
    """Who gets to the two listeners, and how."""
    settings = audited.settings
    if not _is_loopback(settings.admin_bind):
        says = f"admin_bind is {settings.admin_bind}."
        yield Finding(codes.ADMIN_EXPOSED, "admin_bind", says)
    if settings.tls_certificate is None and not _is_loopback(settings.bind):
        says = f"bind is {settings.bind}, without tls_certificate."
        yield Finding(codes.NO_TLS, "tls_certificate", says)
    covered = _covers_everything(settings.trusted_proxies)
    if covered:
        says = f"trusted_proxies covers all of {covered}."
        yield Finding(codes.PROXIES_EVERYBODY, "trusted_proxies", says)


def _is_loopback(address: Address) -> bool:
    if address.host is None:
        return False
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host.lower() == "localhost"


def _covers_everything(networks: tuple[IPv4Network | IPv6Network, ...]) -> str:
    four = collapse_addresses(one for one in networks if isinstance(one, IPv4Network))
    six = collapse_addresses(one for one in networks if isinstance(one, IPv6Network))
    found = ["IPv4"] if any(one.prefixlen == 0 for one in four) else []
    if any(one.prefixlen == 0 for one in six):
        found.append("IPv6")
    return " and ".join(found)


def switches(audited: Audited) -> Iterator[Finding]:
    """What was turned on or off."""
    settings = audited.settings
    for given, code, subject, says in (
        (settings.legacy_rsa, codes.LEGACY_RSA, "legacy_rsa", "legacy_rsa is on."),
        (settings.max_body is None, codes.NO_BODY_LIMIT, "max_body", "max_body is not set."),
        (settings.drain_limit == 0, codes.NO_DRAIN, "drain_limit", "drain_limit is 0."),
        (settings.server_timing, codes.SERVER_TIMING, "server_timing", "server_timing is on."),
        (
            settings.openapi == "everyone",
            codes.OPENAPI_EVERYONE,
            "openapi",
            "openapi is everyone.",
        ),
    ):
        if given:
            yield Finding(code, subject, says)
    sectors = {sector.lower() for sector in settings.sectors}
    if len(sectors) > 1:
        says = f"sectors are {', '.join(sorted(sectors))}."
        yield Finding(codes.SEVERAL_SECTORS, "sectors", says)


def browsers(audited: Audited) -> Iterator[Finding]:
    """What pages may do."""
    settings = audited.settings
    cookie, origins = settings.ticket_cookie, settings.cors_origins
    if ANY_ORIGIN in origins:
        yield Finding(codes.CORS_ANY_ORIGIN, "cors_origins", "cors_origins is *.")
    if cookie is None:
        return
    plain = [origin for origin in origins if origin.startswith("http:") and not _is_local(origin)]
    if plain:
        says = f"cors_origins has {', '.join(plain)}, and ticket_cookie is set."
        yield Finding(codes.CORS_PLAIN_ORIGIN, "cors_origins", says)
    if settings.tls_certificate is None and not _is_loopback(settings.bind):
        says = f"ticket_cookie is {cookie}, and there is no tls_certificate."
        yield Finding(codes.COOKIE_WITHOUT_TLS, "ticket_cookie", says)
    if settings.compress_replies:
        says = "compress_replies is on, and ticket_cookie is set."
        yield Finding(codes.COMPRESSES_WITH_COOKIE, "compress_replies", says)


def rates(audited: Audited) -> Iterator[Finding]:
    """Whether callers are limited, and for how long."""
    settings = audited.settings
    limits = (settings.rate_limit_user, settings.rate_limit_client, settings.rate_limit_address)
    routed = any(route.rate is not None for route in audited.mesh.routes.routes)
    if limits == (None, None, None):
        says = "No limit is set" + (", but for some routes." if routed else ".")
        yield Finding(codes.NO_RATE_LIMITS, "rate_limit_address", says)
        if not routed:
            return
    if settings.rate_limit_redis is None:
        return
    if settings.rate_limit_on_failure == "open":
        says = "rate_limit_on_failure is open."
        yield Finding(codes.RATE_LIMITS_OPEN, "rate_limit_on_failure", says)
    url = settings.rate_limit_redis.get_secret_value()
    if url.startswith("redis:") and not _is_local(url):
        says = "rate_limit_redis begins with redis://, not rediss://."  # it may hold a password
        yield Finding(codes.REDIS_WITHOUT_TLS, "rate_limit_redis", says)


def _is_local(url: str) -> bool:
    return _is_loopback(Address(urlsplit(url).hostname, 0))


def times(audited: Audited) -> Iterator[Finding]:
    """What holds on for too long."""
    settings = audited.settings
    if settings.effective_auth_mode != "forward" and settings.ticket_leeway > MAX_LEEWAY:
        says = f"ticket_leeway is {settings.ticket_leeway:g} s."
        yield Finding(codes.LONG_LEEWAY, "ticket_leeway", says)
    held = settings.authz_ttl + settings.authz_grace
    asked = settings.authz_table is None  # a file that breaks leaves the last table in any case
    if settings.effective_auth_mode == "enforce" and asked and held > MAX_GRACE:
        says = f"authz_ttl and authz_grace are {held:g} s together."
        yield Finding(codes.LONG_GRACE, "authz_grace", says)
