"""Following a cache file through everything that can happen to a file."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from scamp import limits
from scamp.discovery import (
    Announcement,
    CacheFollower,
    Change,
    LoadReport,
    Registry,
    loader,
    parse_announcement,
    write_cache,
)

Announce = Callable[..., bytes]


class Mesh:
    """A cache file, its follower and the registry."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = Registry()
        self.reports: list[LoadReport] = []
        self.changes: list[Change] = []
        self.registry.subscribe(self.changes.append)
        self.follower = CacheFollower(path, self.registry, on_load=self.reports.append)

    @property
    def known(self) -> set[str]:
        return {service.identity for service in self.registry.services()}

    async def put(self, *records: bytes) -> None:
        write_cache(self.path, records)
        await self.follower.refresh()

    async def put_raw(self, data: bytes) -> None:
        self.path.write_bytes(data)
        await self.follower.refresh()


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(tmp_path / "cache")
    yield mesh
    await mesh.follower.stop()


@pytest.fixture
def abc(announce: Announce) -> list[bytes]:
    return [announce(identity, f"Ns.{identity}") for identity in "abc"]


# -- the ordinary course ----------------------------------------------------------------


async def test_starting_loads_the_file_completely(mesh: Mesh, abc: list[bytes]) -> None:
    write_cache(mesh.path, abc)
    await mesh.follower.start()
    assert mesh.known == {"a", "b", "c"}
    assert mesh.registry.find("main", "Ns.b")
    status = mesh.follower.status
    assert (status.loaded, status.stale, status.available) == (True, False, True)
    assert (status.accepted, dict(status.rejected), status.last_error) == (3, {}, None)
    assert (status.loads, status.failed_loads) == (1, 0)
    (report,) = mesh.reports
    assert (report.records, report.verified, report.added, report.error) == (3, 3, 3, None)


async def test_a_missing_file_does_not_prevent_starting_and_is_loaded_when_it_comes(
    mesh: Mesh, abc: list[bytes]
) -> None:
    await mesh.follower.start()
    status = mesh.follower.status
    assert (status.loaded, status.available, status.failed_loads) == (False, False, 1)
    assert "No such file" in str(status.last_error)
    await mesh.put(*abc)
    assert mesh.follower.status.available


async def test_services_come_go_and_change(
    mesh: Mesh, abc: list[bytes], announce: Announce
) -> None:
    await mesh.put(*abc)
    changed = announce("b", "Ns.other", timestamp=1_700_000_005.0)
    await mesh.put(abc[0], changed, announce("d"))
    assert mesh.known == {"a", "b", "d"}
    assert not mesh.registry.find("main", "Ns.b")
    assert mesh.registry.find("main", "Ns.other")
    change = mesh.changes[-1]
    assert {service.identity for service in change.added} == {"b", "d"}
    assert {service.identity for service in change.removed} == {"c"}


async def test_only_records_that_changed_are_verified(
    mesh: Mesh, abc: list[bytes], announce: Announce
) -> None:
    await mesh.put(*abc)
    kept = mesh.registry.get(parse_announcement(abc[0]).key)
    await mesh.put(abc[2], announce("b", timestamp=1_700_000_005.0), abc[0])
    assert mesh.reports[-1].verified == 1
    assert mesh.registry.get(parse_announcement(abc[0]).key) is kept


async def test_a_renewed_announcement_is_verified_and_is_no_change(
    mesh: Mesh, announce: Announce
) -> None:
    await mesh.put(announce("a", "Ns.x"))
    renewed = announce("a", "Ns.x", timestamp=1_700_000_005.0)
    await mesh.put(renewed)
    assert len(mesh.changes) == 1
    (offer,) = mesh.registry.find("main", "Ns.x")
    assert offer.service == parse_announcement(renewed)
    assert mesh.reports[-1].verified == 1


async def test_a_renewed_announcement_with_a_bad_signature_is_refused(
    mesh: Mesh, announce: Announce
) -> None:
    raw = announce("a", "Ns.x")
    await mesh.put(raw, announce("b"))
    await mesh.put(raw.replace(b"1700000000.0", b"1700000009.0"), announce("b"))
    assert mesh.follower.status.rejected == {"signature": 1}
    assert mesh.registry.find("main", "Ns.x")[0].service.timestamp == 1_700_000_000.0


async def test_an_unchanged_file_is_no_load(mesh: Mesh, abc: list[bytes]) -> None:
    await mesh.put(*abc)
    await mesh.follower.refresh()
    await mesh.put(*abc)
    assert (mesh.follower.status.loads, len(mesh.reports)) == (1, 1)


async def test_the_file_is_followed_without_being_asked(tmp_path: Path, abc: list[bytes]) -> None:
    path, registry = tmp_path / "cache", Registry()
    told = asyncio.Event()
    registry.subscribe(lambda change: told.set())
    follower = CacheFollower(path, registry, poll_interval=0.005)
    await follower.start()
    try:
        write_cache(path, abc)
        async with asyncio.timeout(5):
            await told.wait()
        assert len(registry.services()) == 3
    finally:
        await follower.stop()


async def test_stopping_twice_or_without_start_does_no_harm_and_starting_twice_is_refused(
    mesh: Mesh,
) -> None:
    await mesh.follower.stop()
    await mesh.follower.start()
    with pytest.raises(RuntimeError):
        await mesh.follower.start()
    await mesh.follower.stop()
    await mesh.follower.stop()


async def test_services_of_another_source_are_left_alone(
    mesh: Mesh, abc: list[bytes], announce: Announce
) -> None:
    heard = parse_announcement(announce("heard"))
    mesh.registry.apply(added=[heard], removed=())
    await mesh.put(*abc)
    await mesh.put(abc[0])
    assert mesh.known == {"heard", "a"}


async def test_a_change_from_another_source_while_reading_is_not_lost(
    mesh: Mesh, abc: list[bytes], announce: Announce
) -> None:
    write_cache(mesh.path, abc)
    reading = asyncio.create_task(mesh.follower.refresh())
    heard: list[Announcement] = []
    while not reading.done():
        new = parse_announcement(announce(f"heard{len(heard)}"))
        mesh.registry.apply(added=[new], removed=())
        heard.append(new)
        await asyncio.sleep(0)
    assert mesh.known == {"a", "b", "c"} | {service.identity for service in heard}


async def test_a_refresh_that_is_cancelled_leaves_everything_consistent(
    mesh: Mesh, abc: list[bytes]
) -> None:
    write_cache(mesh.path, abc)
    reading = asyncio.create_task(mesh.follower.refresh())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await mesh.follower.refresh()
    assert mesh.known == {"a", "b", "c"}
    assert mesh.follower.status.loads == 1


async def test_a_report_that_fails_to_be_taken_costs_nothing(
    tmp_path: Path, abc: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(report: LoadReport) -> None:
        raise RuntimeError("no room")

    registry = Registry()
    follower = CacheFollower(tmp_path / "cache", registry, on_load=fails)
    write_cache(tmp_path / "cache", abc)
    await follower.start()
    await follower.stop()
    assert len(registry.services()) == 3
    assert "no room" in caplog.text


# -- damage -----------------------------------------------------------------------------


def _delete(path: Path) -> None:
    path.unlink()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)  # permissions would not stop a test that runs as root


def _too_large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(limits.MAX_CACHE_FILE + 1)


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(10_000).replace(b"%%%", b"---"))


def _bad_records(path: Path) -> None:
    path.write_bytes(b"\n%%%\nnothing\n%%%\nof use")


def _separators(path: Path) -> None:
    path.write_bytes(b"\n%%%\n\n%%%\n")


DAMAGE = {
    "No such file": _delete,
    "is a directory": _directory,
    "symbolic links": _unreadable,
    "is larger than": _too_large,
    "is empty": _emptied,
    "no separator": _garbage,
    "not one of 2": _bad_records,
    "not one of 0": _separators,
}


@pytest.mark.parametrize("reason", DAMAGE)
async def test_damage_leaves_the_last_good_index_in_force_until_the_file_is_good_again(
    mesh: Mesh,
    abc: list[bytes],
    announce: Announce,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "scamp.discovery")
    await mesh.put(*abc)
    DAMAGE[reason](mesh.path)
    for _ in range(3):
        await mesh.follower.refresh()
    status = mesh.follower.status
    assert mesh.known == {"a", "b", "c"}
    assert reason in str(status.last_error)
    assert status.available
    assert (status.loads, status.failed_loads) == (1, 1)
    assert [report.error is None for report in mesh.reports] == [True, False]
    assert len(mesh.changes) == 1
    assert len([record for record in caplog.records if reason in record.message]) == 1

    caplog.clear()
    if mesh.path.is_dir():
        mesh.path.rmdir()
    await mesh.put(abc[0], announce("d"))
    assert mesh.known == {"a", "d"}
    assert mesh.follower.status.last_error is None
    assert len([record for record in caplog.records if "good again" in record.message]) == 1


@pytest.mark.parametrize("reason", DAMAGE)
async def test_damage_from_the_beginning_is_not_taken_for_an_empty_mesh(
    mesh: Mesh, reason: str
) -> None:
    mesh.path.write_bytes(b"")
    DAMAGE[reason](mesh.path)
    await mesh.follower.start()
    status = mesh.follower.status
    assert (status.loaded, status.available, status.accepted) == (False, False, 0)
    assert reason in str(status.last_error)


async def test_the_same_file_put_back_is_good_again(mesh: Mesh, abc: list[bytes]) -> None:
    await mesh.put(*abc)
    aside = mesh.path.with_name("aside")
    mesh.path.rename(aside)
    await mesh.follower.refresh()
    assert mesh.follower.status.last_error is not None
    aside.rename(mesh.path)
    await mesh.follower.refresh()
    assert mesh.follower.status.last_error is None
    assert mesh.known == {"a", "b", "c"}


async def test_a_bad_record_costs_no_other_and_is_named(
    mesh: Mesh, abc: list[bytes], announce: Announce, caplog: pytest.LogCaptureFixture
) -> None:
    bad = announce("bad").replace(b"Product", b"Produce")
    await mesh.put(abc[0], bad, b"[3,", abc[1], announce("v")[:-30] + b"\n", abc[2])
    for _ in range(3):
        await mesh.follower.refresh()
    status = mesh.follower.status
    assert mesh.known == {"a", "b", "c"}
    assert status.rejected == {"signature": 2, "malformed": 1}
    assert [(identity, reason) for identity, reason, _ in status.rejected_records] == [
        ("bad", "signature"),
        ("?", "malformed"),
        ("v", "signature"),
    ]
    assert len([record for record in caplog.records if "refused" in record.message]) == 1
    await mesh.put(*abc)
    assert mesh.follower.status.rejected == {}


async def test_a_known_service_whose_record_is_broken_stays_in_force(
    mesh: Mesh, abc: list[bytes], other_signer: Any
) -> None:
    await mesh.put(*abc)
    text, pem, signature = abc[1].split(b"\n\n")
    for parts in (
        (text.replace(b'"Ns"', b'"Xx"'), pem, signature),
        (text.replace(b"[3,", b"[4,"), pem, signature),
        (text, other_signer.pem.strip(), signature),
        (text, b"no certificate", signature),
        (text,),
    ):
        await mesh.put(abc[0], b"\n\n".join(parts), abc[2])
        assert mesh.known == {"a", "b", "c"}
        assert mesh.registry.find("main", "Ns.b")
        status = mesh.follower.status
        assert (status.accepted, status.kept) == (2, 1)
    await mesh.put(abc[0], abc[2])
    assert mesh.known == {"a", "c"}


async def test_wherever_the_file_is_cut_off_no_service_is_lost(
    mesh: Mesh, abc: list[bytes]
) -> None:
    await mesh.put(*abc)
    whole = mesh.path.read_bytes()
    start = whole.index(abc[2])
    for cut in [*range(start + 1, len(whole) - 1, 97), start + 40, len(whole) - 10]:
        await mesh.put_raw(whole[:cut])
        assert mesh.known == {"a", "b", "c"}, cut
        assert mesh.follower.status.rejected, cut
        await mesh.put_raw(whole)
        assert mesh.follower.status.rejected == {}


async def test_what_stands_before_the_cut_is_taken(
    mesh: Mesh, abc: list[bytes], announce: Announce
) -> None:
    await mesh.put(*abc)
    await mesh.put(announce("new"), abc[1][:200])
    assert mesh.known == {"a", "b", "c", "new"}
    assert mesh.follower.status.kept == 3


async def test_a_broken_record_that_stays_at_the_end_is_no_cut_for_ever(
    mesh: Mesh, abc: list[bytes], announce: Announce
) -> None:
    await mesh.put(*abc, b"broken")
    await mesh.put(abc[0], b"broken")
    assert mesh.known == {"a"}
    await mesh.put(abc[0], announce("d"), b"cut elsewhere")
    await mesh.follower.refresh()
    assert mesh.known == {"a", "d"}


async def test_a_file_replaced_while_it_is_read_is_read_again(mesh: Mesh, abc: list[bytes]) -> None:
    write_cache(mesh.path, abc)
    reading = asyncio.create_task(mesh.follower.refresh())
    await asyncio.sleep(0)
    write_cache(mesh.path, abc[:1])
    await reading
    assert mesh.known in ({"a", "b", "c"}, {"a"})
    await mesh.follower.refresh()
    assert mesh.known == {"a"}


# -- age --------------------------------------------------------------------------------


async def test_a_file_whose_writer_died_is_served_and_called_stale(
    mesh: Mesh, abc: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    await mesh.put(*abc)
    old = time.time() - 1000
    os.utime(mesh.path, (old, old))
    for _ in range(3):
        await mesh.follower.refresh()
    status = mesh.follower.status
    assert (status.loaded, status.stale, status.available) == (True, True, False)
    assert status.age(old + 5) == pytest.approx(5)
    assert mesh.known == {"a", "b", "c"}
    assert len([record for record in caplog.records if "stale" in record.message]) == 1
    os.utime(mesh.path)
    await mesh.follower.refresh()
    assert mesh.follower.status.available


async def test_a_file_from_a_time_to_come_is_stale_when_nobody_renews_it(
    tmp_path: Path, abc: list[bytes]
) -> None:
    # The clock was set back by an hour, and the writer died.
    max_age = 1.0  # a busy machine takes a part of that for one look
    follower = CacheFollower(tmp_path / "cache", Registry(), max_age=max_age)
    write_cache(tmp_path / "cache", abc)
    later = time.time() + 3600
    os.utime(tmp_path / "cache", (later, later))
    try:
        await follower.refresh()
        assert follower.status.available
        await asyncio.sleep(max_age + 0.05)
        await follower.refresh()
        assert follower.status.stale
        os.utime(tmp_path / "cache")
        await follower.refresh()
        assert follower.status.available
    finally:
        await follower.stop()


async def test_touching_a_damaged_file_does_not_make_the_index_younger(
    mesh: Mesh, abc: list[bytes]
) -> None:
    write_cache(mesh.path, abc)
    old = time.time() - 1000
    os.utime(mesh.path, (old, old))
    await mesh.follower.refresh()
    await mesh.put_raw(b"garbage")
    assert mesh.follower.status.stale


# -- replay -----------------------------------------------------------------------------


async def test_of_several_records_of_a_service_the_newest_counts(
    mesh: Mesh, announce: Announce
) -> None:
    old, new = announce("a", "Ns.old"), announce("a", "Ns.new", timestamp=1_700_000_060.0)
    for records in ((old, new, new), (new, old)):
        await mesh.put(*records)
        assert mesh.registry.find("main", "Ns.new")
        assert not mesh.registry.find("main", "Ns.old")
        assert mesh.follower.status.rejected == {"replay": 1}


async def test_a_service_whose_clock_was_set_right_is_not_refused_for_ever(
    mesh: Mesh, announce: Announce
) -> None:
    now = time.time()
    other = announce("b")
    await mesh.put(other, announce("a", "Ns.old", timestamp=now + 31e6))
    await mesh.put(other, announce("a", "Ns.new", timestamp=now))
    assert mesh.registry.find("main", "Ns.new")
    assert mesh.follower.status.rejected == {}
    await mesh.put(other, announce("a", "Ns.newer", timestamp=now + 5))
    await mesh.put(other, announce("a", "Ns.new", timestamp=now))
    assert mesh.registry.find("main", "Ns.newer")
    assert mesh.follower.status.rejected == {"replay": 1}


async def test_an_older_record_than_was_seen_is_a_replay_and_the_known_one_stays(
    mesh: Mesh, announce: Announce
) -> None:
    other = announce("b")
    await mesh.put(other, announce("a", "Ns.new", timestamp=1_700_000_060.0))
    await mesh.put(other, announce("a", "Ns.old"))
    assert mesh.registry.find("main", "Ns.new")
    assert mesh.follower.status.rejected == {"replay": 1}
    await mesh.put(other)
    await mesh.put(other, announce("a", "Ns.old"))
    assert mesh.known == {"b"}
    assert mesh.follower.status.rejected == {"replay": 1}
    await mesh.put(other, announce("a", "Ns.newer", timestamp=1_700_000_061.0))
    assert mesh.registry.find("main", "Ns.newer")
    assert mesh.follower.status.rejected == {}


async def test_a_step_back_within_a_second_is_tolerated(mesh: Mesh, announce: Announce) -> None:
    await mesh.put(announce("a", "Ns.x", timestamp=1_700_000_000.9))
    await mesh.put(announce("a", "Ns.y", timestamp=1_700_000_000.1))
    assert mesh.registry.find("main", "Ns.y")
    assert mesh.follower.status.rejected == {}


# -- limits -----------------------------------------------------------------------------


async def test_services_and_actions_beyond_the_limits_are_left_out(
    mesh: Mesh, abc: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ACTIONS", 2)
    await mesh.put(*abc)
    assert mesh.known == {"a", "b"}
    assert mesh.follower.status.rejected == {"limit": 1}
    monkeypatch.setattr(limits, "MAX_SERVICES", 1)
    await mesh.put(*reversed(abc))
    assert mesh.known == {"a", "b"}
    assert "more than 1 records" in (mesh.follower.status.last_error or "")


async def test_refused_records_are_all_counted_and_some_described(
    mesh: Mesh, abc: list[bytes]
) -> None:
    await mesh.put(abc[0], *(b"bad %d" % number for number in range(500)))
    assert mesh.follower.status.rejected == {"malformed": 500}
    assert len(mesh.follower.status.rejected_records) == 100


async def test_the_times_of_services_that_left_are_not_remembered_for_ever(
    mesh: Mesh, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TIMESTAMPS", 3)
    for number in range(6):
        await mesh.put(announce("stays"), announce(f"s{number}"))
    await mesh.put(announce("stays"), announce("s0", timestamp=1_600_000_000.0))
    assert mesh.known == {"stays", "s0"}
    await mesh.put(announce("stays"), announce("s5", timestamp=1_600_000_000.0))
    assert mesh.known == {"stays"}


async def test_an_unforeseen_failure_is_named_and_the_next_look_may_go_well(
    mesh: Mesh, abc: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **named: object) -> None:
        raise MemoryError("no room")

    write_cache(mesh.path, abc)
    with monkeypatch.context() as patch:
        patch.setattr(loader, "load", fails)
        await mesh.follower.start()
        assert "no room" in str(mesh.follower.status.last_error)
    await mesh.follower.refresh()
    assert mesh.follower.status.last_error is None
    assert mesh.known == {"a", "b", "c"}


async def test_a_changed_byte_is_never_taken_for_the_record_of_before(
    mesh: Mesh, abc: list[bytes]
) -> None:
    await mesh.put(*abc)
    text = abc[1].index(b"\n\n")
    for at in [*range(0, text, 3), len(abc[1]) - 40]:
        other = b"B" if abc[1][at : at + 1] == b"A" else b"A"  # base64, too
        flipped = abc[1][:at] + other + abc[1][at + 1 :]
        await mesh.put(abc[0], flipped, abc[2])
        assert mesh.follower.status.rejected == {"signature": 1}
        assert mesh.reports[-1].verified == 1
        assert {"a", "c"} <= mesh.known
    await mesh.put(*abc)
    assert (mesh.known, dict(mesh.follower.status.rejected)) == ({"a", "b", "c"}, {})


async def test_what_was_replaced_is_freed(mesh: Mesh, abc: list[bytes], announce: Announce) -> None:
    def announced() -> Counter[str]:
        kept = (one for one in gc.get_objects() if isinstance(one, Announcement))
        return Counter(one.identity for one in kept if one.identity.startswith("freed-"))

    for number in range(3):
        time_ = 1_700_000_000.0 + number
        renewed = announce("freed-renewed", timestamp=time_)
        changed = announce("freed-changed", f"Ns.x{number}", timestamp=time_)
        await mesh.put(renewed, changed, announce(f"freed-gone{number}"))
    mesh.reports.clear()
    mesh.changes.clear()
    await mesh.follower.stop()  # behind what the worker frees
    assert announced() == {"freed-renewed": 1, "freed-changed": 1, "freed-gone2": 1}


# -- authorization ----------------------------------------------------------------------


AB: list[tuple[str, ...]] = [("a", "Good.x", "Bad.x"), ("b", "Good.x")]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(tmp_path / "cache")
    mesh.follower = CacheFollower(mesh.path, mesh.registry, authorized_path=tmp_path / "authorized")
    yield mesh
    await mesh.follower.stop()


def rules(mesh: Mesh, text: str) -> None:
    new = mesh.path.with_name("new")
    new.write_text(text)
    new.replace(mesh.path.with_name("authorized"))


async def test_an_action_that_is_not_permitted_does_not_exist(
    guarded: Mesh, announce: Announce, signer: Any
) -> None:
    fingerprint: str = signer.fingerprint
    rules(guarded, f"{fingerprint} Good\n")
    await guarded.put(announce("a", "Good.x", "Bad.x", "_meta.info"))
    find = guarded.registry.find
    assert find("main", "Good.x")
    assert find("main", "_meta.info")
    assert not find("main", "Bad.x")
    assert guarded.follower.status.unauthorized == 1

    rules(guarded, f"{fingerprint} Good, Bad\n")
    await guarded.follower.refresh()
    assert find("main", "Bad.x")
    assert guarded.follower.status.unauthorized == 0
    assert guarded.reports == []


async def test_a_renewal_is_permitted_what_its_service_was(
    guarded: Mesh, announce: Announce, signer: Any
) -> None:
    rules(guarded, f"{signer.fingerprint} Good\n")
    await guarded.put(announce("a", "Good.x", "Bad.x"), announce("b", "Good.x"))
    for round_ in (1, 2):
        time_ = 1_700_000_000.0 + 5 * round_
        renewed = [announce(name, *rest, timestamp=time_) for name, *rest in AB]
        await guarded.put(*renewed)
        offers = guarded.registry.find("main", "Good.x")
        assert {offer.service.timestamp for offer in offers} == {time_}
        assert {offer.service.identity for offer in offers} == {"a", "b"}
        assert not guarded.registry.find("main", "Bad.x")
        assert guarded.follower.status.unauthorized == 1
    assert len(guarded.changes) == 1


async def test_rules_that_change_together_with_a_renewal_hold_for_it(
    guarded: Mesh, announce: Announce, signer: Any
) -> None:
    rules(guarded, f"{signer.fingerprint} Good\n")
    await guarded.put(announce("a", "Good.x", "Bad.x"))
    rules(guarded, f"{signer.fingerprint} Bad\n")
    await guarded.put(announce("a", "Good.x", "Bad.x", timestamp=1_700_000_005.0))
    assert guarded.registry.find("main", "Bad.x")
    assert not guarded.registry.find("main", "Good.x")
    assert guarded.follower.status.unauthorized == 1


async def test_an_action_that_comes_with_a_renewal_needs_permission(
    guarded: Mesh, announce: Announce, signer: Any
) -> None:
    rules(guarded, f"{signer.fingerprint} Good\n")
    await guarded.put(announce("a", "Good.x"))
    await guarded.put(announce("a", "Good.x", "Bad.x", timestamp=1_700_000_005.0))
    assert not guarded.registry.find("main", "Bad.x")
    assert guarded.follower.status.unauthorized == 1


@pytest.mark.parametrize("bad", ["", "not one good line\n", None])
async def test_rules_that_break_leave_the_last_good_ones_in_force(
    guarded: Mesh, announce: Announce, signer: Any, bad: str | None
) -> None:
    rules(guarded, f"{signer.fingerprint} Good\n")
    await guarded.put(announce("a", "Good.x", "Bad.x"))
    if bad is None:
        guarded.path.with_name("authorized").unlink()
    else:
        rules(guarded, bad)
    await guarded.put(announce("a", "Good.y", "Bad.y", timestamp=1_700_000_005.0))
    assert guarded.registry.find("main", "Good.y")
    assert not guarded.registry.find("main", "Bad.y")
    assert "authorized_services" in str(guarded.follower.status.last_error)


async def test_nothing_is_loaded_before_the_rules_can_be_read(
    guarded: Mesh, announce: Announce, signer: Any
) -> None:
    await guarded.put(announce("a", "Good.x"))
    assert not guarded.follower.status.loaded
    assert guarded.known == set()
    rules(guarded, f"{signer.fingerprint} Good\n")
    await guarded.follower.refresh()
    assert guarded.follower.status.available
    assert guarded.registry.find("main", "Good.x")


async def test_rules_that_name_nobody_permit_nothing(guarded: Mesh, announce: Announce) -> None:
    rules(guarded, "# nobody\n")
    await guarded.put(announce("a", "Good.x"))
    assert guarded.known == {"a"}
    assert not guarded.registry.find("main", "Good.x")
