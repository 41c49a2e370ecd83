"""SCAMP over asyncio and TLS, the same for both roles: contexts, channels, messages."""

from scamp.transport.channel import Channel, ChannelHandler
from scamp.transport.message import IncomingMessage, OutgoingMessage, SentMessage
from scamp.transport.states import CHANNEL_TRANSITIONS, ChannelEvent, ChannelState
from scamp.transport.tls import (
    SESSIONS_LEAK,
    ResumingContext,
    client_context,
    offering,
    peer_fingerprint,
    resumable_session,
    server_context,
)
from scamp.transport.tuning import TcpTimes

__all__ = [
    "CHANNEL_TRANSITIONS",
    "SESSIONS_LEAK",
    "Channel",
    "ChannelEvent",
    "ChannelHandler",
    "ChannelState",
    "IncomingMessage",
    "OutgoingMessage",
    "ResumingContext",
    "SentMessage",
    "TcpTimes",
    "client_context",
    "offering",
    "peer_fingerprint",
    "resumable_session",
    "server_context",
]
