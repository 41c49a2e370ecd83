"""The quick way to a line of the access log: the bytes are those of the plain one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final, cast

import orjson
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given, settings
from hypothesis import strategies as st
from offers import registry_of, service

from gateway import access_lines
from gateway.access_lines import MAX_MIDDLES, fields_of, line_of, lines_of, taken
from gateway.actions import Target, announced
from gateway.auth import Caller
from gateway.exchange import Exchange, Serving
from gateway.metrics import Metrics
from scamp.discovery import Registry

REQUEST: Final = cast(web.BaseRequest, make_mocked_request("POST", "/"))
ACTION: Final = announced(
    registry_of(service("shop", "Shop.buy noauth")).find("main", "Shop.buy"), 1.0
)
PLAIN: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


def exchange(**known: Any) -> Exchange:
    """A request that ended well."""
    made = Exchange(REQUEST, Serving(), Metrics(Registry()).none, 0.0, 1_700_000_000.25)
    usual = {"request_id": "id-1", "action": ACTION, "status": 200, "attempts": 1}
    for name, value in {**usual, **known}.items():
        setattr(made, name, value)
    return made


whole = st.integers(-(1 << 63), (1 << 63) - 1)
names = st.text(max_size=20) | st.sampled_from(('"', "\\", "\n", "\x7f", "a\u2028b", "é", "{}"))
# Halves of the last figure, and what is next to them.
halves = st.integers(0, 1 << 35).map(lambda number: (number + 0.5) / 1e6)
near_halves = st.builds(math.nextafter, halves, st.sampled_from((0.0, math.inf)))
seconds = (
    st.floats() | st.floats(0, 100) | halves | near_halves | st.builds(lambda n: n / 1e6, whole)
)
moments = st.floats(0, 1 << 33) | st.builds(
    lambda second, fraction: second + fraction / (1 << 22),
    st.integers(0, 1 << 31),
    st.integers(0, 1 << 22),
)
actions = st.builds(replace, st.just(ACTION), spelling=names, sector=names, version=whole)
exchanges = st.fixed_dictionaries(
    {},
    optional={
        "wall": moments,
        "request_id": names,
        "trace_id": st.none() | names,
        "client": st.none() | names,
        "method": names,
        "route": st.none() | names,
        "action": st.none() | actions,
        "asked": st.none() | st.builds(Target, names, names, whole),
        "status": st.integers(0, 599),
        "cause": st.none() | st.none() | names,
        "upstream_code": st.none() | st.none() | names,
        "address": st.none() | names,
        "attempts": st.none() | whole,
        "bytes_in": whole,
        "bytes_out": whole,
        "upstream": seconds,
        "queued": seconds,
        "caller": st.none() | st.builds(Caller, user_id=whole, client_id=st.none() | whole),
    },
)


@settings(max_examples=400, deadline=None)
@given(exchanges, seconds, st.none() | whole, st.none() | st.floats(1, 1e6))
@example({"wall": 0.0}, 0.0, None, None)
@example({"wall": 1.0999995}, 0.0005, None, None)  # a microsecond short of a second figure
@example({"wall": 1.99999999}, 2e-6, None, None)
@example({"wall": 1_700_000_000.5078125}, 0.0, None, None)  # half a microsecond
@example({"wall": 1_700_000_000.0}, -0.0, None, None)
@example({"queued": -0.0}, 1.0000005, 3, 10)
def test_the_quick_line_has_the_bytes_of_the_plain_one(
    known: dict[str, Any], total: float, worker: int | None, weight: float | None
) -> None:
    made = exchange(**known)
    plain = line_of(made, total, worker, weight=weight)
    quick = taken(made, total, weight)
    assert plain == orjson.dumps(fields_of(made, total, worker, weight), option=PLAIN)
    assert lines_of([plain, quick or plain, plain], worker) == [plain] * 3
    made.action, made.status = None, 0
    assert lines_of([quick or plain], worker) == [plain], "the values are those of then"


@settings(deadline=None)
@given(st.lists(moments | st.floats(1_700_000_000, 1_700_000_003)))
@example([2.5, 1.5, 2.25, 2.0, 1.999])
def test_requests_of_several_seconds_end_in_any_order(walls: list[float]) -> None:
    every = [exchange(wall=wall) for wall in walls]
    lines = lines_of([taken(one, 0.0, None) or b"" for one in every], None)
    assert lines == [line_of(one, 0.0) for one in every]


@settings(max_examples=2000, deadline=None)
@given(seconds)
def test_milliseconds_are_rounded_as_decimals_are(value: float) -> None:
    found, wanted = access_lines._milliseconds(value), round(value * 1000, 3)
    assert repr(found) == repr(wanted)


def test_what_is_kept_ready_has_a_cap_and_nothing_that_strangers_chose() -> None:
    access_lines._middle.cache_clear()
    for number in range(100):
        asked = Target("main", f"Made.up{number}", 1)
        for stranger in (
            exchange(action=None, asked=asked, cause="no_such_action"),
            exchange(method=f"M{number}", cause="method_not_allowed"),
            exchange(upstream_code=f"code{number}"),
        ):
            assert taken(stranger, 0.0, None) is None
    for number in range(2 * MAX_MIDDLES):
        quick = taken(exchange(address=f"127.0.0.1:{number}"), 0.0, None)
        assert quick is not None
        lines_of([quick], None)
    assert access_lines._middle.cache_info().currsize == MAX_MIDDLES
    access_lines._middle.cache_clear()
