"""What N workers make of limits that are meant for one gateway. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

from gateway.settings import Settings
from gateway.sources import Loaded
from scamp.errors import ConfigError


def share(loaded: Loaded) -> Loaded:
    """The settings of one worker: of each limit for all together its part, rounded up."""
    settings = loaded.settings
    parts = {
        name: -(-value // settings.workers)
        for name, field in Settings.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("shared")
        if (value := getattr(settings, name)) is not None
    }
    return replace(loaded, settings=settings.model_copy(update=parts))


def require_gunicorn() -> None:
    """Raises `ConfigError` when what manages the processes is not installed."""
    if find_spec("gunicorn") is None:
        raise ConfigError("several workers need gunicorn: pip install '.[workers]' in a checkout")


def warnings(settings: Settings, *, limits_rates: bool) -> Iterator[str]:
    """What works with several workers, and may not be meant."""
    if settings.workers > 1 and limits_rates and settings.rate_limit_redis is None:
        yield (
            f"each of {settings.workers} workers counts requests for rate limits by itself: who "
            f"has many connections gets up to {settings.workers} times the rate; "
            "rate_limit_redis counts for all"
        )
