"""Services that announce themselves: by multicast, to subscribers, and with a sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
from multicast import free_group, needs_multicast

from scamp import limits
from scamp.config import ScampConf
from scamp.discovery import Announcement, parse_announcement
from scamp.discovery.multicast import MulticastGroup, decode_packet, open_receiver
from scamp.errors import ConfigError
from scamp.server import Request, Service, run_service
from scamp.server.announcer import Announcer
from scamp.server.liveness import LivenessFile
from scamp.testing import dial, make_identity, until
from scamp.wire import EventHeader, RequestHeader, SubscribeHeader

pytestmark = needs_multicast

HOST = "127.0.0.1"
OTHER_HOST = "127.0.0.2"
NEVER = 1000.0


class Net:
    """A group, and what is heard in it."""

    def __init__(self, group: MulticastGroup) -> None:
        self.group = group
        self.receiver = open_receiver(group)

    def config(self, more: str = "", hosts: str = HOST) -> ScampConf:
        return ScampConf.parse(
            f"discovery.multicast_address = {self.group.address}\n"
            f"discovery.port = {self.group.port}\n"
            f"discovery.address = {', '.join(self.group.interfaces)}\n"
            f"service.address = {hosts}\n{more}"
        )

    async def hear(self) -> Announcement:
        """The next announcement, within 10 s."""
        async with asyncio.timeout(10):
            packet = await asyncio.get_running_loop().sock_recv(self.receiver, 65536)
        assert packet[0] & 15 == 8, "not compressed"
        return parse_announcement(decode_packet(packet))

    def heard(self) -> int:
        """How many more there are now."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.receiver.recv(65536):
                count += 1
        return count


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net(free_group())
    yield made
    made.receiver.close()


def make_service(config: ScampConf | None = None, interval: float = 0.02) -> Service:
    identity = make_identity()
    made = Service(
        "shop/1",
        key=identity.key,
        certificate=identity.certificate,
        require_tickets=False,
        interval=interval,
        config=config,
    )

    @made.action("a.b", flags="read")
    async def handler(request: Request) -> object:
        return "done"

    return made


@contextlib.asynccontextmanager
async def running(
    service: Service, *, linger: float = 0.0, **options: object
) -> AsyncIterator[asyncio.Event]:
    """`service`, running until the block or the event ends it."""
    trigger = asyncio.Event()
    task = asyncio.create_task(
        run_service(
            service,
            port=0,
            trigger=trigger,
            linger=linger,
            farewell_interval=0.02,
            **options,  # type: ignore[arg-type]
        )
    )
    try:
        await until(lambda: service.uri or task.done())
        yield trigger
    finally:
        trigger.set()
        await task


# -- by multicast -------------------------------------------------------------------------


async def test_a_configured_service_announces_itself_again_and_again(net: Net) -> None:
    service = make_service(net.config())
    async with running(service, farewells=1):
        first, second = await net.hear(), await net.hear()
        assert first.key == second.key == (service.fingerprint, service.identity)
        assert second.timestamp > first.timestamp
        assert f"{first.host}:{first.port}" in service.uri
        assert first.weight == 1
        assert "a.b" in [action.spelling for action in first.actions]


async def test_the_first_announcement_does_not_wait_for_the_interval(net: Net) -> None:
    async with running(make_service(net.config(), NEVER), farewells=1):
        assert (await net.hear()).interval == NEVER


async def test_a_change_is_told_at_once(net: Net) -> None:
    service = make_service(net.config(), NEVER)
    async with running(service, farewells=1):
        await net.hear()
        service.set_weight(0)
        away = await net.hear()
        assert (away.weight, len(away.actions)) == (0, 3)
        service.set_weight(2.0)
        assert (await net.hear()).weight == 2


@pytest.mark.parametrize("weight", [-1, 2.5, float("nan"), float("inf"), True])
def test_what_is_no_weight_is_refused(weight: float) -> None:
    service = make_service()
    with pytest.raises(ConfigError, match="weight"):
        service.set_weight(weight)
    assert service.weight == 1


async def test_leaving_is_told_several_times_and_before_connections_close(net: Net) -> None:
    service = make_service(net.config(), NEVER)
    async with running(service, linger=NEVER, farewells=4, grace=NEVER) as trigger:
        first = await net.hear()
        client = await dial(first.host, first.port)
        trigger.set()
        for _ in range(2):
            last = await net.hear()
            assert (last.key, last.weight, last.actions) == (first.key, 0, ())
        reply = await client.call(RequestHeader("a.b", 1))  # all goes on meanwhile
        assert await reply.read_all(10) == b'"done"'
        late = await dial(first.host, first.port)
        await late.close()
        await client.close()
        await service.stop(0.0)  # enough of it; the farewells are said to the end
        assert [(await net.hear()).weight for _ in range(2)] == [0, 0]
    assert net.heard() == 0


async def test_farewells_are_not_all_said_at_once(net: Net) -> None:
    service = make_service(net.config(), NEVER)
    await service.start(port=0)
    announcer = Announcer(service, net.group, farewells=3, farewell_interval=0.05)
    await announcer.start()
    assert (await net.hear()).weight == 1
    await service.stop(0.0)
    farewells = [await net.hear() for _ in range(3)]
    assert [one.weight for one in farewells] == [0, 0, 0]
    assert farewells[2].timestamp - farewells[0].timestamp > 0.09
    await announcer.finish()
    await announcer.close()
    assert (announcer.farewells, net.heard()) == (3, 0)


@pytest.mark.parametrize("configured", [True, False])
async def test_announcing_can_be_left_out(net: Net, configured: bool) -> None:
    service = make_service(net.config() if configured else None)
    async with running(service, announce=False if configured else None):
        client = await dial(HOST, int(service.uri.rpartition(":")[2]))
        await client.close()
    assert net.heard() == 0


async def test_a_group_can_be_given(net: Net) -> None:
    async with running(make_service(), announce=net.group, farewells=1):
        assert (await net.hear()).weight == 1


async def test_a_group_that_cannot_be_is_an_error_at_once() -> None:
    conf = ScampConf.parse("discovery.multicast_address = 10.0.0.1\nbus.address = 127.0.0.1")
    with pytest.raises(ConfigError, match="multicast"):
        await make_service(conf).run(port=0)


async def test_each_address_is_announced_where_it_is(net: Net) -> None:
    service = make_service(net.config(hosts=f"{OTHER_HOST}, {HOST}"))
    async with running(service, farewells=1):
        assert [host for host, _ in service.addresses] == [OTHER_HOST, HOST]
        announced = await net.hear()
        assert (announced.host, announced.port) == service.addresses[1]
        for host, port in service.addresses:
            client = await dial(host, port, fingerprint=service.fingerprint)
            await client.close()
        first = parse_announcement(service.announcement())
        assert (first.host, first.port) == service.addresses[0]


async def test_what_cannot_be_announced_is_logged_once_and_harms_nobody(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = make_service(net.config())
    monkeypatch.setattr(limits, "MAX_DATAGRAM", 10)
    made = 0
    real = service.announcement

    def count(now: float | None = None, *, uri: str | None = None) -> bytes:
        nonlocal made
        made += 1
        return real(now, uri=uri)

    monkeypatch.setattr(service, "announcement", count)
    async with running(service, farewells=1):
        await until(lambda: made > 5)
        client = await dial(HOST, int(service.uri.rpartition(":")[2]))
        assert await (await client.call(RequestHeader("a.b", 1))).read_all(10) == b'"done"'
        await client.close()
        assert caplog.text.count("at most 10") == 1
        monkeypatch.undo()
        assert (await net.hear()).weight == 1
        await until(lambda: "works again" in caplog.text)


# -- to subscribers -----------------------------------------------------------------------


async def test_subscribers_are_told_the_record(net: Net) -> None:
    service = make_service(net.config(), NEVER)
    async with running(service, farewells=1):
        await net.hear()
        client = await dial(HOST, int(service.uri.rpartition(":")[2]))
        subscribe = client.channel.open_message(SubscribeHeader(request_id=1))
        await subscribe.write(b'["announce"]')
        subscribe.end()
        event = await client.message()
        assert isinstance(event.header, EventHeader)
        (value,) = orjson.loads(await event.read_all(limits.MIB))
        assert (value["code"], value["key"]) == ("announce", "")
        assert parse_announcement(value["value"].encode()).identity == service.identity
        await client.close()


# -- the record's file --------------------------------------------------------------------


async def test_a_link_where_the_record_is_written_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "record"
    path.with_name("record.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        await make_service().run(HOST, 0, announce_file=path)
    assert victim.read_text() == "precious"


async def test_a_service_that_is_cut_short_still_writes_that_it_leaves(tmp_path: Path) -> None:
    path = tmp_path / "record"
    service = make_service(interval=NEVER)
    run = asyncio.create_task(service.run(HOST, 0, announce_file=path))
    await until(path.exists)
    run.cancel()
    await asyncio.wait((run,))
    assert run.cancelled()
    assert parse_announcement(path.read_bytes()).weight == 0


async def test_a_service_that_is_cut_short_while_it_begins_takes_back_what_it_said(
    tmp_path: Path,
) -> None:
    path = tmp_path / "record"
    service = make_service(interval=NEVER)
    await service.start(HOST, 0)
    announcer = Announcer(service, file=path)
    beginning = asyncio.create_task(announcer.start())
    await asyncio.sleep(0)  # now a thread writes the file
    beginning.cancel()
    await asyncio.wait((beginning,))
    assert beginning.cancelled()
    assert parse_announcement(path.read_bytes()).weight == 1
    await service.stop(0)
    await announcer.close()
    assert parse_announcement(path.read_bytes()).weight == 0


async def test_an_announcer_that_is_closed_before_it_began_leaves_nothing(net: Net) -> None:
    announcer = Announcer(make_service(), net.group)
    await announcer.finish()
    await announcer.close()
    await announcer.close()
    assert net.heard() == 0


# -- the sign of life ---------------------------------------------------------------------


def conf_with(folder: Path) -> ScampConf:
    return ScampConf.parse(
        f"service.running_service_file_dir_path = {folder}\nservice.address = {HOST}"
    )


def content(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_file_is_there_as_long_as_the_service_runs(tmp_path: Path) -> None:
    service = make_service(conf_with(tmp_path))
    async with running(service, announce=False):
        await until(lambda: content(tmp_path))
        (path,) = content(tmp_path)
        assert path.name == service.identity.replace("/", "_")
        assert path.name.startswith("shop_1:")
        assert path.stat().st_size == 0
        os.utime(path, (0, 0))
        await until(lambda: path.stat().st_mtime > 0)
        path.unlink()
        await until(path.exists)
    assert content(tmp_path) == []


@pytest.mark.parametrize("exists", [True, False])
async def test_a_directory_that_is_none_is_an_error_at_the_start(
    tmp_path: Path, exists: bool
) -> None:
    folder = tmp_path / "life"
    if exists:
        folder.write_text("a file")
    service = make_service(conf_with(folder))
    with pytest.raises(ConfigError, match="life is not a directory"):
        await service.run(port=0, announce=False)
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect((HOST, int(service.uri.rpartition(":")[2])))


def test_nothing_that_lies_in_its_place_is_touched(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    file = LivenessFile(tmp_path, "shop:x")
    file.path.symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot make shop:x"):
        file.create()
    assert not victim.exists()
