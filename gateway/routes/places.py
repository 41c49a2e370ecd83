"""Where in a TOML text things stand. tomllib knows, and does not tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*[.=]")
_STRINGS = re.compile(r"\"\"\"|'''|\"(?:[^\"\\]|\\.)*\"|'[^']*'|#.*")


class Places:
    """Lines of the tables ``[[name]]`` and of the keys in each; counted from 1."""

    def __init__(self, text: str) -> None:
        self._tables: dict[str, list[int]] = {}
        self._keys: dict[tuple[str, int], dict[str, int]] = {}
        self.top: dict[str, int] = {}
        """Keys and tables at the top, each by its first line."""
        where: tuple[str, int] | None = None
        for number, line in _lines(text):
            header = _HEADER.fullmatch(line)
            if header is not None:
                where = self._enter(header[1], number, array=line.lstrip().startswith("[["))
                continue
            key = _KEY.match(line)
            if key is not None:
                keys = self.top if where is None else self._keys[where]
                keys.setdefault(key[1].strip("\"'"), number)

    def _enter(self, name: str, number: int, *, array: bool) -> tuple[str, int]:
        first, _, rest = name.partition(".")
        self.top.setdefault(first, number)
        tables = self._tables.setdefault(first, [])
        if array and not rest:
            tables.append(number)
        where = (first, max(0, len(tables) - 1))
        keys = self._keys.setdefault(where, {})
        if rest:  # [routes.query] belongs to the [[routes]] before it
            keys.setdefault(rest.partition(".")[0].strip(), number)
        return where

    def line(self, table: str, index: int, key: str | None = None) -> int:
        """Of the table with this number, or of a key in it; what is nearest when that is not to be
        found, as in tables that are written inline."""
        tables = self._tables.get(table, [])
        begin = tables[index] if index < len(tables) else self.top.get(table, 1)
        return self._keys.get((table, index), {}).get(key or "", begin)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without those that lie in a text of several lines."""
    within = ""
    for number, line in enumerate(text.split("\n"), 1):
        rest, whole = line, not within
        while rest:
            if within:
                _, found, rest = rest.partition(within)
                if not found:
                    break
                within = ""
                continue
            token = _STRINGS.search(rest)
            if token is None:
                break
            rest = rest[token.end() :]
            if token[0] in ('"""', "'''"):
                within = token[0]
        if whole:
            yield number, line
