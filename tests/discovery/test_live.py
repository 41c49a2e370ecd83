"""What is alive: the rules, with a clock that the test holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from scamp import limits
from scamp.discovery import parse_announcement
from scamp.discovery.live import LIFETIME, MAX_INTERVAL, MIN_INTERVAL, Kind, LiveIndex, restore
from scamp.errors import AnnouncementError

Announce = Callable[..., bytes]
TIME = 1_700_000_000.0


ELSEWHERE: Final = "beepish+tls://10.0.0.2:30100"


class Ear:
    """An index and its clock. While the test waits, some other service is heard every second."""

    def __init__(self, other: bytes) -> None:
        self.index = LiveIndex()
        self.other = other
        self.now = 100.0
        self.expired: list[str] = []

    def hear(self, raw: bytes) -> Kind:
        return self.index.hear(raw, self.now).kind

    def refused(self, raw: bytes) -> str:
        with pytest.raises(AnnouncementError) as caught:
            self.index.hear(raw, self.now)
        return caught.value.reason

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 1.0, end)
            self.index.hear(self.other, self.now)
            gone = self.index.expire(self.now)
            assert all(one.kind is Kind.EXPIRED for one in gone)
            self.expired += [one.service.identity for one in gone]

    @property
    def alive(self) -> set[str]:
        return {service.identity for service in self.index.services()} - {"other"}


@pytest.fixture
def ear(announce_other: Announce) -> Ear:
    return Ear(announce_other("other", interval=1.0))


# -- the ordinary course ----------------------------------------------------------------


def test_a_service_is_new_then_repeated_renewed_and_changed(ear: Ear, announce: Announce) -> None:
    first = announce("a", "Ns.x")
    assert ear.hear(first) is Kind.NEW
    assert ear.hear(first) is Kind.REPEATED
    assert ear.hear(announce("a", "Ns.x", timestamp=TIME + 5)) is Kind.RENEWED
    heard = ear.index.hear(announce("a", "Ns.y", timestamp=TIME + 10), ear.now)
    assert heard.kind is Kind.CHANGED
    assert heard.before is not None
    assert heard.before.actions[0].name == "x"
    assert heard.service.actions[0].name == "y"
    assert ear.alive == {"a"}


def test_a_record_that_is_repeated_is_not_verified_again(ear: Ear, announce: Announce) -> None:
    record = announce("a")
    for _ in range(5):
        ear.hear(record)
    assert ear.index.verified == 1


def test_the_records_are_those_that_were_signed_in_a_stable_order(
    ear: Ear, announce: Announce
) -> None:
    records = {identity: announce(identity) for identity in "cab"}
    for record in records.values():
        ear.hear(record)
    assert ear.index.records() == [records["a"], records["b"], records["c"]]
    renewed = announce("a", timestamp=TIME + 1)
    ear.hear(renewed)
    assert ear.index.records() == [renewed, records["b"], records["c"]]


def test_two_certificates_with_one_identity_are_two_services(
    ear: Ear, announce: Announce, announce_other: Announce
) -> None:
    assert ear.hear(announce("a")) is Kind.NEW
    assert ear.hear(announce_other("a")) is Kind.NEW
    assert ear.hear(announce("a", timestamp=TIME + 1)) is Kind.RENEWED
    assert len(ear.index) == 2


# -- expiry -----------------------------------------------------------------------------


def test_a_service_expires_when_it_was_silent_for_2_1_intervals(
    ear: Ear, announce: Announce
) -> None:
    ear.hear(announce("a", interval=5.0))
    ear.wait(10.4)
    assert ear.alive == {"a"}
    ear.wait(0.2)
    assert (ear.alive, ear.expired) == (set(), ["a"])


@pytest.mark.parametrize("renewal", [0.0, 5.0])
def test_hearing_it_again_gives_it_its_whole_life(
    ear: Ear, announce: Announce, renewal: float
) -> None:
    ear.hear(announce("a"))
    ear.wait(10)
    ear.hear(announce("a", timestamp=TIME + renewal))
    ear.wait(10)
    assert ear.alive == {"a"}
    ear.wait(1)
    assert ear.expired == ["a"]


def test_life_counts_from_receipt_whatever_the_clock_of_the_service_says(
    ear: Ear, announce: Announce
) -> None:
    ear.hear(announce("past", timestamp=1.0))
    ear.hear(announce("future", timestamp=TIME * 10))
    ear.wait(10)
    assert ear.alive == {"past", "future"}
    ear.wait(1)
    assert set(ear.expired) == {"past", "future"}


@pytest.mark.parametrize(
    ("interval", "counted"), [(0.0, MIN_INTERVAL), (0.001, MIN_INTERVAL), (31e6, MAX_INTERVAL)]
)
def test_an_interval_that_makes_no_sense_counts_as_the_nearest_that_does(
    ear: Ear, announce: Announce, interval: float, counted: float
) -> None:
    ear.hear(announce("a", interval=interval))
    ear.wait(2.1 * counted - 0.05)
    assert ear.alive == {"a"}
    ear.wait(0.1)
    assert ear.expired == ["a"]


def test_nothing_expires_before_the_time_that_is_told(ear: Ear, announce: Announce) -> None:
    assert ear.index.next_expiry == float("inf")
    ear.hear(announce("slow", interval=20.0))
    ear.hear(announce("quick", interval=2.0))
    assert ear.index.next_expiry == pytest.approx(ear.now + 4.2)
    ear.wait(5)
    assert ear.expired == ["quick"]
    assert ear.index.next_expiry == pytest.approx(ear.now + 2.1)  # of the other one


def silence(index: LiveIndex, now: float, seconds: int) -> list[str]:
    """Who expires while nobody is heard."""
    gone: list[str] = []
    for step in range(1, seconds + 1):
        gone += [one.service.identity for one in index.expire(now + step)]
    return gone


@pytest.mark.parametrize("looks", [0, 3600])
def test_time_in_which_nobody_was_heard_kills_nobody(
    ear: Ear, announce: Announce, looks: int
) -> None:
    # The machine was suspended (no looks), or a switch had forgotten us.
    ear.hear(ear.other)
    ear.hear(announce("a", uri=ELSEWHERE))
    ear.wait(5)
    for _ in range(looks):
        ear.now += 1
        assert ear.index.expire(ear.now) == ()
    ear.now += 3600 - looks
    assert ear.index.expire(ear.now) == ()
    assert ear.index.is_deaf(ear.now) == bool(looks)
    assert ear.hear(ear.other) is Kind.REPEATED
    assert not ear.index.is_deaf(ear.now)
    ear.wait(4)
    assert ear.alive == {"a"}
    ear.wait(4)
    assert ear.expired == ["a"]


def test_time_in_which_the_machine_was_suspended_kills_not_even_the_only_one(
    announce: Announce,
) -> None:
    index = LiveIndex()
    index.hear(announce("a"), 100.0)
    assert index.expire(3600.0) == ()
    assert silence(index, 3600.0, 10) == []
    assert silence(index, 3610.0, 1) == ["a"]


def test_a_service_of_two_that_dies_expires_by_what_the_other_says(announce: Announce) -> None:
    # The longest that two can be apart is taken for silence again and again.
    index, now = LiveIndex(), 100.0
    index.hear(announce("dead", interval=2.5), now)
    expired: list[str] = []
    while not expired and now < 200:
        now += 5.0
        index.hear(announce("alive", interval=5.0), now)
        for step in range(5):
            expired += [one.service.identity for one in index.expire(now + step)]
    assert expired == ["dead"]
    assert now <= 120


def test_services_of_several_hosts_that_are_all_silent_are_kept(announce: Announce) -> None:
    index = LiveIndex()
    for record in (announce("a"), announce("b", uri=ELSEWHERE)):
        index.hear(record, 100.0)
    assert not index.is_deaf(100 + LIFETIME * 5 - 0.1)
    assert silence(index, 100.0, 1000) == []
    assert index.is_deaf(1100.0)
    assert index.next_expiry > 1100.0


def test_services_of_one_host_that_are_all_silent_have_died_with_it(announce: Announce) -> None:
    index = LiveIndex()
    for record in (announce("a"), announce("b", uri="beepish+tls://10.0.0.1:30200")):
        index.hear(record, 100.0)
    assert silence(index, 100.0, 10) == []
    assert sorted(silence(index, 110.0, 1)) == ["a", "b"]
    assert index.is_deaf(111.0)
    assert index.next_expiry == float("inf")


def test_the_last_host_dies_alone_when_the_others_have(announce: Announce) -> None:
    index = LiveIndex()
    index.hear(announce("a", uri=ELSEWHERE), 100.0)
    gone: list[str] = []
    for now in range(101, 121):
        index.hear(announce("b", timestamp=TIME + now), now)
        gone += [one.service.identity for one in index.expire(now)]
    assert gone == ["a"]
    assert silence(index, 120.0, 10) == []
    assert silence(index, 130.0, 1) == ["b"]


def test_nobody_is_missed_when_the_last_has_left(announce: Announce) -> None:
    index = LiveIndex()
    assert not index.is_deaf(100.0)
    index.hear(announce("a"), 100.0)
    index.hear(announce("a", timestamp=TIME + 1, weight=0, actions=()), 101.0)
    assert not index.is_deaf(1000.0)


# -- leaving and replay -----------------------------------------------------------------


def leaving(announce: Announce, identity: str, timestamp: float) -> bytes:
    return announce(identity, timestamp=timestamp, weight=0, actions=())


def test_a_service_that_leaves_is_gone_at_once(ear: Ear, announce: Announce) -> None:
    ear.hear(announce("a"))
    assert ear.hear(leaving(announce, "a", TIME + 1)) is Kind.LEFT
    assert ear.alive == set()
    assert ear.hear(leaving(announce, "a", TIME + 2)) is Kind.AWAY
    ear.wait(20)
    assert ear.expired == []


def test_weight_0_is_leaving_even_with_actions(ear: Ear, announce: Announce) -> None:
    ear.hear(announce("a"))
    assert ear.hear(announce("a", timestamp=TIME + 1, weight=0)) is Kind.LEFT


def test_what_a_service_said_before_it_left_does_not_call_it_back(
    ear: Ear, announce: Announce
) -> None:
    last = announce("a", timestamp=TIME + 0.5)
    ear.hear(announce("a"))
    ear.hear(last)
    goodbye = leaving(announce, "a", TIME + 0.9)
    ear.hear(goodbye)
    assert ear.refused(last) == "replay"
    assert ear.refused(announce("a", timestamp=TIME + 0.9)) == "replay"
    assert ear.hear(goodbye) is Kind.AWAY
    assert ear.hear(leaving(announce, "a", TIME + 0.2)) is Kind.AWAY
    assert ear.hear(announce("a", timestamp=TIME + 1)) is Kind.NEW


def test_a_leaving_that_is_replayed_does_not_throw_a_service_out(
    ear: Ear, announce: Announce
) -> None:
    goodbye = leaving(announce, "a", TIME)
    ear.hear(goodbye)
    ear.hear(announce("a", timestamp=TIME + 5))
    assert ear.refused(goodbye) == "replay"
    assert ear.alive == {"a"}


def test_an_older_record_is_refused_and_changes_nothing(ear: Ear, announce: Announce) -> None:
    old = announce("a", "Ns.old")
    ear.hear(old)
    ear.hear(announce("a", "Ns.new", timestamp=TIME + 5))
    ear.wait(8)
    assert ear.refused(old) == "replay"
    ear.wait(3)
    assert ear.expired == ["a"]
    assert ear.refused(old) == "replay"


def test_a_step_back_within_a_second_is_allowed_once_and_does_not_add_up(
    ear: Ear, announce: Announce
) -> None:
    ear.hear(announce("a", timestamp=TIME + 1))
    assert ear.hear(announce("a", timestamp=TIME + 0.1)) is Kind.RENEWED
    assert ear.refused(announce("a", timestamp=TIME - 0.7)) == "replay"


def test_a_service_that_was_late_comes_back_with_the_very_same_record(
    ear: Ear, announce: Announce
) -> None:
    record = announce("a", timestamp=TIME - 0.5)
    ear.hear(announce("a"))
    ear.hear(record)
    ear.wait(11)
    assert ear.expired == ["a"]
    assert ear.hear(record) is Kind.NEW


# -- refusals and caps ------------------------------------------------------------------


def test_a_forged_renewal_is_refused_and_does_not_keep_a_service_alive(
    ear: Ear, announce: Announce
) -> None:
    record = announce("a")
    forged = record.replace(b"1700000000.0", b"1700000005.0")
    assert forged != record
    ear.hear(record)
    ear.wait(8)
    assert ear.refused(forged) == "signature"
    ear.wait(3)
    assert ear.expired == ["a"]


def test_too_many_services_leave_those_that_are_there(
    ear: Ear, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_SERVICES", 2)
    ear.hear(announce("a"))
    ear.hear(announce("b"))
    assert ear.refused(announce("c")) == "limit"
    assert ear.hear(announce("a", "Ns.other", timestamp=TIME + 1)) is Kind.CHANGED
    ear.hear(leaving(announce, "b", TIME + 1))
    assert ear.hear(announce("c")) is Kind.NEW


def test_too_many_actions_or_bytes_are_refused(
    ear: Ear, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ACTIONS", 3)
    ear.hear(announce("a", "N.x", "N.y"))
    assert ear.refused(announce("b", "N.x", "N.y")) == "limit"
    assert ear.refused(announce("a", "N.a", "N.b", "N.c", "N.d", timestamp=TIME + 1)) == "limit"
    assert ear.hear(announce("a", "N.a", timestamp=TIME + 2)) is Kind.CHANGED
    assert ear.hear(announce("b", "N.x", "N.y")) is Kind.NEW
    monkeypatch.setattr(limits, "MAX_CACHE_FILE", 10)
    assert ear.refused(announce("c", "N.x")) == "limit"


def test_services_that_come_and_go_do_not_fill_the_memory(
    ear: Ear, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TIMESTAMPS", 3)
    first = announce("service-0")
    for number in range(10):
        ear.hear(announce(f"service-{number}"))
        ear.hear(leaving(announce, f"service-{number}", TIME + 1))
    sizes = [len(value) for value in vars(ear.index).values() if isinstance(value, dict)]
    sizes += [len(room.past) for room in ear.index._rooms.values()]
    assert max(sizes) == 3
    assert ear.hear(first) is Kind.NEW  # what it said is forgotten, by the cap


def test_a_restart_keeps_good_records_for_as_long_as_if_they_had_been_heard(
    ear: Ear, announce: Announce
) -> None:
    good = [announce("a"), announce("b", interval=10.0)]
    assert restore(ear.index, [good[0], b"rubbish", good[1]], ear.now) == {"malformed": 1}
    ear.wait(10)
    assert ear.alive == {"a", "b"}
    ear.wait(10)
    assert ear.expired == ["a"]


# -- clocks -----------------------------------------------------------------------------

YEAR = 31e6


def test_a_service_whose_clock_is_set_right_is_not_blocked_for_ever(
    ear: Ear, announce: Announce
) -> None:
    index = ear.index
    index.hear(announce("a", "Ns.old", timestamp=TIME + YEAR), ear.now, TIME)
    heard = index.hear(announce("a", "Ns.new", timestamp=TIME), ear.now, TIME)
    assert heard.kind is Kind.CHANGED
    # From there on it is as protected as any other.
    with pytest.raises(AnnouncementError, match="older"):
        index.hear(announce("a", "Ns.old", timestamp=TIME - 5), ear.now, TIME)


def test_the_same_after_it_fell_silent(ear: Ear, announce: Announce) -> None:
    ear.index.hear(announce("a", timestamp=TIME + YEAR), ear.now, TIME)
    ear.wait(11)
    assert ear.expired == ["a"]
    assert ear.index.hear(announce("a"), ear.now, TIME).kind is Kind.NEW


@pytest.mark.parametrize(
    ("newest", "timestamp"), [(TIME + YEAR, TIME - 301), (TIME + 299, TIME), (TIME, TIME - 5)]
)
def test_what_is_no_clock_set_right_is_a_replay(
    ear: Ear, announce: Announce, newest: float, timestamp: float
) -> None:
    ear.index.hear(announce("a", timestamp=newest), ear.now, TIME)
    with pytest.raises(AnnouncementError, match="older"):
        ear.index.hear(announce("a", timestamp=timestamp), ear.now, TIME)


def test_a_service_that_left_is_not_called_back_by_its_wrong_clock(
    ear: Ear, announce: Announce
) -> None:
    ear.index.hear(leaving(announce, "a", TIME + YEAR), ear.now, TIME)
    with pytest.raises(AnnouncementError, match="older"):
        ear.index.hear(announce("a"), ear.now, TIME)


# -- strangers --------------------------------------------------------------------------


def test_strangers_have_a_room_of_their_own_and_keep_nobody_out(
    announce: Announce, announce_other: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ACTIONS", 40)
    index = LiveIndex()
    ours = parse_announcement(announce("a")).fingerprint
    index.trusts = lambda fingerprint: fingerprint == ours
    four = ("Ns.a", "Ns.b", "Ns.c", "Ns.d")
    index.hear(announce_other("stranger", *four), 1.0)
    with pytest.raises(AnnouncementError, match="more than 4 actions"):
        index.hear(announce_other("another"), 1.0)
    index.hear(announce_other("stranger", "Ns.x", timestamp=TIME + 1), 1.0)
    for number in range(10):
        index.hear(announce(f"ours-{number}", *four), 1.0)
    with pytest.raises(AnnouncementError, match="more than 40 actions"):
        index.hear(announce("ours"), 1.0)


def test_who_is_a_stranger_no_longer_makes_room_for_others(
    announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_SERVICES", 10)
    index = LiveIndex()
    index.trusts = lambda _: False
    index.hear(announce("a"), 1.0)
    index.trusts = lambda _: True
    index.hear(announce("a", timestamp=TIME + 5), 1.0)
    index.trusts = lambda _: False
    assert index.hear(announce("b"), 1.0).kind is Kind.NEW


def test_strangers_who_leave_do_not_make_us_forget_who_has_left(
    announce: Announce,
    announce_other: Announce,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_TIMESTAMPS", 20)
    index = LiveIndex()
    ours = parse_announcement(announce("a")).fingerprint
    index.trusts = lambda fingerprint: fingerprint == ours
    index.hear(leaving(announce, "a", TIME + 5), 1.0)
    for number in range(100):
        index.hear(leaving(announce_other, f"stranger-{number}", TIME), 1.0)
    with pytest.raises(AnnouncementError, match="older"):
        index.hear(announce("a"), 1.0)


def test_who_spoke_most_often_and_has_left_is_not_missed(
    announce: Announce, announce_other: Announce
) -> None:
    """The others speak every five seconds, on two hosts: two seconds of silence are none."""
    index = LiveIndex()
    index.hear(announce("a"), 100.0)
    index.hear(announce("b", uri=ELSEWHERE), 100.0)
    index.hear(announce("often", interval=1.0), 100.0)
    index.hear(announce("often", interval=1.0, weight=0, timestamp=TIME + 1), 100.5)
    for tenths in range(1, 40):
        now = 100.5 + tenths / 10
        assert index.expire(now) == ()
        assert not index.is_deaf(now), now
