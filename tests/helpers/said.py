"""What the code can say and what it knows, read from its source: for what pages quote of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from pages import ROOT

from gateway.families import FAMILIES

HOLE: Final = "…"
"""Stands for what differs from case to case."""

_FORMAT: Final = re.compile(r"%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[sdgrifx]")
_SERIES: Final = ("_bucket", "_count", "_sum")


def _trees() -> Iterator[ast.Module]:
    for package in ("gateway", "scamp"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ast.parse(path.read_text())


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _FORMAT.sub(HOLE, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values
        )
    return None


@cache
def sentences() -> tuple[str, ...]:
    """Every text of the source, with a `HOLE` for what is put in; docstrings too."""
    found = {text for tree in _trees() for node in ast.walk(tree) if (text := _text(node))}
    return tuple(sorted(found))


@cache
def words() -> frozenset[str]:
    """Every name in the source, and every word of its texts."""
    source = "\n".join(
        path.read_text()
        for package in ("gateway", "scamp")
        for path in (ROOT / package).rglob("*.py")
    )
    return frozenset(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", source))


@cache
def metrics() -> frozenset[str]:
    """The names of the gateway's series, without the labels."""
    shown = {family.shown for family in FAMILIES.values()}
    of = {family.shown for family in FAMILIES.values() if family.kind == "histogram"}
    return frozenset(shown | {name + end for name in of for end in _SERIES})


def says(quoted: str) -> bool:
    """Whether some text of the source has this in it, holes and all. A hole at either end of what
    is quoted may stand for more than one."""
    wanted = quoted.strip(f"{HOLE} ")
    return any(wanted in text for text in sentences())
