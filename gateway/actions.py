"""Actions as HTTP knows them: their names, and what services announce of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from gateway import catalogue
from gateway.problems import Problem
from gateway.strangers import Trust, is_meta
from scamp.discovery import Action, Offer, Registry

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What the gateway knows, and the values of the metric label; any other method is ``_other``."""

FLAG_OF_METHOD: Final = {
    "GET": "read",
    "HEAD": "read",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "destroy",
}


@dataclass(frozen=True, slots=True)
class Target:
    """The action that a path asks for, in the caller's spelling."""

    sector: str
    action: str
    version: int

    def __str__(self) -> str:
        return label_of(self.sector, self.action, self.version)


def label_of(sector: str, action: str, version: int) -> str:
    """``[SECTOR:]Namespace.name~VERSION``, sector left out when it is main."""
    return in_sector(sector, f"{action}~{version}")


def in_sector(sector: str, name: str) -> str:
    """``[SECTOR:]NAME``, sector left out when it is main."""
    return name if sector.lower() == "main" else f"{sector}:{name}"


class Sectors:
    """Names of sectors, which are compared without case."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)

    def __contains__(self, sector: str) -> bool:
        return sector.lower() in self._names

    def __iter__(self) -> Iterator[str]:
        """In lower case, in order."""
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, slots=True)
class Announced:
    """One action as all its instances together announce it.

    Instances may differ while a new version is rolled out. What opens something up counts only
    when every one says it: ``noauth``, ``read``, ``update``, ``destroy``. `timeout` (seconds) is
    the longest, so that no instance is cut short.
    """

    offers: tuple[Offer, ...]
    label: str
    spelling: str
    sector: str
    version: int
    flags: frozenset[str]
    envelopes: tuple[str, ...]
    timeout: float
    noauth: bool
    read: bool
    methods: tuple[str, ...]
    privileges: bool = True
    """Whether a ticket's privileges are checked; False where a route asks for a ticket, any, though
    the action is ``noauth``."""
    pinned: bool = False
    """Whether only `offers` will do: everybody may offer it, and who is a stranger was left out."""

    @property
    def allow(self) -> str:
        """The value of an ``Allow`` header."""
        return ", ".join(self.methods)

    def runs(self, method: str) -> bool:
        """Whether a route may run it for `method`: GET never runs what does not only read."""
        return self.read or method not in ("GET", "HEAD")


class Guarded(Protocol):
    """What a ticket is asked for: an announced action, or something that stands for one."""

    @property
    def label(self) -> str:
        """For people."""
        ...

    @property
    def spelling(self) -> str:
        """Its name in the privilege table."""
        ...

    @property
    def noauth(self) -> bool:
        """Whether it needs no ticket."""
        ...

    @property
    def privileges(self) -> bool:
        """Whether the privilege table has a say."""
        ...


def announced(offers: Iterable[Offer], default_timeout: float) -> Announced:
    """Put the offers of one action together; at least one. `default_timeout` is in seconds.

    A CRUD alias may find different actions of one namespace. Then the first by spelling is meant,
    whatever the order of announcements, and likewise of spellings that differ in case.
    """
    every = tuple(offers)
    chosen = min((offer.action for offer in every), key=_order)
    wanted = chosen.spelling.lower()
    same = tuple(offer for offer in every if offer.action.spelling.lower() == wanted)
    flags = frozenset.intersection(*(frozenset(offer.action.flags) for offer in same))
    methods = ["POST", "OPTIONS"]
    methods += [method for method, flag in FLAG_OF_METHOD.items() if flag in flags]
    return Announced(
        offers=same,
        label=label_of(chosen.sector, chosen.spelling, chosen.version),
        spelling=chosen.spelling,
        sector=chosen.sector,
        version=chosen.version,
        flags=flags,
        envelopes=tuple(dict.fromkeys(name for offer in same for name in offer.action.envelopes)),
        timeout=max(offer.action.timeout or default_timeout for offer in same),
        noauth="noauth" in flags,
        read="read" in flags,
        methods=tuple(method for method in METHODS if method in methods),
        pinned=is_meta(chosen),
    )


def _order(action: Action) -> tuple[str, str, str]:
    return action.spelling.lower(), action.spelling, action.sector


def is_open(offers: Iterable[Offer]) -> bool:
    """Whether every one of them says ``noauth``: what `announced` finds, at less cost."""
    return all(offer.action.noauth for offer in offers)


def resolve(registry: Registry, target: Target, default_timeout: float) -> Announced | None:
    """The action that a name or an alias stands for; None when nobody announces it.

    `default_timeout` in seconds.
    """
    trust = Trust()
    offers = trust.reachable(registry.find(target.sector, target.action, target.version))
    if not offers:
        return None
    action = announced(offers, default_timeout)
    if action.spelling.lower() == target.action.lower():
        return action
    # An alias finds the instances that announce its flag: the others count as well.
    offers = trust.reachable(registry.find(action.sector, action.spelling, action.version))
    return announced(offers, default_timeout)


def check_method(method: str, action: Announced) -> None:
    """Raise Problem (method_not_allowed) unless the announced flags allow `method`."""
    if method in action.methods:
        return
    flag = FLAG_OF_METHOD.get(method)
    if flag is None:
        detail = f"{method} is not a method of actions; use POST."
    else:
        detail = f"{method} needs an action flagged {flag}, and {action.label} is not; use POST."
    raise Problem(
        catalogue.METHOD_NOT_ALLOWED,
        detail,
        action=action.label,
        headers=(("Allow", action.allow),),
    )
