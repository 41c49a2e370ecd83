"""``scamp verify`` on discovery caches that were captured in real meshes."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from editions import CAPTURES, not_set

from scamp.cli.main import main

PATHS = [one for one in os.environ.get(CAPTURES, "").split(":") if one]
SEPARATOR = re.compile(rb"(?:^|\n)%%%\n")
REASONS = {"malformed", "certificate", "signature", "limit", "version", "replay"}


@pytest.fixture(
    params=[pytest.param(path, id=Path(path).name) for path in PATHS]
    or [pytest.param("", marks=not_set(CAPTURES), id="none")],
)
def capture(request: pytest.FixtureRequest) -> bytes:
    return Path(request.param).read_bytes()


def records(content: bytes) -> list[bytes]:
    return SEPARATOR.split(content)[1:]


def well_signed(record: bytes) -> bool:
    """A second opinion, as plain as can be."""
    text, certificate, signature = record.split(b"\n\n")[:3]
    key = x509.load_pem_x509_certificate(certificate).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        key.verify(base64.b64decode(signature), text, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def verify(content: bytes, folder: Path) -> tuple[int, list[dict[str, object]]]:
    (folder / "cache").write_bytes(content)
    result = CliRunner().invoke(main, ["verify", "--json", str(folder / "cache")])
    return result.exit_code, json.loads(result.stdout)


def test_every_good_record_is_accepted_and_every_other_has_its_reason(
    capture: bytes, tmp_path: Path
) -> None:
    code, findings = verify(capture, tmp_path)
    good = [well_signed(record) for record in records(capture)]
    assert [finding["status"] != "refused" for finding in findings] == good
    assert any(good)
    assert code == (0 if all(good) else 1)
    for finding in findings:
        assert finding["reason"] or finding["status"] == "good"


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.replace(b"+tls", b"+tLs", 1),
        lambda record: record.replace(b"\n\n", b"\n", 1),
        lambda record: record[: len(record) // 2],
        lambda record: record[:-40],
        lambda record: record.replace(b"-----BEGIN CERTIFICATE-----\n", b"", 1),
        lambda record: record.replace(b"MII", b"MIH", 1),
        lambda record: b"[4" + record[2:],
    ],
    ids=["changed", "joined", "half", "cut", "no certificate", "other", "version"],
)
def test_what_is_damaged_is_refused_with_a_reason_and_costs_no_other(
    capture: bytes, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Every second record, beside the whole ones."""
    mixed = []
    for record in records(capture):
        mixed += [damage(record), record]
    code, findings = verify(b"".join(b"\n%%%\n" + record for record in mixed), tmp_path)
    assert code == 1
    assert [finding["status"] for finding in findings[1::2]] == ["good"] * (len(mixed) // 2)
    for finding in findings[::2]:
        assert finding["status"] == "refused"
        assert finding["reason"]
        assert finding["detail"]
