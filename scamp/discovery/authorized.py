"""The authorized_services file: which certificate may offer which actions.

One line per certificate: ``FINGERPRINT token, token, …``; ``#`` starts a comment. A token is a
prefix of ``sector:action`` that ends at a ``.`` or at the end, compared without case; without
``:`` it means sector ``main``; ``SECTOR:ALL`` is everything in that sector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scamp import limits
from scamp.discovery.pace import no_pause
from scamp.errors import AuthorizedServicesError

_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}:){19}[0-9A-Fa-f]{2}\Z")


@dataclass(frozen=True, slots=True)
class _Grant:
    sectors: frozenset[str]
    prefixes: frozenset[str]


class AuthorizedServices:
    """What each certificate may offer. Immutable.

    `problems` describes the lines that were skipped, 100 at most. A fingerprint that stands on
    two lines has what the last one says, as in the other implementations.
    """

    def __init__(self, grants: dict[str, _Grant], problems: tuple[AuthorizedServicesError, ...]):
        self._grants = grants
        self.problems = problems

    def __len__(self) -> int:
        """Number of certificates that are permitted anything."""
        return len(self._grants)

    @classmethod
    def parse(
        cls,
        text: str | bytes,
        *,
        path: str = "authorized_services",
        pause: Callable[[], None] = no_pause,
    ) -> AuthorizedServices:
        """Read the file's content; `path` is for messages only. `pause` is called once per line,
        for a worker thread to let others run.

        A line that cannot be used is skipped and described in `problems`. Raises
        `AuthorizedServicesError` only for more than `limits.MAX_AUTHORIZED_FILE` bytes.
        """
        if len(text) > limits.MAX_AUTHORIZED_FILE:
            limit = limits.MAX_AUTHORIZED_FILE
            raise AuthorizedServicesError(path, 0, f"more than {limit} bytes")
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        grants: dict[str, _Grant] = {}
        problems: list[AuthorizedServicesError] = []
        for number, line in enumerate(text.split("\n"), start=1):
            pause()
            content = line.partition("#")[0].strip()
            if not content:
                continue
            fingerprint, *rest = content.split(None, 1)
            detail = _refuse(content, fingerprint, rest)
            if detail is None:
                grants[fingerprint.upper()] = _grant(rest[0])
            elif len(problems) < limits.MAX_PROBLEMS:
                problems.append(AuthorizedServicesError(path, number, detail))
        return cls(grants, tuple(problems))

    def same_as(self, other: AuthorizedServices) -> bool:
        """Whether both permit the same."""
        return self._grants == other._grants

    def names(self, fingerprint: str) -> bool:
        """Whether the certificate is permitted anything beyond ``_meta.*``."""
        return fingerprint in self._grants

    def whole_sectors(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Certificates that may offer everything in a sector, each with those sectors."""
        for fingerprint, grant in self._grants.items():
            if grant.sectors:
                yield fingerprint, grant.sectors

    def permits(self, fingerprint: str, sector: str, action: str) -> bool:
        """Whether the certificate's owner may offer `action` (``Namespace.name``) in `sector`.

        ``_meta.*`` is permitted to everyone, nothing that contains ``:`` to anyone.
        """
        if ":" in sector or ":" in action:
            return False
        name = action.lower()
        if name.startswith("_meta."):
            return True
        grant = self._grants.get(fingerprint)
        if grant is None:
            return False
        sector = sector.lower()
        if sector in grant.sectors:
            return True
        full = f"{sector}:{name}"
        if full in grant.prefixes:
            return True
        dot = full.find(".")
        while dot >= 0:
            if full[:dot] in grant.prefixes:
                return True
            dot = full.find(".", dot + 1)
        return False


def _refuse(content: str, fingerprint: str, rest: list[str]) -> str | None:
    if any("\udc80" <= character <= "\udcff" for character in content):
        return "not UTF-8"
    if not _FINGERPRINT.match(fingerprint):
        return "does not begin with a certificate's fingerprint"
    if not rest:
        return "names no actions"
    return None


def _grant(tokens: str) -> _Grant:
    sectors, prefixes = set(), set()
    for token in tokens.split(","):
        word = token.strip()
        sector, colon, action = word.partition(":")
        if colon and action == "ALL":
            sectors.add(sector.lower())
        elif word:
            prefixes.add((word if colon else f"main:{word}").lower())
    return _Grant(frozenset(sectors), frozenset(prefixes))
