"""Options of the commands that listen to announcements on the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from scamp.cli.common import FILE
from scamp.config import SEARCHED, VARIABLES, ScampConf
from scamp.discovery import MulticastGroup
from scamp.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """``--config``."""
    return click.option(
        "--config",
        type=FILE,
        help=f"scamp.conf to use. [default: ${', $'.join(VARIABLES)}, then {', '.join(SEARCHED)}]",
    )(command)


def group_options(command: Command) -> Command:
    """``--group``, ``--port`` and ``--interface``."""
    for option in (
        click.option(
            "--interface",
            "interfaces",
            metavar="ADDRESS",
            multiple=True,
            help="Interface to listen on, by its address or as 'if:eth0'; may be repeated. "
            "[default: discovery.address of the configuration, else bus.address]",
        ),
        click.option(
            "--port",
            metavar="PORT",
            type=click.IntRange(1, 65535),
            help="UDP port. [default: discovery.port of the configuration, else 5555]",
        ),
        click.option(
            "--group",
            metavar="ADDRESS",
            help="Multicast group. [default: discovery.multicast_address of the configuration, "
            "else 239.63.248.106]",
        ),
    ):
        command = option(command)
    return command


def find_conf(config: Path | None) -> ScampConf:
    """The configuration named, or found, or an empty one. Raises `ConfigError`."""
    there = config if config is not None else ScampConf.find()
    return ScampConf.parse("") if there is None else ScampConf.load(there)


def find_group(
    conf: ScampConf, group: str | None, port: int | None, interfaces: tuple[str, ...]
) -> MulticastGroup:
    """Where to listen, from the options and what they leave open. Raises `ConfigError`."""
    try:
        return MulticastGroup.from_config(conf, address=group, port=port, interfaces=interfaces)
    except ConfigError as exc:
        if interfaces:
            raise
        raise ConfigError(f"{exc}; --interface names one, too") from exc
