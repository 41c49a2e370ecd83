"""Being a service: register actions, listen, answer, announce, leave.

::

    service = Service("shop", key=key_pem, certificate=certificate_pem, ticket_verifier=verifier)

    @service.action("Product.Sku.fetch", flags="read,t30")
    async def fetch(request: Request) -> object:
        return {"sku": (await request.json())["sku"]}

    asyncio.run(service.run())
"""

from scamp.errors import RequestAborted, ServiceError
from scamp.server.actions import Handler
from scamp.server.connection import VerifiesTickets
from scamp.server.request import Request
from scamp.server.runner import run_service
from scamp.server.service import Service

__all__ = [
    "Handler",
    "Request",
    "RequestAborted",
    "Service",
    "ServiceError",
    "VerifiesTickets",
    "run_service",
]
