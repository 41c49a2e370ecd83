"""Compressed bodies, both ways: whole, streamed, broken, too large once unpacked."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from fronted import Answer, Fronted, Wire
from gateway.compression import MIN_SIZE, accepts_gzip, worth_it
from gateway.exchange import Exchange
from gateway.front import FrontOptions
from gateway.unpacking import MAX_MEMBERS, MAX_PIECE, BrokenEncodingError, Coding, Unpacker
from scamp.client import ClientOptions
from scamp.limits import MAX_INFLIGHT, REPLAY_LIMIT
from scamp.testing import AtHeader, Manners, PeerRequest, ScriptedPeer
from scamp.testing.manners import nothing
from scamp.testing.scripts import begun, failing

MIB: Final = 1024 * 1024
ECHO: Final = "/api/Test.echo"
COMPRESSING: Final = FrontOptions(compress=True)
GZIP: Final = [("Accept-Encoding", "gzip")]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def members(data: bytes) -> bytes:
    middle = len(data) // 2
    return gzip.compress(data[:middle]) + gzip.compress(b"") + gzip.compress(data[middle:])


PACKERS: Final[dict[str, tuple[str, Callable[[bytes], bytes]]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "stored": ("gzip", lambda data: gzip.compress(data, 0)),
    "members": ("identity, gzip", members),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}


def bomb(size: int) -> bytes:
    """A thousandth of the size: zeros, in members of 16 MiB."""
    return gzip.compress(bytes(16 * MIB)) * (size // (16 * MIB))


def of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["code"]


def packed(coding: str) -> list[tuple[str, str]]:
    return [("Content-Encoding", coding)]


# -- requests ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("size", [1, REPLAY_LIMIT, REPLAY_LIMIT + 1, 3 * MIB])
async def test_a_compressed_body_reaches_the_service_as_it_was(name: str, size: int) -> None:
    coding, pack = PACKERS[name]
    body = b"".join(b"%d," % number for number in range(size // 4 + 1))[:size]
    sent = pack(body)
    async with Fronted(ScriptedPeer()) as gateway:
        answer = await gateway.request("POST", ECHO, packed(coding), sent)
        assert answer.status == 200
        assert answer.body == body
        assert gateway.log.lines[0]["bytes_in"] == len(sent), "what came over the wire"
        wire = await gateway.connect()
        wire.send("POST", ECHO, [*packed(coding), ("Transfer-Encoding", "chunked")])
        step = len(sent) // 50 + 1
        for at in range(0, len(sent), step):
            piece = sent[at : at + step]
            wire.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
        wire.writer.write(b"0\r\n\r\n")
        assert (await wire.answer()).body == body
        wire.send("POST", ECHO, packed(coding), sent)
        assert (await wire.answer()).body == body, "the connection goes on"


async def test_a_small_compressed_body_can_be_sent_again_and_an_empty_one_is_an_object() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        for body in (b"", gzip.compress(b"")):
            answer = await gateway.request("POST", ECHO, packed("gzip"), body)
            assert answer.body == b"{}"
        assert (await gateway.request("POST", ECHO, packed("gzip"))).body == b"{}"


@pytest.mark.parametrize("size", [100, 3 * MIB])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("missing", [1, 4, 9])
async def test_a_compressed_body_that_breaks_off_is_never_taken_for_whole(
    size: int, coding: str, missing: int
) -> None:
    peer = ScriptedPeer()
    sent = PACKERS[coding][1](bytes(size))[:-missing]
    async with Fronted(peer) as gateway:
        answer = await gateway.request("POST", ECHO, packed(coding), sent)
        assert of(answer) == (400, "bad_framing")
        assert "ends in the middle" in answer.json()["detail"]
        assert not peer.executed
        assert gateway.log.lines[0]["cause"] == "bad_framing"


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("gzip", b"{}"),
        ("gzip", zlib.compress(b"{}")),
        ("gzip", gzip.compress(b"{}") + b"x"),
        ("gzip", gzip.compress(b"{}") + bytes(8)),
        ("gzip", gzip.compress(b"{}")[:-5] + b"\xff" + gzip.compress(b"{}")[-4:]),  # its CRC-32
        ("gzip", gzip.compress(b"{}")[:-1] + b"\xff"),  # its length
        ("deflate", gzip.compress(b"{}")),
        ("deflate", zlib.compress(b"{}") + b"x"),
        ("deflate", zlib.compress(b"{}") * 2),
        ("deflate", raw_deflate(b"{}") + b"x"),
        ("deflate", b"\xff\xff"),
    ],
)
async def test_what_is_not_what_its_coding_says_is_refused(coding: str, sent: bytes) -> None:
    peer = ScriptedPeer()
    async with Fronted(peer) as gateway:
        answer = await gateway.request("POST", ECHO, packed(coding), sent)
        assert of(answer) == (400, "bad_framing")
        assert "compression" not in answer.json()["detail"], "one sentence on this very case"
        assert peer.headers == []
        assert (await gateway.request("POST", ECHO)).status == 200


async def test_a_coding_that_is_not_taken_is_refused_and_those_that_are_named() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        for coding in ("br", "zstd", "compress", "gzip, gzip", "deflate, gzip", "x" * 5000):
            answer = await gateway.request("POST", ECHO, packed(coding), b"{}")
            assert of(answer) == (415, "unsupported_encoding")
            assert answer.headers["Accept-Encoding"] == "gzip, deflate"
        twice = [*packed("gzip"), *packed("gzip")]
        assert (await gateway.request("POST", ECHO, twice, b"{}")).status == 415
        assert (await gateway.request("POST", ECHO, packed("identity"), b"{}")).status == 200
    async with Fronted(ScriptedPeer(), options=FrontOptions(decompress=False)) as gateway:
        answer = await gateway.request("POST", ECHO, packed("gzip"), gzip.compress(b"{}"))
        assert of(answer) == (415, "unsupported_encoding")
        assert answer.headers["Accept-Encoding"] == "identity"
        assert (await gateway.request("POST", ECHO, packed("Identity"), b"{}")).status == 200


async def test_a_body_that_waits_to_be_asked_for_is_asked_for_only_if_its_coding_is_taken() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        body = gzip.compress(b"[1]")
        fields = [("Expect", "100-continue"), ("Content-Length", str(len(body)))]
        wire = await gateway.connect()
        wire.send("POST", ECHO, [*packed("gzip"), *fields])
        assert (await wire.head())[0] == 100
        wire.writer.write(body)
        assert (await wire.answer()).body == b"[1]"
        wire.send("POST", ECHO, [*packed("br"), *fields])
        answer = await wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (415, "close")
        wire.writer.transport.abort()


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_limit_on_bodies_counts_what_they_unpack_to(chunked: bool) -> None:
    options = FrontOptions(max_body=10 * MIB)
    sent = bomb(1024 * MIB)
    assert len(sent) < 1.1 * MIB
    peer = ScriptedPeer()
    async with Fronted(peer, options=options) as gateway:
        wire = await gateway.connect()
        if chunked:
            wire.send("POST", ECHO, [*packed("gzip"), ("Transfer-Encoding", "chunked")])
            wire.writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent))
        else:
            wire.send("POST", ECHO, packed("gzip"), sent)
        answer = await wire.answer()
        assert of(answer) == (413, "body_too_large")
        assert peer.bytes_received < 11 * MIB
        assert not peer.executed
        whole = gzip.compress(bytes(10 * MIB - 2))
        exact = FrontOptions(max_body=10 * MIB - 2)
    async with Fronted(ScriptedPeer(), options=exact) as gateway:
        assert (await gateway.request("POST", ECHO, packed("gzip"), whole)).status == 200
    small = FrontOptions(max_body=10)  # also when what is packed is larger than what it was
    async with Fronted(ScriptedPeer(), options=small) as gateway:
        for size, status in ((10, 200), (11, 413)):
            sent = gzip.compress(bytes(size))
            assert len(sent) > 10
            assert (await gateway.request("POST", ECHO, packed("gzip"), sent)).status == status


async def test_a_bomb_before_a_service_that_takes_nothing_is_left_packed() -> None:
    peer = ScriptedPeer(manners=Manners(acks=nothing))
    async with Fronted(peer, client=ClientOptions(body_idle=0.3)) as gateway:
        answer = await gateway.request("POST", ECHO, packed("gzip"), bomb(1024 * MIB))
        assert of(answer) == (504, "upstream_stalled")
        assert peer.bytes_received < MAX_INFLIGHT + 4096
        assert gateway.log.lines[0]["bytes_in"] < MIB / 2, "unpacked ahead of the service"


async def test_a_bomb_streams_through_in_pieces() -> None:
    taken = 0

    async def count(request: PeerRequest) -> None:
        nonlocal taken
        await request.ended.wait()
        taken = request.received
        await request.reply(b"{}")

    size = 64 * MIB
    async with Fronted(ScriptedPeer(AtHeader(count))) as gateway:
        answer = await gateway.request("POST", ECHO, packed("gzip"), bomb(size))
        assert answer.status == 200
        assert taken == size


ROUTES: Final = """
[[routes]]
method = "POST"
path = "/v1/echo/{id:int}"
action = "Test.echo"
body = "*"
"""


async def test_a_route_that_adds_to_the_body_takes_it_compressed_and_within_its_limit() -> None:
    options = FrontOptions(max_mapped_body=300_000)
    async with Fronted(ScriptedPeer(), routes=ROUTES, options=options) as gateway:
        for text, status in (("x", 200), ("x" * 200_000, 200), ("x" * 300_000, 413)):
            sent = gzip.compress(b'{"a":"%b"}' % text.encode())
            answer = await gateway.request("POST", "/v1/echo/5", packed("gzip"), sent)
            assert answer.status == status
            if status == 200:
                assert answer.json() == {"a": text, "id": 5}
        for fields, sent, status in (
            (packed("gzip"), gzip.compress(b'{"a":1}')[:-1], 400),
            (packed("br"), b"{}", 415),
        ):
            assert (await gateway.request("POST", "/v1/echo/5", fields, sent)).status == status


def test_an_unpacker_holds_one_piece_whatever_comes() -> None:
    unpacker = Unpacker("gzip")
    got = 0
    sent = bomb(64 * MIB)
    for at in range(0, len(sent), 1000):
        unpacker.feed(sent[at : at + 1000])
        while piece := unpacker.take():
            assert len(piece) <= MAX_PIECE
            got += len(piece)
    unpacker.finish()
    assert got == 64 * MIB


@pytest.mark.parametrize("step", [1, 7, 20, 100_000])
def test_a_flood_of_empty_members_is_stopped(step: int) -> None:
    empty = gzip.compress(b"")
    for count in (MAX_MEMBERS, MAX_MEMBERS + 1):
        unpacker = Unpacker("gzip")
        sent = empty * count
        try:
            for at in range(0, len(sent), step):
                unpacker.feed(sent[at : at + step])
                assert unpacker.take() == b""
            unpacker.finish()
        except BrokenEncodingError:
            assert count > MAX_MEMBERS
        else:
            assert count == MAX_MEMBERS


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("step", [1, 3, MAX_PIECE])
def test_any_cut_of_the_input_gives_the_same(name: str, step: int) -> None:
    coding, pack = PACKERS[name]
    body = bytes(range(256)) * 30 + bytes(2 * MAX_PIECE)
    sent = pack(body)
    unpacker = Unpacker("deflate" if coding == "deflate" else "gzip")
    got = []
    for at in range(0, len(sent), step):
        unpacker.feed(sent[at : at + step])
        while piece := unpacker.take():
            got.append(piece)
    unpacker.finish()
    assert b"".join(got) == body


def test_what_is_held_inside_when_the_input_has_ended_comes_out() -> None:
    for size in range(MAX_PIECE - 10, MAX_PIECE + 300):
        unpacker = Unpacker("deflate")
        unpacker.feed(raw_deflate(bytes(size)))
        got = 0
        while piece := unpacker.take():
            got += len(piece)
        unpacker.finish()
        assert got == size


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.integers(1, 300))
def test_any_bytes_are_unpacked_or_refused(data: bytes, coding: Coding, step: int) -> None:
    unpacker = Unpacker(coding)
    with suppress(BrokenEncodingError):
        for at in range(0, len(data), step):
            unpacker.feed(data[at : at + step])
            while unpacker.take():
                pass
        unpacker.finish()


@given(st.binary(max_size=2000), st.sampled_from(list(PACKERS)), st.data())
def test_a_damaged_body_is_never_another_body(body: bytes, name: str, data: st.DataObject) -> None:
    coding, pack = PACKERS[name]
    sent = bytearray(pack(body))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    unpacker = Unpacker("deflate" if coding == "deflate" else "gzip")
    unpacker.feed(bytes(sent))
    got = b""
    try:
        while piece := unpacker.take():
            got += piece
        unpacker.finish()
    except BrokenEncodingError:
        return
    # A gzip header's times and names say nothing of the body. Raw deflate, which a first byte may
    # turn zlib's format into, has no sum over it.
    assert got == body or name == "raw deflate" or (name, at) == ("deflate", 0)


# -- replies ----------------------------------------------------------------------------


class Page:
    """An endpoint with any answer."""

    route = "/page"
    methods = ("GET", "HEAD")

    def __init__(self, content_type: str, body: bytes, *extra: tuple[str, str]) -> None:
        self.content_type = content_type
        self.body = body
        self.extra = extra

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        await exchange.send_whole(200, self.content_type, self.body, self.extra)


async def get(page: Page, method: str = "GET", fields: list[tuple[str, str]] = GZIP) -> Answer:
    async with Fronted(ScriptedPeer(), options=COMPRESSING) as gateway:
        gateway.front.endpoints.add("/page", page)
        answer = await gateway.request(method, "/page", fields)
        assert gateway.log.lines[0]["bytes_out"] == len(answer.body)
        return answer


@pytest.mark.parametrize("size", [MIN_SIZE, 5000, 2 * MIB])
async def test_a_reply_goes_out_compressed_to_who_accepts_it(size: int) -> None:
    body = b'"' + b"x" * (size - 2) + b'"'
    async with Fronted(ScriptedPeer(), options=COMPRESSING) as gateway:
        answer = await gateway.request("POST", ECHO, GZIP, body)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert len(answer.body) < size / 10
        assert gzip.decompress(answer.body) == body
        assert gateway.log.lines[0]["bytes_out"] == len(answer.body)
        answer = await gateway.request("POST", ECHO, body=body)
        assert answer.body == body
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Vary"] == "Accept-Encoding"
        old = await gateway.request("POST", ECHO, GZIP, body, version="1.0")
        assert gzip.decompress(old.body) == body
    async with Fronted(ScriptedPeer()) as gateway:
        answer = await gateway.request("POST", ECHO, GZIP, body)
        assert answer.body == body, "not unless it is switched on"
        assert "Vary" not in answer.headers


async def test_what_is_small_goes_out_as_it_is() -> None:
    answer = await get(Page("application/json", b"x" * (MIN_SIZE - 1)))
    assert answer.body == b"x" * (MIN_SIZE - 1)
    assert "Vary" not in answer.headers


async def test_what_would_not_shrink_or_must_not_wait_goes_out_as_it_is() -> None:
    for content_type in ("text/event-stream", "application/vnd.scamp.x", "image/png"):
        answer = await get(Page(content_type, bytes(5000)))
        assert answer.body == bytes(5000)
        assert "Vary" not in answer.headers
    already = gzip.compress(bytes(10**7))
    answer = await get(Page("application/json", already, ("Content-Encoding", "gzip")))
    assert answer.headers.getall("Content-Encoding") == ["gzip"]
    assert answer.body == already


async def test_head_says_what_get_would() -> None:
    page = Page("text/html; charset=utf-8", bytes(5000), ("ETag", '"v1"'), ("Vary", "Cookie"))
    whole, head = await get(page), await get(page, "HEAD")
    assert head.body == b""
    for name in ("Content-Encoding", "Content-Length", "Vary", "ETag", "Content-Type"):
        assert head.headers[name] == whole.headers[name]
    assert whole.headers["ETag"] == 'W/"v1"', "it was a strong one, of other bytes"
    assert whole.headers["Vary"] == "Cookie, Accept-Encoding"
    plain = await get(page, fields=[])
    assert (plain.headers["ETag"], plain.body) == ('"v1"', bytes(5000))
    weak = await get(Page("text/css", bytes(5000), ("ETag", 'W/"v1"')))
    assert weak.headers["ETag"] == 'W/"v1"'


async def test_an_error_is_compressed_like_anything_else() -> None:
    text = "sorry " * 500
    peer = ScriptedPeer(failing("conflict", text))
    async with Fronted(peer, options=COMPRESSING) as gateway:
        answer = await gateway.request("POST", ECHO, GZIP)
        assert (answer.status, answer.headers["Content-Encoding"]) == (409, "gzip")
        assert text in gzip.decompress(answer.body).decode()


async def plain_pieces(wire: Wire, unpack: zlib._Decompress) -> bytes:
    return unpack.decompress(await wire.chunk())


async def test_a_slow_stream_is_not_kept_back() -> None:
    go_on = asyncio.Event()
    async with Fronted(ScriptedPeer(begun(b"piece ", go_on)), options=COMPRESSING) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, GZIP)
        status, headers = await wire.head()
        assert (status, headers["Content-Encoding"]) == (200, "gzip")
        assert headers["Transfer-Encoding"] == "chunked"
        assert headers["Vary"] == "Accept-Encoding"
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
        assert await plain_pieces(wire, unpack) == b"piece ", "before the second was sent"
        go_on.set()
        assert await plain_pieces(wire, unpack) == b"piece "
        sizes = 0
        while not unpack.eof:
            sizes += len(await plain_pieces(wire, unpack))
        assert sizes == 0
        assert await wire.chunk() == b""
        wire.send("POST", "/api/Test.nothing")
        assert (await wire.answer()).status == 404, "the connection goes on"


async def test_head_of_a_stream_has_the_header_alone() -> None:
    go_on = asyncio.Event()
    go_on.set()
    peer = ScriptedPeer(begun(bytes(REPLAY_LIMIT), go_on), flags="noauth,read")
    async with Fronted(peer, options=COMPRESSING) as gateway:
        wire = await gateway.connect()
        wire.send("HEAD", ECHO, GZIP)
        status, headers = await wire.head()
        assert (status, headers["Content-Encoding"]) == (200, "gzip")
        wire.send("GET", ECHO, GZIP)
        assert gzip.decompress((await wire.answer("GET")).body) == bytes(2 * REPLAY_LIMIT)
    async with Fronted(peer, options=COMPRESSING) as gateway:
        old = await gateway.request("GET", ECHO, GZIP, version="1.0")
        assert gzip.decompress(old.body) == bytes(2 * REPLAY_LIMIT)


async def test_a_long_stream_comes_through_whole_and_is_cut_if_it_fails() -> None:
    piece = b"".join(b"%d " % number for number in range(20_000))

    async def long(request: PeerRequest) -> None:
        reply = request.open()
        for _ in range(200):
            await reply.write(piece)
        if b"fail" in request.body:
            reply.fail("broken")
        else:
            reply.end()

    async with Fronted(ScriptedPeer(long), options=COMPRESSING) as gateway:
        answer = await gateway.request("POST", ECHO, GZIP)
        assert answer.whole
        assert gzip.decompress(answer.body) == piece * 200
        assert gateway.log.lines[0]["bytes_out"] == len(answer.body) < len(piece) * 100
        answer = await gateway.request("POST", ECHO, GZIP, b'"fail"')
        assert not answer.whole
        with pytest.raises(EOFError):
            gzip.decompress(answer.body)


async def test_a_client_that_takes_nothing_stops_a_compressed_stream() -> None:
    written = 0

    async def without_end(request: PeerRequest) -> None:
        nonlocal written
        reply = request.open()
        while True:
            await reply.write(request.connection.peer.rng.randbytes(MAX_INFLIGHT // 4))
            written += MAX_INFLIGHT // 4

    async with Fronted(
        ScriptedPeer(without_end), options=FrontOptions(compress=True, body_idle=0.5)
    ) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, GZIP)
        line = (await gateway.log.until(1))[0]
        assert (line["status"], line["cause"]) == (499, "client_stalled")
        assert written < 24 * MIB, "what kernels hold on the way, no more"
        wire.writer.transport.abort()


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP;Q=0.5", True),
        ("x-gzip", True),
        ("deflate, br", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip; q=0.000", False),
        ("*;q=0, gzip;q=0.1", True),
        ("gzip;q=0.5, identity", False),
        ("gzip, identity;q=0.5", True),
        ("gzip;q=2", False),
        ("gzip;q=nan", False),
        ("gzip;level=9", False),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        (",;q=,;;;", False),
    ],
)
def test_who_accepts_gzip(value: str | None, accepted: bool) -> None:
    fields: CIMultiDict[str] = CIMultiDict()
    if value is not None:
        fields["Accept-Encoding"] = value
    assert accepts_gzip(CIMultiDictProxy(fields)) is accepted


@pytest.mark.parametrize(
    ("content_type", "worth"),
    [
        ("application/json", True),
        ("application/problem+json; charset=utf-8", True),
        ("Text/HTML", True),
        ("image/svg+xml", True),
        ("text/event-stream;x=y", False),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_what_is_worth_it(content_type: str, worth: bool) -> None:
    assert worth_it(content_type) is worth
