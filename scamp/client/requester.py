"""From an action to a reply: choose an instance, place the request, retry where that is safe."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from scamp.client.attempt import Attempt, only_waited, retry_reason
from scamp.client.budget import RetryBudget
from scamp.client.call import Call, Reply
from scamp.client.connection import ClientConnection
from scamp.client.deadline import Deadline
from scamp.client.dialing import Dialer
from scamp.client.exchange import Exchange
from scamp.client.expiry import Expiry
from scamp.client.instance import Instance, OnlyWaited
from scamp.client.launch import Launch
from scamp.client.options import ClientOptions
from scamp.client.patience import Patience
from scamp.client.pool import Need
from scamp.client.router import Choice, InstanceView, Router
from scamp.client.sessions import SessionStore
from scamp.client.sources import FixedSource, NamedSource, Source, Target
from scamp.client.stats import ClientStats
from scamp.client.subscription import Subscription
from scamp.client.traits import TraitStore
from scamp.client.upload import pieces_of, upload_body
from scamp.discovery import Announcement, Offer, Registry
from scamp.errors import (
    DispatchFailed,
    LocalProtocolError,
    NoUsableInstance,
    ReplyTimeout,
    Saturated,
    ScampError,
    ServiceError,
    UnknownAction,
    anew,
)
from scamp.limits import HEARTBEAT, MAX_INFLIGHT, SUBSCRIBE_TIMEOUT
from scamp.transport import IncomingMessage, client_context
from scamp.wire import ReplyHeader

RETRY_DELAY: Final = 0.025
"""Seconds; the first retry waits up to this, each further one up to twice the one before."""

_ACTION: Final = re.compile(
    r"(?:(?P<sector>[^:~]+):)?(?P<action>[^:~]+\.[^:~.]+)(?:~(?P<version>[0-9]{1,9}))?"
)


def parse_action(text: str) -> tuple[str, str, int]:
    """``[SECTOR:]Namespace.name[~VERSION]`` as (sector, action, version).

    Sector ``main`` and version 1 when left out. Raises ValueError.
    """
    match = _ACTION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an action: expected [SECTOR:]Namespace.name[~VERSION]")
    return match["sector"] or "main", match["action"], int(match["version"] or 1)


class Requester:
    """Sends requests to the services that a registry knows. Belongs to one event loop."""

    def __init__(self, registry: Registry, options: ClientOptions | None = None) -> None:
        self.registry = registry
        self.options: ClientOptions = options or ClientOptions()
        self.stats: ClientStats = ClientStats()
        self._dialer = Dialer(
            client_context(legacy_rsa=self.options.legacy_rsa),
            timeout=self.options.connect_timeout,
            sessions=SessionStore() if self.options.resume_tls else None,
            tcp=self.options.tcp_times,
            failures=self.stats.connect_failures,
        )
        self._traits = TraitStore()
        self._router = Router(registry, self.options, self._dialer, self._traits, self.stats)
        self._uploads: set[asyncio.Task[None]] = set()
        self._expiry = Expiry()
        self._patience = Patience()
        self._budget = RetryBudget(self.options.retry_budget, self.options.retry_minimum)

    async def request(
        self,
        action: str,
        body: bytes | AsyncIterator[bytes] = b"{}",
        *,
        ticket: str | None = None,
        client_id: int | None = None,
        envelope: str = "json",
        timeout: float | None = None,
        service: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Call ``[SECTOR:]Namespace.name[~VERSION]``; return the reply, its body still to be read.

        `service` is the identity of the one service to ask, as `Announcement.identity` has it, for
        actions that all services have; else any that offers the action is asked.
        `extra` are further HEADER fields, such as a trace's ``traceparent``; LocalProtocolError for
        one that is not further.
        `timeout` in seconds; the default is the action's own, else `ClientOptions.request_timeout`.
        Raises ServiceError when the service says that the action failed, UnknownAction, and what
        `send` raises. Safe to cancel.
        """
        sector, name, version = parse_action(action)
        offers = self.registry.find(sector, name, version)
        if service is not None:
            offers = tuple(offer for offer in offers if offer.service.identity == service)
        if not offers:
            raise UnknownAction(action if service is None else f"{action} as {service}")
        own = max((offer.action.timeout or self.options.request_timeout) for offer in offers)
        reply = await self.send(
            Call(
                offers=offers,
                body=body,
                deadline=Deadline.after(own if timeout is None else timeout),
                envelope=envelope,
                ticket=ticket,
                client_id=client_id,
                extra=extra or {},
                retry_safe=all(offer.action.has("read") for offer in offers),
                pinned=service is not None,
                caller_lowered=timeout is not None and timeout < own,
            )
        )
        if reply.failed:
            header = reply.header
            reply.abandon()
            data = dict(header.error_data) if header.error_data is not None else None
            raise ServiceError(header.error_code, header.error, data)
        return reply

    async def send(self, call: Call) -> Reply:
        """Send `call`; return when the reply's first byte, its end or its error header is here.

        Raises ConnectFailed, ConnectionLost, ConnectTimeout, QueueTimeout, ReplyTimeout,
        IdleTimeout, EnvelopeNotOffered, NoUsableInstance, Saturated, DispatchFailed, and
        ReplyFailed for a TXERR before the first byte; what the body iterator raises comes out
        unchanged, but for a CancelledError of its own: LocalProtocolError. Safe to cancel: the
        request is abandoned in the way that is safe for its peer.
        """
        began = time.monotonic()
        self.stats.requests += 1
        self._budget.request(began)
        return await self._follow(call, began, None)

    def launch(self, call: Call, done: Callable[[], None]) -> Launch | None:
        """Send `call` at once, without a task; None when that cannot be, and nothing has happened.

        For bodies that are held and fit the window, where an instance has a place on a connection
        now and nothing is unusual; else `send`. `done` is called once, from the event loop and not
        from within this: as soon as the first byte of the reply, its end or its failure is here, or
        the deadline is over, which is noticed up to `TICK` seconds late unless it is near. Then ask
        `Launch.reply`, and where that is None await `resume`.
        """
        body, now = call.body, time.monotonic()
        if not isinstance(body, bytes) or len(body) > MAX_INFLIGHT:
            return None
        if call.trace is not None or call.deadline.at <= now:
            return None
        try:
            found = self._router.ready(call.offers, call.envelope, now)
        except LocalProtocolError:
            return None  # no request to such an action can be sent
        if found is None:
            return None
        instance, offer, template = found
        exchange = instance.start(call, offer.action, template, body, now)
        if exchange is None:
            return None
        self.stats.requests += 1
        self._budget.request(now)
        launch = Launch(call, instance, offer, exchange, now, self.options.body_idle, done)
        launch.watch(self._expiry)
        exchange.patience = self._patience
        return launch

    async def resume(self, launch: Launch) -> Reply:
        """Go on with a call that was launched, as `send` would: wait for its reply, try again
        where that is safe. Returns and raises as `send` does. Safe to cancel. Once this has begun
        its `done` is not called any more."""
        launch.take_over()
        return await self._follow(launch.call, launch.sent, launch)

    async def _follow(self, call: Call, began: float, launch: Launch | None) -> Reply:
        """Try until there is a reply or no more to try. `launch` is a first attempt that is placed
        already; None: begin with choosing."""
        avoid: list[Instance] = []  # tried, or waited for in vain
        done = 0  # attempts
        offers = call.offers
        failure: ScampError | None = None
        while True:
            patient = False
            if launch is None:
                instance, offer = self._choose(call, offers, avoid, failure)
                patient = instance in avoid
            else:
                instance, offer = launch.instance, launch.offer
            try:
                placed, launch = launch, None
                if placed is None:
                    return await self._attempt(call, instance, offer, done + 1, began, patient)
                return await self._answer(placed)
            except OnlyWaited as waited:
                _tell(call, waited.error)
                if waited.error is not None:
                    failure = anew(waited.error)  # others have it, too
                    failure.attempts, failure.instance = done, instance.address
                if failure is None or waited.error is None or not patient:
                    avoid.append(instance)
                    continue
                if not self._may_retry(call, done):  # not in circles: the second time is a try
                    raise anew(failure) from None
                self.stats.retries["connect"] += 1
            except ScampError as exc:
                exc.attempts, exc.instance = done + 1, instance.address
                _tell(call, exc)
                if only_waited(exc, instance) and not call.touched:
                    # The instance leaves. Nothing was tried, so to go on elsewhere is no retry.
                    failure, offers = anew(exc), self._offers_now(call, offer)
                    continue
                reason = retry_reason(exc, call)
                if reason is None or not self._may_retry(call, done):
                    self._count(exc)
                    raise
                self.stats.retries[reason] += 1
                failure = anew(exc)  # not itself: its frames have us, and the body
            avoid.append(instance)
            done += 1
            await self._pause(done, call.deadline)
            if call.deadline.expired:
                raise anew(failure)  # nobody would wait for the reply
            offers = self._offers_now(call, offer)

    def _choose(
        self,
        call: Call,
        offers: tuple[Offer, ...],
        avoid: list[Instance],
        failure: ScampError | None,
    ) -> Choice:
        try:
            return self._router.choose(offers, call.envelope, avoid, time.monotonic())
        except (NoUsableInstance, Saturated) as exc:
            if failure is not None:
                raise anew(failure) from None  # it says more than that nothing is left
            self._count(exc)
            raise

    @staticmethod
    async def _pause(done: int, deadline: Deadline) -> None:
        delay = random.uniform(0, RETRY_DELAY * 2 ** (done - 1))  # noqa: S311 - jitter
        await asyncio.sleep(min(delay, deadline.remaining()))

    def _count(self, error: ScampError) -> None:
        if isinstance(error, Saturated):
            self.stats.shed[error.reason] += 1

    def _offers_now(self, call: Call, offer: Offer) -> tuple[Offer, ...]:
        """Where the call may go after `offer` was of no use: also to what has come since, if it
        asks the same of its callers."""
        if call.pinned:
            return call.offers
        action = offer.action
        known = {one.service.key for one in call.offers}
        return call.offers + tuple(
            one
            for one in self.registry.find(action.sector, action.spelling, action.version)
            if one.service.key not in known and one.action.flags == action.flags
        )

    def _may_retry(self, call: Call, done: int) -> bool:
        if done >= self.options.retries or call.touched or call.deadline.expired:
            return False
        if not self._budget.take(time.monotonic()):
            self.stats.retries_denied += 1
            return False
        return True

    # -- one attempt --------------------------------------------------------------------

    async def _attempt(
        self,
        call: Call,
        instance: Instance,
        offer: Offer,
        number: int,
        began: float,
        patient: bool,
    ) -> Reply:
        body = call.body
        held = isinstance(body, bytes) and len(body) <= MAX_INFLIGHT
        instance.in_flight += 1
        if call.trace is not None:
            call.trace.waits(offer, instance.address, number)
        # After so many losses do not meet a peer that is just closing an idle connection again.
        last = number > 1 and number > self.options.retries
        need = Need.ALONE if not held else Need.FRESH if last else Need.SHARED
        exchange = await self._place(call, instance, offer, need, patient)
        sent = time.monotonic()
        return await self._answer(Attempt(call, instance, offer, exchange, number, began, sent))

    async def _answer(self, attempt: Attempt) -> Reply:
        """Wait for what becomes of an attempt that is on its way."""
        call, exchange, sent = attempt.call, attempt.exchange, attempt.sent
        deadline, body = call.deadline, call.body
        held = isinstance(body, bytes) and len(body) <= MAX_INFLIGHT
        upload: asyncio.Task[None] | None = None
        try:
            if held:
                message = await exchange.wait(deadline.at, deadline.seconds)
            else:
                source = pieces_of(body) if isinstance(body, bytes) else body
                upload = asyncio.create_task(
                    upload_body(call, exchange, source, self.options.body_idle)
                )
                self._uploads.add(upload)
                upload.add_done_callback(self._uploads.discard)
                message = await self._wait_with_upload(exchange, upload, deadline)
        except ReplyTimeout:
            attempt.note_silence(time.monotonic() - sent if held else 0.0)
            exchange.abandon(suspect=not call.caller_lowered)
            raise
        except asyncio.CancelledError:
            attempt.note_silence(time.monotonic() - sent if held else 0.0, left=True)
            exchange.abandon()
            raise
        except BaseException:
            exchange.abandon()
            raise
        upstream = time.monotonic() - sent
        attempt.instance.silence = 0
        header = message.header
        if isinstance(header, ReplyHeader) and header.dispatch_failure:
            if upload is not None:
                upload.cancel()
            exchange.abandon()
            raise DispatchFailed(header.error or header.error_code or "dispatch failure")
        if held and call.retry_safe:
            if not message.ended:
                await self._hold(exchange, message, deadline)
            if message.error is not None:
                exchange.abandon()
                raise anew(message.error)
        return attempt.reply_of(message, upstream, self.options.body_idle, upload)

    async def _hold(self, exchange: Exchange, message: IncomingMessage, deadline: Deadline) -> None:
        """Keep the beginning of a reply back for a moment: while nobody has had any of it, one that
        is cut can be asked for again. It takes no more memory than without: a window at most, and
        nothing is acknowledged."""
        until = asyncio.get_running_loop().time() + self.options.reply_hold
        try:
            await message.gather(MAX_INFLIGHT, min(until, deadline.at))
        except BaseException:
            exchange.abandon()
            raise

    async def _place(
        self, call: Call, instance: Instance, offer: Offer, need: Need, patient: bool
    ) -> Exchange:
        """Start the request on a connection of `instance`, when one has a place. Who was there
        before is `patient`, and waits for that without looking elsewhere."""
        started: list[Exchange] = []
        held = need is not Need.ALONE

        def start(connection: ClientConnection) -> None:
            encode = partial(call.encode, offer.action)
            if call.trace is not None:
                encode = partial(encode, dialled=connection.dialled)
            exchange = connection.start(
                encode,
                call.body if held and isinstance(call.body, bytes) else b"",
                end=held,
                exclusive=not held,
            )
            exchange.on_done = instance.release
            started.append(exchange)

        try:
            await instance.place(start, need=need, deadline=call.deadline, patient=patient)
        except BaseException:
            if started:
                started[0].abandon()
            else:
                instance.release()
            raise
        return started[0]

    async def _wait_with_upload(
        self, exchange: Exchange, upload: asyncio.Task[None], deadline: Deadline
    ) -> IncomingMessage:
        """Wait for the reply while the body goes up; the deadline runs only when it has."""
        allowance = deadline.remaining()
        try:
            both: set[asyncio.Future[Any]] = {upload, exchange.settling()}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            loop = asyncio.get_running_loop()
            return await exchange.wait(loop.time() + allowance, deadline.seconds)
        except BaseException:
            upload.cancel()
            raise

    # -- subscriptions ------------------------------------------------------------------

    def subscribe(
        self,
        service: str | Announcement | tuple[str, int, str] | NamedSource,
        codes: Iterable[str],
        *,
        heartbeat: float = HEARTBEAT,
        timeout: float = SUBSCRIBE_TIMEOUT,
    ) -> Subscription:
        """Follow what a service publishes under `codes`, from 1 to 10; use it with ``async with``.

        `service` is ``[SECTOR:]NAME``, for any instance of that name in the registry, or a
        `NamedSource` to choose among them; or one instance: its announcement, or host, port and
        fingerprint. `heartbeat` is the time between
        PINGs in seconds, 0 for none; `timeout` in seconds is for the first connection until all
        values are here. Raises LocalProtocolError for codes that cannot be asked for. The
        subscription outlives the requester: whoever made it closes it.
        """
        source: Source
        if isinstance(service, NamedSource):
            source = service
        elif isinstance(service, str):
            source = NamedSource(self.registry, service)
        elif isinstance(service, Announcement):
            source = FixedSource(Target.of(service))
        else:
            source = FixedSource(Target(*service))
        return Subscription(
            source,
            codes,
            dialer=self._dialer,
            traits=self._traits,
            heartbeat=heartbeat,
            timeout=timeout,
        )

    # -- the rest -----------------------------------------------------------------------

    def instances(self) -> list[InstanceView]:
        """Every instance in use."""
        return self._router.views()

    @property
    def retries_left(self) -> int:
        """Retries that the budget allows now."""
        return self._budget.left(time.monotonic())

    async def close(self) -> None:
        """Close every connection. Requests in flight fail with ConnectionLost."""
        for upload in self._uploads:
            upload.cancel()
        await self._router.close()
        self._expiry.close()
        self._patience.close()

    async def __aenter__(self) -> Requester:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _tell(call: Call, error: ScampError | None) -> None:
    """That an attempt has failed."""
    if call.trace is not None:
        call.trace.failed(error)
