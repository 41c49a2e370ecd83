"""``scamp watch``, with real multicast on loopback and with cache files."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from multicast import LOOPBACK, free_group, needs_multicast

from scamp import keys
from scamp.cli.common import Exit
from scamp.discovery import (
    Action,
    AnnouncementSpec,
    MulticastGroup,
    MulticastSender,
    build_announcement,
    encode_packet,
    write_cache,
)
from scamp.testing import make_identity

Run = Callable[..., Result]
Facts = dict[str, Any]
Told = tuple[str, str, str]

SELL = Action("main", "Shop", "sell", 1)
ROB = Action("main", "Bank", "rob", 1)
NOW = time.time()

PATIENCE = 20.0


def record(name: str = "shop", *actions: Action, later: float = 0.0, **changed: Any) -> bytes:
    """A record of a service, `later` seconds after its first."""
    spec: Facts = {
        "identity": name,
        "sector": "main",
        "weight": 1,
        "interval": 5.0,
        "uri": "beepish+tls://127.0.0.1:30100",
        "envelopes": ("json",),
        "actions": actions or (SELL, ROB),
    }
    identity = make_identity()
    return build_announcement(
        AnnouncementSpec(**{**spec, **changed}),
        keys.load_private_key(identity.key),
        identity.certificate,
        timestamp=NOW + later,
    )


def leaving(name: str = "shop", later: float = 0.0) -> bytes:
    described = AnnouncementSpec(
        identity=name,
        sector="main",
        weight=0,
        interval=5.0,
        uri="beepish+tls://127.0.0.1:30100",
        envelopes=("json",),
        actions=(),
    )
    identity = make_identity()
    key = keys.load_private_key(identity.key)
    return build_announcement(described, key, identity.certificate, timestamp=NOW + later)


def forged(name: str = "shop") -> bytes:
    return record(name).replace(b"Shop", b"Sh0p")


def told(facts: Facts) -> Told:
    return (facts["about"], facts["event"], facts["identity"])


class Watch:
    """The command in a process of its own, once it listens or follows."""

    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "scamp.cli", "watch", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout, self.stderr = self.process.stdout, self.process.stderr
        self._read = {self.stdout: b"", self.stderr: b""}
        self.began = self._line_of(self.stderr)

    def _line_of(self, stream: Any) -> str:
        """The next line. Fails when there is none for long."""
        while b"\n" not in self._read[stream]:
            ready, _, _ = select.select([stream], [], [], PATIENCE)
            assert ready, f"nothing more than {self._read[stream]!r}"
            piece = os.read(stream.fileno(), 65536)
            assert piece, f"it ended after {self._read[stream]!r}"
            self._read[stream] += piece
        line, _, self._read[stream] = self._read[stream].partition(b"\n")
        return line.decode() + "\n"

    def line(self) -> str:
        return self._line_of(self.stdout)

    def note(self) -> str:
        return self._line_of(self.stderr)

    def next(self) -> Facts:
        """The next event, with --json."""
        found: Facts = json.loads(self.line())
        return found

    def until(self, *last: Told) -> list[Facts]:
        """Events up to the one by which all of `last` were seen."""
        found: list[Facts] = []
        while not set(last) <= {told(facts) for facts in found}:
            found.append(self.next())
        return found

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, bytes, bytes]:
        """Tell it to end; exit code, and what is left of its output."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        out, err = (self._read[one] + one.read() for one in (self.stdout, self.stderr))
        return code, out, err


Start = Callable[..., Watch]


@pytest.fixture
def start() -> Iterator[Start]:
    begun: list[Watch] = []

    def start(*arguments: str | Path) -> Watch:
        begun.append(Watch(*arguments))
        return begun[-1]

    yield start
    for one in begun:
        one.process.kill()
        one.process.wait()
        one.stdout.close()
        one.stderr.close()


@pytest.fixture
def group() -> MulticastGroup:
    return free_group()


@pytest.fixture
def where(group: MulticastGroup) -> list[str]:
    return ["--group", group.address, "--port", str(group.port), "--interface", LOOPBACK]


@pytest.fixture
def say(group: MulticastGroup) -> Iterator[Callable[..., None]]:
    """Sends records to the group."""
    sender = MulticastSender(group)

    def say(*records: bytes) -> None:
        for one in records:
            sender.send(encode_packet(one))

    yield say
    sender.close()


Say = Callable[..., None]


@pytest.fixture(autouse=True)
def without_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "scamp.conf").write_text("")
    monkeypatch.setenv("SCAMP", str(tmp_path / "scamp.conf"))


# -- multicast --------------------------------------------------------------------------


@needs_multicast
def test_every_kind_of_event_is_told_as_it_happens(
    start: Start, group: MulticastGroup, where: list[str], say: Say
) -> None:
    watch = start(*where, "--json", "--all")
    assert watch.began == f"listening to {group}\n"

    say(record())
    new, came = watch.next(), watch.next()
    assert told(new) == ("announcement", "new", "shop")
    assert told(came) == ("index", "came", "shop")
    assert new["added"] == came["added"] == ["main:Shop.sell~1", "main:Bank.rob~1"]
    assert (came["actions"], came["weight"], came["sector"]) == (2, 1, "main")
    assert came["fingerprint"] == make_identity().fingerprint

    say(record())
    assert told(watch.next()) == ("announcement", "repeated", "shop")
    say(record(later=1))
    assert told(watch.next()) == ("announcement", "renewed", "shop")

    other = Action("main", "Shop", "buy", 1)
    say(record("shop", SELL, other, later=2, weight=3, uri="beepish+tls://127.0.0.1:30101"))
    changed, index = watch.next(), watch.next()
    assert told(changed) == ("announcement", "changed", "shop")
    assert told(index) == ("index", "changed", "shop")
    for facts in (changed, index):
        assert facts["changes"] == {
            "weight": [1, 3],
            "uri": ["beepish+tls://127.0.0.1:30100", "beepish+tls://127.0.0.1:30101"],
        }
        assert (facts["added"], facts["removed"]) == (["main:Shop.buy~1"], ["main:Bank.rob~1"])
    assert index["unoffered"] == ["main:Bank.rob~1"]

    say(forged())
    refused = watch.next()
    assert told(refused) == ("announcement", "refused", "shop")
    assert refused["reason"] == "signature"
    say(record(later=-60))
    assert watch.next()["reason"] == "replay"

    say(leaving(later=3))
    assert told(watch.next()) == ("announcement", "left", "shop")
    went = watch.next()
    assert told(went) == ("index", "went", "shop")
    assert went["unoffered"] == ["main:Shop.sell~1", "main:Shop.buy~1"]
    say(leaving(later=4))
    assert told(watch.next()) == ("announcement", "away", "shop")

    say(record("brief", interval=1.0))
    assert told(watch.next()) == ("announcement", "new", "brief")
    assert told(watch.next()) == ("index", "came", "brief")
    assert told(watch.next()) == ("announcement", "expired", "brief")
    assert told(watch.next()) == ("index", "went", "brief")
    assert watch.end() == (0, b"", b"")


@needs_multicast
def test_what_says_nothing_new_is_left_out(start: Start, where: list[str], say: Say) -> None:
    watch = start(*where, "--json")
    last = ("index", "came", "last")
    say(record(), record(), record(later=1), forged(), leaving("gone"), record("last"))
    expected = [
        ("announcement", "new", "shop"),
        ("announcement", "refused", "shop"),
        ("announcement", "new", "last"),
        ("index", "came", "shop"),
        last,
    ]
    assert Counter(map(told, watch.until(last))) == Counter(expected)
    say(forged(), leaving("gone", later=1), record("later"))
    assert [told(facts)[1:] for facts in watch.until(("index", "came", "later"))] == [
        ("new", "later"),
        ("came", "later"),
    ]


@needs_multicast
def test_a_line_is_for_people(start: Start, where: list[str], say: Say) -> None:
    watch = start(*where)
    say(record())
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    facts = r"main at 127\.0\.0\.1:30100; weight 1; 2 actions"
    assert re.fullmatch(rf"{stamp} announcement new      shop {facts}\n", watch.line())
    both = r"main:Shop\.sell~1, main:Bank\.rob~1"
    assert re.fullmatch(rf"{stamp} index        came     shop {facts}: {both}\n", watch.line())
    say(record("shop", SELL, later=1))
    assert watch.line().endswith("announcement changed  shop removed main:Bank.rob~1\n")
    assert "nobody offers now: main:Bank.rob~1" in watch.line()


@needs_multicast
def test_what_is_not_permitted_is_marked_and_not_in_the_index(
    tmp_path: Path, start: Start, where: list[str], say: Say
) -> None:
    authorized = tmp_path / "authorized"
    authorized.write_text(f"{make_identity().fingerprint} Shop\n")
    watch = start(*where, "--json", "--authorized-services", authorized)
    say(record())
    new, came = watch.next(), watch.next()
    assert new["not_permitted"] == ["main:Bank.rob~1"]
    assert (new["actions"], new["added"]) == (2, ["main:Shop.sell~1", "main:Bank.rob~1"])
    assert (came["actions"], came["added"]) == (1, ["main:Shop.sell~1"])
    authorized.write_text(f"{make_identity().fingerprint} Shop, Bank\n")
    changed = watch.next()
    assert told(changed) == ("index", "changed", "shop")
    assert changed["added"] == ["main:Bank.rob~1"]


@needs_multicast
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_strangers_do_not_control_the_terminal(
    start: Start, where: list[str], say: Say, form: list[str]
) -> None:
    watch = start(*where, *form)
    say(forged("EVIL").replace(b"EVIL", "\x9b31mred\u202e\x7f".encode()))
    line = watch.line()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert "refused" in line


@needs_multicast
def test_everything_can_come_from_the_configuration(
    tmp_path: Path, start: Start, group: MulticastGroup, say: Say
) -> None:
    conf, authorized = tmp_path / "soa.conf", tmp_path / "authorized"
    authorized.write_text(f"{make_identity().fingerprint} Bank\n")
    conf.write_text(
        f"discovery.multicast_address = {group.address}\ndiscovery.port = {group.port}\n"
        f"discovery.address = if:lo\nbus.authorized_services = {authorized}\n"
    )
    watch = start("--config", conf, "--only", "index")
    say(record())
    assert watch.line().endswith("1 action: main:Bank.rob~1\n")


@needs_multicast
@pytest.mark.parametrize("only", ["announcements", "index"])
def test_one_of_both_can_be_chosen(start: Start, where: list[str], say: Say, only: str) -> None:
    watch = start(*where, "--json", "--only", only)
    say(record())
    first = watch.next()
    say(record("last", later=1))
    assert {first["about"], watch.next()["about"]} == {only.removesuffix("s")}


# -- a cache file -----------------------------------------------------------------------


def test_a_cache_file_is_followed_as_it_is_replaced(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "cache"
    write_cache(path, [record(), record("bank")])
    watch = start("--cache", path, "--json")
    assert watch.began == f"following {path}\n"
    both = [("index", "came", "bank"), ("index", "came", "shop")]
    assert sorted(told(watch.next()) for _ in both) == both

    write_cache(path, [record("shop", SELL, later=1), record("bank", later=1)])
    changed = watch.next()
    assert told(changed) == ("index", "changed", "shop")
    assert changed["removed"] == ["main:Bank.rob~1"]
    assert "unoffered" not in changed  # the bank has it

    write_cache(path, [record("shop", SELL, later=2), forged("bad")])
    assert [told(facts) for facts in watch.until(("announcement", "refused", "bad"))] == [
        ("index", "went", "bank"),
        ("announcement", "refused", "bad"),
    ]
    assert watch.end() == (0, b"", b"")


def test_a_file_that_is_not_there_is_told_and_waited_for(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "cache"
    watch = start("--cache", path)
    assert watch.note().startswith(f"note: {path}: No such file")
    write_cache(path, [record()])
    assert " came     shop " in watch.line()
    assert watch.note() == "note: all is well again\n"


def test_a_file_whose_writer_died_is_told(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "cache"
    write_cache(path, [record()])
    os.utime(path, (NOW - 1000, NOW - 1000))
    watch = start("--cache", path)
    assert "the writer has died" in watch.note()
    assert " came     shop " in watch.line()


@pytest.mark.parametrize(
    ("options", "came"),
    [
        ((), {"shop", "bank"}),
        (("--name", "sh*"), {"shop"}),
        (("--sector", "back"), {"bank"}),
        (("--action", "Shop.*"), {"shop"}),
        (("--only", "announcements"), set()),
    ],
)
def test_only_what_was_asked_for_is_told(
    run: Run, tmp_path: Path, options: tuple[str, ...], came: set[str]
) -> None:
    path = tmp_path / "cache"
    vault = Action("back", "Vault", "open", 1)
    write_cache(path, [record("shop", SELL), record("bank", vault, sector="back")])
    result = run("watch", "--cache", path, "--json", "--once", "0.01", *options)
    assert result.exit_code == Exit.OK
    assert {json.loads(line)["identity"] for line in result.stdout.splitlines()} == came


# -- usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cache", "x", "--group", "239.1.1.1"], "--cache goes without"),
        (["--cache", "x", "--port", "5555"], "--cache goes without"),
        (["--cache", "x", "--interface", "if:lo"], "--cache goes without"),
        (["--interface", "192.0.2.77"], "192.0.2.77"),
        (["--interface", "if:nowhere0"], "nowhere0"),
        (["--interface", LOOPBACK, "--group", "10.0.0.1"], "not an IPv4 multicast address"),
        (["--interface", LOOPBACK, "--authorized-services", "absent"], "absent: No such file"),
        (["--config", "absent"], "absent: No such file"),
    ],
)
def test_what_cannot_be_watched_is_wrong_usage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("watch", *arguments, "--once", "1")
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert says in result.stderr


# -- the end ----------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file whose events do not fit in a pipe."""
    many = tuple(Action("main", "Shop", f"sell{n:05}" + "x" * 90, 1) for n in range(2_000))
    write_cache(tmp_path / "large", [record("shop", *many)])
    return tmp_path / "large"


@needs_multicast
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly(
    start: Start, where: list[str], say: Say, number: signal.Signals
) -> None:
    watch = start(*where, "--json")
    say(record())
    watch.until(("index", "came", "shop"))
    assert watch.end(number) == (0, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_though_nobody_reads(
    start: Start, large: Path, number: signal.Signals
) -> None:
    watch = start("--cache", large, "--json")
    code, left, error = watch.end(number)
    assert (code, error) == (0, b"")
    assert left.startswith(b'{"time": ')
    assert not left.endswith(b"\n")  # it did not fit, or this tries nothing


def test_what_was_told_in_time_is_written_though_it_is_read_late(start: Start, large: Path) -> None:
    watch = start("--cache", large, "--json", "--once", "0.01")
    with pytest.raises(subprocess.TimeoutExpired):
        watch.process.wait(1)
    assert len(watch.next()["added"]) == 2_000
    assert watch.process.wait(PATIENCE) == 0


def test_who_reads_no_further_ends_it_without_another_event(tmp_path: Path, start: Start) -> None:
    write_cache(tmp_path / "cache", [record()])
    watch = start("--cache", tmp_path / "cache")
    watch.line()
    watch.stdout.close()
    assert watch.process.wait(PATIENCE) == Exit.FAILED
    assert watch.stderr.read() == b""


def test_head_has_its_line_and_all_is_over(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [record(), record("bank")])
    command = f"{sys.executable} -m scamp.cli watch --cache {tmp_path / 'cache'} | head -1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == f"following {tmp_path / 'cache'}\n"


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", [record()])
    command = [sys.executable, "-m", "scamp.cli", "watch", "--cache", str(tmp_path / "cache")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
        )
    assert done.returncode == Exit.FAILED
    assert done.stderr.endswith("Error: No space left on device\n")
