"""Rounds of listening can be ended at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from multicast import free_group, needs_multicast

from scamp import limits
from scamp.discovery.listening import Listening, _Work
from scamp.discovery.live import LiveIndex, restore
from scamp.discovery.multicast import MulticastSender

pytestmark = needs_multicast

Announce = Callable[..., bytes]
TIME = 1_700_000_000.0
HOME, ELSEWHERE = "10.0.0.1", "10.0.0.66"


@pytest.mark.parametrize("turns", range(8))
async def test_a_packet_that_arrives_in_that_moment_does_not_undo_a_cancellation(
    turns: int,
) -> None:
    """``asyncio.wait_for`` of Python 3.11 forgets it, and who waits for the end waits forever."""
    listening = Listening(group := free_group(), LiveIndex())
    listening.start()
    sender = MulticastSender(group)
    try:
        task = asyncio.create_task(_rounds(listening))
        await asyncio.sleep(0.05)  # it waits
        sender.send(b"a packet")
        await listening._arrived.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2.0)
        assert done
        assert task.cancelled()
    finally:
        task.cancel()
        await asyncio.wait([task])
        sender.close()
        await listening.stop()


async def _rounds(listening: Listening) -> None:
    while True:
        await listening.next_round(10.0)


async def test_what_has_come_when_the_group_is_joined_anew_is_not_lost() -> None:
    listening = Listening(group := free_group(), LiveIndex())
    listening.start()
    sender = MulticastSender(group)
    try:
        for number in range(200):
            sender.send(b"packet %d" % number)
        listening._mind_membership(asyncio.get_running_loop().time() + limits.REJOIN)
        assert len(listening._intake) == 200
    finally:
        sender.close()
        await listening.stop()


def test_who_repeats_what_a_service_said_does_not_take_its_place(announce: Announce) -> None:
    """Or it would be among strangers itself, whose packets others can crowd out."""
    listening = Listening(free_group(), LiveIndex())
    record = announce("a")
    for now, source in ((100.0, HOME), (101.0, ELSEWHERE)):
        listening._recognise(_Work(0, [(listening.index.hear(record, now), source)]))
    listening._intake.put(announce("a", timestamp=TIME + 5), HOME)
    listening._intake.put(announce("a", timestamp=TIME + 6), ELSEWHERE)
    waiting = listening._intake.take(102.0)
    assert [(packet.source, packet.known) for packet in waiting] == [
        (HOME, True),
        (ELSEWHERE, False),
    ]


def test_a_service_of_a_file_speaks_from_where_it_is_heard_first(announce: Announce) -> None:
    listening = Listening(free_group(), LiveIndex())
    record = announce("a")
    restore(listening.index, [record], 100.0)
    listening._recognise(_Work(0, [(listening.index.hear(record, 101.0), HOME)]))
    listening._intake.put(announce("a", timestamp=TIME + 5), HOME)
    assert [packet.known for packet in listening._intake.take(102.0)] == [True]
