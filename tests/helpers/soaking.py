"""What a soak is given and what it tells: see tests/soak/run.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """How long, and where."""

    folder: Path
    """An empty directory for keys, data and logs."""
    minutes: float
    """Of faults or load; what has a number of rounds instead derives it from this."""
    full: bool
    """At the size that the project promises; False: at one that fits among other tests."""
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of it: numbers in the order in which they are told, and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """One sentence for each thing that must not be. Empty when all held."""

    def require(self, held: bool, sentence: str) -> None:
        """Note `sentence` unless `held`."""
        if not held:
            self.wrong.append(sentence)

    def line(self, name: str) -> str:
        """All of it in one line."""
        numbers = " ".join(f"{key}={value:g}" for key, value in self.counts.items())
        return f"{name}: {'FAILED' if self.wrong else 'ok'} {numbers}"


Scenario = Callable[[Options], Coroutine[Any, Any, Outcome]]
