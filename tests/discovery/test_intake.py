"""What a flood of packets may cost: nothing that the services we know would feel."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from scamp import limits
from scamp.discovery.intake import Intake, claimed_identity
from scamp.discovery.multicast import encode_packet

Announce = Callable[..., bytes]

HOME, ELSEWHERE = "10.0.0.1", "10.0.0.66"


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
    intake.recognise("known", HOME)
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
    intake.recognise("known", HOME)
    for number in range(3 * limits.MAX_PENDING_PACKETS):
        intake.put(forged(f"stranger-{number}"), ELSEWHERE)
    real = forged("known")
    intake.put(real, HOME)
    assert intake.take(1.0)[0].data == real
    assert intake.dropped == 2 * limits.MAX_PENDING_PACKETS


def test_a_flood_in_the_name_of_a_known_service_from_elsewhere_costs_it_nothing() -> None:
    intake = Intake()
    intake.recognise("known", HOME)
    for _ in range(3 * limits.MAX_PENDING_PACKETS):
        intake.put(forged("known"), ELSEWHERE)
    real = forged("known")
    intake.put(real, HOME)
    assert intake.take(1.0)[0].data == real


def test_a_flood_in_the_name_of_one_known_service_costs_the_others_nothing() -> None:
    intake = Intake()
    intake.recognise("victim", HOME)
    intake.recognise("other", HOME)
    for _ in range(10_000):
        intake.put(forged("victim"), HOME)
    intake.put(forged("other"), HOME)
    taken = [packet.identity for packet in intake.take(1.0)]
    assert taken == ["victim"] * limits.MAX_PENDING_OF_ONE + ["other"]


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


def test_a_service_that_is_gone_has_no_place_of_its_own_any_more() -> None:
    intake = Intake()
    intake.recognise("known", HOME)
    intake.forget("known")
    intake.forget("known")
    for identity in ("stranger", "known"):
        intake.put(forged(identity), HOME)
    assert [packet.identity for packet in intake.take(1.0)] == ["stranger", "known"]
