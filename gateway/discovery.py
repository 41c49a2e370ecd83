"""Where the gateway's index comes from: the discovery cache file, or the network itself."""

from __future__ import annotations

from collections.abc import Callable

from gateway.settings import Settings
from scamp import limits
from scamp.config import ScampConf
from scamp.discovery import (
    CacheFollower,
    DiscoverySource,
    LoadReport,
    MulticastGroup,
    Observer,
    Registry,
)
from scamp.errors import ConfigError


def make_source(
    settings: Settings, registry: Registry, on_load: Callable[[LoadReport], None]
) -> DiscoverySource:
    """What the settings ask for, not started. `settings` must be complete. Raises `ConfigError`
    when no interface for multicast can be found."""
    if settings.discovery_source == "multicast":
        return Observer(
            multicast_group(settings),
            registry,
            authorized_path=settings.authorized_services,
            max_age=settings.discovery_max_age,
            listen_first=limits.LISTEN_FIRST,
            poll_interval=settings.discovery_poll_interval,
            on_load=on_load,
        )
    assert settings.discovery_cache is not None  # noqa: S101 - complete
    return CacheFollower(
        settings.discovery_cache,
        registry,
        authorized_path=settings.authorized_services,
        max_age=settings.discovery_max_age,
        poll_interval=settings.discovery_poll_interval,
        on_load=on_load,
    )


def multicast_group(settings: Settings) -> MulticastGroup:
    """Where to listen. Without interfaces: the first 10.x address of this machine, then the first
    192.168.x. Raises `ConfigError`."""
    try:
        return MulticastGroup.from_config(
            ScampConf({}),
            address=settings.multicast_address,
            port=settings.multicast_port,
            interfaces=settings.multicast_interfaces,
        )
    except ConfigError as exc:
        raise ConfigError(f"multicast: {exc} (--multicast-interface names one)") from exc
