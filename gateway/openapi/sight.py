"""What a caller may see of the mesh, and the actions of an index that are left then."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from gateway.openapi.operations import is_addressable
from gateway.routes.model import Route, RouteTable
from gateway.strangers import Trust, is_meta
from gateway.translate import Announced, Target, announced
from scamp.authz import AuthzTable
from scamp.discovery import Action, Offer, Registry
from scamp.discovery.pace import STRIDE, no_pause


@dataclass(frozen=True, slots=True)
class Sight:
    """What one caller, or everyone in the same position, may see.

    With `everything` that is all; without, it is what needs no ticket, and for one with a ticket
    what the `table` permits its `privileges`. Equal ones see the same.
    """

    everything: bool = False
    table: AuthzTable | None = None
    privileges: frozenset[int] = frozenset()

    def action(self, spelling: str, *, noauth: bool) -> bool:
        """Whether the action is shown."""
        if self.everything or noauth:
            return True
        if self.table is None:
            return False
        required = self.table.required(spelling)
        return required is not None and required <= self.privileges

    def route(self, route: Route, action: Announced) -> bool:
        """Whether a route to the action is shown."""
        if route.ticket is False:
            return True
        if route.ticket and action.noauth:
            return self.everything or self.table is not None
        return self.action(action.spelling, noauth=action.noauth)


ALL = Sight(everything=True)
OPEN = Sight()
"""Without a ticket."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The actions that are shown, and how many more there would be."""

    actions: tuple[Announced, ...]
    left_out: int


def select(
    index: Iterable[tuple[Offer, ...]],
    sight: Sight,
    *,
    sectors: Collection[str],
    default_timeout: float,
    limit: int,
    pause: Callable[[], None] = no_pause,
) -> Selection:
    """Those of `index` (`Registry.actions`) in the exposed `sectors`, `limit` at most, the first by
    sector and name.

    Pure, and for any thread; `pause` is called between small steps. Cheap tests come first: an
    index may have 100,000 actions and a caller see ten of them.
    """
    exposed = frozenset(one.lower() for one in sectors)
    found: list[tuple[str, tuple[Offer, ...]]] = []
    left_out = 0
    trust = Trust()
    for number, offers in enumerate(index):
        if not number % STRIDE:
            pause()
        action = offers[0].action
        sector, spelling = action.sector.lower(), action.spelling
        if sector not in exposed:
            continue
        offers = trust.reachable(offers)
        if not offers:
            continue
        noauth = all(offer.action.noauth for offer in offers)
        if not sight.action(spelling, noauth=noauth):
            continue
        if is_addressable(sector, spelling, action.version):
            found.append((_order(action), offers))
        if len(found) >= 2 * limit + STRIDE:  # often and little, as sorting stops the loop
            left_out += _cut(found, limit)
    left_out += _cut(found, limit)
    pause()
    return Selection(tuple(put_together(offers, default_timeout) for _, offers in found), left_out)


def _order(action: Action) -> str:
    """What everybody may offer comes last, so that it pushes nothing else out."""
    # One text, which is compared much faster than a tuple; no name has a control character.
    sector = action.sector.lower()
    first = f"{'~' if is_meta(action) else ''}{'' if sector == 'main' else sector}"
    return f"{first}\0{action.spelling.lower()}\0{action.version:09}"


def _cut(found: list[tuple[str, tuple[Offer, ...]]], limit: int) -> int:
    """Leave the first `limit`, in order; how many were cut off."""
    found.sort(key=lambda one: one[0])
    cut = max(0, len(found) - limit)
    del found[limit:]
    return cut


def lead(
    registry: Registry, table: RouteTable, sight: Sight, *, default_timeout: float
) -> list[tuple[Route, Announced]]:
    """The routes that are shown, in their order, each with the action that it leads to now.

    For the registry's own thread only.
    """
    found = []
    for route in table.routes:
        action = _action_of(registry, route.target, default_timeout)
        if action is not None and sight.route(route, action):
            found.append((route, action))
    return found


def _action_of(registry: Registry, target: Target, default_timeout: float) -> Announced | None:
    trust = Trust()
    offers = trust.reachable(registry.find(target.sector, target.action, target.version))
    if not offers:
        return None
    action = put_together(offers, default_timeout)
    if action.spelling.lower() == target.action.lower():
        return action
    # An alias finds the instances that announce its flag: the others count as well.
    offers = trust.reachable(registry.find(action.sector, action.spelling, action.version))
    return put_together(offers, default_timeout)


def put_together(offers: Iterable[Offer], default_timeout: float) -> Announced:
    """`announced`, in whatever order the offers come: its spelling is the first there is."""
    in_order = sorted(offers, key=lambda offer: (offer.action.spelling, offer.service.key))
    return announced(in_order, default_timeout)
