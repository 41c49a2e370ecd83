"""When waiting is given up, by a clock that the test turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scamp.client.pool import Need, PoolCore
from scamp.client.queueing import StandingQueue
from scamp.client.traits import PeerKind


@dataclass(eq=False)
class Slot:
    """A connection that is always free."""

    room: int = 1
    empty: bool = True
    in_flight: int = 0
    doubtful: bool = False
    alone: bool = False


Pool = PoolCore[Slot, str]


def pool(kind: PeerKind = PeerKind.RENUMBERS) -> Pool:
    """Who waits for more than 1 s is refused, once the queue has stood for 10 s."""
    made: Pool = PoolCore(
        kind, max_connections=1, max_waiters=1000, standing=StandingQueue(1.0, 10.0)
    )
    made.add(Slot())
    return made


def serve(core: Pool) -> str | None:
    """Whoever is next, at once over again."""
    granted = core.grant()
    return None if granted is None else granted[0]


def test_nobody_is_too_old_before_the_queue_has_stood_for_the_interval() -> None:
    standing = StandingQueue(1.0, 10.0)
    assert standing.too_old(100.0) == -math.inf
    assert standing.too_old(109.9) == -math.inf
    assert standing.too_old(110.0) == 109.0
    standing.emptied()
    assert standing.too_old(111.0) == -math.inf
    assert standing.too_old(120.9) == -math.inf
    assert standing.too_old(121.0) == 120.0


def test_without_a_target_nobody_ever_is() -> None:
    standing = StandingQueue(0.0, 0.0)
    assert {standing.too_old(now) for now in (0.0, 1e6)} == {-math.inf}


def test_a_burst_that_drains_is_served_whole() -> None:
    core = pool()
    for number in range(900):
        core.wait(str(number), Need.SHARED, 0.0)
    served = []
    for step in range(900):
        now = step * 0.01  # the last has waited for 9 s
        assert core.overdue(now) == []
        served.append(serve(core))
    assert served == [str(number) for number in range(900)]


def test_a_burst_after_another_begins_anew() -> None:
    core = pool()
    for round_ in range(5):
        now = round_ * 9.0
        core.wait("a", Need.SHARED, now)
        assert core.overdue(now) == []
        assert core.overdue(now + 8.9) == []
        assert serve(core) == "a"


def test_who_has_gone_empties_the_queue_too() -> None:
    core = pool()
    core.wait("gone", Need.SHARED, 0.0)
    assert core.overdue(0.0) == []
    core.forget("gone")
    core.wait("late", Need.SHARED, 9.0)
    assert core.overdue(10.5) == []


def test_under_lasting_overload_those_who_are_served_have_waited_about_the_target() -> None:
    """Twice as many come as can be served: half is refused, soon, and nobody waits for long."""
    core = pool()
    came: dict[str, float] = {}
    waits, refused = [], []
    for step in range(6000):  # a minute
        now = step * 0.01
        for half in "ab":
            name = f"{step}{half}"
            came[name] = now
            core.wait(name, Need.SHARED, now)
        refused += [now - came[name] for name in core.overdue(now)]
        name = serve(core) or ""
        if now > 12.0:
            waits.append(now - came[name])
    assert max(waits) <= 1.0
    assert len(waits) == 4799  # nobody is refused for whom there was a place
    assert len(refused) > 5000
    assert core.waiting <= 201


def test_the_wait_for_a_connection_or_for_what_a_peer_is_counts_for_nothing() -> None:
    unknown = pool(PeerKind.UNKNOWN)
    unconnected = pool()
    unconnected.remove(unconnected.slots[0])
    for core in (unknown, unconnected):
        core.wait("a", Need.SHARED, 0.0)
        for now in (0.0, 20.0, 40.0):
            assert core.overdue(now) == []
    unknown.kind = PeerKind.RENUMBERS
    assert unknown.overdue(41.0) == []
    assert unknown.overdue(51.0) == ["a"]
