"""What can be announced, and how a request finds its action."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from scamp.errors import ConfigError, ServiceError
from scamp.server import Service
from scamp.server.actions import ActionTable, make_action
from scamp.server.request import Request
from scamp.testing import make_identity
from scamp.wire import RequestHeader


async def handler(request: Request) -> object:
    return None


def table(*names: str, envelopes: Iterable[str] = ("json",)) -> ActionTable:
    made = ActionTable()
    for name in names:
        spelling, _, version = name.partition("~")
        action = make_action("main", spelling, int(version or 1), "read", envelopes)
        made.add(action, handler, 75.0)
    return made


def test_an_action_is_split_at_its_last_dot() -> None:
    action = make_action("main", "Product.Sku.fetch", 2, "read, noauth,t30,", ("json",))
    assert (action.namespace, action.name, action.version) == ("Product.Sku", "fetch", 2)
    assert action.flags == ("read", "noauth", "t30")
    assert (action.timeout, action.noauth, action.crud) == (30.0, True, ("read",))


@pytest.mark.parametrize(
    "spelling",
    ["", "fetch", ".fetch", "Product.", "a..b", "a b.c", "a:b.c", "a.b\n", "ä.b", "a/b.c"],
)
def test_a_name_that_nobody_could_address_is_refused(spelling: str) -> None:
    with pytest.raises(ConfigError):
        make_action("main", spelling, 1, "", ("json",))


def test_a_name_may_be_255_characters_long() -> None:
    make_action("main", "a." + "b" * 253, 1, "", ("json",))
    with pytest.raises(ConfigError):
        make_action("main", "a." + "b" * 254, 1, "", ("json",))


@pytest.mark.parametrize("version", [0, -1, True, 2**31])
def test_versions_count_from_1(version: int) -> None:
    with pytest.raises(ConfigError, match="version"):
        make_action("main", "a.b", version, "", ("json",))


@pytest.mark.parametrize(
    ("sector", "flags", "envelopes"),
    [
        ("ma:in", "", ("json",)),
        ("", "", ("json",)),
        ("main", ("a,b",), ("json",)),
        ("main", "", ("js,on",)),
        ("main", "", ("",)),
        ("main", "", ()),
    ],
)
def test_words_that_would_break_an_announcement_are_refused(
    sector: str, flags: Iterable[str], envelopes: Iterable[str]
) -> None:
    with pytest.raises(ConfigError):
        make_action(sector, "a.b", 1, flags, envelopes)


def test_envelopes_as_text_are_words_and_no_letters(service: Service) -> None:
    assert make_action("main", "a.b", 1, "", "json, jsonstore").envelopes == ("json", "jsonstore")
    identity = make_identity()
    made = Service("shop", key=identity.key, certificate=identity.certificate, envelopes="json")
    assert made.envelopes == ("json",)


@pytest.mark.parametrize("version", ["1", 1.5, None])
def test_a_version_that_is_no_whole_number_is_refused(version: Any) -> None:
    with pytest.raises(ConfigError, match="not a whole number"):
        make_action("main", "a.b", version, "", ("json",))


async def none() -> None: ...


async def three(request: Request, body: int, more: int) -> None: ...


async def named(request: Request, *, more: int) -> None: ...


@pytest.mark.parametrize("handler", [none, three, named, None, 5, "name"])
def test_what_could_not_be_called_is_refused_at_once(service: Service, handler: Any) -> None:
    with pytest.raises(ConfigError, match=r"takes other things|no function"):
        service.action("a.b")(handler)
    assert len(service.actions) == 0


def test_a_name_and_version_is_taken_once_whatever_the_case() -> None:
    made = table("a.b", "a.b~2")
    with pytest.raises(ConfigError, match="twice"):
        made.add(make_action("main", "A.B", 1, "", ("json",)), handler, 75.0)
    assert len(made) == 2


@pytest.mark.parametrize("asked", ["Product.Sku.fetch", "product.sku.fetch", "PRODUCT.SKU.FETCH"])
def test_actions_are_found_without_case(asked: str) -> None:
    found = table("Product.Sku.fetch").find(RequestHeader(asked, 1))
    assert found.action.spelling == "Product.Sku.fetch"


@pytest.mark.parametrize(
    "header", [RequestHeader("a.c", 1), RequestHeader("a.b", 1, version=2), RequestHeader("", 1)]
)
def test_what_is_not_there_is_named(header: RequestHeader) -> None:
    with pytest.raises(ServiceError) as caught:
        table("a.b").find(header)
    assert caught.value.code == "not_found"
    assert repr(header.action) in caught.value.message
    assert f"version {header.version}" in caught.value.message


def test_an_endless_name_is_not_repeated_whole() -> None:
    with pytest.raises(ServiceError) as caught:
        table("a.b").find(RequestHeader("x" * 100_000, 1))
    assert len(caught.value.message) < 400


def test_an_envelope_must_be_offered() -> None:
    made = table("a.b", envelopes=("json", "jsonstore"))
    assert made.find(RequestHeader("a.b", 1, envelope="jsonstore"))
    with pytest.raises(ServiceError, match="extdirect") as caught:
        made.find(RequestHeader("a.b", 1, envelope="extdirect"))
    assert caught.value.code == "bad_request"
    assert "json, jsonstore" in caught.value.message


def test_the_default_timeout_holds_without_a_flag() -> None:
    made = ActionTable()
    made.add(make_action("main", "a.b", 1, "t30", ("json",)), handler, 75.0)
    made.add(make_action("main", "a.c", 1, "", ("json",)), handler, 75.0)
    assert made.find(RequestHeader("a.b", 1)).timeout == 30.0
    assert made.find(RequestHeader("a.c", 1)).timeout == 75.0
