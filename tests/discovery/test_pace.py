"""What a worker thread does bit by bit comes to the same as at once."""

from __future__ import annotations

import random
from operator import itemgetter

import pytest

from scamp.discovery.pace import STRIDE, let_go, paced_sort


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 10_000])
def test_sorting_bit_by_bit_sorts(size: int) -> None:
    numbers = random.Random(size)  # noqa: S311
    items = [(numbers.randrange(100), number) for number in range(size)]
    pauses: list[int] = []
    # By the first alone, so that the order of equal ones shows.
    assert paced_sort(items, itemgetter(0), lambda: pauses.append(1)) == sorted(
        items, key=itemgetter(0)
    )
    assert len(pauses) >= size / STRIDE


@pytest.mark.parametrize("stride", [1, 7, STRIDE])
def test_letting_go_bit_by_bit_empties(stride: int) -> None:
    parts: list[object] = [object() for _ in range(1000)]
    sizes: list[int] = []
    let_go(parts, lambda: sizes.append(len(parts)), stride)
    assert parts == []
    assert sizes == list(range(1000, 0, -stride))
