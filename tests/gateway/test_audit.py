"""What an audit finds: for each kind of finding a gateway that has it, and one that nearly has."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from offers import fingerprint_of, service

from gateway.audit import codes
from gateway.audit.access import _MAX_GUESSES
from gateway.audit.codes import CODES, SEVERITIES
from gateway.audit.model import Audited, Finding, Ignored
from gateway.audit.page import audit_markdown
from gateway.audit.routes import (
    _MAX_BOOLS,
    MAX_STEPS,
    MAX_TAKERS,
    _Node,
    _reachable,
    _Takers,
)
from gateway.audit.run import CHECKS, audit, audited
from gateway.cli import main
from gateway.commands.audit import _SHOWN, lines_of
from gateway.offline import Offline
from gateway.own import own_entries
from gateway.routes.load import parse_routes
from gateway.routes.match import Matcher
from gateway.settings import Settings
from gateway.sources import Loaded
from gateway.surface import surface
from scamp import keys
from scamp.authz import AuthzTable
from scamp.discovery import (
    Action,
    Announcement,
    AnnouncementSpec,
    AuthorizedServices,
    build_announcement,
    new_identity,
    write_cache,
)
from scamp.testing import make_identity

NOW: Final = 1_800_000_000.0
PAGE: Final = Path(__file__).parents[2] / "docs" / "audit.md"

SHOP: Final = service("shop", "Sku.fetch read", "Sku.create create", "_meta.documentation read")
TABLE: Final = {"sku.fetch": [1], "sku.create": [2], "_NAMES": [None, "sku_read", "sku_create"]}

pytestmark = pytest.mark.usefixtures("bare_environment")


class Given(NamedTuple):
    """A gateway; what is left out is as it should be."""

    services: tuple[Announcement, ...] = (SHOP,)
    routes: str = ""
    table: dict[str, Any] | None = TABLE
    authorized: str | None = "shop"
    """Tokens for the shop, in authorized_services."""
    unauthorized: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - never changed
    settings: dict[str, Any] = {}  # noqa: RUF012
    origins: dict[str, str] = {}  # noqa: RUF012


Made = Given | Callable[[Path], Given]


def audited_of(given: Given, folder: Path) -> Audited:
    key = folder / "ticket_key.pem"
    if not key.exists():
        key.write_bytes(keys.public_key_pem(make_identity(0).key))
    settings = Settings(
        **{
            "bind": "127.0.0.1:8080",
            "max_body": "1MiB",
            "rate_limit_address": "600/min",
            "ticket_keys": (key,),
            "discovery_cache": folder / "cache",
            **given.settings,
        }
    )
    authorized = None
    if given.authorized is not None:
        line = f"{fingerprint_of('shop')} {given.authorized}\n"
        authorized = AuthorizedServices.parse(line)
    mesh = Offline(
        routes=parse_routes(given.routes, "routes.toml"),
        authz=None if given.table is None else AuthzTable.parse(json.dumps(given.table).encode()),
        authorized=authorized,
        unauthorized=given.unauthorized,
    )
    mesh.registry.apply(added=given.services)
    own = own_entries(settings, mesh.registry, mesh.authz)
    view = surface(mesh.registry, mesh.routes, settings, mesh.authz, own)
    return Audited(settings, mesh, view, given.origins, NOW)


def found(made: Made, folder: Path) -> list[Finding]:
    given = made if isinstance(made, Given) else made(folder)
    return list(audit(audited_of(given, folder)).findings)


def mesh(*lines: str, **more: Any) -> Given:
    """One service with these actions, none of them in the privilege table's way."""
    return Given(services=(service("shop", *lines),), table=None, **more)


def two(*lines: str, name: str = "shop", certificate: str = "shop") -> Given:
    """The shop, and one that announces this."""
    other = service(name, *lines, certificate=certificate, number=1)
    return Given(services=(SHOP, other), table=None)


def route(path: str, action: str = "Sku.fetch", method: str = "GET", more: str = "") -> str:
    return f'[[routes]]\nmethod = "{method}"\npath = "{path}"\naction = "{action}"\n{more}\n'


def routed(*routes: str, **more: Any) -> Given:
    return Given(routes="".join(routes), **more)


def with_settings(**settings: Any) -> Given:
    return Given(settings=settings)


# -- files ------------------------------------------------------------------------------


def ticket_key(bits: int) -> Callable[[Path], Given]:
    def made(folder: Path) -> Given:
        path = folder / "short.pem"
        key = generate_private_key(65537, bits)
        public = key.public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return with_settings(ticket_keys=(path,))

    return made


def tls(*, expires_in_days: float = 365, mode: int = 0o600, **more: Any) -> Callable[[Path], Given]:
    def made(folder: Path) -> Given:
        begin = datetime.fromtimestamp(NOW, UTC) - timedelta(days=100)
        private, pem = keys.generate("web", days=round(100 + expires_in_days), now=begin)
        certificate, key = folder / "web.crt", folder / "web.key"
        certificate.write_bytes(pem)
        key.write_bytes(private)
        key.chmod(mode)
        return with_settings(tls_certificate=certificate, tls_key=key, **more)

    return made


def table_file(mode: int, *, folder_mode: int = 0o755) -> Callable[[Path], Given]:
    def made(folder: Path) -> Given:
        inner = folder / "inner"
        inner.mkdir()
        path = inner / "table.json"
        path.write_text("{}")
        path.chmod(mode)
        inner.chmod(folder_mode)
        return with_settings(authz_table=path)

    return made


def passphrase_file(mode: int, settings_mode: int) -> Callable[[Path], Given]:
    """The passphrase is in a file of its own, which the settings file names."""

    def made(folder: Path) -> Given:
        path, own = folder / "gateway.toml", folder / "passphrase"
        for file, its in ((path, settings_mode), (own, mode)):
            file.write_text("hunter2")
            file.chmod(its)
        settings = {"tls_key_password": "hunter2", "tls_key_password_file": own}
        return Given(settings=settings, origins={"tls_key_password": f"{path}:3"})

    return made


def settings_file(mode: int, *, secret: bool) -> Callable[[Path], Given]:
    def made(folder: Path) -> Given:
        path = folder / "gateway.toml"
        path.write_text("")
        path.chmod(mode)
        name = "tls_key_password" if secret else "retries"
        settings = {"tls_key_password": "hunter2"} if secret else {"retries": 1}
        return Given(settings=settings, origins={name: f"{path}:3"})

    return made


def redis_in_settings_file(url: str) -> Callable[[Path], Given]:
    def made(folder: Path) -> Given:
        path = folder / "gateway.toml"
        path.write_text("")
        path.chmod(0o644)
        origins = {"rate_limit_redis": f"{path}:3"}
        return Given(settings={"rate_limit_redis": url}, origins=origins)

    return made


class Case(NamedTuple):
    """One gateway that has a finding, and others that are close to it and have not."""

    code: codes.Code
    subject: str
    bad: Made
    good: tuple[Made, ...]


CASES: Final = [
    Case(
        codes.OPEN_WRITE, "Sku.order~1", mesh("Sku.order noauth"),
        (mesh("Sku.order -"), mesh("Sku.order noauth,read"), mesh("web:Sku.order noauth")),
    ),
    Case(  # out of the sectors, and in again by a route
        codes.OPEN_WRITE, "web:Sku.order~1",
        mesh("web:Sku.order noauth", routes=route("/o", "web:Sku.order", "POST")),
        (
            mesh("web:Sku.order noauth",
                 routes=route("/o", "web:Sku.order", "POST", "ticket = true")),
        ),
    ),
    Case(
        codes.OPEN_READ, "Sku.ping~1",
        mesh("Sku.ping noauth,read", routes=route("/ping", "Sku.ping")),
        (mesh("Sku.ping read"), mesh("Sku.ping noauth")),
    ),
    Case(
        codes.OPEN_EVENTS, "shop", with_settings(events_open="shop"),
        (Given(), Given(table={**TABLE, "shop._events": [1]})),
    ),
    Case(
        codes.ROUTE_OPENS_WRITE, "POST /v1",
        routed(route("/v1", "Sku.create", "POST", "ticket = false")),
        (
            routed(route("/v1", "Sku.create", "POST")),
            routed(route("/v1", "Sku.fetch", "POST", "ticket = false")),
            mesh("Sku.create create,noauth",
                 routes=route("/v1", "Sku.create", "POST", "ticket = false")),
        ),
    ),
    Case(
        codes.ROUTE_OPENS_READ, "GET /v1", routed(route("/v1", more="ticket = false")),
        (routed(route("/v1")), routed(route("/v1", more="ticket = true"))),
    ),
    Case(
        codes.AUTH_FORWARD, "auth_mode", with_settings(auth_mode="forward", ticket_keys=()),
        (with_settings(auth_mode="verify"), with_settings(auth_mode="enforce")),
    ),
    Case(
        codes.AUTH_VERIFY, "auth_mode", with_settings(auth_mode="verify"),
        (with_settings(auth_mode="enforce"), Given()),
    ),
    Case(
        codes.ROUTE_NOWHERE, "GET /v1", routed(route("/v1", "Sku.fotch")),
        (
            routed(route("/v1")),
            # What a resource does not name may be missing.
            routed('[[resources]]\npath = "/v1"\nnamespace = "Sku"\nid = "id"\n'),
        ),
    ),
    Case(
        codes.ROUTE_GET_WRITES, "GET /v1", routed(route("/v1", "Sku.create")),
        (routed(route("/v1", "Sku.create", "POST")), routed(route("/v1"))),
    ),
    Case(
        codes.ROUTE_SHADOWED, "GET /v1/{on:bool}",
        routed(route("/v1/true"), route("/v1/{on:bool}"), route("/v1/false")),
        (
            routed(route("/v1/true"), route("/v1/{on:bool}")),
            routed(route("/v1/true"), route("/v1/{on:bool}"),
                   route("/v1/false", "Sku.create", "PUT")),
        ),
    ),
    Case(
        codes.ROUTE_OVERLAPS, "GET /v1/{id}", routed(route("/v1/{id}"), route("/v1/new")),
        (
            routed(route("/v1/{id}"), route("/v1/new/x")),
            routed(route("/v1/{id}"), route("/v1/new", "Sku.create", "POST")),
            routed(route("/v1/{id:int}"), route("/v1/new"), route("/v1/{on:bool}")),
        ),
    ),
    Case(
        codes.ROUTE_OVERLAPS, "GET /v1/{id:number}",
        routed(route("/v1/{id:number}"), route("/v1/{id:int}")),
        (routed(route("/v1/{id:int}"), route("/v2/{id:number}")),),
    ),
    Case(  # the first segment that differs decides, the second would have it otherwise
        codes.ROUTE_OVERLAPS, "GET /{a}/{b:int}",
        routed(route("/{a}/{b:int}"), route("/{a:int}/{b}")),
        (routed(route("/{a}/x"), route("/{a:bool}/{b:int}")),),
    ),
    Case(
        codes.ROUTE_BYPASSES_SECTOR, "GET /v1",
        mesh("web:Page.show read", routes=route("/v1", "web:Page.show")),
        (
            mesh("web:Page.show read", routes=route("/v1", "web:Page.show"),
                 settings={"sectors": ("main", "WEB")}),
            routed(route("/v1")),
        ),
    ),
    *(
        Case(
            codes.ROUTE_PAGES, "GET /v1", routed(route("/v1", more=f'produces = "{kind}"')),
            (routed(route("/v1", more='produces = "image/png"')), routed(route("/v1"))),
        )
        for kind in ("text/html", "image/svg+xml", "Text/JavaScript")
    ),
    Case(
        codes.UNCONFIGURED, "Sku.create~1", Given(table={"sku.fetch": [1]}),
        (
            Given(), Given(table=None), Given(table={}, settings={"auth_mode": "verify"}),
            Given(services=(service("shop", "Sku.fetch read", "Sku.create noauth"),),
                  table={"sku.fetch": [1]}),
        ),
    ),
    Case(
        codes.NOT_ANNOUNCED, "shopp._events", Given(table={**TABLE, "shopp._events": [3]}),
        (Given(table={**TABLE, "Shop._events": [3]}),),
    ),
    Case(
        codes.NOT_ANNOUNCED, "sku.destroy", Given(table={**TABLE, "Sku.destroy": [3]}),
        (
            Given(),
            Given(services=(SHOP, service("shop", "web:Sku.destroy -", number=1)),
                  table={**TABLE, "Sku.destroy": [3]}),
        ),
    ),
    Case(
        codes.ANY_TICKET_WRITE, "Sku.create~1", Given(table={**TABLE, "sku.create": []}),
        (Given(), Given(table={**TABLE, "sku.fetch": []})),
    ),
    Case(
        codes.ANY_TICKET_READ, "Sku.fetch~1", Given(table={**TABLE, "sku.fetch": []}),
        (Given(), Given(table={**TABLE, "sku.create": []})),
    ),
    Case(
        codes.ANY_TICKET_READ, "shop._events", Given(table={**TABLE, "shop._events": []}),
        (
            Given(table={**TABLE, "shop._events": [1]}),
            Given(table={**TABLE, "shop._events": []}, settings={"events_open": "SHOP"}),
        ),
    ),
    Case(
        codes.NOAUTH_DISAGREES, "Sku.fetch~1", two("Sku.fetch noauth,read"),
        (two("Sku.fetch read"), two("Sku.fetch~2 noauth,read")),
    ),
    Case(
        codes.FLAGS_DISAGREE, "Sku.fetch~1", two("Sku.fetch read,update"),
        (two("Sku.fetch read"), two("Sku.fetch read,t10"), two("Sku.fetch noauth,read")),
    ),
    Case(
        codes.ENVELOPES_DISAGREE, "Sku.fetch~1", two("Sku.fetch read json,csv"),
        (two("Sku.fetch read json"), two("Sku.fetch read json,json")),
    ),
    Case(
        codes.TIMEOUT_DISAGREES, "Sku.fetch~1", two("Sku.fetch read,t10"),
        (two("Sku.fetch read"), two("Sku.fetch read,t0")),
    ),
    Case(
        codes.ALIAS_DISPUTED, "Sku._read~1", two("Sku.find read"),
        (two("Sku.fetch read"), two("Sku.find -"), two("Sku.find~2 read")),
    ),
    Case(
        codes.ALIAS_AMBIGUOUS, "Sku._read~1", mesh("Sku.find read", "Sku.fetch read"),
        (
            mesh("Sku.find read", "Sku.fetch -"), mesh("Sku.find read", "Sku.fetch~2 read"),
            mesh("Sku.find read", "Sku.fetch read", "Sku._read -"), two("Sku.find read"),
        ),
    ),
    Case(
        codes.SEVERAL_OWNERS, "evil, shop", two("Sku.fetch read", name="evil"),
        (
            two("Sku.fetch read"), two("Sku.fetch read", name="shop-2"),
            two("Sku.other read", name="evil"), two("_meta.documentation read", name="evil"),
        ),
    ),
    Case(
        codes.SEVERAL_CERTIFICATES, "shop", two("Sku.fetch read", certificate="other"),
        (two("Sku.fetch read"), two("Sku.fetch read", name="shop-2", certificate="other")),
    ),
    Case(
        codes.NO_AUTHORIZED_SERVICES, "authorized_services", Given(authorized=None),
        (Given(), Given(authorized="main:ALL")),
    ),
    Case(
        codes.AUTHORIZED_FOR_ALL, fingerprint_of("shop"), Given(authorized="Sku, MAIN:ALL"),
        (Given(), Given(authorized=None), Given(authorized="other:ALL, main:Sku")),
    ),
    Case(
        codes.NOT_AUTHORIZED, "shop",
        Given(
            unauthorized={
                f"shop:{'0' * 24}": ("Auth.login~1", "Auth.logout~1"),
                f"shop:{'1' * 24}": ("Auth.login~1",),
            }
        ), (Given(),),
    ),
    Case(
        codes.ADMIN_EXPOSED, "admin_bind", with_settings(admin_bind=":9090"),
        (
            Given(), with_settings(admin_bind="localhost:9090"),
            with_settings(admin_bind="[::1]:9090"),
        ),
    ),
    Case(
        codes.ADMIN_EXPOSED, "admin_bind", with_settings(admin_bind="gateway.example:9090"),
        (with_settings(admin_bind="127.9.9.9:9090"),),
    ),
    Case(
        codes.NO_TLS, "tls_certificate", with_settings(bind=":8080"),
        (Given(), with_settings(bind="[::1]:8080"), tls(bind=":8080")),
    ),
    Case(
        codes.PROXIES_EVERYBODY, "trusted_proxies", with_settings(trusted_proxies="0.0.0.0/0"),
        (Given(), with_settings(trusted_proxies="10.0.0.0/8,::1/128")),
    ),
    Case(  # in two halves
        codes.PROXIES_EVERYBODY, "trusted_proxies",
        with_settings(trusted_proxies="::/1,8000::/1,10.0.0.1/32"),
        (with_settings(trusted_proxies="0.0.0.0/1,10.0.0.1/32"),),
    ),
    Case(codes.LEGACY_RSA, "legacy_rsa", with_settings(legacy_rsa=True), (Given(),)),
    Case(codes.NO_BODY_LIMIT, "max_body", with_settings(max_body=None), (Given(),)),
    Case(
        codes.NO_DRAIN, "drain_limit", with_settings(drain_limit=0),
        (Given(), with_settings(drain_delay=0)),
    ),
    Case(
        codes.SEVERAL_SECTORS, "sectors", with_settings(sectors=("main", "web")),
        (Given(), with_settings(sectors=("web",)), with_settings(sectors=("main", "MAIN"))),
    ),
    Case(
        codes.LONG_LEEWAY, "ticket_leeway", with_settings(ticket_leeway=301),
        (Given(), with_settings(ticket_leeway=300),
         with_settings(ticket_leeway=301, auth_mode="forward")),
    ),
    Case(
        codes.LONG_GRACE, "authz_grace", with_settings(authz_grace=4000),
        (
            Given(), with_settings(authz_grace=4000, auth_mode="verify"),
            lambda folder: with_settings(
                authz_grace=4000, **table_file(0o600)(folder).settings  # which holds for ever
            ),
        ),
    ),
    Case(
        codes.CORS_ANY_ORIGIN, "cors_origins", with_settings(cors_origins="*"),
        (Given(), with_settings(cors_origins="https://app.example")),
    ),
    Case(
        codes.CORS_PLAIN_ORIGIN, "cors_origins",
        with_settings(cors_origins="https://a.example,http://b.example", ticket_cookie="ticket"),
        (
            with_settings(cors_origins="http://b.example"),
            with_settings(cors_origins="https://a.example", ticket_cookie="ticket"),
            with_settings(cors_origins="http://localhost:3000", ticket_cookie="ticket"),
        ),
    ),
    Case(
        codes.COOKIE_WITHOUT_TLS, "ticket_cookie",
        with_settings(bind=":8080", ticket_cookie="ticket"),
        (
            with_settings(ticket_cookie="ticket"), with_settings(bind=":8080"),
            tls(bind=":8080", ticket_cookie="ticket"),
        ),
    ),
    Case(
        codes.COMPRESSES_WITH_COOKIE, "compress_replies",
        with_settings(compress_replies=True, ticket_cookie="ticket"),
        (with_settings(compress_replies=True), with_settings(ticket_cookie="ticket")),
    ),
    Case(
        codes.NO_RATE_LIMITS, "rate_limit_address", with_settings(rate_limit_address=None),
        (Given(), with_settings(rate_limit_address=None, rate_limit_client="10/s")),
    ),
    Case(
        codes.NO_RATE_LIMITS, "rate_limit_address",
        routed(route("/v1", more='rate = "10/s"'), settings={"rate_limit_address": None}),
        (routed(route("/v1", more='rate = "10/s"')),),
    ),
    Case(
        codes.RATE_LIMITS_OPEN, "rate_limit_on_failure",
        with_settings(rate_limit_redis="redis://localhost", rate_limit_on_failure="open"),
        (
            with_settings(rate_limit_on_failure="open"),
            with_settings(rate_limit_redis="redis://localhost"),
            with_settings(rate_limit_redis="redis://localhost", rate_limit_on_failure="open",
                          rate_limit_address=None),
        ),
    ),
    Case(
        codes.REDIS_WITHOUT_TLS, "rate_limit_redis",
        with_settings(rate_limit_redis="redis://:hunter2@redis.example:6379/0"),
        (
            with_settings(rate_limit_redis="rediss://redis.example"),
            with_settings(rate_limit_redis="redis://127.0.0.1/0"),
            with_settings(rate_limit_redis="unix:///run/redis.sock"),
        ),
    ),
    Case(
        codes.OPENAPI_EVERYONE, "openapi", with_settings(openapi="everyone"),
        (Given(), with_settings(openapi="off")),
    ),
    Case(codes.SERVER_TIMING, "server_timing", with_settings(server_timing=True), (Given(),)),
    Case(codes.SHORT_TICKET_KEY, "FOLDER/short.pem", ticket_key(1024), (ticket_key(2048),)),
    Case(
        codes.READABLE_SECRET, "FOLDER/web.key", tls(mode=0o644),
        (tls(mode=0o640), tls(mode=0o600), tls(mode=0o620)),
    ),
    Case(
        codes.READABLE_SECRET, "FOLDER/gateway.toml", settings_file(0o644, secret=True),
        (
            settings_file(0o640, secret=True), settings_file(0o644, secret=False),
            passphrase_file(0o600, 0o644),
        ),
    ),
    Case(
        codes.READABLE_SECRET, "FOLDER/gateway.toml",
        redis_in_settings_file("redis://:hunter2@127.0.0.1/0"),
        (
            redis_in_settings_file("redis://127.0.0.1:6379/0"),
            redis_in_settings_file("unix:///run/redis.sock?db=0"),
        ),
    ),
    Case(
        codes.READABLE_SECRET, "FOLDER/gateway.toml",
        redis_in_settings_file("unix:///run/redis.sock?password=hunter2"), (Given(),),
    ),
    Case(
        codes.READABLE_SECRET, "FOLDER/passphrase", passphrase_file(0o604, 0o600),
        (passphrase_file(0o600, 0o600),),
    ),
    Case(
        codes.WRITABLE_FILE, "FOLDER/inner/table.json", table_file(0o666),
        (table_file(0o664), table_file(0o600)),
    ),
    Case(
        codes.WRITABLE_FILE, "FOLDER/inner/table.json", table_file(0o600, folder_mode=0o777),
        (table_file(0o600, folder_mode=0o1777),),
    ),
    Case(
        codes.WRITABLE_FILE, "FOLDER/gateway.toml", settings_file(0o662, secret=False),
        (settings_file(0o660, secret=False),),
    ),
    Case(
        codes.CERTIFICATE_EXPIRED, "FOLDER/web.crt", tls(expires_in_days=-1),
        (tls(expires_in_days=1), tls(expires_in_days=40)),
    ),
    Case(
        codes.CERTIFICATE_EXPIRES, "FOLDER/web.crt", tls(expires_in_days=29),
        (tls(expires_in_days=31), tls(expires_in_days=-1)),
    ),
]  # fmt: skip

IDS: Final = [f"{number}-{case.code.word}" for number, case in enumerate(CASES)]


def of(case: Case, findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.code is case.code]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_it_is_found(case: Case, tmp_path: Path) -> None:
    (finding,) = of(case, found(case.bad, tmp_path))
    assert finding.subject == case.subject.replace("FOLDER", str(tmp_path))
    assert re.fullmatch(r"[A-Z/\d_a-z].*[^.][.?]", finding.says), finding.says


@pytest.mark.parametrize(
    ("case", "number"),
    [
        pytest.param(case, number, id=f"{name}-{number}")
        for name, case in zip(IDS, CASES, strict=True)
        for number in range(len(case.good))
    ],
)
def test_what_is_close_to_it_is_not(case: Case, number: int, tmp_path: Path) -> None:
    assert of(case, found(case.good[number], tmp_path)) == []


def test_every_kind_has_a_case_and_a_place_on_the_page() -> None:
    assert {case.code.word for case in CASES} == set(CODES)
    page = PAGE.read_text()
    for code in CODES.values():
        assert page.count(f"\n### {code.word}\n\n**{code.severity}**: ") == 1


def test_the_page_is_made_from_the_codes() -> None:
    assert PAGE.read_text() == audit_markdown(), (
        "write it anew: python -c 'from gateway.audit.page import audit_markdown as m; "
        'print(m(), end="")\' > docs/audit.md'
    )


def test_nothing_is_found_where_everything_is_as_it_should_be(tmp_path: Path) -> None:
    assert found(Given(), tmp_path) == []
    assert found(tls(), tmp_path) == []


def test_a_code_cannot_be_there_twice() -> None:
    with pytest.raises(ValueError, match="already"):
        codes._code("open_write", "low", "", "", "", group="", about="")


def test_codes_are_words_in_groups_that_stand_together() -> None:
    groups = [code.group for code in CODES.values()]
    assert groups == sorted(groups, key=groups.index)
    for word, code in CODES.items():
        assert re.fullmatch(r"[a-z_]+", word)
        assert code.severity in SEVERITIES
        assert code.meaning.endswith(".")
        assert code.remedy.endswith(".")


# -- what is said -----------------------------------------------------------------------


def test_a_likely_spelling_is_named(tmp_path: Path) -> None:
    given = Given(table={"sku.fetch": [1], "sku.craete": [2]})
    (finding,) = [one for one in found(given, tmp_path) if one.code is codes.UNCONFIGURED]
    assert finding.says.endswith("Is it sku.craete, which is listed and which nobody announces?")


def test_no_secret_is_shown(folder: Path) -> None:
    result = run_with(folder, SCAMP_GATEWAY_RATE_LIMIT_REDIS="redis://:hunter2@redis.example")
    assert "redis_without_tls" in result.stdout
    assert "hunter2" not in result.output


def test_spellings_of_very_many_names_are_not_compared(tmp_path: Path) -> None:
    more = {f"sku.other{number}": [1] for number in range(_MAX_GUESSES)}
    given = Given(table={"sku.fetch": [1], "sku.craete": [2], **more})
    (finding,) = [one for one in found(given, tmp_path) if one.code is codes.UNCONFIGURED]
    assert finding.says == "The table does not list Sku.create."


def test_instances_that_disagree_are_named(tmp_path: Path) -> None:
    given = two("Sku.fetch noauth,read", name="shop-2")
    (finding,) = [one for one in found(given, tmp_path) if one.code is codes.NOAUTH_DISAGREES]
    assert finding.says == "noauth: shop-2; with a ticket: shop."


def test_a_disputed_alias_says_which_action_is_called(tmp_path: Path) -> None:
    (finding,) = [
        one for one in found(two("Sku.find read"), tmp_path) if one.code is codes.ALIAS_DISPUTED
    ]
    assert finding.says == "Services mean sku.fetch, sku.find; Sku.fetch is called."


def test_owners_are_told_once_for_all_of_their_actions(tmp_path: Path) -> None:
    lines = [f"A.a{number} read" for number in range(9)]
    services = service("one", *lines), service("two", *lines)
    (finding,) = [
        one
        for one in found(Given(services=services, table=None), tmp_path)
        if one.code is codes.SEVERAL_OWNERS
    ]
    assert finding.subject == "one, two"
    assert finding.says == "Each of them announces A.a0~1, A.a1~1, A.a2~1 and 6 more."


def test_findings_stand_in_order_of_severity_and_subject(tmp_path: Path) -> None:
    lines = "B.b noauth", "A.a noauth", "A.r noauth,read"
    given = mesh(*lines, settings={"legacy_rsa": True, "drain_limit": 0})
    shown = [(one.code.severity, one.subject) for one in found(given, tmp_path)]
    assert shown == [
        *(("high", "A.a~1"), ("high", "B.b~1"), ("medium", "legacy_rsa")),
        *(("low", "A.r~1"), ("low", "drain_limit")),
    ]


# -- what is ignored --------------------------------------------------------------------


def test_findings_are_ignored_by_code_and_subject(tmp_path: Path) -> None:
    given = audited_of(mesh("A.a noauth", "A.b noauth", "B.c noauth", "A.r noauth,read"), tmp_path)

    def left(*texts: str) -> tuple[list[str], int, list[str]]:
        result = audit(given, map(Ignored.parse, texts))
        unused = [str(one) for one in result.unused]
        return [one.subject for one in result.findings], result.ignored, unused

    assert left() == (["A.a~1", "A.b~1", "B.c~1", "A.r~1"], 0, [])
    assert left("open_write") == (["A.r~1"], 3, [])
    assert left("open_write:A.*") == (["B.c~1", "A.r~1"], 2, [])
    assert left("open_write:A.a~1", "open_read") == (["A.b~1", "B.c~1"], 2, [])
    assert left("open_write:a.a~1", "no_tls") == (
        *(["A.a~1", "A.b~1", "B.c~1", "A.r~1"], 0, ["open_write:a.a~1", "no_tls"]),
    )


def test_a_subject_may_have_colons_and_brackets() -> None:
    finding = Finding(codes.OPEN_WRITE, "web:A[1]", "")
    assert Ignored.parse("open_write:web:A[1]").covers(finding)
    assert not Ignored.parse("open_write:web:A1").covers(finding)
    assert not Ignored.parse("open_read:web:A[1]").covers(finding)


def test_a_code_that_does_not_exist_is_refused_with_the_likely_one() -> None:
    with pytest.raises(ValueError, match=r"'open_writ'.*did you mean 'open_write'"):
        Ignored.parse("open_writ:x")


# -- many of them -----------------------------------------------------------------------


def test_routes_that_overlap_in_very_many_ways_cost_no_more_than_the_limits_say() -> None:
    depth = range(11)
    many = [
        "/" + "/".join(f"{{p{at}}}" if number >> at & 1 else "x" for at in depth)
        for number in range(2**11)
    ]
    tree = _Node()
    for one in parse_routes("".join(map(route, many))).routes:
        tree.put(one)
    widest = many[-1]
    search = _Takers(parse_routes(route(widest)).routes[0])
    assert len(search.find(tree)) == MAX_TAKERS
    apart = _Takers(parse_routes(route(f"{widest}/y")).routes[0])
    assert apart.find(tree) == []
    assert MAX_STEPS < apart._steps <= len(depth) * MAX_STEPS


@pytest.mark.parametrize(
    ("count", "told"), [(3, "and 1 more"), (MAX_TAKERS + 9, f"and at least {MAX_TAKERS - 2} more")]
)
def test_of_many_routes_that_take_urls_the_first_are_named(
    tmp_path: Path, count: int, told: str
) -> None:
    given = routed(route("/v1/{id}"), *(route(f"/v1/{number}") for number in range(count)))
    (finding,) = found(given, tmp_path)
    assert finding.says == (
        "routes.toml:1: some of its URLs go to /v1/0 (routes.toml:6), "
        f"/v1/1 (routes.toml:11) {told}."
    )


@pytest.mark.parametrize(
    ("switches", "code"),
    [(_MAX_BOOLS, codes.ROUTE_SHADOWED), (_MAX_BOOLS + 1, codes.ROUTE_OVERLAPS)],
)
def test_what_has_very_many_switches_is_taken_for_reachable(
    tmp_path: Path, switches: int, code: codes.Code
) -> None:
    path = "".join(f"/{{s{number}:bool}}" for number in range(switches))
    paths = (path, *(path.replace("{s0:bool}", text) for text in ("true", "false")))
    assert [one.code for one in found(routed(*map(route, paths)), tmp_path)] == [code]


@pytest.mark.parametrize("seed", range(40))
def test_who_takes_whose_urls_is_what_trying_them_all_shows(seed: int) -> None:
    chosen = random.Random(seed)  # noqa: S311 - nobody is to be kept from guessing it
    parts = ["a", "true", "false", "7", "{%s}", "{%s:int}", "{%s:number}", "{%s:bool}"]
    shapes = {tuple(chosen.choice(parts) for _ in range(2)) for _ in range(chosen.randint(2, 12))}
    paths = [f"/{first.replace('%s', 'p')}/{second.replace('%s', 'q')}" for first, second in shapes]
    table = parse_routes("".join(map(route, sorted(paths))))
    tree, matcher = _Node(), Matcher(table)
    for one in table.routes:
        tree.put(one)
    texts = ("a", "true", "false", "7", "8", "1.5", "other")
    literals = {segment.text for one in table.routes for segment in one.segments}
    for one in table.routes:
        fitting = [
            [match.route for match in matcher.find(f"/{first}/{second}")]
            for first in texts
            for second in texts
        ]
        fitting = [some for some in fitting if one in some]
        before = {other for some in fitting for other in some[: some.index(one)]}
        assert set(_Takers(one).find(tree)) == before, one.template
        alive = any(some[0] is one for some in fitting)
        assert _reachable(one, "GET", matcher, literals) == alive, one.template


# -- the command ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Everything that a gateway runs with, on the disk."""
    private, certificate = keys.generate("shop", now=datetime.now(UTC))
    spec = AnnouncementSpec(
        identity=new_identity("shop"),
        sector="main",
        weight=1,
        interval=5.0,
        uri="beepish+tls://127.0.0.1:30100",
        envelopes=("json",),
        actions=(
            Action("main", "Sku", "fetch", 1, ("read",), ("json",)),
            Action("main", "Sku", "order", 1, ("noauth",), ("json",)),
            Action("main", "Other", "thing", 1, (), ("json",)),
        ),
    )
    raw = build_announcement(
        spec, keys.load_private_key(private), certificate, timestamp=datetime.now(UTC).timestamp()
    )
    write_cache(tmp_path / "cache", [raw])
    (tmp_path / "authorized").write_text(f"{keys.fingerprint(certificate)} Sku\n")
    (tmp_path / "key.pem").write_bytes(keys.public_key_pem(private))
    (tmp_path / "table.json").write_text('{"sku.fetch": [1]}')
    (tmp_path / "routes.toml").write_text(route("/v1/skus"))
    return tmp_path


def run(folder: Path, *more: str | Path, command: str = "audit") -> Result:
    arguments = [
        *("--discovery-cache", folder / "cache", "--authorized-services", folder / "authorized"),
        *("--ticket-key", folder / "key.pem", "--authz-table", folder / "table.json"),
        *("--routes", folder / "routes.toml", "--bind", "127.0.0.1:0", "--max-body", "1MiB"),
        *("--rate-limit-address", "600/min"),
    ]
    return CliRunner().invoke(main, [command, *map(str, (*arguments, *more))])


def run_with(folder: Path, *more: str, **environment: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return run(folder, *more)


def test_the_command_tells_findings_in_groups_and_sums_them_up(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 1
    assert result.stderr == ""
    assert (
        result.stdout
        == f"""\
HIGH
  open_write: unauthenticated write
    - Sku.order~1: POST /api/Sku.order takes no ticket; flags: noauth.
    => {_wrapped(codes.OPEN_WRITE.remedy)}

LOW
  not_authorized: a service announces what it may not offer
    - shop: It is not permitted Other.thing~1.
    => {_wrapped(codes.NOT_AUTHORIZED.remedy)}

2 findings: 1 high, 0 medium, 1 low; 1 service, 2 actions, 1 route
"""
    )


def _wrapped(text: str) -> str:
    lines, line = [], ""
    for word in text.split():
        if len(line) + 1 + len(word) > 100 - len("    => "):
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n       ".join([*lines, line])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 1),
        (["--fail-on", "low"], 1),
        (["--fail-on", "never"], 0),
        (["--ignore", "open_write"], 0),
        (["--ignore", "open_write:Sku.*"], 0),
        (["--ignore", "open_write:Order.*"], 1),
        (["--ignore", "open_write", "--fail-on", "medium"], 0),
        (["--ignore", "open_write", "--fail-on", "low"], 1),
        (["--ignore", "open_write", "--ignore", "not_authorized", "--fail-on", "low"], 0),
    ],
)
def test_the_status_says_whether_there_is_something_as_bad_as_asked_for(
    folder: Path, arguments: list[str], status: int
) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == status, result.output


def test_what_was_to_be_ignored_and_is_not_there_is_told(folder: Path) -> None:
    result = run(folder, "--ignore", "no_tls", "--ignore", "open_write")
    assert result.exit_code == 0
    assert result.stderr == "scamp-gateway: --ignore no_tls: no such finding\n"
    assert "1 finding: 0 high, 0 medium, 1 low (1 ignored); " in result.stdout


def test_json_has_all_of_it(folder: Path) -> None:
    os.utime(folder / "cache", (1, 1))
    result = run(folder, "--json", "--ignore", "not_authorized")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert shown == {
        "failed": True,
        "counts": {"high": 1, "medium": 0, "low": 0},
        "ignored": 1,
        "looked_at": {"services": 1, "actions": 2, "routes": 1},
        "notes": shown["notes"],
        "findings": [
            {
                "code": "open_write",
                "severity": "high",
                "subject": "Sku.order~1",
                "says": "POST /api/Sku.order takes no ticket; flags: noauth.",
                "remedy": codes.OPEN_WRITE.remedy,
            }
        ],
    }
    (note,) = shown["notes"]
    assert note.endswith("s old: this may be a mesh of the past")


def test_without_a_table_it_says_that_privileges_are_not_known(folder: Path) -> None:
    (folder / "gateway.toml").write_text(
        f'discovery_cache = "{folder}/cache"\nticket_keys = ["{folder}/key.pem"]\n'
    )
    result = CliRunner().invoke(main, ["audit", "--config", str(folder / "gateway.toml")])
    assert result.exit_code == 1
    assert "no_authorized_services" in result.stdout
    assert "note: privileges are not known: no authz_table is given" in result.stdout
    again = run(folder, "--auth-mode", "verify")
    assert "not known" not in again.stdout


def test_records_that_are_refused_are_counted(folder: Path) -> None:
    good = (folder / "cache").read_bytes().removeprefix(b"\n%%%\n")
    write_cache(folder / "cache", [good, b"rubbish"])
    assert (
        "note: 1 record of the discovery cache refused; scamp-gateway check" in run(folder).stdout
    )


def test_of_many_findings_of_one_kind_some_are_shown_and_the_rest_is_counted(
    folder: Path,
) -> None:
    lines = "".join(f'"other.thing{number:02d}": [1],' for number in range(_SHOWN + 5))
    (folder / "table.json").write_text(f'{{{lines} "sku.fetch": [1]}}')
    shown = run(folder).stdout
    assert f"not_announced ({_SHOWN + 5}): " in shown
    assert shown.count("    - other.thing") == _SHOWN
    assert "    - and 5 more; --json has all\n" in shown
    assert len(json.loads(run(folder, "--json").stdout)["findings"]) == _SHOWN + 5 + 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cache", b"garbage", "cache: no separator in the file"),
        ("cache", None, "cache: No such file"),
        ("authorized", None, "authorized: No such file"),
        ("key.pem", b"garbage", "key.pem"),
        ("table.json", b"[]", "table.json: the privilege table is not a JSON object"),
        ("routes.toml", b"x = 1", "routes.toml:1: "),
    ],
)
def test_a_file_that_cannot_be_used_ends_it_with_2(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    path = folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for command in ("audit", "routes") if name != "key.pem" else ("audit",):
        result = run(folder, command=command)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ignore", "no_such"], "scamp-gateway: --ignore: there is no finding 'no_such'"),
        (["--fail-on", "bad"], "'bad' is not one of"),
        (["--retries", "x"], "--retries: retries 'x': "),
        ([], "no discovery cache: give --discovery-cache FILE"),
        (["--discovery-cache", "x"], "no ticket key: give --ticket-key"),
        (
            ["--discovery-source", "multicast", "--auth-mode", "forward"],
            "offline there is no other source",
        ),
    ],
)
def test_wrong_usage_ends_it_with_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["audit", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""


def test_names_that_strangers_chose_do_not_move_the_cursor(tmp_path: Path) -> None:
    evil = Action("main", "Sku\x1b[2J", "order", 1, ("noauth",), ("json",))
    given = audited_of(Given(services=(service("sh\x07op", evil),), table=None), tmp_path)
    assert all(line.isprintable() for line in lines_of(given, audit(given)))


def test_the_clock_is_a_parameter(folder: Path) -> None:
    settings = Settings(
        discovery_cache=folder / "cache", ticket_keys=(folder / "key.pem",), max_body="1MiB"
    )
    given = audited(Loaded(settings), now=(folder / "cache").stat().st_mtime + 7)
    assert given.mesh.age == pytest.approx(7, abs=0.01)


def test_every_check_is_run_and_each_of_them_finds_something(tmp_path: Path) -> None:
    """A check that no case needs is one that nothing tests."""
    idle = set(CHECKS)
    for number, case in enumerate(CASES):
        inner = tmp_path / str(number)
        inner.mkdir()
        given = case.bad if isinstance(case.bad, Given) else case.bad(inner)
        one = audited_of(given, inner)
        idle -= {check for check in CHECKS if any(True for _ in check(one))}
    assert idle == set()
