"""The state machines of the library, drawn from the tables that the code runs from.

``python -m scamp.states > docs/states.md`` writes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from scamp.client.states import SLOT_TRANSITIONS, SlotEvent, SlotState
from scamp.transport import CHANNEL_TRANSITIONS, ChannelEvent, ChannelState
from scamp.wire import TRANSITIONS, MessageState, PacketType

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)

_WIDTH: Final = 4
"""Events on one line of an arrow's label."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One state machine: its table, where it begins, and words about it."""

    title: str
    about: str
    table: Mapping[tuple[Any, Any], Any]
    first: Enum
    states: Mapping[Enum, str]
    events: Mapping[Enum, str]


def _meanings(kind: type[Enum]) -> dict[Enum, str]:
    return {member: str(member.value) for member in kind}


MACHINES: Final = (
    Machine(
        "Message",
        "One message, in either direction: `scamp.wire.TRANSITIONS`. What the peer sends and is "
        "missing breaks the connection; what we are asked to send and is missing raises "
        "`LocalProtocolError`. `PING` and `PONG` belong to no message.",
        TRANSITIONS,
        MessageState.UNSEEN,
        _meanings(MessageState),
        {
            PacketType.HEADER: "what the message is; takes the next number",
            PacketType.DATA: "a piece of its body",
            PacketType.EOF: "the body is complete",
            PacketType.TXERR: "the sender gives the message up, and says why",
            PacketType.ACK: "from the receiver: how much of the body has been used",
        },
    ),
    Machine(
        "Channel",
        "One TLS connection, seen from one side: `scamp.transport.CHANNEL_TRANSITIONS`. What is "
        "missing cannot be, and raises `LocalProtocolError`.",
        CHANNEL_TRANSITIONS,
        ChannelState.CONNECTING,
        _meanings(ChannelState),
        _meanings(ChannelEvent),
    ),
    Machine(
        "Pool slot",
        "One connection in a client's pool: `scamp.client.states.SLOT_TRANSITIONS`. A request that "
        "cannot start is refused with `ConnectionLost` (not written), so it goes elsewhere; "
        "whatever else is missing raises `LocalProtocolError`.",
        SLOT_TRANSITIONS,
        SlotState.DIALING,
        _meanings(SlotState),
        _meanings(SlotEvent),
    ),
)


def diagram(table: Mapping[tuple[S, E], S], first: S) -> str:
    """A table as a Mermaid ``stateDiagram-v2``: an arrow for each pair of states, with its events.

    States that lead to no other are drawn as ends.
    """
    arrows: dict[tuple[S, S], list[str]] = {}
    for (state, event), after in table.items():
        arrows.setdefault((state, after), []).append(event.name)
    order = list(type(first))
    lines = ["stateDiagram-v2", f"    [*] --> {first.name}"]
    for state, after in sorted(arrows, key=lambda pair: tuple(map(order.index, pair))):
        lines.append(f"    {state.name} --> {after.name}: {_label(arrows[state, after])}")
    leaving = {state for state, after in arrows if state is not after}
    lines += [f"    {state.name} --> [*]" for state in order if state not in leaving]
    return "\n".join(lines)


def _label(events: list[str]) -> str:
    names = sorted(events)
    rows = [names[at : at + _WIDTH] for at in range(0, len(names), _WIDTH)]
    return "<br/>".join(", ".join(row) for row in rows)


def page() -> str:
    """The text of docs/states.md."""
    parts = [
        "# State machines",
        "Made from the tables in the code by `python -m scamp.states`; a test fails when this page "
        "and the tables differ. The code runs from the same tables: an arrow that is not here is "
        "an error there.",
    ]
    for machine in MACHINES:
        parts += [f"## {machine.title}", machine.about]
        parts += [f"```mermaid\n{diagram(machine.table, machine.first)}\n```"]
        parts += [_meaning_table("State", machine.states), _meaning_table("Event", machine.events)]
    return "\n\n".join(parts) + "\n"


def _meaning_table(head: str, meanings: Mapping[Enum, str]) -> str:
    rows = [f"| `{member.name}` | {text} |" for member, text in meanings.items()]
    return "\n".join([f"| {head} | |", "|---|---|", *rows])


if __name__ == "__main__":
    sys.stdout.write(page())
