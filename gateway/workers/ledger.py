"""What workers have counted, in files, so that a counter does not go back when one of them dies.

Each worker writes what it has counted to a file of its own before it tells anybody. The master adds
the file of one that died to those of all before it, and only then removes it. A reader takes the
files of the living first and that of the dead last, which names those that are in it: so nobody
is missed and nobody counted twice.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.workers.merge import Packed, capped, lasting, merged
from scamp.errors import ConfigError

MAX_REMEMBERED: Final = 1000
"""Numbers of dead workers that are kept. It has to cover those that died during one scrape."""

_LONGEST: Final = 80
"""Bytes of the directory's path: the name of a Unix socket has 107."""

_DEAD: Final = "dead.json"


@dataclass(frozen=True, slots=True)
class Dead:
    """What is left of workers that are gone: their `births`, and what they counted together.
    `ends` is how many there were, by cause."""

    births: frozenset[int] = frozenset()
    families: list[Packed] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)


class Ledger:
    """The files, in a directory that nobody else can enter. `birth` is the number of a worker
    process, never given twice."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def made(cls) -> Ledger:
        """In a new directory: below ``$RUNTIME_DIRECTORY`` (systemd), else where temporary files
        go. Raises `ConfigError`."""
        where = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or None
        try:
            if len(os.fsencode(where or tempfile.gettempdir())) > _LONGEST:
                where = "/tmp"  # noqa: S108 - the new directory is ours alone
            return cls(Path(tempfile.mkdtemp(prefix="scamp-gateway-", dir=where)))
        except OSError as exc:
            raise ConfigError(
                f"no place for what workers share: {where or 'temporary files'}: {exc.strerror}; "
                "TMPDIR can name another"
            ) from exc

    def remove(self) -> None:
        """With all that is in it. May be called twice, and by several."""
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- a worker -----------------------------------------------------------------------

    def write(self, birth: int, families: Iterable[Packed]) -> None:
        """Keep what a living worker has counted. Raises OSError."""
        self._put(f"live-{birth}.json", lasting(families))

    # -- the master ---------------------------------------------------------------------

    def bury(self, birth: int, cause: str) -> None:
        """Add what a worker had counted to the dead. Raises OSError."""
        dead, file = self.dead(), self.directory / f"live-{birth}.json"
        ends = {**dead.ends, cause: dead.ends.get(cause, 0) + 1}
        births = sorted({*dead.births, birth})[-MAX_REMEMBERED:]
        families = capped(merged([dead.families, _read(file) or []]))
        self._put(_DEAD, {"births": births, "families": families, "ends": ends})
        file.unlink(missing_ok=True)

    # -- readers ------------------------------------------------------------------------

    def living(self) -> dict[int, list[Packed]]:
        """What the files of the living say, by birth. To be read before `dead`."""
        found = {}
        for path in self.directory.glob("live-*.json"):
            content = _read(path)
            if content is not None:
                found[int(path.stem.removeprefix("live-"))] = content
        return found

    def dead(self) -> Dead:
        """What is left of the dead."""
        content = _read(self.directory / _DEAD)
        if content is None:
            return Dead()
        return Dead(frozenset(content["births"]), content["families"], content["ends"])

    def _put(self, name: str, content: Any) -> None:
        path = self.directory / name
        fresh = path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(content))
        fresh.replace(path)


def _read(path: Path) -> Any:
    """None when it is not there (any more)."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
