"""``scamp completion``: the scripts, and what they ask for."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from scamp import keys
from scamp.discovery import Action, AnnouncementSpec, build_announcement, write_cache

Run = Callable[..., Result]
Complete = Callable[..., list[str]]

ACTIONS = (
    Action("main", "Product.Sku", "fetch", 1, ("read",)),
    Action("main", "Product", "list", 2),
    Action("back", "Stock", "count", 1),
)


@pytest.fixture
def cache(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCAMP", "/absent/scamp.conf")
    key = keys.load_private_key((made / "shop.key").read_bytes())
    certificate = (made / "shop.crt").read_bytes()
    spec: dict[str, Any] = {
        "sector": "main",
        "weight": 1,
        "interval": 5.0,
        "uri": "beepish+tls://10.0.0.5:30100",
        "envelopes": ("json",),
        "actions": ACTIONS,
    }
    records = [
        build_announcement(
            AnnouncementSpec(identity=f"{name}:{'A' * 24}", **spec), key, certificate, timestamp=1e9
        )
        for name in ("shop", "show")
    ]
    write_cache(tmp_path / "cache", [*records, b"nonsense"])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Ask as bash does; gives what it is told, kind and text."""

    def complete(*words: str) -> list[str]:
        environment = {"_SCAMP_COMPLETE": "bash_complete", "COMP_CWORD": str(len(words))}
        environment["COMP_WORDS"] = (
            shlex.join(("scamp", *words))
            if words[-1]
            else (shlex.join(("scamp", *words[:-1])) + " ")
        )
        done = subprocess.run(
            [sys.executable, "-c", "from scamp.cli.main import main; main(prog_name='scamp')"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return complete


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_each_shell_calls_the_command(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_SCAMP_COMPLETE={shell}_complete" in result.stdout


def test_other_shells_are_exit_2(run: Run) -> None:
    assert run("completion", "tcsh").exit_code == 2


def test_commands_are_completed_without_loading_them(complete: Complete) -> None:
    assert complete("ti") == ["plain,ticket"]
    assert complete("wat") == ["plain,watch"]
    assert complete("ticket", "i") == ["plain,issue"]


def test_actions_are_completed_from_the_cache_file(complete: Complete, cache: Path) -> None:
    request = ("request", "--cache", str(cache))
    assert complete(*request, "prod") == ["plain,Product.list~2", "plain,Product.Sku.fetch~1"]
    assert complete(*request, "back:") == ["plain,back:Stock.count~1"]
    assert complete(*request, "absent") == []


def test_services_are_completed_by_name_and_then_by_identity(
    complete: Complete, cache: Path
) -> None:
    request = ("request", "--cache", str(cache), "A.b", "--service")
    assert complete(*request, "sh") == ["plain,shop", "plain,show"]
    assert complete(*request, "shop") == ["plain,shop", f"plain,shop:{'A' * 24}"]


def test_sectors_are_completed(complete: Complete, cache: Path) -> None:
    assert complete("list", "actions", "--cache", str(cache), "--sector", "") == [
        "plain,back",
        "plain,main",
    ]
    assert complete("watch", "--cache", str(cache), "--sector", "b") == ["plain,back"]


def test_without_a_cache_file_nothing_is_completed_and_nothing_is_said(
    complete: Complete, cache: Path
) -> None:
    assert complete("request", "--cache", "absent", "") == []
    assert complete("request", "") == []  # the configuration is missing too


def test_files_are_completed_by_the_shell_and_bodies_behind_the_mark(
    complete: Complete, cache: Path
) -> None:
    Path("folder").mkdir()
    Path("folder/body").touch()
    Path(".hidden").touch()
    assert complete("verify", "--authorized-services", "x") == ["file,x"]
    assert complete("request", "A.b", "@") == ["plain,@cache", "plain,@folder/"]
    assert complete("request", "A.b", "@folder/b") == ["plain,@folder/body"]
    assert complete("request", "A.b", "@.h") == ["plain,@.hidden"]
    assert complete("request", "A.b", "@absent/") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_actions_of_other_sectors_in_one_word(cache: Path) -> None:
    """The real script in a real bash; the function that it registers is called as bash does."""
    command = cache.with_name("bin") / "scamp"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m scamp.cli "$@"\n')
    command.chmod(0o755)
    script = f"""
        PATH={shlex.quote(str(command.parent))}:$PATH
        eval "$(scamp completion bash)"
        COMP_WORDS=(scamp request --cache {shlex.quote(str(cache))} back:St) COMP_CWORD=4
        _scamp_completion scamp 2>&1
        [[ $COMP_WORDBREAKS != *:* ]] && echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("back:Stock.count~1\n", "")
