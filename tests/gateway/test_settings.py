"""Settings: their sources and the order of these, what is refused and how, the reference page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import sources
from gateway.clients import ClientLimits
from gateway.events.hub import HubLimits
from gateway.factory import client_limits, client_options, front_options, hub_limits
from gateway.front import FrontOptions
from gateway.reference import configuration_reference
from gateway.setting_types import Address
from gateway.settings import ENV_PREFIX, Settings
from scamp.client import ClientOptions
from scamp.errors import ConfigError

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("bare_environment")


def toml(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


# -- order ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["discovery.source = 'multicast'", "[discovery]\nsource = 'multicast'"]
)
def test_a_table_in_the_file_is_the_beginning_of_names(tmp_path: Path, text: str) -> None:
    loaded = sources.load(config=toml(tmp_path, f"bind = ':1'\n{text}\n"))
    assert loaded.settings.discovery_source == "multicast"
    assert loaded.origins["discovery_source"].endswith("toml:2")


def test_defaults_are_the_documented_figures() -> None:
    settings = sources.load().settings
    assert str(settings.bind) == ":8080"
    assert str(settings.admin_bind) == "127.0.0.1:9090"
    assert settings.sectors == ("main",)
    assert (settings.ticket_leeway, settings.authz_ttl, settings.authz_grace) == (30, 300, 900)
    assert (settings.request_timeout, settings.body_idle_timeout) == (75, 60)
    assert (settings.drain_delay, settings.drain_limit) == (5, 25)
    assert settings.max_body is None
    assert not settings.compress_replies
    assert (settings.max_connections, settings.max_connections_per_address) == (10_000, 1000)
    assert (settings.header_timeout, settings.keepalive_timeout) == (20, 75)
    assert (settings.tls_handshake_timeout, settings.min_body_rate) == (10, 240)


def test_flags_go_over_environment_over_file_over_scamp_conf_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "scamp.conf"
    conf.write_text(
        "rpc.timeout = 11\ndiscovery.cache_max_age = 11\ndiscovery.cache_path = /conf/cache\n"
        "bus.authorized_services = /conf/authorized\n"
    )
    path = toml(
        tmp_path,
        f'scamp_conf = "{conf}"\nrequest_timeout = 22\nretries = 2\nmax_in_flight = 22\n'
        'discovery_cache = "/toml/cache"\n',
    )
    monkeypatch.setenv("SCAMP_GATEWAY_MAX_IN_FLIGHT", "33")
    monkeypatch.setenv("SCAMP_GATEWAY_RETRIES", "3")
    loaded = sources.load({"retries": "4", "bind": None}, config=path)
    settings = loaded.settings
    assert settings.retries == 4
    assert settings.max_in_flight == 33
    assert settings.request_timeout == 22
    assert settings.discovery_cache == Path("/toml/cache")
    assert settings.discovery_max_age == 11
    assert settings.authorized_services == Path("/conf/authorized")
    assert settings.connect_timeout == 10
    assert loaded.origins["retries"] == "--retries"
    assert loaded.origins["max_in_flight"] == "SCAMP_GATEWAY_MAX_IN_FLIGHT"
    assert loaded.origins["request_timeout"] == f"{path}:2"
    assert loaded.origins["discovery_max_age"] == f"{conf} (discovery.cache_max_age)"
    assert "connect_timeout" not in loaded.origins


def test_scamp_conf_without_a_cache_path_means_the_path_that_all_share(tmp_path: Path) -> None:
    conf = tmp_path / "scamp.conf"
    conf.write_text("rpc.timeout = 5\n")
    settings = sources.load({}, environ={"SCAMP": str(conf)}).settings
    assert settings.discovery_cache == Path("/tmp/scamp_discovery_cache")
    assert settings.request_timeout == 5
    assert settings.scamp_conf == conf


def test_missing_scamp_conf_matters_only_when_it_is_needed(tmp_path: Path) -> None:
    environ = {"SCAMP": str(tmp_path / "none")}
    loaded = sources.load({"discovery_cache": "/x"}, environ=environ)
    assert "none: No such file" in loaded.warnings[0]
    with pytest.raises(ConfigError, match="none: No such file"):
        sources.load({}, environ=environ)
    with pytest.raises(ConfigError, match="none: No such file"):
        sources.load({"scamp_conf": tmp_path / "none", "discovery_cache": "/x"})


def test_environment_names_the_file_and_holds_lists_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCAMP_GATEWAY_CONFIG", str(toml(tmp_path, "max_body = '10MiB'")))
    monkeypatch.setenv("SCAMP_GATEWAY_SECTORS", "main, web")
    monkeypatch.setenv("SCAMP_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    monkeypatch.setenv("SCAMP_GATEWAY_ERROR_STATUS", '{"out_of_stock": 409}')
    monkeypatch.setenv("SCAMP_GATEWAY_SERVER_TIMING", "true")
    monkeypatch.setenv("SCAMP_GATEWAY_BIND", "")
    settings = sources.load().settings
    assert settings.max_body == 10 * 1024 * 1024
    assert settings.sectors == ("main", "web")
    assert [str(one) for one in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert settings.error_status == {"out_of_stock": 409}
    assert settings.server_timing
    assert settings.bind == Address(None, 8080)


IN_THE_ENVIRONMENT = {
    "bind": "127.0.0.1:81",
    "admin_bind": "[::1]:82",
    "admin_hosts": "admin.example,gateway",
    "tls_certificate": "c.pem",
    "tls_key": "k.pem",
    "tls_key_password": "secret",
    "tls_client_ca": "ca.pem",
    "trusted_proxies": "10.0.0.0/8",
    "scamp_conf": "scamp.conf",
    "discovery_source": "multicast",
    "discovery_cache": "cache",
    "multicast_address": "239.255.0.1",
    "multicast_port": "6000",
    "multicast_interfaces": "127.0.0.1,if:lo",
    "discovery_max_age": "7",
    "discovery_poll_interval": "0.5",
    "authorized_services": "authorized",
    "sectors": "web",
    "legacy_rsa": "true",
    "connect_timeout": "7",
    "upstream_idle_timeout": "7",
    "max_connections_per_instance": "7",
    "max_requests_per_connection": "7",
    "max_waiters_per_instance": "7",
    "retries": "1",
    "retry_budget": "0.5",
    "max_in_flight_per_action": "7",
    "max_in_flight_per_instance": "7",
    "slow_start": "7",
    "queue_target": "7",
    "queue_interval": "7",
    "max_loop_lag": "7",
    "tcp_keepalive_idle": "7",
    "tcp_keepalive_interval": "7",
    "tcp_user_timeout": "7",
    "ping_services": "shop,web:shop",
    "ping_interval": "7",
    "reply_hold": "0.5",
    "auth_mode": "verify",
    "ticket_keys": "a.pem,b.pem",
    "ticket_leeway": "7",
    "authz_table": "table.json",
    "authz_ttl": "7",
    "authz_grace": "7",
    "request_timeout": "7",
    "body_idle_timeout": "7",
    "max_body": "7MiB",
    "routes": "/routes.toml",
    "max_mapped_body": "7MiB",
    "media_types": '{"text/csv": "csv"}',
    "max_in_flight": "7",
    "error_status": '{"gone": 410}',
    "server_timing": "true",
    "max_connections": "7",
    "max_connections_per_address": "7",
    "tls_handshake_timeout": "7",
    "header_timeout": "7",
    "keepalive_timeout": "7",
    "min_body_rate": "7",
    "ticket_cookie": "ticket",
    "cors_origins": "https://app.example,http://[::1]:3000",
    "cors_max_age": "7",
    "openapi": "everyone",
    "openapi_title": "Shop",
    "openapi_max_actions": "7",
    "decompress_requests": "false",
    "compress_replies": "true",
    "rate_limit_user": "600/min",
    "rate_limit_client": "10/s;burst=50",
    "rate_limit_address": "100/15min",
    "rate_limit_max_callers": "2048",
    "rate_limit_redis": "redis://:secret@redis.example/1",
    "rate_limit_redis_timeout": "0.2",
    "rate_limit_on_failure": "closed",
    "events_open": "shop,web:shop",
    "events_heartbeat": "7",
    "max_event_streams": "7",
    "max_event_streams_per_subscription": "7",
    "max_event_streams_per_caller": "7",
    "max_event_subscriptions": "7",
    "docs": "false",
    "tracing": "true",
    "tracing_endpoint": "https://collector.example:4318/otlp",
    "tracing_headers": "authorization=Bearer%20secret",
    "tracing_sample": "0.1",
    "tracing_parent": "restart",
    "tracing_service_name": "edge",
    "workers": "2",
    "worker_timeout": "7",
    "takeover_socket": "/run/scamp-gateway/takeover",
    "log_level": "debug",
    "log_levels": "gateway.auth=debug,scamp=error",
    "log_format": "text",
    "access_log": "off",
    "access_log_format": "text",
    "access_log_sample": "0.5",
    "access_log_slow": "7",
    "drain_delay": "7",
    "drain_limit": "7",
}


def test_every_setting_can_be_given_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scamp.conf").touch()
    defaults = sources.load().settings
    for name, text in IN_THE_ENVIRONMENT.items():
        monkeypatch.setenv(ENV_PREFIX + name.upper(), text)
    given = sources.load().settings
    same = {name for name in IN_THE_ENVIRONMENT if getattr(given, name) == getattr(defaults, name)}
    assert not same
    twins = {"tls_key_password_file", "rate_limit_redis_file", "tracing_headers_file"}
    assert IN_THE_ENVIRONMENT.keys() | twins == Settings.model_fields.keys()


@pytest.mark.parametrize(
    "text",
    [
        "[log_levels]\n'gateway.auth' = 'debug'\nscamp = 'error'",
        "[log_levels]\ngateway.auth = 'debug'\nscamp = 'error'",
        "log.levels = {gateway.auth = 'debug', scamp = 'error'}",
        "log_levels = ['gateway.auth=debug', 'scamp=error']",
        "log_levels = 'gateway.auth=debug, scamp = error,'",
        """log_levels = '{"gateway.auth": "debug", "scamp": "error"}'""",
    ],
)
def test_levels_of_loggers_can_be_written_in_many_ways(tmp_path: Path, text: str) -> None:
    settings = sources.load(config=toml(tmp_path, text)).settings
    assert settings.log_levels == {"gateway.auth": "debug", "scamp": "error"}


# -- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nadmin_bnd = 'x'", ":2: there is no setting 'admin_bnd' (did you mean 'admin_bind'?)"),
        ("admin-bind = 'x'", ":1: there is no setting 'admin-bind' (did you mean 'admin_bind'?)"),
        ("zzz = 1", ":1: there is no setting 'zzz'"),
        (f"retries = {'1' * 5000}", "a number has too many digits"),
        (f"retries = {'[' * 5000}", "nested too deeply"),
        (
            "\n[discovery]\nsourse = 'cache'",
            ":2: there is no setting 'discovery.sourse' (did you mean 'discovery_source'?)",
        ),
        (
            "discovery_source = 'cache'\ndiscovery.source = 'multicast'",
            ":2: 'discovery_source' is set twice",
        ),
        ("[zzz]", ":1: there is no setting 'zzz'"),
        ("[zzz]\na = 1", ":1: there is no setting 'zzz.a'"),
        ("retries = 1\nretries = 2", ":2"),
        ("retries = ", ":1: Invalid value"),
        ("workers = 1\nretries = 'many'", ":2: retries 'many': Input should be a valid integer"),
        ("request_timeout = -1", ":1: request_timeout -1: Input should be greater than 0"),
        ("bind = '::1:80'", "write an IPv6 address in brackets"),
        ("bind = '80'", "not HOST:PORT"),
        ("bind = ':65536'", "not HOST:PORT"),
        ("auth_mode = 'of'", "Input should be 'enforce', 'verify' or 'forward'"),
        ("workers = -1", "workers -1: Input should be greater than or equal to 1"),
        ("sectors = []", "at least 1"),
        ("events_open = ['a:b:c']", "'a:b:c' is not [SECTOR:]SERVICE"),
        ("ping_services = ['a:b:c']", "'a:b:c' is not [SECTOR:]SERVICE"),
        ("[error_status]\nbroken = 200", ":1: error_status.broken 200: "),
        ("tls_key = 'k'", "tls_certificate and tls_key go together"),
        ("tls_client_ca = 'k'", "tls_client_ca needs tls_certificate"),
        ("trusted_proxies = ['10.0.0.1/8']", "10.0.0.1/8 has host bits set"),
        ("ticket_cookie = 'a b'", "a cookie's name has"),
        ("cors_origins = ['*', 'https://app.example']", "* stands for every origin"),
        ("cors_origins = ['https://app.example/']", "is no origin"),
        ("cors_origins = ['https://App.example']", "is no origin"),
        ("cors_origins = ['app.example']", "is no origin"),
        ("cors_origins = ['null']", "is no origin"),
        ("cors_origins = ['https://app.example:65536']", "is no origin"),
        ("cors_origins = ['https://app.example:443']", "browsers leave the usual port out"),
        ("rate_limit_user = '10/fortnight'", ":1: rate_limit_user '10/fortnight': not COUNT/UNIT"),
        ("rate_limit_client = '0/s'", "a rate's count is between 1 and 1000000, not 0"),
        ("[log_levels]\n'gateway.auht' = 'debug'", "did you mean 'gateway.auth'?)"),
        ("log_levels = {nobody = 'info'}", ":1: log_levels {'nobody': 'info'}: there is no logger"),
        ("[log_levels]\ngateway.auth = 'loud'", ":1: log_levels.gateway.auth 'loud': Input should"),
        ("log_levels = ['gateway.auth']", "'gateway.auth' is not LOGGER=LEVEL"),
        (
            "access_log_sample = 1.5",
            ":1: access_log_sample 1.5: Input should be less than or equal",
        ),
        ("drain_limit = inf", ":1: drain_limit inf: Input should be a finite number"),
    ],
)
def test_bad_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        sources.load(config=path)
    assert message in str(caught.value)
    if "tls" not in text:
        assert str(caught.value).startswith(f"{path}:")


def test_every_bad_key_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        sources.load(config=toml(tmp_path, "bnd = 1\nworkrs = 2"))
    assert len(str(caught.value).splitlines()) == 2


def test_unknown_variable_is_refused_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCAMP_GATEWAY_TICKET_KEY", "x")
    with pytest.raises(ConfigError, match=r"TICKET_KEY: .*did you mean SCAMP_GATEWAY_TICKET_KEYS"):
        sources.load()


def test_bad_value_names_flag_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^--ticket-leeway: ticket_leeway 'soon': "):
        sources.load({"ticket_leeway": "soon"})
    monkeypatch.setenv("SCAMP_GATEWAY_ERROR_STATUS", "{")
    with pytest.raises(ConfigError, match=r"^SCAMP_GATEWAY_ERROR_STATUS: not JSON"):
        sources.load()


def test_variables_that_kubernetes_makes_for_a_service_are_let_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "PORT": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP_ADDR": "10.0.0.1",
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8080",
        "SERVICE_PORT_HTTP": "8080",
        "ADMIN_SERVICE_HOST": "10.0.0.2",
        "ADMIN_PORT": "tcp://10.0.0.2:9090",
    }.items():
        monkeypatch.setenv(ENV_PREFIX + name, value)
    assert sources.load().settings.bind == Address(None, 8080)
    monkeypatch.setenv(f"{ENV_PREFIX}ADMIN_PORT", "9090")
    with pytest.raises(ConfigError, match="ADMIN_PORT: there is no such setting"):
        sources.load()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({}, "no discovery cache: give --discovery-cache FILE"),
        ({"discovery_cache": "x"}, "no ticket key: give --ticket-key"),
        ({"discovery_cache": "x", "auth_mode": "enforce"}, "no ticket key"),
        ({"discovery_cache": "x", "auth_mode": "verify"}, "no ticket key"),
    ],
)
def test_incomplete_settings_say_what_to_set(flags: dict[str, str], problem: str) -> None:
    settings = sources.load(flags).settings
    with pytest.raises(ConfigError, match=problem):
        settings.require_complete()


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ({"auth_mode": "forward"}, "forward"),
        ({"ticket_keys": ("k",)}, "enforce"),
        ({"ticket_keys": ("k",), "auth_mode": "verify"}, "verify"),
    ],
)
def test_key_or_explicit_mode_is_enough(flags: dict[str, str], mode: str) -> None:
    settings = sources.load({"discovery_cache": "x", **flags}).settings
    settings.require_complete()
    assert settings.effective_auth_mode == mode


# -- secrets ----------------------------------------------------------------------------


def test_secret_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    settings = sources.load({"tls_key_password_file": str(secret)}).settings
    assert settings.tls_key_password is not None
    assert settings.tls_key_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + settings.model_dump_json()


def test_secret_given_twice_or_unreadable_is_refused(tmp_path: Path) -> None:
    path = toml(tmp_path, 'tls_key_password = "x"')
    with pytest.raises(ConfigError, match=r"set twice, by .*toml:1 and --tls-key-password-file"):
        sources.load({"tls_key_password_file": "/none"}, config=path)
    with pytest.raises(ConfigError, match="/none: No such file"):
        sources.load({"tls_key_password_file": "/none"})
    with pytest.raises(ConfigError) as caught:
        sources.load(config=toml(tmp_path, "tls_key_password = 12345678"))
    assert "12345678" not in str(caught.value)


def test_url_of_a_redis_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://:hunter2@redis.example:6379/0\n")
    settings = sources.load({"rate_limit_redis_file": str(secret)}).settings
    assert settings.rate_limit_redis is not None
    assert settings.rate_limit_redis.get_secret_value().endswith("@redis.example:6379/0")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
    secret.write_text("http://:hunter2@redis.example")
    with pytest.raises(ConfigError, match="not redis://HOST:PORT/DB") as caught:
        sources.load({"rate_limit_redis_file": str(secret)})
    assert "hunter2" not in str(caught.value)


# -- addresses and the page -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        (":8080", None, 8080, ":8080"),
        ("*:8080", None, 8080, ":8080"),
        ("127.0.0.1:0", "127.0.0.1", 0, "127.0.0.1:0"),
        ("[::1]:8080", "::1", 8080, "[::1]:8080"),
        ("name.example:65535", "name.example", 65535, "name.example:65535"),
    ],
)
def test_addresses(text: str, host: str | None, port: int, shown: str) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert str(address) == shown


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_committed_reference_is_current() -> None:
    committed = (ROOT / "docs" / "configuration.md").read_text()
    assert committed == configuration_reference(), (
        "run: scamp-gateway config --reference > docs/configuration.md"
    )


def test_unknown_names_hide_no_bad_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has made several mistakes is told of all of them at once."""
    monkeypatch.setenv(f"{ENV_PREFIX}BINDD", "x")
    path = tmp_path / "gateway.toml"
    path.write_text("retrys = 1\nretries = 'many'\nauth_mode = 'of'\n")
    with pytest.raises(ConfigError) as caught:
        sources.load({"workers": "many"}, config=path)
    places = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert sorted(places) == sorted(
        [f"{ENV_PREFIX}BINDD", *(f"{path}:{line}" for line in (1, 2, 3)), "--workers"]
    )


# -- what stands twice ------------------------------------------------------------------


def test_the_parts_have_by_themselves_the_defaults_of_the_settings() -> None:
    settings = Settings()
    assert client_limits(settings) == ClientLimits()
    assert hub_limits(settings) == HubLimits()
    assert front_options(settings) == FrontOptions(max_loop_lag=settings.max_loop_lag)
    assert client_options(settings) == ClientOptions(
        max_in_flight=settings.effective_max_per_instance,
        queue_target=settings.queue_target,
    )


PAGES = ("capacity", "clients", "http", "limits", "operations", "resilience", "resilience-peers")
SAID = re.compile(r"`(\w+)` \(([\d.,]+) ?(s|%|MiB|KiB|bytes/s)?\)")
ROW = re.compile(r"^\|.*`(\w+)` \| ([\d.,]+) ?(s|MiB)? \|", re.MULTILINE)
LIMIT = re.compile(r"^\|[^|]*\| ([\d.,]+) ?(s|MiB)? \|[^|]*\| `(\w+)` \|$", re.MULTILINE)
UNITS = {"": 1.0, "s": 1.0, "%": 0.01, "KiB": 1 << 10, "MiB": 1 << 20, "bytes/s": 1.0}


def figures(text: str) -> Iterator[tuple[str, float]]:
    """Names with the number that a page gives them."""
    found = [*SAID.findall(text), *ROW.findall(text)]
    found += [(name, number, unit) for number, unit, name in LIMIT.findall(text)]
    for name, number, unit in found:
        yield name, float(number.replace(",", "")) * UNITS[unit]


def test_pages_give_the_defaults_that_there_are() -> None:
    settings, options, seen = Settings(), ClientOptions(), set()
    for page in PAGES:
        of = options if page == "clients" else settings
        for name, value in figures((ROOT / "docs" / f"{page}.md").read_text()):
            default = getattr(of, name, None)
            if isinstance(default, int | float):
                seen.add(name)
                assert default == value, f"{page}: {name}"
    assert {"max_in_flight", "max_connections", "tcp_user_timeout", "retry_budget"} <= seen
    assert len(seen) > 25, sorted(seen)
