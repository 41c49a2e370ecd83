"""What is held of a subscription, what each reader has missed of it, and what may be asked for."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from gateway.events import values as module
from gateway.events.topic import Topic, parse, service_key
from gateway.events.values import NOWHERE, PIECE, TooManyValues, Values
from gateway.problems import Problem

TOPIC = Topic("main", "Shop", ("price", "stock"))


def told(values: Values, position: int) -> list[dict[str, Any]]:
    """Everything after `position`, as data of events."""
    found: list[dict[str, Any]] = []
    while missed := values.after(position):
        for entry in missed:
            *_, data, _, _ = entry.text.decode().split("\n")
            found.append(orjson.loads(data.removeprefix("data: ")))
        position = missed[-1].position
    return found


def snapshot(values: Values, topic: Topic = TOPIC) -> dict[str, Any]:
    text = b"".join(values.snapshot(topic)).decode()
    head, name, data = text.removesuffix("\n\n").split("\n")
    assert (head, name) == (f"id: {values.event_id(values.position)}", "event: snapshot")
    found: dict[str, Any] = orjson.loads(data.removeprefix("data: "))
    return found


# -- values -----------------------------------------------------------------------------


def test_a_snapshot_has_all_values_by_code_and_key() -> None:
    values = Values()
    values.put("price", "apple", 3)
    values.put("price", 'with "quotes"\nand lines', {"b": [None, "ü"]})
    values.put("price", "pear", 4)
    values.put("price", "pear", None)
    assert snapshot(values) == {
        "service": "Shop",
        "sector": "main",
        "codes": {
            "price": {"apple": 3, 'with "quotes"\nand lines': {"b": [None, "ü"]}},
            "stock": {},
        },
    }
    assert len(values) == 2


def test_who_has_seen_a_position_has_missed_each_key_once_with_its_newest_value() -> None:
    values = Values()
    values.put("price", "apple", 1)
    seen = values.position
    values.put("price", "pear", 1)
    values.put("price", "apple", 2)
    values.put("price", "pear", 2)
    values.put("stock", "pear", 7)
    values.put("stock", "pear", None)
    assert told(values, seen) == [
        {"code": "price", "key": "apple", "value": 2},
        {"code": "price", "key": "pear", "value": 2},
        {"code": "stock", "key": "pear", "deleted": True},
    ]
    assert told(values, values.position) == []


def test_ids_of_other_values_and_of_what_has_not_happened_are_of_no_use() -> None:
    values, others = Values(), Values()
    for each in (values, others):
        each.put("price", "apple", 1)
    assert values.resume(values.event_id(1)) == 1
    assert values.resume(values.event_id(0)) == 0
    for wrong in (
        *(others.event_id(1), values.event_id(2), values.event_id(-1), "", "1", "x" * 10_000),
        *(f"{values.event_id(1)} ", f"{values.event_id(1)}\n", values.event_id(10**20), "é-1"),
    ):
        assert values.resume(wrong) == NOWHERE
    assert not values.covers(NOWHERE)


def test_values_that_come_and_go_are_forgotten_and_who_missed_that_begins_afresh() -> None:
    values = Values()
    values.put("price", "apple", 1)
    seen = values.event_id(values.position)
    for number in range(module.MAX_GONE):
        values.put("price", str(number), number)
        values.put("price", str(number), None)
    assert values.resume(seen) == 1
    values.put("price", "last", 1)
    values.put("price", "last", None)
    assert values.resume(seen) == NOWHERE
    assert len(values) == 1
    for number in range(100_000):
        values.put("price", f"x{number}", number)
        values.put("price", f"x{number}", None)
    assert len(values._entries) == module.MAX_GONE + 1
    assert values._size < 200 * len(values._entries)


def test_a_value_that_comes_back_is_not_forgotten() -> None:
    values = Values()
    values.put("price", "apple", 1)
    values.put("price", "apple", None)
    values.put("price", "apple", 2)
    for number in range(module.MAX_GONE + 1):
        values.put("price", str(number), None)
    assert snapshot(values)["codes"]["price"] == {"apple": 2}


def test_number_and_size_of_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = Values()
    for number in range(module.MAX_VALUES):
        values.put("price", str(number), number)
    values.put("price", "0", "again")
    with pytest.raises(TooManyValues):
        values.put("price", "one more", 1)
    values = Values()
    for _ in range(10):  # the same key: only the last counts
        values.put("price", "x", "x" * (module.MAX_HELD // 2))
    with pytest.raises(TooManyValues):
        values.put("price", "y", "x" * (module.MAX_HELD // 2))


def test_what_is_gone_makes_room_for_what_is_there() -> None:
    values = Values()
    name = "x" * 1000
    for number in range(module.MAX_GONE):
        values.put(name, f"{name}{number}", None)
    gone = values._size
    assert gone > module.MAX_HELD // 4
    seen = values.event_id(values.position)
    values.put("price", "apple", "x" * (module.MAX_HELD - gone))
    assert values._size <= module.MAX_HELD
    assert 0 < values.floor < module.MAX_GONE
    assert values.resume(seen) == module.MAX_GONE
    values.put("price", "apple", "x" * (module.MAX_HELD - 1000))
    assert not values._gone


def test_what_is_handed_over_at_once_is_bounded() -> None:
    values = Values()
    for number in range(3000):
        values.put("price", str(number), "x" * 100)
    pieces = list(values.snapshot(TOPIC))
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 2 * PIECE
    missed = values.after(0)
    assert PIECE <= sum(len(entry.text) for entry in missed) < PIECE + 1000
    assert [entry.position for entry in missed] == list(range(1, len(missed) + 1))
    assert len(told(values, 0)) == 3000


def test_a_snapshot_that_is_taken_slowly_and_the_changes_after_it_make_the_truth() -> None:
    rng = random.Random(5)  # noqa: S311 - a test
    values = Values()
    truth: dict[str, int | str] = {}
    for number in range(2000):
        values.put("price", str(number), "x" * 100)
        truth[str(number)] = "x" * 100
    position, text = values.position, b""
    for piece in values.snapshot(TOPIC):
        text += piece
        for _ in range(50):
            key, value = str(rng.randrange(2500)), rng.choice([None, 1, 2])
            values.put("price", key, value)
            if value is None:
                truth.pop(key, None)
            else:
                truth[key] = value
    shown = orjson.loads(text.partition(b"data: ")[2])["codes"]["price"]
    assert shown != truth
    for change in told(values, position):
        if change.get("deleted"):
            shown.pop(change["key"], None)
        else:
            shown[change["key"]] = change["value"]
    assert shown == truth


# -- topics -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "topic", "resume"),
    [
        ("shop", "code=price", Topic("main", "shop", ("price",)), None),
        ("Web:my-shop.v2", "code=b&code=a&code=b", Topic("Web", "my-shop.v2", ("a", "b")), None),
        ("shop", "code=a%20b%2Fc&_=17", Topic("main", "shop", ("a b/c",)), None),
        ("shop", "code=", Topic("main", "shop", ("",)), None),
        ("shop", "code=a&last_event_id=x-1", Topic("main", "shop", ("a",)), "x-1"),
    ],
)
def test_what_can_be_asked_for(path: str, query: str, topic: Topic, resume: str | None) -> None:
    assert parse(f"/api/events/{path}", query) == (topic, resume)


@pytest.mark.parametrize(
    ("path", "query", "code", "words"),
    [
        ("", "code=a", "unknown_path", "[SECTOR:]SERVICE"),
        ("shop/price", "code=a", "unknown_path", "[SECTOR:]SERVICE"),
        ("shop ping", "code=a", "bad_path", "[SECTOR:]SERVICE"),
        ("a:b:c", "code=a", "bad_path", "[SECTOR:]SERVICE"),
        ("shop~1", "code=a", "bad_path", "[SECTOR:]SERVICE"),
        ("shop", "", "bad_query", "code=CODE"),
        ("shop", "cod=a", "bad_query", "code=CODE"),
        ("shop", "&".join(f"code={n}" for n in range(11)), "bad_query", "11 codes; at most 10"),
        ("shop", "code=" + "x" * 1025, "bad_query", "1024 characters"),
        ("shop", "code=announce", "bad_query", "for the mesh alone"),
        ("shop", "code=%zz", "bad_query", "not an escape"),
        ("shop", "code=%ff", "bad_query", "not UTF-8"),
        ("shop", "code=a&last_event_id=1&last_event_id=2", "bad_query", "last_event_id"),
    ],
)
def test_what_cannot_be_asked_for(path: str, query: str, code: str, words: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(f"/api/events/{path}", query)
    assert caught.value.kind.code == code
    assert words in caught.value.detail


def test_topics_are_the_same_without_case_of_service_and_order_of_codes() -> None:
    one, _ = parse("/api/events/MAIN:Shop", "code=a&code=b")
    other, _ = parse("/api/events/shop", "code=b&code=a")
    assert one.key == other.key
    assert one.name == "Shop"
    assert parse("/api/events/shop", "code=A&code=b")[0].key != one.key
    assert service_key("Shop") == ("main", "shop") == service_key("Main:shop")
