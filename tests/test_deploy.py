"""What operators copy agrees with what the gateway does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gateway import sources
from gateway.connection import MAX_HEAD
from gateway.public import MAX_FIELD, MAX_TARGET
from gateway.settings import ENV_PREFIX, Settings
from scamp import limits
from tests.soak.crowd import SHIPPED

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CLOSING = 5.0
"""Seconds that a stop may take beyond the drain."""


def test_systemd_waits_for_the_drain() -> None:
    unit = (DEPLOY / "systemd" / "scamp-gateway.service").read_text()
    found = re.search(r"^TimeoutStopSec=([0-9]+)$", unit, re.MULTILINE)
    assert found is not None
    fields = Settings.model_fields
    drain = fields["drain_delay"].default + fields["drain_limit"].default
    assert float(found[1]) >= drain + CLOSING


def test_a_gateway_that_hangs_has_as_long_alone_as_a_worker() -> None:
    unit = (DEPLOY / "systemd" / "scamp-gateway.service").read_text()
    assert f"\nWatchdogSec={Settings.model_fields['worker_timeout'].default}\n" in unit


def test_the_allocator_of_the_soak_is_the_one_that_is_shipped() -> None:
    unit = (DEPLOY / "systemd" / "scamp-gateway.service").read_text()
    image = (ROOT / "Dockerfile").read_text()
    for name, value in SHIPPED.items():
        assert f"\nEnvironment={name}={value}\n" in unit
        assert f"\n    {name}={value} \\\n" in image
    assert "libjemalloc2" in image


# -- settings ---------------------------------------------------------------------------

EXAMPLE = DEPLOY / "gateway.example.toml"


@pytest.fixture
def no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) or name in ("SCAMP", "SCAMP_CONFIG"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("scamp.config.SEARCHED", ())


@pytest.mark.usefixtures("no_other_settings")
def test_the_example_of_settings_can_be_loaded() -> None:
    loaded = sources.load(config=EXAMPLE)
    loaded.settings.require_complete()
    assert loaded.settings.auth_mode in (None, "enforce")


@pytest.mark.usefixtures("no_other_settings")
def test_what_is_commented_out_in_it_can_be_set(tmp_path: Path) -> None:
    """All of it at once."""
    text, count = re.subn(r"^#(?=[a-z_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert count > 5
    (tmp_path / "redis-url").write_text("redis://127.0.0.1/0")
    path = tmp_path / "gateway.toml"
    path.write_text(text.replace("/etc/scamp-gateway/redis-url", f"{tmp_path}/redis-url"))
    sources.load(config=path).settings.require_complete()


def test_every_setting_in_it_is_explained() -> None:
    """By a comment above it, or above those that it stands with."""
    for block in EXAMPLE.read_text().split("\n\n"):
        if re.search(r"^#?[a-z_]+ = ", block, re.MULTILINE):
            assert re.match(r"# [A-Z]", block), block


@pytest.mark.usefixtures("no_other_settings")
def test_the_environment_of_the_unit_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "systemd" / "scamp-gateway.env").read_text()
    found = re.findall(r"^#?(SCAMP_GATEWAY_[A-Z_]+)=(.*)$", text, re.MULTILINE)
    assert found
    for name, value in found:
        monkeypatch.setenv(name, value)
    sources.load()


@pytest.mark.parametrize("folder", ["", "haproxy", "nginx", "systemd"])
def test_the_index_has_every_file(folder: str) -> None:
    index = (DEPLOY / "README.md").read_text()
    for path in (DEPLOY / folder).iterdir():
        if path.is_file() and path.name != "README.md":
            assert str(path.relative_to(DEPLOY)) in index


# -- load balancers ---------------------------------------------------------------------

NGINX = DEPLOY / "nginx" / "scamp-gateway.conf"
HAPROXY = DEPLOY / "haproxy" / "haproxy.cfg"


def all_of(path: Path, pattern: str) -> set[str]:
    """What `pattern` finds where nothing is commented out; something."""
    live = re.sub(r"#.*$", "", path.read_text(), flags=re.MULTILINE)
    found = set(re.findall(pattern, live))
    assert found, f"{path.name}: nothing like {pattern}"
    return found


def default(name: str) -> float:
    return float(Settings.model_fields[name].default)


def test_balancers_use_the_ports_of_the_gateway() -> None:
    port = str(Settings.model_fields["bind"].default.port)
    assert all_of(NGINX, r"server 10\.0\.0\.\d:(\d+)") == {port}
    assert all_of(HAPROXY, r"server gateway\d 10\.0\.0\.\d:(\d+)") == {port}
    admin = str(Settings.model_fields["admin_bind"].default.port)
    assert all_of(HAPROXY, r"check port (\d+)") == {admin}
    assert not re.search(rf":{admin}\b", NGINX.read_text())


def test_balancers_wait_longer_than_the_gateway() -> None:
    for path, patterns in (
        (NGINX, (r"proxy_read_timeout (\d+)s",)),
        (HAPROXY, (r"timeout server (\d+)s",)),
    ):
        for pattern in patterns:
            assert min(map(float, all_of(path, pattern))) > default("request_timeout")
    idle = default("body_idle_timeout")
    for path, pattern in (
        (NGINX, r"(?:client_body|send|proxy_send)_timeout (\d+)s"),
        (HAPROXY, r"timeout client (\d+)s"),
    ):
        assert min(map(float, all_of(path, pattern))) > idle
        assert min(map(float, all_of(path, pattern))) > default("events_heartbeat")


def test_balancers_notice_a_gateway_that_leaves_before_it_is_gone() -> None:
    delay = default("drain_delay")
    assert {float(one) for one in all_of(NGINX, r"keepalive_timeout (\d)s")} == {delay - 1}
    (interval,) = all_of(HAPROXY, r"check port \d+ inter (\d+)s")
    (times,) = all_of(HAPROXY, r"\bfall (\d+)")
    (patience,) = all_of(HAPROXY, r"timeout check (\d+)s")
    assert float(interval) * float(times) + float(patience) < delay


def test_what_the_gateway_takes_fits_through_balancers() -> None:
    (size,) = all_of(HAPROXY, r"tune\.bufsize (\d+)")
    assert int(size) - 1024 > MAX_FIELD + 2 * limits.MAX_TICKET
    for count, each in re.findall(r"large_client_header_buffers (\d+) (\d+)k", NGINX.read_text()):
        assert int(each) * 1024 >= max(MAX_TARGET, MAX_FIELD)
        assert int(count) * int(each) * 1024 >= MAX_HEAD
    assert all_of(NGINX, r"client_max_body_size (\d+)") == {"0"}
