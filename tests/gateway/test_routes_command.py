"""What is reachable, who may, and where a request goes: the surface, its tables, --explain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result
from offers import registry_of, service

from gateway.actions import check_method
from gateway.assembly import Assembly
from gateway.cli import main
from gateway.commands.explained import explained
from gateway.commands.routes import as_dict, lines_of
from gateway.exchange import Exchange
from gateway.explain import MAX_CONSIDERED, Explanation, explain
from gateway.metrics import Metrics
from gateway.offline import Offline
from gateway.own import own_entries
from gateway.problems import Problem
from gateway.routes.load import parse_routes
from gateway.routes.model import RouteTable
from gateway.routing import Routing
from gateway.settings import Settings
from gateway.surface import Access, Entry, Surface, surface
from gateway.translate import split_target
from scamp import keys
from scamp.authz import AuthzTable
from scamp.discovery import (
    Action,
    AnnouncementSpec,
    DiscoveryStatus,
    build_announcement,
    new_identity,
    write_cache,
)
from scamp.testing import make_identity
from stand import Stand

ROUTES: Final = """\
[[resources]]
path = "/v1/skus"
namespace = "Product.Sku"
id = "code"

[[routes]]
method = "GET"
path = "/v1/skus/{number:int}"
action = "Product.Sku.fetch"
timeout = 5
rate = "10/s"
retry = false

[[routes]]
method = "PUT"
path = "/v1/skus/{code}/price"
action = "Product.Price.set"
body = "price"
defaults = {currency = "EUR"}
ticket = false

[[routes]]
method = ["GET", "POST"]
path = "/v1/gone"
action = "Product.Gone.away"

[[routes]]
method = "GET"
path = "/v1/set"
action = "Product.Price.set"

[[routes]]
method = "GET"
path = "/v1/pages/{page}"
action = "web:Page.show~2"
query = {lang = "string"}
ticket = true
"""

SHOP: Final = (
    "Product.Sku.list read",
    "Product.Sku.fetch read,t30",
    "Product.Sku.create create",
    "Product.Sku.destroy destroy",
    "Product.Price.set update",
    "Product.Sku.ping noauth,read",
)
TABLE: Final = {
    "product.sku.list": [1],
    "product.sku.fetch": [1, 9],
    "product.sku.create": [],
    "_NAMES": [None, "sku_read"],
}

pytestmark = pytest.mark.usefixtures("bare_environment")


def mesh(routes: str = ROUTES, table: dict[str, Any] | None = TABLE) -> Offline:
    return Offline(
        registry=registry_of(
            service("shop-1", *SHOP),
            service("shop-2", *SHOP, number=1),
            service("shop-3", *SHOP, weight=0, number=2),
            service("pages", "web:Page.show~2 noauth,read", "web:Page.list read"),
            service("site", sector="web"),
            service("odd", Action("main", "Ünicode", "name", 1)),
        ),
        routes=parse_routes(routes, "folder/routes.toml"),
        authz=None if table is None else AuthzTable.parse(json.dumps(table).encode()),
    )


def view_of(given: Offline | None = None, own: tuple[Entry, ...] = (), **settings: Any) -> Surface:
    given = given or mesh()
    return surface(given.registry, given.routes, Settings(**settings), given.authz, own)


def by_url(entries: tuple[Entry, ...]) -> dict[str, Entry]:
    found = {f"{entry.methods[0]} {entry.url}": entry for entry in entries}
    assert len(found) == len(entries)
    return found


# -- what is reachable ------------------------------------------------------------------


def test_every_action_of_an_exposed_sector_has_its_url() -> None:
    view = view_of()
    assert [entry.url for entry in view.actions] == [
        "/api/Product.Price.set",
        "/api/Product.Sku.create",
        "/api/Product.Sku.destroy",
        "/api/Product.Sku.fetch",
        "/api/Product.Sku.list",
        "/api/Product.Sku.ping",
    ]
    assert view.hidden == {"web": 2}
    assert view.unnamed == ("Ünicode.name~1",)
    other = view_of(sectors=("WEB",))
    assert [entry.url for entry in other.actions] == ["/api/web:Page.list", "/api/web:Page.show~2"]
    assert other.hidden == {"main": 7}


def test_aliases_say_what_they_stand_for_and_between_what() -> None:
    found = by_url(view_of().aliases)
    assert list(found) == [
        "POST /api/Product.Price._update",
        "POST /api/Product.Sku._create",
        "POST /api/Product.Sku._destroy",
        "GET /api/Product.Sku._read",
    ]
    read = found["GET /api/Product.Sku._read"]
    assert read.action is not None
    assert read.action.label == "Product.Sku.ping~1"  # the last one of each service
    assert read.candidates == ("Product.Sku.fetch", "Product.Sku.list", "Product.Sku.ping")


def test_routes_are_as_they_make_the_action() -> None:
    found = by_url(view_of().routes)
    number = found["GET /v1/skus/{number:int}"]
    assert (number.timeout, number.retry, number.rate) == (5, False, "10/s")
    assert number.instances == 2  # the third is leaving
    assert number.origin == ("folder/routes.toml:6",)
    assert found["GET /v1/skus/{code}"].retry
    assert found["GET /v1/skus/{code}"].target == "Product.Sku.ping~1"
    gone = found["POST /v1/gone"]
    assert gone.broken
    assert gone.problem == "no service announces Product.Gone.away~1"
    assert gone.access is None
    assert found["GET /v1/set"].problem.startswith("GET needs an action flagged read")
    update = found["PUT /v1/skus/{code}"]
    assert update.problem
    assert not update.broken  # a resource need not have it


@pytest.mark.parametrize(
    ("url", "enforced", "without_table", "verified"),
    [
        ("GET /api/Product.Sku.list", "sku_read", "a ticket (?)", "any ticket"),
        ("GET /api/Product.Sku.fetch", "sku_read + 9", "a ticket (?)", "any ticket"),
        ("POST /api/Product.Sku.create", "any ticket", "a ticket (?)", "any ticket"),
        ("POST /api/Product.Sku.destroy", "nobody", "a ticket (?)", "any ticket"),
        ("GET /api/Product.Sku.ping", "everybody", "everybody", "everybody"),
        ("PUT /v1/skus/{code}/price", "everybody", "everybody", "everybody"),
        ("GET /v1/pages/{page}", "any ticket", "any ticket", "any ticket"),
    ],
)
def test_who_may(url: str, enforced: str, without_table: str, verified: str) -> None:
    def who(given: Offline, **settings: Any) -> str:
        view = view_of(given, **settings)
        return str(by_url(view.routes + view.actions)[url].access)

    assert who(mesh()) == enforced
    assert who(mesh(table=None)) == without_table
    assert who(mesh(), auth_mode="verify") == verified
    assert who(mesh(), auth_mode="forward") == "service decides"


# -- where a request goes ---------------------------------------------------------------


def explained_of(request: str, **settings: Any) -> Explanation:
    given = mesh()
    own = (
        Entry("gateway", ("GET", "HEAD"), "/whoami", Access("ticket")),
        Entry("gateway", ("GET", "HEAD"), "/docs/{file}", Access("open")),
    )
    return explain(request, view_of(given, own, **settings), given.routes)


@pytest.mark.parametrize(
    ("request_", "url", "members", "body"),
    [
        ("/v1/skus/7", "/v1/skus/{number:int}", {"number": 7}, "none; "),
        ("GET /v1/skus/7?x=1", "/v1/skus/{number:int}", {"number": 7, "x": "1"}, "none; "),
        ("head /v1/skus/a%20b", "/v1/skus/{code}", {"code": "a b"}, "none; "),
        ("POST /v1/skus", "/v1/skus", {}, "goes through as it comes"),
        (
            *("PUT /v1/skus/x/price", "/v1/skus/{code}/price"),
            *({"code": "x", "currency": "EUR"}, "any JSON value; it becomes the member 'price'"),
        ),
        ("GET /v1/pages/a?lang=de", "/v1/pages/{page}", {"page": "a", "lang": "de"}, "none; "),
        (
            *("GET /api/product.sku.LIST?a=1&a=2", "/api/Product.Sku.list"),
            *({"a": ["1", "2"]}, "none; "),
        ),
        ("POST /api/Product.Sku._create", "/api/Product.Sku._create", None, "goes through"),
        ("DELETE /api/Product.Sku.destroy?a=1", "/api/Product.Sku.destroy", {"a": "1"}, "goes"),
        ("OPTIONS /api/Product.Sku.destroy", "/api/Product.Sku.destroy", None, "no matter"),
        ("OPTIONS /v1/skus/7", "/v1/skus/{number:int}", None, "no matter"),
        ("/whoami", "/whoami", None, ""),
        ("/docs/a/b.css", "/docs/{file}", None, ""),
    ],
)
def test_what_the_action_gets(
    request_: str, url: str, members: dict[str, Any] | None, body: str
) -> None:
    found = explained_of(request_)
    assert found.status is None, found.says
    assert found.entry is not None
    assert (found.entry.url, found.members) == (url, members)
    assert found.body.startswith(body)


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        ("/v1/skus/../x", 400, "The path has a dot segment."),
        ("/v1/pages/a?lung=de", 400, "There is no query parameter 'lung'; there are lang."),
        ("/api/a/b", 404, "No route takes this path, and nothing else does."),
        ("/api/Product.Sku.fotch", 404, "No service announces Product.Sku.fotch~1."),
        ("/api/web:Page.show~2", 404, "Sector web is not exposed."),
        ("/v1/gone", 404, "No service announces Product.Gone.away~1."),
        ("/v1/set", 404, "GET needs an action flagged read, and Product.Price.set~1 is not."),
        ("PUT /v1/skus/7", 405, "PUT is not taken here; GET, HEAD, DELETE are. No service "),
        ("POST /v1/skus/7", 405, "POST is not taken here; GET, HEAD, DELETE are."),
        ("PATCH /api/Product.Sku.list", 405, "PATCH is not taken here; GET, HEAD, POST are."),
        ("POST /whoami", 405, "POST is not taken here; GET, HEAD are."),
    ],
)
def test_what_the_gateway_answers_by_itself(request_: str, status: int, says: str) -> None:
    found = explained_of(request_)
    assert found.status == status
    assert found.says.startswith(says)


@pytest.mark.parametrize("text", ["", "GRAB /x", "GET  ", "GET /a b", "TRACE /x"])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"method|METHOD"):
        explained_of(text)


PATHS: Final = [
    *("/v1/skus", "/v1/skus/", "/v1/skus/7", "/v1/skus/x", "/v1/skus/x/price", "/v1/gone"),
    *("/v1/set", "/v1/pages/x", "/v1", "/", "/api/", "/api/Product.Sku.list", "/api/nothing"),
    *("/api/Product.Sku._read", "/api/Product.Sku._update", "/api/web:Page.list"),
    *("/api/Product.Sku.list~2", "/api/product.SKU.destroy", "/api/x.y~01", "/a//b"),
]


@pytest.mark.parametrize("path", PATHS)
async def test_it_says_what_the_gateway_does(path: str) -> None:
    """Which action is called, or which status is answered, is what `Routing` comes to."""
    given = mesh()
    routing = Routing(
        given.registry,
        lambda: DiscoveryStatus(loaded=True),
        Metrics(given.registry),
        sectors=("main",),
        default_timeout=75.0,
    )
    routing.use_routes(given.routes)
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        exchange = Mock(spec=Exchange)
        status, label = None, ""
        try:
            decoded, _ = split_target(path)
            routed = routing.routed(method, decoded, exchange)
            known = routing.find(path, exchange) if routed is None else routed.known
            if routed is None and method != "OPTIONS":
                check_method(method, known.action)
            label = known.action.label
        except Problem as problem:
            status = problem.status
        found = explain(f"{method} {path}", view_of(given), given.routes)
        assert found.status == status, (method, found.says)
        if status is None and method != "OPTIONS":
            assert found.entry is not None
            assert found.entry.action is not None
            assert found.entry.action.label == label


def test_a_method_whose_action_has_left_is_unknown_though_others_are_there() -> None:
    text = "".join(
        f'[[routes]]\nmethod = "{method}"\npath = "/x"\naction = "{action}"\n'
        for method, action in (("GET", "Product.Sku.gone"), ("PUT", "Product.Price.set"))
    )
    given = mesh(text)
    found = {
        method: explain(f"{method} /x", view_of(given), given.routes).status
        for method in ("GET", "PUT", "DELETE")
    }
    assert found == {"GET": 404, "PUT": None, "DELETE": 405}


def test_other_routes_are_told_with_the_reason() -> None:
    def others(request: str) -> list[tuple[str, str]]:
        return [(one.route.template, one.why) for one in explained_of(request).considered]

    taken = others("GET /v1/skus/7")
    assert taken[0] == (
        *("/v1/skus/{code}", "fits too; a literal segment goes first, then the narrower type"),
    )
    assert taken[1:] == [
        ("/v1/skus/{code}", "takes PUT, PATCH only"),
        ("/v1/skus/{code}", "takes DELETE only"),
        ("/v1/pages/{page}", "'skus' is not 'pages'"),
    ]
    assert others("PUT /v1/skus/7/Price")[0] == (
        *("/v1/skus/{code}/price", "'Price' is not 'price': case counts"),
    )
    assert others("GET /v1/pages/")[0] == ("/v1/pages/{page}", "'' is not a text, as {page} wants")
    assert ("/v1/gone", "the path ends in a slash") in others("GET /v1/gone/")
    assert others("GET /v2/gone")[0] == ("/v1/gone", "'v2' is not 'v1'")
    assert others("POST /v1/sets")[0] == ("/v1/skus", "'sets' is not 'skus'")


def test_a_type_that_does_not_fit_is_told() -> None:
    routes = '[[routes]]\nmethod = "GET"\npath = "/v1/{id:int}"\naction = "Product.Sku.fetch"\n'
    given = mesh(routes)
    (one,) = explain("/v1/x5", view_of(given), given.routes).considered
    assert one.why == "'x5' is not a whole number of at most 18 digits, as {id:int} wants"


def test_of_very_many_routes_the_nearest_are_told() -> None:
    routes = "".join(
        f'[[routes]]\nmethod = "GET"\npath = "/v1/a{number}"\naction = "Product.Sku.fetch"\n'
        for number in range(100)
    )
    given = mesh(routes)
    assert len(explain("/v1/x", view_of(given), given.routes).considered) == MAX_CONSIDERED
    crossing = "".join(
        f'[[routes]]\nmethod = "GET"\npath = "{path}"\naction = "Product.Sku.fetch"\n'
        for path in (
            "/" + "/".join(f"{{p{at}}}" if number >> at & 1 else "a" for at in range(4))
            for number in range(16)
        )
    )
    given = mesh(crossing)
    assert len(explain("/a/a/a/a", view_of(given), given.routes).considered) == MAX_CONSIDERED


# -- as text ----------------------------------------------------------------------------


def text_of(given: Offline, *, aliases: bool = False, **settings: Any) -> list[str]:
    view = view_of(given, **settings)
    used = Settings(routes="folder/routes.toml", **settings)
    return list(lines_of(view, used, given, aliases=aliases))


def test_the_tables_are_legible_at_100_columns() -> None:
    lines = text_of(mesh(), aliases=True)
    assert max(map(len, lines)) <= 100
    titles = ["ROUTES FILE folder/routes.toml", "ACTIONS", "ALIASES"]
    assert [line for line in lines if line in titles] == titles
    assert all(line == line.rstrip() for line in lines)


def test_routes_that_lead_nowhere_are_marked() -> None:
    lines = text_of(mesh())
    shown = [line.split() for line in lines]
    assert ["GET", "/v1/gone", "Product.Gone.away~1", "!!", "NOWHERE", "22"] in shown
    assert "  !! GET /v1/gone: no service announces Product.Gone.away~1" in lines
    assert "  -- PUT PATCH /v1/skus/{code}: no service announces Product.Sku._update~1" in lines
    assert (
        "11 routes; 3 of them to NOWHERE; 6 actions in main; 4 aliases (--aliases); 6 services"
        in lines
    )
    assert "not exposed: web (2)" in lines
    assert "no URL can name: Ünicode.name~1" in lines
    assert any(line.startswith("nobody: the privilege table does not list") for line in lines)
    assert any(line.startswith("a ticket (?): ") for line in text_of(mesh(table=None)))


def test_what_a_route_changes_is_noted_at_its_line() -> None:
    assert text_of(mesh())[1].endswith("ON  LINE, NOTES")
    (line,) = [line for line in text_of(mesh()) if "{number:int}" in line]
    assert line.split() == [
        *("GET", "/v1/skus/{number:int}", "Product.Sku.fetch~1", "sku_read", "+", "9"),
        *("5", "s", "2", "6", "10/s", "no", "retry"),
    ]


def test_many_privileges_and_many_services_are_counted() -> None:
    names = [None, *(f"privilege_{number}" for number in range(9))]
    given = Offline(
        registry=registry_of(
            *(service(f"shop-{number}", "Sku.fetch read", number=number) for number in range(40))
        ),
        authz=AuthzTable.parse(
            json.dumps({"sku.fetch": list(range(1, 10)), "_NAMES": names}).encode()
        ),
    )
    (line,) = [line for line in text_of(given) if "/api/" in line]
    assert "privilege_0 + privilege_1 + 7 more" in line
    assert line.endswith("40  shop-0 and 39 more")


def test_the_gateways_own_urls_have_a_table() -> None:
    own = Entry("gateway", ("GET", "HEAD"), "/openapi.json", Access("open"))
    lines = list(lines_of(view_of(own=(own,)), Settings(), mesh(), aliases=False))
    at = lines.index("THE GATEWAY'S OWN")
    assert lines[at + 2].split() == ["GET", "/openapi.json", "everybody"]


def test_an_empty_mesh_is_summed_up_too() -> None:
    assert list(lines_of(Surface(), Settings(), Offline(), aliases=False)) == [
        "0 actions in main; 0 services"
    ]


def test_an_explanation_reads_from_top_to_bottom() -> None:
    assert list(explained(explained_of("GET /v1/skus/7?x=1")))[:8] == [
        "GET /v1/skus/7",
        "  taken by GET /v1/skus/{number:int} (folder/routes.toml:6)",
        "  action   Product.Sku.fetch~1 [read,t30], on 2",
        "  who      sku_read + 9",
        "  time     5 s; not sent again once it was written",
        "  rate     10/s for each caller",
        "  {number} = 7",
        '  members  {"x": "1", "number": 7}',
    ]
    assert list(explained(explained_of("/api/product.sku._read")))[2].endswith(
        "Product.Sku.ping~1 [noauth,read], which Product.Sku._read~1 means, on 2"
    )
    assert explained_of("/docs/gone").considered == ()  # no route can have what is below /docs
    assert list(explained(explained_of("/whoami"))) == [
        *("GET /whoami", "  taken by GET /whoami", "  who      any ticket"),
    ]
    assert list(explained(explained_of("/v1/gone")))[1:3] == [
        "  answer   404 unknown_action: No service announces Product.Gone.away~1.",
        "  taken by GET /v1/gone (folder/routes.toml:22)",
    ]


# -- as JSON ----------------------------------------------------------------------------


def test_json_has_every_url_in_a_stable_order() -> None:
    first = as_dict(view_of(), Settings())
    other = Offline(
        registry=registry_of(*reversed(mesh().registry.services())),  # type: ignore[call-overload]
        routes=mesh().routes,
        authz=mesh().authz,
    )
    assert json.dumps(first) == json.dumps(as_dict(view_of(other), Settings()))
    assert [len(first[part]) for part in ("routes", "actions", "aliases", "gateway")] == [
        *(11, 6, 4, 0),
    ]
    found = {f"{one['methods'][0]} {one['url']}": one for one in first["routes"]}
    assert found["GET /v1/skus/{number:int}"] == {
        "methods": ["GET", "HEAD"],
        "url": "/v1/skus/{number:int}",
        "action": "Product.Sku.fetch~1",
        "flags": ["read", "t30"],
        "envelopes": ["json"],
        "timeout": 5.0,
        "retry": False,
        "instances": 2,
        "services": ["shop-1", "shop-2", "shop-3"],
        "access": "privileges",
        "privileges": ["sku_read", "9"],
        "origin": "folder/routes.toml:6",
        "rate": "10/s",
        "problem": None,
        "expected": True,
    }
    assert found["GET /v1/gone"] == {
        "methods": ["GET", "HEAD"],
        "url": "/v1/gone",
        "action": "Product.Gone.away~1",
        "origin": "folder/routes.toml:22",
        "rate": None,
        "problem": "no service announces Product.Gone.away~1",
        "expected": True,
    }
    (alias,) = [one for one in first["aliases"] if one["url"].endswith("_read")]
    assert alias["action"] == "Product.Sku.ping~1"
    assert alias["candidates"] == ["Product.Sku.fetch", "Product.Sku.list", "Product.Sku.ping"]


async def test_what_the_gateway_itself_serves_is_listed(tmp_path: Path) -> None:
    """Whoever adds an endpoint adds it to `own_entries` too."""
    stand = Stand(tmp_path)
    for mode in ("enforce", "forward"):
        loaded = stand.loaded(auth_mode=mode)
        parts = Assembly(loaded, lambda: True)
        try:
            served = {path: one.methods for path, one in parts.endpoints}
            own = own_entries(loaded.settings, parts.registry, None)
            assert {one.url.partition("{")[0]: one.methods for one in own} == served
        finally:
            await parts.close()
        (whoami,) = [one for one in own if one.url == "/whoami"]
        assert str(whoami.access) == ("any ticket" if mode == "enforce" else "service decides")


@pytest.mark.parametrize(
    ("settings", "table", "rest", "others"),
    [
        ({}, {"SHOP-1._events": [1], "shop-2._events": []}, "nobody",
         {"shop-1": "1", "shop-2": "any ticket"}),
        ({}, None, "a ticket (?)", {}),
        ({"auth_mode": "verify"}, None, "any ticket", {}),
        ({"auth_mode": "forward"}, {"shop-1._events": [1]}, "nobody", {}),
        ({"auth_mode": "forward", "events_open": "SHOP-2"}, None, "nobody",
         {"shop-2": "everybody"}),
        ({"events_open": "web:site", "sectors": ("Web",)}, {}, "nobody", {"web:site": "everybody"}),
        ({"events_open": "web:shop-1,web:site,pages"}, {}, "nobody", {"pages": "everybody"}),
    ],
)  # fmt: skip
def test_events_are_listed_where_somebody_else_may_than_elsewhere(
    settings: dict[str, Any], table: dict[str, Any] | None, rest: str, others: dict[str, str]
) -> None:
    given = mesh(table=table)
    found = by_url(own_entries(Settings(**settings), given.registry, given.authz))
    shown = {url: str(one.access) for url, one in found.items() if "events" in url}
    expected = {f"GET /api/events/{name}": who for name, who in others.items()}
    assert shown == {"GET /api/events/{service}": rest, **expected}


# -- the command ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the command reads, on the disk."""
    identity = make_identity(3)
    spec = AnnouncementSpec(
        identity=new_identity("shop"),
        sector="main",
        weight=1,
        interval=5.0,
        uri="beepish+tls://127.0.0.1:30100",
        envelopes=("json",),
        actions=tuple(service("shop", *SHOP).actions),
    )
    key = keys.load_private_key(identity.key)
    write_cache(
        tmp_path / "cache", [build_announcement(spec, key, identity.certificate, timestamp=1.8e9)]
    )
    (tmp_path / "routes.toml").write_text(ROUTES)
    return tmp_path


def run(folder: Path, *more: str, routes: bool = True) -> Result:
    given = ["routes", "--discovery-cache", str(folder / "cache")]
    if routes:
        given += ["--routes", str(folder / "routes.toml")]
    return CliRunner().invoke(main, [*given, *more])


def test_the_command_needs_no_more_than_the_cache_file(folder: Path) -> None:
    result = run(folder, routes=False)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("ACTIONS\nMETHOD")
    assert "6 actions in main" in result.stdout
    assert CliRunner().invoke(main, ["routes"]).exit_code == 2


def test_patterns_choose_urls_and_actions(folder: Path) -> None:
    def chosen(*arguments: str) -> list[str]:
        shown = json.loads(run(folder, "--json", *arguments).stdout)
        return [f"{one['methods'][0]} {one['url']}" for part in ("routes", "actions")
                for one in shown[part]]  # fmt: skip

    assert chosen("--url", "/v1/s*t") == ["GET /v1/set"]
    assert chosen("--url", "price") == ["PUT /v1/skus/{code}/price"]
    assert chosen("--url", "{number:int}") == ["GET /v1/skus/{number:int}"]
    assert chosen("--url", "[a-z]") == []
    assert chosen("--action", "product.PRICE.*") == [
        *("GET /v1/set", "PUT /v1/skus/{code}/price", "POST /api/Product.Price.set"),
    ]
    assert chosen("--action", "price", "--url", "/api/*") == ["POST /api/Product.Price.set"]


def test_check_ends_with_1_when_a_route_leads_nowhere(folder: Path) -> None:
    assert run(folder).exit_code == 0
    assert run(folder, "--check").exit_code == 1
    assert run(folder, "--check", "--json").exit_code == 1
    assert run(folder, "--check", "--url", "/v1/skus").exit_code == 1, "all count, not those shown"
    (folder / "routes.toml").write_text(ROUTES[: ROUTES.index('[[routes]]\nmethod = ["GET"')])
    assert run(folder, "--check").exit_code == 0


def test_explain_ends_with_0_when_an_action_gets_the_request(folder: Path) -> None:
    result = run(folder, "--explain", "GET /v1/skus/5")
    assert result.exit_code == 0
    assert result.stdout.startswith("GET /v1/skus/5\n  taken by GET /v1/skus/{number:int} (")
    assert run(folder, "--explain", "GET /v1/gone").exit_code == 1
    refused = run(folder, "--explain", "GRAB /")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("scamp-gateway: --explain: 'GRAB' is no method; there are ")
    shown = json.loads(run(folder, "--json", "--explain", "/v1/skus/5?x=1").stdout)
    assert shown["members"] == {"x": "1", "number": 5}
    assert shown["parameters"] == {"number": 5}
    assert shown["taken_by"]["origin"].endswith("routes.toml:6")
    assert shown["status"] is None
    assert shown["considered"][0]["why"].startswith("fits too")
    gone = json.loads(run(folder, "--json", "--explain", "/v1/gone").stdout)
    assert (gone["status"], gone["code"]) == (404, "unknown_action")


def test_help_names_the_exit_codes() -> None:
    for command in ("routes", "audit"):
        shown = CliRunner().invoke(main, [command, "--help"]).output
        assert "Exit codes:\n    0  " in shown
        assert "--discovery-cache FILE" in shown
    listed = CliRunner().invoke(main, ["--help"]).output
    assert re.search(r"  routes +Show every URL and where it leads\.", listed)


def test_an_empty_routes_file_is_no_reason_for_a_table(folder: Path) -> None:
    (folder / "routes.toml").write_text("")
    assert "ROUTES FILE" not in run(folder).stdout
    assert "0 routes; 6 actions" in run(folder).stdout
    assert explain("/x", Surface(), RouteTable()).status == 404
