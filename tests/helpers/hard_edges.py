"""Reads the tables of `tests/gateway/corpus`; its README tells how they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "gateway" / "corpus"

_REPEATED: Final = re.compile(r"\\\{(.*?)\*(\d+)\}")
_TARGET: Final = re.compile(r"(?P<name>.*?\S) {2,}(?P<target>.+?) +(?P<told>\d{3}[ \da-z]*)")


@dataclass(frozen=True, slots=True)
class Case:
    """One request of the corpus. `statuses` are those that are allowed, or for those which are
    served all that come, in this order. `then` is ``end``, ``next`` or ``wait``."""

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    then: str
    body: bytes | None = None

    def __str__(self) -> str:
        return self.name


def bytes_of(text: str) -> bytes:
    """What a line of a table stands for."""
    whole = _REPEATED.sub(lambda match: match[1] * int(match[2]), text)
    return whole.encode("latin-1").decode("unicode_escape").encode("latin-1")


def cases(name: str) -> list[Case]:
    """Those of the file `name`. Raises ValueError for a line that is none."""
    text = (FOLDER / name).read_text(encoding="ascii")
    found = list(_targets(text) if name == "targets.txt" else _requests(text))
    names = [case.name for case in found]
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: a name comes twice")
    return found


def _targets(text: str) -> Iterator[Case]:
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = _TARGET.fullmatch(line)
        if match is None:
            raise ValueError(f"{line!r} is no case")
        *statuses, then = f"{match['told']} next".replace(" end next", " end").split()
        head = f"POST {match['target']} HTTP/1.1\\r\\nHost: test\\r\\n\\r\\n"
        yield Case(match["name"], bytes_of(head), tuple(map(int, statuses)), then)


def _requests(text: str) -> Iterator[Case]:
    beginnings: dict[str, bytes] = {}
    for block in re.split(r"\n{2,}", text):
        title, *lines = [line for line in block.splitlines() if not line.startswith("#")] or [""]
        if not title:
            continue
        sent = b"".join(
            beginnings[line[2:]] if line.startswith("< ") else _line(line) for line in lines
        )
        if title.startswith("= "):
            beginnings[title[2:]] = sent
            continue
        name, _, told = title.rpartition(" -> ")
        words, _, body = told.partition(' "')
        *statuses, then = words.split()
        wanted = bytes_of(body[:-1]) if body else None
        yield Case(name, sent, tuple(map(int, statuses)), then, wanted)


def _line(text: str) -> bytes:
    if text.startswith("|"):
        text = text[2:]
    elif not text.startswith("\\{"):
        raise ValueError(f"{text!r} is no line of a request")
    return bytes_of(text[:-1]) if text.endswith("\\") else bytes_of(text) + b"\r\n"
