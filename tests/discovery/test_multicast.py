from __future__ import annotations

import logging
import os
import select
import socket
import struct
import zlib
from collections.abc import Callable

import pytest
from multicast import LOOPBACK, free_group, needs_multicast, receive

from scamp import limits
from scamp.config import ScampConf
from scamp.discovery.multicast import (
    MulticastGroup,
    MulticastSender,
    decode_packet,
    encode_packet,
    open_receiver,
)
from scamp.errors import AnnouncementError, ConfigError

RECORD = b"[3," + b'"abc",' * 100 + b"1]"
NOT_HERE = "192.0.2.77"
IP_RECVTTL = 12  # Linux; Python has no name for it


def reason(call: Callable[[bytes], bytes], data: bytes) -> str:
    with pytest.raises(AnnouncementError) as caught:
        call(data)
    return caught.value.reason


@pytest.mark.parametrize("prefix", [b"", b"R", b"D"])
@pytest.mark.parametrize("form", [encode_packet, bytes, zlib.compress], ids=str)
def test_a_packet_gives_the_record_that_went_into_it(
    form: Callable[[bytes], bytes], prefix: bytes
) -> None:
    assert decode_packet(prefix + form(RECORD)) == RECORD


def test_a_packet_of_ours_is_zlib_as_every_other_implementation_reads_it() -> None:
    assert zlib.decompress(encode_packet(RECORD)) == RECORD
    assert len(encode_packet(RECORD)) < len(RECORD)


def test_what_follows_the_compressed_record_is_ignored() -> None:
    assert decode_packet(encode_packet(RECORD) + b"\x00garbage") == RECORD


def test_only_one_prefix_is_stripped() -> None:
    assert decode_packet(b"RD[3]") == b"D[3]"


@pytest.mark.parametrize("packet", [b"", b"R", b"D"])
def test_an_empty_packet_is_refused(packet: bytes) -> None:
    assert reason(decode_packet, packet) == "malformed"


def test_a_packet_that_is_cut_off_anywhere_is_refused() -> None:
    packet = encode_packet(RECORD)
    for length in range(2, len(packet)):
        assert reason(decode_packet, packet[:length]) == "malformed"


def test_a_packet_with_a_flipped_bit_is_refused_or_gives_something_else() -> None:
    packet = encode_packet(RECORD)
    for at in range(2, len(packet)):
        broken = packet[:at] + bytes([packet[at] ^ 4]) + packet[at + 1 :]
        assert reason(decode_packet, broken) in {"malformed", "limit"}


def test_inflating_stops_at_the_limit() -> None:
    within = zlib.compress(b"a" * limits.MAX_ANNOUNCEMENT)
    bomb = zlib.compress(b"a" * (32 * limits.MAX_ANNOUNCEMENT), 9)
    assert len(decode_packet(within)) == limits.MAX_ANNOUNCEMENT
    assert len(bomb) < limits.MAX_DATAGRAM + 1000
    assert reason(decode_packet, bomb) == "limit"


def test_a_record_that_does_not_fit_in_a_datagram_is_refused() -> None:
    noise = os.urandom(limits.MAX_DATAGRAM)
    assert reason(encode_packet, noise) == "limit"


# -- groups -----------------------------------------------------------------------------


def test_the_group_is_read_from_the_configuration() -> None:
    conf = ScampConf.parse(
        "discovery.multicast_address = 239.255.1.2\n"
        "discovery.port = 6000\n"
        "discovery.address = 127.0.0.1, 10.1.2.3\n"
    )
    group = MulticastGroup.from_config(conf)
    assert group == MulticastGroup("239.255.1.2", 6000, ("127.0.0.1", "10.1.2.3"))


def test_what_is_given_goes_before_the_configuration() -> None:
    conf = ScampConf.parse("discovery.port = 6000\ndiscovery.address = 10.1.2.3\n")
    group = MulticastGroup.from_config(conf, address="239.1.1.1", interfaces=["if:lo"])
    assert group == MulticastGroup("239.1.1.1", 6000, (LOOPBACK,))
    with pytest.raises(ConfigError, match="nowhere0"):
        MulticastGroup.from_config(conf, interfaces=["if:nowhere0"])


@pytest.mark.parametrize(
    ("address", "port", "interfaces"),
    [
        ("10.0.0.1", 5555, (LOOPBACK,)),
        ("ff02::1", 5555, (LOOPBACK,)),
        ("239.255.0.1", 0, (LOOPBACK,)),
        ("239.255.0.1", 65536, (LOOPBACK,)),
        ("239.255.0.1", 5555, ()),
        ("239.255.0.1", 5555, ("::1",)),
        ("239.255.0.1", 5555, ("eth0",)),
        ("239.255.0.1", 5555, ("239.255.0.1",)),
    ],
)
def test_what_cannot_be_a_group_is_a_configuration_error(
    address: str, port: int, interfaces: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError):
        MulticastGroup(address, port, interfaces)


# -- sockets ----------------------------------------------------------------------------


@needs_multicast
def test_every_receiver_on_the_interface_gets_what_is_sent() -> None:
    group = free_group()
    sender = MulticastSender(group)
    try:
        with open_receiver(group) as one, open_receiver(group) as other:
            sender.send(encode_packet(RECORD))
            assert decode_packet(receive(one)) == RECORD
            assert decode_packet(receive(other)) == RECORD
    finally:
        sender.close()


@needs_multicast
def test_packets_do_not_leave_the_local_network() -> None:
    group = free_group()
    sender = MulticastSender(group)
    try:
        with open_receiver(group) as receiver:
            receiver.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            sender.send(b"x")
            select.select([receiver], [], [], 5.0)
            _, ancillary, _, _ = receiver.recvmsg(16, socket.CMSG_SPACE(4))
            assert [struct.unpack("i", data)[0] for _, _, data in ancillary] == [1]
    finally:
        sender.close()


@needs_multicast
def test_a_receiver_is_not_given_other_groups_on_its_port() -> None:
    group = free_group()
    other = MulticastGroup("239.254.0.1", group.port, group.interfaces)
    with open_receiver(group) as receiver, open_receiver(other):
        for sender, packet in (
            (MulticastSender(other), b"theirs"),
            (MulticastSender(group), b"ours"),
        ):
            sender.send(packet)
            sender.close()
        assert receive(receiver) == b"ours"


@needs_multicast
def test_an_interface_that_is_named_twice_is_joined_once() -> None:
    group = free_group(LOOPBACK, LOOPBACK)
    with open_receiver(group):
        pass


def test_receiving_on_an_interface_that_is_not_here_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=rf"{NOT_HERE}.*discovery\.address"):
        open_receiver(free_group(NOT_HERE))


def test_sending_on_no_interface_at_all_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=rf"{NOT_HERE}.*discovery\.address"):
        MulticastSender(free_group(NOT_HERE))


@needs_multicast
def test_an_interface_that_fails_costs_the_others_nothing_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = free_group(NOT_HERE, LOOPBACK)
    here = MulticastGroup(group.address, group.port, (LOOPBACK,))
    with caplog.at_level(logging.INFO, "scamp.discovery"), open_receiver(here) as receiver:
        sender = MulticastSender(group)
        try:
            for number in range(3):
                sender.send(b"%d" % number)
            assert [receive(receiver) for _ in range(3)] == [b"0", b"1", b"2"]
            assert sender.problems.keys() == {NOT_HERE}
        finally:
            sender.close()
    assert [NOT_HERE in record.message for record in caplog.records] == [True]


@needs_multicast
def test_a_send_that_fails_is_tried_on_a_new_socket_next_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = free_group()
    sender = MulticastSender(group)
    try:
        with caplog.at_level(logging.INFO, "scamp.discovery"), open_receiver(group) as receiver:
            sender.send(b"x" * 70_000)
            sender.send(b"x" * 70_000)
            assert sender.problems.keys() == {LOOPBACK}
            sender.send(b"short")
            assert receive(receiver) == b"short"
            assert not sender.problems
    finally:
        sender.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@needs_multicast
def test_a_closed_sender_sends_nothing() -> None:
    sender = MulticastSender(free_group())
    sender.close()
    sender.close()
    sender.send(b"x")
