"""``scamp request`` against a real service, over TLS, through a real cache file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from scamp import keys
from scamp.discovery import write_cache
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
