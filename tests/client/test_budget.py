"""The share of requests that may be retried."""

from __future__ import annotations

import pytest

from scamp.client import Deadline
from scamp.client.budget import WINDOW, RetryBudget


def test_a_minimum_is_always_allowed() -> None:
    budget = RetryBudget(0.2, 3)
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_many_requests_allow_their_share() -> None:
    budget = RetryBudget(0.2, 3)
    for number in range(100):
        budget.request(100 + number / 100)
    assert budget.left(101) == 20
    assert sum(budget.take(101) for _ in range(50)) == 20


def test_requests_and_retries_are_forgotten_after_the_window() -> None:
    budget = RetryBudget(0.5, 1)
    for _ in range(10):
        budget.request(50.0)
    assert all(budget.take(50.0) for _ in range(5))
    assert budget.left(50.0 + WINDOW - 1) == 0
    assert budget.left(50.0 + WINDOW) == 1


def test_each_second_goes_on_its_own() -> None:
    budget = RetryBudget(1.0, 0)
    for second in range(5):
        budget.request(10.0 + second)
    assert budget.left(14.0) == 5
    assert budget.left(10.0 + WINDOW) == 4
    assert budget.left(13.0 + WINDOW) == 1
    assert budget.left(14.0 + WINDOW) == 0


@pytest.mark.parametrize("pause", [WINDOW, WINDOW + 1, 10 * WINDOW + 3, 1e6])
def test_a_long_pause_forgets_everything(pause: float) -> None:
    budget = RetryBudget(1.0, 0)
    budget.request(7.5)
    assert budget.left(7.5 + pause) == 0


def test_a_clock_that_steps_back_does_no_harm() -> None:
    budget = RetryBudget(1.0, 0)
    budget.request(20.0)
    budget.request(19.0)
    assert budget.left(18.0) == 2


def test_a_deadline_never_has_less_than_nothing_left() -> None:
    past = Deadline.after(-1.0)
    assert past.expired
    assert past.remaining() == 0.0
    assert not Deadline.after(60.0).expired
