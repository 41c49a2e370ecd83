"""However an exchange ends, neither side remembers it: any mix of endings leaves empty tables.

A `Requester` and a `Service` over real TLS. That a leak would be seen is shown by the last test.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import pytest

from scamp.client import ClientOptions, Requester, health
from scamp.client.connection import ClientConnection
from scamp.client.exchange import Exchange
from scamp.client.instance import Instance
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    EnvelopeNotOffered,
    LocalProtocolError,
    NoUsableInstance,
    QueueTimeout,
    ReplyFailed,
    ReplyTimeout,
    ScampError,
    ServiceError,
)
from scamp.server import Request, Service
from scamp.server.connection import ServerConnection
from scamp.server.traffic import Traffic
from scamp.testing import Mesh, make_identity, until
from scamp.transport import Channel, ChannelState, OutgoingMessage

EXCHANGES: Final = 160
CALLERS: Final = 12
LARGE: Final = 200_000
"""Bytes of a body that streams: some windows."""
SHORT: Final = 0.03
"""Seconds."""


class Given(Exception):
    """What a body's source raises."""


@dataclass
class Stand:
    """Both sides of a mesh, and every channel that was ever open between them."""

    mesh: Mesh
    service: Service
    channels: list[Channel]
    rng: random.Random
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """What the action ``T.wait`` waits for."""

    @property
    def requester(self) -> Requester:
        return self.mesh.requester


# -- the service --------------------------------------------------------------------------


def add_actions(service: Service, go_on: asyncio.Event) -> None:
    @service.action("T.echo")
    async def echo(request: Request) -> object:
        return await request.read_all()

    @service.action("T.refuse")
    async def refuse(request: Request) -> object:
        raise ServiceError("no", "not today")

    @service.action("T.early")
    async def early(request: Request) -> object:
        return b"without having read anything"

    @service.action("T.wait")
    async def wait(request: Request) -> object:
        await go_on.wait()
        return b"at last"

    @service.action("T.stream")
    async def stream(request: Request) -> object:
        return pieces(LARGE)

    @service.action("T.break")
    async def break_off(request: Request) -> object:
        return pieces(LARGE, fails=True)


async def pieces(size: int, *, fails: bool = False) -> AsyncIterator[bytes]:
    """A body, or half of one."""
    for _ in range(size // 20_000 // (2 if fails else 1)):
        yield bytes(20_000)
        await asyncio.sleep(0)
    if fails:
        raise Given


# -- how exchanges end --------------------------------------------------------------------

Ending = Callable[[Stand], Awaitable[object]]


async def finished(stand: Stand) -> None:
    reply = await stand.requester.request("T.echo", b"[1]")
    assert await reply.read_all() == b"[1]"


async def finished_large(stand: Stand) -> None:
    reply = await stand.requester.request("T.echo", bytes(LARGE))
    assert len(await reply.read_all()) == LARGE


async def finished_upload(stand: Stand) -> None:
    reply = await stand.requester.request("T.echo", pieces(LARGE))
    assert len(await reply.read_all()) == LARGE


async def refused(stand: Stand) -> None:
    with pytest.raises(ServiceError):
        await stand.requester.request("T.refuse")


async def broken_off(stand: Stand) -> None:
    """TXERR in the middle of the reply."""
    reply = await stand.requester.request("T.break")
    with pytest.raises(ReplyFailed):
        await reply.read_all()


async def abandoned_before_header(stand: Stand) -> None:
    await cancelled_after(SHORT, stand.requester.request("T.wait"))


async def abandoned_within(stand: Stand) -> None:
    reply = await stand.requester.request("T.stream")
    await reply.read()
    reply.abandon()


async def too_long(stand: Stand) -> None:
    reply = await stand.requester.request("T.stream")
    with pytest.raises(LocalProtocolError):
        await reply.read_all(10)


async def timed_out(stand: Stand) -> None:
    with pytest.raises(ReplyTimeout):
        await stand.requester.request("T.wait", timeout=10 * SHORT)


async def upload_given_up(stand: Stand) -> None:
    with pytest.raises(Given):
        await stand.requester.request("T.echo", pieces(LARGE, fails=True))


async def upload_cancelled(stand: Stand) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.Event().wait()

    await cancelled_after(SHORT, stand.requester.request("T.echo", stuck()))


async def answered_early(stand: Stand) -> None:
    reply = await stand.requester.request("T.early", pieces(10 * LARGE))
    assert await reply.read_all() == b"without having read anything"


async def cancelled_anywhere(stand: Stand) -> None:
    work = stand.rng.choice([finished, finished_large, finished_upload, broken_off])
    await cancelled_after(stand.rng.uniform(0, SHORT), work(stand))


async def not_to_be_sent(stand: Stand) -> None:
    with pytest.raises(LocalProtocolError):
        await stand.requester.request("T.echo", client_id=-1)
    with pytest.raises(EnvelopeNotOffered):
        await stand.requester.request("T.echo", envelope="extdirect")


async def killed(stand: Stand) -> None:
    """The connection is cut, with whatever else is on it."""
    alive = [one for one in stand.channels if one.state is ChannelState.OPEN]
    if alive:
        stand.rng.choice(alive).abort("killed by the test")


ENDINGS: Final[dict[str, Ending]] = {
    work.__name__: work
    for work in (
        finished,
        finished_large,
        finished_upload,
        refused,
        broken_off,
        abandoned_before_header,
        abandoned_within,
        too_long,
        timed_out,
        upload_given_up,
        upload_cancelled,
        answered_early,
        cancelled_anywhere,
        not_to_be_sent,
        killed,
    )
}


async def cancelled_after(seconds: float, work: Awaitable[object]) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.wait((task,), timeout=seconds)
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


# -- the mix ------------------------------------------------------------------------------


@asynccontextmanager
async def standing(monkeypatch: pytest.MonkeyPatch, seed: int) -> AsyncIterator[Stand]:
    channels: list[Channel] = []
    made = Channel.connection_made

    def noted(self: Channel, transport: asyncio.BaseTransport) -> None:
        channels.append(self)
        made(self, transport)

    monkeypatch.setattr(Channel, "connection_made", noted)
    monkeypatch.setattr(health, "BACKOFF_FIRST", 0.001)  # an instance that lost some comes back
    identity = make_identity()
    service = Service(
        "t", key=identity.key, certificate=identity.certificate, require_tickets=False
    )
    go_on = asyncio.Event()
    add_actions(service, go_on)
    await service.start("127.0.0.1", 0)
    try:
        async with Mesh(service, options=ClientOptions(max_connections=8)) as mesh:
            rng = random.Random(seed)  # noqa: S311 - to be repeatable
            yield Stand(mesh, service, channels, rng, go_on)
    finally:
        await service.stop(0.0)


async def mix(stand: Stand, names: list[str]) -> Counter[str]:
    """Every ending of `names`, many at once; how many of each came out as they should.

    The others met a connection that another one had killed.
    """
    right: Counter[str] = Counter()
    waiting: Iterator[str] = iter(names)

    async def caller() -> None:
        for name in waiting:
            try:
                await ENDINGS[name](stand)
            except (ConnectFailed, ConnectionLost, NoUsableInstance, QueueTimeout):
                await asyncio.sleep(stand.rng.uniform(0, SHORT))
            else:
                right[name] += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return right


def drawn(stand: Stand) -> list[str]:
    names = list(ENDINGS) * 3
    return names + stand.rng.choices(list(ENDINGS), k=EXCHANGES - len(names))


async def leftovers(stand: Stand, patience: float = 5.0) -> dict[str, int]:
    """What either side still remembers when all is done and `patience` seconds have passed."""
    stand.go_on.set()  # nobody waits for these answers any more
    with suppress(TimeoutError):
        await until(lambda: not remembered(stand), patience)
    return remembered(stand)


def remembered(stand: Stand) -> dict[str, int]:
    """The size of every table that is not empty."""
    sizes = {
        "requests of callers": stand.mesh.in_flight,
        "uploads": len(stand.requester._uploads),
        "requests of the service": stand.service.in_flight,
    }
    for one in stand.requester._router._instances.values():
        sizes["dialling"] = one._pool.dialing
        for number, client in enumerate(one.connections):
            sizes[f"places of client {number}"] = client.in_flight
            sizes[f"abandoned at client {number}"] = client._unwanted
            sizes[f"without a reply at client {number}"] = len(client._exchanges)
    for number, server in enumerate(stand.service._traffic.connections):
        sizes[f"requests of server {number}"] = server.in_flight
        sizes[f"tasks of server {number}"] = len(server.tasks())
    for number, channel in enumerate(stand.channels):
        sizes[f"messages of channel {number}"] = channel.open_messages
        sizes[f"busy with at channel {number}"] = channel.busy
        sizes[f"pausing channel {number}"] = len(channel._paused_by)
        if channel.state is ChannelState.OPEN:
            wire = channel._wire
            sizes[f"coming in at channel {number}"] = wire.open_incoming
            sizes[f"going out at channel {number}"] = wire.open_outgoing
            sizes[f"bytes of headers at channel {number}"] = wire._header_bytes
    return {what: size for what, size in sizes.items() if size}


@pytest.mark.parametrize("seed", range(3))
async def test_any_mix_of_endings_leaves_empty_tables(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(monkeypatch, seed) as stand:
        names = drawn(stand)
        stand.rng.shuffle(names)
        right = await mix(stand, names)
        assert set(right) == set(ENDINGS), "each has come out as it should at least once"
        assert await leftovers(stand) == {}
        assert stand.requester.stats.stray_replies == 0
        await finished(stand)  # what is left can be used


# -- that the test above can fail ---------------------------------------------------------


def keep_failed_messages(self: Channel, msgno: int, error: ScampError | None) -> None:
    if error is None:
        finish_message(self, msgno, None)
    else:
        self._incoming[msgno].finish(error)


def keep_the_unwanted(self: ClientConnection, exchange: Exchange) -> None:
    if not exchange.unwanted:
        finish_exchange(self, exchange)


def keep_what_was_given_up(self: Channel, message: OutgoingMessage, text: str) -> None:
    if message.msgno in self._outgoing:
        self._wire.fail_message(message.msgno, text)
        self._schedule_flush()


def nothing(*_: object) -> None:
    """Clean nothing up."""


finish_message = Channel._finish
finish_exchange = ClientConnection._finish
BREAKS: Final = [
    (Channel, "_finish", keep_failed_messages),
    (Channel, "fail_message", keep_what_was_given_up),
    (ClientConnection, "_finish", keep_the_unwanted),
    (Instance, "release", nothing),
    (Traffic, "request_ended", nothing),
    (ServerConnection, "exchange_over", nothing),
]


@pytest.mark.parametrize(
    ("owner", "name", "broken"), BREAKS, ids=lambda value: getattr(value, "__name__", value)
)
async def test_a_clean_up_that_is_left_out_is_seen(
    owner: type, name: str, broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    async with standing(monkeypatch, 0) as stand:
        await mix(stand, [name for name in ENDINGS if name != "killed"])
        assert await leftovers(stand, patience=0.2)
