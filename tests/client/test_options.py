"""What `ClientOptions` takes, and what it refuses before anything hangs on it."""

from __future__ import annotations

from typing import Any

import pytest

from scamp import ClientOptions


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_connections": 0}, "max_connections is 0, and has to be above 0"),
        ({"ping_interval": 0.0}, "ping_interval is 0.0, and has to be above 0"),
        ({"connect_timeout": float("nan")}, "connect_timeout is nan, and has to be above 0"),
        ({"tcp_user_timeout": -1}, "tcp_user_timeout is -1, and must not be below 0"),
        ({"retry_budget": -0.1}, "retry_budget is -0.1, and must not be below 0"),
        ({"ping_services": "shop"}, "ping_services is one text; it has to be a list of names"),
    ],
)
def test_what_nothing_could_work_with_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ClientOptions(**given)


def test_0_switches_off_what_can_be_off() -> None:
    ClientOptions(
        tcp_keepalive_idle=0,
        tcp_user_timeout=0,
        reply_hold=0,
        queue_target=0,
        slow_start=0,
        retries=0,
        retry_budget=0,
        retry_minimum=0,
        max_in_flight=0,
        max_waiters=0,
    )
