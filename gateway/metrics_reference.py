"""``docs/metrics.md``, made from the declarations in `families`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.counting import BUCKETS
from gateway.families import NO_ACTION, OTHER, SECTIONS, Family
from gateway.metrics import MAX_ACTIONS

_INTRODUCTION: Final = f"""\
# Metrics

<!-- Made by `scamp-gateway metrics --reference` from gateway/families.py. Do not edit. -->

The admin listener shows them at `/metrics`, as Prometheus' text or as OpenMetrics. Names begin with
`scamp_gateway_`, values are in base units: seconds, bytes, or a count. `deploy/prometheus` has a
scrape configuration.

- Counters begin at 0 when the process starts. Those with a single label show all its values from
  the start, so that `rate()` sees the first event, too.
- Histograms have {len(BUCKETS)} buckets from {BUCKETS[0]:g} s to {BUCKETS[-1]:g} s; their series
  are the name with `_bucket`, `_count` and `_sum`.
- The label `action` is an announced action such as `Shop.list~1`, with its sector in front unless
  that is `main`; `{NO_ACTION}` for requests that found none; `{OTHER}` for those beyond the first
  {MAX_ACTIONS} that are in use. Its series go when the action goes, and nothing that a caller sends
  makes one.
- With several workers one scrape shows all of them together. Counters and histograms are added up,
  and those of workers that have died stay counted. For gauges the column "workers" tells what
  happens: `sum`, or the `greatest` or `least` value of any worker.

`scamp-gateway metrics` prints names, types and meanings.
"""


def metrics_reference() -> str:
    """The whole page, Markdown, ending in a newline."""
    return _INTRODUCTION + "".join(_sections())


def unit_of(family: Family) -> str:
    """What its values are in, by its name."""
    if family.name.endswith("_timestamp_seconds") or family.name == "process_start_time_seconds":
        return "seconds since 1970"
    if family.name.endswith(("_seconds", "_bytes")):
        return family.name.rpartition("_")[2]
    return "count" if family.kind == "counter" else ""


def _sections() -> Iterator[str]:
    for title, families in SECTIONS.items():
        yield f"\n## {title}\n\n| metric | type | unit | labels | workers | meaning |\n"
        yield "|---|---|---|---|---|---|\n"
        for family in families:
            meaning = f"{family.text} {family.when}".rstrip()
            yield (
                f"| `{family.shown}` | {family.kind} | {unit_of(family)} | {_labels(family)} "
                f"| {family.merge} | {meaning} |\n"
            )


def _labels(family: Family) -> str:
    told = []
    for label, values in family.labels.items():
        if not isinstance(values, str):
            values = ", ".join(f"`{one}`" for one in values)
        told.append(f"**{label}**: {values}" if values else f"**{label}**")
    return "<br>".join(told)
