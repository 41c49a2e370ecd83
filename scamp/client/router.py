"""Which instance gets a request: power of two choices among those that are up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from scamp.client.balance import Balance
from scamp.client.dialing import Dialer
from scamp.client.instance import Instance
from scamp.client.options import ClientOptions
from scamp.client.stats import ClientStats
from scamp.client.traits import TraitStore
from scamp.discovery import Announcement, Change, Offer, Registry
from scamp.errors import EnvelopeNotOffered, NoUsableInstance
from scamp.limits import MAX_PLANNED
from scamp.wire import RequestTemplate

LEAST_WEIGHT: Final = 1e-9
"""What is less counts as so much: parts of it are still numbers to divide by."""

Choice = tuple[Instance, Offer]
_Balance = Balance[Instance, Offer]


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
    share: float = 1.0
    """The part of its weight that counts beside others; below 1 during a slow start."""
    seconds: float = 0.0
    """For how long it has been up, or out; since it is in use when it was never out."""
    retry_in: float | None = None
    """Seconds until the background tries again; None while it is up."""
    failures: int = 0
    """How often it has been out for a pause since it last answered."""


@dataclass(frozen=True, slots=True)
class _Plan:
    offers: tuple[Offer, ...]
    balance: _Balance
    templates: dict[int, RequestTemplate] = field(default_factory=dict)
    """By the identity of the offer."""

    def template(self, offer: Offer, envelope: str) -> RequestTemplate:
        made = RequestTemplate(offer.action.spelling, offer.action.version, envelope)
        self.templates[id(offer)] = made
        return made


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
        # By the identity of the offers, which a plan keeps alive.
        self._plans: dict[tuple[int, str], _Plan] = {}
        self._planned = 0
        self._closed = False
        self._unsubscribe: Callable[[], None] = registry.subscribe(self._on_change)

    # -- choosing -----------------------------------------------------------------------

    def choose(
        self, offers: tuple[Offer, ...], envelope: str, tried: Sequence[Instance], now: float
    ) -> Choice:
        """An instance for one attempt, at loop time `now`, rather one that was not tried.

        Least requests in flight divided by weight, of two drawn by weight. When all are out, one
        that has only lost connections, else the one that refused one longest ago. Raises
        EnvelopeNotOffered, NoUsableInstance, and Saturated when all that are up are full.
        """
        plan = self._plans.get((id(offers), envelope))
        if plan is None:
            plan = self._make_plan(offers, envelope, now)
        choice = plan.balance.pick(now, tried)
        if choice is None:
            choice = self._least_bad(plan.balance, tried, now)
        return choice

    def ready(
        self, offers: tuple[Offer, ...], envelope: str, now: float
    ) -> tuple[Instance, Offer, RequestTemplate] | None:
        """An instance that is up and not full, as `choose` would have it, and what requests to it
        look like; None when that would have to look any further. Changes nothing else."""
        plan = self._plans.get((id(offers), envelope))
        choice = plan.balance.pick(now) if plan is not None else None
        if plan is None or choice is None:
            return None
        instance, offer = choice
        template = plan.templates.get(id(offer))
        if template is None:
            template = plan.template(offer, envelope)
        return instance, offer, template

    def _least_bad(self, balance: _Balance, tried: Sequence[Instance], now: float) -> Choice:
        """Everything fresh is out or full. One that was tried but is up comes first, then one that
        does not get beyond connecting, then one that is out."""
        again = balance.pick(now) if tried else None
        if again is not None:
            return again
        up = [choice for choice in balance.choices if not choice[0].out]
        room = [choice for choice in up if not choice[0].full]
        if room:
            best = min(room, key=lambda choice: (choice[0] in tried, choice[0].in_flight))
            lost = [choice for choice in balance.choices if choice[0].out]
            lost = [one for one in lost if not (one[0].refusing or one[0].full)]
            # That has been waited for in vain; one that lost connections may take new ones at once.
            return lost[0] if lost and best[0] in tried else best
        if up:
            raise up[0][0].saturated()
        return self._of_the_out(balance.choices, tried, now)

    @staticmethod
    def _of_the_out(choices: Sequence[Choice], tried: Sequence[Instance], now: float) -> Choice:
        # Whoever lets nobody in comes last: it would cost a retry. Connections that were lost may
        # be had again at once, even where one was just lost. Of those that let nobody in, the one
        # that did so longest ago: so a few requests find the one that is back, among many.
        in_turn = sorted(
            choices,
            key=lambda choice: (
                choice[0].refusing,
                choice[0] in tried,
                choice[0].refused_at,
                choice[0].retry_at,
            ),
        )
        for choice in in_turn:
            if choice[0].may_panic(now):
                if choice[0].full:
                    raise choice[0].saturated()
                return choice
        wait = max(0.0, min(choice[0].retry_at for choice in choices) - now)
        raise NoUsableInstance(in_turn[0][1].action.spelling, wait)

    def _make_plan(self, offers: tuple[Offer, ...], envelope: str, now: float) -> _Plan:
        """Whom to choose among, for as long as the index does not change.

        Services that have left since `offers` were looked up are not among them, since nothing
        would let new instances of them go; those that have moved are where they are now.
        """
        choices: list[Choice] = []
        weights: list[float] = []
        fresh: list[Instance] = []
        for offer in offers:
            service = None if self._closed else self._registry.get(offer.service.key)
            if service is None or service.weight <= 0 or envelope not in offer.action.envelopes:
                continue
            known = self._instances.get(service.key)
            instance = self._instance(service)
            if instance is not known:
                fresh.append(instance)
            choices.append((instance, offer))
            weights.append(max(LEAST_WEIGHT, float(service.weight)))
        if not choices:
            raise self._nowhere(offers, envelope)
        self._warm_up(fresh, choices, now)
        plan = _Plan(offers, Balance(choices, weights, self._options.slow_start))
        self._planned += len(choices)
        if self._planned > MAX_PLANNED:
            self._forget_plans()
            self._planned = len(choices)
        self._plans[id(offers), envelope] = plan
        return plan

    def _warm_up(self, fresh: list[Instance], choices: list[Choice], now: float) -> None:
        """Slow start for what is new beside something that has been serving for a while. Where
        everything is new there is nobody to take the other part."""
        established = now - self._options.slow_start
        if any(one.since <= established and not one.out for one, _ in choices):
            for instance in fresh:
                instance.warm_up(now)

    def _forget_plans(self) -> None:
        self._plans.clear()
        self._planned = 0

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
        self._forget_plans()
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
        now = time.monotonic()
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
                share=instance.share(now),
                seconds=max(0.0, now - (instance.turned_at or instance.since)),
                retry_in=max(0.0, instance.retry_at - now) if instance.out else None,
                failures=instance.failures,
            )
            for instance in self._instances.values()
        ]

    async def close(self) -> None:
        """Close every connection. Requests in flight fail with ConnectionLost.

        Takes CLOSE_TIMEOUT seconds when services do not do their part, however many.
        """
        self._closed = True
        self._forget_plans()
        self._unsubscribe()
        instances = [*self._instances.values(), *self._leaving]
        self._instances.clear()
        self._leaving.clear()
        await asyncio.gather(*(instance.close() for instance in instances))
