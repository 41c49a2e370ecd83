"""Commands that are imported when they are used: asking for help loads none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click


class Later(click.Command):
    """Stands for a command in a list of commands: its name, one line of help, and where it is.

    `target` is ``MODULE:ATTRIBUTE``. Whoever wants more than the list calls `load`.
    """

    def __init__(self, name: str, short_help: str, target: str) -> None:
        super().__init__(name, short_help=short_help)
        self.target = target

    def load(self) -> click.Command:
        """The command itself."""
        module, _, attribute = self.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


class LazyGroup(click.Group):
    """A group that may have commands of the kind `Later`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, loaded(command), rest


def loaded(command: Any) -> Any:
    """The command itself, whether or not it was loaded."""
    return command.load() if isinstance(command, Later) else command
