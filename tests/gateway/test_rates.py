"""Rates and buckets: their text, their arithmetic against a model, and how much is kept in mind."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ratelimit.buckets import _LOOKS, Buckets, Key
from gateway.ratelimit.callers import address_key, address_text
from gateway.ratelimit.rate import MAX_COUNT, MAX_PERIOD, Rate

SECOND = 1_000_000
START = 5_000_000_000

# -- text -------------------------------------------------------------------------------

UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "S"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes", "Min"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days", "DAY"), 86_400),
}


@given(
    count=st.integers(1, MAX_COUNT),
    number=st.none() | st.integers(1, 31),
    unit=st.sampled_from(sorted(UNITS)),
    burst=st.none() | st.integers(1, MAX_COUNT),
    space=st.sampled_from(("", " ", "\t")),
)
def test_text_of_a_rate(
    count: int, number: int | None, unit: str, burst: int | None, space: str
) -> None:
    text = f"{space}{count}{space}/{space}{'' if number is None else number}{space}{unit}"
    if burst is not None:
        text += f"{space};{space}burst{space}={space}{burst}{space}"
    rate = Rate.parse(text)
    assert rate == Rate(count, (number or 1) * UNITS[unit], burst or count)
    assert Rate.parse(str(rate)) == rate
    assert Rate.parse(rate) is rate


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("600/minute", "600/min"),
        ("60/60s", "60/min"),
        ("100/15 min", "100/15min"),
        ("5/7200s;burst=5", "5/2h"),
        ("10/s;burst=50", "10/s;burst=50"),
    ],
)
def test_a_rate_is_shown_in_its_shortest_form(text: str, shown: str) -> None:
    assert str(Rate.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", "10", "10/", "/s", "10/x", "10/ms", "10/month", "ten/s", "-1/s", "1.5/s", "10//s",
        "10/s;", "10/s;burst", "10/s;burst=", "10/s;burst=x", "10/s;rate=5", "10/s,burst=5",
        "10 per s", "\u0661/s", "1234567890/s", "10/s 5", "10/-1s",
    ],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"not COUNT/UNIT, such as 600/min"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/s", "count is between 1 and 1000000, not 0"),
        ("1000001/s", "count is between"),
        ("1/0s", "period is between"),
        (f"1/{MAX_PERIOD + 1}s", "period is between"),
        ("1/s;burst=0", "burst is between"),
        ("1/s;burst=1000001", "burst is between"),
    ],
)
def test_a_rate_out_of_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rate.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_rate_or_a_value_error(text: str) -> None:
    try:
        rate = Rate.parse(text)
    except ValueError:
        return
    assert rate.room == rate.burst * rate.token


# -- arithmetic -------------------------------------------------------------------------


def take(buckets: Buckets, key: Key, now: int) -> tuple[bool, int]:
    """As the limiter does it."""
    level = buckets.level(key, now)
    if level + buckets.rate.token > buckets.rate.room:
        return False, level
    level += buckets.rate.token
    buckets.put(key, now, level)
    return True, level


class Model:
    """A bucket as books have it: tokens, which are fractions."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.per_micro = Fraction(rate.count, rate.period * SECOND)
        self.tokens = Fraction(rate.burst)
        self.at = 0

    def take(self, now: int) -> bool:
        self.tokens = min(Fraction(self.rate.burst), self.tokens + (now - self.at) * self.per_micro)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def until(self, tokens: Fraction) -> int:
        """Seconds, rounded up."""
        missing = max(Fraction(0), tokens - self.tokens)
        return -(-missing // (self.per_micro * SECOND))


rates = st.builds(
    Rate, st.integers(1, 50) | st.just(MAX_COUNT), st.integers(1, 100), st.integers(1, 20)
)


@given(rates, st.lists(st.integers(0, 5 * SECOND) | st.integers(0, 3) | st.just(0), max_size=80))
def test_a_bucket_does_exactly_what_the_model_does(rate: Rate, gaps: list[int]) -> None:
    buckets, model, now = Buckets(rate), Model(rate), START
    for gap in gaps:
        now += gap
        admitted, level = take(buckets, 1, now)
        assert admitted == model.take(now)
        assert rate.remaining(level) == int(model.tokens)
        assert rate.wait(level) == model.until(Fraction(1))
        if level:
            assert rate.next_token(level) == model.until(Fraction(int(model.tokens) + 1))
        else:
            assert rate.next_token(level) == 0


@given(rates, st.integers(0, SECOND))
def test_the_wait_is_true(rate: Rate, offset: int) -> None:
    buckets, now = Buckets(rate), START + offset
    level = 0
    while (taken := take(buckets, 1, now))[0]:
        level = taken[1]
    wait = rate.wait(level)
    assert wait >= 1
    assert not take(buckets, 1, now + (wait - 1) * SECOND)[0]
    assert take(buckets, 1, now + wait * SECOND)[0]


def test_a_burst_is_all_there_is_at_once_and_then_the_rate() -> None:
    buckets, now = Buckets(Rate.parse("10/s;burst=3")), START
    assert [take(buckets, 1, now)[0] for _ in range(5)] == [True] * 3 + [False] * 2
    taken = sum(take(buckets, 1, now + n * SECOND // 1000)[0] for n in range(1, 10_001))
    assert taken == 100  # in 10 s


def test_one_caller_costs_another_nothing() -> None:
    buckets = Buckets(Rate.parse("2/min"))
    while take(buckets, 1, START)[0]:
        pass
    assert take(buckets, 2, START) == (True, buckets.rate.token)


# -- how much is kept -------------------------------------------------------------------

MINUTE = Rate.parse("60/min")


def test_a_flood_of_callers_stays_within_the_cap() -> None:
    buckets = Buckets(MINUTE, 1024)
    tracemalloc.start()
    try:
        for number in range(4096):
            take(buckets, number.to_bytes(8, "big"), START)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(4096, 200_000):
            take(buckets, number.to_bytes(8, "big"), START + number)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(buckets) == len(buckets._queue) == 1024
    assert peak < 1024 * 1024
    assert after < before * 1.2


def test_who_is_limited_stays_so_through_a_flood() -> None:
    buckets = Buckets(MINUTE, 1024)
    while take(buckets, b"limited", START)[0]:
        pass
    admitted = 0
    for number in range(100_000):  # in a second
        now = START + number * 10
        take(buckets, number.to_bytes(8, "big"), now)
        admitted += take(buckets, b"limited", now)[0]
    assert admitted <= 1
    assert buckets.dropped > 90_000


def test_to_push_out_one_who_is_limited_takes_as_many_others_who_are() -> None:
    """The cap is full, and all that were heard of long ago have used up their buckets since."""
    buckets = Buckets(MINUTE, 1024)
    old = [bytes([0, number]) for number in range(_LOOKS)]
    for key in old:
        take(buckets, key, START)
    for number in range(1024 - _LOOKS):
        take(buckets, number.to_bytes(8, "big"), START + 1)
    for key in old:
        while take(buckets, key, START + 1)[0]:
            pass
    take(buckets, b"new", START + 1)
    gone = [key for key in old if buckets.level(key, START + 1) == 0]
    assert len(gone) == 1
    for number in range(1000):  # those that are left were put where they belong
        take(buckets, b"more" + number.to_bytes(8, "big"), START + 1)
    assert [key for key in old if buckets.level(key, START + 1) == 0] == gone


def test_buckets_that_are_full_again_make_room() -> None:
    buckets = Buckets(MINUTE, 1024)
    for number in range(1024):
        take(buckets, number, START)
    for number in range(600):
        take(buckets, 10_000 + number, START + 2 * SECOND)
    assert buckets.dropped == 0
    assert len(buckets) <= 601


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3), st.integers(0, SECOND)), max_size=200)
)
def test_every_entry_is_in_the_queue_once_and_not_too_late(
    asks: list[tuple[int, int, int]],
) -> None:
    buckets, now = Buckets(Rate.parse("1/s;burst=4"), 16), START
    for key, times, gap in asks:
        now += gap
        for _ in range(times):
            take(buckets, key, now)
        assert len(buckets) <= 16
        assert sorted(key for _, key in buckets._queue) == sorted(buckets._full)
        assert all(moment <= buckets._full[key] for moment, key in buckets._queue)


# -- addresses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("/run/gateway.sock", "unknown"),
        ("1.2.3", "unknown"),
        ("::g", "unknown"),
        ("1.2.3.4\0", "unknown"),
        ("\uff11.2.3.4", "unknown"),
    ],
)
def test_what_one_address_is(text: str | None, shown: str) -> None:
    assert address_text(address_key(text)) == shown


def test_neighbours_in_a_network_are_one_caller_and_others_are_not() -> None:
    assert address_key("2001:db8:0:1::1") == address_key("2001:db8:0:1:ffff::9")
    assert address_key("2001:db8:0:1::1") != address_key("2001:db8:0:2::1")
    assert address_key("10.0.0.1") != address_key("10.0.0.2")
