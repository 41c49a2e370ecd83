"""Request ids, traces, deadlines and client addresses."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest

from gateway.context import (
    MAX_FORWARDED,
    MAX_PEERS,
    ClientAddresses,
    RequestIds,
    caller_timeout,
    continue_trace,
    is_request_id,
)
from gateway.problems import Problem

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def test_made_request_ids_are_unique_and_acceptable() -> None:
    first, second = RequestIds(), RequestIds()
    made = {first() for _ in range(100)} | {second() for _ in range(100)}
    assert len(made) == 200
    assert all(is_request_id(one) for one in made)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("abc-1", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),
        ("é", False),
        ("a\x7f", False),
        ("a\r\nb", False),
        ("a,b%2Cc\\u002c", True),
        ("1,7,9,1700000,60,abcdefghijklmnop", False),
        ("1%2C7%2C9%2C1700000%2C60%2Cabcdefghijklmnop", False),
        ("1\\u002c7\\u002c9\\u002c1700000\\u002c60\\u002cabcdefghijklmnop", False),
    ],
)
def test_only_short_printable_request_ids_are_taken_over(text: str, taken: bool) -> None:
    assert is_request_id(text) is taken


def test_a_trace_goes_on_with_a_span_of_ours() -> None:
    continued = continue_trace(f"00-{TRACE}-{PARENT}-01", "vendor=1")
    assert continued is not None
    trace, fields = continued
    assert trace == TRACE
    assert fields["tracestate"] == "vendor=1"
    match = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", fields["traceparent"])
    assert match
    assert match[1] != PARENT


def test_a_later_version_of_the_trace_header_is_understood_as_far_as_we_know_it() -> None:
    continued = continue_trace(f"cc-{TRACE}-{PARENT}-03-more", None)
    assert continued is not None
    assert continued[1]["traceparent"].startswith("00-")
    assert continued[1]["traceparent"].endswith("-01")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_a_trace_header_that_is_not_valid_counts_for_nothing(header: str) -> None:
    assert continue_trace(header, "vendor=1") is None


@pytest.mark.parametrize("state", [None, "", "x" * 513, "a=\x00"])
def test_trace_state_is_passed_on_only_if_short_and_printable(state: str | None) -> None:
    continued = continue_trace(f"00-{TRACE}-{PARENT}-00", state)
    assert continued is not None
    assert set(continued[1]) == {"traceparent"}


def test_a_callers_timeout_is_a_plain_number() -> None:
    assert caller_timeout("5") == 5
    assert caller_timeout("0.25") == 0.25


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-1", "+1", "1e3", "nan", "inf", "5 s", "\u0665", "1."]
)
def test_a_timeout_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        caller_timeout(text)
    assert caught.value.status == 400


TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # the peer is not trusted
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7, 10.2.2.2"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7", "10.2.2.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, 10.2.2.2"], "10.9.9.9"),
        ("10.0.0.1", ["1.1.1.1, rubbish, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("fd00::1%eth0", ["fe80::1%\udcff<any text>"], "fe80::1"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
    ],
)
def test_the_client_is_the_last_address_that_a_trusted_proxy_saw(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert ClientAddresses(TRUSTED).client(peer, forwarded) == client


def test_without_trusted_proxies_nothing_is_believed() -> None:
    assert ClientAddresses().client("10.0.0.1", ["198.51.100.7"]) == "10.0.0.1"


def test_only_the_last_entries_of_a_long_list_are_looked_at() -> None:
    entries = ["198.51.100.7", *["10.0.0.2"] * (MAX_FORWARDED + 5)]
    assert ClientAddresses(TRUSTED).client("10.0.0.1", [",".join(entries)]) == "10.0.0.2"


def test_peers_are_remembered_up_to_a_limit() -> None:
    addresses = ClientAddresses(TRUSTED)
    for number in range(MAX_PEERS + 10):
        addresses.client(f"10.0.{number // 256}.{number % 256}", ["198.51.100.7"])
    assert len(addresses._peers) <= MAX_PEERS
