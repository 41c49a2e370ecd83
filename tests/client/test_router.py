"""Which instance is chosen, without connecting to any."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from scamp.client import router as router_module
from scamp.client.dialing import Dialer
from scamp.client.health import PANIC_INTERVAL
from scamp.client.instance import Instance
from scamp.client.options import ClientOptions
from scamp.client.router import Router
from scamp.client.stats import ClientStats
from scamp.client.traits import TraitStore
from scamp.discovery import Offer, Registry
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    EnvelopeNotOffered,
    NoUsableInstance,
    Saturated,
)
from scamp.testing import ScriptedPeer
from scamp.transport import client_context

RAMP = ClientOptions().slow_start


class Place:
    """A router over peers that nobody ever dials."""

    def __init__(self, options: ClientOptions | None = None) -> None:
        self.registry = Registry()
        dialer = Dialer(client_context(), timeout=10.0, sessions=None)
        options, stats = options or ClientOptions(), ClientStats()
        self.router = Router(self.registry, options, dialer, TraitStore(), stats)

    def add(self, *weights: float, envelopes: tuple[str, ...] = ("json",)) -> list[ScriptedPeer]:
        peers = [ScriptedPeer(weight=weight, envelopes=envelopes) for weight in weights]
        for number, peer in enumerate(peers, start=1):
            peer.port = number
            self.registry.apply(added=(peer.service(),))
        return peers

    @property
    def offers(self) -> tuple[Offer, ...]:
        return self.registry.find("main", "Test.echo")

    def choose(self, *tried: Instance, envelope: str = "json", after: float = 0.0) -> Instance:
        now = asyncio.get_running_loop().time() + after
        return self.router.choose(self.offers, envelope, tried, now)[0]

    def shares(self, after: float = 0.0) -> list[float]:
        now = asyncio.get_running_loop().time() + after
        return sorted(one.share(now) for one in self.router._instances.values())


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    random.seed(7)
    made = Place()
    yield made
    await made.router.close()


def take_out(instance: Instance, seconds: float = 60.0) -> None:
    instance.out = instance.shunned = True
    now = asyncio.get_running_loop().time()
    instance._retry_at = now + seconds
    instance._refused_at = now


async def test_no_offers_is_nowhere_to_go(place: Place) -> None:
    with pytest.raises(NoUsableInstance):
        place.choose()


async def test_weight_nought_gets_nothing(place: Place) -> None:
    leaving, staying = place.add(0, 1)
    chosen = {place.choose().service.identity for _ in range(20)}
    assert chosen == {staying.identity}
    assert leaving.identity not in chosen


async def test_only_weight_nought_is_nowhere_to_go(place: Place) -> None:
    place.add(0)
    with pytest.raises(NoUsableInstance):
        place.choose()


async def test_the_envelope_must_be_offered(place: Place) -> None:
    place.add(1, envelopes=("json", "jsonstore"))
    assert place.choose(envelope="jsonstore")
    with pytest.raises(EnvelopeNotOffered) as caught:
        place.choose(envelope="extdirect")
    assert caught.value.offered == ("json", "jsonstore")


async def test_the_less_loaded_of_two_is_chosen(place: Place) -> None:
    place.add(1, 1)
    first = place.choose()
    first.in_flight = 3
    for _ in range(3):
        second = place.choose()
        assert second is not first
        second.in_flight += 1


async def test_load_counts_in_proportion_to_weight(place: Place) -> None:
    """Requests that stay in flight spread as the weights say."""
    place.add(1, 3)
    counts: Counter[float] = Counter()
    for _ in range(40):
        instance = place.choose()
        instance.in_flight += 1
        counts[instance.service.weight] += 1
    assert counts[3] == pytest.approx(30, abs=2)


async def test_one_request_after_another_spreads_by_weight_too(place: Place) -> None:
    """A lighter instance must not starve because the heavier one is never busy."""
    place.add(1, 3)
    counts = Counter(place.choose().service.weight for _ in range(400))
    assert counts[1] == pytest.approx(100, abs=30)


async def test_many_equal_instances_share_evenly(place: Place) -> None:
    place.add(*[1] * 5)
    counts = Counter(place.choose().service.identity for _ in range(500))
    assert len(counts) == 5
    assert min(counts.values()) > 50


async def test_an_instance_that_was_tried_is_avoided(place: Place) -> None:
    place.add(1, 1)
    first = place.choose()
    for _ in range(10):
        assert place.choose(first) is not first


async def test_an_instance_that_is_out_is_avoided(place: Place) -> None:
    place.add(1, 1, 1)
    out = place.choose()
    take_out(out)
    for _ in range(20):
        assert place.choose() is not out


async def test_one_that_was_tried_and_is_up_is_better_than_one_that_is_out(place: Place) -> None:
    place.add(1, 1)
    first = place.choose()
    take_out(place.choose(first))
    assert place.choose(first) is first


async def test_when_all_are_out_they_are_tried_in_turn_but_not_in_a_storm(place: Place) -> None:
    place.add(1, 1)
    first = place.choose()
    second = place.choose(first)
    take_out(second, 10)
    take_out(first, 30)
    with pytest.raises(NoUsableInstance) as caught:
        place.choose()
    assert 9 < caught.value.retry_after <= 10
    later = asyncio.get_running_loop().time() + 2 * PANIC_INTERVAL
    chosen, _ = place.router.choose(place.offers, "json", (), later)
    assert chosen is second


async def test_among_many_that_are_out_a_few_requests_find_the_one_that_is_back(
    place: Place,
) -> None:
    """Whatever their pauses are, and though a budget leaves each request a single try."""
    place.add(*[1] * 20)
    place.choose()
    instances = list(place.router._instances.values())
    now = asyncio.get_running_loop().time()
    for instance in instances:
        instance.failed(ConnectFailed("there", "refused"), now)
    tried = []
    for _ in instances:
        now += 2 * PANIC_INTERVAL
        instance, _ = place.router.choose(place.offers, "json", (), now)
        instance.failed(ConnectFailed("there", "refused"), now)
        tried.append(instance)
    assert set(tried) == set(instances)


async def test_a_weight_of_hardly_anything_is_still_one(place: Place) -> None:
    for peer in place.add(1, 1):
        place.registry.apply(added=(replace(peer.service(), weight=5e-324),))
    first = place.choose()
    first.warm_up(asyncio.get_running_loop().time())
    assert place.choose(first) is not first
    for _ in range(20):
        place.choose().in_flight += 1
    assert {one.in_flight > 0 for one in place.router._instances.values()} == {True}


async def test_when_all_are_out_those_that_let_nobody_in_come_last(place: Place) -> None:
    """Even where the request has just lost its connection: elsewhere it would not get one."""
    place.add(1, 1, 1)
    lost = place.choose()
    take_out(lost, 30)
    lost.last_error = ConnectionLost("there", "reset", written=True)
    for instance in place.router._instances.values():
        if instance is not lost:
            take_out(instance, 1)
            instance.last_error = ConnectFailed("elsewhere", "refused")
    for tried in ((), (lost,)):
        assert place.choose(*tried, after=2 * PANIC_INTERVAL) is lost


async def test_an_instance_is_kept_when_its_service_announces_itself_anew(place: Place) -> None:
    (peer,) = place.add(1)
    first = place.choose()
    peer.weight = 5
    place.registry.apply(added=(peer.service(),))
    again = place.choose()
    assert again is first
    assert again.service.weight == 5


async def test_a_service_that_moved_is_another_instance(place: Place) -> None:
    (peer,) = place.add(1)
    first = place.choose()
    peer.port = 4242
    place.registry.apply(added=(peer.service(),))
    again = place.choose()
    assert again is not first
    assert again.port == 4242


async def test_an_instance_goes_with_its_service(place: Place) -> None:
    (peer,) = place.add(1)
    place.choose()
    assert len(place.router.views()) == 1
    place.registry.apply(removed=(peer.service().key,))
    assert place.router.views() == []


async def test_what_is_seen_from_outside(place: Place) -> None:
    (peer,) = place.add(2)
    instance = place.choose()
    instance.last_error = ConnectFailed("somewhere", "refused")
    (view,) = place.router.views()
    assert (view.identity, view.weight, view.state, view.peer) == (
        peer.identity,
        2,
        "up",
        "unknown",
    )
    assert view.last_error == "cannot connect to somewhere: refused"


async def test_what_is_full_sends_nobody_to_what_is_out() -> None:
    place = Place(ClientOptions(max_in_flight=1))
    place.add(1, 1)
    full = place.choose()
    out = place.choose(full)
    take_out(out, -60.0)
    full.in_flight = 1
    full._retry_at = out.retry_at + 1.0  # it was out, too
    with pytest.raises(Saturated) as caught:
        place.choose(after=2 * PANIC_INTERVAL)
    assert caught.value.reason == "instance"
    await place.router.close()


# -- slow start -------------------------------------------------------------------------


async def test_where_everything_is_new_nothing_starts_slowly(place: Place) -> None:
    place.add(1, 1)
    place.choose()
    assert place.shares() == [1.0, 1.0]
    third, _ = place.add(1, 1)  # as in a mesh that is just being heard
    place.choose(after=RAMP / 2)
    assert place.shares(RAMP / 2) == [1.0] * 4
    assert third.port


async def test_what_comes_beside_what_has_served_for_a_while_starts_slowly(place: Place) -> None:
    place.add(1)
    old = place.choose()
    place.add(1)
    counts = Counter(place.choose(after=RAMP) is old for _ in range(1000))
    assert counts[False] == pytest.approx(91, abs=30)
    new = next(one for one in place.router._instances.values() if one is not old)
    assert [view.share for view in place.router.views()] == [1.0, pytest.approx(0.1)]
    assert new.share(new.warming_until) == 1.0


async def test_what_comes_while_all_others_are_out_does_not(place: Place) -> None:
    place.add(1)
    old = place.choose()
    old.since -= 1.0
    take_out(old)
    place.add(1)
    place.choose(after=RAMP - 0.5)  # by then the new one itself has not served for a while
    assert place.shares(RAMP - 0.5) == [1.0, 1.0]


async def test_without_slow_start_nothing_starts_slowly() -> None:
    place = Place(ClientOptions(slow_start=0.0))
    place.add(1)
    place.choose()
    place.add(1)
    place.choose(after=60.0)
    assert place.shares(60.0) == [1.0, 1.0]
    await place.router.close()


# -- what is kept at hand ---------------------------------------------------------------


async def test_offers_from_before_a_move_lead_to_where_the_service_is_now(place: Place) -> None:
    """And do not bring back where it was."""
    (peer,) = place.add(1)
    before = place.offers
    place.choose()
    peer.port = 4242
    place.registry.apply(added=(peer.service(),))
    there = place.choose()
    chosen, _ = place.router.choose(before, "json", (), asyncio.get_running_loop().time())
    assert chosen is there
    assert chosen.port == 4242


async def test_offers_of_what_has_left_lead_nowhere(place: Place) -> None:
    (peer,) = place.add(1)
    before = place.offers
    place.choose()
    place.registry.apply(removed=(peer.service().key,))
    with pytest.raises(NoUsableInstance):
        place.router.choose(before, "json", (), asyncio.get_running_loop().time())
    assert place.router.views() == []


async def test_lists_that_differ_every_time_do_not_pile_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "MAX_PLANNED", 10)
    place.add(1, 1, 1)
    now = asyncio.get_running_loop().time()
    for _ in range(100):
        place.router.choose((*place.offers, place.offers[0]), "json", (), now)
        assert len(place.router._plans) <= 2
    place.add(1)
    assert not place.router._plans


async def test_of_what_is_slow_to_connect_the_least_used_is_taken_when_nothing_is_better(
    place: Place,
) -> None:
    place.add(1, 1)
    first = place.choose()
    second = place.choose(first)
    for one in (first, second):
        one.shunned = True
    first.in_flight = 1
    assert place.choose() is second
    assert place.choose(second) is first


async def test_what_was_waited_for_in_vain_comes_after_what_has_only_lost_connections(
    place: Place,
) -> None:
    place.add(1, 1)
    slow = place.choose()
    lost = place.choose(slow)
    slow.shunned = True
    now = asyncio.get_running_loop().time()
    lost.failed(ConnectionLost("there", "reset", written=True), now)
    assert place.choose() is slow
    assert place.choose(slow) is lost
    lost.failed(ConnectFailed("there", "refused"), now)
    assert place.choose(slow) is slow
