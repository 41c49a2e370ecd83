"""Fuzz the parsers of foreign bytes for as long as you like.

    make fuzz ARGS="[TARGET …] [--minutes 10]"

Without a TARGET all are run, one after another. If atheris is installed (``pip install '.[fuzz]'``)
coverage guides the search; otherwise good inputs are changed at random. What a parser fails on is
written to ``tests/fuzz/corpus/TARGET/``, told on standard error, and makes the exit code 1. One
line per target says how many inputs it was given.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent

INPUT_TIMEOUT: Final = 5
"""Seconds that one input may take."""

MEMORY: Final = 2048
"""Mebibytes that the whole process may take."""

_RUNS: Final = re.compile(rb"#(\d+)\s+(?:DONE|pulse|NEW|REDUCE|RELOAD|INITED)")


def main() -> int:
    """The command; returns the exit code."""
    sys.path[0] = str(HERE.parents[1])  # in place of this folder
    if sys.argv[1:2] == ["--child"]:  # before anything of scamp is imported
        return _guided(*sys.argv[2:])
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description="Fuzz the parsers of foreign bytes.")
    parser.add_argument("target", nargs="*", choices=[*TARGETS, []], metavar="TARGET", default=[])
    parser.add_argument("--minutes", type=float, default=10.0, help="per target [10]")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers [by the clock]")
    options = parser.parse_args()
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        _say("atheris is not installed: inputs are changed at random, coverage does not guide them")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY << 20, resource.RLIM_INFINITY))
    failed = 0
    for name in options.target or TARGETS:
        run = run_guided if guided else run_plain
        failed += not run(name, options.minutes, options.seed or int(time.time()))
    return min(failed, 1)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _report(name: str, inputs: int, began: float, kept: list[Path]) -> bool:
    seconds = time.monotonic() - began
    outcome = f"FAILED: {', '.join(str(path) for path in kept)}" if kept else "ok"
    sys.stdout.write(f"{name:14} {inputs:>10} inputs {seconds:7.1f} s  {outcome}\n")
    sys.stdout.flush()
    return not kept


def _keep(name: str, data: bytes) -> Path:
    """Write an input that failed into the corpus."""
    folder = HERE / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# -- without atheris --------------------------------------------------------------------


def run_plain(name: str, minutes: float, seed: int) -> bool:
    """One target until the time is over or an input fails."""
    from tests.fuzz.mutation import INTERESTING, KINDS, Change, apply
    from tests.fuzz.targets import TARGETS

    target, rng = TARGETS[name], random.Random(seed)  # noqa: S311 - to be repeatable
    known = [*target.seeds, *_corpus(name)]
    began, inputs = time.monotonic(), 0
    while time.monotonic() - began < minutes * 60:
        changes = [
            Change(
                rng.randrange(KINDS),
                rng.randrange(1 << 16),
                rng.randrange(1 << 16),
                rng.choice(INTERESTING) if rng.random() < 0.5 else rng.randbytes(rng.randrange(9)),
            )
            for _ in range(rng.randrange(1, 9))
        ]
        data = apply(rng.choice(known), changes, known, target.limit)
        inputs += 1
        started = time.monotonic()
        try:
            target.run(data)
            if time.monotonic() - started > INPUT_TIMEOUT:
                raise AssertionError(f"took {time.monotonic() - started:.1f} s")  # noqa: TRY301
        except Exception:
            traceback.print_exc()
            return _report(name, inputs, began, [_keep(name, data)])
    return _report(name, inputs, began, [])


def _corpus(name: str) -> list[bytes]:
    folder = HERE / "corpus" / name
    return [path.read_bytes() for path in sorted(folder.glob("*"))] if folder.is_dir() else []


# -- with atheris -----------------------------------------------------------------------


def run_guided(name: str, minutes: float, seed: int) -> bool:
    """One target in a process of its own, which libFuzzer ends when it is done."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scamp-fuzz-") as work:
        log = Path(work, "log")
        with log.open("wb") as output:
            code = subprocess.run(
                [sys.executable, __file__, "--child", work, name, str(minutes), str(seed)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONHASHSEED": "0"},
                check=False,
            ).returncode
        told = log.read_bytes()
        kept = [_keep(name, path.read_bytes()) for path in sorted(Path(work, "found").glob("*"))]
        counts = [int(number) for number in _RUNS.findall(told)]
        if kept or code:
            _say(told[-6000:].decode("utf-8", "replace"))
        if code and not kept:
            _say(f"{name}: the fuzzer ended with code {code}, without an input that fails")
            kept = [Path("none")]
        return _report(name, max(counts, default=0), began, kept)


def _guided(work: str, name: str, minutes: str, seed: str) -> int:
    """The child: libFuzzer takes over and exits."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["scamp", "gateway"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    start, found = Path(work, "start"), Path(work, "found")
    start.mkdir()
    found.mkdir()
    for number, data in enumerate([*target.seeds, *_corpus(name)]):
        (start / str(number)).write_bytes(data)
    arguments = [
        sys.argv[0],
        str(start),
        f"-artifact_prefix={found}/",
        f"-max_total_time={max(1, int(float(minutes) * 60))}",
        f"-max_len={target.limit}",
        f"-timeout={INPUT_TIMEOUT}",
        f"-rss_limit_mb={MEMORY}",
        f"-seed={int(seed) % (1 << 31)}",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
