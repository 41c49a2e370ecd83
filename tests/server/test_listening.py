"""Ports, addresses, strangers at the door, announcements, and running as a process."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from scamp.config import ScampConf
from scamp.discovery import Announcement, parse_announcement
from scamp.errors import ConfigError
from scamp.server import Request, Service, listener, run_service, runner
from scamp.server.listener import bind
from scamp.testing import TestIdentity, TestPeer, dial, make_identity, until
from scamp.wire import RequestHeader

Connect = Callable[[Service], Awaitable[TestPeer]]
HOST = "127.0.0.1"


def make_service(identity: TestIdentity | None = None, conf: str | None = None) -> Service:
    identity = identity or make_identity()
    made = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        require_tickets=False,
        interval=0.02,
        config=None if conf is None else ScampConf.parse(conf),
    )

    @made.action("a.b", version=2, flags="read,t30")
    async def handler(request: Request) -> object:
        return "done"

    return made


# -- ports --------------------------------------------------------------------------------


def test_a_port_of_the_range_is_taken() -> None:
    with bind(HOST, None, range(30100, 30400), 20) as sock:
        assert sock.getsockname()[1] in range(30100, 30400)


def test_port_0_is_any_port() -> None:
    with bind(HOST, 0, range(1, 2), 1) as sock:
        assert sock.getsockname()[1] > 0


def test_taken_ports_are_passed_over_until_the_tries_are_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def taken(host: str, port: int) -> socket.socket:
        tried.append(port)
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(listener, "_listen", taken)
    with pytest.raises(ConfigError, match="5 ports of 30100-30399"):
        bind(HOST, None, range(30100, 30400), 5)
    assert len(set(tried)) == 5


def test_a_range_smaller_than_the_tries_is_tried_once_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bind(HOST, 0, range(0), 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port}"):
            bind(HOST, None, range(port, port + 1), 20)


def test_an_address_that_is_not_ours_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0, range(1, 2), 1)


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_what_is_no_port_is_refused_and_no_other_is_taken(port: int) -> None:
    with pytest.raises(ConfigError, match=f"{port} is not a port"):
        bind(HOST, port, range(1, 2), 1)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("192.0.2.1", "no interface of this machine has this address"),
        ("x" * 70 + ".example", "no address and no name"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(host: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on {host}.*{told}"):
        bind(host, 0, range(1, 2), 1)


def test_a_port_that_is_taken_says_by_whom_it_may_be() -> None:
    with bind(HOST, 0, range(0), 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="another service has it, or this one runs already"):
            bind(HOST, port, range(0), 0)
        with pytest.raises(ConfigError, match="1 ports of"):  # and not all the tries it may have
            bind(HOST, None, range(port, port + 1), 20)


@pytest.mark.parametrize("line", ["beepish.server_timeout = soon", "flow.max_inflight = 0"])
async def test_a_configuration_that_makes_no_sense_is_told_before_anybody_connects(
    line: str,
) -> None:
    service = make_service(conf=f"service.address = 127.0.0.1\n{line}")
    with pytest.raises(ConfigError, match=line.partition(" ")[0]):
        await service.start()


async def test_a_service_that_was_stopped_before_it_began_does_not_start() -> None:
    service = make_service()
    await service.stop()
    with pytest.raises(ConfigError, match="new Service"):
        await service.start(HOST, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": ""}, "no name for a service"),
        ({"name": "a\nb"}, "no name for a service"),
        ({"name": "\ud800"}, "no name for a service"),
        ({"name": "x" * 201}, "no name for a service"),
        ({"interval": 0}, "interval"),
        ({"interval": -5}, "interval"),
        ({"interval": float("nan")}, "interval"),
        ({"weight": -1}, "weight"),
        ({"weight": True}, "weight"),
    ],
)
def test_what_could_not_be_announced_is_refused_when_the_service_is_made(
    arguments: dict[str, Any], told: str
) -> None:
    identity = make_identity()
    given = {"name": "shop", "key": identity.key, "certificate": identity.certificate} | arguments
    with pytest.raises(ConfigError, match=told):
        Service(**given)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"key": "stock.key"}, "key: give the bytes of the PEM file, not a str"),
        ({"certificate": Path("stock.crt")}, "certificate: give the bytes"),
        ({"certificate": b""}, "certificate: not a certificate"),
        ({"key": b""}, "private key"),
    ],
)
def test_what_is_no_key_or_certificate_is_told_apart(arguments: dict[str, Any], told: str) -> None:
    identity = make_identity()
    given = {"key": identity.key, "certificate": identity.certificate} | arguments
    with pytest.raises(ConfigError, match=told):
        Service("shop", **given)


async def test_the_longest_name_can_be_announced() -> None:
    identity = make_identity()
    service = Service("x" * 200, key=identity.key, certificate=identity.certificate)
    await service.start(HOST, 0)
    assert parse_announcement(service.announcement()).identity == service.identity
    await service.stop()


async def test_the_configuration_sets_address_and_ports() -> None:
    with bind(HOST, 0, range(0), 0) as probe:
        port = probe.getsockname()[1]
    text = f"service.address = 127.0.0.1\nbeepish.first_port = {port}\nbeepish.last_port = {port}"
    service = make_service(conf=text)
    assert await service.start() == (HOST, port)
    await service.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
async def test_a_wildcard_is_not_announced(host: str) -> None:
    with pytest.raises(ConfigError, match="announce_host"):
        await make_service().start(host, 0)


async def test_another_address_can_be_announced() -> None:
    service = make_service()
    _, port = await service.start("0.0.0.0", 0, announce_host="shop.example")  # noqa: S104
    announced = parse_announcement(service.announcement())
    assert (announced.host, announced.port) == ("shop.example", port)
    await service.stop()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6_is_announced_in_brackets() -> None:
    service = make_service()
    try:
        _, port = await service.start("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert service.uri == f"beepish+tls://[::1]:{port}"
    client = await dial("::1", port, fingerprint=service.fingerprint)
    reply = await client.call(RequestHeader("a.b", 1, version=2))
    assert await reply.read_all(100) == b'"done"'
    await client.close()
    await service.stop()


# -- the door -----------------------------------------------------------------------------


async def test_a_client_without_tls_is_turned_away_and_no_other(connect: Connect) -> None:
    service = make_service()
    client = await connect(service)
    port = int(service.uri.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"HEADER 0 2\r\n{}END\r\n")
    await reader.read()  # at most a TLS alert, then the end
    writer.close()
    await writer.wait_closed()
    reply = await client.call(RequestHeader("a.b", 1, version=2))
    assert await reply.read_all(100) == b'"done"'
    assert service.connections == 1


async def test_a_handshake_that_does_not_go_on_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT", 0.05)
    service = make_service()
    reader, writer = await asyncio.open_connection(*await service.start(HOST, 0))
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    inner = service._traffic.listener
    assert inner is not None
    await until(lambda: not inner.handshaking)
    assert (inner.failed, len(inner._live)) == (1, 0)
    await service.stop()


async def test_handshakes_under_way_do_not_outlive_the_service() -> None:
    service = make_service()
    host, port = await service.start(HOST, 0)
    writers = [(await asyncio.open_connection(host, port))[1] for _ in range(5)]
    await service.stop()
    assert service._traffic.listener is not None
    assert service._traffic.listener.handshaking == 0
    for writer in writers:
        writer.close()


async def test_connections_that_were_accepted_last_do_not_outlive_the_service() -> None:
    service = make_service()
    host, port = await service.start(HOST, 0)
    with socket.create_connection((host, port)):  # the loop has not seen it yet
        await service.stop()


async def test_running_out_of_descriptors_is_survived(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "_PAUSE", 0.01)
    service = make_service()
    await connect(service)
    inner = service._traffic.listener
    assert inner is not None
    real = inner._socks[0]

    class Exhausted:
        failures = 2

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return real.accept()

        def fileno(self) -> int:
            return real.fileno()

        def close(self) -> None:
            real.close()

    inner._socks[0] = Exhausted()  # type: ignore[call-overload]
    client = await connect(service)
    reply = await client.call(RequestHeader("a.b", 1, version=2))
    assert await reply.read_all(100) == b'"done"'
    assert caplog.text.count("cannot accept") == 2


# -- the announcement ---------------------------------------------------------------------


async def test_the_announcement_is_signed_and_says_it_all() -> None:
    service = make_service()
    _, port = await service.start(HOST, 0)
    announced = parse_announcement(service.announcement(now=1_700_000_000.5))
    assert announced.identity == service.identity
    assert announced.fingerprint == service.fingerprint == make_identity().fingerprint
    assert (announced.host, announced.port) == (HOST, port)
    assert (announced.sector, announced.weight, announced.interval) == ("main", 1, 0.02)
    assert announced.timestamp == 1_700_000_000.5
    action, *own = announced.actions
    assert (action.spelling, action.version, action.flags) == ("a.b", 2, ("read", "t30"))
    assert action.envelopes == ("json",)
    assert [one.spelling for one in own] == ["shop.queue_depth", "_meta.documentation"]
    await service.stop()


async def test_timestamps_grow_though_the_clock_steps_back() -> None:
    service = make_service()
    await service.start(HOST, 0)
    future = parse_announcement(service.announcement(now=4_000_000_000.0))
    assert parse_announcement(service.announcement()).timestamp > future.timestamp
    await service.stop()


def test_without_an_address_there_is_nothing_to_announce() -> None:
    with pytest.raises(ConfigError, match="started"):
        make_service().announcement()


def test_each_service_is_someone_else() -> None:
    assert make_service().identity != make_service().identity


async def test_no_action_is_added_behind_the_announcements_back() -> None:
    service = make_service()
    await service.start(HOST, 0)
    with pytest.raises(ConfigError, match="before"):
        service.action("a.late")
    await service.stop()


# -- running ------------------------------------------------------------------------------


def folder_content(path: Path) -> list[Path]:
    return list(path.iterdir())


async def announced_at(path: Path) -> Announcement:
    """What the record at `path` says, once there is one."""
    await until(path.exists)
    return read(path)


def read(path: Path) -> Announcement:
    return parse_announcement(path.read_bytes())


async def test_a_running_service_keeps_its_record_fresh_and_says_goodbye(tmp_path: Path) -> None:
    service, trigger, path = make_service(), asyncio.Event(), tmp_path / "shop"
    running = asyncio.create_task(
        run_service(service, HOST, 0, announce_file=path, trigger=trigger)
    )
    first = await announced_at(path)
    await until(lambda: read(path).timestamp > first.timestamp)
    client = await dial(first.host, first.port, fingerprint=first.fingerprint)
    reply = await client.call(RequestHeader("a.b", 1, version=2))
    assert await reply.read_all(100) == b'"done"'
    trigger.set()
    await running
    await client.lost
    last = read(path)
    assert (last.key, last.weight, last.actions) == (first.key, 0, ())
    assert folder_content(tmp_path) == [path]


async def test_a_signal_stops_it_and_handlers_are_put_back() -> None:
    service = make_service()
    before = signal.getsignal(signal.SIGTERM)
    running = asyncio.create_task(service.run(HOST, 0))
    await until(lambda: service.uri)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert service.stopping
    assert signal.getsignal(signal.SIGTERM) == before


async def test_a_signal_stops_every_service_of_the_process() -> None:
    services = [make_service() for _ in range(3)]
    before = signal.getsignal(signal.SIGTERM)
    early = asyncio.Event()
    triggers = [early, None, None]
    running = [
        asyncio.create_task(service.run(HOST, 0, trigger=trigger))
        for service, trigger in zip(services, triggers, strict=True)
    ]
    await until(lambda: all(service.uri for service in services))
    early.set()  # one that ends does not take the others' handlers along
    await running[0]
    assert signal.getsignal(signal.SIGTERM) != before
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await asyncio.gather(*running)
    assert signal.getsignal(signal.SIGTERM) == before


async def test_lines_of_the_configuration_that_are_of_no_use_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service, trigger = (
        make_service(conf="service.address = 127.0.0.1\nrpc.timeout 5"),
        asyncio.Event(),
    )
    trigger.set()
    await service.run(port=0, announce=False, trigger=trigger)
    assert "configuration:2: not of the form 'key = value'" in caplog.text


async def test_one_signal_is_one_for_services_that_share_a_trigger() -> None:
    trigger, proceed = asyncio.Event(), asyncio.Event()
    services = [make_service() for _ in range(2)]
    for service in services:

        @service.action("a.wait")
        async def wait(request: Request) -> object:
            await proceed.wait()
            return "done"

    running = [asyncio.create_task(service.run(HOST, 0, trigger=trigger)) for service in services]
    await until(lambda: all(service.uri for service in services))
    clients = [
        await dial(*service.addresses[0], fingerprint=service.fingerprint) for service in services
    ]
    for client in clients:
        client.channel.open_message(RequestHeader("a.wait", 7)).end()
    await until(lambda: all(service.in_flight for service in services))
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: all(service.stopping for service in services))
    proceed.set()
    for client in clients:
        assert await (await client.message()).read_all(100) == b'"done"'
        await client.close()
    await asyncio.gather(*running)


async def test_a_signal_that_comes_as_the_last_service_ends_is_no_error() -> None:
    stop, force = asyncio.Event(), asyncio.Event()
    with runner._signals(stop, force):
        pass
    runner._on_signal(asyncio.get_running_loop())
    assert not stop.is_set()


async def test_a_second_signal_cuts_it_short(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service, working = make_service(), asyncio.Event()

    @service.action("a.slow")
    async def slow(request: Request) -> None:
        working.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(service.run(HOST, 0, grace=1000.0))
    await until(lambda: service.uri)
    client = await dial(HOST, int(service.uri.rpartition(":")[2]))
    client.channel.open_message(RequestHeader("a.slow", 1)).end()
    await working.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: service.stopping)
    assert not running.done()
    assert f"{service.identity} leaves, requests in flight: 1" in caplog.text
    os.kill(os.getpid(), signal.SIGINT)
    await running
    await client.lost
    await until(lambda: service.in_flight == 0)


async def test_cancelling_the_run_stops_it_without_grace() -> None:
    service = make_service()
    running = asyncio.create_task(service.run(HOST, 0, grace=1000.0, linger=1000.0))
    await until(lambda: service.uri)
    client = await dial(HOST, int(service.uri.rpartition(":")[2]))
    await until(lambda: service.connections == 1)
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    await client.lost


async def test_a_record_that_cannot_be_written_at_first_is_an_error(tmp_path: Path) -> None:
    service = make_service()
    with pytest.raises(FileNotFoundError):
        await service.run(HOST, 0, announce_file=tmp_path / "no" / "such", linger=0.0)
    assert service.stopping


async def test_a_record_that_cannot_be_written_later_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    service, trigger, path = make_service(), asyncio.Event(), folder / "shop"
    running = asyncio.create_task(
        service.run(HOST, 0, announce_file=path, trigger=trigger, linger=0.0)
    )
    await announced_at(path)
    folder.rename(tmp_path / "moved")
    await until(lambda: "cannot announce in the file" in caplog.text)
    folder.mkdir()
    assert (await announced_at(path)).weight == 1
    trigger.set()
    await running
