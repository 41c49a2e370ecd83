"""What comes as a whole, as it would have come piece by piece."""

from __future__ import annotations

from collections.abc import Iterable

from scamp.wire import DataReceived, Event, MessageEnded, MessageStarted, MessageWhole


def unfolded(events: Iterable[Event]) -> list[Event]:
    """`events` without a MessageWhole."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, MessageWhole):
            result.append(MessageStarted(event.msgno, event.header))
            if event.body:
                result.append(DataReceived(event.msgno, event.body))
            result.append(MessageEnded(event.msgno))
        else:
            result.append(event)
    return result
