"""How a gateway describes itself, and the settings that say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import metadata
from typing import Literal

from gateway.openapi.operations import Facts
from gateway.settings import Settings

Audience = Literal["callers", "everyone"]


@dataclass(frozen=True, slots=True)
class OpenApiOptions:
    """`audience`: whether callers see what they may call, or everyone sees all."""

    audience: Audience = "callers"
    facts: Facts = field(default_factory=Facts)
    sectors: tuple[str, ...] = ("main",)
    default_timeout: float = 75.0
    max_actions: int = 2000


def openapi_options(settings: Settings) -> OpenApiOptions:
    """What the settings come to; ``off`` counts as ``callers`` here."""
    return OpenApiOptions(
        audience="everyone" if settings.openapi == "everyone" else "callers",
        facts=Facts(
            mode=settings.effective_auth_mode,
            cookie=settings.ticket_cookie,
            limited=settings.max_body is not None,
            rated=settings.limits_rates,
            media_types=settings.media_types,
            events_open=bool(settings.events_open),
            title=settings.openapi_title,
            version=metadata.version("scamp-gateway"),
        ),
        sectors=settings.sectors,
        default_timeout=settings.request_timeout,
        max_actions=settings.openapi_max_actions,
    )
