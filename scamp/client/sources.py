"""Where a subscription goes: to a fixed address, or to any instance of a named service."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from scamp.client.dialing import format_address
from scamp.client.traits import InstanceKey
from scamp.discovery import Announcement, Change, Registry
from scamp.errors import NoUsableInstance, UnknownService


@dataclass(frozen=True, slots=True)
class Target:
    """One instance. `weight` is that of its announcement."""

    host: str
    port: int
    fingerprint: str
    weight: float = field(default=1, compare=False)
    key: InstanceKey | None = field(default=None, compare=False)
    """Fingerprint and identity, where that is known."""

    @classmethod
    def of(cls, service: Announcement) -> Target:
        """The instance that was announced."""
        return cls(service.host, service.port, service.fingerprint, service.weight, service.key)

    @property
    def address(self) -> str:
        """``host:port``."""
        return format_address(self.host, self.port)


class Source(Protocol):
    """What a subscription needs to know of discovery."""

    @property
    def name(self) -> str:
        """For messages."""

    def choose(self, tried: Collection[Target]) -> Target:
        """An instance, rather one that was not tried. Raises RoutingError when there is none."""

    def keeps(self, target: Target) -> bool:
        """False when a connection to `target` should be given up for another one, or for none."""

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called when something has changed here; returns what ends that."""


class FixedSource:
    """One instance, whatever discovery says."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @property
    def name(self) -> str:
        """``host:port``."""
        return self._target.address

    def choose(self, tried: Collection[Target]) -> Target:
        """The one."""
        return self._target

    def keeps(self, target: Target) -> bool:
        """Always."""
        return True

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Nothing ever changes."""
        return lambda: None


class NamedSource:
    """The instances of ``[SECTOR:]NAME`` in a registry, by weight; those of weight 0 are leaving.

    NAME is `Announcement.name`; sector (``main`` when left out) and name are compared without case.
    With `trusted`, instances for which it says False do not exist.
    """

    def __init__(
        self,
        registry: Registry,
        text: str,
        trusted: Callable[[Announcement], bool] | None = None,
    ) -> None:
        sector, colon, name = text.partition(":")
        if not colon:
            sector, name = "main", text
        self._registry = registry
        self._sector = sector.lower()
        self._service = name.lower()
        self._text = text
        self._trusted = trusted

    @property
    def name(self) -> str:
        """As it was given."""
        return self._text

    @property
    def announced(self) -> bool:
        """Whether there is any instance now, be it one that is leaving."""
        return any(True for _ in self._instances())

    def _instances(self) -> Iterator[Announcement]:
        found = self._registry.instances(self._sector, self._service)
        return iter(found) if self._trusted is None else filter(self._trusted, found)

    def _targets(self) -> list[Target]:
        return [Target.of(one) for one in self._instances()]

    def _picture(self) -> list[tuple[Target, float, InstanceKey | None]]:
        """All that decisions here depend on; equal targets may differ in the rest."""
        return [(one, one.weight, one.key) for one in self._targets()]

    def choose(self, tried: Collection[Target]) -> Target:
        """One of those with a weight. Raises UnknownService, NoUsableInstance."""
        found = self._targets()
        if not found:
            raise UnknownService(self._text)
        usable = [target for target in found if target.weight > 0]
        if not usable:
            raise NoUsableInstance(self._text, 1.0)
        fresh = [target for target in usable if target not in tried] or usable
        (chosen,) = random.choices(fresh, [target.weight for target in fresh])  # noqa: S311
        return chosen

    def keeps(self, target: Target) -> bool:
        """False when it is gone; when it is leaving, and there is another to go to."""
        found = self._targets()
        same = [one for one in found if one == target]
        return any(one.weight > 0 for one in same) or (
            bool(same) and not any(one.weight > 0 for one in found)
        )

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Called when instances of this service have come, changed or gone."""

        last = self._picture()

        def on_change(change: Change) -> None:
            nonlocal last
            # Not by what has changed: that may be thousands, and of hundreds who watch each would
            # look through all of them.
            before, last = last, self._picture()
            if last != before:
                callback()

        return self._registry.subscribe(on_change)
