"""Whether services agree with each other, and whether they may offer what they offer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from gateway.actions import Announced
from gateway.audit import codes
from gateway.audit.access import is_builtin, reached
from gateway.audit.codes import Code
from gateway.audit.model import Audited, Finding
from gateway.commands.tables import few
from scamp.discovery import Offer
from scamp.discovery.model import name_of

_NUMBER: Final = re.compile(r"[-_.]?\d+\Z")
_SHOWN: Final = 3
_TIMEOUT: Final = re.compile(r"t[0-9]{1,6}", re.ASCII)


def disagreements(audited: Audited) -> Iterator[Finding]:
    """Instances that announce one action differently."""
    for entry in reached(audited):
        action = entry.action
        if action is None or len(action.offers) == 1 or is_builtin(action):
            continue
        first = action.offers[0].action
        if all(
            offer.action.flags == first.flags and offer.action.envelopes == first.envelopes
            for offer in action.offers
        ):
            continue
        for code, aspect in _ASPECTS:
            sides: dict[Hashable, list[str]] = defaultdict(list)
            for offer in action.offers:
                sides[aspect(offer)].append(offer.service.name)
            if len(sides) > 1:
                yield Finding(code, action.label, f"{_sides(sides)}.")


def _flags(offer: Offer) -> str:
    flags = offer.action.flags
    others = {flag for flag in flags if flag != "noauth" and not _TIMEOUT.fullmatch(flag)}
    return f"flags {','.join(sorted(others)) or 'none'}"


def _envelopes(offer: Offer) -> str:
    return f"envelopes {','.join(sorted(set(offer.action.envelopes)))}"


_ASPECTS: Final[tuple[tuple[Code, Callable[[Offer], str]], ...]] = (
    (codes.NOAUTH_DISAGREES, lambda offer: "noauth" if offer.action.noauth else "with a ticket"),
    (codes.FLAGS_DISAGREE, _flags),
    (codes.ENVELOPES_DISAGREE, _envelopes),
    (
        codes.TIMEOUT_DISAGREES,
        lambda offer: f"{offer.action.timeout:g} s" if offer.action.timeout else "no time limit",
    ),
)


def _sides(sides: dict[Hashable, list[str]]) -> str:
    parts = sorted(f"{said}: {few(sorted(names), _SHOWN)}" for said, names in sides.items())
    return "; ".join(parts)


def aliases(audited: Audited) -> Iterator[Finding]:
    """Names by flag that could mean several actions."""
    for entry in audited.view.aliases:
        action = entry.action
        if action is None or len(entry.candidates) == 1 or is_builtin(action):
            continue
        meant = _meant(audited, entry.target, action)
        others = few([one for one in entry.candidates if one != action.spelling], _SHOWN)
        if len(meant) > 1:
            says = f"Services mean {few(sorted(meant), _SHOWN)}; {action.spelling} is called."
            yield Finding(codes.ALIAS_DISPUTED, entry.target, says)
        else:
            says = f"It is {action.spelling}, the last one announced; not {others}."
            yield Finding(codes.ALIAS_AMBIGUOUS, entry.target, says)


def _meant(audited: Audited, target: str, action: Announced) -> set[str]:
    """Which actions services have in mind, in lower case."""
    alias = target.rpartition("~")[0].rpartition(":")[2]
    offers = audited.mesh.registry.find(action.sector, alias, action.version)
    return {offer.action.spelling.lower() for offer in offers}


def owners(audited: Audited) -> Iterator[Finding]:
    """Actions that several services announce, which perhaps do not belong together."""
    by_names: dict[tuple[str, ...], list[str]] = defaultdict(list)
    prints: dict[str, set[str]] = defaultdict(set)
    for entry in reached(audited):
        action = entry.action
        if action is None or len(action.offers) == 1 or is_builtin(action):
            continue
        found: dict[str, set[str]] = defaultdict(set)
        for offer in action.offers:
            found[offer.service.name].add(offer.service.fingerprint)
        if len({_NUMBER.sub("", name) or name for name in found}) > 1:
            by_names[tuple(sorted(found))].append(action.label)
        for name, fingerprints in found.items():
            if len(fingerprints) > 1:
                prints[name] |= fingerprints
    for names, labels in by_names.items():
        says = f"Each of them announces {few(sorted(labels), _SHOWN)}."
        yield Finding(codes.SEVERAL_OWNERS, few(names, 10), says)
    for name, fingerprints in prints.items():
        shown = few([f"{one[:17]}…" for one in sorted(fingerprints)], _SHOWN)
        says = f"It has {len(fingerprints)} certificates: {shown}."
        yield Finding(codes.SEVERAL_CERTIFICATES, name, says)


def authorized(audited: Audited) -> Iterator[Finding]:
    """How narrow authorized_services is."""
    given = audited.mesh.authorized
    if given is None:
        says = "None is given: any service may offer any action, and gets its callers' tickets."
        yield Finding(codes.NO_AUTHORIZED_SERVICES, "authorized_services", says)
        return
    open_to = {sector.lower() for sector in audited.settings.sectors}
    open_to |= {one.action.sector.lower() for one in audited.view.routes if one.action is not None}
    names: dict[str, set[str]] = defaultdict(set)
    for service in audited.mesh.registry.services():
        names[service.fingerprint].add(service.name)
    for fingerprint, sectors in given.whole_sectors():
        tokens = ", ".join(f"{sector}:ALL" for sector in sorted(sectors & open_to))
        if tokens:
            owner = few(sorted(names[fingerprint]), _SHOWN) or "no service that is there now"
            yield Finding(codes.AUTHORIZED_FOR_ALL, fingerprint, f"{tokens} for {owner}.")
    refused: dict[str, set[str]] = defaultdict(set)  # instances say the same
    for identity, labels in audited.mesh.unauthorized.items():
        refused[name_of(identity)].update(labels)
    for name, labels_of_all in refused.items():
        says = f"It is not permitted {few(sorted(labels_of_all), _SHOWN)}."
        yield Finding(codes.NOT_AUTHORIZED, name, says)
