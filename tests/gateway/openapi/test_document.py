"""The document as a whole: valid, the same whatever the order, and what is in it for whom."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from gateway.actions import Announced
from gateway.credentials import AuthMode
from gateway.openapi.document import build
from gateway.openapi.operations import Facts, operation_id
from gateway.openapi.own import own_items
from gateway.openapi.sections import Section, Sections
from gateway.openapi.sight import ALL, OPEN, Sight, lead, select
from gateway.routes.load import parse_routes
from scamp.authz import AuthzTable
from scamp.discovery import Action, Announcement, Registry
from scamp.discovery.model import action_key

OWN = set(own_items(Facts()))

FETCH = {
    "title": "Fetch",
    "type": "object",
    "required": ["code"],
    "properties": {
        "code": {"type": "string", "minLength": 1},
        "lang": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "deep": {"type": "array", "items": {"type": "string"}},
        "bad\nname": {"type": "string"},
    },
}


def action(
    spelling: str,
    *flags: str,
    sector: str = "main",
    version: int = 1,
    envelopes: tuple[str, ...] = ("json",),
) -> Action:
    namespace, _, name = spelling.rpartition(".")
    return Action(sector, namespace, name, version, flags, envelopes)


def service(*actions: Action, identity: str = "s", fingerprint: str = "F") -> Announcement:
    return Announcement(
        *(identity, fingerprint, "main", 1, 5.0, "beepish+tls://h:1", "h", 1),
        *(("json",), actions, 1.0),
    )


def registry(*services: Announcement) -> Registry:
    made = Registry()
    made.apply(added=services)
    return made


def shown(
    *services: Announcement,
    sight: Sight = ALL,
    routes: str = "",
    sections: Sections | None = None,
    limit: int = 1000,
    sectors: tuple[str, ...] = ("main",),
    **facts: Any,
) -> dict[str, Any]:
    """The document, which is valid."""
    index = registry(*services)
    selection = select(index.actions(), sight, sectors=sectors, default_timeout=75, limit=limit)
    text = build(
        selection.actions,
        Facts(**facts),
        routes=lead(index, parse_routes(routes), sight, default_timeout=75),
        sections=sections,
        own=own_items(Facts(**facts)),
        left_out=selection.left_out,
    )
    document: dict[str, Any] = orjson.loads(text)
    validate(document)
    return document


def described(spelling: str, **section: Any) -> dict[str, Section]:
    schemas: dict[str, Any] = {
        name: orjson.dumps(value) if name in ("request", "reply") else value
        for name, value in section.items()
    }
    return {action_key("main", spelling, 1): Section(**schemas)}


def actions_of(document: dict[str, Any]) -> set[str]:
    paths = set(document["paths"]) - OWN
    return {path.removeprefix("/api/") for path in paths if path.startswith("/api/")}


def names(operation: dict[str, Any], where: str) -> set[str]:
    return {one["name"] for one in operation["parameters"] if one.get("in") == where}


# -- operations of actions --------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "methods"),
    [
        ((), {"post"}),
        (("read",), {"post", "get", "head"}),
        (("update",), {"post", "put", "patch"}),
        (("destroy", "create"), {"post", "delete"}),
    ],
)
def test_methods_are_those_that_the_flags_allow(flags: tuple[str, ...], methods: set[str]) -> None:
    document = shown(service(action("Shop.Sku.do", *flags)))
    assert set(document["paths"]["/api/Shop.Sku.do"]) == methods


def test_path_leaves_out_what_goes_without_saying() -> None:
    document = shown(
        service(action("A.b", version=2), action("A.b"), action("C.d", sector="web")),
        sectors=("MAIN", "web"),
    )
    assert actions_of(document) == {"A.b", "A.b~2", "web:C.d"}


def test_query_has_the_members_that_a_query_can_carry() -> None:
    document = shown(
        service(action("Shop.fetch", "read", "t30", "odd")),
        sections=described("Shop.fetch", request=FETCH, summary="Get it", description="Now."),
    )
    get = document["paths"]["/api/Shop.fetch"]["get"]
    assert names(get, "query") == {"code", "lang"}
    assert next(one for one in get["parameters"] if one.get("required"))["name"] == "code"
    assert (get["summary"], get["description"], get["tags"]) == ("Get it", "Now.", ["Shop"])
    assert get["x-scamp-action"] == "Shop.fetch~1"
    assert get["x-scamp-timeout"] == 30
    assert get["x-scamp-flags"] == ["odd", "read"]
    assert get["x-scamp-retry"] == "always"
    post = document["paths"]["/api/Shop.fetch"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Shop.Fetch"}
    assert post["requestBody"]["required"] is True


def test_without_a_schema_the_query_is_free() -> None:
    document = shown(service(action("Shop.fetch", "read")))
    (query,) = [
        one for one in document["paths"]["/api/Shop.fetch"]["get"]["parameters"] if "in" in one
    ]
    assert query["explode"] is True
    assert query["schema"]["type"] == "object"


def test_destroying_takes_a_body_where_a_query_would_not_do() -> None:
    deep = {"type": "object", "required": ["deep"], "properties": {"deep": {"type": "object"}}}
    for request, by_query in ((FETCH, True), (deep, False)):
        document = shown(
            service(action("Shop.remove", "destroy")),
            sections=described("Shop.remove", request=request),
        )
        delete = document["paths"]["/api/Shop.remove"]["delete"]
        assert ("requestBody" in delete) is not by_query


def test_content_types_are_those_of_the_announced_envelopes() -> None:
    document = shown(
        service(action("Shop.draw", "read", envelopes=("json", "png", "PNG", "a b"))),
        service(action("Shop.only", "read", envelopes=("png",)), identity="other"),
        media_types={"image/png": "png"},
    )
    post = document["paths"]["/api/Shop.draw"]["post"]
    assert set(post["requestBody"]["content"]) == {
        *("application/json", "application/vnd.scamp.PNG", "image/png"),
    }
    assert set(post["responses"]["200"]["content"]) == {"application/json", "image/png"}
    # A query is JSON, so nothing that takes none can be read with one.
    assert set(document["paths"]["/api/Shop.only"]) == {"post"}


@pytest.mark.parametrize(
    ("mode", "flags", "statuses", "security"),
    [
        ("enforce", (), {"401", "403"}, True),
        ("verify", (), {"401"}, True),
        ("forward", (), set(), True),
        ("enforce", ("noauth",), set(), False),
    ],
)
def test_tickets_are_told_of_where_they_are_needed(
    mode: AuthMode, flags: tuple[str, ...], statuses: set[str], security: bool
) -> None:
    document = shown(service(action("A.b", *flags)), mode=mode, cookie="ticket")
    post = document["paths"]["/api/A.b"]["post"]
    assert {"401", "403"} & set(post["responses"]) == statuses
    assert bool(post["security"]) is security
    assert ({} in post["security"]) is (mode == "forward")
    assert document["components"]["securitySchemes"]["ticketCookie"]["name"] == "ticket"
    assert {"413"} & set(post["responses"]) == set()
    limited = shown(service(action("A.b")), limited=True, rated=True)
    assert {"413", "429"} <= set(limited["paths"]["/api/A.b"]["post"]["responses"])


def test_operation_ids_differ_though_names_look_alike() -> None:
    alike = [
        "A.b_c",
        "A.b.c",
        "A_b.c",
        "A.b-c",
        "A-b.c",
        "A.b.v2",
        "A..b.c",
        "_A.b",
        "A.b.x12345678",
    ]
    document = shown(
        service(
            *(action(one, "read") for one in alike),
            *(action(one, version=2) for one in ("A.b", "A.b_c")),
            action("A.b.c", sector="web"),
            action("web.A.b.c"),
        ),
        sectors=("main", "web"),
    )
    ids = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    ]
    assert len(ids) == len(set(ids)) == 3 * len(alike) + 4 + 5
    assert {"get_A_b__c", "get_A_b_c", "post_A_b_v2"} <= set(ids)


def test_operation_id_does_not_depend_on_what_else_there_is() -> None:
    (one,) = select(
        registry(service(action("Product.Sku.fetch"))).actions(),
        *(ALL,),
        sectors=["main"],
        default_timeout=1,
        limit=1,
    ).actions
    assert operation_id("GET", one) == "get_Product_Sku_fetch"


def test_operation_ids_of_routes_differ_though_templates_look_alike() -> None:
    alike = ["/a/b", "/a_b", "/a-b", "/a/{b}", "/a/by/b", "/A/b"]
    text = "".join(
        f'[[routes]]\nmethod = "POST"\npath = "{path}"\naction = "A.b"\n' for path in alike
    )
    document = shown(service(action("A.b")), routes=text)
    ids = [document["paths"][path]["post"]["operationId"] for path in alike]
    assert ids[0] == "route_post_a_b"
    assert ids[3] == "route_post_a_by_b"
    assert len(set(ids)) == len(alike)


# -- routes -----------------------------------------------------------------------------

ROUTES = """
[[resources]]
path = "/v1/skus"
namespace = "Shop.Sku"
id = "code"

[[routes]]
method = "GET"
path = "/v1/skus/{number:int}"
action = "Shop.Sku.fetch"

[[routes]]
method = "POST"
path = "/v1/skus/{sku}/price/{day:int}"
action = "Shop.Price.set"
body = "price"
status = 202
timeout = 2.5
ticket = false
retry = false
rate = "10/s"
summary = "Set it"
query = { dry = "bool", tag = { many = true, required = true, description = "Tags" } }

[[routes]]
method = "GET"
path = "/v1/skus/{sku}/price/{day:int}"
action = "Shop.Price.set"

[[routes]]
method = "PUT"
path = "/v1/image"
action = "Shop.Sku.draw"
envelope = "png"
produces = "text/plain"
consumes = ["image/*"]

[[routes]]
method = "POST"
path = "/v1/gone"
action = "Shop.Sku.gone"
"""
SKU = service(
    action("Shop.Sku.fetch", "read"),
    action("Shop.Sku.create", "create"),
    action("Shop.Sku.update", "update"),
    action("Shop.Price.set", "update"),
    action("Shop.Sku.draw", envelopes=("png",)),
)


def test_routes_stand_beside_the_actions() -> None:
    update = {**FETCH, "required": ["code", "deep"]}
    document = shown(SKU, routes=ROUTES, sections=described("Shop.Sku.update", request=update))
    paths = document["paths"]
    assert {one for one in paths if one.startswith("/v1")} == {
        *("/v1/skus", "/v1/skus/{code}", "/v1/skus/{sku}/price/{day}", "/v1/image"),
    }
    # The template with a number is the same path here, and GET is there already.
    assert document["x-scamp-left-out"] == {"routes": 2}
    assert set(paths["/v1/skus"]) == {"get", "head", "post"}
    assert paths["/v1/skus"]["get"]["x-scamp-action"] == "Shop.Sku.fetch~1"
    body = paths["/v1/skus/{code}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["deep"]
    assert "code" not in body["properties"]


def test_route_is_told_as_the_file_has_it() -> None:
    document = shown(SKU, routes=ROUTES)
    item = document["paths"]["/v1/skus/{sku}/price/{day}"]
    assert set(item) == {"post"}, "GET never runs what does not only read"
    post = item["post"]
    assert names(post, "path") == {"sku", "day"}
    assert names(post, "query") == {"dry", "tag"}
    assert post["security"] == []
    assert post["x-scamp-timeout"] == 2.5
    assert post["x-scamp-retry"] == "not-sent"
    assert post["summary"] == "Set it"
    assert "429" in post["responses"]
    assert "429" not in document["paths"]["/v1/skus"]["post"]["responses"]
    assert list(post["responses"]["202"]["content"]) == ["application/json"]
    put = document["paths"]["/v1/image"]["put"]
    assert list(put["requestBody"]["content"]) == ["image/*"]
    assert list(put["responses"]["200"]["content"]) == ["text/plain"]
    (tags,) = [one for one in post["parameters"] if one.get("name") == "tag"]
    assert tags["required"]
    assert tags["schema"] == {"type": "array", "items": {"type": "string"}}
    (sku,) = [one for one in post["parameters"] if one.get("name") == "sku"]
    assert sku["schema"]["type"] == "string"


# -- who sees what ----------------------------------------------------------------------

TABLE = AuthzTable({"a.read": frozenset({1}), "a.both": frozenset({1, 2})})
MIXED = service(
    action("A.read"), action("A.both"), action("A.unlisted"), action("A.open", "noauth")
)


@pytest.mark.parametrize(
    ("sight", "seen"),
    [
        (OPEN, {"A.open"}),
        (Sight(table=TABLE), {"A.open"}),
        (Sight(table=TABLE, privileges=frozenset({1})), {"A.open", "A.read"}),
        (Sight(table=TABLE, privileges=frozenset({1, 2})), {"A.open", "A.read", "A.both"}),
        (ALL, {"A.open", "A.read", "A.both", "A.unlisted"}),
    ],
)
def test_actions_are_those_that_the_caller_may_call(sight: Sight, seen: set[str]) -> None:
    assert actions_of(shown(MIXED, sight=sight)) == seen


@pytest.mark.parametrize(
    ("sight", "seen"),
    [(OPEN, {"/free", "/open"}), (Sight(table=TABLE), {"/free", "/open", "/closed"})],
)
def test_routes_are_shown_by_their_own_word_on_tickets(sight: Sight, seen: set[str]) -> None:
    text = "".join(
        f'[[routes]]\nmethod = "POST"\npath = "/{path}"\naction = "{name}"\n{more}\n'
        for path, name, more in [
            ("free", "A.both", "ticket = false"),
            ("open", "A.open", ""),
            ("closed", "A.open", "ticket = true"),
            ("kept", "A.both", ""),
        ]
    )
    paths = set(shown(MIXED, sight=sight, routes=text)["paths"])
    assert {one for one in paths if "/api/" not in one} - OWN == seen


def test_noauth_counts_when_every_instance_says_so() -> None:
    document = shown(
        service(action("A.b", "noauth")), service(action("a.B"), identity="t"), sight=OPEN
    )
    assert actions_of(document) == set()


def test_sectors_that_are_not_exposed_are_not_shown() -> None:
    assert actions_of(shown(service(action("A.b", sector="inner"), action("A.c")))) == {"A.c"}


def test_flood_of_actions_is_cut_and_counted() -> None:
    document = shown(service(*(action(f"Flood.n{number:05d}") for number in range(3000))), limit=10)
    assert actions_of(document) == {f"Flood.n{number:05d}" for number in range(10)}
    assert document["x-scamp-left-out"] == {"actions": 2990}


@pytest.mark.parametrize("keyword", ["const", "default"])
def test_value_that_could_be_read_and_not_be_written_costs_its_own_schema_alone(
    keyword: str,
) -> None:
    deep = b'{"%s":%s%s}' % (keyword.encode(), b"[" * 300, b"]" * 300)
    sections = {action_key("main", "A.b", 1): Section(request=deep)}
    document = shown(service(action("A.b"), action("A.c")), sections=sections)
    assert actions_of(document) == {"A.b", "A.c"}
    assert document["x-scamp-left-out"] == {"schemas": 1}


def test_schemas_of_one_name_are_told_apart_in_the_same_way_in_any_order() -> None:
    actions = select(
        registry(service(action("A.b"), action("A.c"))).actions(),
        ALL,
        sectors=["main"],
        default_timeout=75,
        limit=9,
    ).actions
    sections = {
        **described("A.b", reply=FETCH),
        **described("A.c", reply={**FETCH, "required": []}),
    }
    text = build(actions, Facts(), sections=sections)
    assert build(reversed(actions), Facts(), sections=sections) == text
    assert len(orjson.loads(text)["components"]["schemas"]) == 3


# -- whatever is announced --------------------------------------------------------------

_NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["A.b", "a.B", "A", "$ref", "x/y", "A.b~1", "{a}", "a-b", "..", "A._read", "é.b", "A\x7f.b"]
)


@st.composite
def _services(draw: st.DrawFn) -> list[Announcement]:
    made = []
    for number in range(draw(st.integers(1, 3))):
        actions = [
            Action(
                draw(st.sampled_from(["main", "Main", "web"])),
                draw(_NAMES),
                draw(_NAMES),
                draw(st.integers(0, 3)),
                tuple(draw(st.lists(st.sampled_from(["read", "noauth", "t9", "\x00", "update"])))),
                tuple(draw(st.lists(st.sampled_from(["json", "JSON", "x y", "png"]), max_size=2))),
            )
            for _ in range(draw(st.integers(1, 4)))
        ]
        made.append(service(*actions, identity=f"s{number}"))
    return made


@settings(max_examples=40, deadline=None)
@given(_services(), st.randoms(use_true_random=False), st.text(max_size=30))
def test_document_is_valid_and_the_same_in_any_order(
    services: list[Announcement], chance: random.Random, said: str
) -> None:
    def text(order: list[Announcement], turn: int) -> bytes:
        index = registry(*order)
        found: list[Announced] = list(
            select(
                index.actions(), ALL, sectors=("main", "web"), default_timeout=75, limit=100
            ).actions
        )
        if turn:
            chance.shuffle(found)
        sections = {
            action_key(one.sector, one.spelling, one.version): Section(
                said, said, orjson.dumps(FETCH), reply(said, one)
            )
            for one in found
        }
        return build(found, Facts(), sections=sections)

    first = text(services, 0)
    validate(orjson.loads(first))
    shuffled = [
        service(*chance.sample(one.actions, len(one.actions)), identity=one.identity)
        for one in reversed(services)
        # Of several actions under one key the last counts, so their order says something.
        if len({(a.sector, a.spelling, a.version) for a in one.actions}) == len(one.actions)
    ]
    if len(shuffled) == len(services) and not _doubled(services):
        assert text(shuffled, 1) == first


def reply(title: str, action: Announced) -> bytes:
    """Of one name and another content for each action."""
    return orjson.dumps({"title": title, "properties": {}, "description": action.label.lower()})


def _doubled(services: list[Announcement]) -> bool:
    return any(
        len({action_key(a.sector, a.spelling, a.version) for a in one.actions}) < len(one.actions)
        for one in services
    )
