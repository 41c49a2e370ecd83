"""The body of a call, out of path, query, body and defaults."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.problems import Problem
from gateway.routes.compose import compose, members_of, passes_through
from gateway.routes.load import parse_routes
from gateway.routes.model import Route


def route(more: str = "", *, method: str = "POST", path: str = "/x") -> Route:
    (made,) = parse_routes(
        f'[[routes]]\nmethod="{method}"\npath="{path}"\naction="A.b"\n{more}'
    ).routes
    return made


def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        call()
    return caught.value.kind.code, caught.value.detail


def outermost(text: bytes) -> list[tuple[str, Any]]:
    """The members of an object as they stand, one that is there twice included."""
    found: list[tuple[str, Any]] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found[:] = pairs
        return dict(pairs)

    json.loads(text, object_pairs_hook=remember)
    return found


# -- from the URL -----------------------------------------------------------------------


def test_without_a_declaration_the_query_is_taken_as_it_is() -> None:
    got = members_of(route(method="GET", path="/{id:int}"), (7,), "a=1&b=x&b=y&c")
    assert got == {"a": "1", "b": ["x", "y"], "c": "", "id": 7}


def test_declared_parameters_are_typed_and_renamed() -> None:
    one = route(
        'query = { n = "int", w = "number", f = "bool", t = { many = true, member = "tags" } }'
    )
    assert members_of(one, (), "n=7&w=1.5&f=true&t=a") == {
        "n": 7,
        "w": 1.5,
        "f": True,
        "tags": ["a"],
    }
    assert members_of(one, (), "f=false&t=a&t=b") == {"f": False, "tags": ["a", "b"]}
    assert members_of(one, (), "") == {}


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("n=x", "'n' is a whole number."),
        ("n=1.5", "'n' is a whole number."),
        ("w=x", "'w' is a number."),
        ("f=1", "'f' is true or false."),
        ("n=1&n=2", "'n' is given more than once."),
        ("m=1", "There is no query parameter 'm'; there are n, w, f, r."),
        ("n=1", "The query parameter 'r' is missing."),
        ("r=%zz", "The query has a % that is not an escape."),
    ],
)
def test_what_is_wrong_with_a_query_is_said(query: str, told: str) -> None:
    one = route('query = { n = "int", w = "number", f = "bool", r = { required = true } }')
    assert refusal(lambda: members_of(one, (), query)) == ("bad_query", told)


def test_the_path_cannot_be_overruled_by_the_query() -> None:
    one = route(method="GET", path="/{id}")
    assert refusal(lambda: members_of(one, ("7",), "id=8"))[0] == "bad_query"


@pytest.mark.parametrize("other", ["ID", "iD"])
def test_nor_by_one_that_differs_in_case_alone(other: str) -> None:
    """Go and C# take it for the same member, and the last of two."""
    one = route(method="GET", path="/{id}")
    code, told = refusal(lambda: members_of(one, ("7",), f"{other}=8"))
    assert (code, told) == ("bad_query", f"{other} is given by the path; leave it out.")
    body = b'{"id":7,"%b":8}' % other.encode()
    code, told = refusal(lambda: compose(route("query = { id = 'int' }"), {"id": 7}, body))
    assert (code, told) == (
        "bad_body",
        f"The URL says what the body's {other!r} is; leave it out.",
    )


def test_what_folds_to_a_member_is_one_too() -> None:
    """U+212A is a K to Go."""
    code, _ = refusal(
        lambda: compose(route(path="/{kind}"), {"kind": "a"}, '{"\u212aind":1}'.encode())
    )
    assert code == "bad_body"
    assert compose(route(path="/{id}"), {"id": "7"}, b'{"idea":1}') == b'{"idea":1,"id":"7"}'


def test_where_the_query_is_not_declared_it_is_not_looked_at() -> None:
    assert members_of(route(path="/{id}"), ("7",), "id=8&%zz") == {"id": "7"}


# -- with a body ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "path", "through"),
    [
        ("", "/x", True),
        ('consumes = "image/png"', "/x", True),
        ('body = "a"', "/x", False),
        ("defaults = { a = 1 }", "/x", False),
        ('query = { a = "int" }', "/x", False),
        ('query = "*"', "/x", False),
        ("", "/{a}", False),
    ],
)
def test_a_body_goes_through_untouched_when_nothing_is_added(
    more: str, path: str, through: bool
) -> None:
    assert passes_through(route(more, path=path)) is through


def test_members_are_added_and_what_the_body_says_keeps_its_spelling() -> None:
    one = route("defaults = { colour = 'red', size = 1 }", path="/{id}")
    body = b' {"price": 1.10, "big": 123456789012345678901234567890, "size": 2}\n'
    got = compose(one, {"id": "7"}, body)
    assert b"1.10" in got
    assert b"123456789012345678901234567890" in got
    assert json.loads(got) == {
        "price": 1.1,
        "big": 123456789012345678901234567890,
        "size": 2,
        "colour": "red",
        "id": "7",
    }


def test_a_member_that_is_the_body_comes_from_nowhere_else() -> None:
    one = route('body = "price"\nquery = "*"\ndefaults = { price = 1 }')
    members = members_of(one, (), "price=3")
    assert refusal(lambda: compose(one, members, b"2"))[0] == "bad_query"
    assert outermost(compose(one, {}, b"2")) == [("price", 2)]
    assert outermost(compose(one, {}, b"")) == [("price", 1)]


@pytest.mark.parametrize("body", [b"", b"{}", b" { } "])
def test_an_empty_body_is_an_empty_object(body: bytes) -> None:
    one = route("defaults = { colour = 'red' }", path="/{id}")
    assert json.loads(compose(one, {"id": "7"}, body)) == {"colour": "red", "id": "7"}


def test_a_body_can_be_one_member() -> None:
    one = route('body = "price"\ndefaults = { currency = "EUR" }', path="/{id}")
    assert json.loads(compose(one, {"id": "7"}, b" [1.10] ")) == {
        "price": [1.1],
        "currency": "EUR",
        "id": "7",
    }
    assert json.loads(compose(one, {"id": "7"}, b"")) == {"currency": "EUR", "id": "7"}
    assert compose(route('body = "a"'), {}, b"1.10") == b'{"a":1.10}'


@pytest.mark.parametrize(
    "body",
    [
        b"[1]", b"7", b"null", b'"x"', b"{", b"{}}", b'{"a":1}{', b'{"a":1} {"id":"8"}', b"\xff",
        b'{"a":1,}', b"{'a':1}", b"nan", b"{\"a\":1}//", b'{"id":"8"}}',
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(lambda: compose(route(path="/{id}"), {"id": "7"}, body))[0] == "bad_body"


@pytest.mark.parametrize(
    "body",
    [
        b"1,\"id\":\"8\"", b'1}{"a":1', b"1} ", b"", b"}", b'"', b'1,"price":2',
    ],
)  # fmt: skip
def test_a_member_cannot_break_out(body: bytes) -> None:
    one = route('body = "price"', path="/{id}")
    if body:
        assert refusal(lambda: compose(one, {"id": "7"}, body))[0] == "bad_body"
    else:
        assert compose(one, {"id": "7"}, body) == b'{"id":"7"}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"8"}', b'{"id":7}', b'{"id":"7","id":"8"}', b'{"id":"8","id":"7"}',
        b'{"\\u0069d":"8"}', b'{"id":"7","a":{"id":1},"id":"7"}', b'{"id":null}', b'{"id":["7"]}',
    ],
)  # fmt: skip
def test_the_body_cannot_say_otherwise_than_the_url(body: bytes) -> None:
    assert refusal(lambda: compose(route(path="/{id}"), {"id": "7"}, body))[0] == "bad_body"


@pytest.mark.parametrize(
    "body", [b'{"id":"7"}', b'{"\\u0069d":"7"}', b'{"id":"7","a":{"id":"8"}}', b'{"a":1,"id":"7"}']
)
def test_the_body_may_say_the_same_as_the_url(body: bytes) -> None:
    got = compose(route(path="/{id}"), {"id": "7"}, body)
    assert json.loads(got) == json.loads(body)
    assert [key for key, _ in outermost(got)].count("id") == 1


def test_a_body_that_nests_too_deeply_is_refused_not_fatal() -> None:
    deeper = b'{"id":"7","a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert refusal(lambda: compose(route(path="/{id}"), {"id": "7"}, deeper))[0] == "bad_body"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), _JSON, max_size=5), st.text(min_size=1))
def test_any_object_comes_through_whole(body: dict[str, Any], value: str) -> None:
    one = route(path="/{id}")
    body.pop("id", None)
    text = json.dumps(body).encode()
    assert json.loads(compose(one, {"id": value}, text)) == {**body, "id": value}


@given(_JSON)
def test_any_value_becomes_one_member(value: Any) -> None:
    text = json.dumps(value).encode()
    assert json.loads(compose(route('body = "it"'), {}, text)) == {"it": value}


@given(st.binary(max_size=60) | st.text('{}[]",:\\ idab7', max_size=40).map(str.encode))
def test_whatever_comes_the_path_decides(body: bytes) -> None:
    """What a strict reader makes of the result has the member once, as the URL has it."""
    try:
        got = compose(route(path="/{id}"), {"id": "7"}, body)
    except Problem:
        return
    assert [value for key, value in outermost(got) if key == "id"] == ["7"]
