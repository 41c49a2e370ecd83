"""Every exception that ``scamp`` raises on purpose, in one tree.

::

    ScampError
    ├── ProtocolError
    │   ├── LocalProtocolError        we were asked to send what must not be sent
    │   └── RemoteProtocolError       the peer broke the protocol; the connection is over
    ├── TransportError
    │   ├── ConnectFailed             nothing of the request was sent
    │   │   ├── FingerprintMismatch
    │   │   └── ConnectTimeout        (also ScampTimeout)
    │   └── ConnectionLost            `.written` tells whether the request may have run
    ├── ScampTimeout                  (also TimeoutError)
    │   ├── ConnectTimeout
    │   ├── QueueTimeout              no connection came free; nothing was sent
    │   ├── ReplyTimeout              sent, no reply in time; it may have run
    │   └── IdleTimeout               a body stopped moving
    ├── RoutingError                  nothing was sent
    │   ├── UnknownAction
    │   ├── UnknownService
    │   ├── EnvelopeNotOffered
    │   ├── DiscoveryUnavailable      the index is missing or stale: nobody can say
    │   ├── NoUsableInstance
    │   └── Saturated
    ├── ReplyError
    │   ├── ServiceError              the service's own answer: code, message, data
    │   ├── DispatchFailed            the peer says that the request reached no service
    │   └── ReplyFailed               TXERR: whatever arrived is not an answer
    ├── SubscriptionRefused           the service does not want it, or cannot
    ├── RequestAborted                TXERR on a request: it must not be acted on
    ├── DiscoveryError
    │   ├── AnnouncementError         one record; `.reason` is a metric label
    │   └── AuthorizedServicesError
    ├── TicketError
    │   ├── TicketMalformed
    │   ├── TicketBadSignature
    │   ├── TicketExpired
    │   └── TicketNotYetValid
    ├── AuthorizationError
    │   ├── MissingPrivilege
    │   ├── UnconfiguredAction
    │   └── AuthzTableUnavailable
    └── ConfigError

Fields come first, the text is made in ``__str__``, so that callers never parse messages. Every
error can be copied and pickled, and keeps its fields: pools of processes send them home.
"""

from __future__ import annotations

from copy import copy
from typing import Any


class ScampError(Exception):
    """Base of everything below.

    Those that `Requester.send` raises also tell how often the request was tried, and on which
    instance last (``host:port``).
    """

    attempts: int | None = None
    instance: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are made again from `args`, which are not what every `__init__` here takes.
        return _made_again, (type(self), self.args), self.__dict__ or None


def anew(error: ScampError) -> ScampError:
    """The same error for one more who is told. Who keeps an error raises it so: what is raised has
    the frames through which it went, and all that lived in them, bodies too."""
    return copy(error)


def _made_again(kind: type[ScampError], args: tuple[Any, ...]) -> ScampError:
    error = kind.__new__(kind)
    error.args = args
    return error


# -- protocol ---------------------------------------------------------------------------


class ProtocolError(ScampError):
    """The rules of SCAMP were broken; `reason` says by what."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """Our own side asked for something that must not be sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that it must not send. Fatal for the connection."""


# -- transport --------------------------------------------------------------------------


class TransportError(ScampError):
    """A connection could not be made or did not last."""


class ConnectFailed(TransportError):
    """No connection was made; not one byte of a request was written."""

    def __init__(self, address: str, reason: str) -> None:
        Exception.__init__(self, address, reason)  # not super(): ConnectTimeout is a mixture
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot connect to {self.address}: {self.reason}"


class FingerprintMismatch(ConnectFailed):
    """The peer's certificate is not the one that signed the announcement."""

    def __init__(self, address: str, expected: str, actual: str) -> None:
        super().__init__(address, f"certificate {actual or 'missing'}, announced {expected}")
        self.expected = expected
        self.actual = actual


class ConnectionLost(TransportError):
    """The connection ended while the exchange was under way.

    `written` is False when not one byte of the request had been handed to the socket: then it
    cannot have been executed and may go elsewhere.
    """

    def __init__(self, address: str, reason: str, *, written: bool) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason
        self.written = written

    def __str__(self) -> str:
        when = "after the request was written" if self.written else "before anything was sent"
        return f"connection to {self.address} lost {when}: {self.reason}"


# -- time -------------------------------------------------------------------------------


class ScampTimeout(ScampError, TimeoutError):
    """Something took longer than it was allowed. `seconds` is the limit that ran out."""

    what = "timed out"

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.what} after {self.seconds:g} s"


class ConnectTimeout(ConnectFailed, ScampTimeout):
    """TCP or TLS did not finish in time. Nothing was sent."""

    def __init__(self, address: str, seconds: float) -> None:
        ConnectFailed.__init__(self, address, f"no answer within {seconds:g} s")
        self.seconds = seconds

    def __str__(self) -> str:
        return ConnectFailed.__str__(self)


class QueueTimeout(ScampTimeout):
    """The deadline passed while waiting for a connection. Nothing was sent."""

    what = "no connection came free; gave up"


class ReplyTimeout(ScampTimeout):
    """The request was sent and no reply came in time. It may have been executed."""

    what = "no reply; gave up"


class IdleTimeout(ScampTimeout):
    """A body stopped moving for longer than the idle limit."""

    what = "the body stopped moving; gave up"


# -- routing ----------------------------------------------------------------------------


class RoutingError(ScampError):
    """There is nowhere to send the request. Nothing was sent."""


class UnknownAction(RoutingError):
    """A fresh index does not have the action."""

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return f"no service announces {self.action}"


class UnknownService(RoutingError):
    """No service of this name is announced."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.service = service

    def __str__(self) -> str:
        return f"no service is announced as {self.service}"


class EnvelopeNotOffered(RoutingError):
    """The action exists, but no instance takes this envelope."""

    def __init__(self, action: str, envelope: str, offered: tuple[str, ...]) -> None:
        super().__init__(action, envelope, offered)
        self.action = action
        self.envelope = envelope
        self.offered = offered

    def __str__(self) -> str:
        return (
            f"{self.action} does not take envelope {self.envelope!r}; "
            f"it takes {', '.join(self.offered) or 'none'}"
        )


class DiscoveryUnavailable(RoutingError):
    """The index is missing or stale, so nobody can say whether the action exists."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoUsableInstance(RoutingError):
    """Instances are known, and every one is out. `retry_after` is in seconds."""

    def __init__(self, action: str, retry_after: float) -> None:
        super().__init__(action, retry_after)
        self.action = action
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"no usable instance of {self.action}; next attempt in {self.retry_after:.1f} s"


class Saturated(RoutingError):
    """A queue or in-flight limit is reached. `limit` says which in words for people.

    `reason` does for metrics: ``instance`` (requests in flight there), ``queue_full`` or
    ``queue_delay`` (those that wait for a connection to it).
    """

    def __init__(self, limit: str, retry_after: float = 1.0, *, reason: str = "queue_full") -> None:
        super().__init__(limit, retry_after)
        self.limit = limit
        self.retry_after = retry_after
        self.reason = reason

    def __str__(self) -> str:
        return f"limit reached: {self.limit}"


# -- replies ----------------------------------------------------------------------------


class ReplyError(ScampError):
    """A reply came, and it is not a success."""


class ServiceError(ReplyError):
    """The service's own error: raised by clients on such a reply, and by handlers to make one.

    `code` is a short machine-readable word (`error_code` on the wire, may be empty), `message`
    the sentence (`error`), `data` a JSON object or None (`error_data`).
    """

    def __init__(self, code: str, message: str = "", data: dict[str, Any] | None = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return (
            f"{self.code}: {self.message}"
            if self.code and self.message
            else (self.message or self.code)
        )


class DispatchFailed(ReplyError):
    """The reply carries ``{"dispatch_failure": true}``: the request reached no service."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ReplyFailed(ReplyError):
    """The reply ended with TXERR. What arrived of it is not an answer. `text` is the peer's."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"the service broke off its reply: {self.text}"


class SubscriptionRefused(ScampError):
    """The service at `address` does not want the subscription, or does no subscriptions at all."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"no subscription at {self.address}: {self.reason}"


class RequestAborted(ScampError):
    """The caller gave its request up with TXERR: what arrived of it must not be acted on."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"the caller broke off its request: {self.text}"


# -- discovery --------------------------------------------------------------------------


class DiscoveryError(ScampError):
    """What was announced cannot be used."""


class AnnouncementError(DiscoveryError):
    """One announcement is refused; it never costs another.

    `reason` is one of a small fixed set of words (``malformed``, ``signature``, ``certificate``,
    ``replay``, ``version``, ``limit`` …) and serves as a metric label; `detail` is for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class AuthorizedServicesError(DiscoveryError):
    """The authorized_services file cannot be used; `line` is 1-based, 0 for the whole file."""

    def __init__(self, path: str, line: int, detail: str) -> None:
        super().__init__(path, line, detail)
        self.path = path
        self.line = line
        self.detail = detail

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.detail}"


# -- tickets and privileges -------------------------------------------------------------


class TicketError(ScampError):
    """The ticket is no good. The class tells how far verification got.

    Never carries the ticket itself: it would end in a log.
    """

    reason = "invalid"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TicketMalformed(TicketError):
    """Not a ticket at all."""

    reason = "malformed"


class TicketBadSignature(TicketError):
    """Well formed, and signed by none of the keys."""

    reason = "bad_signature"


class TicketExpired(TicketError):
    """Rightly signed, and its time is over."""

    reason = "expired"


class TicketNotYetValid(TicketError):
    """Rightly signed, and its time has not begun."""

    reason = "not_yet_valid"


class AuthorizationError(ScampError):
    """The ticket is good, and it does not permit this. `action` is the announced spelling."""

    def __init__(self, action: str, detail: str) -> None:
        super().__init__(action, detail)
        self.action = action
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class MissingPrivilege(AuthorizationError):
    """One privilege that the action needs is not in the ticket."""

    def __init__(self, action: str, privilege: int, name: str) -> None:
        super().__init__(action, f"{action} requires privilege {name}")
        self.privilege = privilege
        self.name = name


class UnconfiguredAction(AuthorizationError):
    """The privilege table does not list the action, so nobody may call it."""

    def __init__(self, action: str) -> None:
        super().__init__(action, f"{action} is not in the privilege table (unconfigured)")


class AuthzTableUnavailable(AuthorizationError):
    """No table, or it is older than the grace allows: nothing protected may be called."""

    def __init__(self, action: str, reason: str, retry_after: float = 5.0) -> None:
        super().__init__(action, f"the privilege table is not available: {reason}")
        self.reason = reason
        self.retry_after = retry_after


# -- configuration ----------------------------------------------------------------------


class ConfigError(ScampError):
    """A configuration cannot be used; the text says where and what to do."""
