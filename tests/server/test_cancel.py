"""A handler that is cancelled wherever it can be suspended: the service remembers nothing of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Final, Literal

import pytest
from emptied import assert_tables_empty, quiet
from stepping import How, Stepped, every_step

from scamp.authz import AuthzSource
from scamp.client import ClientOptions
from scamp.errors import ScampError
from scamp.server import Request, Service
from scamp.server.connection import Exchange
from scamp.testing import Mesh, make_identity, make_ticket, make_verifier, until

End = Literal["stopping", "result", "left"]
"""``stopping``: the service cancels; ``result``: in the turn in which there is what it waits for;
``left``: the connection is lost."""

LARGE: Final = bytes(140_000)
TICKET: Final = make_ticket(privileges=[1])
OPTIONS: Final = ClientOptions(retries=0, body_idle=5)


class Stand:
    """A service with an action for each way to be busy."""

    def __init__(self) -> None:
        identity = make_identity()
        self.open_streams = 0
        self.cleaned = 0
        self.authz = AuthzSource(self._table)
        self.service = service = Service(
            "busy",
            key=identity.key,
            certificate=identity.certificate,
            ticket_verifier=make_verifier(),
            require_tickets=True,
            authz=self.authz,
            queue_depth=False,
            documentation=False,
        )
        for name in ("echo", "stream", "tidy", "fail"):
            service.action(f"T.{name}", flags="noauth")(getattr(self, f"_{name}"))
        service.action("T.guarded")(self._echo)

    async def _table(self) -> bytes:
        await asyncio.sleep(0)
        return b'{"t.guarded": [1]}'

    async def _echo(self, request: Request) -> object:
        return await request.read_all()

    async def _stream(self, request: Request) -> object:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        self.open_streams += 1
        try:
            for _ in range(4):
                await asyncio.sleep(0)
                yield LARGE[:30_000]
        finally:
            self.open_streams -= 1
            await asyncio.sleep(0)

    async def _tidy(self, request: Request) -> object:
        """Clean-up that waits is not disturbed."""
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            self.cleaned += 1
            await asyncio.sleep(0)
        return {}

    async def _fail(self, request: Request) -> object:
        await asyncio.sleep(0)
        raise ScampError


CASES: Final[dict[str, tuple[int, bytes]]] = {
    "echo": (1, LARGE),
    "stream": (5, b"{}"),
    "tidy": (4, b"{}"),
    "fail": (1, b"{}"),
    "guarded": (1, b"[1]"),
}


def step_by_step(stepped: Stepped, end: End) -> type[Exchange]:
    """Exchanges of which the first is run so."""
    ran: list[Exchange] = []

    class Handled(Exchange):
        async def _run(self) -> None:
            if ran:
                await super()._run()
                return
            ran.append(self)
            if end == "left":
                stepped.cancel = partial(self._channel.abort, "gone")
            elif end == "stopping":
                stepped.cancel = self.cancel
            await stepped(super()._run())

    return Handled


@pytest.mark.parametrize("end", ["stopping", "result", "left"])
@pytest.mark.parametrize("name", CASES)
async def test_cancelled_at_every_suspension(
    name: str, end: End, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    at_least, body = CASES[name]
    how: How = "resumed" if end == "result" else "waiting"
    async for stepped in every_step(how, at_least=at_least):
        monkeypatch.setattr("scamp.server.connection.Exchange", step_by_step(stepped, end))
        stand = Stand()
        await stand.service.start(port=0)
        try:
            async with Mesh(stand.service, options=OPTIONS) as mesh:
                with suppress(ScampError):
                    reply = await mesh.requester.request(f"T.{name}", body, ticket=TICKET)
                    await reply.read_all()
                await until(lambda stand=stand: not stand.service.in_flight)  # type: ignore[misc]
                assert stand.open_streams == 0
                assert stand.cleaned == (name == "tidy")
                again = await mesh.requester.request("T.echo", b"[2]")
                assert await again.read_all() == b"[2]"
                await until(lambda mesh=mesh: quiet(mesh))  # type: ignore[misc]
                assert_tables_empty(mesh)
                assert stand.service.in_flight == 0
        finally:
            await stand.service.stop(grace=0)
            await stand.authz.close()
        assert stand.service.connections == 0
    assert not [one for one in caplog.records if one.levelno >= logging.CRITICAL]
