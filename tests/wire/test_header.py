"""HEADER bodies: what is understood, what is refused, and what is never sent."""

from __future__ import annotations

import orjson
import pytest

from scamp.errors import LocalProtocolError, RemoteProtocolError
from scamp.limits import (
    MAX_EXTRA_HEADER,
    MAX_PACKET_BODY,
    MAX_REQUEST_ID,
    MAX_REQUEST_ID_TEXT,
)
from scamp.wire import (
    EncodedHeader,
    EventHeader,
    Header,
    HeaderPacket,
    NotifyHeader,
    OtherHeader,
    ReplyHeader,
    RequestHeader,
    Role,
    SubscribeDoneHeader,
    SubscribeHeader,
    WireConnection,
    encode_header,
    header_type,
    parse_header,
)
from scamp.wire.header import REPLY_FIELDS, REQUEST_FIELDS, TYPES

HEADERS: list[tuple[Header, dict[str, object]]] = [
    (
        RequestHeader("Product.Sku.fetch", 7),
        {
            "type": "request",
            "request_id": 7,
            "action": "Product.Sku.fetch",
            "version": 1,
            "envelope": "json",
        },
    ),
    (
        RequestHeader("a.b", 1, 3, "jsonstore", "T", "I", 42, {"traceparent": "00-1"}),
        {
            "type": "request",
            "request_id": 1,
            "action": "a.b",
            "version": 3,
            "envelope": "jsonstore",
            "ticket": "T",
            "identifying_token": "I",
            "client_id": 42,
            "traceparent": "00-1",
        },
    ),
    (ReplyHeader(7), {"type": "reply", "request_id": 7}),
    (ReplyHeader("seven"), {"type": "reply", "request_id": "seven"}),
    (
        ReplyHeader(7, "sentence", "word", {"dispatch_failure": True}),
        {
            "type": "reply",
            "request_id": 7,
            "error": "sentence",
            "error_code": "word",
            "error_data": {"dispatch_failure": True},
        },
    ),
]


@pytest.mark.parametrize(("header", "fields"), HEADERS)
def test_header_is_encoded_as_in_the_table(header: Header, fields: dict[str, object]) -> None:
    assert orjson.loads(bytes(encode_header(header))) == fields


@pytest.mark.parametrize(("header", "fields"), HEADERS)
def test_header_is_parsed_as_in_the_table(header: Header, fields: dict[str, object]) -> None:
    assert parse_header(orjson.dumps(fields), "request") == header


def test_null_and_missing_mean_the_same() -> None:
    nulls = b"""{"type":null,"action":"a.b","request_id":1,"version":null,"envelope":null,
        "ticket":null,"identifying_token":null,"client_id":null}"""
    assert parse_header(nulls, "request") == RequestHeader("a.b", 1)
    assert parse_header(b'{"action":"a.b","request_id":1}', "request") == RequestHeader("a.b", 1)


def test_a_header_without_type_is_what_the_role_expects() -> None:
    assert parse_header(b'{"request_id":1}', "reply") == ReplyHeader(1)
    assert isinstance(parse_header(b'{"request_id":1}', "request"), RequestHeader)


def test_a_newline_may_end_the_body() -> None:
    assert parse_header(b'{"type":"reply","request_id":1}\n', "request") == ReplyHeader(1)


def test_numbers_may_be_strings_of_digits() -> None:
    header = parse_header(
        b'{"action":"a.b","request_id":1,"client_id":"42","version":"3"}', "request"
    )
    assert isinstance(header, RequestHeader)
    assert (header.client_id, header.version) == (42, 3)


@pytest.mark.parametrize("nothing", ["null", "false", "0", '""'])
def test_what_says_nothing_is_no_error_code(nothing: str) -> None:
    header = parse_header(b'{"request_id":1,"error_code":%s}' % nothing.encode(), "reply")
    assert isinstance(header, ReplyHeader)
    assert not header.failed


def test_an_error_code_may_be_a_number() -> None:
    header = parse_header(b'{"request_id":1,"error_code":404}', "reply")
    assert isinstance(header, ReplyHeader)
    assert header.error_code == "404"


@pytest.mark.parametrize(
    ("header", "failed"),
    [
        (ReplyHeader(1), False),
        (ReplyHeader(1, error="e"), True),
        (ReplyHeader(1, error_code="c"), True),
    ],
)
def test_either_error_field_means_failure(header: ReplyHeader, failed: bool) -> None:
    assert header.failed is failed


@pytest.mark.parametrize("data", [None, {}, {"dispatch_failure": False}])
def test_dispatch_failure_must_be_said(data: dict[str, object] | None) -> None:
    assert not ReplyHeader(1, error_data=data).dispatch_failure


@pytest.mark.parametrize("kind", ["request", "reply", "subscribe"])
def test_unknown_fields_of_a_large_header_are_dropped(kind: str) -> None:
    size = MAX_EXTRA_HEADER
    body = b'{"type":"%b","request_id":7,"x":[%b]}' % (kind.encode(), b"[]," * size + b"[]")
    header = parse_header(body, "request")
    assert isinstance(header, RequestHeader | ReplyHeader | SubscribeHeader)
    assert header.request_id == 7
    assert "x" not in header.extra


def test_a_request_id_that_could_not_be_sent_back_is_refused() -> None:
    longest = "9" * MAX_REQUEST_ID_TEXT
    header = parse_header(b'{"request_id":"%b"}' % longest.encode(), "request")
    assert isinstance(header, RequestHeader)
    assert header.request_id == longest
    header = parse_header(b'{"action":"a.b","request_id":"9%b"}' % longest.encode(), "request")
    assert isinstance(header, OtherHeader)
    assert "request_id" in header.problem
    assert header.request_id is None


def test_a_ticket_is_not_shown_whatever_the_type() -> None:
    for kind in ("request", "notify"):
        body = b'{"type":"%b","action":"a.b","ticket":"secret"}' % kind.encode()
        assert "secret" not in repr(parse_header(body, "request"))


@pytest.mark.parametrize(
    "header",
    [
        SubscribeHeader(4, {"x": 1}),
        SubscribeDoneHeader(4),
        EventHeader(),
        NotifyHeader({"x": 1}),
        OtherHeader("new", 4, {"x": 1}),
        OtherHeader("new"),
    ],
)
def test_the_other_types_are_read_as_they_are_written(header: Header) -> None:
    body = bytes(encode_header(header))
    assert parse_header(body, "request") == header
    assert orjson.loads(body)["type"] == header_type(header)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"request"',
        b'{"a":"\xff"}',
        b"[" * 5000,
    ],
)
def test_a_malformed_header_is_the_peers_error(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_header(body, "request")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"type":1,"request_id":7}', "type"),
        (b'{"type":["request"],"request_id":7}', "type"),
        (b'{"request_id":1.5}', "request_id"),
        (b'{"request_id":true}', "request_id"),
        (b'{"type":"subscribe","request_id":[1]}', "request_id"),
        (b'{"type":"new","request_id":{}}', "request_id"),
        (b'{"request_id":7,"action":{}}', "action"),
        (b'{"request_id":7,"version":"one"}', "version"),
        (b'{"request_id":7,"version":1.5}', "version"),
        (b'{"request_id":7,"client_id":"-1"}', "client_id"),
        (b'{"request_id":7,"client_id":true}', "client_id"),
        (b'{"request_id":7,"envelope":["json"]}', "envelope"),
        (b'{"request_id":7,"ticket":{}}', "ticket"),
    ],
)
def test_a_field_that_makes_no_sense_costs_its_message_alone(body: bytes, named: str) -> None:
    header = parse_header(body, "request")
    assert isinstance(header, OtherHeader)
    assert f"'{named}'" in header.problem
    assert header.request_id == (None if named == "request_id" else 7)
    with pytest.raises(LocalProtocolError):
        encode_header(header)


@pytest.mark.parametrize("request_id", [b"true", b"[]", b"{}", b"1.5"])
def test_a_reply_to_nobody_knows_whom_is_the_peers_error(request_id: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="request_id"):
        parse_header(b'{"type":"reply","request_id":%b}' % request_id, "reply")


def test_a_whole_number_is_one_in_any_form() -> None:
    body = b'{"action":"a.b","request_id":5.0,"version":2.0,"client_id":1e2}'
    assert parse_header(body, "request") == RequestHeader("a.b", 5, 2, client_id=100)


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b'{"request_id":7.0}', ReplyHeader(7)),
        (b'{"request_id":7,"error":{"a":1}}', ReplyHeader(7, '{"a":1}')),
        (b'{"request_id":7,"error":[],"error_code":[1]}', ReplyHeader(7, "[]", "[1]")),
        (b'{"request_id":7,"error":true}', ReplyHeader(7, "True")),
        (b'{"request_id":7,"error":"e","error_data":[1]}', ReplyHeader(7, "e")),
    ],
)
def test_whatever_a_reply_says_it_is_one_reply(body: bytes, header: ReplyHeader) -> None:
    assert parse_header(body, "reply") == header


@pytest.mark.parametrize(
    "header",
    [
        RequestHeader("a.b", 0),
        RequestHeader("a.b", -1),
        RequestHeader("a.b", MAX_REQUEST_ID + 1),
        RequestHeader("a.b", None),
        RequestHeader("a.b", "1"),
        RequestHeader("a.b", True),
        RequestHeader("", 1),
        RequestHeader(None, 1),  # type: ignore[arg-type]
        RequestHeader("a.b", 1, version=0),
        RequestHeader("a.b", 1, version=MAX_REQUEST_ID + 1),
        RequestHeader("a.b", 1, version="1"),  # type: ignore[arg-type]
        RequestHeader("a.b", 1, envelope=""),
        RequestHeader("a.b", 1, envelope=b"json"),  # type: ignore[arg-type]
        RequestHeader("a.b", 1, ticket=7),  # type: ignore[arg-type]
        RequestHeader("a.b", 1, identifying_token={}),  # type: ignore[arg-type]
        RequestHeader("a.b", 1, client_id=-1),
        RequestHeader("a.b", 1, client_id=2**63),
        RequestHeader("a.b", 1, client_id="7"),  # type: ignore[arg-type]
        RequestHeader("a.b", 1, client_id=True),
        RequestHeader("a.b", 1, extra={1: "x"}),  # type: ignore[dict-item]
        RequestHeader("a.b", 1, extra={"client_id": None}),
        *(RequestHeader("a.b", 1, extra={name: "x"}) for name in REQUEST_FIELDS),
        *(ReplyHeader(1, extra={name: "x"}) for name in REPLY_FIELDS),
        SubscribeHeader(1, {"type": "request"}),
        SubscribeHeader(1, {"request_id": 2}),
        EventHeader({"type": "request"}),
        NotifyHeader({"request_id": 2}),
        ReplyHeader(1.5),  # type: ignore[arg-type]
        ReplyHeader(True),
        ReplyHeader("x" * (MAX_REQUEST_ID_TEXT + 1)),
        SubscribeDoneHeader("x" * (MAX_REQUEST_ID_TEXT + 1)),
        ReplyHeader(1, error=404),  # type: ignore[arg-type]
        ReplyHeader(1, error_code=404),  # type: ignore[arg-type]
        ReplyHeader(1, error_data={"dispatch_failure": True}),
        OtherHeader(""),
        OtherHeader(5),  # type: ignore[arg-type]
        *(OtherHeader(name) for name in TYPES.values()),
        RequestHeader("a.b", 1, ticket="\ud800"),
        RequestHeader("a.b", 1, ticket="x" * MAX_PACKET_BODY),
        ReplyHeader(1, error="x" * MAX_PACKET_BODY),
        ReplyHeader(1, error_data={"x": object()}),
    ],
)
def test_what_must_not_be_sent_is_refused(header: Header) -> None:
    for gate in (encode_header, EncodedHeader, lambda one: HeaderPacket(0, one)):
        with pytest.raises(LocalProtocolError):
            gate(header)
    for role in Role:
        wire = WireConnection(role)
        with pytest.raises(LocalProtocolError):
            wire.open_message(header)
        assert not wire.has_data_to_send
        assert wire.open_outgoing == 0
        assert wire.open_message(RequestHeader("a.b", 1)) == 0, "it took no number"


def test_only_a_header_can_be_encoded() -> None:
    for thing in (b'{"type":"request"}', {"type": "request"}, None):
        with pytest.raises(LocalProtocolError):
            EncodedHeader(thing)  # type: ignore[arg-type]


def test_a_ticket_is_not_shown_by_repr() -> None:
    header = RequestHeader("a.b", 1, ticket="secret", identifying_token="hidden")  # noqa: S106
    assert "secret" not in repr(header)
    assert "hidden" not in repr(header)
