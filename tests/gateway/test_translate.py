"""Paths, methods, content types and queries: what they mean, and what is refused."""

from __future__ import annotations

import orjson
import pytest

from gateway.actions import Announced, announced, check_method
from gateway.problems import Problem
from gateway.translate import (
    MAX_QUERY_FIELDS,
    content_type_of,
    envelope_of,
    native_target,
    query_object,
    split_target,
)
from scamp.discovery import Action, Announcement, Offer

SERVICE = Announcement("s", "F", "main", 1, 5.0, "", "127.0.0.1", 1, ("json",), (), 0.0)


def offer(
    flags: str = "",
    *,
    name: str = "Product.Sku.fetch",
    envelopes: tuple[str, ...] = ("json",),
    sector: str = "main",
) -> Offer:
    namespace, _, last = name.rpartition(".")
    words = tuple(flag for flag in flags.split(",") if flag)
    return Offer(SERVICE, Action(sector, namespace, last, 1, words, envelopes))


def action(*offers: Offer) -> Announced:
    return announced(offers, 75.0)


def target_of(raw: str) -> str:
    """The action at a raw request target, or the code of the refusal, or ``-``."""
    try:
        path, _ = split_target(raw)
        target = native_target(path)
    except Problem as exc:
        return exc.kind.code
    return "-" if target is None else f"{target.sector} {target.action} {target.version}"


@pytest.mark.parametrize(
    ("raw", "meaning"),
    [
        ("/api/Product.Sku.fetch", "main Product.Sku.fetch 1"),
        ("/api/Product.Sku.fetch~3", "main Product.Sku.fetch 3"),
        ("/api/Product.Sku.fetch~0", "main Product.Sku.fetch 0"),
        ("/api/web:Product.fetch~12", "web Product.fetch 12"),
        ("/api/Product._read", "main Product._read 1"),
        ("/api/a-b_c.d-e", "main a-b_c.d-e 1"),
        ("/api/Product%2Efetch", "main Product.fetch 1"),
        ("/api/web%3aProduct.fetch%7e2", "web Product.fetch 2"),
        ("/api/Product.fetch?x=/../%2F", "main Product.fetch 1"),
        ("http://gateway:8080/api/Product.fetch?x", "main Product.fetch 1"),
        # not under /api/, or more than one segment
        ("/", "-"),
        ("/api", "-"),
        ("/api/", "-"),
        ("/api/Product.fetch/", "-"),
        ("/api/Product.fetch/more", "-"),
        ("/API/Product.fetch", "-"),
        ("http://gateway", "-"),
        ("http://gateway?x", "-"),
        # cannot name an action
        ("/api/Product", "unknown_action"),
        ("/api/Product~2", "unknown_action"),
        ("/api/.fetch", "unknown_action"),
        ("/api/Product.", "unknown_action"),
        # could be read in two ways
        ("/api/Product.fetch%2Fmore", "bad_path"),
        ("/api/Product.fetch%2fmore", "bad_path"),
        ("/api%2FProduct.fetch", "bad_path"),
        ("/api/Product%5Cfetch", "bad_path"),
        ("/api/Product\\fetch", "bad_path"),
        ("/api/Product.fetch%00", "bad_path"),
        ("/api/Product.fetch%0d%0a", "bad_path"),
        ("/api/Product.fetch%7F", "bad_path"),
        ("/api/Product.fetch%", "bad_path"),
        ("/api/Product.fetch%4", "bad_path"),
        ("/api/Product.fetch%zz", "bad_path"),
        ("/api/Product.fetch%252F", "bad_path"),
        ("/api/%2e%2e/admin", "bad_path"),
        ("/api/../admin", "bad_path"),
        ("/api/./Product.fetch", "bad_path"),
        ("/api/..", "bad_path"),
        ("/..", "bad_path"),
        ("//api/Product.fetch", "bad_path"),
        ("/api//Product.fetch", "bad_path"),
        ("/elsewhere//", "bad_path"),
        ("/api/Product.fetch#part", "bad_path"),
        ("/api/Product.fetch;v=1", "bad_path"),
        ("/api/Product.f tch", "bad_path"),
        ("/api/Product.f%20tch", "bad_path"),
        ("/api/Prodüct.fetch", "bad_path"),
        ("/api/Prod%C3%BCct.fetch", "bad_path"),
        ("/api/Product.fetch%FF", "bad_path"),
        ("/api/Product.fetch\udcff", "bad_path"),
        ("/api/Product.fetch~", "bad_path"),
        ("/api/Product.fetch~x", "bad_path"),
        ("/api/Product.fetch~01", "bad_path"),
        ("/api/Product.fetch~-1", "bad_path"),
        ("/api/Product.fetch~1234567890", "bad_path"),
        ("/api/a:b:Product.fetch", "bad_path"),
        ("/api/:Product.fetch", "bad_path"),
        ("host:80", "bad_path"),
        ("*", "bad_path"),
        ("ftp://gateway/api/Product.fetch", "bad_path"),
    ],
)
def test_a_path_means_one_action_or_is_refused(raw: str, meaning: str) -> None:
    assert target_of(raw) == meaning


def test_a_target_is_cut_at_the_first_question_mark_and_its_query_stays_raw() -> None:
    assert split_target("/api/A.b?x=%2F?y") == ("/api/A.b", "x=%2F?y")


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        ("", "POST, OPTIONS"),
        ("read", "GET, HEAD, POST, OPTIONS"),
        ("update,t5", "POST, PUT, PATCH, OPTIONS"),
        ("destroy", "POST, DELETE, OPTIONS"),
        ("create", "POST, OPTIONS"),
        ("read,update,destroy", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        ("READ", "POST, OPTIONS"),
    ],
)
def test_methods_follow_the_announced_flags(flags: str, allowed: str) -> None:
    announced_action = action(offer(flags))
    assert announced_action.allow == allowed
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        if method in announced_action.methods:
            check_method(method, announced_action)
        else:
            with pytest.raises(Problem) as caught:
                check_method(method, announced_action)
            assert caught.value.status == 405
            assert ("Allow", allowed) in caught.value.headers


@pytest.mark.parametrize(
    ("method", "flag"),
    [("GET", "read"), ("HEAD", "read"), ("PATCH", "update"), ("DELETE", "destroy")],
)
def test_the_refusal_of_a_method_names_the_flag(method: str, flag: str) -> None:
    with pytest.raises(Problem, match=f"{method} needs an action flagged {flag}"):
        check_method(method, action(offer("create")))


def test_a_method_that_no_flag_allows_is_refused() -> None:
    with pytest.raises(Problem, match="TRACE is not a method"):
        check_method("TRACE", action(offer("read,update,destroy,create")))


def test_what_opens_an_action_up_counts_only_when_every_instance_says_it() -> None:
    mixed = action(offer("read,noauth"), offer("read"))
    assert (mixed.read, mixed.noauth) == (True, False)
    mixed = action(offer("noauth"), offer("read,noauth"))
    assert (mixed.read, mixed.noauth) == (False, True)
    assert mixed.allow == "POST, OPTIONS"


def test_the_timeout_is_the_longest_of_all_instances() -> None:
    assert action(offer("t5"), offer("t30")).timeout == 30
    assert action(offer("t5"), offer("")).timeout == 75
    assert action(offer("t90"), offer("")).timeout == 90


def test_an_alias_that_finds_two_actions_means_the_first_by_name_in_any_order() -> None:
    offers = (offer("read", name="Product.list"), offer("read", name="Product.Get"))
    for order in (offers, offers[::-1]):
        chosen = action(*order)
        assert chosen.spelling == "Product.Get"
        assert [one.action.spelling for one in chosen.offers] == ["Product.Get"]


def test_the_label_names_the_sector_only_where_it_is_not_main() -> None:
    assert action(offer()).label == "Product.Sku.fetch~1"
    assert action(offer(sector="web")).label == "web:Product.Sku.fetch~1"


@pytest.mark.parametrize(
    ("content_type", "envelope"),
    [
        (None, "json"),
        ("", "json"),
        ("application/json", "json"),
        ("Application/JSON; charset=utf-8", "json"),
        ("application/vnd.scamp.json", "json"),
        ("application/vnd.scamp.jsonstore", "jsonStore"),
        ("application/vnd.scamp.JSONSTORE;v=1", "jsonStore"),
    ],
)
def test_the_content_type_chooses_the_envelope(content_type: str | None, envelope: str) -> None:
    assert envelope_of(content_type, action(offer(envelopes=("json", "jsonStore")))) == envelope


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/problem+json",
        "application/vnd.scamp.extdirect",
        "application/vnd.scamp.",
        "application/vnd.scamp.x\r\ny",
        "text/\udcff",
        "application/vnd.scamp.\udcff",
    ],
)
def test_a_content_type_that_is_not_offered_is_refused_with_those_that_are(
    content_type: str,
) -> None:
    with pytest.raises(Problem) as caught:
        envelope_of(content_type, action(offer(envelopes=("json", "jsonstore", "bad\r\nname"))))
    offered = "application/json, application/vnd.scamp.jsonstore"
    assert caught.value.status == 415
    assert offered in caught.value.detail
    assert caught.value.headers == (("Accept", offered),)
    assert caught.value.body("id"), "bytes that are not UTF-8 cannot stand in the answer"


def test_json_is_refused_where_it_is_not_announced() -> None:
    with pytest.raises(Problem):
        envelope_of(None, action(offer(envelopes=("extdirect",))))


def test_envelopes_of_all_instances_are_offered() -> None:
    both = action(offer(envelopes=("json",)), offer(envelopes=("json", "extdirect")))
    assert envelope_of("application/vnd.scamp.extdirect", both) == "extdirect"


def test_replies_have_the_type_of_their_envelope() -> None:
    assert content_type_of("json") == "application/json"
    assert content_type_of("jsonstore") == "application/vnd.scamp.jsonstore"


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("&&", {}),
        ("a=1", {"a": "1"}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("=x", {"": "x"}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1&b=2&a=3&a=1", {"a": ["1", "3", "1"], "b": "2"}),
        ("q=a+b%20c%2B", {"q": "a b c+"}),
        ("n%C3%A4me=%e2%82%ac", {"näme": "€"}),
        ("näme=€", {"näme": "€"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=%00", {"a": "\0"}),
    ],
)
def test_a_query_becomes_an_object_of_strings(query: str, fields: dict[str, object]) -> None:
    assert orjson.loads(query_object(query)) == fields


@pytest.mark.parametrize("query", ["a=%", "a=%4", "%zz=1", "a=%ff", "a=%C3", "a=\udcff"])
def test_a_query_that_cannot_be_read_is_refused(query: str) -> None:
    with pytest.raises(Problem) as caught:
        query_object(query)
    assert caught.value.kind.code == "bad_query"


def test_the_number_of_parameters_is_limited() -> None:
    query_object("&".join("a=1" for _ in range(MAX_QUERY_FIELDS)))
    with pytest.raises(Problem):
        query_object("&".join("a=1" for _ in range(MAX_QUERY_FIELDS + 1)))
