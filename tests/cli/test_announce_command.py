"""``scamp announce``, read back by our own reader."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from scamp import keys, limits
from scamp.discovery import Announcement, parse_announcement, split_records

Run = Callable[..., Result]

TOML = """
name = "shop"
sector = "front"
address = "10.0.0.5:30100"
envelopes = ["json", "jsonstore"]
weight = 3
interval = 2.5

[[actions]]
name = "Shop.Order.fetch"
flags = "read,t30"

[[actions]]
name = "Shop.Order.export"
version = 2
flags = ["read", "t600"]
sector = "background"
envelopes = ["jsonstore"]
"""


@pytest.fixture
def key(made: Path) -> tuple[str, Path]:
    return ("--key", made / "shop.key")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(TOML)
    return path


def read(content: bytes) -> list[Announcement]:
    """The records of a cache file's content, with their signatures checked."""
    assert content.startswith(b"\n%%%\n")
    return [parse_announcement(record) for record in split_records(content)]


MINIMUM = ("--address", "10.0.0.5:30100", "--action", "Shop.buy")


def test_options_alone_describe_a_service(run: Run, key: tuple[str, Path], made: Path) -> None:
    result = run(
        *("announce", "--name", "shop", "--sector", "web"),
        *("--address", "beepish+tls://[::1]:30100"),
        *("--action", "Shop.buy", "--action", "Shop.Order.fetch~3=read,t30"),
        *("--action", "back:Stock.count=noauth", "--envelope", "json", "--envelope", "jsonstore"),
        *("--weight", "2", "--interval", "60", "--timestamp", "1700000000.5", *key),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    (found,) = read(result.stdout_bytes)
    assert found.name == "shop"
    assert found.fingerprint == keys.fingerprint((made / "shop.crt").read_bytes())
    assert (found.sector, found.weight, found.interval) == ("web", 2, 60)
    assert (found.uri, found.timestamp) == ("beepish+tls://[::1]:30100", 1700000000.5)
    told = [(a.sector, a.spelling, a.version, a.flags, a.envelopes) for a in found.actions]
    both = ("json", "jsonstore")
    assert told == [
        ("web", "Shop.buy", 1, (), both),
        ("web", "Shop.Order.fetch", 3, ("read", "t30"), both),
        ("back", "Stock.count", 1, ("noauth",), both),
    ]


def test_file_describes_a_service_and_options_go_before_it(
    run: Run, key: tuple[str, Path], spec: Path
) -> None:
    (found,) = read(run("announce", spec, *key).stdout_bytes)
    assert (found.name, found.sector, found.weight, found.interval) == ("shop", "front", 3, 2.5)
    fetch, export = found.actions
    assert (fetch.sector, fetch.spelling, fetch.flags) == (
        "front",
        "Shop.Order.fetch",
        ("read", "t30"),
    )
    assert (export.sector, export.version, export.envelopes) == ("background", 2, ("jsonstore",))
    changed = run("announce", spec, "--name", "other", "--weight", "4.0", *MINIMUM, *key)
    (found,) = read(changed.stdout_bytes)
    assert (found.name, found.weight) == ("other", 4)
    assert [action.spelling for action in found.actions] == ["Shop.buy"]


def test_file_may_be_json_and_hold_actions_in_short(
    run: Run, key: tuple[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "shop.json"
    path.write_text(json.dumps({"address": "h:1", "actions": ["A.b~2=noauth", {"name": "A.c"}]}))
    (found,) = read(run("announce", path, *key).stdout_bytes)
    assert [(a.spelling, a.version, a.noauth) for a in found.actions] == [
        ("A.b", 2, True),
        ("A.c", 1, False),
    ]
    assert found.name == "service"


def test_given_identity_is_kept_and_a_name_gets_a_new_one_each_time(
    run: Run, key: tuple[str, Path]
) -> None:
    identity = "shop:" + "A" * 24
    (found,) = read(run("announce", "--identity", identity, *MINIMUM, *key).stdout_bytes)
    assert found.identity == identity
    twice = [run("announce", "--name", "shop", *MINIMUM, *key).stdout_bytes for _ in range(2)]
    assert len({read(content)[0].identity for content in twice}) == 2


def test_leaving_needs_no_actions(run: Run, key: tuple[str, Path]) -> None:
    result = run("announce", "--weight", "0", "--address", "h:1", *key)
    (found,) = read(result.stdout_bytes)
    assert (found.weight, found.actions) == (0, ())


def test_outputs_one_behind_the_other_are_a_cache_file(
    run: Run, key: tuple[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for name in ("a", "b"):
        with cache.open("ab") as file:
            file.write(run("announce", "--name", name, *MINIMUM, *key).stdout_bytes)
    assert [service.name for service in read(cache.read_bytes())] == ["a", "b"]


def test_append_replaces_the_same_service_and_the_same_address_only(
    run: Run, key: tuple[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    identity = "shop:" + "A" * 24
    for options in (
        ("--identity", identity, "--address", "h:1"),
        ("--name", "other", "--address", "h:2"),
        ("--name", "third", "--address", "h:3"),
        ("--identity", identity, "--address", "h:4"),  # moved
        ("--name", "fourth", "--address", "h:2"),  # started anew
    ):
        result = run("announce", *options, "--action", "A.b", *key, "--append", cache)
        assert (result.exit_code, result.stdout) == (0, "")
    found = [(service.name, service.port) for service in read(cache.read_bytes())]
    assert found == [("third", 3), ("shop", 4), ("fourth", 2)]


def test_append_keeps_records_that_it_cannot_read(
    run: Run, key: tuple[str, Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.write_bytes(b"\n%%%\nnonsense")
    assert run("announce", *MINIMUM, *key, "--append", cache).exit_code == 0
    assert split_records(cache.read_bytes())[0].strip() == b"nonsense"


def test_append_leaves_alone_what_is_no_cache_file(
    run: Run, key: tuple[str, Path], tmp_path: Path
) -> None:
    precious = tmp_path / "diary"
    precious.write_text("dear diary")
    result = run("announce", *MINIMUM, *key, "--append", precious)
    assert result.exit_code == 2
    assert "not a discovery cache file" in result.stderr
    assert precious.read_text() == "dear diary"


def test_output_replaces_a_file(run: Run, key: tuple[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for name in ("a", "b"):
        assert run("announce", "--name", name, *MINIMUM, *key, "-o", cache).exit_code == 0
    assert [service.name for service in read(cache.read_bytes())] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_keep_signs_anew_at_every_interval_until_it_is_stopped(
    made: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "scamp.cli", "announce", *MINIMUM, "--interval", "0.01"]
    command += ["--key", str(made / "shop.key"), "--output", str(cache), "--keep"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        seen: dict[float, str] = {}
        while len(seen) < 3 and process.poll() is None:
            if cache.exists():
                (service,) = read(cache.read_bytes())
                seen[service.timestamp] = service.identity
        process.send_signal(stop)
        try:
            _, told = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert told == b""
    assert len(set(seen.values())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--action", "Shop.buy"),
        ("--address", "h:1"),
        ("--address", "h", "--action", "Shop.buy"),
        ("--address", "h:1", "--action", "Shop"),
        ("--address", "h:1", "--action", "Shop.buy~x"),
        ("--address", "h:1", "--action", "Shop.buy~0"),
        ("--address", "h:1", "--action", "Shop.buy=a b"),
        (*MINIMUM, "--sector", "a:b"),
        (*MINIMUM, "--weight", "-1"),
        (*MINIMUM, "--weight", "0.5"),
        (*MINIMUM, "--identity", "x" * 300),
        (*MINIMUM, "--keep"),
        (*MINIMUM, "--keep", "-o", "x", "--timestamp", "1"),
        (*MINIMUM, "-o", "x", "--append", "y"),
        (*MINIMUM, "-o", "/absent/x"),
        (*MINIMUM, "--append", "/"),
    ],
)
def test_what_cannot_be_announced_is_exit_2(
    run: Run, key: tuple[str, Path], arguments: tuple[str, ...]
) -> None:
    result = run("announce", *arguments, *key)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name = ", "shop.toml: "),
        ("{", "shop.toml: "),
        ("[]", "shop.toml: "),
        ("nmae = 'shop'", "'nmae' is nothing that a service has"),
        ("actions = 'A.b'", "actions is not a list"),
        ("actions = [7]", "actions holds 7"),
        ("actions = ['A']", "'A' is not an action's name"),
        ("actions = ['A.b=c=d']", "'A.b=c=d' is not an action"),
        ("actions = [{version = 1}]", "has no name"),
        ("actions = [{name = 'A.b', version = '1'}]", "version '1'"),
        ("actions = [{name = 'A.b', flags = 7}]", "flags is 7"),
        ("actions = [{name = 'A.b', flag = 'x'}]", "'flag' is nothing that an action has"),
        ("weight = true", "weight is True"),
        ("sector = ''", "sector is ''"),
        ("envelopes = 'json'", "envelopes is 'json'"),
        ("address = 'h'\nactions = ['A.b']", "'h' is not HOST:PORT"),
        ('{"weight": NaN, "address": "h:1", "actions": ["A.b"]}', "weight is nan"),
    ],
)
def test_file_that_makes_no_sense_is_exit_2_and_says_why(
    run: Run, key: tuple[str, Path], tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(content)
    result = run("announce", path, *key, *(() if "address" in content else ("--address", "h:1")))
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_file_that_is_too_large_is_not_read(
    run: Run, key: tuple[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "shop.toml"
    path.write_bytes(b"#" * (limits.MIB + 1))
    result = run("announce", path, *key)
    assert result.exit_code == 2
    assert "larger than" in result.stderr


def test_key_and_certificate_that_do_not_belong_together_are_exit_2(
    run: Run, key: tuple[str, Path], made: Path, tmp_path: Path
) -> None:
    run("keygen", "other", "--out", tmp_path)
    result = run("announce", *MINIMUM, *key, "--cert", tmp_path / "other.crt")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "other.crt: " in result.stderr
    for path in (made / "shop.crt", tmp_path / "absent.key"):
        assert run("announce", *MINIMUM, "--key", path).exit_code == 2
