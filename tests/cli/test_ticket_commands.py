"""``scamp ticket`` and what all commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from scamp.cli import ticket as commands

Run = Callable[..., Result]


@pytest.fixture
def issued(run: Run, made: Path) -> str:
    result = run(
        *("ticket", "issue", "--key", made / "shop.key", "--user", "7", "--client", "9"),
        *("--privilege", "3", "--privilege", "1"),
    )
    assert result.exit_code == 0
    return str(result.stdout)


def expired(run: Run, made: Path) -> str:
    key = made / "shop.key"
    issuing = ("ticket", "issue", "--key", key, "--user", "7", "--client", "9", "--start", "1000")
    return str(run(*issuing).stdout)


def test_issued_ticket_is_verified_from_stdin_file_and_argument(
    run: Run, made: Path, tmp_path: Path, issued: str
) -> None:
    (tmp_path / "t").write_text(issued)
    for text, stdin in [("-", issued), (f"@{tmp_path / 't'}", None), (issued, None)]:
        for key in ("shop.pub", "shop.crt"):
            result = run("ticket", "verify", text, "--key", made / key, stdin=stdin)
            assert result.exit_code == 0
            assert "user        7" in result.stdout
            assert "privileges  1, 3" in result.stdout
            assert "(in force)" in result.stdout


def test_show_needs_no_key_and_tells_the_state(run: Run, made: Path) -> None:
    result = run("ticket", "show", "--json", stdin=expired(run, made))
    facts = json.loads(result.stdout)
    assert (facts["user_id"], facts["client_id"], facts["expires"]) == (7, 9, 4600)
    assert facts["state"] == "expired"
    assert "1970-01-01T00:16:40Z" in run("ticket", "show", stdin=expired(run, made)).stdout


def test_show_bears_times_beyond_any_calendar(run: Run) -> None:
    result = run("ticket", "show", "1,7,9,999999999999999999,1,,AAAA")
    assert "not yet valid" in result.stdout


def test_bad_tickets_are_exit_4_with_one_line_that_does_not_repeat_them(
    run: Run, made: Path, issued: str
) -> None:
    verify = ("ticket", "verify", "--key", made / "shop.pub")
    changed = issued.replace("1,7,", "1,8,")
    for text, told in [
        ("rubbish", "6 or 7 fields"),
        (changed, "signed by none"),
        (expired(run, made), "expired; get a new one"),
    ]:
        result = run(*verify, stdin=text)
        assert result.exit_code == 4
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""
        assert text.strip()[-30:] not in result.stderr


def test_who_names_a_file_is_told_how(run: Run, tmp_path: Path, issued: str) -> None:
    (tmp_path / "alice.ticket").write_text(issued)
    result = run("ticket", "show", tmp_path / "alice.ticket")
    assert result.exit_code == 2
    assert f"@{tmp_path / 'alice.ticket'} reads the ticket" in result.stderr


def test_verify_checks_an_action_against_a_table(
    run: Run, made: Path, tmp_path: Path, issued: str
) -> None:
    table = tmp_path / "authz.json"
    table.write_text('{"a.ok": [1, 3], "a.no": [2], "_NAMES": [null, null, "rule"]}')
    verify = ("ticket", "verify", "--key", made / "shop.pub", "--authz-table", table, "--action")
    assert run(*verify, "A.ok~1", stdin=issued).exit_code == 0
    refused = run(*verify, "A.no", stdin=issued)
    assert refused.exit_code == 4
    assert "A.no requires privilege rule" in refused.stderr
    assert run(*verify, "A.absent", stdin=issued).exit_code == 4
    table.write_text("[]")
    assert run(*verify, "A.ok", stdin=issued).exit_code == 2


def test_verify_without_a_key_says_which_option_gives_one(
    run: Run, issued: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "USUAL_KEYS", ())
    result = run("ticket", "verify", stdin=issued)
    assert result.exit_code == 2
    assert "--key" in result.stderr


def test_verify_finds_the_key_in_its_usual_place(
    run: Run, made: Path, issued: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "USUAL_KEYS", ("/absent/key.pem", str(made / "shop.pub")))
    assert run("ticket", "verify", stdin=issued).exit_code == 0


@pytest.mark.parametrize("name", ["shop.pub", "absent.key"])
def test_issue_names_a_key_that_cannot_sign(run: Run, made: Path, name: str) -> None:
    result = run("ticket", "issue", "--key", made / name, "--user", "1", "--client", "1")
    assert result.exit_code == 2
    assert f"{name}: " in result.stderr


def test_version_and_exit_codes_are_told(run: Run) -> None:
    assert run("--version").stdout.startswith("scamp, version ")
    told = run("--help").stdout
    assert "Exit codes:" in told
    assert "4  refused" in told


@pytest.mark.parametrize(
    "command", ["fingerprint", "keygen", "ticket", "ticket show", "ticket verify", "ticket issue"]
)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage: scamp" in result.stdout or "Usage: main" in result.stdout
