"""One client's connection, seen from the service: requests become tasks, tasks become replies."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from typing import Protocol

from scamp import logs
from scamp.authz import AuthzTable
from scamp.errors import (
    AuthzTableUnavailable,
    IdleTimeout,
    LocalProtocolError,
    MissingPrivilege,
    RequestAborted,
    ScampError,
    ServiceError,
    TicketError,
    TransportError,
    UnconfiguredAction,
)
from scamp.limits import (
    MAX_NAME,
    MAX_REQUESTS_PER_CONNECTION,
    MAX_UNSENT_REPLIES,
    REQUEST_DISCARD,
)
from scamp.server.actions import ActionTable, ServedAction
from scamp.server.inbox import Audience, Inbox
from scamp.server.reply import INTERNAL, Reply, within
from scamp.server.request import Request, access_denied
from scamp.tickets import Ticket
from scamp.transport import Channel, IncomingMessage
from scamp.wire import (
    NotifyHeader,
    OtherHeader,
    ReplyHeader,
    RequestHeader,
    RequestId,
    SubscribeHeader,
    header_type,
)

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.server"))


class VerifiesTickets(Protocol):
    """What a service needs of a `TicketVerifier`."""

    def verify(self, text: str, now: float) -> Ticket:
        """The ticket, or a TicketError; `now` in seconds since 1970."""


class KnowsPrivileges(Protocol):
    """What a service needs of an `AuthzSource`."""

    def current(self) -> AuthzTable | None:
        """The table if it is fresh; None means: call `get`."""

    async def get(self) -> AuthzTable:
        """The table in force. Raises AuthzTableUnavailable."""


class Site(Audience, Protocol):
    """What connections share: the service behind them."""

    actions: ActionTable
    ticket_verifier: VerifiesTickets | None
    require_tickets: bool
    authz: KnowsPrivileges | None

    def admit(self, connection: ServerConnection) -> bool:
        """A connection is open; False to have it closed at once."""

    def refusal(self) -> str:
        """Why no request may begin now; empty when it may."""

    def request_began(self) -> None: ...

    def request_ended(self) -> None: ...

    def connection_lost(self, connection: ServerConnection) -> None: ...


class ServerConnection:
    """The handler of one `Channel`: keeps the tasks of its requests, cancels them when it ends."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._exchanges: set[Exchange] = set()
        self._refusals: set[asyncio.Task[None]] = set()
        self._retiring = False
        self._inbox: Inbox | None = None
        self.channel: Channel | None = None

    # -- what the channel tells ---------------------------------------------------------

    def channel_opened(self, channel: Channel) -> None:
        self.channel = channel
        if not self._site.admit(self):
            channel.abort("the service has stopped")

    def message_received(self, message: IncomingMessage) -> None:
        header = message.header
        if isinstance(header, RequestHeader):
            self._on_request(message, header)
            return
        if isinstance(header, SubscribeHeader | NotifyHeader):
            if self._inbox is None:
                self._inbox = Inbox(self._site, self._open_channel())
            self._inbox.add(message)
            return
        peer = self._open_channel().address
        self._drop_body(message)
        if isinstance(header, ReplyHeader):
            # An answer to an answer could go on for ever.
            log.error("%s sent a reply (request_id %r) to a service", peer, header.request_id)
            return
        problem = f"messages of type {header_type(header)[:64]!r} are not served"
        if isinstance(header, OtherHeader) and header.problem:
            problem = header.problem
        log.error("%s sent what is not served: %s", peer, problem)
        if isinstance(header, OtherHeader) and header.request_id is not None:
            self._refuse(header.request_id, ServiceError("bad_request", problem))

    def channel_lost(self, error: ScampError) -> None:
        for exchange in list(self._exchanges):
            exchange.cancel()
        if self._inbox is not None:
            self._inbox.end()
        self._site.connection_lost(self)

    # -- requests -----------------------------------------------------------------------

    def _on_request(self, message: IncomingMessage, header: RequestHeader) -> None:
        reason = self._site.refusal()
        if not reason and len(self._exchanges) >= MAX_REQUESTS_PER_CONNECTION:
            reason = f"more than {MAX_REQUESTS_PER_CONNECTION} requests on one connection"
        if reason:
            self._drop_body(message)
            self._refuse(header.request_id, not_dispatched(reason))
            return
        channel = self._open_channel()
        exchange = Exchange(self, self._site, channel, message, header)
        self._exchanges.add(exchange)
        channel.busy += 1
        self._site.request_began()
        exchange.start()

    def exchange_over(self, exchange: Exchange) -> None:
        """The request's task has ended, however it did."""
        self._exchanges.discard(exchange)
        channel = self._open_channel()
        channel.busy -= 1
        self._drop_body(exchange.message)
        self._site.request_ended()
        if self._retiring and not self._exchanges:
            channel.close("a request body was not read")

    def _refuse(self, request_id: RequestId | None, error: ServiceError) -> None:
        """Answer without running anything. Waits for the peer to read, so it takes a task."""
        channel = self._open_channel()
        if len(self._refusals) >= MAX_UNSENT_REPLIES:
            channel.abort("the peer does not read its replies")
            return
        task = asyncio.create_task(Reply(channel, request_id).send_error(error))
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)

    def _drop_body(self, message: IncomingMessage) -> None:
        """Read on for a while what nobody wants: few callers stop sending at an early reply."""
        message.discard(REQUEST_DISCARD, self._retire)

    def _retire(self) -> None:
        self._retiring = True
        if not self._exchanges and self.channel is not None:
            self.channel.close("a request body was not read")

    def _open_channel(self) -> Channel:
        assert self.channel is not None  # noqa: S101 - channel_opened always comes first
        return self.channel

    # -- ending -------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that are being worked on."""
        return len(self._exchanges)

    def cancel_all(self) -> None:
        """Stop every handler; each caller is told so."""
        for exchange in list(self._exchanges):
            exchange.cancel()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Everything that may still write here."""
        running = [exchange.task for exchange in self._exchanges if exchange.task is not None]
        if self._inbox is not None and self._inbox.subscriber.task is not None:
            running.append(self._inbox.subscriber.task)
        return [*running, *self._refusals]


class Exchange:
    """One request and its reply, from the HEADER to the EOF, in one task."""

    def __init__(
        self,
        connection: ServerConnection,
        site: Site,
        channel: Channel,
        message: IncomingMessage,
        header: RequestHeader,
    ) -> None:
        self._connection = connection
        self._site = site
        self._channel = channel
        self._header = header
        self._reply = Reply(channel, header.request_id)
        self._began = False
        self._cancelled = False
        self.message = message
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._run(), name=f"scamp {self._header.action[:64]}")
        self.task.add_done_callback(self._on_done)
        self.message.when_ended(self._on_request_ended)

    def cancel(self) -> None:
        """Stop the handler; once, so that its clean-up is not disturbed."""
        if not self._cancelled and self.task is not None:
            self._cancelled = True
            self.task.cancel()

    def _on_request_ended(self) -> None:
        # A handler that waits for the body is told by its read; any other must be stopped.
        if self.message.error is not None and not self.message.waiting:
            self.cancel()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not self._began:  # cancelled before its first step
            self._reply.send_error_nowait(not_dispatched("the service is stopping"))
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.critical("bug in serving %s", self._header.action[:64], exc_info=error)
            self._reply.fail(INTERNAL)
        elif self._reply.started and not self._reply.finished:  # cancelled while it was sent
            self._reply.fail("the service stopped before the reply was sent")
        self._connection.exchange_over(self)

    async def _run(self) -> None:
        self._began = True
        header = self._header
        with logs.bind(
            request_id=header.request_id,
            action=header.action[:MAX_NAME],
            client_id=header.client_id,
        ):
            await self._answer_or_fail()

    async def _answer_or_fail(self) -> None:
        try:
            await self._answer()
        except asyncio.CancelledError:
            self._tell_cancelled()
            raise
        except RequestAborted as exc:
            self._reply.fail(str(exc))
        except ServiceError as exc:
            await self._reply.send_error(exc)
        except (TransportError, IdleTimeout) as exc:
            await self._on_broken_body(exc)
        except Exception:
            log.exception("%s failed", self._header.action[:64])
            await self._reply.send_error(ServiceError("internal", INTERNAL))

    def _tell_cancelled(self) -> None:
        if isinstance(self.message.error, RequestAborted):
            self._reply.fail(str(self.message.error))
        else:
            self._reply.send_error_nowait(
                ServiceError("cancelled", "the service stopped before the action was done")
            )

    async def _on_broken_body(self, error: ScampError) -> None:
        """The caller went away or stopped moving; or the handler's own calls to others failed."""
        if self._channel.failure is not None:
            return
        log.warning("%s for %s: %s", self._header.action[:64], self._channel.address, error)
        code = "timeout" if isinstance(error, IdleTimeout) else "internal"
        text = str(error) if isinstance(error, IdleTimeout) else INTERNAL
        await self._reply.send_error(ServiceError(code, text))

    async def _answer(self) -> None:
        header = self._header
        if header.request_id is None:
            raise ServiceError("bad_request", "the request has no request_id")
        served = self._site.actions.find(header)
        ticket = self._check_ticket(served)
        table = None
        if ticket is not None and self._site.authz is not None and not served.action.noauth:
            table = self._site.authz.current() or await self._fetch_table(served)
            _check_privileges(table, served, ticket)
        request = Request(
            action=served.action,
            header=header,
            deadline=asyncio.get_running_loop().time() + served.timeout,
            peer=self._channel.address,
            ticket=ticket,
            message=self.message,
            table=table,
        )
        outcome: object = served.handler(request)
        if inspect.isawaitable(outcome):
            outcome = await within(served.timeout, outcome)
        if isinstance(self.message.error, RequestAborted):
            await _close_unused(outcome)
            raise self.message.error  # the handler caught it; its result is still not wanted
        try:
            await self._reply.send(outcome, served.timeout)
        except LocalProtocolError as exc:
            raise RuntimeError(f"reply to {served.action.spelling} cannot be sent") from exc

    async def _fetch_table(self, served: ServedAction) -> AuthzTable:
        """Wait for the privilege table. Raises ServiceError ``authorization_unavailable``."""
        assert self._site.authz is not None  # noqa: S101 - the caller has looked
        try:
            async with asyncio.timeout(served.timeout):
                return await self._site.authz.get()
        except AuthzTableUnavailable as exc:
            reason, retry_after = exc.reason, exc.retry_after
        except TimeoutError:
            reason, retry_after = "it did not come in time", 1.0
        text = f"{served.action.spelling}: the privilege table is not available: {reason}"
        log.info("refused %s", text)
        raise ServiceError("authorization_unavailable", text, {"retry_after": retry_after})

    def _check_ticket(self, served: ServedAction) -> Ticket | None:
        """The caller's ticket. Raises ServiceError ``unauthorized`` when the action needs one."""
        verifier = self._site.ticket_verifier
        needed = self._site.require_tickets and not served.action.noauth
        text = self._header.ticket
        if verifier is None or text is None:
            if needed:
                raise ServiceError("unauthorized", f"{served.action.spelling} requires a ticket")
            return None
        try:
            ticket = verifier.verify(text, time.time())
        except TicketError as exc:
            if needed:
                raise ServiceError("unauthorized", exc.detail, {"ticket": exc.reason}) from exc
            return None
        logs.bind_more(user_id=ticket.user_id)
        return ticket


def _check_privileges(table: AuthzTable, served: ServedAction, ticket: Ticket) -> None:
    """Raises ServiceError ``access_denied``."""
    try:
        table.check(served.action.spelling, ticket)
    except MissingPrivilege as exc:
        raise access_denied(exc) from exc
    except UnconfiguredAction as exc:
        raise ServiceError("access_denied", str(exc), {"unconfigured": True}) from exc


def not_dispatched(reason: str) -> ServiceError:
    """The refusal that lets a client send the request to another instance."""
    return ServiceError("dispatch_failure", reason, {"dispatch_failure": True})


async def _close_unused(outcome: object) -> None:
    close = getattr(outcome, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):
            await close()
