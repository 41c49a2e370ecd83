"""What is audited, and what is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from gateway.audit.codes import CODES, SEVERITIES, Code, Severity
from gateway.offline import Offline
from gateway.settings import Settings
from gateway.sources import suggest
from gateway.surface import Surface


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at: a kind of finding, what it is about, and a sentence on this case."""

    code: Code
    subject: str
    says: str

    @property
    def order(self) -> tuple[int, str, str]:
        """The worst first, then by subject."""
        return SEVERITIES.index(self.code.severity), self.subject, self.code.word

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "code": self.code.word,
            "severity": self.code.severity,
            "subject": self.subject,
            "says": self.says,
            "remedy": self.code.remedy,
        }


@dataclass(frozen=True, slots=True)
class Audited:
    """A gateway as its files describe it. `now` is in seconds since 1970."""

    settings: Settings
    mesh: Offline
    view: Surface
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each setting comes from, by field."""
    now: float = field(default_factory=time.time)


Check = Callable[[Audited], Iterator[Finding]]
"""Looks for a few kinds of finding. What reads files may raise `ScampError` and OSError."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Findings that somebody knows of: a code, and perhaps a pattern for subjects."""

    word: str
    subject: str = "*"

    @classmethod
    def parse(cls, text: str) -> Ignored:
        """Read ``CODE[:SUBJECT]``; ``*`` in a subject stands for anything. Raises ValueError."""
        word, colon, subject = text.partition(":")
        if word not in CODES:
            raise ValueError(f"there is no finding {word[:100]!r}{suggest(word, CODES)}")
        return cls(word, subject if colon else "*")

    def covers(self, finding: Finding) -> bool:
        """Whether this finding is meant."""
        # Brackets are rare in subjects, and surprising in patterns.
        pattern = self.subject.replace("[", "[[]")
        return finding.code.word == self.word and fnmatchcase(finding.subject, pattern)

    def __str__(self) -> str:
        return self.word if self.subject == "*" else f"{self.word}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Result:
    """All findings in order, without those that are ignored."""

    findings: tuple[Finding, ...]
    ignored: int = 0
    unused: tuple[Ignored, ...] = ()
    """What was to be ignored and was not found."""

    def count(self, severity: Severity) -> int:
        """Findings of this severity."""
        return sum(finding.code.severity == severity for finding in self.findings)

    def reaches(self, level: str) -> bool:
        """Whether there is a finding of this severity or a worse one; none is of ``never``."""
        if level not in SEVERITIES:
            return False
        return any(self.count(one) for one in SEVERITIES[: SEVERITIES.index(level) + 1])


def gather(checks: Iterable[Check], audited: Audited, ignored: Iterable[Ignored] = ()) -> Result:
    """Run every check. Raises what they raise."""
    every = sorted(
        (finding for check in checks for finding in check(audited)), key=lambda one: one.order
    )
    by_word: dict[str, list[Ignored]] = {}
    for one in ignored:
        by_word.setdefault(one.word, []).append(one)
    used: set[Ignored] = set()
    kept = []
    for finding in every:
        covering = [one for one in by_word.get(finding.code.word, ()) if one.covers(finding)]
        used.update(covering)
        if not covering:
            kept.append(finding)
    unused = tuple(one for some in by_word.values() for one in some if one not in used)
    return Result(tuple(kept), len(every) - len(kept), unused)
