"""Services that authorized_services does not name, and what they cannot be kept from offering.

``_meta.*`` is permitted to everybody. Were such a service reachable, any page could send a browser
there with its owner's ticket, and its actions would fill what callers are shown.
"""

from __future__ import annotations

from typing import Final

from scamp.discovery import Action, Announcement, Offer
from scamp.discovery.model import packed_actions

_META: Final = "_meta"
_NAMESPACES: Final = slice(1, None, 6)  # of the flat form, see `Packed`


def is_meta(action: Action) -> bool:
    """Whether everybody may offer an action of this name."""
    return _is_meta(action.namespace)


def _is_meta(namespace: str) -> bool:
    lower = namespace.lower()
    return lower == _META or lower.startswith(f"{_META}.")


def is_meta_name(spelling: str) -> bool:
    """As `is_meta`, by namespace and name."""
    return _is_meta(spelling.rpartition(".")[0])


def is_trusted(service: Announcement) -> bool:
    """Whether authorized_services permits it something of its own."""
    return not all(_is_meta(one) for one in packed_actions(service)[_NAMESPACES])


class Trust:
    """Asks once for each service; to be used for one walk over an index, or one look-up."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bool] = {}

    def reachable(self, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
        """Those of one action's `offers` that callers may be sent to; perhaps none."""
        if not any(is_meta(offer.action) for offer in offers):
            return offers
        return tuple(
            offer for offer in offers if not is_meta(offer.action) or self.trusts(offer.service)
        )

    def trusts(self, service: Announcement) -> bool:
        """As `is_trusted`."""
        known = self._known.get(service.key)
        if known is None:
            known = self._known[service.key] = is_trusted(service)
        return known
