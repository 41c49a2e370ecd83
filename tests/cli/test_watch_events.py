"""What ``scamp watch`` makes of rounds and changes, and how it writes that."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from scamp import limits
from scamp.cli.eventlines import as_json, as_text, gap
from scamp.cli.events import Event, Watcher
from scamp.cli.filters import Chosen
from scamp.discovery import Action, Announcement, Registry
from scamp.discovery.listening import Round
from scamp.discovery.live import Heard, Kind
from scamp.discovery.refusals import WINDOW

TIME = 1_700_000_000.25
SELL = Action("main", "Shop", "sell", 1, ("noauth",), ("json",))
ROB = Action("main", "Bank", "rob", 2, (), ("json",))


def service(identity: str = "shop", *actions: Action, **changed: Any) -> Announcement:
    facts: dict[str, Any] = {
        "identity": identity,
        "fingerprint": "AA:BB",
        "sector": "main",
        "weight": 1,
        "interval": 5.0,
        "uri": "beepish+tls://10.0.0.5:30100",
        "host": "10.0.0.5",
        "port": 30100,
        "envelopes": ("json",),
        "actions": actions or (SELL,),
        "timestamp": TIME,
    }
    return Announcement(**{**facts, **changed})


class Mesh:
    """A registry and what is told of it."""

    def __init__(self, **options: Any) -> None:
        self.registry = Registry()
        repeats = options.pop("repeats", False)
        self.watcher = Watcher(self.registry, Chosen(**options), repeats=repeats)
        self.events: list[Event] = []
        self.registry.subscribe(lambda change: self.events.extend(self.watcher.changed(change)))

    def put(self, *services: Announcement) -> list[Event]:
        self.events.clear()
        self.registry.apply(added=services)
        return self.events

    def take(self, *services: Announcement) -> list[Event]:
        self.events.clear()
        self.registry.apply(removed=[one.key for one in services])
        return self.events

    def hear(self, heard: Round, now: float = 0.0) -> list[Event]:
        return list(self.watcher.heard(heard, None, now))


def names(actions: Iterable[object]) -> list[str]:
    return [str(one) for one in actions]


# -- differences ------------------------------------------------------------------------


def test_all_in_which_a_service_can_differ_is_told() -> None:
    mesh = Mesh()
    mesh.put(service("shop", SELL, ROB))
    other = Action("main", "Shop", "buy", 1)
    altered = Action("main", "Shop", "sell", 1, ("t30",), ("json",))
    changed = service(
        "shop",
        altered,
        other,
        sector="back",
        weight=0,
        interval=2.5,
        uri="beepish+tls://10.0.0.6:30100",
        envelopes=(),
    )
    (event,) = mesh.put(changed)
    assert (event.about, event.what) == ("index", "changed")
    text = as_text(event, TIME)
    assert text == (
        "2023-11-14T22:13:20.250Z index        changed  shop sector main -> back; weight 1 -> 0; "
        "interval 5 -> 2.5; address beepish+tls://10.0.0.5:30100 -> beepish+tls://10.0.0.6:30100; "
        "envelopes json -> none; added main:Shop.buy~1; removed main:Bank.rob~2; "
        "altered main:Shop.sell~1; nobody offers now: main:Bank.rob~2"
    )
    facts = json.loads(as_json(event, TIME))
    assert facts["changes"] == {
        "sector": ["main", "back"],
        "weight": [1, 0],
        "interval": [5.0, 2.5],
        "uri": ["beepish+tls://10.0.0.5:30100", "beepish+tls://10.0.0.6:30100"],
        "envelopes": [["json"], []],
    }
    assert facts["added"] == ["main:Shop.buy~1"]
    assert facts["removed"] == facts["unoffered"] == ["main:Bank.rob~2"]
    assert facts["altered"] == ["main:Shop.sell~1"]


def test_envelopes_of_one_action_alter_it() -> None:
    mesh = Mesh()
    mesh.put(service("shop", SELL))
    (event,) = mesh.put(service("shop", Action("main", "Shop", "sell", 1, ("noauth",), ("xml",))))
    assert names(event.difference.altered) == ["main:Shop.sell~1"]


def test_another_order_of_actions_is_told_as_that_and_is_none_of_a_single_action() -> None:
    mesh = Mesh()
    mesh.put(service("shop", SELL, ROB))
    (event,) = mesh.put(service("shop", ROB, SELL))
    assert as_text(event, TIME).endswith("shop nothing but the order of its actions")
    mesh = Mesh(action="Shop.*")
    mesh.put(service("shop", SELL, ROB))
    assert mesh.put(service("shop", ROB, SELL)) == []
    moved = Heard(Kind.CHANGED, service("shop", ROB, SELL), service("shop", SELL, ROB))
    assert mesh.hear(Round((moved,))) == []


def test_a_renewal_is_no_change_of_the_index_and_the_next_change_is_told_rightly() -> None:
    mesh = Mesh()
    mesh.put(service("shop", SELL))
    assert mesh.put(service("shop", SELL, timestamp=TIME + 5)) == []
    (event,) = mesh.put(service("shop", SELL, weight=3, timestamp=TIME + 10))
    assert event.difference.fields == {"weight": (1, 3)}
    (event,) = mesh.put(service("shop", SELL, weight=4, timestamp=TIME + 15))
    assert event.difference.fields == {"weight": (3, 4)}


def test_a_service_that_comes_back_comes_and_is_not_remembered_meanwhile() -> None:
    mesh = Mesh()
    shop = service("shop", SELL)
    told = [event.what for step in (mesh.put, mesh.take, mesh.put) for event in step(shop)]
    assert told == ["came", "went", "came"]
    mesh.take(shop)
    assert not mesh.watcher._known


def test_an_action_is_offered_as_long_as_one_service_with_weight_has_it() -> None:
    mesh = Mesh()
    first, second = service("one", SELL), service("two", SELL, ROB)
    mesh.put(first, second)
    (event,) = mesh.take(second)
    assert names(event.difference.removed) == ["main:Shop.sell~1", "main:Bank.rob~2"]
    assert names(event.unoffered) == ["main:Bank.rob~2"]
    mesh.put(service("two", SELL), service("one", SELL, weight=0))
    (event,) = mesh.take(second)
    assert names(event.unoffered) == ["main:Shop.sell~1"]


# -- which are told ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({}, {"came": 2, "went": 2}),
        ({"name": "SHOP"}, {"came": 2, "went": 2}),
        ({"name": "shop:*"}, {"came": 2, "went": 2}),
        ({"name": "bank"}, {}),
        ({"sector": "MAIN"}, {"came": 2, "went": 2}),
        ({"sector": "back"}, {}),
        ({"action": "bank.*"}, {"came": 1, "went": 1}),
        ({"action": "bank.rob~2"}, {"came": 1, "went": 1}),
        ({"action": "main:bank.rob~2"}, {"came": 1, "went": 1}),
        ({"action": "bank.rob~1"}, {}),
        ({"action": "bank.*", "sector": "back"}, {}),
        ({"action": "bank.*", "name": "bank"}, {}),
    ],
)
def test_only_what_was_asked_for_is_told(chosen: dict[str, str], told: dict[str, int]) -> None:
    mesh = Mesh(**chosen)
    shop = service("shop:" + "A" * 24, SELL, ROB)
    found = {}
    for event in (*mesh.put(shop), *mesh.take(shop)):
        found[event.what] = len((*event.difference.added, *event.difference.removed))
    assert found == told


def test_a_service_that_no_longer_has_what_was_asked_for_is_told_once_more() -> None:
    mesh = Mesh(action="Bank.*")
    before, now = service("shop", SELL, ROB), service("shop", SELL)
    mesh.put(before)
    (event,) = mesh.put(now)
    assert names(event.difference.removed) == ["main:Bank.rob~2"]
    (heard,) = mesh.hear(Round((Heard(Kind.CHANGED, now, before),)))
    assert names(heard.difference.removed) == ["main:Bank.rob~2"]
    assert mesh.put(service("shop", SELL, weight=5)) == []


def test_a_sector_of_single_actions_counts_as_well() -> None:
    mesh = Mesh(sector="back")
    (event,) = mesh.put(service("shop", SELL, Action("back", "Shop", "sell", 1)))
    assert names(event.difference.added) == ["back:Shop.sell~1"]


def test_what_is_refused_is_left_out_where_nobody_knows_whether_it_fits() -> None:
    refused = Round((), (("shop:" + "A" * 24, "replay", "old"), ("?", "malformed", "no")))
    assert [event.identity[:4] for event in Mesh().hear(refused)] == ["shop", "?"]
    assert [event.identity[:4] for event in Mesh(name="shop").hear(refused)] == ["shop"]
    assert Mesh(sector="main").hear(refused) == []
    assert Mesh(action="*").hear(refused) == []


def test_what_says_nothing_new_is_told_when_asked_for() -> None:
    shop = service()
    heard = Round(tuple(Heard(kind, shop, shop) for kind in Kind))
    news = ["new", "changed", "left", "expired"]
    assert [event.what for event in Mesh().hear(heard)] == news
    assert [event.what for event in Mesh(repeats=True).hear(heard)] == [kind.value for kind in Kind]
    assert Mesh(repeats=True, name="bank").hear(heard) == []


def test_lost_packets_are_counted() -> None:
    (event,) = Mesh().hear(Round(dropped=7))
    assert "7 packets: more came at once" in as_text(event, TIME)
    assert json.loads(as_json(event, TIME))["count"] == 7


# -- what is refused again --------------------------------------------------------------


def test_the_same_refusal_is_told_again_after_a_while() -> None:
    mesh = Mesh()
    refused = Round((), (("shop", "signature", "bad"),))
    assert [len(mesh.hear(refused, now)) for now in (0, 1, WINDOW - 1, WINDOW, WINDOW + 1)] == [
        1,
        0,
        0,
        1,
        0,
    ]
    assert len(mesh.hear(Round((), (("shop", "replay", "old"),)), 2.0)) == 1
    every = Mesh(repeats=True)
    assert [len(every.hear(refused, now)) for now in (0, 1)] == [1, 1]


def test_a_flood_of_refusals_is_remembered_up_to_a_number() -> None:
    mesh = Mesh()
    many = 3 * limits.MAX_REFUSALS_TOLD
    flood = Round((), tuple((f"forged{n}", "signature", "bad") for n in range(many)))
    assert len(mesh.hear(flood)) == many
    held = mesh.watcher._told
    assert len(held) == limits.MAX_REFUSALS_TOLD
    assert list(held)[-1] == (f"forged{many - 1}", "signature")


def test_refused_records_of_a_file_are_told_when_they_are_new() -> None:
    watcher = Watcher(Registry(), Chosen())
    bad = ("shop", "signature", "bad")
    assert [event.reason for event in watcher.refused_records([bad])] == ["signature"]
    assert list(watcher.refused_records([bad])) == []
    assert list(watcher.refused_records([])) == []
    assert len(list(watcher.refused_records([bad]))) == 1


# -- the forms --------------------------------------------------------------------------


def test_long_lists_are_cut_for_people_only() -> None:
    many = tuple(Action("main", "Shop", f"sell{n}", 1) for n in range(8))
    (event,) = Mesh().put(service("shop", *many))
    assert as_text(event, TIME) == (
        "2023-11-14T22:13:20.250Z index        came     shop main at 10.0.0.5:30100; weight 1; "
        "8 actions: main:Shop.sell0~1, main:Shop.sell1~1, main:Shop.sell2~1, main:Shop.sell3~1, "
        "main:Shop.sell4~1 and 3 more"
    )
    assert len(json.loads(as_json(event, TIME))["added"]) == 8


def test_addresses_of_ipv6_have_brackets() -> None:
    (event,) = Mesh().put(service("shop", host="::1"))
    assert "main at [::1]:30100" in as_text(event, TIME)


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "\x9b31m", "a\nb", "\r", "\u202egood", "\ud800", "\x7f"]
)
def test_no_text_of_strangers_controls_the_terminal(text: str) -> None:
    for event in Mesh().hear(Round((), ((text, text, text),))):
        line = as_text(event, TIME)
        assert line.isprintable()
        line.encode()
        assert as_json(event, TIME).isascii()
        assert as_json(event, TIME).isprintable()
        assert json.loads(as_json(event, TIME))["detail"] == text


def test_a_gap_has_the_form_of_the_lines_around_it() -> None:
    assert gap(1, TIME, as_object=False).endswith(
        "output       lost     - 1 line, not read fast enough"
    )
    assert gap(2, TIME, as_object=False).endswith("2 lines, not read fast enough")
    assert json.loads(gap(2, TIME, as_object=True)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "about": "output",
        "event": "lost",
        "count": 2,
    }
