"""SCAMP over asyncio and TLS, the same for both roles: contexts, channels, messages."""

from scamp.transport.channel import Channel, ChannelHandler
from scamp.transport.message import IncomingMessage, OutgoingMessage
from scamp.transport.tls import client_context, peer_fingerprint, server_context

__all__ = [
    "Channel",
    "ChannelHandler",
    "IncomingMessage",
    "OutgoingMessage",
    "client_context",
    "peer_fingerprint",
    "server_context",
]
