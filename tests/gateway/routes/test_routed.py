"""URLs of one's own, from socket to socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from email import policy
from email.parser import BytesParser
from typing import Any, Final

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.front import FrontOptions
from gateway.routes.load import parse_routes
from scamp.authz import AuthzSource
from scamp.discovery import DiscoveryStatus
from scamp.server import Request, Service
from scamp.testing import ScriptedPeer, make_identity, until
from scamp.testing.scripts import failing, hang_up, silent, when
from scamp.tickets import TicketVerifier

JSON: Final = [("Content-Type", "application/json")]

ROUTES: Final = """
[[resources]]
path = "/v1/skus"
namespace = "Product.Sku"
id = "code"
list = "all"

[[routes]]
method = "POST"
path = "/v1/skus/{code}/labels/{page:int}"
action = "Product.Sku.label"
body = "template"
query = { copies = "int" }
defaults = { colour = false }
produces = "application/pdf"
status = 202

[[routes]]
method = "PUT"
path = "/v1/image"
action = "Product.Image.put"
envelope = "blob"
consumes = ["image/*", "multipart/form-data"]
produces = "image/png"

[[routes]]
method = ["GET", "DELETE"]
path = "/v1/changing"
action = "Product.Sku.update"

[[routes]]
method = "POST"
path = "/v1/nothing"
action = "Product.Nothing.here"

[[routes]]
method = "POST"
path = "/v1/all"
action = "Product.Sku.create"

[[routes]]
method = "GET"
path = "/v1/hidden"
action = "inner:Secret.Thing.read"
"""


def shop() -> Service:
    """Each action gives back what it got."""
    identity = make_identity(0)
    service = Service(
        "shop",
        key=identity.key,
        certificate=identity.certificate,
        queue_depth=False,
        documentation=False,
        envelopes=("json", "blob"),
    )

    async def mirror(request: Request) -> Any:
        body = await request.read_all()
        if request.envelope == "blob":
            return body
        return {
            "action": request.action.spelling,
            "body": body.decode(),
            "content_type": request.header.extra.get("content_type"),
        }

    for spelling, flags in {
        "Product.Sku.all": "noauth,read",
        "Product.Sku.fetch": "noauth,read",
        "Product.Sku.create": "noauth,create",
        "Product.Sku.update": "noauth,update",
        "Product.Sku.label": "noauth",
        "Product.Image.put": "noauth,update",
    }.items():
        service.action(spelling, flags=flags)(mirror)
    service.action("Secret.Thing.read", flags="noauth,read", sector="inner")(mirror)
    return service


@pytest.fixture
async def gateway() -> AsyncIterator[Fronted]:
    service = shop()
    await service.start(port=0)
    try:
        async with Fronted(service, routes=ROUTES) as gateway:
            yield gateway
    finally:
        await service.stop(grace=1)


def got(answer: Answer, status: int = 200) -> tuple[str, Any]:
    """The action that was called, and the body that it got."""
    assert answer.status == status, answer
    return answer.json()["action"], json.loads(answer.json()["body"])


async def test_a_resource_leads_to_its_crud_actions(gateway: Fronted) -> None:
    ask = gateway.request
    assert got(await ask("GET", "/v1/skus?page=2")) == ("Product.Sku.all", {"page": "2"})
    assert got(await ask("GET", "/v1/skus/LAMP%201")) == ("Product.Sku.fetch", {"code": "LAMP 1"})
    assert got(await ask("POST", "/v1/skus", body=b'{"a":1}'), 201) == (
        "Product.Sku.create",
        {"a": 1},
    )
    for method in ("PUT", "PATCH"):
        answer = await ask(method, "/v1/skus/7", JSON, b'{"a":1}')
        assert got(answer) == ("Product.Sku.update", {"a": 1, "code": "7"})
    answer = await ask("DELETE", "/v1/skus/7")
    assert (answer.status, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, PUT, PATCH, OPTIONS"


async def test_head_and_options_go_with_the_others(gateway: Fronted) -> None:
    answer = await gateway.request("HEAD", "/v1/skus/7")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 10
    for path, allow in {
        "/v1/skus": "GET, HEAD, POST, OPTIONS",
        "/v1/skus/7": "GET, HEAD, PUT, PATCH, OPTIONS",
        "/v1/image": "PUT, OPTIONS",
    }.items():
        answer = await gateway.request("OPTIONS", path)
        assert (answer.status, answer.headers["Allow"]) == (204, allow)


async def test_path_query_body_and_defaults_make_one_object(gateway: Fronted) -> None:
    answer = await gateway.request("POST", "/v1/skus/A/labels/3?copies=2", JSON, b'{"size": 1.10}')
    assert answer.headers["Content-Type"] == "application/pdf"
    assert got(answer, 202) == (
        "Product.Sku.label",
        {"template": {"size": 1.1}, "code": "A", "page": 3, "copies": 2, "colour": False},
    )
    assert "1.10" in answer.json()["body"]


async def test_what_does_not_fit_is_said(gateway: Fronted) -> None:
    for target, headers, body, status, code in [
        ("/v1/skus/A/labels/x", JSON, b"{}", 404, "unknown_path"),
        ("/v1/skus/A/labels/3?copies=x", JSON, b"{}", 400, "bad_query"),
        ("/v1/skus/A/labels/3?other=1", JSON, b"{}", 400, "bad_query"),
        ("/v1/skus/A/labels/3", JSON, b"{", 400, "bad_body"),
        ("/v1/skus/A/labels/3", [("Content-Type", "text/plain")], b"{}", 415, None),
        ("/v1/skus/A/labels/3", [("Content-Type", "application/vnd.scamp.blob")], b"", 415, None),
        ("/v1/skus/A%2FB/labels/3", JSON, b"{}", 400, "bad_path"),
        ("/v1/skus//labels/3", JSON, b"{}", 400, "bad_path"),
        ("/v1/nothing", JSON, b"{}", 404, "unknown_action"),
    ]:
        answer = await gateway.request("POST", target, headers, body)
        assert (answer.status, answer.json()["code"]) == (status, code or "unsupported_envelope")
    answer = await gateway.request("GET", "/v1/skus/7", body=b"{}")
    assert (answer.status, answer.json()["code"]) == (400, "bad_framing")
    assert gateway.mesh.in_flight == 0


async def test_raw_bodies_go_through_as_they_are(gateway: Fronted) -> None:
    picture = bytes(range(256)) * 4096
    answer = await gateway.request("PUT", "/v1/image", [("Content-Type", "image/PNG")], picture)
    assert (answer.status, answer.body) == (200, picture)
    assert answer.headers["Content-Type"] == "image/png"
    for headers in ([], [("Content-Type", "text/html")], JSON):
        answer = await gateway.request("PUT", "/v1/image", headers, b"x")
        assert (answer.status, answer.headers["Accept"]) == (415, "image/*, multipart/form-data")


async def test_the_service_is_told_the_whole_content_type() -> None:
    peer = ScriptedPeer(actions=("Product.Image.put",), envelopes=("blob", "csv"))
    options = FrontOptions(media_types={"text/csv": "csv"})
    form = "multipart/form-data; boundary=x7y"
    async with Fronted(peer, routes=ROUTES, options=options) as gateway:
        await gateway.request("PUT", "/v1/image", [("Content-Type", form)], b"--x7y--")
        assert peer.headers[-1]["content_type"] == form
        assert peer.headers[-1]["envelope"] == "blob"
        fields = [("Content-Type", "Text/CSV; charset=latin1")]
        answer = await gateway.request("POST", "/api/Product.Image.put", fields, b"a;b")
        assert (answer.headers["Content-Type"], answer.body) == ("text/csv", b"a;b")
        assert peer.headers[-1]["content_type"] == "Text/CSV; charset=latin1"
        assert peer.headers[-1]["envelope"] == "csv"
        for value in ("multipart/form-data; boundary=" + "x" * 300, "multipart/form-data; b=ü"):
            answer = await gateway.request("PUT", "/v1/image", [("Content-Type", value)], b"x")
            assert (answer.status, answer.json()["code"]) == (400, "bad_header")


async def test_a_form_comes_through_with_its_boundary(gateway: Fronted) -> None:
    form = aiohttp.FormData()
    form.add_field(
        "picture", b"\x89PNG\r\n--not-a-boundary", filename="a.png", content_type="image/png"
    )
    form.add_field("title", "Lämp")
    url = f"http://127.0.0.1:{gateway.port}/v1/image"
    async with (
        aiohttp.ClientSession() as session,
        session.put(url, data=form) as answer,
    ):
        assert answer.status == 200
        body = await answer.read()
        sent_as = answer.request_info.headers["Content-Type"]
    message = BytesParser(policy=policy.HTTP).parsebytes(
        f"Content-Type: {sent_as}\r\n\r\n".encode() + body
    )
    parts = [part.get_payload(decode=True) for part in message.iter_parts()]
    assert parts == [b"\x89PNG\r\n--not-a-boundary", "Lämp".encode()]


async def test_an_envelope_of_the_routes_own_is_for_its_types_alone() -> None:
    text = '[[routes]]\nmethod = "PUT"\npath = "/b"\naction = "Test.echo"\nenvelope = "BLOB"'
    peer = ScriptedPeer(envelopes=("json", "Blob"))
    options = FrontOptions(media_types={"image/png": "blob", "text/csv": "csv"})
    async with Fronted(peer, routes=text, options=options) as gateway:
        for content_type in (None, "application/vnd.scamp.blob", "image/png; q=1"):
            fields = [("Content-Type", content_type)] if content_type else []
            answer = await gateway.request("PUT", "/b", fields, b"x")
            assert (answer.status, answer.body) == (200, b"x"), content_type
            assert peer.headers[-1]["envelope"] == "Blob"
        for content_type in ("text/html", "application/json", "text/csv"):
            answer = await gateway.request("PUT", "/b", [("Content-Type", content_type)], b"x")
            assert answer.status == 415, content_type
            assert answer.headers["Accept"] == "application/vnd.scamp.blob, image/png"


async def test_what_is_not_json_by_name_is_json_where_a_route_says_so() -> None:
    text = """[[routes]]
    method = "PATCH"
    path = "/v1/all/{id}"
    action = "Test.echo"
    consumes = ["application/json", "application/merge-patch+json"]"""
    merge = [("Content-Type", "application/merge-patch+json")]
    peer = ScriptedPeer(flags="noauth,update")
    async with Fronted(peer, routes=text) as gateway:
        answer = await gateway.request("PATCH", "/v1/all/7", merge, b'{"a":null}')
        assert (answer.status, answer.json()) == (200, {"a": None, "id": "7"})
        assert peer.headers[-1]["content_type"] == "application/merge-patch+json"
        answer = await gateway.request("PATCH", "/v1/all/7", [("Content-Type", "text/x")], b"{}")
        assert (answer.status, answer.json()["code"]) == (415, "unsupported_envelope")
        answer = await gateway.request("PATCH", "/api/Test.echo", merge, b"{}")
        assert (answer.status, answer.headers["Accept"]) == (415, "application/json")


async def test_a_setting_makes_another_type_json_everywhere() -> None:
    peer = ScriptedPeer(actions=("Product.Sku.update",), flags="noauth,update")
    options = FrontOptions(media_types={"application/merge-patch+json": "json"})
    merge = [("Content-Type", "application/merge-patch+json")]
    async with Fronted(peer, routes=ROUTES, options=options) as gateway:
        for path, got in {
            "/v1/skus/7": {"a": None, "code": "7"},
            "/api/Product.Sku.update": {"a": None},
        }.items():
            answer = await gateway.request("PATCH", path, merge, b'{"a":null}')
            assert (answer.status, answer.json()) == (200, got)
            assert peer.headers[-1]["content_type"] == "application/merge-patch+json", path


async def test_get_never_runs_what_does_not_only_read(gateway: Fronted) -> None:
    answer = await gateway.request("GET", "/v1/changing")
    assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, OPTIONS")
    assert (await gateway.request("HEAD", "/v1/changing")).status == 405
    assert got(await gateway.request("DELETE", "/v1/changing?a=1"))[0] == "Product.Sku.update"


async def test_a_body_that_nothing_is_added_to_streams(gateway: Fronted) -> None:
    body = b'{"a":"' + b"x" * 3_000_000 + b'"}'
    answer = await gateway.request("POST", "/v1/all", JSON, body)
    assert got(answer)[1] == {"a": "x" * 3_000_000}


async def test_a_body_that_has_to_be_held_has_a_limit() -> None:
    peer = ScriptedPeer(actions=("Product.Sku.label",))
    limit = 300_000
    async with Fronted(peer, routes=ROUTES, options=FrontOptions(max_mapped_body=limit)) as gateway:
        target = "/v1/skus/A/labels/3"
        body = b'"' + b"x" * (limit - 2) + b'"'
        answer = await gateway.request("POST", target, JSON, body)
        assert answer.json()["template"] == "x" * (limit - 2)
        answer = await gateway.request("POST", target, JSON, body + b" ")
        assert (answer.status, answer.json()["code"]) == (413, "body_too_large")
        wire = await gateway.connect()
        wire.send("POST", target, [*JSON, ("Transfer-Encoding", "chunked")])
        for _ in range(limit // 1000 + 1):
            wire.writer.write(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (413, "close")
        assert len(peer.headers) == 1


async def test_a_flood_of_bodies_that_have_to_be_held_has_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.body.MAX_HELD", 100_000)
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on), actions=("Product.Sku.label",))
    limit, target = 300_000, "/v1/skus/A/labels/3"
    body = b'"' + b"x" * (limit - 2) + b'"'
    options = FrontOptions(max_mapped_body=limit)
    async with Fronted(peer, routes=ROUTES, options=options) as gateway:
        wires = [await gateway.connect() for _ in range(2)]  # twice the limit of one
        for wire in wires:
            wire.send("POST", target, JSON, body)
        await until(lambda: gateway.front._serving.held == 2 * limit)
        refused = await gateway.request("POST", target, JSON, body)
        assert (refused.status, refused.json()["code"]) == (503, "saturated")
        assert refused.headers["Retry-After"] == "1"
        go_on.set()
        assert [(await wire.answer()).status for wire in wires] == [202, 202]
        await gateway.log.until(3)
        assert gateway.front._serving.held == 0
        assert (await gateway.request("POST", target, JSON, body)).status == 202


async def test_a_sector_that_is_not_exposed_can_be_named_by_a_route(gateway: Fronted) -> None:
    assert (await gateway.request("GET", "/api/inner:Secret.Thing.read")).status == 404
    assert (await gateway.request("GET", "/v1/hidden")).status == 200


async def test_the_log_has_the_template_and_the_metrics_the_action(gateway: Fronted) -> None:
    await gateway.request("GET", "/v1/skus/7")
    await gateway.request("TRACE", "/v1/skus/7")
    await gateway.request("POST", "/v1/nothing")
    lines = await gateway.log.until(3)
    assert [(line["route"], line["action"], line["status"]) for line in lines] == [
        ("/v1/skus/{code}", "Product.Sku.fetch", 200),
        ("/v1/skus/{code}", None, 405),
        ("/v1/nothing", "Product.Nothing.here", 404),
    ]
    assert 'action="Product.Sku.fetch~1",method="GET"' in gateway.scrape()
    assert "/v1/" not in gateway.scrape()


async def test_while_the_index_is_not_there_routes_are_unavailable_not_unknown() -> None:
    async with Fronted(routes=ROUTES, status=DiscoveryStatus()) as gateway:
        for method in ("GET", "OPTIONS", "DELETE"):
            answer = await gateway.request(method, "/v1/skus/7")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


async def test_a_route_whose_action_has_left_is_unknown_though_its_path_has_others() -> None:
    text = "".join(
        f'[[routes]]\nmethod = "{method}"\npath = "/x"\naction = "Test.{name}"\n'
        for method, name in (("GET", "gone"), ("PUT", "here"), ("POST", "here"))
    )
    resource = '[[resources]]\npath = "/r"\nnamespace = "Test"\nid = "id"\n'
    async with Fronted(
        ScriptedPeer(actions=("Test.here",), flags="noauth,create"), routes=text + resource
    ) as gateway:

        async def found(method: str, path: str) -> tuple[int, str | None]:
            answer = await gateway.request(method, path)
            assert ("Retry-After" in answer.headers) == (answer.status == 503)
            return answer.status, answer.json().get("code") if answer.body else None

        assert await found("GET", "/x") == (404, "unknown_action")
        assert await found("DELETE", "/x") == (405, "method_not_allowed")
        assert await found("GET", "/r") == (405, "method_not_allowed")
        gateway.status = DiscoveryStatus(loaded=True, stale=True)
        for path in ("/x", "/r"):
            assert await found("GET", path) == (503, "discovery_unavailable"), path
            assert await found("POST", path) == (200 if path == "/x" else 201, None)
            answer = await gateway.request("OPTIONS", path)
            assert "POST" in answer.headers["Allow"]
            assert "GET" not in answer.headers["Allow"]


async def test_routes_follow_the_index_and_the_file() -> None:
    peer = ScriptedPeer(actions=("Product.Sku.fetch",), flags="noauth,read")
    async with Fronted(routes=ROUTES) as gateway, peer:
        assert (await gateway.request("GET", "/v1/skus/7")).status == 404
        gateway.mesh.announce(peer)
        assert (await gateway.request("GET", "/v1/skus/7")).json() == {"code": "7"}
        gateway.front.routing.use_routes(parse_routes(""))
        answer = await gateway.request("GET", "/v1/skus/7")
        assert (answer.status, answer.json()["code"]) == (404, "unknown_path")
        gateway.front.routing.use_routes(parse_routes(ROUTES))
        gateway.mesh.remove(peer)
        assert (await gateway.request("GET", "/v1/skus/7")).json()["code"] == "unknown_action"


ODD: Final = """
[[routes]]
method = "GET"
path = "/needs"
action = "Test.open"
ticket = true
[[routes]]
method = "GET"
path = "/free"
action = "Test.closed"
ticket = false
[[routes]]
method = "GET"
path = "/closed"
action = "Test.closed"
"""


async def test_a_route_may_need_a_ticket_or_not(
    ticket_key: RSAPrivateKey, make_ticket: Callable[..., str]
) -> None:
    async def table() -> bytes:
        return b'{"test.closed": [3], "_NAMES": []}'

    authz = AuthzSource(table)
    auth = Authenticator("enforce", TicketVerifier([ticket_key.public_key()]), authz)
    peers = (
        ScriptedPeer(actions=("Test.open",), flags="noauth,read"),
        ScriptedPeer(actions=("Test.closed",), flags="read", identity=make_identity(1)),
    )
    async with Fronted(*peers, auth=auth, routes=ODD) as gateway:
        poor = [("Authorization", f"Bearer {make_ticket(())}")]
        rich = [("Authorization", f"Bearer {make_ticket((3,))}")]
        bad = [("Authorization", "Bearer 1,2,3,4,5,6")]
        for path, statuses in {
            "/needs": (401, 401, 200, 200),
            "/free": (200, 200, 200, 200),
            "/closed": (401, 401, 403, 200),
        }.items():
            found = [
                (await gateway.request("GET", path, headers)).status
                for headers in ([], bad, poor, rich)
            ]
            assert tuple(found) == statuses, path
    await authz.close()


async def test_a_route_may_have_a_deadline_of_its_own() -> None:
    text = '[[routes]]\nmethod="GET"\npath="/{a}"\naction="Test.echo"\ntimeout = 0.2'
    async with Fronted(
        ScriptedPeer(flags="noauth,read,t60", script=silent), routes=text
    ) as gateway:
        for asked, limit in ((None, "0.2"), ("0.05", "0.05"), ("9", "0.2")):
            fields = [("X-SCAMP-Timeout", asked)] if asked else []
            answer = await gateway.request("GET", "/x", fields)
            assert answer.status == 504
            assert answer.json()["code"] in ("reply_timeout", "queue_timeout")  # a busy machine
            assert f"The limit was {limit} s" in answer.json()["detail"]


async def test_a_route_may_forbid_retries() -> None:
    text = "".join(
        f'[[routes]]\nmethod="GET"\npath="/{path}/{{a}}"\naction="Test.echo"\n{more}\n'
        for path, more in {"once": "retry = false", "more": ""}.items()
    )
    async with Fronted(ScriptedPeer(flags="noauth,read", script=hang_up), routes=text) as gateway:
        assert (await gateway.request("GET", "/once/x")).status == 502
        assert gateway.log.lines[-1]["attempts"] == 1
        assert (await gateway.request("GET", "/more/x")).status == 502
        assert gateway.log.lines[-1]["attempts"] > 1


async def test_a_services_own_error_keeps_its_status_under_a_route() -> None:
    peer = ScriptedPeer(
        actions=("Product.Sku.create",), flags="noauth,create", script=failing("conflict", "there")
    )
    async with Fronted(peer, routes=ROUTES) as gateway:
        answer = await gateway.request("POST", "/v1/skus", body=b"{}")
        assert (answer.status, answer.json()["upstream_code"]) == (409, "conflict")


async def test_no_template_takes_what_is_the_gateways_own() -> None:
    """It would serve every action below /api/ with its own one, and without a ticket."""
    wide = """
    [[routes]]
    method = ["GET", "POST"]
    path = "/{tenant}/{thing}"
    action = "Shop.other"
    ticket = false

    [[routes]]
    method = "GET"
    path = "/{thing}"
    action = "Shop.other"
    """
    peer = ScriptedPeer(actions=("Shop.other", "Shop.pay"), flags="read")
    async with Fronted(peer, routes=wide) as gateway:
        for path, status in (
            ("/api/Shop.pay", 200),
            ("/api/Shop.nothing", 404),
            *(("/api/pay", 404), ("/api", 404), ("/docs/x", 404), ("/whoami", 404)),
            *(("/openapi.json", 404), ("/apis/Shop.pay", 200), ("/api2", 200)),
        ):
            answer = await gateway.request("GET", path)
            line = gateway.log.lines[-1]
            assert answer.status == status, path
            taken = (line["route"] or "").startswith("/{t")
            assert taken == path.startswith(("/apis", "/api2")), path
        allowed = (await gateway.request("OPTIONS", "/api/Shop.pay")).headers["Allow"]
        assert allowed == "GET, HEAD, POST, OPTIONS"
