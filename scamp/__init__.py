"""SCAMP for Python: services and clients of a SCAMP mesh, over asyncio and TLS.

The names that most programs need are here; the rest is in the subpackages (`scamp.wire`,
`scamp.transport`, `scamp.discovery`, `scamp.client`, `scamp.server`, `scamp.testing`).
"""

from importlib.metadata import PackageNotFoundError, version

from scamp.client import Call, ClientOptions, Deadline, Reply, Requester
from scamp.discovery import CacheFollower, Registry
from scamp.errors import ScampError, ServiceError
from scamp.server import Request, Service
from scamp.tickets import Ticket, TicketVerifier

try:
    __version__ = version("scamp-gateway")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "CacheFollower",
    "Call",
    "ClientOptions",
    "Deadline",
    "Registry",
    "Reply",
    "Request",
    "Requester",
    "ScampError",
    "Service",
    "ServiceError",
    "Ticket",
    "TicketVerifier",
    "__version__",
]
