"""What settings and environment say of traces, read without OpenTelemetry.

Where a setting is silent the standard ``OTEL_`` variables count. Most of them the SDK reads itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import unquote, urlsplit

from scamp.errors import ConfigError

PATH: Final = "/v1/traces"
DEFAULT_ENDPOINT: Final = "http://localhost:4318"
DEFAULT_NAME: Final = "scamp-gateway"

HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
"""Variables with header fields for the collector, which the SDK reads."""

MAX_QUEUE: Final = 2048
"""Spans that wait to be sent, as in the SDK; at some 2 KiB each."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")


def missing() -> str | None:
    """What to say when what makes and sends spans is not installed."""
    for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = find_spec(name)
        except ModuleNotFoundError:  # not even what it is in
            found = None
        if found is None:
            return "tracing needs OpenTelemetry: pip install '.[otel]' in a checkout"
    return None


def check_endpoint(url: str) -> str:
    """`url` if it is that of a collector. Raises ValueError, which does not quote it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ValueError("not http://HOST:PORT or https://HOST:PORT, with or without a path")
    if "@" in parts.netloc:
        raise ValueError("credentials go into tracing_headers_file, not into the URL")
    return url


def traces_url(endpoint: str | None, environ: Mapping[str, str]) -> str:
    """Where spans go. Raises `ConfigError` for a URL in the environment that is none."""
    if endpoint is None:
        name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        if not environ.get(name):
            name = "OTEL_EXPORTER_OTLP_ENDPOINT"
        endpoint = environ.get(name) or DEFAULT_ENDPOINT
        try:
            check_endpoint(endpoint)
        except ValueError as exc:
            raise ConfigError(f"{name}: {exc}") from None
        if name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":
            return endpoint  # as it is: the specification has it so
    base = endpoint.rstrip("/")
    return base if base.endswith(PATH) else base + PATH


def parse_headers(text: str) -> dict[str, str]:
    """``name=value`` pairs, separated by commas or lines, values percent-encoded where need be: the
    form of ``OTEL_EXPORTER_OTLP_HEADERS``. Raises ValueError, which quotes nothing of it."""
    headers = {}
    for number, entry in enumerate(re.split(r"[,\r\n]", text), 1):
        if not entry.strip():
            continue
        name, equals, value = entry.partition("=")
        name, value = name.strip(), unquote(value.strip())
        if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"entry {number} is not name=value (a comma in a value is %2C)")
        headers[name.lower()] = value
    return headers


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether ``OTEL_SDK_DISABLED`` puts out what the settings ask for."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def queue_size(environ: Mapping[str, str]) -> int:
    """``OTEL_BSP_MAX_QUEUE_SIZE``, else `MAX_QUEUE`. Raises `ConfigError`."""
    text = environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or str(MAX_QUEUE)
    if not (text.isascii() and text.isdigit() and 0 < int(text[:7]) <= 1_000_000):
        raise ConfigError("OTEL_BSP_MAX_QUEUE_SIZE: not a number from 1 to 1000000")
    return int(text)
