"""What commands share: an option for each setting, and problems told in a line each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, get_args, get_origin

import click

from gateway import sources
from gateway.reference import headings
from gateway.settings import Settings
from gateway.sources import Loaded, flag_of
from scamp.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


class Refused(click.ClickException):
    """Something that the user has to change: told in one line per problem, exit status 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"scamp-gateway: {line}", file=file, err=file is None)


class SettingOption(click.Option):
    """The option of a setting. `heading` is that of its part of ``docs/configuration.md``."""

    def __init__(self, *names: Any, heading: str, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.heading = heading


class SettingsCommand(click.Command):
    """A command whose help has its own options first, then settings in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As in click, with more than one heading."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            heading = parameter.heading if isinstance(parameter, SettingOption) else "Options"
            if (record := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def settings_options(command: F) -> F:
    """Give a command ``--config`` and one option for each setting that has a flag.

    The options only carry text; what is right for a setting is said in one place, its field. The
    command is to be a `SettingsCommand`.
    """
    found = headings()
    for name in reversed(Settings.model_fields):
        if name == "log_level":
            command = _levels(found[name])(command)
        elif flag_of(name) and name != "log_levels":
            command = _option(name, found[name])(command)
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="TOML file with settings. [SCAMP_GATEWAY_CONFIG]",
    )(command)


def _option(name: str, heading: str) -> Callable[[F], F]:
    option = partial(click.option, cls=SettingOption, heading=heading)
    field, flag = Settings.model_fields[name], flag_of(name)
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    unit = str(extra.get("unit") or "")
    if field.annotation is bool:
        shown = _described(field.description or "", "on" if field.default else "off", unset="")
        return option(f"--{flag}/--no-{flag}", name, default=None, help=shown)
    choices = _choices(field.annotation)
    shown = _described(field.description or "", field.default, unset=str(extra.get("unset") or ""))
    if choices:
        return option(f"--{flag}", name, type=click.Choice(choices), default=None, help=shown)
    metavar = unit.upper() if unit.islower() else (unit or "VALUE")
    return option(
        f"--{flag}",
        name,
        metavar=metavar,
        multiple=isinstance(field.default, tuple),
        default=None,
        help=shown,
    )


def _levels(heading: str) -> Callable[[F], F]:
    """One option for two settings: ``--log-level warning --log-level gateway.auth=debug``."""
    field = Settings.model_fields["log_level"]
    description = (field.description or "").removesuffix(".")
    levels = ", ".join(get_args(field.annotation))
    return click.option(
        "--log-level",
        cls=SettingOption,
        heading=heading,
        metavar="[LOGGER=]LEVEL",
        multiple=True,
        callback=_split_levels,
        help=f"{description}: {levels}; for single loggers LOGGER=LEVEL. (repeatable) "
        f"[default: {field.default}]",
    )


def _split_levels(ctx: click.Context, _: click.Parameter, given: tuple[str, ...]) -> str | None:
    ctx.params["log_levels"] = tuple(one for one in given if "=" in one)
    plain = [one for one in given if "=" not in one]
    return plain[-1] if plain else None


def _described(description: str, default: object, *, unset: str) -> str:
    """The help of an option, with what holds when it is not given."""
    if isinstance(default, tuple):
        description = f"{description} (repeatable)"
        default = ", ".join(map(str, default))
    if isinstance(default, float):
        default = f"{default:g}"
    shown = unset if default is None else default
    return f"{description} [default: {shown}]" if shown not in ("", None) else description


def _choices(annotation: Any) -> tuple[str, ...]:
    for one in (annotation, *get_args(annotation)):
        if get_origin(one) is Literal:
            return get_args(one)
    return ()


def load(config: Path | None, flags: dict[str, Any]) -> Loaded:
    """The settings of a command line. Raises `Refused`."""
    try:
        return sources.load(flags, config=config)
    except ConfigError as exc:
        raise Refused(str(exc)) from exc
