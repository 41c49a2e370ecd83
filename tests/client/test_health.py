"""Health by a table of what happens and when."""

from __future__ import annotations

import gc
import random
import weakref

import pytest

from scamp.client import health as health_module
from scamp.client.balance import FIRST_SHARE
from scamp.client.health import BACKOFF_FIRST, BACKOFF_MAX, PANIC_INTERVAL, Health
from scamp.errors import ConnectFailed, ConnectionLost, FingerprintMismatch, ReplyTimeout
from scamp.limits import SILENT_AFTER

RAMP = 10.0
REFUSED = ConnectFailed("there", "refused")
LOST = ConnectionLost("there", "reset", written=True)
OTHER = FingerprintMismatch("there", "AA", "BB")


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)


@pytest.mark.parametrize(
    ("events", "pause"),
    [
        ((LOST,), 1),
        ((LOST, LOST), 1),  # one outage
        ((LOST, 1.0, LOST), 2),
        ((LOST, 1.0, REFUSED, 2.0, REFUSED), 4),
        ((LOST, "connected", LOST), 2),  # it had answered nothing
        ((LOST, "connected", "answered", LOST), 1),
        ((LOST, "answered", 1.0, LOST), 1),
        (tuple(step for _ in range(9) for step in (REFUSED, 60.0))[:-1], 60),
        (tuple(step for _ in range(2000) for step in (REFUSED, 60.0))[:-1], 60),
    ],
)
def test_how_long_it_is_out(events: tuple[object, ...], pause: float) -> None:
    health, now = Health(RAMP), 100.0
    for event in events:
        if isinstance(event, float):
            now += event
        elif isinstance(event, Exception):
            health.failed(event, now)  # type: ignore[arg-type]
        elif event == "connected":
            assert health.connected(now)
        else:
            health.answered()
    assert health.out
    assert health.shunned
    assert health.retry_at == pytest.approx(now + pause)
    assert health.resting(now + pause - 0.01)
    assert not health.resting(now + pause)


def test_pauses_are_cut_by_up_to_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    health = Health(RAMP)
    assert health.failed(LOST, 0.0)
    assert health.retry_at == BACKOFF_FIRST / 2
    assert BACKOFF_FIRST * 2**health_module._MANY > BACKOFF_MAX


@pytest.mark.parametrize(
    ("error", "refusing", "at_once", "soon"),
    [
        (LOST, False, True, True),
        (ReplyTimeout(75), False, True, True),
        (REFUSED, True, False, True),
        (OTHER, True, False, False),
    ],
)
def test_when_it_may_be_tried_all_the_same(
    error: ConnectFailed, refusing: bool, at_once: bool, soon: bool
) -> None:
    health = Health(RAMP)
    health.failed(error, 100.0)
    assert health.refusing == refusing
    assert health.may_panic(100.0) == at_once
    assert health.may_panic(100.0 + PANIC_INTERVAL + 0.001) == soon


def test_a_refusal_within_an_outage_makes_the_pause_no_longer_but_counts_as_one() -> None:
    health = Health(RAMP)
    assert health.failed(LOST, 100.0)
    assert not health.failed(REFUSED, 100.5)
    assert (health.retry_at, health.refused_at, health.refusing) == (101.0, 100.5, True)


def test_what_comes_back_has_a_growing_share_and_what_was_never_away_has_all() -> None:
    health = Health(RAMP)
    assert not health.connected(100.0)
    assert health.share(100.0) == 1.0
    health.failed(LOST, 100.0)
    assert health.share(100.0) == 1.0
    assert health.connected(101.0)
    assert (health.out, health.shunned, health.refusing) == (False, False, False)
    assert health.share(101.0) == pytest.approx(FIRST_SHARE)
    assert health.share(101.0 + RAMP) == 1.0


def test_it_is_silent_only_without_any_reply_between() -> None:
    health = Health(RAMP)
    assert not any(health.unanswered() for _ in range(SILENT_AFTER - 1))
    health.silence = 0
    assert not any(health.unanswered() for _ in range(SILENT_AFTER - 1))
    assert health.unanswered()
    assert health.unanswered(), "the next one too, as long as there is no reply"


def test_what_went_wrong_is_kept_without_the_frames_that_it_went_through() -> None:
    """They hold requests, with their bodies and tickets."""

    class Ticket:
        pass

    def fail() -> weakref.ref[Ticket]:
        ticket = Ticket()
        with pytest.raises(ConnectFailed) as caught:
            raise ConnectFailed("there", "refused")
        assert caught.tb is not None
        health.failed(caught.value, 100.0)
        return weakref.ref(ticket)

    health = Health(RAMP)
    ticket = fail()
    gc.collect()
    assert ticket() is None
    assert str(health.last_error) == "cannot connect to there: refused"


def test_when_it_last_went_out_or_came_back() -> None:
    def seen(health: Health) -> tuple[float | None, int]:
        return health.turned_at, health.failures

    health = Health(RAMP)
    health.connected(5.0)
    assert seen(health) == (None, 0), "it was never out"
    health.failed(REFUSED, 10.0)
    health.failed(REFUSED, 20.0)
    assert seen(health) == (10.0, 2), "one outage"
    health.connected(30.0)
    assert seen(health) == (30.0, 2)
    health.answered()
    assert seen(health) == (30.0, 0)
