"""``scamp request`` against a real service, over TLS, through a real cache file."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import Result

from scamp import keys, limits
from scamp.cli import progress
from scamp.discovery import Action, AnnouncementSpec, build_announcement, write_cache
from scamp.errors import ServiceError
from scamp.server import Request, Service
from scamp.tickets import TicketVerifier

Run = Callable[..., Result]


class Shop:
    """A service with a loop and a thread of its own, as the command brings its own loop."""

    def __init__(self, made: Path, folder: Path) -> None:
        certificate = (made / "shop.crt").read_bytes()
        self.cache = folder / "cache"
        self.authorized = folder / "authorized_services"
        self.authorized.write_text(f"{keys.fingerprint(certificate)} main:ALL\n")
        verifier = TicketVerifier([keys.load_public_key(certificate)])
        self.service = Service(
            "shop",
            key=(made / "shop.key").read_bytes(),
            certificate=certificate,
            envelopes=("json", "octets"),
            ticket_verifier=verifier,
        )
        _register(self.service)
        _register_others(self.service)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._wait(self.service.start("127.0.0.1", 0))
        write_cache(self.cache, [self.service.announcement()])

    def _wait(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def stop(self) -> None:
        """Stop serving; the cache file goes on telling of the service."""
        if not self.service.stopping:
            self._wait(self.service.stop(grace=0))

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def options(self) -> tuple[str, ...]:
        return ("--cache", str(self.cache), "--authorized-services", str(self.authorized))


def _register(service: Service) -> None:
    @service.action("Echo.body", flags="noauth,read")
    async def echo(request: Request) -> AsyncIterator[bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request:
                yield piece

        return pieces()

    @service.action("Echo.form", version=2, flags="noauth")
    async def form(request: Request) -> dict[str, str]:
        return {"envelope": request.envelope}

    @service.action("Echo.header", flags="noauth")
    async def header(request: Request) -> dict[str, object]:
        return {"client_id": request.client_id, "extra": dict(request.header.extra)}

    @service.action("Bytes.endless", flags="noauth")
    async def endless(request: Request) -> AsyncIterator[bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield bytes(10_000)

        return pieces()


def _register_others(service: Service) -> None:
    @service.action("Who.am")
    async def who(request: Request) -> dict[str, int]:
        assert request.ticket is not None
        return {"user": request.ticket.user_id}

    @service.action("Fail.now", flags="noauth")
    async def fail(request: Request) -> None:
        raise ServiceError("conflict", "taken\x1b already", {"by": 7})

    @service.action("Fail.denied", flags="noauth")
    async def denied(request: Request) -> None:
        raise ServiceError("access_denied", "not yours")

    @service.action("Fail.quoting", flags="noauth")
    async def quoting(request: Request) -> None:
        ticket = str(await request.json())
        raise ServiceError(f"bad {ticket}", f"no: {ticket}", {"ticket": ticket})

    @service.action("Fail.midway", flags="noauth")
    async def midway(request: Request) -> AsyncIterator[bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise ServiceError("internal", "broke")

        return pieces()

    @service.action("Slow.wait", flags="noauth")
    async def wait(request: Request) -> None:
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(made, tmp_path)
    yield shop
    shop.close()


@pytest.fixture
def ticket(run: Run, made: Path) -> str:
    issuing = ("ticket", "issue", "--key", made / "shop.key", "--user", "7", "--client", "9")
    return str(run(*issuing).stdout)


def test_body_goes_out_and_the_reply_comes_back_as_it_is(run: Run, shop: Shop) -> None:
    result = run("request", "Echo.body~1", '{"a": "é"}', *shop.options)
    assert result.exit_code == 0
    assert result.stdout == '{"a": "é"}'
    assert result.stderr == ""


def test_without_a_body_an_empty_object_is_sent(run: Run, shop: Shop) -> None:
    assert run("request", "main:echo.BODY", *shop.options).stdout == "{}"


@pytest.mark.parametrize("size", [0, 1000, 65_536, 300_001])
def test_body_comes_from_a_file_of_any_size(
    run: Run, shop: Shop, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "body").write_bytes(content)
    result = run("request", "Echo.body", f"@{tmp_path / 'body'}", *shop.options)
    assert result.exit_code == 0
    assert result.stdout_bytes == content


def test_standard_input_streams_through_before_it_has_ended(shop: Shop) -> None:
    command = [sys.executable, "-m", "scamp.cli", "request", "Echo.body", "-", *shop.options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for piece in (b"first\n", b"second\n"):
            process.stdin.write(piece)
            process.stdin.flush()
            assert process.stdout.readline() == piece
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(20) == 0


def test_command_ends_with_the_reply_although_input_stays_open(shop: Shop) -> None:
    command = [sys.executable, "-m", "scamp.cli", "request", "Fail.now", "-", *shop.options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(20) == 1


def test_envelope_is_passed_on(run: Run, shop: Shop) -> None:
    result = run("request", "Echo.form~2", "--envelope", "octets", *shop.options)
    assert result.stdout == '{"envelope":"octets"}'


def test_ticket_is_sent_from_option_file_and_environment(
    run: Run, shop: Shop, ticket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").write_text(ticket)
    by_file = run("request", "Who.am", "--ticket-file", tmp_path / "t", *shop.options)
    by_option = run("request", "Who.am", "--ticket", ticket, *shop.options)
    monkeypatch.setenv("SCAMP_TICKET", ticket)
    by_environment = run("request", "Who.am", *shop.options)
    assert by_file.stdout == by_option.stdout == by_environment.stdout == '{"user":7}'


@pytest.mark.parametrize("form", ["text", "json", "scamp"])
def test_a_ticket_that_a_service_repeats_is_not_told(
    run: Run, shop: Shop, ticket: str, form: str
) -> None:
    signature = ticket.rpartition(",")[2].strip()
    log = ("-vv", "--log-form", form)
    body = json.dumps(ticket.strip())
    result = run(*log, "request", "Fail.quoting", body, "--ticket", ticket, *shop.options)
    assert result.exit_code == 1
    assert result.stderr.count("[ticket]") == 3
    assert signature[:16] not in result.output
    assert signature[-16:] not in result.output


def test_missing_ticket_is_exit_4(run: Run, shop: Shop) -> None:
    result = run("request", "Who.am", *shop.options)
    assert result.exit_code == 4
    assert result.stdout == ""


def test_services_error_is_exit_1_with_its_data(run: Run, shop: Shop) -> None:
    result = run("request", "Fail.now", *shop.options)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        'error_data: {"by": 7}',
        "Error: conflict: taken  already",
    ]
    assert run("request", "Fail.denied", *shop.options).exit_code == 4


def test_reply_that_breaks_off_is_exit_1_though_something_came(run: Run, shop: Shop) -> None:
    result = run("request", "Fail.midway", *shop.options)
    assert result.exit_code == 1
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("Echo.absent",), "scamp list actions"),
        (("Echo.body~2",), "scamp list actions"),
        (("Echo.body", "--envelope", "xml"), "--envelope"),
        (("Slow.wait", "--timeout", "0.2"), "--timeout"),
    ],
)
def test_what_reaches_nothing_is_exit_3_with_advice(
    run: Run, shop: Shop, arguments: tuple[str, ...], told: str
) -> None:
    result = run("request", *arguments, *shop.options)
    assert result.exit_code == 3
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("noaction",), ("a:b:c.d",), ("Echo.body", "@/absent")])
def test_wrong_usage_is_exit_2(run: Run, shop: Shop, arguments: tuple[str, ...]) -> None:
    assert run("request", *arguments, *shop.options).exit_code == 2


def test_action_that_is_not_authorized_does_not_exist(run: Run, shop: Shop, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody"
    nobody.write_text("# nobody\n")
    options = ("--cache", shop.cache, "--authorized-services", nobody)
    assert run("request", "Echo.body", *options).exit_code == 3


def test_service_that_has_gone_is_exit_3(run: Run, shop: Shop) -> None:
    shop.stop()
    result = run("request", "Echo.body", *shop.options)
    assert result.exit_code == 3
    assert "cannot connect" in result.stderr


# -- who is asked -------------------------------------------------------------------------


def address_of(shop: Shop) -> str:
    return shop.service.uri.removeprefix("beepish+tls://")


def test_address_is_asked_without_any_file_and_its_certificate_is_told(
    run: Run, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCAMP", "/absent/scamp.conf")
    result = run("request", "Echo.form~2", "--connect", address_of(shop))
    assert (result.exit_code, result.stdout) == (0, '{"envelope":"json"}')
    assert result.stderr == (
        f"note: certificate {shop.service.fingerprint} not checked (see --fingerprint)\n"
    )


def test_address_with_the_right_fingerprint_needs_no_note(run: Run, shop: Shop) -> None:
    fingerprint = shop.service.fingerprint.lower()
    options = ("--connect", address_of(shop), "--fingerprint", fingerprint)
    result = run("request", "Echo.body", "[1]", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "[1]", "")


def test_address_with_another_certificate_is_exit_3(run: Run, shop: Shop) -> None:
    other = "AB" + shop.service.fingerprint[2:]
    result = run("request", "Echo.body", "--connect", address_of(shop), "--fingerprint", other)
    assert result.exit_code == 3
    assert f"certificate {shop.service.fingerprint}, announced {other}" in result.stderr
    assert shop.service.requests == 0


def test_address_where_nobody_is_is_exit_3(run: Run, shop: Shop) -> None:
    shop.stop()
    result = run("request", "Echo.body", "--connect", address_of(shop))
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1


def test_ticket_goes_only_where_the_certificate_is_checked(
    run: Run, shop: Shop, ticket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked = ("request", "Who.am", "--connect", address_of(shop))
    refused = run(*unchecked, "--ticket", ticket)
    assert refused.exit_code == 2
    assert "--fingerprint" in refused.stderr
    checked = run(*unchecked, "--ticket", ticket, "--fingerprint", shop.service.fingerprint)
    assert checked.stdout == '{"user":7}'
    monkeypatch.setenv("SCAMP_TICKET", ticket)
    withheld = run(*unchecked)
    assert withheld.exit_code == 4
    assert "SCAMP_TICKET not sent" in withheld.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--connect", "127.0.0.1:1", "--service", "shop"),
        ("--connect", "127.0.0.1:1", "--cache", "cache"),
        ("--connect", "127.0.0.1"),
        ("--connect", "127.0.0.1:1", "--fingerprint", "AB"),
        ("--fingerprint", "AB:" * 19 + "AB"),
        ("--header", "name"),
        ("--header", "client_id=7"),
    ],
)
def test_options_that_make_no_sense_are_exit_2(run: Run, options: tuple[str, ...]) -> None:
    assert run("request", "Echo.body", *options).exit_code == 2


def test_one_service_of_several_is_asked_by_name_or_identity(
    run: Run, shop: Shop, made: Path
) -> None:
    key = keys.load_private_key((made / "shop.key").read_bytes())
    spec = AnnouncementSpec(
        identity="elsewhere:" + "B" * 24,
        sector="main",
        weight=1000,
        interval=5.0,
        uri="beepish+tls://127.0.0.1:1",
        envelopes=("json",),
        actions=(Action("main", "Echo", "form", 2, ("noauth",)),),
    )
    other = build_announcement(spec, key, (made / "shop.crt").read_bytes(), timestamp=1e9)
    write_cache(shop.cache, [shop.service.announcement(), other])
    for service in ("shop", "SHOP", shop.service.identity):
        result = run("request", "Echo.form~2", "--service", service, *shop.options)
        assert (result.exit_code, result.stdout) == (0, '{"envelope":"json"}')
    assert run("request", "Echo.form~2", "--service", "elsewhere", *shop.options).exit_code == 3
    absent = run("request", "Echo.form~2", "--service", "sho", *shop.options)
    assert absent.exit_code == 3
    assert "elsewhere, shop would" in absent.stderr


def test_client_id_and_further_header_fields_are_sent(run: Run, shop: Shop) -> None:
    options = ("--client-id", "9", "--header", "traceparent=00-ab=", "--header", "note=")
    result = run("request", "Echo.header", *options, *shop.options)
    assert json.loads(result.stdout) == {
        "client_id": 9,
        "extra": {"traceparent": "00-ab=", "note": ""},
    }


# -- where the reply goes -----------------------------------------------------------------


def test_reply_goes_to_a_file_that_is_there_only_when_it_is_whole(
    run: Run, shop: Shop, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "reply"
    assert run("request", "Fail.midway", "-o", target, *shop.options).exit_code == 1
    assert list(folder.iterdir()) == []
    target.write_text("before")
    assert run("request", "Fail.midway", "-o", target, *shop.options).exit_code == 1
    assert target.read_text() == "before"
    result = run("request", "Echo.body", '{"a": 1}', "-o", target, *shop.options)
    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_text() == '{"a": 1}'
    assert list(folder.iterdir()) == [target]


def test_reply_to_where_nothing_can_be_written_is_exit_2(
    run: Run, shop: Shop, tmp_path: Path
) -> None:
    result = run("request", "Echo.body", "-o", tmp_path / "absent" / "x", *shop.options)
    assert result.exit_code == 2
    assert "absent/x: No such file" in result.stderr


def test_reply_can_go_to_what_is_no_file(run: Run, shop: Shop) -> None:
    result = run("request", "Echo.body", "-o", "/dev/null", *shop.options)
    assert (result.exit_code, result.stdout) == (0, "")
    assert Path("/dev/null").is_char_device()


def test_terminal_sees_how_far_a_large_body_has_come(shop: Shop, tmp_path: Path) -> None:
    size = 3 * limits.MIB
    (tmp_path / "body").write_bytes(bytes(size))
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "scamp.cli", "request", "Echo.body", f"@{tmp_path / 'body'}"]
    command += ["-o", str(tmp_path / "reply"), *shop.options]
    with subprocess.Popen(command, stderr=slave) as process:
        os.close(slave)
        seen = b""
        with suppress(OSError):  # a terminal ends so, when nobody has it open any more
            while piece := os.read(master, 1000):
                seen += piece
        assert process.wait(20) == 0
    os.close(master)
    assert (tmp_path / "reply").stat().st_size == size
    assert b"\rsent 1.0 MiB of 3.0 MiB (33 %)" in seen
    assert b"\rreceived 1.0 MiB" in seen
    assert seen.endswith(b" \r")


@pytest.mark.parametrize(("options", "told"), [((), False), (("--progress",), True)])
def test_what_is_no_terminal_sees_it_only_when_asked(
    run: Run, shop: Shop, tmp_path: Path, options: tuple[str, ...], told: bool
) -> None:
    (tmp_path / "body").write_bytes(bytes(2 * limits.MIB))
    arguments = ("Echo.body", f"@{tmp_path / 'body'}", "-o", tmp_path / "reply")
    result = run("request", *arguments, *options, *shop.options)
    assert ("sent 1.0 MiB of 2.0 MiB" in result.stderr) is told


def test_reader_that_goes_away_ends_the_command_quietly(shop: Shop) -> None:
    command = [sys.executable, "-m", "scamp.cli", "request", "Bytes.endless", *shop.options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1000)
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr.read() == b""


def test_interrupted_request_says_that_it_may_have_been_executed(shop: Shop) -> None:
    command = [sys.executable, "-m", "scamp.cli", "request", "Bytes.endless", *shop.options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1000)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert process.returncode == 1
        assert told == b"Error: interrupted; the request may have been executed\n"


# -- amounts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 50, "5120.0 TiB")],
)
def test_amounts_are_told_for_people(count: int, told: str) -> None:
    assert progress.amount(count) == told


def test_state_tells_share_and_rate_where_they_are_known() -> None:
    assert progress.line("sent", 512, 2048, 2) == "sent 512 B of 2.0 KiB (25 %), 256 B/s"
    assert progress.line("received", 512, None, 0) == "received 512 B"
