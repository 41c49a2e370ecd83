"""What we announce is what we, and others, read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scamp.discovery import (
    Action,
    AnnouncementSpec,
    build_announcement,
    new_identity,
    parse_announcement,
)
from scamp.discovery.runlength import compress, expand
from scamp.errors import AnnouncementError

SPEC = AnnouncementSpec(
    identity="shop:" + "A" * 24,
    sector="main",
    weight=2,
    interval=2.5,
    uri="beepish+tls://[::1]:30100",
    envelopes=("json", "jsonstore"),
    actions=(
        Action("main", "A.B", "one", 1, ("read", "t30")),
        Action("main", "A.B", "two", 3, (), ("json", "jsonstore")),
        Action("main", "C", "one", 1, ("noauth",)),
    ),
)


def body_of(raw: bytes) -> Any:
    return json.loads(raw.split(b"\n\n")[0])


def test_what_was_built_reads_back(signer: Any) -> None:
    found = parse_announcement(
        build_announcement(SPEC, signer.key, signer.pem, timestamp=1_700_000_000.25)
    )
    assert (found.identity, found.sector, found.weight) == (SPEC.identity, "main", 2)
    assert (found.interval, found.host, found.timestamp) == (2.5, "::1", 1_700_000_000.25)
    assert [action.spelling for action in found.actions] == ["A.B.one", "A.B.two", "C.one"]
    assert found.actions[0].envelopes == ("json", "jsonstore")


def test_own_actions_are_version_3_in_the_form_that_all_peers_read(signer: Any) -> None:
    body = body_of(build_announcement(SPEC, signer.key, signer.pem, timestamp=5.5))
    assert body[4:9] == [
        2500,
        "beepish+tls://[::1]:30100",
        ["json", "jsonstore"],
        [["A.B", ["one", "read,t30"], ["two", "", 3]], ["C", ["one", "noauth"]]],
        5.5,
    ]


def test_actions_with_their_own_sector_or_envelopes_are_version_4(signer: Any) -> None:
    actions = (
        Action("web", "A", "x", 1, ("read",)),
        Action("main", "A", "y", 2, (), ("extdirect",)),
        Action("main", "A", "z", 2, (), ("extdirect",)),
    )
    raw = build_announcement(replace(SPEC, actions=actions), signer.key, signer.pem, timestamp=5.0)
    assert body_of(raw)[6][2]["acname"] == ["x", "y", "z"]
    assert body_of(raw)[6][2]["acver"] == [1, [2, 2]]
    assert body_of(raw)[6][2]["accompat"] == [[3, 1]], "Rust skips the actions without it"
    assert parse_announcement(raw).actions == (
        replace(actions[0], envelopes=("json", "jsonstore")),
        *actions[1:],
    )


def test_leaving_is_weight_0_without_actions(signer: Any) -> None:
    spec = replace(SPEC, weight=0, actions=())
    found = parse_announcement(build_announcement(spec, signer.key, signer.pem, timestamp=5.0))
    assert (found.weight, found.actions) == (0, ())


def test_the_weight_is_written_as_a_whole_number(signer: Any) -> None:
    """The Go edition reads nothing of a cache file with one record that says ``2.0``."""
    raw = build_announcement(replace(SPEC, weight=2.0), signer.key, signer.pem, timestamp=5.0)
    assert json.dumps(json.loads(raw.split(b"\n\n")[0])[3]) == "2"


def test_the_text_is_ascii_because_javascript_reads_packets_as_latin_1(signer: Any) -> None:
    spec = replace(SPEC, actions=(Action("main", "Öl", "x", 1),))
    raw = build_announcement(spec, signer.key, signer.pem, timestamp=5.0)
    assert raw.isascii()
    assert parse_announcement(raw).actions[0].spelling == "Öl.x"


@pytest.mark.parametrize(
    "changes",
    [
        {"uri": "http://x"},
        {"identity": ""},
        {"weight": float("nan")},
        {"weight": 2.5},
        {"interval": float("inf")},
        {"actions": (Action("main", "A", "b.c", 1),)},
        {"actions": (Action("main", "A", "\ud800", 1),)},
    ],
)
def test_what_peers_would_refuse_is_not_signed(signer: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(AnnouncementError, match="malformed"):
        build_announcement(replace(SPEC, **changes), signer.key, signer.pem, timestamp=5.0)


def test_a_key_of_another_certificate_is_refused(signer: Any, other_signer: Any) -> None:
    with pytest.raises(AnnouncementError, match="signature"):
        build_announcement(SPEC, other_signer.key, signer.pem, timestamp=5.0)


def test_identities_are_never_the_same(announce: Callable[..., bytes]) -> None:
    first, second = new_identity("shop"), new_identity("shop")
    assert first != second
    assert parse_announcement(announce(first)).name == "shop"


@given(st.lists(st.sampled_from(["a", "b", ""]), max_size=30))
def test_run_length_coding_reads_back(values: list[str]) -> None:
    assert expand(compress(values), "x", len(values)) == values
