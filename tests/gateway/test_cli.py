"""The command line: what it takes, what it refuses and with which status, and the offline check."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner, Result

from gateway import cli, logs
from gateway.cli import main
from gateway.reference import configuration_reference
from gateway.sources import Loaded
from scamp import keys
from scamp.discovery import Action, AnnouncementSpec, build_announcement, new_identity, write_cache

CONTRACT_FLAGS = [
    *("--config", "--bind", "--admin-bind", "--scamp-conf", "--discovery-cache"),
    *("--authorized-services", "--ticket-key", "--authz-table", "--auth-mode", "--sector"),
    *("--workers", "--log-level", "--access-log"),
]

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """``run`` sets up logging for the whole process."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.captureWarnings(False)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# -- run --------------------------------------------------------------------------------


def test_run_takes_the_flags_that_scripts_depend_on() -> None:
    shown = invoke("run", "--help").output
    for flag in CONTRACT_FLAGS:
        assert f"  {flag} " in shown, flag


def test_help_tells_defaults_signals_and_exit_codes() -> None:
    shown = " ".join(invoke("run", "--help").output.split())
    assert "every interface. [default: :8080]" in shown
    assert "reachable over HTTP. (repeatable) [default: main]" in shown
    assert "SIGINT the same without the drain delay" in shown
    assert "Exit codes: 0 stopped as told 2 wrong usage" in shown
    assert "--access-log PATH|-|off" in shown
    assert "Exit codes: 0 a gateway would serve with it" in " ".join(
        invoke("check", "--help").output.split()
    )


def test_help_has_settings_below_the_headings_of_their_page() -> None:
    listed = re.findall(r"^## (.+)$", configuration_reference(), re.MULTILINE)
    shown = invoke("audit", "--help").stdout
    assert re.findall(r"^([A-Z].*):$", shown, re.MULTILINE) == ["Options", *listed]
    own, _, browsers = shown.partition("\nListeners:\n")
    assert "--fail-on" in own
    assert "--bind" not in own
    assert "--cors-origin" in browsers.partition("\nBrowsers:\n")[2].partition("\nRate")[0]


def test_everything_that_is_missing_is_told_at_once() -> None:
    lines = invoke("run").stderr.splitlines()
    assert [line.split(":")[1] for line in lines] == [" no discovery cache", " no ticket key"]


def test_what_the_system_refuses_ends_with_status_2_like_the_rest(
    mesh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Loaded) -> int:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(cli, "_serve_alone", refused)
    result = invoke("run", "--discovery-cache", mesh / "cache", "--ticket-key", mesh / "key.pem")
    assert result.exit_code == 2, result.output
    assert result.stderr == "scamp-gateway: [Errno 13] Permission denied: 'somewhere'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--discovery-cache", "x"], "no ticket key: give --ticket-key"),
        (["--ticket-key", "x"], "no discovery cache: give --discovery-cache"),
        (["--workers", "999"], "--workers: workers '999': Input should be less than or equal to"),
        (["--auth-mode", "of"], "'of' is not one of 'enforce', 'verify', 'forward'"),
        (["--log-level", "loud"], "--log-level: log_level 'loud': Input should be 'debug', 'info'"),
        (["--log-level", "gateway.auth=loud"], "--log-level: log_levels.gateway.auth 'loud': "),
        (["--log-level", "gateway.auht=debug"], "(did you mean 'gateway.auth'?)"),
        (["--bind", "nonsense"], "--bind: bind 'nonsense': not HOST:PORT"),
        (["--config", "/none"], "/none: No such file"),
        (["--bnd", "x"], "No such option"),
    ],
)
def test_usage_errors_are_one_clear_line_and_status_2(arguments: list[str], message: str) -> None:
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_files_that_a_gateway_cannot_start_without_end_it_with_status_2(tmp_path: Path) -> None:
    result = invoke(
        *("run", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"),
        *("--discovery-cache", tmp_path / "cache", "--ticket-key", tmp_path / "none"),
    )
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("none: No such file or directory")


@pytest.mark.parametrize("form", ["json", "text"])
def test_log_lines_have_time_level_logger_and_message(form: Literal["json", "text"]) -> None:
    stream = io.StringIO()
    logs.configure("info", form, stream)
    logging.getLogger("gateway.x").info("told %s", "it", extra={"what": "cache"})
    logging.getLogger("gateway.x").debug("unseen")
    (line,) = stream.getvalue().splitlines()
    if form == "text":
        assert line.endswith(" INFO    gateway.x: told it")
        return
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "INFO",
        "logger": "gateway.x",
        "message": "told it",
        "what": "cache",
    }


def test_single_loggers_have_levels_of_their_own() -> None:
    names = ["gateway.a", "gateway.a.b", "gateway.c", "aiohttp.server"]
    before = {name: logging.getLogger(name).level for name in names}
    stream = io.StringIO()
    levels = {"gateway.a": "debug", "gateway.c": "error", "aiohttp.server": "info"}
    logs.configure("warning", "text", stream, levels=levels)
    try:
        for name in names:
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                logging.getLogger(name).log(level, "x")
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
    written = [line.split()[1:3] for line in stream.getvalue().splitlines()]
    counts = {name: sum(logger == f"{name}:" for _, logger in written) for name in names}
    assert counts == {"gateway.a": 4, "gateway.a.b": 4, "gateway.c": 1, "aiohttp.server": 3}


def test_levels_are_given_by_a_flag_that_repeats(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("log_level = 'error'\n[log_levels]\nscamp = 'debug'\n")
    given = ("--log-level", "info", "--log-level", "gateway.auth=debug")
    result = invoke("config", "--config", path, "--log-level", "scamp.client=error", *given)
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["log_level"].endswith("  info  (--log-level)")
    shown = "{'scamp.client': 'error', 'gateway.auth': 'debug'}"
    assert lines["log_levels"].endswith(f"  {shown}  (--log-level)")
    lines = {
        line.split()[0]: line for line in invoke("config", "--config", path).stdout.splitlines()
    }
    assert lines["log_level"].endswith(f"  error  ({path}:1)")


# -- config -----------------------------------------------------------------------------


def test_config_shows_values_and_origins_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("retries = 1\ntls_key_password = 'hunter2'\n")
    result = invoke("config", "--config", path, "--sector", "main", "--sector", "web")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["retries"].endswith(f"1  ({path}:1)")
    assert lines["sectors"].endswith("['main', 'web']  (--sector)")
    assert lines["bind"].endswith(":8080  (default)")
    assert "hunter2" not in result.output


# -- check ------------------------------------------------------------------------------


def announcement(name: str) -> tuple[bytes, str]:
    private, certificate = keys.generate(name, now=datetime.now(UTC))
    spec = AnnouncementSpec(
        identity=new_identity(name),
        sector="main",
        weight=1,
        interval=5.0,
        uri="beepish+tls://127.0.0.1:30100",
        envelopes=("json",),
        actions=(Action("main", "Product.Sku", "fetch", 1, ("read",), ("json",)),),
    )
    key = keys.load_private_key(private)
    raw = build_announcement(spec, key, certificate, timestamp=time.time())
    return raw, keys.fingerprint(certificate)


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A folder with everything that a gateway needs, all of it good."""
    raw, fingerprint = announcement("shop")
    write_cache(tmp_path / "cache", [raw])
    (tmp_path / "authorized").write_text(f"{fingerprint} main:ALL\n")
    private, certificate = keys.generate("auth", now=datetime.now(UTC))
    (tmp_path / "key.pem").write_bytes(keys.public_key_pem(private))
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "table.json").write_text('{"product.sku.fetch": [1]}')
    (tmp_path / "routes.toml").write_text(
        '[[resources]]\npath = "/skus"\nnamespace = "Product.Sku"\nid = "id"\n'
    )
    return tmp_path


def check(mesh: Path, *more: str | Path) -> Result:
    return invoke(
        *("check", "--discovery-cache", mesh / "cache", "--ticket-key", mesh / "key.pem"),
        *("--authorized-services", mesh / "authorized", "--authz-table", mesh / "table.json"),
        *("--tls-certificate", mesh / "cert.pem", "--tls-key", mesh / "private.pem"),
        *("--routes", mesh / "routes.toml", "--max-connections", "10"),
        *("--max-connections-per-address", "5"),
        *more,
    )


def test_check_of_a_good_configuration_counts_and_ends_with_0(mesh: Path) -> None:
    result = check(mesh)
    assert result.exit_code == 0, result.output
    assert "1 services accepted with 1 actions, 0 refused" in result.stdout
    assert "authorized_services: " in result.stdout
    assert "1 (RSA 2048 bits), mode enforce" in result.stdout
    assert "routes.toml: 5 routes" in result.stdout
    assert result.stdout.endswith("all good\n")
    assert "warn" not in result.stdout


def test_check_counts_refused_records_by_reason_and_goes_on(mesh: Path) -> None:
    raw, _ = announcement("other")
    good = (mesh / "cache").read_bytes().removeprefix(b"\n%%%\n")
    write_cache(mesh / "cache", [good, raw.replace(b"fetch", b"fotch"), b"rubbish"])
    result = check(mesh)
    assert result.exit_code == 0
    assert "1 services accepted with 1 actions, 2 refused (1 malformed, 1 signature)" in (
        result.stdout
    )


def test_check_says_what_is_stale_and_what_is_not_authorized(mesh: Path) -> None:
    (mesh / "authorized").write_text(f"{':'.join(['00'] * 20)} main:ALL\n")
    os.utime(mesh / "cache", (1, 1))
    result = check(mesh)
    assert result.exit_code == 0
    assert "accepted with 0 actions" in result.stdout
    assert "1 actions not authorized" in result.stdout
    assert "warn  discovery cache: stale: " in result.stdout


@pytest.mark.parametrize(
    ("name", "content", "about"),
    [
        ("cache", b"garbage", "cache: no separator in the file"),
        ("cache", None, "discovery cache: "),
        ("authorized", None, "authorized_services: "),
        ("authorized", b"", "authorized_services: "),
        ("key.pem", b"garbage", "ticket keys: "),
        ("key.pem", None, "ticket keys: "),
        ("table.json", b"[]", "table.json: the privilege table is not a JSON object"),
        ("table.json", None, "privilege table: "),
        ("cert.pem", b"garbage", "not PEM, or the passphrase of the key is missing or wrong"),
        ("private.pem", None, "TLS: "),
        ("routes.toml", b"[[routes]]", "routes.toml:1: method: is missing"),
        ("routes.toml", None, "routes: "),
    ],
)
def test_check_of_a_bad_file_names_it_and_ends_with_1(
    mesh: Path, name: str, content: bytes | None, about: str
) -> None:
    path = mesh / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    result = check(mesh)
    assert result.exit_code == 1
    failures = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert any(about in line for line in failures), failures
    assert len({line.split(":")[0] for line in failures}) == 1, "nothing else is at fault"
    assert "Traceback" not in result.output


def test_check_warns_of_names_that_nobody_announces(mesh: Path) -> None:
    route = '[[routes]]\nmethod = "GET"\npath = "/v1/{n}"\naction = "Product.Sku.fotch"\n'
    text = "".join(route.replace("{n}", str(n)) for n in range(12))
    text += route.replace("{n}", "x").replace("fotch", "fetch")
    (mesh / "routes.toml").write_text(text)
    result = check(mesh, "--sector", "MAIN", "--sector", "wbe")
    assert result.exit_code == 0, result.output
    warned = [line for line in result.stdout.splitlines() if line.startswith("warn")]
    assert warned[0] == "warn  sectors: no service offers anything in wbe now"
    assert warned[1].endswith("routes.toml:1: GET /v1/0: no service announces Product.Sku.fotch~1")
    assert len(warned) == 12
    assert warned[-1] == "warn  routes: 2 further routes lead nowhere"
    assert result.stdout.endswith("no problems, 12 warnings\n")


def test_check_warns_of_services_to_ping_or_follow_that_nobody_announces(mesh: Path) -> None:
    known = ("--ping-service", "SHOP", "--events-open", "main:shop")
    assert "no service" not in check(mesh, *known).stdout
    result = check(mesh, "--ping-service", "shpo", "--events-open", "web:shop")
    assert result.exit_code == 0, result.output
    assert "warn  ping_services: no service shpo is announced now" in result.stdout
    assert "warn  events_open: no service web:shop is announced now" in result.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--max-in-flight", "9"), ""),
        (("--max-in-flight-per-action", "9"), ""),
        (("--max-in-flight-per-action", "0", "--max-connections-per-address", "0"), ""),
        (
            ("--max-in-flight", "9", "--max-in-flight-per-action", "10"),
            "max_in_flight_per_action is 10 and max_in_flight 9",
        ),
        (
            ("--max-in-flight-per-instance", "5000"),
            "max_in_flight_per_instance is 5000 and max_in_flight 5000",
        ),
        (
            ("--max-event-streams", "99"),
            "max_event_streams_per_caller is 100 and max_event_streams 99",
        ),
        (
            ("--max-connections-per-address", "11"),
            "max_connections_per_address is 11 and max_connections 10",
        ),
    ],
)
def test_check_warns_of_limits_that_leave_all_to_one(
    mesh: Path, flags: tuple[str, ...], said: str
) -> None:
    result = check(mesh, *flags)
    assert result.exit_code == 0, result.output
    warned = [line for line in result.stdout.splitlines() if line.startswith("warn")]
    assert warned == ([f"warn  settings: {said}: one alone can take all of them"] if said else [])


def test_run_tells_what_to_do_about_an_address_that_is_taken(mesh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        result = invoke(
            *("run", "--discovery-cache", mesh / "cache", "--ticket-key", mesh / "key.pem"),
            *("--bind", where, "--admin-bind", "127.0.0.1:0", "--access-log", "off"),
        )
    assert result.exit_code == 2
    assert f"cannot listen on {where}: Address already in use; `ss -ltnp`" in result.stderr
    assert "takeover_socket" in result.stderr


def test_check_sees_an_access_log_that_run_would_refuse(mesh: Path) -> None:
    assert f"FAIL  access log: {mesh} is a directory" in check(mesh, "--access-log", mesh).stdout
    result = check(mesh, "--access-log", mesh / "none" / "log")
    assert result.exit_code == 1
    assert "FAIL  access log: " in result.stdout
    assert check(mesh, "--access-log", mesh / "log").exit_code == 0


def test_check_tells_bad_settings_like_any_other_problem() -> None:
    result = invoke("check", "--retries", "x")
    assert result.exit_code == 1
    assert "FAIL  settings: --retries: retries 'x': " in result.stdout
    result = invoke("check", "--sector", "we b")
    assert "FAIL  settings: --sector: sectors ('we b',): 'we b' is no sector" in result.stdout
    result = invoke("check")
    assert result.exit_code == 1
    assert "no discovery cache" in result.stdout
    assert "no ticket key" in result.stdout
