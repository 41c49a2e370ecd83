"""What ``/overview`` shows of several workers: the numbers of those that live, and of those that
are gone what they had written down."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Literal, Protocol

from gateway.admin import Check
from gateway.console.merging import of_families
from gateway.console.overview import Gathered
from gateway.console.reading import Part
from gateway.workers.ledger import Dead, Ledger

LIMIT: Final = 1.0
"""Seconds in which another worker has to answer: people look every second."""


class Asking(Protocol):
    """The `team.Team`."""

    ledger: Ledger
    number: int

    async def told(self, question: Literal["overview"]) -> Any:
        """What this worker says."""
        ...

    async def ask(self, question: Literal["overview"], limit: float) -> dict[int, Any]:
        """What all workers say, by number; None where there was no answer."""
        ...


class Overall:
    """Gathers for one worker, in its event loop."""

    def __init__(self, team: Asking) -> None:
        self._team = team
        self._buried = Buried(team.ledger)

    async def gather(self) -> Gathered:
        """Everything as of now; of who does not answer within LIMIT, what it wrote last."""
        answers = await self._team.ask("overview", LIMIT)
        if answers.get(self._team.number) is None:  # we are here, however slow
            answers[self._team.number] = await self._team.told("overview")
        silent = [number for number, answer in answers.items() if not answer]
        told = [answer for answer in answers.values() if answer]
        births = {answer["birth"] for answer in told}
        lost = await asyncio.to_thread(self._buried.parts, births, bool(silent))
        return Gathered(
            parts=[*(answer["part"] for answer in told), *lost],
            births=tuple(sorted(births)),
            workers={"count": len(answers), "answering": len(told), "silent": silent},
            checks=[asdict(one) for one in checks_of(answers)],
        )


class Buried:
    """The ledger's numbers as parts. To be used by one thread at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stamp: tuple[int, int] | None = None
        self._dead = Dead()
        self._part: Part | None = None

    def parts(self, births: set[int], missing: bool) -> list[Part]:
        """Of all whose birth is not among `births`; of the living only if some are `missing`."""
        living = self._ledger.living() if missing else {}
        self._read()
        found = [
            of_families(families)
            for birth, families in living.items()
            if birth not in births and birth not in self._dead.births
        ]
        # Who died after it had answered is in both: it is counted with the dead from the next time.
        if self._part is not None and not self._dead.births & births:
            found.append(self._part)
        return found

    def _read(self) -> None:
        try:
            found = os.stat(self._ledger.directory / "dead.json")
        except OSError:
            return
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._stamp = stamp
            self._dead = self._ledger.dead()
            self._part = of_families(self._dead.families)


def checks_of(answers: Mapping[int, Any]) -> list[Check]:
    """Each condition is good when it is with every worker, and all of them must answer. `answers`
    are by the worker's number, None where there was none."""
    silent = [number for number, answer in answers.items() if not answer]
    found: dict[str, Check] = {}
    for number, answer in answers.items():
        for one in answer["checks"] if answer else ():
            check = Check(**one)
            if not check.ok:
                check = Check(check.name, False, f"{check.detail} (worker {number})")
            if check.name not in found or found[check.name].ok > check.ok:
                found[check.name] = check
    text = f"{len(answers) - len(silent)} of {len(answers)} answer"
    if silent:
        text += f", not {', '.join(map(str, silent))}"
    return [Check("workers", not silent, text), *found.values()]
