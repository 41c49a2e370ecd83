"""From a routes file to a table, or to every reason why not, with lines."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actions import Target
from gateway.ratelimit.rate import Rate
from gateway.routes.load import MAX_FILE, MAX_ROUTES, MAX_TOLD, load_routes, parse_routes
from gateway.routes.model import Parameter
from scamp.errors import ConfigError

ROUTE = '[[routes]]\nmethod = "GET"\npath = "/v1/x"\naction = "A.b"\n'
POST = ROUTE.replace("GET", "POST")
RESOURCE = '[[resources]]\npath = "/v1/skus"\nnamespace = "Product.Sku"\nid = "id"\n'


def test_a_route_has_what_is_written() -> None:
    (route,) = parse_routes(
        """
[[routes]]
method = "POST"
path = "/v1/skus/{code}/labels/{page:int}"
action = "web:Product.Label.print~2"
query = { copies = "int", tray = { member = "paper_tray", required = true, description = "1" } }
members = { code = "sku" }
body = "template"
defaults = { colour = false }
timeout = 3
retry = false
ticket = true
rate = "10/s"
produces = "application/pdf"
status = 202
summary = "Print"
description = "A label"
""",
        "r.toml",
    ).routes
    assert route.methods == ("POST",)
    assert route.target == Target("web", "Product.Label.print", 2)
    assert route.origin == "r.toml:2"
    assert route.template == "/v1/skus/{code}/labels/{page:int}"
    assert route.plain_template == "/v1/skus/{code}/labels/{page}"
    assert route.path_parameters == (
        Parameter("code", "sku", required=True),
        Parameter("page", "page", "int", required=True),
    )
    assert route.query_parameters == (
        Parameter("copies", "copies", "int"),
        Parameter("tray", "paper_tray", required=True, description="1"),
    )
    assert (route.body, route.defaults) == ("template", {"colour": False})
    assert (route.timeout, route.retry, route.ticket) == (3, False, True)
    assert route.rate == Rate(10, 1, 10)
    assert route.key == "POST /v1/skus/{code}/labels/{page:int}"
    assert (route.produces, route.status) == ("application/pdf", 202)
    assert (route.summary, route.description) == ("Print", "A label")


def test_what_is_not_said_follows_from_the_method() -> None:
    table = parse_routes(ROUTE.replace('"GET"', '["GET", "DELETE", "POST", "PUT", "PATCH"]'))
    by_method = {route.methods[0]: route for route in table.routes}
    assert {name: route.body for name, route in by_method.items()} == {
        **dict.fromkeys(("GET", "DELETE")),
        **dict.fromkeys(("POST", "PUT", "PATCH"), "*"),
    }
    assert by_method["GET"].query_parameters is None, "everything in the query counts"
    assert by_method["POST"].query_parameters == (), "the query does not"
    assert by_method["GET"].all_methods == ("GET", "HEAD")
    assert {route.status for route in table.routes} == {200}


def test_a_resource_has_the_usual_urls() -> None:
    table = parse_routes(RESOURCE)
    assert [
        (route.methods, route.template, route.target.action, route.status) for route in table.routes
    ] == [
        (("GET",), "/v1/skus", "Product.Sku._read", 200),
        (("POST",), "/v1/skus", "Product.Sku._create", 201),
        (("GET",), "/v1/skus/{id}", "Product.Sku._read", 200),
        (("PUT", "PATCH"), "/v1/skus/{id}", "Product.Sku._update", 200),
        (("DELETE",), "/v1/skus/{id}", "Product.Sku._destroy", 200),
    ]
    assert not any(route.expected for route in table.routes), "no one has to have all of CRUD"


def test_a_resource_may_say_which_actions() -> None:
    table = parse_routes(
        RESOURCE.replace("Product.Sku", "web:Product.Sku").replace("/v1/skus", "/v1/{shop}/skus")
        + 'id_type = "int"\nversion = 3\nlist = "all"\nread = "Other.Name.get~1"\ndestroy = false\n'
        'query = { page = "int" }\ndefaults = { deleted = false }\nticket = true\n'
    )
    by_verb = {(route.methods[0], len(route.segments)): route for route in table.routes}
    assert by_verb["GET", 3].target == Target("web", "Product.Sku.all", 3)
    assert by_verb["GET", 4].target == Target("main", "Other.Name.get", 1)
    assert by_verb["PUT", 4].target == Target("web", "Product.Sku._update", 3)
    assert ("DELETE", 4) not in by_verb
    assert by_verb["GET", 4].template == "/v1/{shop}/skus/{id:int}"
    assert by_verb["GET", 3].query_parameters == (Parameter("page", "page", "int"),)
    assert by_verb["GET", 4].query_parameters is None
    assert {route.expected for route in table.routes if route.methods[0] == "GET"} == {True}
    assert all(route.ticket for route in table.routes)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("routes = 3", 1, "routes: input should be a valid list"),
        ("rotes = []", 1, "there is no key 'rotes' (did you mean 'routes'?)"),
        ("x = [", 1, "Invalid value"),
        (ROUTE + 'bdy = "*"', 5, "there is no key 'bdy' (did you mean 'body'?)"),
        (RESOURCE + 'lst = "all"', 5, "there is no key 'lst' (did you mean 'list'?)"),
        (ROUTE + "\n[routes.query]\na = { typ = 'int' }", 6, "no key 'typ' (did you mean 'type'?)"),
        (ROUTE.replace("GET", "FETCH"), 2, "method: input should be 'GET', "),
        (ROUTE.replace('"GET"', "[]"), 2, "method: value should have at least 1 item"),
        ('[[routes]]\nmethod = "GET"\naction = "A.b"', 1, "path: is missing"),
        (ROUTE.replace("/v1/x", "v1/x"), 3, "'v1/x' is not a path such as /v1/skus/{code}"),
        (ROUTE.replace("/v1/x", "/"), 3, "'/' is not a path"),
        (ROUTE.replace("/v1/x", "/" + "x" * 2000), 3, " is not a path"),
        (ROUTE.replace("/v1/x", "/x" * 40), 3, "more than 32 segments"),
        (ROUTE.replace("/v1/x", "/v1//x"), 3, "a segment is empty"),
        (ROUTE.replace("/v1/x", "/v1/x/"), 3, "a segment is empty"),
        (ROUTE.replace("/v1/x", "/v1/../x"), 3, "consists of dots"),
        (ROUTE.replace("/v1/x", "/v1/x{y}"), 3, "'x{y}' is neither plain text nor {name}"),
        (ROUTE.replace("/v1/x", "/v1/%41"), 3, "'%41' is neither"),
        (ROUTE.replace("/v1/x", "/v1/{x:itn}"), 3, "no type 'itn' (did you mean 'int'?)"),
        (ROUTE.replace("/v1/x", "/{a}/{a}"), 3, "a parameter is in the path twice"),
        (ROUTE.replace("/v1/x", "/api/x"), 3, "/api is the gateway's own"),
        (ROUTE.replace("/v1/x", "/docs"), 3, "/docs is the gateway's own"),
        (ROUTE.replace("A.b", "A"), 4, "'A' is not [SECTOR:]Namespace.name[~VERSION]"),
        (ROUTE + 'body = "*"', 5, "a GET has no body"),
        (ROUTE + "query = 3", 5, 'query: write "*" for all parameters'),
        (ROUTE + "query = { a = 3 }", 5, "query.a: write a type"),
        (ROUTE + "query = { a = 'nt' }", 5, "query.a.type: input should be 'string'"),
        (ROUTE + 'members = { a = "b" }', 5, "'a' is not in the path"),
        (POST + "body = { a = 1 }", 5, "body: input should be a valid string"),
        (POST + "body = 7", 5, "body: input should be a valid string"),
        (POST + 'body = ""', 5, "body: a member's name has"),
        (POST + "consumes = [7]", 5, "consumes: input should be a valid string"),
        (POST + "produces = [7]", 5, "produces: input should be a valid string"),
        (ROUTE + "timeout = 0", 5, "timeout: input should be greater than 0"),
        (ROUTE + "timeout = inf", 5, "timeout: input should be"),
        (ROUTE + 'rate = "fast"', 5, "'fast': not COUNT/UNIT"),
        (ROUTE + 'rate = "0/s"', 5, "'0/s': a rate's count is between 1 and 1000000, not 0"),
        (ROUTE + "status = 404", 5, "status: input should be less than or equal to 299"),
        (ROUTE + "status = 204", 5, "status: an answer has a body"),
        (ROUTE + 'retry = "no"', 5, "retry: input should be a valid boolean"),
        (ROUTE + 'ticket = "no"', 5, "ticket: input should be a valid boolean"),
        (ROUTE + "defaults = { a = 1979-05-27 }", 5, "a: not a value that JSON has"),
        (ROUTE + "defaults = { a = [1, nan] }", 5, "a: not a value that JSON has"),
        (ROUTE + f"defaults = {{ a = {1 << 63} }}", 5, "a: not a value that JSON has"),
        (POST + 'consumes = "png"', 5, "consumes: not a media type"),
        (POST + 'produces = "image/*"', 5, "produces: a reply has one media type"),
        (POST + 'envelope = "a b"', 5, "envelope: string should match pattern"),
        (ROUTE + 'envelope = "raw"', 5, "there is no body that it is for"),
        (ROUTE + 'consumes = "image/png"', 5, "there is no body that it is for"),
        (
            POST.replace("/v1/x", "/v1/{x}") + 'consumes = "image/png"',
            5,
            "a body that is not JSON goes through as it is: there is no place",
        ),
        (POST + 'envelope = "raw"\ndefaults = { a = 1 }', 5, "goes through as it is"),
        (
            POST.replace("/v1/x", "/v1/{x}") + 'query = { y = { member = "x" } }',
            3,
            "the member 'x' is given twice",
        ),
        (POST.replace("/v1/x", "/v1/{x}") + 'body = "x"', 3, "the member 'x' is given twice"),
        (ROUTE + ROUTE, 7, "GET /v1/x is taken by /v1/x at f.toml:1"),
        (
            ROUTE.replace("x", "{a}") + ROUTE.replace("x", "{b}"),
            7,
            "GET /v1/{b} is taken by /v1/{a} at f.toml:1",
        ),
        (RESOURCE + ROUTE.replace("/v1/x", "/v1/skus"), 2, "is taken by /v1/skus at f.toml:5"),
        (RESOURCE.replace("Product.Sku", "Product Sku"), 3, "is not [SECTOR:]Namespace"),
        (RESOURCE.replace("Product.Sku", "Product.Sku~2"), 3, "is not [SECTOR:]Namespace"),
        (RESOURCE.replace("/v1/skus", "/v1/{id}/skus"), 4, "{id} is in the path already"),
        (RESOURCE + 'create = "a b"', 5, "is not [SECTOR:]Namespace.name"),
        (RESOURCE.replace('"id"', '"i d"'), 4, "id: string should match pattern"),
        (
            'routes = [\n {method="GET",path="/a",action="A.b"},\n'
            ' {method="GET",path="/a",action="A.b"}]',
            1,
            "GET /a is taken by",
        ),
    ],
)
def test_each_mistake_is_told_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_routes(text, "f.toml")
    (told,) = str(caught.value).splitlines()
    assert told.startswith(f"f.toml:{line}: ")
    assert reason in told


def test_all_mistakes_are_told_at_once() -> None:
    text = ROUTE.replace("/v1/x", "x") + ROUTE.replace("A.b", "A") + RESOURCE + 'read = "a b"'
    with pytest.raises(ConfigError) as caught:
        parse_routes(text, "f.toml")
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "f.toml:3",
        "f.toml:8",
        "f.toml:13",
    ]


def test_no_mistake_hides_another_one() -> None:
    """What is not of the form, what has no grammar, and what only shows in comparison."""
    text = (
        ROUTE.replace("GET", "GTE").replace("/v1/x", "/v1/{x:in}")
        + ROUTE.replace("/v1/x", "x").replace("A.b", "A")
        + ROUTE.replace("/v1/x", "/v1/y")
        + ROUTE.replace("/v1/x", "/v1/y")
        + RESOURCE.replace("/v1/skus", "skus")
        + 'lst = "all"'
    )
    with pytest.raises(ConfigError) as caught:
        parse_routes(text, "f.toml")
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        *("f.toml:2:", "f.toml:3:"),
        *("f.toml:7:", "f.toml:8:"),
        "f.toml:15:",
        *("f.toml:18:", "f.toml:21:"),
    ]


def test_lines_hold_behind_text_that_looks_like_tables() -> None:
    text = (
        'x = 1\n[[resources]] # [[routes]]\npath = "/a"\nnamespace = "A"\nid = "i"\n'
        'description = """\n[[routes]]\nmethod = "GET"\n"""\n'
    )
    with pytest.raises(ConfigError, match=r"f\.toml:1: there is no key 'x'"):
        parse_routes(text, "f.toml")
    with pytest.raises(ConfigError, match=r"f\.toml:10: method"):
        parse_routes(text[6:] + ROUTE.replace("GET", "got"), "f.toml")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    with pytest.raises(ConfigError, match=r"routes.toml: No such file"):
        load_routes(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8, at byte 0"):
        load_routes(path)
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigError, match=f"larger than {MAX_FILE} bytes"):
        load_routes(path)
    path.write_text("x = " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"routes.toml:?"):
        load_routes(path)


def test_there_is_a_limit_on_routes() -> None:
    text = "".join(
        f'[[routes]]\nmethod="GET"\npath="/{number}"\naction="A.b"\n'
        for number in range(MAX_ROUTES + 2)
    )
    with pytest.raises(ConfigError) as caught:
        parse_routes(text, "f")
    assert f"more than {MAX_ROUTES} routes in one file" in str(caught.value)


def test_a_flood_of_mistakes_is_told_up_to_a_number() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_routes("".join(ROUTE.replace("/v1", f"/v {number}") for number in range(500)))
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_TOLD + 1
    assert lines[-1] == "routes: and 400 more like these"


def test_very_many_parameters_are_looked_at_once_each() -> None:
    names = [f"q{number} = 'int'" for number in range(20_000)]
    route = parse_routes(ROUTE + "[routes.query]\n" + "\n".join(names)).routes[0]
    assert route.query_parameters is not None
    assert len(route.query_parameters) == 20_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timeout = " + "1" * 5000, "routes: a number has too many digits"),
        ("defaults = { a = " + "[" * 40 + "]" * 40 + " }", "not a value that JSON has"),
    ],
)
def test_what_python_or_json_cannot_take_is_a_mistake_too(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_routes(ROUTE + text)


def test_the_version_is_that_of_the_text() -> None:
    assert parse_routes(ROUTE).version == parse_routes(ROUTE).version
    assert parse_routes(ROUTE).version != parse_routes(ROUTE + "\n").version
    assert parse_routes("").routes == ()


@given(st.text(max_size=300) | st.text("[]{}=\"'\n.#routes methodpath/x", max_size=200))
def test_any_text_is_a_table_or_an_error(text: str) -> None:
    with suppress(ConfigError):
        parse_routes(text, "f")
