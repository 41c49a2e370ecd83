"""Faults and load for as long as you like, against the real programs.

    make soak ARGS="[SCENARIO …] [--minutes 10]"

Without a SCENARIO all are run, one after another. One line per scenario has its counts; what must
not have happened is told on standard error, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent


def about(scenario: Callable[..., object]) -> str:
    """The first sentence of its module."""
    described = getattr(scenario, "func", scenario)
    return (sys.modules[described.__module__].__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def positive(text: str) -> float:
    """A number above 0."""
    if not 0 < (value := float(text)) < math.inf:
        raise ValueError
    return value


def main() -> int:
    """The command; returns the exit code."""
    sys.path[0] = str(HERE.parents[1])  # in place of this folder
    sys.path.insert(1, str(HERE.parent / "helpers"))
    from soaking import Options
    from tests.soak.scenarios import SCENARIOS

    parser = argparse.ArgumentParser(
        prog="make soak",
        usage='make soak ARGS="[SCENARIO …] [OPTION …]"',
        description="Faults and load, for long. Without a SCENARIO all, one after another:"
        + "".join(f"\n  {name:<18}  {about(SCENARIOS[name])}" for name in SCENARIOS),
        epilog="Exit code 1 when something happened that must not; standard error says what.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help="one of these")
    parser.add_argument("--minutes", type=positive, default=10.0, help="per scenario [10]")
    parser.add_argument("--short", action="store_true", help="at the size of the tests")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers [by the clock]")
    parser.add_argument("--keep", type=Path, help="directory for logs and data, kept [none]")
    given = parser.parse_args()
    if unknown := [name for name in given.scenario if name not in SCENARIOS]:
        parser.error(f"there is no scenario {unknown[0]!r}, but {', '.join(SCENARIOS)}")
    failed = False
    for name in given.scenario or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="scamp-soak-") as made:
            folder = Path(made) if given.keep is None else given.keep / name
            folder.mkdir(parents=True, exist_ok=True)
            options = Options(
                folder, given.minutes, not given.short, given.seed or int(time.time())
            )
            outcome = asyncio.run(SCENARIOS[name](options))
        print(outcome.line(name), flush=True)  # noqa: T201 - what the command is for
        for sentence in outcome.wrong:
            print(f"{name}: {sentence}", file=sys.stderr)  # noqa: T201
        failed = failed or bool(outcome.wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
