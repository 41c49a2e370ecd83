"""``docs/cli.md``, made from the commands themselves: ``python -m scamp.cli.reference > FILE``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

import click

from scamp.cli.common import MEANINGS
from scamp.cli.lazy import loaded
from scamp.cli.main import main

_INTRODUCTION: Final = """\
# The `scamp` command

<!-- Made by `python -m scamp.cli.reference` from scamp/cli. Do not edit. -->

`scamp` looks at a mesh, calls its actions, and makes what a service needs to join it.

A first look, without any mesh, in two terminals:

```console
$ scamp serve --cache trial.cache
trial:9tfzjJXzxE6YJCsICfIw7o69 serves at 127.0.0.1:30233
…
```

```console
$ scamp list actions --cache trial.cache
$ scamp request Scamp.echo '{"hello": "world"}' --cache trial.cache
{"hello": "world"}
```

On a machine of a mesh the files need not be named: `discovery.cache_path` and
`bus.authorized_services` of the configuration say where they are, and the configuration is found as
all SCAMP programs find it (`--config`, `$SCAMP`, `$SCAMP_CONFIG`, then the usual places).

What a command is asked for goes to standard output, and nothing else; notes, errors and logs go to
standard error. `--json` is for programs, tables are for people. Text that comes from strangers is
printed without control characters.

## Two components without discovery

A client that reads the discovery cache file needs no multicast to find a service: a signed record
in the file is enough.

```console
$ scamp keygen shop
$ scamp announce --name shop --address 10.0.0.5:30100 --action Shop.buy=noauth \\
    --key shop.key --append trial.cache --keep
```

Clients trust the file while it is fresh, which `--keep` sees to. Whoever checks
`authorized_services` wants the line `FINGERPRINT main:Shop` there; `scamp keygen` and `scamp
fingerprint` print the fingerprint. Clients in JavaScript, Go and Rust read these files too. Some of
them are particular: the one in Rust ignores a record that is older than 2.1 of its intervals, so
without `--keep` a long `--interval` is wanted; the one in JavaScript ignores a file that was
not written for `discovery.cache_max_age` seconds; the one in Go sees only actions that have the
sector and the envelopes of their service, and nothing behind a record of more than 64 KiB (some
900 actions), which therefore stands last.

## Tickets

A ticket is a password as long as it is valid. On a command line every user of the machine sees it:
`--ticket-file`, `SCAMP_TICKET`, `@FILE` and standard input are there for that. `scamp request
--connect` sends none unless `--fingerprint` says whose certificate is expected.

## Completion

```console
$ eval "$(scamp completion bash)"
```

completes commands, options and files, and from the discovery cache file actions, services and
sectors. For other shells see [below](#scamp-completion).

## Exit codes

| code | meaning |
|---|---|
"""

_AFTER_CODES: Final = """
A program that reads the output and goes away early (`| head`) is no error to speak of: the command
ends silently, with code 1.

## Commands
"""


def cli_reference() -> str:
    """The whole page, Markdown, ending in a newline."""
    codes = "".join(f"| {code:d} | {meaning} |\n" for code, meaning in MEANINGS.items())
    sections = "".join(_section(ctx) for ctx in contexts(root()))
    return _INTRODUCTION + codes + _AFTER_CODES + sections


def root() -> click.Context:
    """The context of ``scamp`` itself."""
    return click.Context(main, info_name="scamp", **main.context_settings)


def contexts(above: click.Context) -> Iterator[click.Context]:
    """A context for the command of `above` and for every one below it, loaded, in order."""
    yield above
    command = above.command
    if isinstance(command, click.Group):
        for name in command.list_commands(above):
            below = loaded(command.get_command(above, name))
            if below is not None and not below.hidden:
                yield from contexts(click.Context(below, info_name=name, parent=above))


def _section(ctx: click.Context) -> str:
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    parts = [f"\n### {ctx.command_path}\n", f"\n    {ctx.command_path} {pieces}\n"]
    parts += [f"\n{paragraph}\n" for paragraph in _paragraphs(ctx.command.help or "")]
    options = (one for one in ctx.command.params if isinstance(one, click.Option))
    records = [one for one in (option.get_help_record(ctx) for option in options) if one]
    if rows := "".join(f"| `{_cell(names)}` | {_cell(text)} |\n" for names, text in records):
        parts.append(f"\n| option | meaning |\n|---|---|\n{rows}")
    return "".join(parts)


def _paragraphs(text: str) -> Iterator[str]:
    r"""The paragraphs of a help text. What stands behind ``\b`` keeps its lines, as an example."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b\n"):
            yield " ".join(paragraph.split())
            continue
        lines = paragraph.removeprefix("\b\n").split("\n")
        if not lines[0].startswith(" "):
            yield lines.pop(0)
            yield _code(lines)
        else:
            yield _code(lines)


def _code(lines: list[str]) -> str:
    return "```\n" + inspect.cleandoc("\n".join(["", *lines])) + "\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(cli_reference(), nl=False)
