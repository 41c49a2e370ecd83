"""A registry kept live from real multicast on loopback."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from multicast import LOOPBACK, free_group, needs_multicast

from scamp import limits
from scamp.discovery import Change, LoadReport, Observer, Registry, parse_announcement
from scamp.discovery.listening import Round
from scamp.discovery.multicast import MulticastGroup, MulticastSender, encode_packet
from scamp.errors import ConfigError
from scamp.testing.ends import until

pytestmark = needs_multicast

Announce = Callable[..., bytes]
TIME = 1_700_000_000.0
NOT_HERE = "192.0.2.77"


class Net:
    """A multicast group, who sends to it, and an observer of it."""

    def __init__(self, **options: Any) -> None:
        self.group = free_group()
        self.registry = Registry()
        self.changes: list[Change] = []
        self.reports: list[LoadReport] = []
        self.registry.subscribe(self.changes.append)
        self.sender = MulticastSender(self.group)
        self.observer = Observer(
            self.group,
            self.registry,
            **{"listen_first": 0.0, "poll_interval": 0.02, **options},
            on_load=self.reports.append,
        )

    def say(self, *records: bytes) -> None:
        for record in records:
            self.sender.send(encode_packet(record))

    @property
    def known(self) -> set[str]:
        return {service.identity for service in self.registry.services()}

    async def close(self) -> None:
        self.sender.close()
        await self.observer.stop()


@pytest.fixture
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    net = Net(**getattr(request, "param", {}))
    await net.observer.start()
    yield net
    await net.close()


# -- the ordinary course ----------------------------------------------------------------


async def test_services_that_announce_themselves_are_in_the_registry(
    net: Net, announce: Announce
) -> None:
    assert not net.observer.status.loaded
    net.say(announce("a", "Ns.a"), announce("b", "Ns.b"))
    await until(lambda: net.known == {"a", "b"})
    assert net.registry.find("main", "ns.A")
    await until(lambda: net.observer.status.accepted == 2)
    status = net.observer.status
    assert (status.available, status.stale, status.last_error) == (True, False, None)
    assert sum(report.added for report in net.reports) == 2


@pytest.mark.parametrize("prefix", [b"", b"R", b"D"])
async def test_uncompressed_packets_and_prefixes_are_understood(
    net: Net, announce: Announce, prefix: bytes
) -> None:
    net.sender.send(prefix + announce("a"))
    net.sender.send(prefix + encode_packet(announce("b")))
    await until(lambda: net.known == {"a", "b"})


async def test_a_change_is_told_and_a_renewal_is_none(net: Net, announce: Announce) -> None:
    net.say(announce("a", "Ns.x"))
    await until(lambda: net.known)
    net.say(announce("a", "Ns.x", timestamp=TIME + 5))
    await until(lambda: [s.timestamp for s in net.registry.services()] == [TIME + 5])
    assert len(net.changes) == 1
    net.say(announce("a", "Ns.y", timestamp=TIME + 10))
    await until(lambda: net.registry.find("main", "Ns.y"))
    assert not net.registry.find("main", "Ns.x")
    assert len(net.changes) == 2


async def test_all_that_was_heard_is_told_before_it_is_in_force(announce: Announce) -> None:
    told: list[tuple[str, set[str]]] = []
    net = Net(on_round=lambda heard: take(heard))

    def take(heard: Round) -> None:
        told.extend((one.kind.value, net.known) for one in heard.heard)
        told.extend((reason, net.known) for _, reason, _ in heard.refused)
        raise RuntimeError("costs nothing but this")

    await net.observer.start()
    try:
        net.say(announce("a"))
        await until(lambda: net.known)
        net.say(announce("a").replace(b"Product", b"Prodigy"))
        await until(lambda: len(told) == 2)
        net.say(announce("a", timestamp=TIME + 1, weight=0, actions=()))
        await until(lambda: not net.known)
    finally:
        await net.close()
    assert told == [("new", set()), ("signature", {"a"}), ("left", {"a"})]


async def test_a_service_that_leaves_is_gone_at_once(net: Net, announce: Announce) -> None:
    net.say(announce("a"), announce("b"))
    await until(lambda: net.known == {"a", "b"})
    net.say(announce("a", timestamp=TIME + 1, weight=0, actions=()))
    await until(lambda: net.known == {"b"})
    assert not net.observer.status.stale


async def test_a_service_that_falls_silent_expires_while_others_are_heard(
    net: Net, announce: Announce
) -> None:
    net.say(announce("a", interval=1.0))
    await until(lambda: net.known == {"a"})
    while "a" in net.known:
        net.say(announce("b", interval=1.0, timestamp=time.time()))
        await asyncio.sleep(0.1)
    assert net.known == {"b"}
    assert net.observer.status.last_error is None


async def test_the_only_service_expires_too_and_then_nobody_can_say_what_there_is(
    net: Net, announce: Announce
) -> None:
    net.say(announce("a", interval=1.0))
    await until(lambda: net.known == {"a"})
    await until(lambda: net.observer.status.available)
    await until(lambda: net.known == set())
    await until(lambda: net.observer.status.stale)
    assert "nothing is heard on 239.255" in str(net.observer.status.last_error)
    net.say(announce("a", interval=1.0, timestamp=TIME + 5))
    await until(lambda: net.observer.status.available)
    assert net.known == {"a"}


@pytest.mark.parametrize("net", [{"max_age": 4.0}], indirect=True)
async def test_when_all_fall_silent_they_stay_in_force_and_that_is_told(
    net: Net, announce: Announce
) -> None:
    elsewhere = announce("b", interval=1.0, uri="beepish+tls://10.0.0.2:30100")
    net.say(announce("a", interval=1.0), elsewhere)
    await until(lambda: net.known == {"a", "b"})
    await until(lambda: net.observer.status.last_error)
    status = net.observer.status
    assert (status.available, net.known) == (True, {"a", "b"})
    assert "nothing is heard on 239.255" in str(status.last_error)
    await until(lambda: net.observer.status.stale)
    assert net.known == {"a", "b"}
    net.say(announce("a", interval=1.0, timestamp=TIME + 5))
    await until(lambda: net.observer.status.available)
    await until(lambda: net.observer.status.last_error is None)


async def test_an_index_of_the_first_few_is_not_taken_for_complete(announce: Announce) -> None:
    net = Net(listen_first=3600.0)
    await net.observer.start()
    try:
        net.say(announce("a"))
        await until(lambda: net.known == {"a"})
        await until(lambda: net.observer.status.accepted == 1)
        assert not net.observer.status.loaded
    finally:
        await net.close()


async def test_nothing_heard_at_all_is_never_loaded_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = Net()
    with caplog.at_level(logging.WARNING, "scamp.discovery"):
        await net.observer.start()
        await until(lambda: net.observer.status.last_error)
        for _ in range(5):
            await net.observer.refresh()
    assert not net.observer.status.loaded
    (told,) = caplog.messages
    assert "nothing is heard" in told
    await net.close()


async def test_after_a_long_silence_the_group_is_joined_anew(
    net: Net, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SILENCE", 0.01)
    before = net.observer._listening._socket
    await until(lambda: net.observer._listening._socket is not before)
    net.say(announce("a"))
    await until(lambda: net.known == {"a"})


async def test_a_membership_that_is_lost_is_had_again_although_others_are_heard(
    net: Net, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when one of several interfaces goes and comes back.
    monkeypatch.setattr(limits, "REJOIN", 0.05)
    sock = net.observer._listening._socket
    assert sock is not None
    membership = socket.inet_aton(net.group.address) + socket.inet_aton(LOOPBACK)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, membership)
    while not net.known:
        net.say(announce("a"))
        await asyncio.sleep(0.01)
    assert net.known == {"a"}


async def test_joining_anew_loses_nothing(
    net: Net, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REJOIN", 0.0)
    said = set()
    for number in range(40):
        identity = f"s{number}"
        said.add(identity)
        net.say(announce(identity))
        await asyncio.sleep(0.005)
    await until(lambda: net.known == said)


async def test_an_interface_that_goes_is_told_and_the_others_are_heard(
    net: Net, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REJOIN", 0.05)
    listening = net.observer._listening
    listening.group = MulticastGroup(net.group.address, net.group.port, (LOOPBACK, NOT_HERE))
    await until(lambda: NOT_HERE in str(net.observer.status.last_error))
    net.say(announce("a"))
    await until(lambda: net.known == {"a"})
    assert NOT_HERE in str(net.observer.status.last_error)
    listening.group = MulticastGroup(net.group.address, net.group.port, (NOT_HERE,))
    await until(lambda: LOOPBACK not in str(listening.group) and listening._joined)
    listening.group = net.group
    await until(lambda: net.observer.status.last_error is None)
    net.say(announce("b"))
    await until(lambda: net.known == {"a", "b"})


# -- bad packets ------------------------------------------------------------------------


async def test_bad_packets_are_counted_by_reason_and_cost_nothing(
    net: Net, announce: Announce
) -> None:
    good = announce("a")
    old = announce("a", timestamp=TIME - 60)
    net.say(good)
    await until(lambda: net.known)
    net.sender.send(b"rubbish")
    net.sender.send(encode_packet(good)[:-5])
    net.say(good.replace(b"Product", b"Produce"))
    net.say(old)
    await until(lambda: sum(net.observer.status.rejected.values()) == 4)
    status = net.observer.status
    assert dict(status.rejected) == {"malformed": 2, "signature": 1, "replay": 1}
    assert ("a", "replay") in {(who, why) for who, why, _ in status.rejected_records}
    assert net.known == {"a"}
    assert status.available


async def test_a_flood_of_forged_packets_does_not_keep_new_services_out(
    net: Net, announce: Announce
) -> None:
    net.say(announce("known"))
    await until(lambda: net.known)
    forged = announce("known").split(b"\n\n", 1)
    for number in range(3000):
        net.sender.send(forged[0] + b" " * number + b"\n\n" + forged[1])
        if number % 100 == 0:
            await asyncio.sleep(0)
    await until(lambda: net.observer.status.rejected.get("signature"))
    while "new" not in net.known:
        net.say(announce("new"))
        await asyncio.sleep(0.02)
    assert net.known == {"known", "new"}


# -- authorized_services ----------------------------------------------------------------


async def test_a_packet_that_makes_us_fail_costs_no_other(
    net: Net, announce: Announce, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index = net.observer._listening.index
    hear = index.hear

    def fail(raw: bytes, now: float, wall: float) -> Any:
        if b"poison" in raw:
            raise ZeroDivisionError("a mistake of ours")
        return hear(raw, now, wall)

    monkeypatch.setattr(index, "hear", fail)
    with caplog.at_level(logging.ERROR, "scamp.discovery"):
        net.say(announce("poison"), announce("poison2"), announce("a"))
        await until(lambda: net.known == {"a"})
        await until(lambda: net.observer.status.rejected.get("unexpected") == 2)
    assert [record.message for record in caplog.records] == ["an announcement failed us"]


async def test_a_round_that_fails_is_not_the_last(
    net: Net, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = net.observer._listening
    with monkeypatch.context() as broken:
        broken.setattr(listening.index, "expire", lambda now: 1 / 0)
        await until(lambda: "ZeroDivisionError" in str(net.observer.status.last_error))
    net.say(announce("a"))
    await until(lambda: net.known == {"a"})


async def test_authorized_services_decides_and_is_followed(
    tmp_path: Path, announce: Announce, signer: Any
) -> None:
    path = tmp_path / "authorized"
    net = Net(authorized_path=path)
    assert net.observer.authorized is None
    await net.observer.start()
    try:
        net.say(announce("a", "Ns.x", "Other.y"))
        await until(lambda: net.observer.status.last_error)
        assert not net.known
        path.write_text(f"{signer.fingerprint} Ns\n")
        await until(lambda: net.registry.find("main", "Ns.x"))
        assert not net.registry.find("main", "Other.y")
        await until(lambda: net.observer.status.unauthorized == 1)
        assert net.observer.authorized is not None
        path.write_text(f"{signer.fingerprint} Ns, Other\n")
        await net.observer.refresh()
        assert net.registry.find("main", "Other.y")
        path.write_text("rubbish\n")
        await net.observer.refresh()
        assert net.registry.find("main", "Other.y")
        assert "authorized_services" in str(net.observer.status.last_error)
    finally:
        await net.close()


# -- starting and stopping --------------------------------------------------------------


@pytest.mark.parametrize("step", ["_prepare", "_authorize"])
async def test_a_refresh_that_is_cancelled_takes_nothing_back_for_ever(
    tmp_path: Path, announce: Announce, signer: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What authorized_services takes away is taken away by the next look."""
    path = tmp_path / "authorized"
    path.write_text(f"{signer.fingerprint} Ns.a, Ns.b\n")
    net = Net(authorized_path=path, poll_interval=0.1)
    await net.observer.start()
    try:
        net.say(announce("a", "Ns.a", "Ns.b"))
        await until(lambda: bool(net.registry.find("main", "Ns.b")))
        path.write_text(f"{signer.fingerprint} Ns.a\n")
        begun = threading.Event()
        real = getattr(net.observer, step)

        def slowly(*args: Any) -> Any:
            begun.set()
            time.sleep(0.05)
            return real(*args)

        monkeypatch.setattr(net.observer, step, slowly)
        refreshing = asyncio.create_task(net.observer.refresh())
        await until(begun.is_set)
        refreshing.cancel()
        await asyncio.wait([refreshing])
        monkeypatch.undo()
        await until(lambda: not net.registry.find("main", "Ns.b"))
        assert net.registry.find("main", "Ns.a")
    finally:
        await net.close()


async def test_an_interface_that_is_not_here_says_what_to_do() -> None:
    group = free_group()
    observer = Observer(MulticastGroup(group.address, group.port, (NOT_HERE,)), Registry())
    with pytest.raises(ConfigError, match=NOT_HERE):
        await observer.start()
    await observer.stop()


async def test_it_starts_once_and_stops_as_often_as_one_likes(net: Net) -> None:
    with pytest.raises(RuntimeError):
        await net.observer.start()
    await net.observer.stop()
    await net.observer.stop()


async def test_other_services_in_the_registry_are_left_alone(net: Net, announce: Announce) -> None:
    net.registry.apply(added=[parse_announcement(announce("other"))])
    net.say(announce("a"))
    await until(lambda: net.known == {"a", "other"})
    net.say(announce("a", timestamp=TIME + 1, weight=0, actions=()))
    await until(lambda: net.known == {"other"})


async def test_what_is_told_of_loads_may_fail(net: Net, announce: Announce) -> None:
    def fails(_: LoadReport) -> None:
        raise ValueError("no")

    net.observer._on_load = fails
    net.say(announce("a"))
    await until(lambda: net.known == {"a"})
    net.say(announce("b"))
    await until(lambda: net.known == {"a", "b"})
    assert LOOPBACK in str(net.group)
