"""The run-length coding of version 4 action lists: an element is a value or ``[count, value]``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from scamp import limits
from scamp.errors import AnnouncementError


def expanded_length(runs: object, field: str) -> int:
    """How many values `runs` stands for, without making them.

    Raises `AnnouncementError`: ``malformed`` for what is no such list, ``limit`` for more than
    `limits.MAX_ANNOUNCED_ACTIONS` values.
    """
    if type(runs) is not list:
        raise AnnouncementError("malformed", f"{field} is not a list")
    length = 0
    for run in runs:
        if type(run) is not list:
            length += 1
            continue
        if len(run) != 2 or type(run[0]) is not int or run[0] < 0:
            raise AnnouncementError("malformed", f"{field} has a run that is not [count, value]")
        length += run[0]
        if length > limits.MAX_ANNOUNCED_ACTIONS:
            break
    if length > limits.MAX_ANNOUNCED_ACTIONS:
        raise AnnouncementError(
            "limit", f"{field} expands to more than {limits.MAX_ANNOUNCED_ACTIONS} values"
        )
    return length


def expand(runs: object, field: str, length: int) -> list[Any]:
    """The values that `runs` stands for, of whatever type; there must be `length` of them.

    Raises `AnnouncementError` as `expanded_length` does, and ``malformed`` for another length.
    """
    found = expanded_length(runs, field)
    if found != length:
        raise AnnouncementError("malformed", f"{field} has {found} values, acname {length}")
    values: list[Any] = []
    for run in runs if type(runs) is list else ():
        if type(run) is list:
            values += [run[1]] * run[0]
        else:
            values.append(run)
    return values


def compress(values: Iterable[str | int]) -> list[Any]:
    """The coding of `values`: single ones bare, repeated ones as ``[count, value]``."""
    runs: list[list[Any]] = []
    for value in values:
        if runs and runs[-1][1] == value:
            runs[-1][0] += 1
        else:
            runs.append([1, value])
    return [run if run[0] > 1 else run[1] for run in runs]


def compress_columns(rows: Sequence[Sequence[str | int]], names: Sequence[str]) -> dict[str, Any]:
    """One coded list for each of `names`, from rows that hold a value for each."""
    return {name: compress(row[at] for row in rows) for at, name in enumerate(names)}
