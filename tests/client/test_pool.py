"""Decisions of the pool, without a connection in sight."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from scamp.client.pool import MAX_DIALS, PROBE_DELAY, Need, PoolCore
from scamp.client.traits import PeerKind, TraitStore


@dataclass(eq=False)
class FakeSlot:
    """A connection with places."""

    places: int
    in_flight: int = 0
    used: bool = True
    alone: bool = False
    log: list[str] = field(default_factory=list)

    @property
    def room(self) -> int:
        return self.places - self.in_flight

    @property
    def empty(self) -> bool:
        return self.in_flight == 0

    @property
    def doubtful(self) -> bool:
        return self.used and self.in_flight == 0


Pool = PoolCore[FakeSlot, str]


def pool(kind: PeerKind = PeerKind.ECHOES, *slots: FakeSlot, max_connections: int = 64) -> Pool:
    made: Pool = PoolCore(kind, max_connections=max_connections, max_waiters=4)
    for slot in slots:
        made.add(slot)
    return made


def test_nothing_to_pick_from() -> None:
    assert pool().pick(Need.SHARED) is None


def test_the_newest_idle_connection_is_preferred() -> None:
    old, new = FakeSlot(8), FakeSlot(8)
    assert pool(PeerKind.ECHOES, old, new).pick(Need.SHARED) is new


def test_an_idle_connection_is_preferred_to_a_newer_busy_one() -> None:
    old, new = FakeSlot(8), FakeSlot(8, in_flight=1)
    assert pool(PeerKind.ECHOES, old, new).pick(Need.SHARED) is old


def test_of_busy_connections_the_least_busy_is_picked() -> None:
    slots = [FakeSlot(8, 5), FakeSlot(8, 2), FakeSlot(8, 7)]
    assert pool(PeerKind.ECHOES, *slots).pick(Need.SHARED) is slots[1]


def test_a_full_connection_is_never_picked() -> None:
    assert pool(PeerKind.ECHOES, FakeSlot(2, 2)).pick(Need.SHARED) is None


def test_a_request_that_needs_a_connection_alone_gets_an_empty_one_only() -> None:
    busy, empty = FakeSlot(8, 1), FakeSlot(8)
    assert pool(PeerKind.ECHOES, busy).pick(Need.ALONE) is None
    assert pool(PeerKind.ECHOES, empty, busy).pick(Need.ALONE) is empty


def test_a_last_try_avoids_connections_that_were_idle() -> None:
    idle, busy = FakeSlot(8), FakeSlot(8, 1)
    assert pool(PeerKind.ECHOES, idle).pick(Need.FRESH) is None
    assert pool(PeerKind.ECHOES, idle, busy).pick(Need.FRESH) is busy
    new = FakeSlot(8, used=False)
    assert pool(PeerKind.ECHOES, new, idle).pick(Need.FRESH) is new


def test_a_last_try_takes_what_there_is_when_no_more_may_be_dialled() -> None:
    idle = FakeSlot(8)
    assert pool(PeerKind.ECHOES, idle, max_connections=1).pick(Need.FRESH) is idle


def test_a_connection_is_dialled_for_a_last_try_beside_idle_ones() -> None:
    core = pool(PeerKind.ECHOES, FakeSlot(8))
    core.wait("last", Need.FRESH, 0.0)
    assert core.grant() is None
    assert core.dials(0.0) == 1
    core.add(new := FakeSlot(8, used=False))
    assert core.grant() == ("last", new)


@pytest.mark.parametrize("need", list(Need))
def test_who_comes_later_does_not_overtake_who_waits(need: Need) -> None:
    core = pool()
    core.wait("first", need, 0.0)
    core.add(FakeSlot(8, used=False))
    assert core.pick(need) is None
    granted = core.grant()
    assert granted is not None
    assert granted[0] == "first"


def test_waiters_are_served_in_order_while_there_is_room() -> None:
    core = pool()
    for name in "abc":
        core.wait(name, Need.SHARED, 0.0)
    slot = FakeSlot(2)
    core.add(slot)
    served = []
    while (granted := core.grant()) is not None:
        served.append(granted[0])
        granted[1].in_flight += 1
    assert served == ["a", "b"]
    assert core.waiting == 1


def test_a_request_that_has_gone_is_not_served() -> None:
    core = pool()
    core.wait("gone", Need.SHARED, 0.0)
    core.wait("here", Need.ALONE, 0.0)
    core.forget("gone")
    core.forget("never known")
    core.add(FakeSlot(1))
    granted = core.grant()
    assert granted is not None
    assert granted[0] == "here"
    assert core.waiting == 0


def test_an_upload_is_not_starved_by_requests_that_came_after_it() -> None:
    core = pool(PeerKind.RENUMBERS, max_connections=1)
    slot = FakeSlot(1, 1)
    core.add(slot)
    core.wait("upload", Need.ALONE, 0.0)
    core.wait("later", Need.SHARED, 0.0)
    slot.in_flight = 0
    granted = core.grant()
    assert granted is not None
    assert granted[0] == "upload"


def test_an_upload_that_cannot_be_served_does_not_hold_up_the_others() -> None:
    core = pool(PeerKind.ECHOES, FakeSlot(8, 1), max_connections=1)
    core.wait("upload", Need.ALONE, 0.0)
    core.wait("small", Need.SHARED, 0.0)
    granted = core.grant()
    assert granted is not None
    assert granted[0] == "small"


def test_uploads_leave_room_for_others_to_wait() -> None:
    core = pool()
    for number in range(3):
        assert not core.full(Need.ALONE)
        core.wait(str(number), Need.ALONE, 0.0)
    assert core.full(Need.ALONE)
    assert not core.full(Need.SHARED)


def test_the_queue_is_full_at_its_cap() -> None:
    core = pool()
    for number in range(4):
        assert not core.full(Need.SHARED)
        core.wait(str(number), Need.ALONE if number % 2 == 0 else Need.SHARED, 0.0)
    assert all(map(core.full, Need))
    assert sorted(core.take_waiters()) == ["0", "1", "2", "3"]
    assert core.waiting == 0


@pytest.mark.parametrize("kind", [PeerKind.UNKNOWN, PeerKind.ECHOES])
def test_one_dial_serves_all_who_can_share(kind: PeerKind) -> None:
    core = pool(kind)
    for name in "abc":
        core.wait(name, Need.SHARED, 0.0)
    assert core.dials(0.0) == 1
    core.dialing = 1
    assert core.dials(0.0) == 0


def test_a_peer_that_renumbers_is_dialled_for_each() -> None:
    core = pool(PeerKind.RENUMBERS)
    for name in "abc":
        core.wait(name, Need.SHARED, 0.0)
    assert core.dials(0.0) == 3
    core.dialing = 2
    assert core.dials(0.0) == 1


def test_uploads_are_dialled_for_one_by_one_whatever_the_peer() -> None:
    core = pool(PeerKind.ECHOES)
    for name in "abc":
        core.wait(name, Need.ALONE, 0.0)
    core.wait("d", Need.SHARED, 0.0)
    assert core.dials(0.0) == 4


def test_dials_at_once_are_capped() -> None:
    core: Pool = PoolCore(PeerKind.RENUMBERS, max_connections=64, max_waiters=100)
    for number in range(100):
        core.wait(str(number), Need.SHARED, 0.0)
    assert core.dials(0.0) == MAX_DIALS


def test_dials_stop_at_the_cap_of_connections() -> None:
    core = pool(PeerKind.RENUMBERS, FakeSlot(1, 1), FakeSlot(1, 1), max_connections=3)
    core.wait("a", Need.SHARED, 0.0)
    core.wait("b", Need.SHARED, 0.0)
    assert core.dials(0.0) == 1
    core.dialing = 1
    assert core.dials(0.0) == 0
    core.dialing = 0
    core.add(FakeSlot(1, 1))
    assert core.dials(0.0) == 0


def test_a_connection_that_was_removed_is_not_used() -> None:
    slot = FakeSlot(1)
    core = pool(PeerKind.ECHOES, slot)
    core.remove(slot)
    core.remove(slot)
    assert core.pick(Need.SHARED) is None


def test_what_was_learned_is_remembered_until_there_is_too_much_of_it() -> None:
    store = TraitStore(capacity=2)
    for number, kind in enumerate((PeerKind.ECHOES, PeerKind.RENUMBERS, PeerKind.ECHOES)):
        store.learn(("fp", str(number)), kind)
    assert len(store) == 2
    assert store.kind(("fp", "0")) is PeerKind.UNKNOWN
    assert store.kind(("fp", "1")) is PeerKind.RENUMBERS


def test_what_was_learned_again_is_kept_longest_and_can_be_forgotten() -> None:
    store = TraitStore(capacity=2)
    store.learn(("fp", "a"), PeerKind.ECHOES)
    store.learn(("fp", "b"), PeerKind.ECHOES)
    store.learn(("fp", "a"), PeerKind.RENUMBERS)
    store.learn(("fp", "c"), PeerKind.ECHOES)
    assert store.kind(("fp", "a")) is PeerKind.RENUMBERS
    assert store.kind(("fp", "b")) is PeerKind.UNKNOWN
    store.learn(("fp", "a"), PeerKind.UNKNOWN)
    assert len(store) == 1


# -- before the first reply -------------------------------------------------------------


def probed(core: Pool, now: float) -> int:
    """Dial what the pool says; every new connection takes one who waits, and is silent."""
    count = core.dials(now)
    for _ in range(count):
        core.add(FakeSlot(1))
        granted = core.grant()
        assert granted is not None
        granted[1].in_flight = 1
    return count


def test_a_burst_on_an_unknown_peer_waits_for_the_first_reply_but_not_for_long() -> None:
    core: Pool = PoolCore(PeerKind.UNKNOWN, max_connections=64, max_waiters=100)
    for number in range(100):
        core.wait(str(number), Need.SHARED, 0.0)
    assert core.probing
    assert probed(core, 0.0) == 1
    assert probed(core, 0.0) == 0
    assert probed(core, 0.9 * PROBE_DELAY) == 0
    grown = [probed(core, step * PROBE_DELAY + 1e-9) for step in range(1, 4)]
    assert grown == [1, 2, 4]
    seconds = 0.0
    while len(core.slots) < 64:
        seconds += PROBE_DELAY
        probed(core, seconds)
    assert seconds < 1.0
    assert probed(core, 1000.0) == 0


def test_what_the_first_reply_shows_decides_how_many_connections_there_are() -> None:
    for kind, dials in ((PeerKind.ECHOES, 1), (PeerKind.RENUMBERS, MAX_DIALS)):
        core: Pool = PoolCore(PeerKind.UNKNOWN, max_connections=64, max_waiters=100)
        for number in range(100):
            core.wait(str(number), Need.SHARED, 0.0)
        assert probed(core, 0.0) == 1
        core.kind = kind
        assert not core.probing
        assert core.dials(0.0) == dials


def test_a_peer_that_became_unknown_again_is_probed_from_the_beginning() -> None:
    core: Pool = PoolCore(PeerKind.UNKNOWN, max_connections=64, max_waiters=100)
    core.wait("a", Need.SHARED, 0.0)
    core.wait("b", Need.SHARED, 0.0)
    assert probed(core, 0.0) == 1
    assert core.dials(0.0) == 0  # begins to count
    core.kind = PeerKind.ECHOES
    core.dials(1.0)
    core.kind = PeerKind.UNKNOWN
    assert core.dials(1000.0) == 0
    assert core.dials(1000.0 + 1.5 * PROBE_DELAY) == 1


def test_while_the_first_connection_is_dialled_no_other_one_is() -> None:
    core = pool(PeerKind.UNKNOWN)
    core.wait("a", Need.SHARED, 0.0)
    core.wait("b", Need.SHARED, 0.0)
    assert core.dials(0.0) == 1
    core.dialing = 1
    assert core.dials(100.0) == 0


def test_those_who_are_taken_out_come_in_their_order() -> None:
    core = pool()
    for name, need in (("a", Need.FRESH), ("b", Need.SHARED), ("c", Need.ALONE)):
        core.wait(name, need, 0.0)
    assert core.take_waiters() == ["a", "b", "c"]


@pytest.mark.parametrize(("most", "kept"), [(1, 0), (2, 1), (4, 1), (64, 16)])
def test_requests_alone_leave_some_connections_to_the_others(most: int, kept: int) -> None:
    made = pool(max_connections=most)
    taken = [FakeSlot(0, in_flight=1, alone=True) for _ in range(most - kept)]
    for slot in taken:
        made.add(slot)
    empty = FakeSlot(4)
    if kept:
        made.add(empty)
        assert made.pick(Need.ALONE) is None
        assert made.pick(Need.SHARED) is empty
    taken[0].alone, taken[0].in_flight = False, 0
    assert made.pick(Need.ALONE) is not None


def test_what_they_may_not_have_is_not_dialled_for_them() -> None:
    made = pool(max_connections=4)
    for number in range(8):
        made.max_waiters = 8
        made.wait(f"upload {number}", Need.ALONE, 0.0)
    assert made.dials(0.0) == 3
