"""Which routes a path means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes.load import parse_routes
from gateway.routes.match import Matcher, by_method, convert


def matcher(*lines: str) -> Matcher:
    """Each line is ``METHOD TEMPLATE``; the action is numbered."""
    return Matcher(
        parse_routes(
            "".join(
                f'[[routes]]\nmethod="{line.split()[0]}"\npath="{line.split()[1]}"\n'
                f'action="A.n{number}"\n'
                for number, line in enumerate(lines)
            )
        )
    )


def found(lines: tuple[str, ...], path: str) -> list[tuple[str, tuple[Any, ...]]]:
    return [(m.route.template, m.values) for m in matcher(*lines).find(path)]


ALL = (
    "GET /skus",
    "GET /skus/new",
    "GET /skus/{flag:bool}",
    "GET /skus/{id:int}",
    "GET /skus/{weight:number}",
    "GET /skus/{code}",
    "GET /skus/{code}/labels/{page:int}",
    "GET /{any}",
)


@pytest.mark.parametrize(
    ("path", "first", "values"),
    [
        ("/skus", "/skus", ()),
        ("/skus/new", "/skus/new", ()),
        ("/skus/true", "/skus/{flag:bool}", (True,)),
        ("/skus/12", "/skus/{id:int}", (12,)),
        ("/skus/-12", "/skus/{id:int}", (-12,)),
        ("/skus/012", "/skus/{code}", ("012",)),
        ("/skus/1.5", "/skus/{weight:number}", (1.5,)),
        ("/skus/LAMP 1/ü", None, ()),
        ("/skus/LAMP 1", "/skus/{code}", ("LAMP 1",)),
        ("/skus/new/labels/3", "/skus/{code}/labels/{page:int}", ("new", 3)),
        ("/skus/new/labels/x", None, ()),
        ("/skus/", None, ()),
        ("/other", "/{any}", ("other",)),
        ("/", None, ()),
        ("/skus/new/", None, ()),
    ],
)
def test_the_best_fit_comes_first(path: str, first: str | None, values: tuple[Any, ...]) -> None:
    got = found(ALL, path)
    assert (got[0] if got else (None, ())) == (first, values)
    if got:
        assert [type(one) for one in got[0][1]] == [type(one) for one in values]


def test_each_method_has_its_own_best_fit() -> None:
    matches = matcher("GET /a/{id:int}", "POST /a/{name}", "GET /a/{name}").find("/a/7")
    best = by_method(matches)
    assert {method: match.route.template for method, match in best.items()} == {
        "GET": "/a/{id:int}",
        "HEAD": "/a/{id:int}",
        "POST": "/a/{name}",
    }
    assert best["POST"].values == ("7",)


@pytest.mark.parametrize(
    ("text", "to", "value"),
    [
        ("0", "int", 0),
        ("-0", "int", 0),
        ("9" * 18, "int", int("9" * 18)),
        ("9" * 19, "int", None),
        ("1.0", "int", None),
        ("+1", "int", None),
        ("٣", "int", None),
        ("1_000", "int", None),
        ("1e3", "number", 1000.0),
        ("1e999", "number", None),
        ("nan", "number", None),
        (".5", "number", None),
        ("false", "bool", False),
        ("False", "bool", None),
        ("1", "bool", None),
        ("", "string", ""),
        ("", "int", None),
    ],
)
def test_texts_become_values_of_one_spelling(text: str, to: Any, value: Any) -> None:
    assert convert(text, to) == value
    assert type(convert(text, to)) is type(value)


_SEGMENT = st.sampled_from(["a", "b", "{x}", "{y:int}", "{z:bool}"])
_TEMPLATES = st.lists(
    st.lists(
        _SEGMENT, min_size=1, max_size=4, unique_by=lambda one: one if "{" in one else object()
    ),
    min_size=1,
    max_size=8,
)


@given(_TEMPLATES, st.lists(st.sampled_from(["a", "b", "7", "true", "q", ""]), max_size=5))
def test_it_finds_what_trying_each_template_finds(
    templates: list[list[str]], segments: list[str]
) -> None:
    lines = list(dict.fromkeys("GET /" + "/".join(one) for one in templates))
    path = "/" + "/".join(segments)

    def fits(template: str) -> bool:
        wanted = template.split("/")[1:]
        parts = path.split("/")[1:]
        return len(wanted) == len(parts) and all(
            one == part
            or (one == "{x}" and part != "")
            or (one == "{y:int}" and part == "7")
            or (one == "{z:bool}" and part == "true")
            for one, part in zip(wanted, parts, strict=True)
        )

    expected = {line.split()[1] for line in lines if fits(line.split()[1])}
    assert {template for template, _ in found(tuple(lines), path)} == expected
