"""Which instance gets a request: power of two choices among those that are up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scamp.client.dialing import Dialer
from scamp.client.instance import Instance
from scamp.client.options import ClientOptions
from scamp.client.stats import ClientStats
from scamp.client.traits import TraitStore
from scamp.discovery import Announcement, Change, Offer, Registry
from scamp.errors import EnvelopeNotOffered, NoUsableInstance

Choice = tuple[Instance, Offer]


@dataclass(frozen=True, slots=True)
class InstanceView:
    """What an instance looks like from outside, for admin pages and metrics."""

    address: str
    identity: str
    fingerprint: str
    name: str
    state: str
    """``up`` or ``out``."""
    weight: float
    in_flight: int
    waiting: int
    connections: int
    peer: str
    """``unknown``, ``echoes`` or ``renumbers``."""
    last_error: str | None


class Router:
    """Keeps an `Instance` for every service in use, and chooses among them.

    An instance is made when a request first goes to its service, and let go when the service is no
    longer announced: what is in flight there finishes.
    """

    def __init__(
        self,
        registry: Registry,
        options: ClientOptions,
        dialer: Dialer,
        traits: TraitStore,
        stats: ClientStats,
    ) -> None:
        self._registry = registry
        self._options = options
        self._dialer = dialer
        self._stats = stats
        self._traits = traits
        self._instances: dict[tuple[str, str], Instance] = {}
        self._leaving: set[Instance] = set()
        self._closed = False
        self._unsubscribe: Callable[[], None] = registry.subscribe(self._on_change)

    # -- choosing -----------------------------------------------------------------------

    def choose(
        self, offers: Sequence[Offer], envelope: str, tried: Sequence[Instance], now: float
    ) -> Choice:
        """An instance for one attempt, at loop time `now`, rather one that was not tried.

        Least requests in flight divided by weight, of two drawn by weight. When all are out the one
        that is due next is tried. Raises EnvelopeNotOffered and NoUsableInstance.
        """
        candidates = [
            (self._instance(offer.service), offer)
            for offer in offers
            if envelope in offer.action.envelopes
            and offer.service.weight > 0
            and self._is_known(offer.service)
        ]
        if not candidates:
            raise self._nowhere(offers, envelope)
        up = [choice for choice in candidates if not choice[0].out and choice[0] not in tried]
        if up:
            return _less_loaded(up)
        return self._least_bad(candidates, tried, now)

    def _least_bad(self, candidates: list[Choice], tried: Sequence[Instance], now: float) -> Choice:
        """Everything fresh is out. One that was tried but is up comes first, then the next due."""
        up = [choice for choice in candidates if not choice[0].out]
        if up:
            return _less_loaded(up)
        soonest = min(candidates, key=lambda choice: (choice[0] in tried, choice[0].retry_at()))
        if soonest[0].may_panic(now):
            return soonest
        for choice in candidates:
            if choice[0].may_panic(now):
                return choice
        wait = max(0.0, min(choice[0].retry_at() for choice in candidates) - now)
        raise NoUsableInstance(soonest[1].action.spelling, wait)

    def _is_known(self, service: Announcement) -> bool:
        """False when it has left since it was looked up: nothing would let a new instance go."""
        return not self._closed and self._registry.get(service.key) is not None

    @staticmethod
    def _nowhere(offers: Sequence[Offer], envelope: str) -> Exception:
        action = offers[0].action.spelling if offers else "the action"
        taken = dict.fromkeys(name for offer in offers for name in offer.action.envelopes)
        if offers and envelope not in taken:
            return EnvelopeNotOffered(action, envelope, tuple(taken))
        # All have weight 0, or have just left: a service says so anew with every announcement.
        return NoUsableInstance(action, min((one.service.interval for one in offers), default=1.0))

    # -- instances ----------------------------------------------------------------------

    def _instance(self, service: Announcement) -> Instance:
        instance = self._instances.get(service.key)
        if instance is not None and instance.service is service:
            return instance
        if instance is not None and instance.serves(service):
            instance.service = service
            return instance
        if instance is not None:
            self._release(instance)
        instance = Instance(service, self._options, self._dialer, self._traits, self._stats)
        self._instances[service.key] = instance
        return instance

    def _on_change(self, change: Change) -> None:
        for service in change.removed:
            instance = self._instances.get(service.key)
            if instance is not None and self._registry.get(service.key) is None:
                del self._instances[service.key]
                self._release(instance)
        self._leaving = {instance for instance in self._leaving if instance.connections}

    def _release(self, instance: Instance) -> None:
        instance.leave()
        if instance.connections:
            self._leaving.add(instance)

    def views(self) -> list[InstanceView]:
        """Every instance in use."""
        return [
            InstanceView(
                address=instance.address,
                identity=instance.service.identity,
                fingerprint=instance.fingerprint,
                name=instance.service.name,
                state="out" if instance.out else "up",
                weight=float(instance.service.weight),
                in_flight=instance.in_flight,
                waiting=instance.waiting,
                connections=len(instance.connections),
                peer=instance.kind.value,
                last_error=str(instance.last_error) if instance.last_error else None,
            )
            for instance in self._instances.values()
        ]

    async def close(self) -> None:
        """Close every connection. Requests in flight fail with ConnectionLost.

        Takes CLOSE_TIMEOUT seconds when services do not do their part, however many.
        """
        self._closed = True
        self._unsubscribe()
        instances = [*self._instances.values(), *self._leaving]
        self._instances.clear()
        self._leaving.clear()
        await asyncio.gather(*(instance.close() for instance in instances))


def _less_loaded(choices: list[Choice]) -> Choice:
    """Of two drawn by weight the one with less in flight for its weight, the first when equal.

    Drawing by weight matters when little is in flight: comparing alone would then leave nothing
    to any but the heaviest.
    """
    if len(choices) == 1:
        return choices[0]
    weights = [float(offer.service.weight) for _, offer in choices]
    first = _draw(choices, weights)
    second = _draw(choices, weights)
    return second if _load(second) < _load(first) else first


def _draw(choices: list[Choice], weights: list[float]) -> Choice:
    """One of `choices`, by weight; its weight becomes 0, so that it is not drawn again."""
    (at,) = random.choices(range(len(choices)), weights)  # noqa: S311 - not a secret
    weights[at] = 0.0
    return choices[at]


def _load(choice: Choice) -> float:
    return choice[0].in_flight / choice[1].service.weight
