"""Bodies in both directions: whole, streamed, too large, too slow, broken off, unwanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import pytest
from aiohttp.http_writer import StreamWriter

from fronted import Fronted, Wire
from gateway.front import FrontOptions
from scamp.client import ClientOptions
from scamp.limits import MAX_INFLIGHT, REPLAY_LIMIT
from scamp.testing import GO, AtHeader, Manners, PeerRequest, ScriptedPeer, until
from scamp.testing.manners import nothing
from scamp.testing.scripts import begun, cut_midway, endless, silent, txerr
from scamp.wire import DataPacket, EofPacket

pytestmark = pytest.mark.usefixtures("either_way")

MIB = 1024 * 1024
CHUNKED = [("Transfer-Encoding", "chunked")]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# -- requests ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, REPLAY_LIMIT - 1, REPLAY_LIMIT, REPLAY_LIMIT + 1, 3 * MIB])
@pytest.mark.parametrize("manners", [Manners(), GO])
async def test_bodies_of_any_size_come_through_whole(size: int, manners: Manners) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with Fronted(ScriptedPeer(manners=manners)) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo", body=body)
        assert answer.status == 200
        assert answer.whole
        assert answer.body == body
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", CHUNKED)
        wire.writer.write(b"".join(chunk(body[at : at + 7777]) for at in range(0, size, 7777)))
        wire.writer.write(b"0\r\n\r\n")
        answer = await wire.answer()
        assert answer.body == body
        line = gateway.log.lines[-1]
        assert (line["bytes_in"], line["bytes_out"]) == (size, size)


async def test_a_small_body_that_comes_in_pieces_is_one_body() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Content-Length", "4")])
        await wire.writer.drain()
        for piece in (b"[", b"1", b"2"):
            wire.writer.write(piece)
            await asyncio.sleep(0)
        assert peer.headers == [], "nothing is sent before the body is here"
        wire.writer.write(b"]")
        assert (await wire.answer()).body == b"[12]"


async def test_a_service_that_takes_nothing_stops_the_client_and_is_given_up() -> None:
    peer = ScriptedPeer(manners=Manners(acks=nothing))
    async with Fronted(peer, client=ClientOptions(body_idle=0.3)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Content-Length", str(64 * MIB))])
        pouring = asyncio.create_task(_pour(wire))
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (504, "upstream_stalled")
        assert peer.bytes_received < MAX_INFLIGHT + 4096
        assert gateway.log.lines[0]["bytes_in"] < MIB, "read ahead of the service"
        pouring.cancel()
        await asyncio.wait({pouring})
        wire.writer.transport.abort()


async def _pour(wire: Wire) -> None:
    piece = bytes(MAX_INFLIGHT)
    while True:
        wire.writer.write(piece)
        await wire.writer.drain()


async def test_a_body_announced_as_too_large_is_refused_before_it_comes() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer, options=FrontOptions(max_body=1000)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Content-Length", "1001")])
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (413, "body_too_large")
        assert answer.headers["Connection"] == "close"
        assert (await gateway.request("POST", "/api/Test.echo", body=bytes(1001))).status == 413
        assert peer.headers == []
        assert (await gateway.request("POST", "/api/Test.echo", body=bytes(1000))).status == 200


@pytest.mark.parametrize("limit", [1000, 200_000])
async def test_a_body_found_to_be_too_large_is_refused_where_the_limit_is(limit: int) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer, options=FrontOptions(max_body=limit)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", CHUNKED)
        wire.writer.write(chunk(bytes(limit // 2)) * 3)
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (413, "body_too_large")
        assert peer.requests == 0, "a cut body is no request"
        await gateway.mesh.settled()


async def test_a_client_that_waits_to_be_asked_is_asked() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        for body in (b"[1]", bytes(300_000)):
            wire = await gateway.connect()
            fields = [("Expect", "100-continue"), ("Content-Length", str(len(body)))]
            wire.send("POST", "/api/Test.echo", fields)
            assert (await wire.head())[0] == 100
            wire.writer.write(body)
            answer = await wire.answer()
            assert (answer.status, answer.body) == (200, body)


async def test_a_client_that_waits_to_be_asked_is_not_asked_for_what_is_refused() -> None:
    async with Fronted(ScriptedPeer(), options=FrontOptions(max_body=1000)) as gateway:
        wire = await gateway.connect()
        fields = [("Expect", "100-continue"), ("Content-Length", "100000")]
        wire.send("POST", "/api/Test.echo", fields)
        assert (await wire.answer()).status == 413
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.nothing", fields)
        assert (await wire.answer()).status == 404
        answer = await gateway.request("POST", "/api/Test.echo", [("Expect", "magic")], b"{}")
        assert answer.status == 417
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Expect", "magic"), ("Content-Length", "10")])
        assert (await wire.answer()).status == 417


async def test_a_connection_ends_when_its_client_may_keep_the_body_back() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        fields = [("Expect", "100-continue"), ("Content-Length", "9")]
        wire.send("POST", "/api/Test.nothing", fields)
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (404, "close")


async def test_a_client_of_http_1_0_is_not_asked() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        fields = [("Expect", "100-continue"), ("Content-Length", "3")]
        wire.send("POST", "/api/Test.echo", fields, version="1.0")
        await until(lambda: gateway.front.in_flight == 1)
        wire.writer.write(b"[1]")
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, b"[1]")


@pytest.mark.parametrize("length", [10, 1_000_000])
async def test_a_body_that_stops_coming_is_given_up(length: int) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer, options=FrontOptions(body_idle=0.1)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Content-Length", str(length))])
        wire.writer.write(b"[")
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (408, "request_timeout")
        assert answer.headers["Connection"] == "close"
        await gateway.mesh.settled()
        assert peer.requests == 0


async def test_a_small_body_has_no_longer_than_the_whole_request() -> None:
    async with Fronted(ScriptedPeer(), options=FrontOptions(request_timeout=0.1)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Content-Length", "10")])
        assert (await wire.answer()).status == 408


@pytest.mark.parametrize("before", [b"", chunk(bytes(REPLAY_LIMIT + 1))])
async def test_a_body_whose_chunks_are_broken_is_no_body(before: bytes) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", CHUNKED)
        wire.writer.write(before + b"zz\r\n")
        answer = await wire.answer()
        assert answer.status == 400
        assert answer.json()["code"] in ("bad_framing", "malformed_request")
        assert await wire.ended()
        assert peer.requests == 0


@pytest.mark.parametrize("before", [b"", chunk(b"12345"), chunk(bytes(REPLAY_LIMIT + 1))])
@pytest.mark.parametrize("broken", [b"zz\r\n", b"5\r\nabcdeXX"])
async def test_chunks_that_break_later_end_the_request_at_once(
    before: bytes, broken: bytes
) -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", CHUNKED)
        wire.writer.write(before)
        await until(lambda: gateway.front.in_flight == 1)
        wire.writer.write(broken)
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (400, "bad_framing")
        assert answer.headers["Connection"] == "close"
        assert await wire.ended()


@pytest.mark.parametrize(
    ("version", "coding", "status"),
    [
        ("1.1", "chunked", 200),
        ("1.1", "Chunked", 200),
        ("1.1", "gzip, chunked", 400),
        ("1.0", "chunked", 400),
    ],
)
async def test_chunks_are_the_only_transfer_coding_and_not_for_http_1_0(
    version: str, coding: str, status: int
) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Transfer-Encoding", coding)], version=version)
        wire.writer.write(b"2\r\n{}\r\n0\r\n\r\n")
        answer = await wire.answer()
        assert answer.status == status
        assert len(peer.headers) == (status == 200)
        if status == 400:
            assert answer.json()["code"] == "bad_framing"
            assert await wire.ended()


async def test_get_with_a_body_is_refused() -> None:
    async with Fronted(ScriptedPeer(flags="noauth,read")) as gateway:
        answer = await gateway.request("GET", "/api/Test.echo", body=b'{"a":1}')
        assert (answer.status, answer.json()["code"]) == (400, "bad_framing")
        assert (await gateway.request("GET", "/api/Test.echo", body=b"")).status == 200


async def test_a_service_may_answer_before_it_has_everything() -> None:
    async def at_once(request: PeerRequest) -> None:
        await request.reply(b'"enough"')

    async with Fronted(ScriptedPeer(AtHeader(at_once)), lingering_time=0.1) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Content-Length", str(10 * MIB))])
        wire.writer.write(bytes(REPLAY_LIMIT * 2))
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, b'"enough"')
        assert answer.headers["Connection"] == "close"
        await gateway.mesh.settled()


# -- replies ----------------------------------------------------------------------------


async def test_a_reply_goes_out_as_it_comes() -> None:
    go_on = asyncio.Event()
    async with Fronted(ScriptedPeer(begun(b"[1,", go_on))) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        status, headers = await wire.head()
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        assert await wire.chunk() == b"[1,"
        go_on.set()
        assert await wire.chunk() == b"[1,"
        assert await wire.chunk() == b""
        wire.send("POST", "/api/Test.echo")
        assert (await wire.answer()).body == b"[1,[1,", "the connection goes on"


async def test_a_stream_costs_one_write_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head leaves with the first piece, the end with the last."""
    go_on, writes = asyncio.Event(), []

    def write(self: StreamWriter, pieces: Iterable[bytes]) -> None:
        assert self.transport is not None
        writes.append(b"".join(pieces))
        self.transport.write(writes[-1])

    monkeypatch.setattr(StreamWriter, "_writelines", write)
    monkeypatch.setattr(StreamWriter, "_write", lambda self, data: write(self, (data,)))

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(b"[1,")
        await go_on.wait()
        end = DataPacket(reply.msgno, b"2]").encode() + EofPacket(reply.msgno).encode()
        request.connection.send(end)  # in one piece

    async with Fronted(ScriptedPeer(script)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        assert (await wire.head())[1]["Transfer-Encoding"] == "chunked"
        assert await wire.chunk() == b"[1,"
        go_on.set()
        assert await wire.chunk() == b"2]"
        assert await wire.chunk() == b""
    first, last = writes
    assert first.startswith(b"HTTP/1.1 200 ")
    assert first.endswith(b"\r\n\r\n3\r\n[1,\r\n")
    assert last == b"2\r\n2]\r\n0\r\n\r\n"


@pytest.mark.parametrize("wish", [[], [("Connection", "keep-alive")]])
async def test_a_stream_to_an_old_client_ends_with_the_connection(
    wish: list[tuple[str, str]],
) -> None:
    go_on = asyncio.Event()
    go_on.set()
    async with Fronted(ScriptedPeer(begun(bytes(MIB), go_on))) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo", wish, version="1.0")
        assert answer.headers["Connection"] == "close"
        assert "Transfer-Encoding" not in answer.headers
        assert "Content-Length" not in answer.headers
        assert (len(answer.body), answer.whole) == (2 * MIB, True)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("script", [txerr("broken", after=bytes(70_000)), cut_midway(200_000)])
async def test_a_reply_that_breaks_off_never_looks_whole(version: str, script: object) -> None:
    async with Fronted(ScriptedPeer(script)) as gateway:  # type: ignore[arg-type]
        answer = await gateway.request("POST", "/api/Test.echo", version=version)
        assert answer.status == 200
        assert not answer.whole
        line = gateway.log.lines[-1]
        assert (line["status"], line["cause"]) == (200, "reply_broken_off")
        assert "scamp_gateway_answers_cut_total 1.0" in gateway.scrape()


async def test_a_reply_that_stops_moving_is_cut() -> None:
    options = FrontOptions(body_idle=0.1)
    async with Fronted(ScriptedPeer(begun(b"[", asyncio.Event())), options=options) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        assert (answer.body, answer.whole) == (b"[", False)
        await gateway.mesh.settled()


async def test_a_client_that_takes_nothing_stops_the_service_and_is_given_up() -> None:
    peer = ScriptedPeer(endless(bytes(MAX_INFLIGHT)))
    async with Fronted(peer, options=FrontOptions(body_idle=0.3)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        line = (await gateway.log.until(1))[0]
        assert (line["status"], line["cause"]) == (499, "client_stalled")
        assert peer.acks * MAX_INFLIGHT < 32 * MIB, "the service was not stopped"
        await gateway.mesh.settled()
        assert gateway.front.in_flight == 0


async def test_a_slow_client_that_moves_is_not_given_up() -> None:
    go_on = asyncio.Event()
    go_on.set()
    size = 16 * MIB
    async with Fronted(
        ScriptedPeer(begun(bytes(size // 2), go_on)), options=FrontOptions(body_idle=0.6)
    ) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        began = time.monotonic()
        await wire.head()
        got = 0
        while piece := await wire.chunk():
            got += len(piece)
            if time.monotonic() - began < 1.0:
                await asyncio.sleep(0.02)  # slow is what this client is
        assert got == size
        assert gateway.log.lines[0]["cause"] is None


async def test_head_of_a_stream_has_its_header_and_leaves_the_rest() -> None:
    peer = ScriptedPeer(endless(bytes(1000)), flags="noauth,read")
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("HEAD", "/api/Test.echo")
        wire.send("HEAD", "/api/Test.nothing")
        assert (await wire.answer("HEAD")).status == 200
        assert (await wire.answer("HEAD")).status == 404
        await gateway.mesh.settled()


async def test_an_empty_reply_is_an_empty_answer() -> None:
    async def script(request: PeerRequest) -> None:
        await request.reply(b"")

    async with Fronted(ScriptedPeer(script)) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        assert (answer.status, answer.headers["Content-Length"]) == (200, "0")


# -- leaving ----------------------------------------------------------------------------


async def test_a_client_that_leaves_takes_its_request_along() -> None:
    peer = ScriptedPeer(silent)
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await peer.until(lambda: peer.requests == 1)
        await wire.close()
        line = (await gateway.log.until(1))[0]
        assert (line["status"], line["cause"]) == (499, "client_left")
        await gateway.mesh.settled()
        assert 'source="gateway",status_class="4xx"' in gateway.scrape()
        assert gateway.front.in_flight == 0


@pytest.mark.parametrize("length", [10, 1_000_000])
async def test_a_client_that_leaves_before_its_body_is_whole(length: int) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo", [("Content-Length", str(length))])
        wire.writer.write(b"[")
        await until(lambda: gateway.front.in_flight == 1)
        if length > REPLAY_LIMIT:
            await peer.until(lambda: peer.headers)
        await wire.close()
        line = (await gateway.log.until(1))[0]
        assert (line["status"], line["cause"]) == (499, "client_left")
        await gateway.mesh.settled()
        assert peer.requests == 0


async def test_a_client_that_leaves_a_stream_is_counted_as_having_left() -> None:
    async with Fronted(ScriptedPeer(begun(b"[", asyncio.Event()))) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await wire.head()
        assert await wire.chunk() == b"["
        await wire.close()
        line = (await gateway.log.until(1))[0]
        assert (line["status"], line["cause"]) == (499, "client_left")
        await gateway.mesh.settled()
