"""Power of two choices, with instances that are made up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from scamp.client.balance import DRAWS, FIRST_SHARE, Balance, share

RAMP = 10.0


@dataclass(eq=False)
class Place:
    """An instance as the balance sees it."""

    name: str = ""
    in_flight: int = 0
    tight: int = 100
    warming_until: float = 0.0
    shunned: bool = False
    limit: int = 100

    @property
    def full(self) -> bool:
        return self.in_flight >= self.limit


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(11)


def balance(places: Sequence[Place], *weights: float) -> Balance[Place, str]:
    chosen = weights or [1.0] * len(places)
    return Balance([(place, place.name) for place in places], chosen, RAMP)


def shares(of: Balance[Place, str], now: float = 0.0, picks: int = 4000) -> dict[str, float]:
    """How often each one is picked."""
    counts: Counter[str] = Counter()
    for _ in range(picks):
        choice = of.pick(now)
        assert choice is not None
        counts[choice[1]] += 1
    return {name: count / picks for name, count in counts.items()}


def several(count: int) -> list[Place]:
    return [Place(str(number)) for number in range(count)]


# -- slow start -------------------------------------------------------------------------


def test_the_share_grows_evenly_from_its_first_to_one() -> None:
    assert share(10.0, 0.0, RAMP) == pytest.approx(FIRST_SHARE)
    assert share(10.0, 5.0, RAMP) == pytest.approx((1 + FIRST_SHARE) / 2)
    assert share(10.0, 10.0, RAMP) == 1.0
    assert share(0.0, 99.0, 0.0) == 1.0
    assert share(100.0, 0.0, RAMP) == FIRST_SHARE


@pytest.mark.parametrize(("now", "part"), [(0.0, 0.1 / 1.1), (5.0, 0.55 / 1.55), (10.0, 0.5)])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 1.0000001)])
def test_who_has_just_come_gets_a_growing_part(
    now: float, part: float, weights: tuple[float, float]
) -> None:
    places = [Place("old"), Place("new", warming_until=10.0)]
    assert shares(balance(places, *weights), now)["new"] == pytest.approx(part, abs=0.03)


def test_a_slow_start_slows_nothing_down_where_there_is_nobody_else() -> None:
    alone = balance([Place("new", warming_until=10.0)])
    assert shares(alone) == {"new": 1.0}
    beside = balance([Place("new", warming_until=10.0), Place("out", shunned=True)])
    assert shares(beside) == {"new": 1.0}


def test_what_started_together_shares_evenly() -> None:
    places = [Place(name, warming_until=10.0) for name in "ab"]
    assert shares(balance(places))["a"] == pytest.approx(0.5, abs=0.03)


def test_requests_in_flight_weigh_more_during_a_slow_start() -> None:
    places = [Place("old", in_flight=5), Place("new", in_flight=1, warming_until=10.0)]
    assert shares(balance(places), 0.0) == {"old": 1.0}
    assert shares(balance(places), 10.0) == {"new": 1.0}


# -- who takes nothing ------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_who_is_full_is_passed_over_while_another_has_room(count: int) -> None:
    full = [Place("full", in_flight=3, tight=3, limit=3) for _ in range(count)]
    assert balance(full).pick(0.0) is None
    room = Place("room", in_flight=99)
    assert shares(balance([*full, room])) == {"room": 1.0}


def test_a_bound_below_the_limit_is_only_where_it_is_looked_at() -> None:
    assert shares(balance([Place("busy", in_flight=3, tight=3, limit=4)])) == {"busy": 1.0}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_who_is_shunned_or_avoided_is_not_picked(count: int) -> None:
    places = [Place("x", shunned=True) for _ in range(count)]
    assert balance(places).pick(0.0) is None
    avoided = several(count)
    assert balance(avoided).pick(0.0, avoided) is None
    assert balance(avoided).pick(0.0, avoided[1:]) == (avoided[0], "0")


def test_the_one_among_many_that_works_is_always_found() -> None:
    places = [Place("out", shunned=True) for _ in range(50 * DRAWS)]
    assert shares(balance([*places, Place("up")]), picks=200) == {"up": 1.0}


# -- by load and by weight --------------------------------------------------------------


def test_the_less_loaded_of_two_is_picked() -> None:
    assert shares(balance([Place("a", in_flight=2), Place("b", in_flight=1)])) == {"b": 1.0}
    heavy = balance([Place("a", in_flight=2), Place("b", in_flight=1)], 3.0, 1.0)
    assert shares(heavy) == {"a": 1.0}


def test_what_is_idle_shares_by_weight() -> None:
    got = shares(balance(several(3), 1.0, 3.0, 6.0))
    assert [got[name] for name in "012"] == pytest.approx([0.1, 0.3, 0.6], abs=0.03)


def test_the_light_one_beside_a_very_heavy_one_is_compared_too() -> None:
    """Though hardly a draw finds it."""
    places = [Place("heavy", in_flight=100_000, tight=10**9), Place("light")]
    assert shares(balance(places, 10_000.0, 0.01), picks=200) == {"light": 1.0}


def test_load_stays_even_over_many() -> None:
    places = several(20)
    balanced = balance(places)
    for _ in range(2000):
        choice = balanced.pick(0.0)
        assert choice is not None
        choice[0].in_flight += 1
        choice[0].tight = 10_000
    assert max(place.in_flight for place in places) <= 100 + 6
