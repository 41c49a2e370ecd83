"""The public listener, from socket to socket: what a request means and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from fronted import Fronted
from gateway.auth import Authenticator
from gateway.front import FrontOptions
from scamp.authz import AuthzSource
from scamp.discovery import DiscoveryStatus
from scamp.server import Request, Service, ServiceError
from scamp.testing import ScriptedPeer, make_identity
from scamp.testing.scripts import failing, silent, slow, when
from scamp.tickets import TicketVerifier

pytestmark = pytest.mark.usefixtures("either_way")

MISSING = DiscoveryStatus()
STALE = DiscoveryStatus(loaded=True, stale=True)


async def test_a_body_goes_through_as_it_is_under_the_announced_name() -> None:
    peer = ScriptedPeer(actions=("Test.Echo",))
    async with Fronted(peer) as gateway:
        body = b'{ "b": 1,\n "a": 1.0 }'
        answer = await gateway.request("POST", "/api/test.ECHO~1", body=body)
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["Cache-Control"] == "no-store"
        header = peer.headers[0]
        assert header.pop("request_id")
        assert header == {
            "type": "request",
            "action": "Test.Echo",
            "version": 1,
            "envelope": "json",
        }


async def test_get_turns_the_query_into_the_body() -> None:
    async with Fronted(ScriptedPeer(flags="noauth,read")) as gateway:
        answer = await gateway.request("GET", "/api/Test.echo?a=1&b=x%20y&a=2")
        assert answer.json() == {"a": ["1", "2"], "b": "x y"}
        assert (await gateway.request("GET", "/api/Test.echo")).body == b"{}"
        assert (await gateway.request("GET", "/api/Test._read?a=1")).json() == {"a": "1"}


async def test_get_does_not_look_at_its_content_type() -> None:
    async with Fronted(ScriptedPeer(flags="noauth,read")) as gateway:
        fields = [("Content-Type", "text/plain")]
        assert (await gateway.request("GET", "/api/Test.echo", fields)).status == 200


async def test_head_answers_with_the_header_alone() -> None:
    async with Fronted(ScriptedPeer(flags="noauth,read")) as gateway:
        wire = await gateway.connect()
        wire.send("HEAD", "/api/Test.echo?a=1")
        wire.send("HEAD", "/api/Test.nothing")
        wire.send("GET", "/api/Test.echo?a=2")
        first, second = await wire.answer("HEAD"), await wire.answer("HEAD")
        assert (first.status, first.headers["Content-Length"]) == (200, "9")
        assert (second.status, second.headers["Content-Type"]) == (404, "application/problem+json")
        assert (await wire.answer("GET")).body == b'{"a":"2"}'


async def test_an_empty_body_becomes_an_empty_object() -> None:
    async with Fronted(ScriptedPeer(flags="noauth,update,destroy")) as gateway:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await gateway.request(method, "/api/Test.echo")).body == b"{}"
            assert (await gateway.request(method, "/api/Test.echo", body=b"")).body == b"{}"
        assert (await gateway.request("POST", "/api/Test.echo?a=1")).body == b"{}"


async def test_the_type_of_no_body_says_nothing() -> None:
    sent = "Content-Type: application/octet-stream\r\nContent-Encoding: br\r\nContent-Length: 0\r\n"
    peer = ScriptedPeer(flags="noauth,update,destroy", envelopes=("json", "blob"))
    async with Fronted(peer) as gateway:
        for method in ("POST", "PUT", "DELETE"):
            wire = await gateway.connect()
            wire.writer.write(f"{method} /api/Test.echo HTTP/1.1\r\nHost: a\r\n{sent}\r\n".encode())
            answer = await wire.answer()
            assert (answer.status, answer.body) == (200, b"{}"), method
            assert answer.headers["Content-Type"] == "application/json"
        blob = [("Content-Type", "application/vnd.scamp.blob")]
        answer = await gateway.request("POST", "/api/Test.echo", blob)
        assert answer.headers["Content-Type"] == "application/vnd.scamp.blob"
        assert answer.body == b"", "an envelope that is named counts"
        none = [("Content-Type", "application/vnd.scamp.none")]
        assert (await gateway.request("POST", "/api/Test.echo", none)).status == 415
        octets = [("Content-Type", "application/octet-stream")]
        assert (await gateway.request("POST", "/api/Test.echo", octets, b"{}")).status == 415
        chunked = [*octets, ("Transfer-Encoding", "chunked")]
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", chunked)
        assert (await wire.answer()).status == 415, "there may be a body"


async def test_delete_without_a_body_takes_the_query() -> None:
    async with Fronted(ScriptedPeer(flags="noauth,destroy")) as gateway:
        assert (await gateway.request("DELETE", "/api/Test.echo?id=5")).json() == {"id": "5"}
        answer = await gateway.request("DELETE", "/api/Test.echo?id=5", body=b'{"id":6}')
        assert answer.json() == {"id": 6}


async def test_a_method_that_the_flags_do_not_allow_reaches_no_service() -> None:
    peer = ScriptedPeer(flags="noauth,update")
    async with Fronted(peer) as gateway:
        for method in ("GET", "HEAD", "DELETE", "TRACE", "MKCOL"):
            answer = await gateway.request(method, "/api/Test.echo")
            assert (answer.status, answer.headers["Allow"]) == (405, "POST, PUT, PATCH, OPTIONS")
        assert peer.headers == []


async def test_options_tells_the_methods_without_a_ticket(ticket_key: RSAPrivateKey) -> None:
    auth = Authenticator("verify", TicketVerifier([ticket_key.public_key()]))
    async with Fronted(ScriptedPeer(flags="read"), auth=auth) as gateway:
        answer = await gateway.request("OPTIONS", "/api/Test.echo")
        assert (answer.status, answer.headers["Allow"]) == (204, "GET, HEAD, POST, OPTIONS")
        assert "Content-Length" not in answer.headers
        assert (await gateway.request("OPTIONS", "*")).status == 204
        assert (await gateway.request("OPTIONS", "/api/Test.nothing")).status == 404


async def test_paths_are_taken_as_they_are_on_the_wire() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        for target, status in [
            ("/api/x/../Test.echo", 400),
            ("/api/Test.echo%2F", 400),
            ("//api/Test.echo", 400),
            ("/api/Test.echo/", 404),
            ("/elsewhere", 404),
            ("http://test/api/Test.echo", 200),
            ("/api/Test%2eecho", 200),
        ]:
            answer = await gateway.request("POST", target, body=b"{}")
            assert answer.status == status, target


async def test_only_exposed_sectors_are_reachable() -> None:
    inner, outer = ScriptedPeer(sector="inner"), ScriptedPeer(sector="Web")
    options = FrontOptions(sectors=("main", "web"))
    async with Fronted(inner, outer, options=options) as gateway:
        assert (await gateway.request("POST", "/api/web:Test.echo")).status == 200
        hidden = await gateway.request("POST", "/api/inner:Test.echo")
        unknown = await gateway.request("POST", "/api/web:Test.nothing")
        assert hidden.status == unknown.status == 404
        assert hidden.json()["code"] == unknown.json()["code"]
        gateway.status = STALE
        assert (await gateway.request("POST", "/api/inner:Test.echo")).status == 404


async def test_an_alias_opens_nothing_that_the_actions_own_name_does_not() -> None:
    auth = Authenticator("verify", TicketVerifier([]))
    new, old = ScriptedPeer(flags="noauth,read"), ScriptedPeer(flags="")
    async with Fronted(new, old, auth=auth) as gateway:
        for name in ("echo", "_read"):
            assert (await gateway.request("POST", f"/api/Test.{name}")).status == 401
            assert (await gateway.request("GET", f"/api/Test.{name}")).status == 405
        assert (new.headers, old.headers) == ([], [])


async def test_actions_come_and_go_with_their_announcements() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        assert (await gateway.request("POST", "/api/Test.echo")).status == 200
        gateway.mesh.remove(peer)
        assert (await gateway.request("POST", "/api/Test.echo")).status == 404
        gateway.mesh.announce(peer)
        assert (await gateway.request("POST", "/api/Test.echo")).status == 200


@pytest.mark.parametrize("status", [MISSING, STALE])
async def test_without_a_fresh_index_an_unknown_action_may_exist(status: DiscoveryStatus) -> None:
    async with Fronted(ScriptedPeer(), status=status) as gateway:
        answer = await gateway.request("POST", "/api/Test.nothing")
        assert (answer.status, answer.json()["code"]) == (503, "discovery_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await gateway.request("POST", "/api/Test.echo")).status == 200


async def test_envelopes_go_by_content_type_both_ways() -> None:
    peer = ScriptedPeer(envelopes=("json", "jsonstore"))
    async with Fronted(peer) as gateway:
        store = [("Content-Type", "application/vnd.scamp.jsonstore")]
        answer = await gateway.request("POST", "/api/Test.echo", store, b"")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Type"] == "application/vnd.scamp.jsonstore"
        assert peer.headers[0]["envelope"] == "jsonstore"
        other = [("Content-Type", "application/x-www-form-urlencoded")]
        answer = await gateway.request("POST", "/api/Test.echo", other, b"a=1")
        assert answer.status == 415
        assert answer.headers["Accept"] == "application/json, application/vnd.scamp.jsonstore"
        assert len(peer.headers) == 1


async def test_the_request_id_is_taken_over_or_made_and_always_returned() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        given = [("X-Request-ID", "id-1")]
        answer = await gateway.request("POST", "/api/Test.echo", given)
        assert answer.headers["X-Request-ID"] == "id-1"
        answer = await gateway.request("POST", "/api/Test.nothing", given)
        assert answer.headers["X-Request-ID"] == answer.json()["instance"] == "id-1"
        answer = await gateway.request("POST", "/api/Test.echo", [("X-Request-ID", "x" * 129)])
        assert 0 < len(answer.headers["X-Request-ID"]) <= 128
        ids = [line["request_id"] for line in gateway.log.lines]
        assert ids == ["id-1", "id-1", answer.headers["X-Request-ID"]]


async def test_a_trace_goes_on_to_the_service() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        fields = [("traceparent", f"00-{trace}-{parent}-01")]
        fields += [("tracestate", "a=1"), ("tracestate", "b=2")]
        await gateway.request("POST", "/api/Test.echo", fields)
        await gateway.request("POST", "/api/Test.echo", [("traceparent", "rubbish")])
        _, sent, span, flags = peer.headers[0]["traceparent"].split("-")
        assert (sent, flags, peer.headers[0]["tracestate"]) == (trace, "01", "a=1,b=2")
        assert span != parent
        assert "traceparent" not in peer.headers[1]
        assert [line["trace_id"] for line in gateway.log.lines] == [trace, None]


async def test_nothing_that_a_caller_claims_about_itself_reaches_the_service(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    async def table() -> bytes:
        return b'{"test.echo": [3]}'

    verifier = TicketVerifier([ticket_key.public_key()])
    peer = ScriptedPeer(flags="")
    auth = Authenticator("enforce", verifier, AuthzSource(table))
    async with Fronted(peer, auth=auth) as gateway:
        ticket = make_ticket((3,))
        claims = [
            ("Authorization", f"Bearer {ticket}"),
            ("X-SCAMP-Client-ID", "1"),
            ("client_id", "1"),
            ("identifying_token", "me"),
            ("X-Forwarded-For", "127.0.0.1"),
        ]
        assert (await gateway.request("POST", "/api/Test.echo", claims)).status == 200
        header = peer.headers[0]
        assert (header["ticket"], header["client_id"]) == (ticket, 42)
        assert set(header) == {
            *("type", "request_id", "action", "version", "envelope", "ticket", "client_id")
        }
        line = gateway.log.lines[0]
        assert (line["user_id"], line["client_id"]) == (7, 42)
        assert ticket not in str(gateway.log.lines)


async def test_those_who_may_not_reach_no_service(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    async def table() -> bytes:
        return b'{"test.echo": [3], "_NAMES": [null, "", "", "Everything"]}'

    verifier = TicketVerifier([ticket_key.public_key()])
    peer = ScriptedPeer(flags="")
    auth = Authenticator("enforce", verifier, AuthzSource(table))
    async with Fronted(peer, auth=auth) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        answer = await gateway.request("POST", "/api/Test.echo", [("X-SCAMP-Ticket", "bad")])
        assert answer.status == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        weak = [("X-SCAMP-Ticket", make_ticket((1,)))]
        answer = await gateway.request("POST", "/api/Test.echo", weak)
        assert answer.status == 403
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert "Everything" in answer.json()["detail"]
        assert peer.headers == []
        assert [line["user_id"] for line in gateway.log.lines] == [None, None, 7]


async def test_a_caller_may_lower_the_deadline_and_not_raise_it() -> None:
    options = FrontOptions(request_timeout=0.2)
    peer = ScriptedPeer(silent)
    async with Fronted(peer, options=options) as gateway:
        for seconds, limit in (("0.05", "0.05"), ("60", "0.2")):
            fields = [("X-SCAMP-Timeout", seconds)]
            answer = await gateway.request("POST", "/api/Test.echo", fields)
            assert (answer.status, answer.json()["code"]) == (504, "reply_timeout")
            assert f"The limit was {limit} s" in answer.json()["detail"]
            line = gateway.log.lines[-1]
            assert (line["attempts"], line["instance"]) == (1, peer.address)
        answer = await gateway.request("POST", "/api/Test.echo", [("X-SCAMP-Timeout", "soon")])
        assert (answer.status, answer.json()["code"]) == (400, "bad_header")


async def test_a_services_error_is_told_with_a_status_by_its_code() -> None:
    script = failing("not_found", "no such SKU", {"sku": 5})
    async with Fronted(ScriptedPeer(script)) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        assert answer.status == 404
        document = answer.json()
        assert (document["code"], document["detail"]) == ("service_error", "no such SKU")
        assert (document["upstream_code"], document["error_data"]) == ("not_found", {"sku": 5})
        assert "Proxy-Status" not in answer.headers
        line = gateway.log.lines[0]
        assert (line["cause"], line["upstream_code"]) == ("service_error", "not_found")
        assert 'source="service",status_class="4xx"' in gateway.scrape()


async def test_statuses_of_services_errors_can_be_set() -> None:
    options = FrontOptions(error_status={"teapot": 418})
    async with Fronted(ScriptedPeer(failing("teapot")), options=options) as gateway:
        assert (await gateway.request("POST", "/api/Test.echo")).status == 418


async def test_times_are_told_to_callers_only_when_asked_for() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        assert "Server-Timing" not in (await gateway.request("POST", "/api/Test.echo")).headers
        assert "Server-Timing" not in (await gateway.request("GET", "/api/Test.echo")).headers
    waits = slow(0.05, failing("oops"))
    peers = ScriptedPeer(), ScriptedPeer(waits, actions=("Test.fail",), identity=make_identity(1))
    async with Fronted(*peers, options=FrontOptions(server_timing=True)) as gateway:
        for method, target, status in (
            ("POST", "/api/Test.echo", 200),
            ("GET", "/api/Test.echo", 405),
            ("POST", "/api/Test.fail", 500),
        ):
            answer = await gateway.request(method, target)
            assert answer.status == status
            told = [part.split(";dur=") for part in answer.headers["Server-Timing"].split(", ")]
            times = {name: float(value) for name, value in told}
            assert list(times) == ["gateway", "queue", "upstream"]
            assert times["upstream"] == 0 or status != 405, "nobody was asked"
        assert times["upstream"] > 40, "in milliseconds"


async def test_connections_are_kept_as_the_http_version_has_it() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        for number in range(3):
            wire.send("POST", "/api/Test.echo", body=b"%d" % number)
        assert [(await wire.answer()).body for _ in range(3)] == [b"0", b"1", b"2"]
        wire.send("POST", "/api/Test.echo", [("Connection", "close")])
        assert (await wire.answer()).headers["Connection"] == "close"
        assert await wire.ended()

        old = await gateway.connect()
        old.send("POST", "/api/Test.echo", [("Connection", "keep-alive")], version="1.0")
        assert (await old.answer()).headers["Connection"] == "keep-alive"
        old.send("POST", "/api/Test.echo", version="1.0")
        assert (await old.answer()).headers["Connection"] == "close"
        assert await old.ended()


async def test_draining_ends_connections_with_their_answers() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on))
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await peer.until(lambda: peer.requests == 1)
        gateway.front.draining = True
        go_on.set()
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert await wire.ended()
        assert (await gateway.request("POST", "/api/Test.echo")).headers["Connection"] == "close"


async def test_more_requests_than_the_limit_are_turned_away_at_once() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on))
    async with Fronted(peer, options=FrontOptions(max_in_flight=1)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await peer.until(lambda: peer.requests == 1)
        answer = await gateway.request("POST", "/api/Test.echo")
        assert (answer.status, answer.json()["code"]) == (503, "saturated")
        assert answer.headers["Retry-After"] == "1"
        go_on.set()
        assert (await wire.answer()).status == 200
        assert (await gateway.request("POST", "/api/Test.echo")).status == 200
        assert gateway.front.in_flight == 0


async def test_the_client_in_the_log_is_the_one_that_trusted_proxies_saw() -> None:
    fields = [("X-Forwarded-For", "198.51.100.7")]
    async with Fronted(ScriptedPeer()) as gateway:
        await gateway.request("POST", "/api/Test.echo", fields)
        assert gateway.log.lines[0]["client"] == "127.0.0.1"
    options = FrontOptions(trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with Fronted(ScriptedPeer(), options=options) as gateway:
        await gateway.request("POST", "/api/Test.echo", fields)
        assert gateway.log.lines[0]["client"] == "198.51.100.7"


async def test_a_bug_is_500_with_the_request_id_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise ZeroDivisionError("secret detail")

    async with Fronted(ScriptedPeer()) as gateway:
        monkeypatch.setattr(gateway.auth, "identify", broken)
        answer = await gateway.request("POST", "/api/Test.echo", [("X-Request-ID", "id-1")])
        assert (answer.status, answer.json()["code"]) == (500, "internal_error")
        assert b"secret" not in answer.body
        assert "id-1" in caplog.text
        assert "ZeroDivisionError" in caplog.text


async def test_services_of_this_library_are_reached_like_any_other(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    identity = make_identity()
    verifier = TicketVerifier([ticket_key.public_key()])
    service = Service(
        "shop", key=identity.key, certificate=identity.certificate, ticket_verifier=verifier
    )

    @service.action("Product.Sku.fetch", version=2, flags="read,t30")
    async def fetch(request: Request) -> object:
        fields = await request.json()
        if fields["sku"] == "none":
            raise ServiceError("not_found", "no such SKU", {"sku": "none"})
        return {"sku": fields["sku"], "client": request.client_id}

    @service.action("Product.Sku.list", flags="read")
    async def every(request: Request) -> AsyncIterator[bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(1000):
                yield b"%d,\n" % number * 100

        return pieces()

    await service.start(port=0)
    try:
        auth = Authenticator("verify", verifier)
        async with Fronted(service, auth=auth) as gateway:
            ticket = [("Authorization", f"Bearer {make_ticket()}")]
            answer = await gateway.request("GET", "/api/product.sku.fetch~2?sku=A-1", ticket)
            assert (answer.status, answer.json()) == (200, {"sku": "A-1", "client": 42})
            answer = await gateway.request("GET", "/api/Product.Sku.fetch~2?sku=none", ticket)
            assert (answer.status, answer.json()["error_data"]) == (404, {"sku": "none"})
            answer = await gateway.request("POST", "/api/Product.Sku.list", ticket)
            assert answer.whole
            assert answer.body == b"".join(b"%d,\n" % number * 100 for number in range(1000))
            assert (await gateway.request("POST", "/api/Product.Sku.list")).status == 401
    finally:
        await service.stop()
