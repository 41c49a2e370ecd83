"""The index: finding, changing, telling of changes."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scamp import limits
from scamp.discovery import Action, Announcement, Change, Registry


def service(identity: str, *actions: Action, timestamp: float = 1.0) -> Announcement:
    return Announcement(
        identity=identity,
        fingerprint="AB:CD",
        sector="main",
        weight=1,
        interval=5.0,
        uri="beepish+tls://h:1",
        host="h",
        port=1,
        envelopes=("json",),
        actions=actions,
        timestamp=timestamp,
    )


def action(spelling: str, *flags: str, version: int = 1, sector: str = "main") -> Action:
    namespace, _, name = spelling.rpartition(".")
    return Action(sector, namespace, name, version, flags, ("json",))


def names(registry: Registry, spelling: str, version: int = 1, sector: str = "main") -> set[str]:
    return {offer.service.identity for offer in registry.find(sector, spelling, version)}


def filled(*services: Announcement) -> Registry:
    registry = Registry()
    registry.apply(added=services, removed=())
    return registry


def test_an_action_is_found_without_case_and_keeps_its_spelling() -> None:
    registry = filled(service("a", action("Product.Sku.fetchAll")))
    (offer,) = registry.find("MAIN", "product.SKU.fetchall")
    assert offer.action.spelling == "Product.Sku.fetchAll"
    assert offer.service.identity == "a"


def test_sector_and_version_tell_actions_apart() -> None:
    registry = filled(
        service("a", action("A.x")),
        service("b", action("A.x", version=2)),
        service("c", action("A.x", sector="web")),
    )
    assert names(registry, "A.x") == {"a"}
    assert names(registry, "A.x", 2) == {"b"}
    assert names(registry, "A.x", sector="web") == {"c"}
    assert registry.find("main", "A.x", 3) == ()
    assert registry.find("main:A", "x") == ()


def test_actions_are_found_by_their_crud_flags() -> None:
    registry = filled(
        service("a", action("A.fetch", "read", "t5"), action("A.make", "create")),
        service("b", action("A.get", "read")),
    )
    found = {offer.action.spelling for offer in registry.find("main", "a._READ")}
    assert found == {"A.fetch", "A.get"}
    assert names(registry, "A._create") == {"a"}
    assert registry.find("main", "A._update") == ()


def test_one_service_makes_one_offer_per_name_and_its_last_word_counts() -> None:
    registry = filled(service("a", action("A.one", "read"), action("A.two", "read")))
    (offer,) = registry.find("main", "A._read")
    assert offer.action.name == "two"
    registry = filled(service("a", action("A.x", "t1"), action("A.x", "t2")))
    (offer,) = registry.find("main", "A.x")
    assert offer.action.timeout == 2.0


def test_an_own_name_goes_before_an_alias() -> None:
    registry = filled(service("a", action("A._read"), action("A.x", "read")))
    (offer,) = registry.find("main", "A._read")
    assert offer.action.name == "_read"


def test_each_action_is_listed_once_and_no_alias() -> None:
    registry = filled(
        service("a", action("A.x", "read"), action("A._evaluate")),
        service("b", action("A.x", "read", "update")),
    )
    listed = {offers[0].action.spelling: len(offers) for offers in registry.actions()}
    assert listed == {"A.x": 2, "A._evaluate": 1}


def test_services_that_take_no_requests_are_offered_with_weight_0() -> None:
    registry = filled(replace(service("a", action("A.x")), weight=0))
    assert registry.find("main", "A.x")[0].service.weight == 0


def test_a_service_that_leaves_takes_its_offers_along() -> None:
    registry = filled(service("a", action("A.x", "read")), service("b", action("A.x")))
    change = registry.apply(added=(), removed=[("AB:CD", "a"), ("no", "body")])
    assert [gone.identity for gone in change.removed] == ["a"]
    assert names(registry, "A.x") == {"b"}
    assert registry.find("main", "A._read") == ()
    assert registry.get(("AB:CD", "a")) is None
    assert [found.identity for found in registry.services()] == ["b"]


def test_a_service_that_announces_something_else_is_replaced() -> None:
    registry = filled(service("a", action("A.x"), action("A.y")))
    new = service("a", action("A.y"), action("A.z"))
    assert registry.apply(added=[new], removed=()) == Change((new,), ())
    assert registry.find("main", "A.x") == ()
    assert names(registry, "A.z") == {"a"}


def test_a_renewed_timestamp_is_taken_over_and_is_no_change() -> None:
    registry = filled(service("a", action("A.x")))
    told: list[Change] = []
    registry.subscribe(told.append)
    registry.find("main", "A.x")
    generation = registry.generation
    assert not registry.apply(added=[service("a", action("A.x"), timestamp=9.0)], removed=())
    assert registry.find("main", "A.x")[0].service.timestamp == 9.0
    assert (told, registry.generation) == ([], generation)


@pytest.mark.parametrize(
    "changes", [{"weight": 2}, {"uri": "beepish+tls://h:2"}, {"interval": 1.0}, {"envelopes": ()}]
)
def test_any_other_difference_is_a_change(changes: dict[str, object]) -> None:
    old = service("a", action("A.x"))
    registry = filled(old)
    new = replace(old, **changes)  # type: ignore[arg-type]
    assert registry.apply(added=[new], removed=()) == Change((new,), ())


def test_leaving_and_coming_back_in_one_step_is_no_change() -> None:
    old = service("a", action("A.x"))
    registry = filled(old)
    assert not registry.apply(added=[old], removed=[old.key])
    assert names(registry, "A.x") == {"a"}


def test_subscribers_are_told_until_they_unsubscribe(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()
    told: list[Change] = []

    def fails(change: Change) -> None:
        raise RuntimeError

    registry.subscribe(fails)
    end = registry.subscribe(told.append)
    first = registry.apply(added=[service("a")], removed=())
    end()
    end()
    registry.apply(added=[service("b")], removed=())
    assert told == [first]
    assert registry.generation == 2
    assert "subscriber" in caplog.text


def test_a_draft_from_an_older_state_is_refused() -> None:
    registry = Registry()
    draft = registry.draft()
    draft.add(service("a", action("A.x")))
    registry.apply(added=[service("b", action("A.x"))], removed=())
    assert not registry.commit(draft, draft.change())
    assert names(registry, "A.x") == {"b"}


def test_what_is_being_listed_stays_as_it_was() -> None:
    registry = filled(service("a", action("A.x")), service("b", action("A.y")))
    services, listing = registry.services(), registry.actions()
    next(listing)
    registry.apply(added=(), removed=[("AB:CD", "a"), ("AB:CD", "b")])
    assert len(services) == 2
    assert len(list(listing)) == 1


def test_the_instances_of_a_service_are_found_by_its_name() -> None:
    first, second = f"Shop:{'A' * 24}", f"shop-{'B' * 24}"
    registry = filled(*(service(one, action("A.x")) for one in (first, second, "other")))

    def found(sector: str, name: str) -> set[str]:
        return {one.identity for one in registry.instances(sector, name)}

    assert found("MAIN", "sHop") == {first, second}
    assert found("main", first) == found("other", "shop") == found("main:shop", "x") == set()
    registry.apply(added=[replace(service(first, action("A.x")), sector="Other")])
    assert (found("main", "shop"), found("other", "shop")) == ({second}, {first})
    # Renewed ones are found as they are now.
    registry.apply(added=[replace(service(second, action("A.x")), timestamp=9.0)])
    assert [one.timestamp for one in registry.instances("main", "shop")] == [9.0]
    registry.apply(removed=[one.key for one in registry.services()])
    assert found("main", "shop") == found("other", "shop") == found("main", "other") == set()
    assert not registry.draft().base.named


def test_lookups_that_are_remembered_are_bounded() -> None:
    flood = limits.MAX_CACHED_LOOKUPS + 10
    registry = filled(service("a", *(action(f"A.x{number}") for number in range(flood))))
    for number in range(flood):
        assert names(registry, f"A.x{number}") == {"a"}
    assert len(registry._found) <= limits.MAX_CACHED_LOOKUPS


def test_the_collector_does_not_look_into_the_index() -> None:
    services = [service(f"s{n}", *(action(f"A{n}.x{i}") for i in range(20))) for n in range(100)]
    registry = filled(*services)
    gc.collect()
    assert not any(gc.is_tracked(shard) for shard in registry.draft().base.shards)


ACTIONS = st.lists(
    st.builds(
        action,
        st.sampled_from(["A.x", "a.X", "A.y", "B.x"]),
        st.sampled_from(["", "read", "update"]),
        version=st.integers(1, 2),
    ),
    max_size=4,
)
STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abcd"), ACTIONS, max_size=3),
        st.lists(st.sampled_from("abcd"), max_size=2),
    ),
    max_size=6,
)


def expected(services: Iterable[Announcement], spelling: str, version: int) -> set[str]:
    found = set()
    for known in services:
        for announced in known.actions:
            aliases = [f"{announced.namespace}._{tag}" for tag in announced.crud]
            said = [name.lower() for name in (announced.spelling, *aliases)]
            if announced.version == version and spelling.lower() in said:
                found.add(known.identity)
    return found


@settings(deadline=None)
@given(STEPS)
def test_any_sequence_of_changes_leaves_what_a_plain_search_finds(
    steps: list[tuple[dict[str, list[Action]], list[str]]],
) -> None:
    registry, model = Registry(), dict[str, Announcement]()
    for added, removed in steps:
        services = [service(identity, *actions) for identity, actions in added.items()]
        before = dict(model)
        for identity in removed:
            model.pop(identity, None)
        model.update({new.identity: new for new in services})
        change = registry.apply(added=services, removed=[("AB:CD", name) for name in removed])
        for name in "abcd":
            by_name = {one.identity for one in registry.instances("main", name)}
            assert by_name == {name} & model.keys()
        assert {gone.identity for gone in change.removed} == before.keys() - model.keys()
        for spelling in ("A.x", "A.y", "b.X", "a._read", "A._update"):
            for version in (1, 2):
                assert names(registry, spelling, version) == expected(
                    model.values(), spelling, version
                )
    assert {known.identity for known in registry.services()} == model.keys()
