"""Being a service: register actions, listen, answer, announce, leave.

::

    service = Service("shop", key=key_pem, certificate=certificate_pem, ticket_verifier=verifier)

    @service.action("Product.Sku.fetch", flags="read,t30")
    async def fetch(request: Request) -> object:
        return {"sku": (await request.json())["sku"]}

    asyncio.run(service.run())
"""

from scamp.errors import RequestAborted, ServiceError
from scamp.server.connection import KnowsPrivileges, VerifiesTickets
from scamp.server.request import Request
from scamp.server.runner import run_service
from scamp.server.service import Service
from scamp.server.typed import Handler, TypedHandler

__all__ = [
    "Handler",
    "KnowsPrivileges",
    "Request",
    "RequestAborted",
    "Service",
    "ServiceError",
    "TypedHandler",
    "VerifiesTickets",
    "run_service",
]
