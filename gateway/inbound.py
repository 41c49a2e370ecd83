"""From what the client sends to what the service gets: the body of the call and its envelope."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway import catalogue
from gateway.body import RequestBody
from gateway.head import single
from gateway.problems import Problem, quotable
from gateway.routes.compose import compose, members_of, passes_through
from gateway.routes.match import Match
from gateway.translate import (
    JSON,
    Announced,
    MediaTypes,
    content_type_of,
    envelope_named,
    envelope_of,
    media_type_of,
    query_object,
)
from gateway.unpacking import unpacker_of
from scamp.client import Deadline

if TYPE_CHECKING:
    from gateway.exchange import Exchange

CONTENT_TYPE_FIELD: Final = "content_type"
"""HEADER field with the caller's whole Content-Type, where that says more than the envelope."""

MAX_CONTENT_TYPE: Final = 256
"""Characters of it; a multipart boundary has 70 at most."""

_NO_FIELDS: Final[Mapping[str, str]] = {}


@dataclass(slots=True)
class Inbound:
    """What a request comes to. `upload` is its body while that is to be streamed."""

    body: bytes | AsyncIterator[bytes]
    envelope: str = JSON
    upload: RequestBody | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    """For the HEADER."""


class Intake:
    """Reads requests; one for all of a front."""

    __slots__ = ("_decompress", "_idle", "_limit", "_mapped_limit", "_media_types")

    def __init__(
        self,
        *,
        limit: int | None,
        mapped_limit: int,
        idle: float,
        media_types: MediaTypes,
        decompress: bool = True,
    ) -> None:
        """`limit`: bytes of a body, of one that is put together with others `mapped_limit`.
        `idle`: seconds between two pieces of it. `decompress`: unpack what comes compressed, else
        refuse it."""
        self._limit = limit
        self._mapped_limit = mapped_limit
        self._idle = idle
        self._media_types = media_types
        self._decompress = decompress

    async def take(
        self,
        exchange: Exchange,
        action: Announced,
        match: Match | None,
        query: str,
        deadline: Deadline,
    ) -> Inbound:
        """Read as much as there has to be before the call. Safe to cancel.

        Raises Problem for whatever is wrong with body, query or content type, and ConnectionError.
        """
        if match is not None:
            return await self._routed(exchange, action, match, query, deadline)
        if exchange.method in ("GET", "HEAD"):
            refuse_body(exchange)
            return Inbound(query_object(query), envelope_of(None, action))
        inbound = self._opened(exchange, action)
        await self._collect(inbound, deadline)
        if not inbound.body and inbound.envelope.lower() == JSON:
            inbound.body = query_object(query) if exchange.method == "DELETE" else b"{}"
        return inbound

    def _opened(self, exchange: Exchange, action: Announced) -> Inbound:
        """The body by its Content-Type, before a byte of it is read."""
        content_type = self._content_type(exchange)
        envelope = envelope_of(content_type, action, self._media_types)
        fields = _NO_FIELDS
        if content_type is not None and media_type_of(content_type) in self._media_types:
            fields = _content_type_field(content_type)
        return Inbound(b"", envelope, self._upload(exchange), fields)

    def _content_type(self, exchange: Exchange) -> str | None:
        """What the body is said to be. Of no body it says nothing, unless it names an envelope:
        clients send one with whatever they send (aiohttp: application/octet-stream)."""
        content_type = _content_type(exchange)
        if content_type is None or exchange.request.body_exists:
            return content_type
        known = envelope_named(media_type_of(content_type), self._media_types) is not None
        return content_type if known else None

    def _upload(self, exchange: Exchange) -> RequestBody:
        headers, unpacker = exchange.request.headers, None
        if "Content-Encoding" in headers and exchange.request.body_exists:
            unpacker = unpacker_of(headers, enabled=self._decompress)
        return RequestBody(exchange, limit=self._limit, idle=self._idle, unpacker=unpacker)

    @staticmethod
    async def _collect(inbound: Inbound, deadline: Deadline) -> None:
        assert inbound.upload is not None  # noqa: S101 - opened
        inbound.body = await inbound.upload.collect(deadline)
        if isinstance(inbound.body, bytes):
            inbound.upload = None

    # -- routes -------------------------------------------------------------------------

    async def _routed(
        self,
        exchange: Exchange,
        action: Announced,
        match: Match,
        query: str,
        deadline: Deadline,
    ) -> Inbound:
        route = match.route
        if route.body is None:
            refuse_body(exchange)
            envelope = envelope_of(None, action)
            return Inbound(compose(route, members_of(route, match.values, query), b""), envelope)
        if route.consumes or route.envelope is not None:
            inbound = self._as_routed(exchange, action, match)
        else:
            inbound = self._opened(exchange, action)
        if passes_through(route):
            await self._collect(inbound, deadline)
            if not inbound.body and inbound.envelope.lower() == JSON:
                inbound.body = b"{}"
            return inbound
        if inbound.envelope.lower() != JSON:
            raise Problem(
                catalogue.UNSUPPORTED_ENVELOPE,
                "The route puts the body together with parts of the URL, so it takes JSON only.",
                action=action.label,
                headers=(("Accept", "application/json"),),
            )
        members = members_of(route, match.values, query)
        assert inbound.upload is not None  # noqa: S101 - opened
        held = await inbound.upload.hold(deadline, self._mapped_limit)
        inbound.body, inbound.upload = compose(route, members, held), None
        return inbound

    def _as_routed(self, exchange: Exchange, action: Announced, match: Match) -> Inbound:
        """The route says what the body may be, and by which envelope it goes."""
        route = match.route
        wanted = (route.envelope or JSON).lower()
        accepted = route.consumes
        content_type = (_content_type(exchange) if accepted else self._content_type(exchange)) or ""
        media_type = media_type_of(content_type)
        if accepted:
            fits = any(_within(media_type, one) for one in accepted)
        else:
            accepted = self._types_of(wanted)
            fits = not media_type or envelope_named(media_type, self._media_types) == wanted
        if not fits:
            raise Problem(
                catalogue.UNSUPPORTED_ENVELOPE,
                f"Content-Type {quotable(media_type[:100]) or 'none'} is not among what the route "
                f"takes: {', '.join(accepted)}.",
                action=action.label,
                headers=(("Accept", ", ".join(accepted)),),
            )
        envelope = next((one for one in action.envelopes if one.lower() == wanted), None)
        if envelope is None:
            raise Problem(
                catalogue.UNSUPPORTED_ENVELOPE,
                f"The route calls {action.label} by envelope {wanted}, which is not announced.",
                action=action.label,
            )
        fields = _content_type_field(content_type) if content_type else _NO_FIELDS
        return Inbound(b"", envelope, self._upload(exchange), fields)

    def _types_of(self, envelope: str) -> tuple[str, ...]:
        also = (one for one, name in self._media_types.items() if name.lower() == envelope)
        return (content_type_of(envelope), *also)


def _content_type(exchange: Exchange) -> str | None:
    headers = exchange.request.headers
    return single(headers, "Content-Type") if "Content-Type" in headers else None


def refuse_body(exchange: Exchange) -> None:
    """Raise Problem (bad_framing) when the request has a body, or may come to have one."""
    request = exchange.request
    if request.body_exists:  # also one of chunks with nothing in them, which may yet have something
        raise Problem(
            catalogue.BAD_FRAMING,
            f"{request.method} takes its parameters from the URL here; a body has no place.",
        )


def _within(media_type: str, wanted: str) -> bool:
    return media_type == wanted or (wanted.endswith("/*") and media_type.startswith(wanted[:-1]))


def _content_type_field(content_type: str) -> Mapping[str, str]:
    if len(content_type) > MAX_CONTENT_TYPE or not content_type.isascii():
        raise Problem(
            catalogue.BAD_HEADER,
            f"Content-Type has at most {MAX_CONTENT_TYPE} ASCII characters here.",
        )
    return {CONTENT_TYPE_FIELD: content_type}
