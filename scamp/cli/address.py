"""``HOST:PORT`` as users write it."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_ADDRESS: Final = re.compile(
    r"(?:[a-z+]+://)?(?:\[(?P<ip6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>[0-9]{1,5})"
)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[IPv6]:PORT`` or either behind ``SCHEME://``.

    Raises ValueError.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return match["ip6"] or match["host"], int(match["port"])


def show_address(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def to_address(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Callback of an option: ``HOST:PORT`` as (host, port); a tuple of them if it may repeat."""
    if isinstance(value, tuple):
        return tuple(to_address(ctx, parameter, one) for one in value)
    try:
        return None if value is None else parse_address(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
