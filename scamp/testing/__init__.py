"""A mesh for the tests of services and clients. Nothing here is meant for production.

`MockMesh` has services that answer as a test says, a client, and a discovery cache file for code
in other processes; `ServiceHarness` runs a service under test in one. `make_ticket` signs tickets
that `make_verifier` accepts. `FaultProxy` is a bad network between a client and a service.
`scamp.testing.pytest_plugin` has fixtures. All of it over real sockets, TLS and signatures, and
gone at the end of the test.

For tests of SCAMP itself: `make_identity` gives keys; `TestPeer`, `channel_pair` and `raw_pair`
are raw ends of connections; `ScriptedPeer` is a service that misbehaves as told by `Manners` and a
script of `scamp.testing.scripts`; `Mesh` joins such services to a `Requester`.
"""

from scamp.testing.calls import MockCall, UnexpectedCall
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
from scamp.testing.fault_pipe import Link, Pipe
from scamp.testing.fault_proxy import Accepting, FaultProxy, Proxied, ProxyConnection
from scamp.testing.identity import TestIdentity, make_identity
from scamp.testing.manners import ECHOING, GO, Manners
from scamp.testing.mesh import Mesh
from scamp.testing.mock_mesh import MockMesh, ServiceHarness
from scamp.testing.mock_service import MockInstance, MockService
from scamp.testing.mocks import Answer, MockAction
from scamp.testing.peer import ScriptedPeer
from scamp.testing.peer_connection import (
    AtHeader,
    PeerConnection,
    PeerReply,
    PeerRequest,
    Script,
)
from scamp.testing.tickets import (
    make_authz_table,
    make_ticket,
    make_verifier,
    ticket_public_key,
)

__all__ = [
    "ECHOING",
    "GO",
    "Accepting",
    "Answer",
    "AtHeader",
    "ChannelPair",
    "FaultProxy",
    "Link",
    "Manners",
    "Mesh",
    "MockAction",
    "MockCall",
    "MockInstance",
    "MockMesh",
    "MockService",
    "PeerConnection",
    "PeerReply",
    "PeerRequest",
    "Pipe",
    "Proxied",
    "ProxyConnection",
    "RawPair",
    "Script",
    "ScriptedPeer",
    "ServiceHarness",
    "TestIdentity",
    "TestPeer",
    "UnexpectedCall",
    "channel_pair",
    "channel_server",
    "dial",
    "make_authz_table",
    "make_identity",
    "make_ticket",
    "make_verifier",
    "raw_pair",
    "ticket_public_key",
    "until",
]
