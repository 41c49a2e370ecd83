"""What holds for all commands: help, examples, exit codes, the page about them, start-up."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from scamp.cli.common import MEANINGS, Exit
from scamp.cli.lazy import Later
from scamp.cli.main import main
from scamp.cli.reference import cli_reference, contexts, root

Run = Callable[..., Result]

ROOT = Path(__file__).parents[2]
CONTEXTS = list(contexts(root()))
LEAVES = [ctx for ctx in CONTEXTS if not isinstance(ctx.command, click.Group)]


def path_of(ctx: click.Context) -> str:
    return ctx.command_path


def examples(text: str) -> list[str]:
    return re.findall(r"^ +(scamp .*)$", text, re.MULTILINE)


@pytest.mark.parametrize("ctx", CONTEXTS, ids=path_of)
def test_every_command_explains_itself(run: Run, ctx: click.Context) -> None:
    words = ctx.command_path.split()[1:]
    for option in ("--help", "-h"):
        result = run(*words, option)
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: ")


@pytest.mark.parametrize("ctx", LEAVES, ids=path_of)
def test_every_command_has_an_example(ctx: click.Context) -> None:
    assert any(line.startswith(ctx.command_path) for line in examples(ctx.command.help or ""))


@pytest.mark.parametrize("ctx", LEAVES, ids=path_of)
def test_every_option_says_what_it_is_for(ctx: click.Context) -> None:
    options = [one for one in ctx.command.params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []


@pytest.mark.parametrize(
    "line",
    sorted({line for ctx in CONTEXTS for line in examples(ctx.command.help or "")}),
)
def test_examples_are_of_use_as_they_stand(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every one is parsed by the command that it calls; nothing is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir()
    for command in line.split(" | "):
        words = [word for word in shlex.split(command) if word not in (">", ">>", "<")]
        below: click.Command | None = main
        ctx, words = root(), words[2 if words[1] == "-v" else 1 :]
        while isinstance(below, click.Group):
            name, below, words = below.resolve_command(ctx, words)
        assert below is not None
        if "> " in command or "< " in command:
            words = words[:-1]
        below.make_context(name, words, parent=ctx)


def test_page_about_the_command_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == cli_reference(), (
        "python -m scamp.cli.reference > docs/cli.md"
    )


def test_examples_of_the_page_name_commands_that_exist(run: Run) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    called = set(re.findall(r"^\$ scamp ([a-z]+)", page, re.MULTILINE))
    assert {"serve", "list", "request", "announce", "keygen"} <= called
    assert called <= set(main.commands)


def test_exit_codes_are_told_in_help_and_on_the_page(run: Run) -> None:
    told = " ".join(run("--help").stdout.split())
    page = (ROOT / "docs" / "cli.md").read_text()
    assert set(MEANINGS) == set(Exit)
    for code, meaning in MEANINGS.items():
        assert f"{code:d} {meaning}" in told
        assert f"| {code:d} | {meaning} |" in page


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (Exit.OK, ["ticket", "show", "1,7,9,1000,3600,,AAAA"]),
        (Exit.FAILED, ["verify", "refused"]),
        (Exit.USAGE, ["request"]),
        (Exit.USAGE, ["verify", "absent"]),
        (Exit.UNREACHABLE, ["request", "A.b", "--connect", "127.0.0.1:1"]),
        (Exit.REFUSED, ["ticket", "verify", "rubbish", "--key", "shop.pub"]),
    ],
)
def test_every_exit_code_is_one_that_a_process_ends_with(
    code: Exit, arguments: list[str], made: Path, tmp_path: Path
) -> None:
    (tmp_path / "refused").write_bytes(b"\n%%%\nnonsense")
    (tmp_path / "shop.pub").write_bytes((made / "shop.pub").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "scamp.cli", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_list_of_commands_tells_what_each_says_of_itself() -> None:
    for command in main.commands.values():
        assert isinstance(command, Later)
        real = command.load()
        assert real.name == command.name
        assert (real.help or "").startswith(command.short_help or "?"), command.name


def test_help_loads_no_command() -> None:
    code = (
        "import sys; from scamp.cli.main import main\n"
        "before = set(sys.modules)\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(*sorted(n for n in set(sys.modules) - before if n.startswith('scamp')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), ""),
        (("-v",), " WARNING scamp.client: 127.0.0.1:1 "),
        (("--log-level", "warning", "--log-form", "json"), '"level": "WARNING"'),
        (("-vv", "--log-level", "error"), ""),
    ],
)
def test_log_is_on_stderr_as_much_as_is_asked_for(
    run: Run, options: tuple[str, ...], told: str
) -> None:
    fingerprint = "AB:" * 19 + "AB"
    result = run(
        *(*options, "request", "A.b", "--connect", "127.0.0.1:1", "--fingerprint", fingerprint)
    )
    *logged, error = result.stderr.splitlines()
    assert error.startswith("Error: cannot connect to 127.0.0.1:1")
    assert bool(logged) is bool(told)
    assert told in "".join(logged)


def test_without_a_standard_output_nothing_is_begun(tmp_path: Path) -> None:
    """As with ``scamp … >&-``: the next file to be opened would be taken for it."""
    done = subprocess.run(
        ["sh", "-c", f"exec {shlex.quote(sys.executable)} -m scamp.cli keygen shop >&-"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (Exit.FAILED, "Error: standard output is closed\n")
    assert list(tmp_path.iterdir()) == []


def _within_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command.replace("scamp", f"{shlex.quote(sys.executable)} -m scamp.cli", 1)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "ticket show",
        "ticket verify --key x.crt",
        "verify -",
        f"request A.b - --connect 127.0.0.1:1 --fingerprint {'AB:' * 19}AB",
    ],
)
def test_a_standard_input_that_is_closed_is_told(tmp_path: Path, made: Path, command: str) -> None:
    (tmp_path / "x.crt").write_bytes((made / "shop.crt").read_bytes())
    done = _within_shell(f"scamp {command} <&-", tmp_path)
    assert (done.returncode, done.stderr) == (Exit.USAGE, "Error: standard input is closed\n")


def test_without_a_standard_error_a_request_is_made(tmp_path: Path) -> None:
    done = _within_shell("scamp request A.b --connect 127.0.0.1:1 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (Exit.UNREACHABLE, "")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["--help", "--version", "list --help", "serve --port 0"])
def test_an_output_that_is_full_is_told_in_a_line(tmp_path: Path, command: str) -> None:
    done = _within_shell(f"scamp {command} >/dev/full", tmp_path)
    assert done.returncode == Exit.FAILED
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith("No space left on device\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("announce", "--key", "", "--address", "h:1", "--action", "A.b"),
        ("serve", "--key", ""),
        ("serve", "--announce-file", ""),
        ("cache", "--cache", ""),
        ("request", "A.b", "--output", ""),
        ("fingerprint", ""),
        ("list", "actions", "--config", ""),
    ],
)
def test_an_empty_name_of_a_file_is_refused(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == Exit.USAGE
    assert "the name of the file is empty" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("serve", "--cache"),
        ("serve", "--announce-file"),
        ("cache", "--interface", "127.0.0.1", "--cache"),
        ("announce", "--key", "x.key", "--append"),
        ("announce", "--key", "x.key", "--output"),
    ],
)
def test_a_pipe_where_a_file_would_go_is_left_alone(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    result = run(*command, path)
    assert result.exit_code == Exit.USAGE
    assert "not a regular file; it is left alone" in result.stderr
    assert path.is_fifo()
