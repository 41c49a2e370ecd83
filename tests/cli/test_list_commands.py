"""``scamp list``, from real cache files with signed announcements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from scamp import keys
from scamp.discovery import Action, AnnouncementSpec, build_announcement, write_cache

Run = Callable[..., Result]


class Mesh:
    """Announcements by one certificate, and the files that tell of them."""

    def __init__(self, made: Path, folder: Path) -> None:
        self.key = keys.load_private_key((made / "shop.key").read_bytes())
        self.certificate = (made / "shop.crt").read_bytes()
        self.fingerprint = keys.fingerprint(self.certificate)
        self.cache = folder / "cache"
        self.authorized = folder / "authorized_services"
        self.authorized.write_text(f"{self.fingerprint} main:ALL, back:Stock\n")

    def record(self, name: str, *actions: Action, **changed: Any) -> bytes:
        spec: dict[str, Any] = {
            "identity": f"{name}:{'A' * 24}",
            "sector": "main",
            "weight": 1,
            "interval": 5.0,
            "uri": "beepish+tls://10.0.0.5:30100",
            "envelopes": ("json",),
            "actions": actions,
            **changed,
        }
        timestamp = spec.pop("timestamp", 1_700_000_000.5)
        return build_announcement(
            AnnouncementSpec(**spec), self.key, self.certificate, timestamp=timestamp
        )

    def write(self, *records: bytes) -> None:
        write_cache(self.cache, records)

    @property
    def options(self) -> tuple[str, ...]:
        return ("--cache", str(self.cache), "--authorized-services", str(self.authorized))


@pytest.fixture
def mesh(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    conf = tmp_path / "scamp.conf"
    conf.write_text("")
    monkeypatch.setenv("SCAMP", str(conf))
    return Mesh(made, tmp_path)


def action(spelling: str, version: int = 1, sector: str = "main", *flags: str) -> Action:
    namespace, _, name = spelling.rpartition(".")
    return Action(sector, namespace, name, version, flags, ("json",))


FETCH = action("Product.Sku.fetch", 1, "main", "read", "t30")
PLACE = action("Order.place", 2, "main", "noauth")
COUNT = action("Stock.count", 1, "back")


def test_services_are_listed_in_aligned_columns(run: Run, mesh: Mesh) -> None:
    mesh.write(mesh.record("shop", FETCH, PLACE), mesh.record("archive", COUNT, weight=0))
    result = run("list", "services", *mesh.options)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "NAME     SECTOR  ADDRESS         WEIGHT  ACTIONS  ENVELOPES  FINGERPRINT",
        f"archive  main    10.0.0.5:30100  0       1        json       {mesh.fingerprint}",
        f"shop     main    10.0.0.5:30100  1       2        json       {mesh.fingerprint}",
    ]


def test_actions_are_listed_once_as_request_takes_them(run: Run, mesh: Mesh) -> None:
    mesh.write(
        mesh.record("shop", FETCH, PLACE),
        mesh.record("other", FETCH),
        mesh.record("stock", COUNT),
    )
    result = run("list", "actions", *mesh.options)
    assert result.stdout.splitlines() == [
        "ACTION                    FLAGS     ENVELOPES  SERVICES",
        "back:Stock.count~1                  json       1",
        "main:Order.place~2        noauth    json       1",
        "main:Product.Sku.fetch~1  read,t30  json       2",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--sector", "MAIN"), ["Order.place", "Product.Sku.fetch"]),
        (("--name", "product.*"), ["Product.Sku.fetch"]),
        (("--name", "*~2"), ["Order.place"]),
        (("--name", "back:*"), ["Stock.count"]),
        (("--name", "*", "--sector", "none"), []),
    ],
)
def test_actions_are_chosen_by_sector_and_pattern(
    run: Run, mesh: Mesh, options: tuple[str, ...], expected: list[str]
) -> None:
    mesh.write(mesh.record("shop", FETCH, PLACE, COUNT))
    result = run("list", "actions", "--json", *options, *mesh.options)
    assert [facts["name"] for facts in json.loads(result.stdout)] == expected


def test_json_carries_every_detail(run: Run, mesh: Mesh) -> None:
    mesh.write(mesh.record("shop", FETCH, interval=2.5))
    identity = f"shop:{'A' * 24}"
    assert json.loads(run("list", "actions", "--json", *mesh.options).stdout) == [
        {
            "action": "main:Product.Sku.fetch~1",
            "sector": "main",
            "name": "Product.Sku.fetch",
            "version": 1,
            "flags": ["read", "t30"],
            "timeout": 30,
            "noauth": False,
            "envelopes": ["json"],
            "services": [identity],
        }
    ]
    (service,) = json.loads(run("list", "services", "--json", *mesh.options).stdout)
    assert service == {
        "name": "shop",
        "identity": identity,
        "fingerprint": mesh.fingerprint,
        "sector": "main",
        "weight": 1,
        "interval": 2.5,
        "uri": "beepish+tls://10.0.0.5:30100",
        "host": "10.0.0.5",
        "port": 30100,
        "envelopes": ["json"],
        "actions": 1,
        "timestamp": 1_700_000_000.5,
    }


def test_services_are_chosen_by_name(run: Run, mesh: Mesh) -> None:
    mesh.write(mesh.record("shop", FETCH), mesh.record("stock", COUNT))
    result = run("list", "services", "--json", "--name", "SH*", *mesh.options)
    assert [facts["name"] for facts in json.loads(result.stdout)] == ["shop"]


def test_actions_that_are_not_authorized_do_not_exist(run: Run, mesh: Mesh) -> None:
    mesh.authorized.write_text(f"{mesh.fingerprint} Product\nno fingerprint\n")
    mesh.write(mesh.record("shop", FETCH, PLACE))
    result = run("list", "actions", *mesh.options)
    assert "Product.Sku.fetch" in result.stdout
    assert "Order.place" not in result.stdout
    assert "authorized_services:2: " in result.stderr


def test_refused_records_are_told_with_their_reason_and_cost_the_others_nothing(
    run: Run, mesh: Mesh
) -> None:
    forged = mesh.record("forged", FETCH).replace(b"10.0.0.5", b"10.6.6.6")
    mesh.write(b"nonsense", mesh.record("shop", FETCH), forged)
    result = run("list", "services", *mesh.options)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    refused = result.stderr.splitlines()
    assert len(refused) == 2
    assert refused[0].startswith("refused: record 1: malformed: ")
    assert refused[1].startswith("refused: record 3: signature: ")


def test_newest_record_of_a_service_counts(run: Run, mesh: Mesh) -> None:
    mesh.write(
        mesh.record("shop", FETCH, timestamp=2000.0),
        mesh.record("shop", FETCH, PLACE, timestamp=1000.0),
    )
    (service,) = json.loads(run("list", "services", "--json", *mesh.options).stdout)
    assert service["timestamp"] == 2000


def test_odd_circumstances_are_told(run: Run, mesh: Mesh) -> None:
    mesh.write(mesh.record("shop", FETCH))
    old = time.time() - 500
    os.utime(mesh.cache, (old, old))
    result = run("list", "services", "--cache", mesh.cache)
    assert result.exit_code == 0
    assert "its writer seems dead" in result.stderr
    assert "whatever is announced is believed" in result.stderr


def test_files_are_found_through_the_configuration(run: Run, mesh: Mesh, tmp_path: Path) -> None:
    mesh.write(mesh.record("shop", FETCH))
    conf = tmp_path / "other.conf"
    conf.write_text(
        f"discovery.cache_path = {mesh.cache}\nbus.authorized_services = {mesh.authorized}\n"
    )
    result = run("list", "services", "--config", conf)
    assert "shop" in result.stdout
    assert result.stderr == ""


def test_missing_cache_is_exit_2_and_names_the_option(run: Run, mesh: Mesh) -> None:
    result = run("list", "services", *mesh.options)
    assert result.exit_code == 2
    assert "cache: No such file" in result.stderr
    assert "--cache" in result.stderr


@pytest.mark.parametrize("option", ["--config", "--authorized-services"])
def test_missing_file_is_exit_2(run: Run, mesh: Mesh, tmp_path: Path, option: str) -> None:
    mesh.write()
    result = run("list", "actions", *mesh.options, option, tmp_path / "absent")
    assert result.exit_code == 2
    assert "absent: No such file" in result.stderr


def test_file_that_is_no_cache_is_not_an_empty_mesh(run: Run, mesh: Mesh) -> None:
    mesh.cache.write_bytes(b"\x89PNG rubbish\n")
    result = run("list", "services", *mesh.options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cache: no separator in the file" in result.stderr


def test_authorized_services_without_a_good_line_is_refused(run: Run, mesh: Mesh) -> None:
    mesh.write(mesh.record("shop", FETCH))
    mesh.authorized.write_bytes(b"\xff\n\xfe\n")
    result = run("list", "services", *mesh.options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not one good line" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_one_line(mesh: Mesh) -> None:
    mesh.write(mesh.record("shop", FETCH))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "scamp.cli", "list", "services", *map(str, mesh.options)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"Error: No space left on device\n")


def test_empty_mesh_is_an_empty_list(run: Run, mesh: Mesh) -> None:
    mesh.write()
    result = run("list", "actions", "--json", *mesh.options)
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_announced_text_cannot_move_the_cursor(run: Run, mesh: Mesh) -> None:
    mesh.write(b"\x1b[2J\n\nx\n\ny")
    result = run("list", "services", *mesh.options)
    assert "\x1b" not in result.stdout + result.stderr
