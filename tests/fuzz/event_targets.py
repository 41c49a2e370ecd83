"""A harness for event streams: what is asked for, and that nothing in it can pose as an event."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import orjson

from gateway.events.topic import PREFIX, Topic, parse
from gateway.events.values import NOWHERE, Values
from gateway.problems import Problem
from gateway.translate import split_target
from scamp.wire.subdata import is_name

ASKED: Final = (
    b"/api/events/shop?code=price\n0000000000000000-1\nkey",
    b"/api/events/Web:my-shop.v2?code=a%0Ab&code=%22&last_event_id=x-1\n\n\nid: 1\n\ndata: x",
    b"/api/events/shop?" + b"&".join(b"code=%d" % number for number in range(10)) + b"\n-1\n\r\r",
    b"/api/events/shop?code=\n\n",
)


def event_stream(data: bytes) -> None:
    """Ask for what the first line says, from the second line on; the rest is a key and a value."""
    target, _, rest = data.partition(b"\n")
    event_id, _, word = rest.decode("utf-8", "replace").partition("\n")
    with suppress(Problem):
        path, query = split_target(target.decode("utf-8", "surrogateescape"))
        if path.startswith(PREFIX):
            topic, _ = parse(path, query)
            assert 1 <= len(topic.codes) <= 10
            assert all(is_name(code) for code in topic.codes)
            _tell(topic, event_id, word)


def _tell(topic: Topic, event_id: str, word: str) -> None:
    values = Values()
    for code in topic.codes:
        values.put(code, word, {word: word})
    values.put(topic.codes[0], f"{word} gone", None)
    position = values.resume(event_id)
    assert position == NOWHERE or event_id == values.event_id(position)
    shown = _data(b"".join(values.snapshot(topic)), "snapshot")
    assert shown["codes"] == {code: {word: {word: word}} for code in topic.codes}
    assert (shown["service"], shown["sector"]) == (topic.service, topic.sector)
    changes: list[dict[str, object]] = []
    seen = NOWHERE
    while missed := values.after(seen):  # a piece at a time
        changes += [_data(entry.text, "change") for entry in missed]
        seen = missed[-1].position
    assert [change["code"] for change in changes] == [*topic.codes, topic.codes[0]]


def _data(event: bytes, name: str) -> dict[str, object]:
    """The data of the one event in a text, read as the HTML standard says."""
    lines = event.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    head, kind, data, *end = lines
    assert head.startswith("id: "), head
    assert kind == f"event: {name}", kind
    assert end == ["", ""], end
    found: dict[str, object] = orjson.loads(data.removeprefix("data: "))
    return found
