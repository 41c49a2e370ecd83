"""What strangers send without number is remembered within limits; see also tests/soak/abuse.py."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from ipaddress import ip_network

import pytest

from fronted import Fronted, Wire
from gateway import translate
from gateway.auth import Authenticator
from gateway.context import MAX_PEERS, ClientAddresses
from gateway.front import FrontOptions
from gateway.routing import MAX_KNOWN_PATHS
from scamp.authz import AuthzSource
from scamp.errors import TicketError
from scamp.testing import ScriptedPeer, make_authz_table, make_ticket, make_verifier

MANY = 20_000
REQUESTS = 1_500
PIPELINED = 25


def test_tickets_without_number_leave_nothing() -> None:
    verifier = make_verifier()
    good = make_ticket()
    signed, _, signature = good.rpartition(",")
    fields = signed.split(",")
    for number in range(MANY):
        fields[1] = str(number + 10**9)
        for text in (f"{','.join(fields)},{signature}", f"{number}"):
            with pytest.raises(TicketError):
                verifier.verify(text, 0.0)
    assert len(verifier) == 0


def test_peers_and_hosts_without_number_are_remembered_up_to_a_limit() -> None:
    addresses = ClientAddresses([ip_network("10.0.0.0/8")])
    for number in range(MANY):
        addresses.client(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", ["192.0.2.1"])
        translate.check_host(f"h{number}.example", "/")
    assert len(addresses._peers) <= MAX_PEERS


async def test_strange_requests_without_number_leave_nothing() -> None:
    """Each with a path, query, host, id, origin, ticket, type and trace of its own."""

    async def table() -> bytes:
        return make_authz_table({"test.echo": [1]})

    random.seed(1)
    authz = AuthzSource(table)
    auth = Authenticator("enforce", make_verifier(), authz)
    async with Fronted(
        ScriptedPeer(flags="read"), auth=auth, options=FrontOptions(server_timing=True)
    ) as gateway:
        wire = await gateway.connect()
        sizes: list[int] = []
        for _ in range(2):
            for _ in range(REQUESTS // PIPELINED):
                for _ in range(PIPELINED):
                    send_strange(wire)
                for _ in range(PIPELINED):
                    assert (await wire.answer()).status in (401, 404, 405)
            gateway.log.lines.clear()
            await asyncio.sleep(0)
            gc.collect()
            sizes.append(sys.getallocatedblocks())
        assert sizes[1] - sizes[0] < REQUESTS / 3, "something is kept of each request"
        assert len(gateway.front.routing._known) <= MAX_KNOWN_PATHS
        assert auth.verifier is not None
        assert len(auth.verifier) == 0
        assert gateway.scrape().count("\n") < 1000
    await authz.close()


def send_strange(wire: Wire) -> None:
    some = f"{random.getrandbits(96):024x}"
    path = random.choice(  # noqa: S311
        (
            f"/api/Test.echo?{some}=1",
            f"/api/Test.{some}",
            f"/api/{some}:Test.echo",
            f"/{some}",
            f"/api/events/{some}?code={some}",
        )
    )
    wire.send(
        "POST",
        path,
        [
            ("X-SCAMP-Ticket", some),
            ("X-Request-ID", some),
            ("Origin", f"https://{some}.example"),
            ("X-Forwarded-For", f"2001:db8:{some[:4]}::1"),
            ("Content-Type", f"application/vnd.scamp.{some}"),
            ("traceparent", f"00-{some}{some[:8]}-{some[:16]}-01"),
        ],
        b"{}",
    )
