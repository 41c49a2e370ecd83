"""Numbers that go up with every request, at the cost of the addition.

`prometheus_client` takes locks and calls several functions for each of the six or seven that a
request changes: 3 µs in all, here 0.6. It still shows them: `samples` gives what its own would.

Only one thread may count, that of the event loop; with one writer nothing is lost. Every thread may
read: each number is one that it had, and the buckets of a histogram are all of one moment, so that
they add up to its count. Its sum, and the next number, may be a request ahead or behind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""Upper bounds of the histograms, in seconds."""

_BOUNDS: Final = tuple(map(floatToGoString, (*BUCKETS, float("inf"))))
"""As the label ``le`` has them."""


class Counter:
    """How much there has been of something. `value` may be added to directly."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Add `amount`, not negative. From the event loop's thread."""
        self.value += amount

    def samples(self, name: str, labels: dict[str, str]) -> list[Sample]:
        """Its series in the family `name`, which has no ``_total``. From any thread."""
        return [Sample(f"{name}_total", labels, float(self.value))]


class Histogram:
    """How long something took, each time. `counts` has how much fell into each of `BUCKETS`, and
    beyond the last; `sum` is in seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more. What is a bound counts below it. From the event loop's thread."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def samples(self, name: str, labels: dict[str, str]) -> list[Sample]:
        """Its series in the family `name`; a bucket has what the ones before it have. From any
        thread."""
        counts = self.counts.copy()
        bucket = f"{name}_bucket"
        samples = []
        below = 0.0
        for bound, count in zip(_BOUNDS, counts, strict=True):
            below += count
            samples.append(Sample(bucket, {**labels, "le": bound}, below))
        samples.append(Sample(f"{name}_count", labels, below))
        samples.append(Sample(f"{name}_sum", labels, self.sum))
        return samples


class Samples:
    """The samples of a family, made by `read` whenever somebody goes through them, as of then, and
    by whichever thread does. Kept, those of a thousand actions are 80,000 objects: the garbage
    collector would stop everybody to look at them, which takes longer than making them."""

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read
        self._more: list[Iterable[Sample]] = []

    def __iter__(self) -> Iterator[Sample]:
        yield from self._read()
        for more in self._more:
            yield from more

    def extend(self, more: Iterable[Sample]) -> None:
        """With those of a further piece of the family."""
        self._more.append(more)


def count_of(counter: Counter) -> float:
    """Its value, as those of others are. From any thread."""
    return float(counter.value)


def buckets_of(histogram: Histogram) -> list[float]:
    """How much fell into each of `BUCKETS`, and beyond the last. From any thread."""
    return [*map(float, histogram.counts.copy())]
