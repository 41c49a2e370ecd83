"""Helpers for tests of a gateway: a service in this event loop, and the files that lead to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from gateway.settings import Settings
from gateway.sources import Loaded
from scamp import keys
from scamp.discovery import write_cache
from scamp.server import Request, Service
from scamp.testing import make_identity
from scamp.tickets import TicketVerifier, issue_ticket

SERVICE_KEY: Final = 0
TICKET_KEY: Final = 1
OTHER_TICKET_KEY: Final = 2
"""Numbers of identities, see `make_identity`."""


class Stand:
    """One service over real TLS, with discovery files, keys and a table in one directory.

    ``Test.Gate.open`` (noauth,read) answers at once, ``Test.Gate.wait`` (noauth,read) when `gate`
    is set, ``Test.Gate.guarded`` (read) takes privilege 1, called ``gate_pass``.
    """

    def __init__(self, folder: Path) -> None:
        identity = make_identity(SERVICE_KEY)
        self.folder = folder
        self.gate = asyncio.Event()
        self.waiting = 0
        """Requests that stand at the gate."""
        self.service = service = Service(
            "stand",
            key=identity.key,
            certificate=identity.certificate,
            ticket_verifier=TicketVerifier(
                [
                    keys.load_public_key(make_identity(number).certificate)
                    for number in (TICKET_KEY, OTHER_TICKET_KEY)
                ]
            ),
            queue_depth=False,
            documentation=False,
        )
        service.action("Test.Gate.open", flags="noauth,read")(self._open)
        service.action("Test.Gate.wait", flags="noauth,read")(self._wait)
        service.action("Test.Gate.guarded", flags="read")(self._open)
        service.action("Auth.getAuthzTable", flags="noauth,read")(self._table)
        self.table: dict[str, Any] = {
            "test.gate.guarded": [1],
            "_NAMES": [None, "gate_pass"],
        }
        self.tables_given = 0
        """Requests for the table."""
        self.cache = folder / "cache"
        self.authorized = folder / "authorized"
        self.ticket_key = folder / "ticket.pem"
        self.authorized.write_text(f"{identity.fingerprint} main:ALL\n")
        self.use_ticket_key(TICKET_KEY)

    async def _open(self, request: Request) -> object:
        return {"open": True}

    async def _wait(self, request: Request) -> object:
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return {"waited": True}

    async def _table(self, request: Request) -> object:
        self.tables_given += 1
        return self.table

    def announce(self) -> None:
        """Write the discovery cache with the service's record as of now."""
        write_cache(self.cache, [self.service.announcement()])

    def use_ticket_key(self, number: int) -> None:
        """Put another key where the gateway looks for it."""
        fresh = self.ticket_key.with_suffix(".new")
        fresh.write_bytes(keys.public_key_pem(make_identity(number).key))
        fresh.replace(self.ticket_key)

    def ticket(self, privileges: Iterable[int] = (1,), *, key: int = TICKET_KEY) -> dict[str, str]:
        """A header with a ticket that is valid for an hour."""
        text = issue_ticket(
            keys.load_private_key(make_identity(key).key),
            user_id=7,
            client_id=9,
            privileges=privileges,
            start=int(time.time()) - 1,
            length=3600,
        )
        return {"Authorization": f"Bearer {text}"}

    def write_table(self) -> Path:
        """The table as a file."""
        path = self.folder / "table.json"
        path.write_text(json.dumps(self.table))
        return path

    def loaded(self, **settings: Any) -> Loaded:
        """Settings of a gateway for this stand, on free ports, without an access log and without
        a drain delay; `settings` go over them."""
        given: dict[str, Any] = {
            "bind": "127.0.0.1:0",
            "admin_bind": "127.0.0.1:0",
            "discovery_cache": self.cache,
            "authorized_services": self.authorized,
            "ticket_keys": (self.ticket_key,),
            "discovery_poll_interval": 0.05,
            "access_log": "off",
            "drain_delay": 0,
            **settings,
        }
        return Loaded(Settings(**given), dict.fromkeys(settings, "test"))


async def eventually(ask: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> None:
    """Ask again and again until the answer is yes. Raises TimeoutError after `timeout` seconds.

    For what only a request can tell; where a condition can be looked at, use `until`.
    """
    async with asyncio.timeout(timeout):
        while not await ask():  # noqa: ASYNC110 - another process or socket has no event for us
            await asyncio.sleep(0.005)


@asynccontextmanager
async def stand(folder: Path) -> AsyncIterator[Stand]:
    """A `Stand` whose service runs; announced, and stopped at the end."""
    made = Stand(folder)
    await made.service.start(port=0)
    try:
        made.announce()
        yield made
    finally:
        made.gate.set()
        await made.service.stop(grace=1)
