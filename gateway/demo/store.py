"""What the shop sells, in one sqlite file that all its instances share."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

MAX_LISTED: Final = 1000
"""Articles in one answer of `Store.list`."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sku (
    code TEXT PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL
)
"""
_CHANGE: Final = (
    "UPDATE sku SET name = coalesce(?, name), price = coalesce(?, price) WHERE code = ?"
)
_FIRST: Final = (
    ("CHAIR-1", "Oak chair", 14900),
    ("DESK-1", "Writing desk", 39900),
    ("SHELF-1", "Book shelf", 8900),
)


@dataclass(frozen=True, slots=True)
class Sku:
    """One article; `price` is in cents."""

    code: str
    name: str
    price: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Store:
    """Each method is one transaction in a connection of its own, and blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Make the table with its first articles, unless it is there."""
        with closing(self._connect()) as db, db:
            db.execute(_SCHEMA)
            db.executemany("INSERT OR IGNORE INTO sku VALUES (?, ?, ?)", _FIRST)

    def add(self, sku: Sku) -> bool:
        """False when the code is taken."""
        with closing(self._connect()) as db, db:
            done = db.execute(
                "INSERT OR IGNORE INTO sku VALUES (?, ?, ?)", (sku.code, sku.name, sku.price)
            )
            return done.rowcount == 1

    def get(self, code: str) -> Sku | None:
        """None when there is none."""
        with closing(self._connect()) as db:
            row = db.execute("SELECT code, name, price FROM sku WHERE code = ?", (code,)).fetchone()
        return None if row is None else Sku(*row)

    def list(self) -> list[Sku]:
        """The first `MAX_LISTED` by code."""
        with closing(self._connect()) as db:
            rows = db.execute(
                "SELECT code, name, price FROM sku ORDER BY code LIMIT ?", (MAX_LISTED,)
            ).fetchall()
        return [Sku(*row) for row in rows]

    def prices(self) -> dict[str, int]:
        """Prices by code, of the first `MAX_LISTED`."""
        return {sku.code: sku.price for sku in self.list()}

    def change(self, code: str, *, name: str | None = None, price: int | None = None) -> Sku | None:
        """Set what is given; None when there is no such article."""
        with closing(self._connect()) as db, db:
            db.execute(_CHANGE, (name, price, code))
        return self.get(code)

    def remove(self, code: str) -> bool:
        """False when there was none."""
        with closing(self._connect()) as db, db:
            return db.execute("DELETE FROM sku WHERE code = ?", (code,)).rowcount == 1

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=10)
