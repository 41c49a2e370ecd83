"""Writing the cache file from real multicast on loopback."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from multicast import free_group, needs_multicast

from scamp import limits
from scamp.discovery import (
    CacheFollower,
    MulticastSender,
    Registry,
    encode_packet,
    parse_announcement,
    split_records,
    write_cache,
)
from scamp.discovery.listening import Round
from scamp.discovery.manager import CacheManager
from scamp.errors import ConfigError
from scamp.testing import until

pytestmark = needs_multicast

Announce = Callable[..., bytes]
TIME = 1_700_000_000.0


class Host:
    """A machine with a cache manager, and a network that it hears."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.group = free_group()
        self.sender = MulticastSender(self.group)
        self.options = {"renew_interval": 0.05, **options}
        self.manager = self.make()

    def make(self) -> CacheManager:
        return CacheManager(self.group, self.path, **self.options)

    def say(self, *records: bytes) -> None:
        for record in records:
            self.sender.send(encode_packet(record))

    @property
    def records(self) -> list[bytes]:
        return split_records(self.path.read_bytes()) if self.path.exists() else []

    @property
    def known(self) -> list[str]:
        return [parse_announcement(record).identity for record in self.records]

    def age(self, seconds: float) -> None:
        """Make the file look as if it had been written so long ago."""
        then = time.time() - seconds
        os.utime(self.path, (then, then))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path / "cache")
    yield host
    await host.manager.stop()
    host.sender.close()


# -- the ordinary course ----------------------------------------------------------------


async def test_what_is_heard_stands_in_the_file_as_it_was_signed(
    host: Host, announce: Announce
) -> None:
    await host.manager.start()
    a, b = announce("a"), announce("b")
    host.say(b, a)
    await until(lambda: len(host.records) == 2)
    assert host.path.read_bytes() == b"\n%%%\n" + a + b"\n%%%\n" + b
    assert host.manager.services == 2
    assert stat.S_IMODE(host.path.stat().st_mode) == 0o644


async def test_our_own_follower_reads_what_is_written(host: Host, announce: Announce) -> None:
    await host.manager.start()
    registry = Registry()
    follower = CacheFollower(host.path, registry, poll_interval=0.01)
    await follower.start()
    try:
        host.say(announce("a", "Ns.a"), announce("b", "Ns.b"))
        await until(lambda: len(registry.services()) == 2)
        host.say(announce("a", timestamp=TIME + 1, weight=0, actions=()))
        await until(lambda: not registry.find("main", "Ns.a"))
        assert registry.find("main", "Ns.b")
        await until(lambda: follower.status.available)
    finally:
        await follower.stop()


async def test_changed_renewed_and_left_services_get_into_the_file(
    host: Host, announce: Announce
) -> None:
    await host.manager.start()
    host.say(announce("a", "Ns.x"), announce("b"))
    await until(lambda: host.known == ["a", "b"])
    renewed = announce("a", "Ns.x", timestamp=TIME + 5)
    host.say(renewed)
    await until(lambda: renewed in host.records)
    changed = announce("a", "Ns.y", timestamp=TIME + 10)
    host.say(changed)
    await until(lambda: changed in host.records)
    host.say(announce("a", timestamp=TIME + 11, weight=0, actions=()))
    await until(lambda: host.known == ["b"])


async def test_a_service_that_falls_silent_is_taken_out_while_others_are_heard(
    host: Host, announce: Announce
) -> None:
    await host.manager.start()
    host.say(announce("a", interval=1.0))
    await until(lambda: host.known == ["a"])
    while "a" in host.known:
        host.say(announce("b", interval=1.0))
        await asyncio.sleep(0.1)
    assert host.known == ["b"]


async def test_the_file_of_none_is_empty(host: Host, announce: Announce) -> None:
    await host.manager.start()
    host.say(announce("a"))
    await until(lambda: host.known == ["a"])
    host.say(announce("a", timestamp=TIME + 1, weight=0, actions=()))
    await until(lambda: host.path.read_bytes() == b"")


async def test_when_the_only_service_falls_silent_the_file_is_empty(
    host: Host, announce: Announce
) -> None:
    await host.manager.start()
    host.say(announce("a", interval=1.0))
    await until(lambda: host.known == ["a"])
    await until(lambda: host.path.read_bytes() == b"")


async def test_a_file_of_services_that_are_all_silent_is_left_to_tell_it_by_its_age(
    tmp_path: Path, announce: Announce
) -> None:
    host = Host(tmp_path / "cache", max_age=0.2)
    await host.manager.start()
    try:
        elsewhere = announce("b", interval=1.0, uri="beepish+tls://10.0.0.2:30100")
        host.say(announce("a", interval=1.0), elsewhere)
        await until(lambda: host.known == ["a", "b"])
        await until(lambda: host.manager._index.is_deaf(host.manager._now()))
        host.age(3600)
        await asyncio.sleep(1.5)  # several times the time between touches and rounds
        assert host.known == ["a", "b"]
        assert time.time() - host.path.stat().st_mtime > 60
        host.say(announce("a", interval=1.0))
        await until(lambda: time.time() - host.path.stat().st_mtime < 60)
    finally:
        await host.manager.stop()
        host.sender.close()


async def test_renewals_alone_are_written_no_faster_than_is_said(
    tmp_path: Path, announce: Announce
) -> None:
    host = Host(tmp_path / "cache", renew_interval=3600.0)
    await host.manager.start()
    try:
        host.say(announce("a"))
        await until(lambda: host.manager.writes == 1)
        writes = host.manager.writes
        renewed = announce("a", timestamp=TIME + 5)
        host.say(renewed, announce("a", timestamp=TIME + 6))
        await until(lambda: host.manager._write_at < float("inf"))
        host.say(announce("b"))
        await until(lambda: host.manager.writes > 1)
        assert (host.known, host.manager.writes) == (["a", "b"], writes + 1)
        assert parse_announcement(host.records[0]).timestamp == TIME + 6
    finally:
        await host.manager.stop()
        host.sender.close()


async def test_a_file_with_nothing_new_is_touched(tmp_path: Path, announce: Announce) -> None:
    host = Host(tmp_path / "cache", max_age=0.2)
    await host.manager.start()
    try:
        host.say(announce("a"))
        await until(lambda: host.manager.writes == 1)
        writes = host.manager.writes
        host.age(3600)
        await until(lambda: time.time() - host.path.stat().st_mtime < 60)
        assert host.manager.writes == writes
    finally:
        await host.manager.stop()
        host.sender.close()


async def test_a_file_that_somebody_took_away_is_written_again(
    tmp_path: Path, announce: Announce
) -> None:
    host = Host(tmp_path / "cache", max_age=0.2)
    await host.manager.start()
    try:
        host.say(announce("a"))
        await until(lambda: host.known == ["a"])
        host.path.unlink()
        await until(lambda: host.known == ["a"])
    finally:
        await host.manager.stop()
        host.sender.close()


@pytest.mark.parametrize("how", ["replaced", "appended to", "a link"])
async def test_a_file_that_somebody_else_changed_is_written_again_and_not_touched(
    tmp_path: Path, announce: Announce, how: str
) -> None:
    host = Host(tmp_path / "cache", max_age=0.2)
    await host.manager.start()
    try:
        host.say(announce("a"))
        await until(lambda: host.known == ["a"])
        if how == "replaced":
            write_cache(host.path, [announce("not-ours")])
        elif how == "appended to":
            with host.path.open("ab") as file:
                file.write(b"\n%%%\n" + announce("not-ours"))
        else:
            write_cache(tmp_path / "elsewhere", [announce("not-ours")])
            host.path.unlink()
            host.path.symlink_to(tmp_path / "elsewhere")
        await until(lambda: host.known == ["a"])
        assert not host.path.is_symlink()
    finally:
        await host.manager.stop()
        host.sender.close()


async def test_the_file_is_touched_when_the_clock_was_set(
    host: Host, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.manager.start()
    host.say(announce("a"))
    await until(lambda: host.manager.writes == 1)
    host.age(3600)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    await until(lambda: real() - host.path.stat().st_mtime < 60)
    assert host.manager.writes == 1


# -- restarts ---------------------------------------------------------------------------


async def test_a_restart_costs_no_service(host: Host, announce: Announce) -> None:
    records = [announce("a"), announce("b")]
    write_cache(host.path, records)
    await host.manager.start()
    assert host.manager.services == 2
    host.say(announce("c"))
    await until(lambda: host.known == ["a", "b", "c"])


async def test_what_is_kept_over_a_restart_expires_unless_it_is_heard(
    host: Host, announce: Announce
) -> None:
    write_cache(host.path, [announce("dead", interval=1.0), announce("alive", interval=1.0)])
    await host.manager.start()
    while "dead" in host.known:
        host.say(announce("alive", interval=1.0))
        await asyncio.sleep(0.1)
    assert host.known == ["alive"]


async def test_what_is_kept_over_a_restart_is_not_called_fresh_before_anything_was_heard(
    host: Host, announce: Announce
) -> None:
    write_cache(host.path, [announce("a")])
    host.age(60)
    await host.manager.start()
    await asyncio.sleep(1.5)  # more than one round
    assert time.time() - host.path.stat().st_mtime > 50
    host.say(announce("a"))
    await until(lambda: time.time() - host.path.stat().st_mtime < 50)
    assert host.manager.writes == 0


async def test_who_hears_nothing_after_a_restart_does_not_look_all_the_time(
    tmp_path: Path, announce: Announce
) -> None:
    rounds: list[Round] = []
    host = Host(tmp_path / "cache", on_round=rounds.append)
    write_cache(host.path, [announce("a")])
    await host.manager.start()
    try:
        await until(lambda: rounds)
        await asyncio.sleep(1.0)
        assert len(rounds) <= 4
    finally:
        await host.manager.stop()
        host.sender.close()


async def test_nothing_is_written_before_anything_was_heard(host: Host, announce: Announce) -> None:
    await host.manager.start()
    await host.manager.stop()
    assert not host.path.exists()


async def test_bad_records_are_not_kept(host: Host, announce: Announce) -> None:
    good = announce("a")
    write_cache(host.path, [good.replace(b"Product", b"Produce"), good, b"rubbish"])
    await host.manager.start()
    await until(lambda: host.records == [good])


async def test_nothing_is_taken_from_a_file_whose_writer_died_long_ago(
    tmp_path: Path, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LISTEN_FIRST", 0.3)
    host = Host(tmp_path / "cache")
    write_cache(host.path, [announce("old")])
    host.age(3600)
    await host.manager.start()
    try:
        host.say(announce("new"))
        await until(lambda: host.manager.services == 1)
        assert host.known == ["old"]  # until we have listened for a while
        await until(lambda: host.known == ["new"])
    finally:
        await host.manager.stop()
        host.sender.close()


async def test_stopping_leaves_the_file_with_all_that_was_heard(
    host: Host, announce: Announce
) -> None:
    await host.manager.start()
    host.say(announce("a"))
    await until(lambda: host.manager.services == 1)
    await host.manager.stop()
    assert host.known == ["a"]
    await host.manager.stop()


# -- what goes wrong --------------------------------------------------------------------


async def test_two_managers_do_not_write_one_file(host: Host) -> None:
    await host.manager.start()
    with pytest.raises(ConfigError, match=rf"process {os.getpid()}\) writes .*cache"):
        await host.make().start()
    await host.manager.stop()
    other = host.make()
    await other.start()
    await other.stop()


async def test_a_directory_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    host = Host(tmp_path / "nowhere" / "cache")
    try:
        with pytest.raises(ConfigError, match="nowhere"):
            await host.manager.start()
    finally:
        host.sender.close()


async def test_a_file_that_cannot_be_written_is_told_once_tried_again_and_stays_whole(
    host: Host, announce: Announce, caplog: pytest.LogCaptureFixture
) -> None:
    await host.manager.start()
    a = announce("a")
    host.say(a)
    await until(lambda: host.known == ["a"])
    obstacle = host.path.with_name("cache.new")
    obstacle.mkdir()
    with caplog.at_level(logging.INFO, "scamp.discovery"):
        host.say(announce("b"))
        await until(lambda: host.manager.last_error)
        before = host.manager._write_at
        await until(lambda: host.manager._write_at != before)
        assert host.records == [a]
        obstacle.rmdir()
        await until(lambda: host.known == ["a", "b"])
        # The file is there a moment before the manager is told so by its thread.
        await until(lambda: host.manager.last_error is None)
    told = [record.levelname for record in caplog.records if "written" in record.message]
    assert told == ["ERROR", "INFO"]


async def test_a_round_that_fails_is_not_the_last(
    host: Host,
    announce: Announce,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await host.manager.start()
    with monkeypatch.context() as broken:
        broken.setattr(host.manager._index, "expire", lambda now: 1 / 0)
        await until(lambda: "unexpected; going on" in caplog.text)
    host.say(announce("a"))
    await until(lambda: host.known == ["a"])


async def test_it_starts_once(host: Host) -> None:
    await host.manager.start()
    with pytest.raises(RuntimeError):
        await host.manager.start()


async def test_a_callback_that_fails_stops_nothing(tmp_path: Path, announce: Announce) -> None:
    def fails(_: object) -> None:
        raise ValueError("no")

    host = Host(tmp_path / "cache", on_round=fails)
    await host.manager.start()
    try:
        host.say(announce("a"))
        await until(lambda: host.known == ["a"])
    finally:
        await host.manager.stop()
        host.sender.close()
