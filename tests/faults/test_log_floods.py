"""Peers that make us log: where nothing limits lines, and however long their texts are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from scamp import logs
from scamp.client import ClientOptions
from scamp.errors import ScampError
from scamp.limits import LOG_BURST
from scamp.server import Service
from scamp.testing import Mesh, PeerRequest, Script, ScriptedPeer, dial, make_identity, until
from scamp.testing.ends import forge_header
from scamp.testing.scripts import echo, raw
from scamp.wire import PacketType, ReplyHeader, RequestHeader, encode_packet

FLOOD = 2 * LOG_BURST
LONGEST = 512
"""Characters of a line; what is a peer's own in it has far fewer."""
HUGE = "x\n\x1b[31m" * 10_000


def kept(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What a program gets that has nothing but the standard library's own set-up."""
    found = [record for record in caplog.records if record.name.startswith("scamp.")]
    for record in found:
        line = record.getMessage()
        assert len(line) <= LONGEST, line[:LONGEST]
        assert "\n" not in line
        assert "\x1b" not in line
    return found


def unknown(header: dict[str, object]) -> Script:
    """So many messages that nobody asked for, and then the answer."""

    async def script(request: PeerRequest) -> None:
        for _ in range(FLOOD):
            request.connection.open(dict(header)).end()
            await request.connection.writable()
        await echo(request)

    return script


@pytest.mark.parametrize(
    "header",
    [{"type": HUGE}, {"type": "event", "padding": HUGE}, {"type": 17}, {"type": ["reply"]}],
    ids=["huge", "event", "number", "list"],
)
async def test_a_peer_that_sends_what_nobody_asked_for(
    header: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    async with Mesh(ScriptedPeer(unknown(header))) as mesh:
        assert await (await mesh.requester.request("Test.echo", b"[1]")).read_all() == b"[1]"
        assert 0 < len(kept(caplog)) <= LOG_BURST


@pytest.mark.parametrize(
    "request_id", [HUGE[:250], 1 << 53, -1, None], ids=["text", "large", "negative", "none"]
)
async def test_a_peer_that_answers_what_was_never_asked(
    request_id: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of these ends its connection, or the trust in it."""

    async def script(request: PeerRequest) -> None:
        await echo(request)
        for _ in range(FLOOD):
            request.connection.open({"type": "reply", "request_id": request_id}).end()
            await request.connection.writable()

    async with Mesh(ScriptedPeer(script)) as mesh:
        for _ in range(3):
            await (await mesh.requester.request("Test.echo")).read_all()
        await until(lambda: mesh.requester.stats.stray_replies)
        assert 0 < len(kept(caplog)) <= LOG_BURST


@pytest.mark.parametrize(
    "data",
    [
        b"HEADER " + b"\x1b" * 100,
        encode_packet(PacketType.ACK, 9, b"1\x1b\n7x" * 4000),
        encode_packet(PacketType.HEADER, 0, HUGE.encode()),
        b"\n" * 200,
    ],
    ids=["line", "ack", "header", "feeds"],
)
async def test_a_peer_that_breaks_the_protocol_with_much_text(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with Mesh(ScriptedPeer(raw(data)), options=ClientOptions(retries=0)) as mesh:
        with pytest.raises(ScampError):
            await mesh.requester.request("Test.echo")
        assert any("protocol error" in record.getMessage() for record in kept(caplog))


async def test_a_client_that_sends_a_service_what_it_does_not_serve(
    caplog: pytest.LogCaptureFixture,
) -> None:
    identity = make_identity()
    service = Service("t", key=identity.key, certificate=identity.certificate)
    await service.start("127.0.0.1", 0)
    try:
        peer = await dial(*service.addresses[0])
        for _ in range(FLOOD):
            for header in (b'{"type":"reply","request_id":1}', b'{"type":"shout\\u001b\\n"}'):
                peer.channel.open_message(forge_header(header)).end()
        last = await peer.call(RequestHeader("t.none", 7))
        assert isinstance(last.header, ReplyHeader)
        assert last.header.request_id == 7
        await peer.close()
        assert len(kept(caplog)) == 2 * LOG_BURST
    finally:
        await service.stop(0.0)


CAREFUL = (
    "client/connection",
    "client/feed",
    "server/connection",
    "server/inbox",
    "server/listener",
    "server/notices",
    "server/subscriptions",
    "transport/channel",
)


def test_every_module_that_strangers_can_make_log_is_sparing() -> None:
    """In these a line may be anybody's doing."""
    root = Path(logs.__file__).parent
    for name in CAREFUL:
        assert "logs.Sparing(" in (root / f"{name}.py").read_text(), name
