"""In what two announcements of a service differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from scamp.discovery import Announcement
from scamp.discovery.model import packed_actions

FIELDS: Final = ("sector", "weight", "interval", "uri", "envelopes")
"""What is compared besides the actions."""


class ActionName(NamedTuple):
    """What names an action in the mesh; as text it can be given to 'scamp request'."""

    sector: str
    spelling: str
    version: int

    def __str__(self) -> str:
        return f"{self.sector}:{self.spelling}~{self.version}"


def _nothing() -> Mapping[str, tuple[Any, Any]]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Difference:
    """`fields` holds what was and what is, by its name in `FIELDS`. `altered` are actions that
    stayed, with other flags or envelopes. False when there is none."""

    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=_nothing)
    added: tuple[ActionName, ...] = ()
    removed: tuple[ActionName, ...] = ()
    altered: tuple[ActionName, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fields or self.added or self.removed or self.altered)


NO_DIFFERENCE: Final = Difference()


def action_names(service: Announcement) -> Iterator[ActionName]:
    """The names of a service's actions, as they are announced."""
    for name, _ in _actions(service):
        yield name


def difference(
    before: Announcement | None,
    now: Announcement | None,
    chosen: Callable[[ActionName], bool] = lambda name: True,
) -> Difference:
    """What came with `now` and went with `before`, of the actions that are `chosen`. None stands
    for a service that is not there: then there are no fields to compare."""
    old = {} if before is None else dict(_actions(before))
    new = {} if now is None else dict(_actions(now))
    fields = {}
    if before is not None and now is not None:
        for name in FIELDS:
            was, is_now = getattr(before, name), getattr(now, name)
            if was != is_now:
                fields[name] = (was, is_now)
    return Difference(
        fields,
        tuple(name for name in new if name not in old and chosen(name)),
        tuple(name for name in old if name not in new and chosen(name)),
        tuple(name for name in new if new[name] != old.get(name, new[name]) and chosen(name)),
    )


def _actions(service: Announcement) -> Iterator[tuple[ActionName, tuple[str, str]]]:
    """Name, and flags and envelopes, without making `Action` objects of all that a mesh has."""
    items = iter(packed_actions(service))
    for sector, namespace, name, version, flags, envelopes in zip(
        items, items, items, items, items, items, strict=True
    ):
        yield ActionName(sector, f"{namespace}.{name}", version), (flags, envelopes)
