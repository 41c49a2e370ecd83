"""The rules of authorized_services."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scamp import limits
from scamp.discovery import AuthorizedServices
from scamp.errors import AuthorizedServicesError

ONE = ":".join(["AB"] * 20)
TWO = ":".join(["CD"] * 20)


def permits(tokens: str, sector: str, action: str) -> bool:
    return AuthorizedServices.parse(f"{ONE} {tokens}\n").permits(ONE, sector, action)


@pytest.mark.parametrize(
    ("tokens", "sector", "action", "permitted"),
    [
        ("Product", "main", "Product.fetch", True),
        ("product", "MAIN", "PRODUCT.Sku.fetch", True),
        ("Product.Sku", "main", "Product.Sku.fetch", True),
        ("Product.Sku.fetch", "main", "Product.Sku.fetch", True),
        ("Product.Sku.fetch", "main", "Product.Sku.fetchAll", False),
        ("Prod", "main", "Product.fetch", False),
        ("Product", "web", "Product.fetch", False),
        ("web:Product", "web", "Product.fetch", True),
        ("web:Product", "main", "Product.fetch", False),
        ("web:ALL", "web", "Anything.goes", True),
        ("web:ALL", "main", "Anything.goes", False),
        ("ALL", "main", "Anything.goes", False),
        ("a, b ,c", "main", "b.x", True),
        ("Pro.uct", "main", "Proxuct.x", False),
        ("x", "main", "_meta.documentation", True),
        ("main:ALL", "ma:in", "x.y", False),
        ("main:ALL", "main", "x:y.z", False),
        ("main:ALL", "main", "_meta.a:b", False),
        (",,", "main", "x.y", False),
    ],
)
def test_tokens(tokens: str, sector: str, action: str, permitted: bool) -> None:
    assert permits(tokens, sector, action) is permitted


def test_who_is_not_listed_may_offer_nothing_but_meta() -> None:
    rules = AuthorizedServices.parse(f"{ONE} main:ALL\n")
    assert not rules.permits(TWO, "main", "A.b")
    assert rules.permits(TWO, "main", "_meta.info")


def test_certificates_with_a_whole_sector_can_be_asked_for() -> None:
    allowed = AuthorizedServices.parse(f"{ONE} WEB:ALL, main:Sku, main:ALL\n{TWO} ALL, main:all\n")
    assert dict(allowed.whole_sectors()) == {ONE: {"web", "main"}}


def test_a_bad_line_is_skipped_with_its_reason_and_costs_no_other() -> None:
    text = f"# comment\n{ONE} A # and B\nnonsense A\n{TWO}\n\n{TWO.lower()} B\n".encode()
    rules = AuthorizedServices.parse(text + b"\xff\xfe C\n", path="/x")
    assert rules.permits(ONE, "main", "A.x")
    assert not rules.permits(ONE, "main", "B.x")
    assert rules.permits(TWO, "main", "B.x")
    assert [problem.line for problem in rules.problems] == [3, 4, 7]
    assert str(rules.problems[0]).startswith("/x:3: ")


def test_the_last_line_of_a_certificate_counts() -> None:
    rules = AuthorizedServices.parse(f"{ONE} A\n{ONE} B\n")
    assert not rules.permits(ONE, "main", "A.x")
    assert rules.permits(ONE, "main", "B.x")


def test_a_file_over_the_limit_is_refused() -> None:
    with pytest.raises(AuthorizedServicesError):
        AuthorizedServices.parse(b"#" * (limits.MAX_AUTHORIZED_FILE + 1))


def test_the_list_of_problems_is_bounded() -> None:
    assert len(AuthorizedServices.parse("bad\n" * 10_000).problems) == 100


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    AuthorizedServices.parse(data)
    AuthorizedServices.parse(ONE.encode() + b" " + data).permits(ONE, "main", "A.b")
