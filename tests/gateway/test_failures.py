"""The table of what goes wrong between gateway and service, each with its answer."""

from __future__ import annotations

import asyncio

import pytest

from fronted import Answer, Fronted
from scamp.client import ClientOptions
from scamp.testing import PeerRequest, ScriptedPeer, make_identity, until
from scamp.testing.scripts import (
    dispatch_failure,
    echo,
    hang_up,
    raw,
    silent,
    txerr,
    when,
)

pytestmark = pytest.mark.usefixtures("either_way")

NO_RETRY = ClientOptions(retries=0)


def told(gateway: Fronted, answer: Answer, status: int, code: str) -> None:
    """`answer` is this problem, log and metrics know, and no address of the mesh is in it."""
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.json()["action"] == "Test.echo~1"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Proxy-Status"].startswith("scamp-gateway; error=")
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert b"127.0.0.1" not in answer.body
    line = gateway.log.lines[-1]
    assert (line["status"], line["cause"]) == (status, code)
    assert f'source="gateway",status_class="{status // 100}xx"' in gateway.scrape()


async def test_a_service_that_is_not_there() -> None:
    peer = ScriptedPeer()
    async with Fronted(peer, client=NO_RETRY) as gateway:
        peer.stop_listening()
        told(gateway, await gateway.request("POST", "/api/Test.echo"), 502, "connect_failed")
        assert gateway.log.lines[-1]["instance"] == peer.address
        answer = await gateway.request("POST", "/api/Test.echo")
        told(gateway, answer, 503, "no_usable_instance")


async def test_a_service_with_another_certificate() -> None:
    peer = ScriptedPeer(shows=make_identity(1))
    async with Fronted(peer, client=NO_RETRY) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo", body=b"{}")
        told(gateway, answer, 502, "fingerprint_mismatch")
        assert peer.bytes_received == 0


async def test_a_service_that_does_not_finish_the_handshake() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    peer = ScriptedPeer()
    options = ClientOptions(retries=0, connect_timeout=0.1)
    async with Fronted(peer, client=options) as gateway:
        peer.stop_listening()
        server = await asyncio.start_server(hold, peer.host, peer.port)
        async with server:
            answer = await gateway.request("POST", "/api/Test.echo")
            told(gateway, answer, 504, "connect_timeout")


async def test_a_connection_lost_after_the_request_was_written() -> None:
    async with Fronted(ScriptedPeer(hang_up)) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo", body=b"{}")
        told(gateway, answer, 502, "connection_lost")


@pytest.mark.parametrize(("flags", "status"), [("noauth,read", 200), ("noauth,update", 502)])
async def test_a_read_is_sent_again_and_nothing_else_is(flags: str, status: int) -> None:
    lost: list[PeerRequest] = []

    async def script(request: PeerRequest) -> None:
        lost.append(request)
        await (hang_up if len(lost) == 1 else echo)(request)

    async with Fronted(
        ScriptedPeer(script, flags=flags), ScriptedPeer(script, flags=flags)
    ) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo", body=b"[1]")
        assert answer.status == status
        assert len(lost) == (2 if status == 200 else 1)
        retried = status == 200
        assert gateway.log.lines[-1]["attempts"] == (2 if retried else 1)
        expected = f'scamp_gateway_retries_total{{reason="lost"}} {float(retried)}'
        assert expected in gateway.scrape()


async def test_where_services_take_turns_each_request_can_have_a_connection() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(when(go))
    async with Fronted(peer, client=ClientOptions(max_streams=1)) as gateway:
        waiting = [
            asyncio.create_task(gateway.request("POST", "/api/Test.echo", body=b"[%d]" % number))
            for number in range(3)
        ]
        await peer.until(lambda: peer.requests == 3)
        assert len(peer.connections) == 3
        go.set()
        answers = await asyncio.gather(*waiting)
        assert [answer.body for answer in answers] == [b"[0]", b"[1]", b"[2]"]


async def test_a_request_that_was_not_dispatched() -> None:
    async with Fronted(ScriptedPeer(dispatch_failure), client=NO_RETRY) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        told(gateway, answer, 502, "dispatch_failed")


async def test_no_reply_in_time() -> None:
    async with Fronted(ScriptedPeer(silent)) as gateway:
        fields = [("X-SCAMP-Timeout", "0.1")]
        answer = await gateway.request("POST", "/api/Test.echo", fields)
        told(gateway, answer, 504, "reply_timeout")
        assert gateway.log.lines[-1]["upstream_ms"] >= 90


async def test_a_reply_broken_off_before_its_first_byte() -> None:
    async with Fronted(ScriptedPeer(txerr("Error: at 127.0.0.1"))) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        told(gateway, answer, 502, "reply_failed")


async def test_a_reply_that_is_not_scamp() -> None:
    async with Fronted(ScriptedPeer(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"))) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        told(gateway, answer, 502, "upstream_protocol")


async def test_too_many_waiting_for_one_instance() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on))
    options = ClientOptions(max_connections=1, max_waiters=1, max_streams=1)
    async with Fronted(peer, client=options) as gateway:
        wires = [await gateway.connect() for _ in range(2)]
        wires[0].send("POST", "/api/Test.echo")
        await peer.until(lambda: peer.requests == 1)
        wires[1].send("POST", "/api/Test.echo")
        await until(lambda: any(view.waiting for view in gateway.mesh.views()))
        told(gateway, await gateway.request("POST", "/api/Test.echo"), 503, "saturated")
        go_on.set()
        assert [(await wire.answer()).status for wire in wires] == [200, 200]


async def test_no_connection_comes_free_in_time() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on))
    options = ClientOptions(max_connections=1, max_streams=1)
    async with Fronted(peer, client=options) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await peer.until(lambda: peer.requests == 1)
        answer = await gateway.request("POST", "/api/Test.echo", [("X-SCAMP-Timeout", "0.05")])
        told(gateway, answer, 504, "queue_timeout")
        go_on.set()
        assert (await wire.answer()).status == 200
        assert peer.requests == 1


async def test_a_failed_reply_with_a_body_is_told_and_the_body_dropped() -> None:
    async def script(request: PeerRequest) -> None:
        await request.reply(bytes(100_000), error_code="conflict", error="taken")

    async with Fronted(ScriptedPeer(script)) as gateway:
        answer = await gateway.request("POST", "/api/Test.echo")
        assert (answer.status, answer.json()["upstream_code"]) == (409, "conflict")
        await gateway.mesh.settled()


async def test_another_instance_answers_for_one_that_is_gone() -> None:
    gone, there = ScriptedPeer(echo), ScriptedPeer(echo)
    async with Fronted(gone, there) as gateway:
        gone.stop_listening()
        for number in range(6):
            body = b"[%d]" % number
            assert (await gateway.request("POST", "/api/Test.echo", body=body)).body == body
