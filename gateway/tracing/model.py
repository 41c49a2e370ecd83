"""What serves a request knows of traces: this, or None where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from scamp.client import CallTrace, Reply

if TYPE_CHECKING:
    from gateway.exchange import Exchange


class RequestTrace(Protocol):
    """One request's part in its trace."""

    @property
    def fields(self) -> Mapping[str, str]:
        """HEADER fields for the service, besides those that `call` adds to each attempt."""
        ...

    @property
    def call(self) -> CallTrace | None:
        """Who is to follow the call; None when nobody has to, as the trace is not sampled."""
        ...

    def replied(self, reply: Reply) -> None:
        """The reply has been passed on, or the rest of it is not wanted."""
        ...

    def end(self, exchange: Exchange) -> None:
        """The request is over, and `exchange` says how. To be called once."""
        ...


class Tracing(Protocol):
    """Begins the traces of requests, or goes on with those of callers."""

    def begin(self, exchange: Exchange) -> RequestTrace:
        """For a request whose head is here. Notes the id of its trace in `exchange`."""
        ...
