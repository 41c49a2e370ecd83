"""The catalogue of errors, its page, and how errors of library and services are told."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from gateway import catalogue
from gateway.catalogue import CATALOGUE
from gateway.problems import (
    Problem,
    StatusMap,
    catalogue_markdown,
    from_error,
    from_reply,
    quotable,
)
from scamp import errors
from scamp.wire import ReplyHeader

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_page_on_errors_is_made_from_the_catalogue() -> None:
    assert PAGE.read_text() == catalogue_markdown(), (
        "write it anew: python -c 'from gateway.problems import catalogue_markdown as m; "
        'print(m(), end="")\' > docs/errors.md'
    )


def test_the_page_has_every_kind_once() -> None:
    page = catalogue_markdown()
    for kind in CATALOGUE.values():
        assert page.count(f"| {kind.number} | `{kind.code}` |") == 1


def test_a_kind_cannot_be_in_the_catalogue_twice() -> None:
    before = dict(CATALOGUE)
    with pytest.raises(ValueError, match="already"):
        catalogue._kind(101, "something_new", 400, "", "")
    with pytest.raises(ValueError, match="already"):
        catalogue._kind(199, "bad_path", 400, "", "")
    assert before == CATALOGUE


def test_a_problem_is_a_whole_document() -> None:
    problem = Problem(catalogue.SATURATED, "Too much.", action="A.b~1", retry_after=0.2)
    assert orjson.loads(problem.body("id-1")) == {
        "type": "urn:scamp-gateway:error:308",
        "title": "Too much at once",
        "status": 503,
        "detail": "Too much.",
        "instance": "id-1",
        "code": "saturated",
        "action": "A.b~1",
    }
    assert dict(problem.header_fields()) == {
        "Proxy-Status": 'scamp-gateway; error=connection_limit_reached; details="saturated"',
        "Retry-After": "1",
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.ConnectFailed("10.1.2.3:30100", "refused"), 502, "connect_failed"),
        (errors.FingerprintMismatch("10.1.2.3:1", "AA", "BB"), 502, "fingerprint_mismatch"),
        (errors.ConnectTimeout("10.1.2.3:1", 10), 504, "connect_timeout"),
        (errors.ConnectionLost("10.1.2.3:1", "eof", written=True), 502, "connection_lost"),
        (errors.ConnectionLost("10.1.2.3:1", "eof", written=False), 502, "connect_failed"),
        (errors.QueueTimeout(75), 504, "queue_timeout"),
        (errors.ReplyTimeout(75), 504, "reply_timeout"),
        (errors.IdleTimeout(60), 504, "upstream_stalled"),
        (errors.NoUsableInstance("A.b", 3.2), 503, "no_usable_instance"),
        (errors.Saturated("queue"), 503, "saturated"),
        (errors.DispatchFailed("10.1.2.3 gone"), 502, "dispatch_failed"),
        (errors.ReplyFailed("Error: at 10.1.2.3"), 502, "reply_failed"),
        (errors.EnvelopeNotOffered("A.b", "x", ("json",)), 415, "unsupported_envelope"),
        (errors.DiscoveryUnavailable("stale"), 503, "discovery_unavailable"),
        (errors.RemoteProtocolError("10.1.2.3 sent rubbish"), 502, "upstream_protocol"),
        (errors.UnknownService("shop"), 404, "unknown_service"),
        (errors.SubscriptionRefused("10.1.2.3:1", "no"), 502, "subscription_refused"),
        (errors.AuthzTableUnavailable("A.b", "no"), 503, "authorization_unavailable"),
        (errors.LocalProtocolError("header too large"), 500, "internal_error"),
        (errors.ConfigError("what"), 500, "internal_error"),
    ],
)
def test_each_error_of_the_library_has_its_answer(
    error: errors.ScampError, status: int, code: str
) -> None:
    problem = from_error(error, "A.b~1")
    assert (problem.status, problem.kind.code, problem.action) == (status, code, "A.b~1")
    assert "10.1.2.3" not in problem.detail, "addresses of the mesh are not for callers"
    fields = dict(problem.header_fields())
    assert ("Retry-After" in fields) == (status == 503)
    assert fields["Proxy-Status"].startswith("scamp-gateway; error=")


def test_retry_after_is_rounded_up_to_whole_seconds() -> None:
    fields = dict(from_error(errors.NoUsableInstance("A.b", 3.2)).header_fields())
    assert fields["Retry-After"] == "4"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("bad_request", 400),
        ("invalid", 400),
        ("invalid_sku", 400),
        ("INVALID_SKU", 400),
        ("unauthorized", 401),
        ("access_denied", 403),
        ("verification", 403),
        ("verification_failed", 500),
        ("not_found", 404),
        ("conflict", 409),
        ("", 500),
        ("404", 500),
        ("teapot", 500),
    ],
)
def test_error_codes_have_default_statuses(code: str, status: int) -> None:
    assert StatusMap().status_of(code) == status


def test_statuses_can_be_added_and_overridden() -> None:
    statuses = StatusMap({"Teapot": 418, "not_found": 410, "invalid_sku": 422, "invalid_x*": 423})
    assert statuses.status_of("teapot") == 418
    assert statuses.status_of("not_found") == 410
    assert statuses.status_of("invalid_sku") == 422
    assert statuses.status_of("invalid_xy") == 423
    assert statuses.status_of("invalid_other") == 400


@pytest.mark.parametrize("wrong", [{"a": 200}, {"a": 600}, {"a*b": 400}])
def test_statuses_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="error_status"):
        StatusMap(wrong)


def test_a_services_error_is_told_with_its_code_and_data_and_no_proxy_status() -> None:
    header = ReplyHeader(1, "no such SKU", "not_found", {"sku": 5})
    problem = from_reply(header, StatusMap(), "Product.fetch~1")
    document = orjson.loads(problem.body("id"))
    assert (document["status"], document["detail"]) == (404, "no such SKU")
    assert (document["upstream_code"], document["error_data"]) == ("not_found", {"sku": 5})
    assert dict(problem.header_fields()) == {}


def test_error_data_that_cannot_be_written_is_left_out() -> None:
    data = orjson.loads(b'{"a":' * 900 + b"1" + b"}" * 900)
    problem = from_reply(ReplyHeader(1, "deep", "conflict", data), StatusMap(), "A.b~1")
    document = orjson.loads(problem.body("id"))
    assert (document["status"], document["detail"]) == (409, "deep")
    assert document["error_data"] is None


def test_a_services_error_without_code_is_500() -> None:
    problem = from_reply(ReplyHeader(1, "Error: action not found"), StatusMap(), "A.b~1")
    document = orjson.loads(problem.body("id"))
    assert (document["status"], document["upstream_code"]) == (500, None)


def test_a_services_401_carries_a_challenge() -> None:
    problem = from_reply(ReplyHeader(1, "log in", "unauthorized"), StatusMap(), "A.b~1")
    assert dict(problem.header_fields()) == {"WWW-Authenticate": "Bearer"}


def test_a_services_error_that_means_503_tells_when_to_retry_as_any_503() -> None:
    problem = from_reply(ReplyHeader(1, "busy", "busy"), StatusMap({"busy": 503}), "A.b~1")
    assert dict(problem.header_fields()) == {"Retry-After": "1"}


def test_text_for_a_quoted_header_value_stays_within_its_quotes() -> None:
    assert quotable('a"b\\c\r\nd é') == "a'b?c??d ?"
    assert len(quotable("x" * 1000)) == 300
