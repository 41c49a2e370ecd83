"""What settings are made of: types that read texts, and the field itself."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer
from pydantic_settings import NoDecode

from gateway.loggers import read_levels
from gateway.ratelimit.rate import Rate

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host` is None for every interface, `port` 0 for any that is free."""

    host: str | None
    port: int

    @classmethod
    def parse(cls, text: object) -> Address:
        """Read ``HOST:PORT``, ``:PORT``, ``[IPV6]:PORT``. Raises ValueError for all else."""
        if isinstance(text, cls):
            return text
        host, colon, port = str(text).strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("write an IPv6 address in brackets, [::1]:8080")
        if not colon or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
            raise ValueError("not HOST:PORT (or :PORT for every interface)")
        return cls(None if host in ("", "*") else host, int(port))

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def split(value: object) -> object:
    """Lists come from the environment as one text, entries separated by commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    flag: str | None = None,
    unset: str = "",
    shared: bool = False,
    **constraints: Any,
) -> Any:
    """A field. `flag` is the option's name where it is not the field's (lists are repeated);
    empty: there is none. `unset` tells what None means. `shared`: a limit for all worker processes
    together, of which each gets its part."""
    extra: dict[str, JsonValue] = {"unit": unit, "flag": flag, "unset": unset, "shared": shared}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


MAX_WORKERS: Final = 256
"""More than any machine needs, and few enough to be started by mistake."""


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may keep busy: those it may run on, and no more than the container's
    share of CPU time (`quota`, cgroup v2), rounded up. At least 1."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        usable = os.cpu_count() or 1
    try:
        share, period = quota.read_text().split()
        usable = min(usable, math.ceil(int(share) / int(period)))
    except (OSError, ValueError):  # no such container, or "max": no limit
        pass
    return max(1, min(usable, MAX_WORKERS))


def _count(value: object) -> object:
    return cores() if str(value).strip().lower() in ("auto", "0") else value


Workers = Annotated[int, BeforeValidator(_count), Field(ge=1, le=MAX_WORKERS)]
Bind = Annotated[Address, NoDecode, BeforeValidator(Address.parse), PlainSerializer(str)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(split)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)]
Network = Annotated[
    IPv4Network | IPv6Network, BeforeValidator(lambda value: ip_network(str(value)))
]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(split)]
PerTime = Annotated[Rate, NoDecode, BeforeValidator(Rate.parse), PlainSerializer(str)]
LogLevels = Annotated[dict[str, LogLevel], NoDecode, BeforeValidator(read_levels)]
