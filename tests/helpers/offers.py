"""Services as they stand in an index, made from a line for each action; for tests.

``service("shop", "Product.Sku.fetch read,t30", "web:Page.show~2 noauth json,csv")``
"""

from __future__ import annotations

import hashlib
from typing import Final

from gateway.translate import parse_target
from scamp.discovery import Action, Announcement, Registry

_NONE: Final = "-"


def action(line: str) -> Action:
    """``[SECTOR:]Namespace.name[~VERSION] [FLAGS [ENVELOPES]]``; ``-`` for no flags."""
    name, *more = line.split(" ")
    target = parse_target(name)
    assert target is not None, line
    namespace, _, last = target.action.rpartition(".")
    flags = more[0].split(",") if more and more[0] != _NONE else []
    envelopes = more[1].split(",") if len(more) > 1 else ["json"]
    return Action(target.sector, namespace, last, target.version, tuple(flags), tuple(envelopes))


def fingerprint_of(text: str) -> str:
    """A fingerprint for a certificate that nobody has."""
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, 40, 2))


def service(
    name: str,
    *lines: str | Action,
    certificate: str = "",
    weight: float = 1,
    number: int = 0,
    sector: str = "main",
) -> Announcement:
    """One running service. Those of one `certificate` (by default of one name) share a fingerprint;
    `number` tells instances apart."""
    actions = tuple(line if isinstance(line, Action) else action(line) for line in lines)
    return Announcement(
        identity=f"{name}:{number:024d}",
        fingerprint=fingerprint_of(certificate or name),
        sector=sector,
        weight=weight,
        interval=5.0,
        uri="beepish+tls://127.0.0.1:30100",
        host="127.0.0.1",
        port=30100,
        envelopes=("json",),
        actions=actions,
        timestamp=1.0,
    )


def registry_of(*services: Announcement) -> Registry:
    """An index of them."""
    registry = Registry()
    registry.apply(added=services)
    return registry
