"""Helpers for tests of services and clients. Nothing here is meant for production.

`make_identity` gives keys; `TestPeer`, `channel_pair` and `raw_pair` are raw ends of connections;
`ScriptedPeer` is a service that misbehaves as told by `Manners` and a script of
`scamp.testing.scripts`; `Mesh` joins such services to a `Requester`.
"""

from scamp.testing.ends import (
    ChannelPair,
    RawPair,
    TestPeer,
    channel_pair,
    channel_server,
    dial,
    raw_pair,
    until,
)
from scamp.testing.identity import TestIdentity, make_identity
from scamp.testing.manners import ECHOING, GO, Manners
from scamp.testing.mesh import Mesh
from scamp.testing.peer import (
    AtHeader,
    PeerConnection,
    PeerReply,
    PeerRequest,
    Script,
    ScriptedPeer,
)

__all__ = [
    "ECHOING",
    "GO",
    "AtHeader",
    "ChannelPair",
    "Manners",
    "Mesh",
    "PeerConnection",
    "PeerReply",
    "PeerRequest",
    "RawPair",
    "Script",
    "ScriptedPeer",
    "TestIdentity",
    "TestPeer",
    "channel_pair",
    "channel_server",
    "dial",
    "make_identity",
    "raw_pair",
    "until",
]
