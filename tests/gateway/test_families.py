"""What ``/metrics`` can have: declared in one place, named as Prometheus wants it, on its page."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import aiohttp
import pytest
from pages import ROOT
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway import following
from gateway.cli import main
from gateway.exposition import counter, counters, gauge, gauges
from gateway.families import FAMILIES, PREFIX, SECTIONS, Family
from gateway.lifecycle import running
from gateway.metrics_reference import metrics_reference, unit_of
from gateway.settings import Settings
from gateway.workers.ledger import Ledger
from gateway.workers.team import Team
from scamp.testing import make_identity
from stand import Stand, stand

EACH = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
OURS = [family for family in FAMILIES.values() if family.name.startswith(PREFIX)]


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


# -- names, texts and the page ----------------------------------------------------------


def test_the_page_is_made_from_the_declarations() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == metrics_reference(), (
        "run: scamp-gateway metrics --reference > docs/metrics.md"
    )


@EACH
def test_each_is_on_the_page_once_with_type_unit_and_meaning(family: Family) -> None:
    rows = re.findall(rf"^\| `{family.shown}` \|(.*)\|$", metrics_reference(), re.MULTILINE)
    assert len(rows) == 1
    kind, unit, _, workers, meaning = (cell.strip() for cell in rows[0].split(" | "))
    assert (kind, unit, workers) == (family.kind, unit_of(family), family.merge)
    assert family.text in meaning
    assert family.when in meaning


@EACH
def test_each_is_named_as_prometheus_wants_it(family: Family) -> None:
    name = family.name
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
    assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_created"))
    words = set(name.removeprefix(PREFIX).split("_"))
    assert not words & {"ms", "milliseconds", "minutes", "kb", "mb", "kib", "mib", "percent"}
    assert not words & {"counter", "gauge", "histogram", "metric", "number", "scamp", "gateway"}
    for base in ("seconds", "bytes"):
        assert base not in words or name.endswith(f"_{base}"), "the unit comes last"
    if family.kind == "histogram":
        assert unit_of(family), "a histogram has a unit"
    if name.endswith("_info"):
        assert family.kind == "gauge"
    for label in family.labels:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label)
        assert label not in ("le", "quantile", "job", "instance", "worker")


@EACH
def test_each_has_a_sentence_for_people(family: Family) -> None:
    for text in (family.text, family.when):
        assert re.fullmatch(r"(?s)|[A-Z0-9].{4,}\.", text), text
        assert "  " not in text
        assert "|" not in text
    for setting in re.findall(r"`(\w+)`", family.when):
        assert setting in Settings.model_fields


def test_none_is_declared_twice() -> None:
    assert len(FAMILIES) == sum(len(families) for families in SECTIONS.values()) > 60


def test_the_command_lists_them_all() -> None:
    from click.testing import CliRunner

    shown = CliRunner().invoke(main, ["metrics"]).output.splitlines()
    assert [line.split()[0] for line in shown] == [one.shown for one in FAMILIES.values()]
    assert CliRunner().invoke(main, ["metrics", "--reference"]).output == metrics_reference()


def names_in(text: str) -> Iterator[str]:
    for name in re.findall(rf"\b{PREFIX}[a-z_]+[a-z]\b(?!\*)", text):
        yield re.sub(r"_(bucket|count|sum)$", "", name)


def test_no_page_and_no_file_to_copy_names_another() -> None:
    shown = {one.shown for one in FAMILIES.values()} | {
        one.name for one in FAMILIES.values() if one.kind == "histogram"
    }
    found = 0
    pages = {*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")} - {ROOT / "docs/metrics.md"}
    for path in sorted(pages):
        for name in names_in(path.read_text()):
            found += 1
            assert name in shown, f"{path.name}: {name}"
    assert found > 20


# -- what is exposed --------------------------------------------------------------------


def check(families: Iterable[Metric]) -> set[str]:
    """Their names. Each is as it is declared."""
    names = set()
    for family in families:
        assert family.name in FAMILIES, f"{family.name} is not in gateway/families.py"
        known = FAMILIES[family.name]
        assert family.type == known.kind
        if family.name.startswith(PREFIX):
            assert family.documentation == known.text
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(known.labels), sample
            for label, value in sample.labels.items():
                values = known.labels.get(label, "")
                assert isinstance(values, str) or value in values, sample
        names.add(family.name)
    return names


async def test_a_gateway_with_everything_exposes_exactly_what_is_declared(
    mesh: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    certificate, key = tmp_path / "public.crt", tmp_path / "public.key"
    certificate.write_bytes(make_identity(1).certificate)
    key.write_bytes(make_identity(1).key)
    loaded = mesh.loaded(
        tls_certificate=certificate,
        tls_key=key,
        rate_limit_address="100/s",
        rate_limit_redis="redis://127.0.0.1:1/0",
        tracing=True,
        tracing_endpoint="http://127.0.0.1:1",
        workers=2,
    )
    ledger = Ledger(tmp_path)
    async with running(loaded) as gateway, aiohttp.ClientSession() as http:
        for path in ("Test.Gate.open", "Test.Gate.guarded", "Made.up"):
            url = f"{gateway.public.url}/api/{path}"
            async with http.post(url, ssl=False, headers=mesh.ticket()):
                pass
        gateway.parts.reloads.note("routes", "no good")
        team = Team(loaded, ledger, number=1, count=1, birth=1)
        state = team.state_of_all(gateway.parts.state)
        single = check(await gateway.parts.state.families())
        body, _ = await state.metrics("")
    several = check(text_string_to_metric_families(body.decode()))
    assert FAMILIES.keys() - several == set(), "declared, and nobody exposes it"
    assert several - single == {f"{PREFIX}workers", f"{PREFIX}worker_ends"}


async def test_what_needs_a_setting_is_absent_without_it(mesh: Stand) -> None:
    async with running(mesh.loaded(auth_mode="forward", ticket_keys=())) as gateway:
        names = check(await gateway.parts.state.families())
    conditional = {one.name for one in OURS if one.when}
    assert conditional
    assert FAMILIES.keys() - names == conditional


def test_what_is_not_declared_cannot_be_exposed() -> None:
    for make in (counter, gauge):
        with pytest.raises(KeyError, match="undeclared"):
            make("undeclared", 0)
    for make_labelled in (counters, gauges):
        with pytest.raises(KeyError, match="undeclared"):
            make_labelled("undeclared", {"a": 0})


def test_nobody_makes_families_past_the_declarations() -> None:
    found = set()
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        imported = [
            name.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_")
            for name in node.names
        ]
        if any(re.match(r"Counter|Gauge|Info|Histogram|Summary|Enum", one) for one in imported):
            found.add(path.relative_to(ROOT).as_posix())
    assert found == {"gateway/exposition.py", "gateway/metrics.py"}


# -- values of labels -------------------------------------------------------------------


def first_arguments(function: str, package: str) -> set[str]:
    """Texts that calls of it have as their first argument."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


def test_reasons_for_refusing_a_record_are_all_there() -> None:
    declared = FAMILIES[f"{PREFIX}discovery_records_rejected"].labels["reason"]
    assert set(declared) == first_arguments("AnnouncementError", "scamp/discovery")


def test_everything_that_is_followed_is_there() -> None:
    classes = [one for one in vars(following).values() if isinstance(one, type)]
    names = [getattr(one, "name", None) for one in classes]
    named = {name for name in names if isinstance(name, str)}
    declared = FAMILIES[f"{PREFIX}reloads"].labels["what"]
    assert set(declared) == {*named, "discovery"}
