"""A short run over each parser of foreign bytes, the same every time; `make fuzz` runs for longer.

What once failed stands in `corpus` and is tried first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import run as runner
from tests.fuzz.mutation import INTERESTING, KINDS, Change, apply
from tests.fuzz.targets import TARGETS, Target

CORPUS: Final = Path(__file__).with_name("corpus")

KEPT: Final = sorted(path for path in CORPUS.glob("*/*") if path.is_file())

PIECES: Final = st.one_of(st.sampled_from(INTERESTING), st.binary(max_size=12))
CHANGES: Final = st.lists(
    st.builds(
        Change,
        st.integers(0, KINDS - 1),
        st.integers(0, 1 << 16),
        st.integers(0, 1 << 16),
        PIECES,
    ),
    max_size=6,
)


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Good inputs with some changes, and now and then anything."""
    changed = st.builds(
        lambda seed, changes: apply(seed, changes, target.seeds, target.limit),
        st.sampled_from(target.seeds),
        CHANGES,
    )
    return st.one_of(changed, changed, changed, st.binary(max_size=min(200, target.limit)))


@pytest.mark.parametrize("name", TARGETS)
def test_every_good_input_passes(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_failed_passes(name: str) -> None:
    for path in KEPT:
        if path.parent.name == name:
            TARGETS[name].run(path.read_bytes())


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    assert {path.parent.name for path in KEPT} <= set(TARGETS)
    assert all(path.stat().st_size <= 16_384 for path in KEPT)
    assert len(KEPT) <= 200


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_give_nothing_but_declared_errors(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=200,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(target))
    def run(data: bytes) -> None:
        target.run(data)

    run()


# -- the runner -------------------------------------------------------------------------


def _fails_on_two_zeros(data: bytes) -> None:
    assert b"00" not in data, "found"


def test_the_runner_keeps_what_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "broken", Target(_fails_on_two_zeros, (b"0", b"1")))
    monkeypatch.setattr(runner, "HERE", tmp_path)
    assert not runner.run_plain("broken", minutes=1, seed=1)
    (kept,) = (tmp_path / "corpus" / "broken").iterdir()
    assert b"00" in kept.read_bytes()
    output = capsys.readouterr()
    assert "FAILED" in output.out
    assert "found" in output.err


def test_the_runner_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.run_plain("runlength", minutes=0.002, seed=1)
    name, count, *_, outcome = capsys.readouterr().out.split()
    assert (name, outcome) == ("runlength", "ok")
    assert int(count) > 0
