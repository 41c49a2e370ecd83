"""Handlers with types: what fits reaches them, what does not is told by field."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from scamp.errors import ConfigError
from scamp.limits import KIB, MAX_BODY_ERRORS, MAX_BODY_KEY, MAX_TYPED_BODY, MIB
from scamp.server import Request, Service, typed
from scamp.testing import TestPeer
from scamp.wire import ReplyHeader, RequestHeader

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found] # not there when it runs

Connect = Callable[[Service], Awaitable[TestPeer]]
CALL = RequestHeader("a.b", 7)


@dataclass
class Order:
    sku: str
    count: int = 1


class Place(NamedTuple):
    x: int
    y: int


class Query(TypedDict):
    text: str


class Model(BaseModel):
    number: int = Field(alias="the-number", ge=0)


async def ask(peer: TestPeer, body: bytes) -> tuple[ReplyHeader, Any]:
    reply = await peer.call(CALL, body)
    assert isinstance(reply.header, ReplyHeader)
    return reply.header, orjson.loads(await reply.read_all(MIB))


async def order(request: Request, body: Order) -> object:
    assert type(body) is Order
    return body


async def query(request: Request, body: Query) -> object:
    return body["text"]


async def model(request: Request, body: Model) -> Model:
    return body


async def plain(request: Request, body: dict[str, list[int]]) -> object:
    return body


async def optional(request: Request, body: Order | None) -> object:
    return body


@pytest.mark.parametrize(
    ("handler", "body", "value"),
    [
        (order, b'{"sku":"x"}', {"sku": "x", "count": 1}),
        (order, b'{"sku":"x","count":3,"more":0}', {"sku": "x", "count": 3}),
        (query, b'{"text":"x"}', "x"),
        (model, b'{"the-number":5}', {"the-number": 5}),
        (plain, b'{"a":[1]}', {"a": [1]}),
        (plain, b" \n", {}),
        (optional, b"null", None),
        (partial(order), b'{"sku":"x"}', {"sku": "x", "count": 1}),
    ],
)
async def test_a_body_that_fits_reaches_the_handler(
    service: Service, connect: Connect, handler: Any, body: bytes, value: object
) -> None:
    service.action("a.b")(handler)
    header, got = await ask(await connect(service), body)
    assert (header.failed, got) == (False, value)


@pytest.mark.parametrize(
    ("handler", "body", "field"),
    [
        (order, b"{}", "sku"),
        (order, b'{"sku":"x","count":"many"}', "count"),
        (order, b"[]", ""),
        (query, b"{}", "text"),
        (model, b'{"the-number":-1}', "the-number"),
        (plain, b'{"a":[1,"secret"]}', "a.1"),
    ],
)
async def test_what_does_not_fit_is_told_by_field_and_without_values(
    service: Service, connect: Connect, handler: Any, body: bytes, field: str
) -> None:
    service.action("a.b")(handler)
    header, _ = await ask(await connect(service), body)
    assert header.error_code == "bad_request"
    assert header.error_data is not None
    (error,) = header.error_data["errors"]
    assert error["field"] == field
    assert error["reason"] in header.error
    assert "secret" not in header.error + str(header.error_data)
    assert "Traceback" not in header.error
    assert "pydantic" not in header.error


async def test_a_body_that_is_not_json_is_said_to_be_none(
    service: Service, connect: Connect
) -> None:
    service.action("a.b")(order)
    header, _ = await ask(await connect(service), b"{")
    assert header.error_code == "bad_request"
    assert "not JSON" in header.error


async def test_the_reasons_are_not_as_many_as_the_errors(
    service: Service, connect: Connect
) -> None:
    service.action("a.b")(plain)
    body = orjson.dumps({"k" * MAX_BODY_KEY: ["x"] * 50_000})
    header, _ = await ask(await connect(service), body)
    assert header.error_data is not None
    assert len(header.error_data["errors"]) == MAX_BODY_ERRORS
    assert len(orjson.dumps(header.error_data)) < 16 * KIB
    assert "and 49999 more" in header.error


async def test_a_key_that_every_reason_would_repeat_is_refused(
    service: Service, connect: Connect
) -> None:
    service.action("a.b")(plain)
    client = await connect(service)
    key = "k" * (MAX_BODY_KEY + 1)
    for body in ({key: ["x"]}, {"a": [{key: 1}]}):
        header, _ = await ask(client, orjson.dumps(body))
        assert header.error_code == "bad_request"
        assert "a key of the body exceeds" in header.error


TEXT = st.text(st.sampled_from('":\\ a\n\u00fc'), max_size=12)


@given(
    value=st.recursive(
        TEXT | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
    ),
    colon=st.sampled_from([":", ": ", " :", " \n: "]),
    ascii_only=st.booleans(),
)
@example(value={":aaaaa": 1}, colon=":", ascii_only=True)
@example(value={'":":":': 1}, colon=":", ascii_only=True)
@example(value={"aaaaaa": 1}, colon=" :", ascii_only=True)
def test_a_look_at_the_bytes_misses_no_long_key(
    value: object, colon: str, ascii_only: bool
) -> None:
    body = json.dumps(value, separators=(",", colon), ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed, "MAX_BODY_KEY", 5)
        assert typed._may_have_long_key(body) or not typed._has_long_key(body)


def test_usual_bodies_are_not_searched_for_long_keys() -> None:
    body = orjson.dumps([{"sku": "LAMP-1", "note": "x" * 900}] * 100)
    assert not typed._may_have_long_key(body)


@pytest.mark.parametrize(("limit", "code"), [(MAX_TYPED_BODY, "too_large"), (MIB, "")])
async def test_a_body_is_as_large_as_the_action_says(
    service: Service, connect: Connect, limit: int, code: str
) -> None:
    service.action("a.b", max_body=limit)(order)
    header, _ = await ask(await connect(service), b'{"sku":"%b"}' % (b"x" * MAX_TYPED_BODY))
    assert header.error_code == code


async def test_a_typed_handler_may_stream(service: Service, connect: Connect) -> None:
    @service.action("a.b")
    async def count(request: Request, body: Order) -> AsyncIterator[bytes]:
        for _ in range(body.count):
            yield b"1"

    _, got = await ask(await connect(service), b'{"sku":"x","count":5}')
    assert got == 11111


async def test_a_method_and_types_of_its_own_function_are_understood(
    service: Service, connect: Connect
) -> None:
    @dataclass
    class Local:
        number: int

    class Shop:
        async def double(self, request: Request, body: Local) -> int:
            return 2 * body.number

    service.action("a.b")(Shop().double)
    assert (await ask(await connect(service), b'{"number":4}'))[1] == 8


async def test_a_second_parameter_with_a_default_is_the_handlers_own(
    service: Service, connect: Connect
) -> None:
    async def own(request: Request, factor: int = 3) -> object:
        return factor * (await request.json())["number"]

    service.action("a.b")(own)
    assert (await ask(await connect(service), b'{"number":4}'))[1] == 12


async def test_replies_may_hold_what_only_types_can_tell(
    service: Service, connect: Connect
) -> None:
    @service.action("a.b")
    async def rich(request: Request) -> object:
        return {
            "model": Model.model_validate({"the-number": 1}),
            "set": {2},
            "price": Decimal("3.50"),
            "place": Place(1, 2),
            "counts": {17: 3},
        }

    assert (await ask(await connect(service), b"{}"))[1] == {
        "model": {"the-number": 1},
        "set": [2],
        "price": "3.50",
        "place": [1, 2],
        "counts": {"17": 3},
    }


def test_types_that_help_nobody_are_refused_at_once(service: Service) -> None:
    async def untold(request, body) -> None: ...  # type: ignore[no-untyped-def]

    async def missing(request: Request, body: Missing) -> None: ...

    async def unfit(request: Request, body: Callable[[], TestPeer.Nothing]) -> None: ...  # type: ignore[name-defined]

    async def foreign(request: Request, body: TestPeer) -> None: ...

    for handler, told in (
        (untold, "annotate"),
        (missing, "Missing cannot be found"),
        (unfit, "cannot be found"),
        (foreign, "parameter body"),
    ):
        with pytest.raises(ConfigError, match=told):
            service.action("a.b")(handler)
    assert len(service.actions) == 0


async def test_a_type_that_cannot_be_described_in_json_keeps_no_service_from_starting(
    service: Service, connect: Connect
) -> None:
    class Odd(BaseModel):
        number: int = Field(description="\ud800")

    @service.action("a.b")
    async def odd(request: Request, body: Odd) -> int:
        return body.number

    assert (await ask(await connect(service), b'{"number":4}'))[1] == 4
