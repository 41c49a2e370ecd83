"""The lock files of the image, read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "image"


def requirements(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each entry of ``NAME.lock`` with its hashes."""
    text = (FOLDER / f"{name}.lock").read_text()
    text = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        yield Requirement(requirement), hashes


def locked(name: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The versions in ``NAME.lock`` by package, for this Python or the one that is described."""
    found: dict[str, str] = {}
    for requirement, _ in requirements(name):
        if requirement.marker is None or requirement.marker.evaluate(dict(environment or {})):
            (pin,) = requirement.specifier
            assert pin.operator == "==", requirement
            found[str(canonicalize_name(requirement.name))] = pin.version
    return found
