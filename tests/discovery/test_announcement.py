"""What is accepted as an announcement, what it means, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scamp import limits
from scamp.discovery import Action, Announcement, Registry, parse_announcement
from scamp.discovery.announcement import identity_hint
from scamp.discovery.model import count_actions
from scamp.errors import AnnouncementError

Packet = Callable[..., bytes]
Sign = Callable[[str | bytes], bytes]


def refused(raw: bytes, *, verify: bool = True) -> str:
    with pytest.raises(AnnouncementError) as caught:
        parse_announcement(raw, verify=verify)
    return caught.value.reason


def v4(**columns: Any) -> dict[str, Any]:
    return {
        "acname": ["a", "b", "c"],
        "acns": [[3, "Ns"]],
        "acsec": [[2, "main"], "web"],
        "acenv": [[3, "json,jsonstore"]],
        **columns,
    }


# -- what it means ----------------------------------------------------------------------


def test_a_packet_says_who_where_and_what(packet: Packet, signer: Any) -> None:
    found = parse_announcement(packet())
    assert found == Announcement(
        identity="shop:" + "A" * 24,
        fingerprint=signer.fingerprint,
        sector="main",
        weight=1,
        interval=5.0,
        uri="beepish+tls://10.0.0.1:30100",
        host="10.0.0.1",
        port=30100,
        envelopes=("json",),
        actions=(
            Action("main", "Product.Sku", "fetch", 1, ("read", "t30"), ("json",)),
            Action("main", "Product.Sku", "list", 1, (), ("json",)),
        ),
        timestamp=1_700_000_000.0,
    )
    assert found.key == (signer.fingerprint, "shop:" + "A" * 24)
    assert found.name == "shop"
    assert hash(found) == hash(parse_announcement(packet()))


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("auth:GjHqvugQY0Nej6PHMbByEdw1", "auth"),
        ("logger-b3/QF6hT+7tEJVVoVkvmxl8n", "logger"),
        ("a:b-c:GjHqvugQY0Nej6PHMbByEdw1", "a:b-c"),
        ("plain", "plain"),
    ],
)
def test_the_name_is_the_identity_without_its_random_part(
    packet: Packet, identity: str, name: str
) -> None:
    assert parse_announcement(packet(identity=identity)).name == name


@pytest.mark.parametrize("written", [1_720_724_092.16531, 1_720_724_092_165.31])
def test_timestamps_in_seconds_and_milliseconds_come_out_in_seconds(
    packet: Packet, written: float
) -> None:
    assert parse_announcement(packet(timestamp=written)).timestamp == pytest.approx(
        1_720_724_092.16531
    )


@pytest.mark.parametrize(("written", "weight"), [(0, 0), (2.5, 2.5), ("3", 3), ("1.5", 1.5)])
def test_weight_may_be_a_number_or_look_like_one(
    packet: Packet, written: object, weight: float
) -> None:
    assert parse_announcement(packet(weight=written)).weight == weight


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("scamp+tls://localhost:1", "localhost", 1),
        ("beepish+tls://[fe80::1]:30100", "fe80::1", 30100),
        ("beepish+tls://a-b.example:65535/", "a-b.example", 65535),
    ],
)
def test_addresses(packet: Packet, uri: str, host: str, port: int) -> None:
    found = parse_announcement(packet(uri=uri))
    assert (found.host, found.port, found.uri) == (host, port, uri)


@pytest.mark.parametrize(
    "entry", [["x"], ["x", ""], ["x", None], ["x", "", 1], ["x", "", "1"], ["x", "", None]]
)
def test_flags_and_version_of_an_action_may_be_missing(packet: Packet, entry: list[Any]) -> None:
    (action,) = parse_announcement(packet(classes=[["Ns", entry]])).actions
    assert action == Action("main", "Ns", "x", 1, (), ("json",))


@pytest.mark.parametrize("classes", [None, [], [["Ns"]]])
def test_a_service_without_actions(packet: Packet, classes: object) -> None:
    assert parse_announcement(packet(classes=classes)).actions == ()


@pytest.mark.parametrize(
    "empty", [{}, {"vmaj": 4, "acname": [], "acns": [], "acsec": [], "acenv": []}]
)
def test_an_empty_version_4_object_adds_nothing(packet: Packet, empty: dict[str, Any]) -> None:
    found = parse_announcement(packet(envelopes=["json", empty]))
    assert found.envelopes == ("json",)
    assert len(found.actions) == 2


def test_version_4_actions_have_sector_and_envelopes_of_their_own(packet: Packet) -> None:
    extension = v4(acver=[2, [2, "3"]], acflag=["read", [2, ""]])
    found = parse_announcement(packet(envelopes=["extdirect", extension], classes=None))
    both = ("json", "jsonstore")
    assert found.actions == (
        Action("main", "Ns", "a", 2, ("read",), both),
        Action("main", "Ns", "b", 3, (), both),
        Action("web", "Ns", "c", 3, (), both),
    )


def test_both_kinds_of_action_may_stand_in_one_packet(packet: Packet) -> None:
    assert len(parse_announcement(packet(envelopes=["json", v4()])).actions) == 5


def test_incompatible_version_4_actions_are_left_out(packet: Packet) -> None:
    found = parse_announcement(packet(envelopes=[v4(accompat=[1, 2, 1])], classes=None))
    assert [action.name for action in found.actions] == ["a", "c"]


def test_the_version_4_object_form(sign: Sign) -> None:
    body = v4(vmaj=4, ident="x", uri="beepish+tls://h:1", wgt=1, intvl=2500, ts=5, env=["json"])
    found = parse_announcement(sign(json.dumps(body)))
    assert (found.identity, found.sector, found.interval) == ("x", "main", 2.5)
    assert len(found.actions) == 3


def test_actions_that_nobody_could_address_are_left_out(packet: Packet) -> None:
    classes = [["Ns", ["a.b"], ["good"], [""], ["x:y"], ["new\nline"]], ["N:s", ["lost"]]]
    extension = v4(acsec=["a:b", "main", "main"], acname=["a", "b.c", "c"])
    found = parse_announcement(packet(classes=classes, envelopes=["json", extension]))
    assert [action.spelling for action in found.actions] == ["Ns.good", "Ns.c"]


def test_what_flags_say() -> None:
    action = Action("main", "A", "b", 1, ("update", "noauth", "t5", "read", "t90", "custom"))
    assert (action.timeout, action.noauth, action.crud) == (90.0, True, ("read", "update"))
    assert action.has("custom")
    assert not action.has("secret")


@pytest.mark.parametrize("flag", ["t", "t0", "tx", "t-1", "T5", "t9999999", " noauth", "NOAUTH"])
def test_flags_are_taken_literally(flag: str) -> None:
    action = Action("main", "A", "b", 1, (flag,))
    assert action.timeout is None
    assert not action.noauth


# -- framing and signature --------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b"\n", b"\n\n", b"\n\n\n"])
def test_newlines_at_the_end_do_not_matter(packet: Packet, tail: bytes) -> None:
    assert parse_announcement(packet().rstrip() + tail) == parse_announcement(packet())


def test_the_signature_may_be_one_line_with_too_much_padding(packet: Packet) -> None:
    text, pem, signature = packet().split(b"\n\n")
    line = b"".join(signature.split()) + b"==="
    assert parse_announcement(b"\n\n".join((text, pem, line)))


def test_a_changed_text_is_refused_unless_the_signature_is_not_asked_for(packet: Packet) -> None:
    raw = packet().replace(b"fetch", b"steal")
    assert refused(raw) == "signature"
    assert parse_announcement(raw, verify=False).actions[0].name == "steal"


def test_anothers_certificate_is_refused(packet: Packet, other_signer: Any) -> None:
    text, _, signature = packet().split(b"\n\n")
    assert refused(b"\n\n".join((text, other_signer.pem.strip(), signature))) == "signature"


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        (1, b"no certificate", "certificate"),
        (1, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "certificate"),
        (2, b"!!!!", "malformed"),
        (2, b"AAAA", "signature"),
        (0, b"{", "signature"),
    ],
)
def test_broken_parts(packet: Packet, part: int, value: bytes, reason: str) -> None:
    parts = packet().split(b"\n\n")
    parts[part] = value
    assert refused(b"\n\n".join(parts)) == reason


def test_a_key_that_is_not_rsa_is_refused(packet: Packet) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    start = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    parts = packet().split(b"\n\n")
    parts[1] = certificate.public_bytes(serialization.Encoding.PEM).strip()
    assert refused(b"\n\n".join(parts)) == "certificate"


def test_missing_and_extra_parts(packet: Packet) -> None:
    parts = packet().split(b"\n\n")
    assert refused(b"") == "malformed"
    assert refused(b"\n\n".join(parts[:2])) == "malformed"
    assert refused(b"\n\n".join([*parts, b"more"])) == "malformed"


def test_a_record_over_the_limit_is_refused() -> None:
    assert refused(b"x" * (limits.MAX_ANNOUNCEMENT + 1)) == "limit"


# -- shapes that are refused ------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": ""},
        {"identity": 5},
        {"identity": "a\nb"},
        {"sector": None},
        {"sector": "a:b"},
        {"weight": -1},
        {"weight": True},
        {"weight": "heavy"},
        {"weight": None},
        {"interval": "soon"},
        {"interval": 10**400},
        {"uri": None},
        {"uri": "http://h:1"},
        {"uri": "beepish+tls://h"},
        {"uri": "beepish+tls://h:0"},
        {"uri": "beepish+tls://h:65536"},
        {"uri": "beepish+tls://user@h:1"},
        {"uri": "beepish+tls://[1::2::3]:1"},
        {"envelopes": "json"},
        {"envelopes": [{}, "json"]},
        {"envelopes": ["json", None]},
        {"envelopes": ["a,b"]},
        {"classes": {}},
        {"classes": [[]]},
        {"classes": [[1]]},
        {"classes": [["Ns", "x"]]},
        {"classes": [["Ns", []]]},
        {"classes": [["Ns", [1]]]},
        {"classes": [["Ns", ["x", 1]]]},
        {"classes": [["Ns", ["x", "", "one"]]]},
        {"classes": [["Ns", ["x", "", 1.5]]]},
        {"classes": [["Ns", ["x", "", -1]]]},
        {"classes": [["Ns", ["x", "", True]]]},
        {"timestamp": "now"},
        {"timestamp": "5"},
        {"timestamp": None},
        {"timestamp": -5},
        {"timestamp": 1e300},
        {"envelopes": [v4(acns=None)]},
        {"envelopes": [v4(acns=[[2, "Ns"]])]},
        {"envelopes": [v4(acns="Ns")]},
        {"envelopes": [v4(acns=[[3, 1]])]},
        {"envelopes": [v4(acns=[[3, "Ns", 1]])]},
        {"envelopes": [v4(acns=[[-1, "x"], [4, "Ns"]])]},
        {"envelopes": [v4(acns=[[True, "x"], [2, "Ns"]])]},
        {"envelopes": [v4(acenv=[[3, 1]])]},
        {"envelopes": [v4(acver=[[3, "x"]])]},
        {"envelopes": [v4(acflag=[[3, 1]])]},
        {"envelopes": [v4(accompat=[[3, "x"]])]},
    ],
)
def test_wrong_shapes_are_malformed(packet: Packet, changes: dict[str, Any]) -> None:
    assert refused(packet(**changes)) == "malformed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[3]",
        "3",
        '"x"',
        "[" * 5000,
        "[" * 900 + "]" * 900,
        '{"vmaj":4}',
        "[3,NaN]",
        '["\\ud800"]',
        b"[\xff]",
        b"\xef\xbb\xbf[]",
    ],
)
def test_what_is_no_announcement_is_malformed(sign: Sign, text: str | bytes) -> None:
    raw = sign(text) if text else sign(" ")
    assert refused(raw) == "malformed"


@pytest.mark.parametrize(
    "text", ["[4,1,1,1,1,1,1,1,1]", '["3",1,1,1,1,1,1,1,1]', '{"vmaj":5}', "{}", '{"vmaj":null}']
)
def test_other_versions_are_told_apart(sign: Sign, text: str) -> None:
    assert refused(sign(text)) == "version"


@pytest.mark.parametrize(
    "extension",
    ['{"a":1,"a":2}', '{"a":1,"\\u0061":2}', '{"a":1,"a" :2,"x\\\\":1}', '{"x":{"a":1,"a":1}}'],
)
def test_duplicate_keys_are_malformed(packet: Packet, sign: Sign, extension: str) -> None:
    text = packet(envelopes=["json", {}]).split(b"\n\n")[0].decode()
    assert parse_announcement(sign(text))
    assert refused(sign(text.replace("{}", extension))) == "malformed"


def test_colons_and_escapes_in_strings_are_no_duplicate_keys(packet: Packet) -> None:
    extension = {"note": ":x", 'quo"te\\': '":'}
    assert parse_announcement(packet(envelopes=["json", extension]))


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "x" * (limits.MAX_NAME + 1)},
        {"classes": [["Ns", ["x" * (limits.MAX_NAME + 1)]]]},
        {"envelopes": [v4(acname=[[limits.MAX_ANNOUNCED_ACTIONS + 1, "x"]])]},
        {"envelopes": [v4(acname=[[10**18, "x"]])]},
        {"classes": [["Ns", *([["x"]] * (limits.MAX_ANNOUNCED_ACTIONS + 1))]]},
    ],
)
def test_floods_run_into_a_limit(packet: Packet, changes: dict[str, Any]) -> None:
    assert refused(packet(**changes)) == "limit"


# -- fuzz -------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_packets_raise_nothing_but_our_error(packet: Packet, data: st.DataObject) -> None:
    raw = bytearray(packet(envelopes=["json", v4(acver=[[3, 1]])]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        size = data.draw(st.integers(0, 6))
        raw[at : at + size] = data.draw(st.binary(max_size=6))
        if not raw:
            break
    for verify in (True, False):
        with contextlib.suppress(AnnouncementError):
            parse_announcement(bytes(raw), verify=verify)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_json_in_any_place_raises_nothing_but_our_error(
    packet: Packet, data: st.DataObject
) -> None:
    text, pem, signature = packet(envelopes=["json", v4()]).split(b"\n\n")
    body = json.loads(text)
    place = data.draw(st.sampled_from(["element", "class", "column", "whole"]))
    value = data.draw(_JSON)
    if place == "element":
        body[data.draw(st.integers(0, 8))] = value
    elif place == "class":
        body[7][0][data.draw(st.integers(0, 2))] = value
    elif place == "column":
        body[6][1][data.draw(st.sampled_from(["acname", "acns", "acver", "accompat"]))] = value
    else:
        body = value
    raw = b"\n\n".join((json.dumps(body).encode(), pem, signature))
    try:
        found = parse_announcement(raw, verify=False)
    except AnnouncementError:
        return
    assert all(isinstance(action, Action) for action in found.actions)


def test_no_byte_of_the_signed_text_may_change(packet: Packet) -> None:
    raw = packet()
    size = raw.index(b"\n\n")
    for at in range(0, size, 7):
        changed = bytearray(raw)
        changed[at] ^= 1
        assert refused(bytes(changed)) in {"signature", "malformed"}


def test_signature_lines_have_76_columns_and_hold_base64(announce: Packet) -> None:
    raw = announce("shop:x")
    lines = raw.split(b"\n\n")[2].split()
    assert {len(line) for line in lines[:-1]} == {76}
    assert len(base64.b64decode(b"".join(lines))) == 256


@pytest.mark.parametrize("native", [True, False])
def test_reading_many_actions_lets_others_run(sign: Callable[..., bytes], native: bool) -> None:
    # One kilobyte may stand for 100,000 actions, and everybody can send it.
    count = 10_000
    columns = {"acname": [[count, "x"]], "acns": [[count, "N"]]}
    columns |= {"acsec": [[count, "main"]], "acenv": [[count, "json"]]}
    classes = None if native else [["N", *[["x", ""]] * count]]
    envelopes = ["json", columns] if native else ["json"]
    uri = "beepish+tls://10.0.0.1:30100"
    text = json.dumps([3, "a", "main", 1, 5000, uri, envelopes, classes, 1.0])
    pauses = []
    service = parse_announcement(sign(text), pause=lambda: pauses.append(1))
    assert len(pauses) > 30
    pauses.clear()
    Registry().prepare([service], [], lambda: pauses.append(1))
    assert len(pauses) > 30
    assert count_actions(service) == count


@pytest.mark.parametrize("identity", ["a\x9b31m", "a\u2028b", "x" * 256])
def test_what_cannot_be_an_identity_is_not_shown_as_one(identity: str) -> None:
    raw = b'[3,"%b","main",1' % identity.encode()
    assert identity_hint(raw) is None


def test_an_identity_is_looked_for_where_it_stands() -> None:
    assert identity_hint(b' [ 3 , "a"') == "a"
    assert identity_hint(b'{"vmaj": 4, "ident": "b"') == "b"
    assert identity_hint(b" " * 1000 + b'[3,"a"') is None
