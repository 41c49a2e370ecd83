"""``scamp serve`` as a process, called by ``scamp request``."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from multicast import free_group, needs_multicast, receive

from scamp import keys
from scamp.discovery import Announcement, parse_announcement, split_records
from scamp.discovery.multicast import decode_packet, open_receiver

Run = Callable[..., Result]


class Serving:
    """The command, from its first words on."""

    def __init__(self, *options: str | Path) -> None:
        command = [sys.executable, "-m", "scamp.cli", "serve", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.told = ""
        for line in self.process.stdout:
            self.told += line
            if line.startswith("Ctrl-C"):
                break

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.told)
        assert match is not None, self.told
        return match[1]

    @property
    def address(self) -> str:
        return self.found(r"serves at (\S+)\n")

    @property
    def fingerprint(self) -> str:
        return self.found(r"certificate (\S+)\n")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    conf = tmp_path / "scamp.conf"
    conf.write_text("")
    monkeypatch.setenv("SCAMP", str(conf))
    started: list[Serving] = []

    def serve(*options: str | Path) -> Serving:
        started.append(Serving(*options))
        return started[-1]

    yield serve
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def read(path: Path) -> Announcement:
    (record,) = split_records(path.read_bytes())
    return parse_announcement(record)


def test_what_it_says_to_type_works_as_it_stands(serve: Serve, tmp_path: Path) -> None:
    serving = serve("--cache", tmp_path / "trial cache")
    lines = [line.strip() for line in serving.told.splitlines() if "scamp request" in line]
    assert len(lines) == 2
    for line in lines:
        command = line.replace("scamp", f"{sys.executable} -m scamp.cli", 1)
        done = subprocess.run(command, shell=True, capture_output=True, check=False)  # noqa: S602
        assert (done.returncode, done.stdout) == (0, b'{"hello": "world"}')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_cleanly_when_told_to(
    serve: Serve, run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    serving = serve("--cache", cache)
    assert run("request", "Scamp.echo", "--cache", cache).exit_code == 0
    assert serving.stop(number) == (0, "")
    assert read(cache).weight == 0
    assert run("request", "Scamp.echo", "--cache", cache).exit_code == 3


def test_it_can_be_started_again_on_the_same_cache_file(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    serve("--cache", cache).stop()
    serving = serve("--cache", cache)
    assert read(cache).uri == f"beepish+tls://{serving.address}"


@pytest.mark.parametrize("content", [b"dear diary", b"\n%%%\nnonsense"])
def test_cache_file_that_holds_other_things_is_left_alone(
    run: Run, tmp_path: Path, content: bytes
) -> None:
    precious = tmp_path / "cache"
    precious.write_bytes(content)
    result = run("serve", "--cache", precious)
    assert result.exit_code == 2
    assert "name another file" in result.stderr
    assert precious.read_bytes() == content


def test_cache_file_of_another_service_is_left_alone(
    serve: Serve, run: Run, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    serve("--cache", cache).stop()
    assert run("serve", "--cache", cache, "--name", "other").exit_code == 2


def test_key_name_and_sector_are_those_that_are_given(
    serve: Serve, run: Run, made: Path, tmp_path: Path
) -> None:
    cache, record = tmp_path / "cache", tmp_path / "record"
    options = ("--key", made / "shop.key", "--name", "shop", "--sector", "web")
    serving = serve(*options, "--cache", cache, "--announce-file", record)
    assert serving.fingerprint == keys.fingerprint((made / "shop.crt").read_bytes())
    service = read(cache)
    assert (service.name, service.sector) == ("shop", "web")
    assert "web:Scamp.echo" in serving.told
    assert run("request", "web:Scamp.time", "--cache", cache).exit_code == 0
    while not record.exists():
        assert serving.process.poll() is None
    assert parse_announcement(record.read_bytes()).key == service.key


def test_its_actions_do_what_they_say(serve: Serve, run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    serve("--cache", cache)

    def call(action: str, body: str = "{}", *options: str) -> Result:
        return run("request", f"Scamp.{action}", body, "--cache", cache, *options)

    assert json.loads(call("time").stdout)["seconds"] > 1e9
    assert call("bytes", '{"size": 100000}').stdout_bytes == bytes(range(256)) * 390 + bytes(
        range(160)
    )
    assert json.loads(call("sleep", '{"seconds": 0}').stdout) == {"seconds": 0}
    failed = call("fail", '{"code": "conflict", "message": "taken", "data": {"by": 7}}')
    assert (failed.exit_code, failed.stderr.splitlines()[-2:]) == (
        1,
        ['error_data: {"by": 7}', "Error: conflict: taken"],
    )
    options = ("--client-id", "7", "--header", "note=x", "--ticket", "secret")
    caller = json.loads(call("caller", "{}", *options).stdout)
    assert (caller["client_id"], caller["ticket"], caller["header"]) == (7, True, {"note": "x"})
    assert "secret" not in str(caller)
    for body in ("[]", '{"size": -1}', '{"size": true}', '{"size": 1e99}'):
        assert "bad_request" in call("bytes", body).stderr


def test_ticket_is_wanted_where_there_is_a_key_to_check_it(
    serve: Serve, run: Run, made: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    serve("--cache", cache, "--ticket-key", made / "shop.pub")
    assert run("request", "Scamp.ticket", "--cache", cache).exit_code == 4
    issuing = ("ticket", "issue", "--key", made / "shop.key", "--user", "7", "--client", "9")
    ticket = run(*issuing).stdout
    result = run("request", "Scamp.ticket", "--cache", cache, "--ticket", ticket)
    assert json.loads(result.stdout)["user_id"] == 7


def test_without_a_key_to_check_tickets_no_action_wants_one(
    serve: Serve, run: Run, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    serve("--cache", cache)
    assert run("request", "Scamp.ticket", "--cache", cache).exit_code == 3


@pytest.mark.parametrize(
    "options",
    [
        ("--cert", "x.crt"),
        ("--key", "absent.key"),
        ("--host", "0.0.0.0"),  # noqa: S104 - refused, that is the point
        ("--host", "192.0.2.1"),
        ("--port", "65536"),
        ("--config", "absent.conf"),
        ("--cache", "/absent/cache"),
        ("--announce-file", "/absent/record"),
    ],
)
def test_what_cannot_be_served_is_exit_2(run: Run, options: tuple[str, ...]) -> None:
    result = run("serve", *options)
    assert result.exit_code == 2
    assert result.stderr.count("Error: ") == 1


def test_request_in_flight_is_answered_when_it_is_told_to_stop(
    serve: Serve, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    serving = serve("--cache", cache)
    command = [sys.executable, "-m", "scamp.cli", "request", "Scamp.echo", "-"]
    command += ["--cache", str(cache)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as caller:
        assert caller.stdin is not None
        assert caller.stdout is not None
        caller.stdin.write(b"first")
        caller.stdin.flush()
        assert os.read(caller.stdout.fileno(), 5) == b"first"
        serving.process.send_signal(signal.SIGTERM)
        caller.stdin.write(b" second")
        caller.stdin.close()
        assert caller.stdout.read() == b" second"
        assert caller.wait(20) == 0
    assert serving.process.wait(20) == 0


# -- announced by multicast ---------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
@needs_multicast
def test_it_is_announced_where_the_configuration_says(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    group = free_group()
    conf = tmp_path / "mesh.conf"
    conf.write_text(
        f"bus.address = 127.0.0.1\n"
        f"discovery.multicast_address = {group.address}\n"
        f"discovery.port = {group.port}\n"
    )
    if not named:
        monkeypatch.setenv("SCAMP", str(conf))
    with open_receiver(group) as receiver:
        serving = serve(*(("--config", conf) if named else ("--announce",)))
        heard = parse_announcement(decode_packet(receive(receiver)))
        assert (heard.fingerprint, heard.weight) == (serving.fingerprint, 1)
        serving.process.send_signal(signal.SIGTERM)
        while heard.weight:
            heard = parse_announcement(decode_packet(receive(receiver)))
        assert serving.stop() == (0, "")


@needs_multicast
def test_it_is_not_announced_when_that_is_not_wanted(serve: Serve, tmp_path: Path) -> None:
    group = free_group()
    conf = tmp_path / "mesh.conf"
    conf.write_text(
        f"bus.address = 127.0.0.1\n"
        f"discovery.multicast_address = {group.address}\n"
        f"discovery.port = {group.port}\n"
    )
    with open_receiver(group) as receiver:
        assert serve("--config", conf, "--no-announce").stop() == (0, "")
        assert select.select([receiver], [], [], 0) == ([], [], [])
