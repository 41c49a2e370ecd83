"""What a flood of packets may cost: nothing that the services we know would feel."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from scamp import limits
from scamp.discovery.intake import Intake, _Debts, claimed_identity
from scamp.discovery.multicast import encode_packet

Announce = Callable[..., bytes]

HOME, ELSEWHERE = "10.0.0.1", "10.0.0.66"


def key(identity: str, fingerprint: str = "FF") -> tuple[str, str]:
    return (fingerprint, identity)


def forged(identity: str) -> bytes:
    """A packet that claims to be of a service, and is not; no two are alike."""
    return b'[3,"%b","main",%b' % (identity.encode(), os.urandom(8).hex().encode())


def test_the_claimed_identity_shows_in_any_form_of_packet(announce: Announce) -> None:
    record = announce("shop:" + "A" * 24)
    for packet in (record, b"R" + record, encode_packet(record), b"D" + encode_packet(record)):
        assert claimed_identity(packet) == "shop:" + "A" * 24


@pytest.mark.parametrize("packet", [b"", b"R", b"x\x9c", b"x\x9cgarbage", b"[3,", os.urandom(99)])
def test_rubbish_claims_nothing(packet: bytes) -> None:
    assert claimed_identity(packet) == ""


def test_packets_come_out_in_order_with_known_services_first() -> None:
    intake = Intake()
    intake.recognise(key("known"), HOME)
    for identity in ("one", "known", "two"):
        intake.put(forged(identity), HOME)
    assert [packet.identity for packet in intake.take(1.0)] == ["known", "one", "two"]
    assert (len(intake), intake.dropped) == (0, 0)


def test_the_same_packet_twice_waits_once_and_is_no_loss() -> None:
    intake = Intake()
    packet = forged("a")
    for _ in range(1000):
        intake.put(packet, HOME)
    assert (len(intake), intake.dropped) == (1, 0)
    assert len(intake.take(1.0)) == 1
    intake.put(packet, HOME)
    assert len(intake.take(2.0)) == 1


def test_a_flood_of_strangers_costs_known_services_nothing() -> None:
    intake = Intake()
    intake.recognise(key("known"), HOME)
    for number in range(3 * limits.MAX_PENDING_PACKETS):
        intake.put(forged(f"stranger-{number}"), ELSEWHERE)
    real = forged("known")
    intake.put(real, HOME)
    assert intake.take(1.0)[0].data == real
    assert intake.dropped == 3 * limits.MAX_PENDING_PACKETS - limits.MAX_PENDING_PACKETS // 4


def test_a_flood_in_the_name_of_a_known_service_from_elsewhere_costs_it_nothing() -> None:
    intake = Intake()
    intake.recognise(key("known"), HOME)
    for _ in range(3 * limits.MAX_PENDING_PACKETS):
        intake.put(forged("known"), ELSEWHERE)
    real = forged("known")
    intake.put(real, HOME)
    assert intake.take(1.0)[0].data == real


def test_a_flood_in_the_name_of_one_known_service_costs_the_others_nothing() -> None:
    intake = Intake()
    intake.recognise(key("victim"), HOME)
    intake.recognise(key("other"), HOME)
    for _ in range(10_000):
        intake.put(forged("victim"), HOME)
    intake.put(forged("other"), HOME)
    taken = [packet.identity for packet in intake.take(1.0)]
    assert sorted(taken) == ["other"] + ["victim"] * limits.MAX_PENDING_OF_ONE
    assert "other" in taken[:2]


def test_strangers_are_looked_at_no_faster_than_the_budget() -> None:
    intake = Intake()
    looked = 0
    now = 0.0
    for step in range(400):  # 10 seconds
        now = step / 40
        for _ in range(100):
            intake.put(forged("stranger"), ELSEWHERE)
        looked += len(intake.take(now))
    assert looked <= (now + 1) * limits.OTHER_PACKETS_PER_SECOND
    assert looked > now * limits.OTHER_PACKETS_PER_SECOND / 2
    assert len(intake) <= limits.MAX_PENDING_PACKETS


def test_what_waits_is_bounded_in_bytes_too() -> None:
    intake = Intake()
    for _ in range(1000):
        intake.put(forged("x") + b" " * 60_000, ELSEWHERE)
    assert len(intake) * 60_000 <= limits.MAX_PENDING_BYTES
    assert intake.dropped == 1000 - len(intake)


def test_a_stranger_who_announces_the_same_identity_does_not_take_its_place() -> None:
    intake = Intake()
    intake.recognise(key("known"), HOME)
    intake.recognise(key("known", "EE"), ELSEWHERE)
    for number in range(3 * limits.MAX_PENDING_PACKETS):
        intake.put(forged("known"), ELSEWHERE)
        intake.put(forged(f"stranger-{number}"), ELSEWHERE)
    real = forged("known")
    intake.put(real, HOME)
    assert real in [packet.data for packet in intake.take(1.0)]
    intake.forget(key("known", "EE"))
    intake.put(real, HOME)
    assert intake.take(2.0)[0].data == real


def test_one_host_that_floods_leaves_room_for_others_and_they_have_their_turn() -> None:
    intake = Intake()
    for number in range(3 * limits.MAX_PENDING_PACKETS):
        intake.put(forged(f"stranger-{number}"), ELSEWHERE)
    new = forged("new")
    intake.put(new, HOME)
    assert new in [packet.data for packet in intake.take(1.0)[:2]]


def test_hosts_with_many_known_services_leave_room_for_others() -> None:
    intake = Intake()
    count = limits.MAX_PENDING_PACKETS
    for number in range(count):
        intake.recognise(key(f"many-{number}"), ELSEWHERE)
        intake.put(forged(f"many-{number}"), ELSEWHERE)
    intake.recognise(key("known"), HOME)
    real = forged("known")
    intake.put(real, HOME)
    taken = [packet.data for step in range(5) for packet in intake.take(1.0 + step / 20)]
    assert real in taken


def look(intake: Intake, now: float) -> list[str]:
    """A round in which whatever is heavy costs a tenth of a second; the identities looked at."""
    taken = intake.take(now)
    costs: list[float] = []
    for packet in taken:
        costs.append(0.1 if packet.identity == "heavy" else 0.0001)
        if sum(costs) > limits.ROUND_CPU:
            break
    intake.looked_at(taken, costs, now)
    return [packet.identity for packet in taken[: len(costs)]]


def test_what_strangers_announce_costs_no_more_cpu_than_the_budget() -> None:
    intake = Intake()
    spent, now = 0.0, 0.0
    for step in range(400):  # 20 seconds
        now = step / 20
        for host in range(20):
            intake.put(forged("heavy"), f"10.0.1.{host}")
        spent += 0.1 * len(look(intake, now))
    assert now * limits.OTHER_CPU_SHARE / 2 < spent
    assert spent <= (now + 2) * limits.OTHER_CPU_SHARE


@pytest.mark.parametrize("known", [True, False])
def test_who_costs_much_waits_and_costs_the_others_nothing(known: bool) -> None:
    # Two services of one host that is known, or two hosts that are not.
    intake = Intake()
    hosts = {"heavy": HOME if known else ELSEWHERE, "light": HOME}
    if known:
        intake.recognise(key("heavy"), HOME)
        intake.recognise(key("light"), HOME)
    looked = {"heavy": 0, "light": 0}
    for step in range(200):  # 10 seconds
        for identity in ("heavy", "heavy", "light"):
            intake.put(forged(identity), hosts[identity])
        for identity in look(intake, step / 20):
            looked[identity] += 1
    assert looked["light"] > 190
    assert 5 < looked["heavy"] < 20


def test_who_has_waited_is_forgotten() -> None:
    debts = _Debts(0.1)
    for number in range(3 * limits.MAX_PENDING_PACKETS):
        debts.add(("", str(number)), 0.001, number / 1000)
    assert len(debts._until) <= limits.MAX_PENDING_PACKETS


def test_what_a_round_had_no_time_for_is_the_first_of_the_next() -> None:
    intake = Intake()
    intake.recognise(key("known"), HOME)
    packets = [forged(identity) for identity in ("known", "one", "two")]
    for packet in packets:
        intake.put(packet, HOME)
    taken = intake.take(1.0)
    intake.looked_at(taken, [0.0], 1.0)
    assert len(intake) == 2
    intake.put(packets[1], HOME)
    assert len(intake) == 2
    again = intake.take(1.0)
    assert [packet.data for packet in again] == packets[1:]


def test_a_service_that_is_gone_has_no_place_of_its_own_any_more() -> None:
    intake = Intake()
    intake.recognise(key("known"), HOME)
    intake.forget(key("known"))
    intake.forget(key("known"))
    for identity in ("stranger", "known"):
        intake.put(forged(identity), HOME)
    assert [packet.identity for packet in intake.take(1.0)] == ["stranger", "known"]
