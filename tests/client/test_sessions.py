"""TLS sessions: a further connection resumes the one before, and proves no less by it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from scamp.client import ClientOptions, Requester
from scamp.client.sessions import Peer, SessionStore
from scamp.discovery import Registry
from scamp.errors import FingerprintMismatch, ScampError
from scamp.limits import MAX_SESSIONS, SESSION_AGE
from scamp.testing import GO, Mesh, ScriptedPeer, make_identity, until
from scamp.transport import SESSIONS_LEAK, client_context, resumable_session, server_context

RESUMING = ClientOptions(resume_tls=True)  # also where it is off by default
ONCE = ClientOptions(retries=0, resume_tls=True)


async def ask(requester: Requester) -> bytes:
    reply = await requester.request("Test.echo", b"[1]", timeout=10.0)
    return await reply.read_all()


async def reconnect(mesh: Mesh, peer: ScriptedPeer) -> bytes:
    """Lose the connection, which is idle, and call on another one."""
    for connection in list(peer.connections):
        connection.close()
    await until(lambda: not mesh.views()[0].connections)
    return await ask(mesh.requester)


# -- what is resumed --------------------------------------------------------------------


async def test_a_further_connection_resumes_the_session() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=RESUMING) as mesh:
        await ask(mesh.requester)
        assert mesh.requester.stats.resumed == 0
        for _ in range(3):  # the session of a resumed connection can be resumed too
            assert await reconnect(mesh, peer) == b"[1]"
        stats = mesh.requester.stats
        assert stats.resumed == stats.connects - 1 >= 3


async def test_connections_opened_beside_each_other_resume_one_session() -> None:
    """A peer that renumbers gets a connection for each request: there it saves most."""
    peer = ScriptedPeer(manners=GO)
    async with Mesh(peer, options=RESUMING) as mesh:
        await ask(mesh.requester)
        await asyncio.gather(*(ask(mesh.requester) for _ in range(8)))
        stats = mesh.requester.stats
        assert stats.connects > 1
        assert stats.resumed == stats.connects - 1


def test_it_is_on_where_it_leaks_nothing() -> None:
    assert ClientOptions().resume_tls is not SESSIONS_LEAK


async def test_it_can_be_turned_off() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=ClientOptions(resume_tls=False)) as mesh:
        await ask(mesh.requester)
        await reconnect(mesh, peer)
        assert mesh.requester.stats.connects >= 2
        assert mesh.requester.stats.resumed == 0


async def test_a_service_that_forgot_its_sessions_is_greeted_in_full() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=RESUMING) as mesh:
        await ask(mesh.requester)
        peer.stop_listening()
        await peer.listen()  # with a new context, as after a restart
        assert await reconnect(mesh, peer) == b"[1]"
        assert mesh.requester.stats.resumed == 0
        assert not mesh.requester.stats.connect_failures
        assert await reconnect(mesh, peer) == b"[1]"
        assert mesh.requester.stats.resumed >= 1


# -- what it proves ---------------------------------------------------------------------


async def test_another_certificate_at_the_same_address_is_refused_as_ever() -> None:
    peer, other = ScriptedPeer(), ScriptedPeer(identity=make_identity(1))
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh.requester)
        await reconnect(mesh, peer)
        assert mesh.requester.stats.resumed == 1
        other.port = peer.port
        await peer.stop()
        await until(lambda: not mesh.views()[0].connections)
        await other.listen()
        try:
            with pytest.raises(FingerprintMismatch) as caught:
                await ask(mesh.requester)
            assert caught.value.actual == make_identity(1).fingerprint
            assert other.bytes_received == 0
        finally:
            await other.stop()
        assert mesh.requester.stats.resumed == 1


# -- what it must not cost --------------------------------------------------------------


@dataclasses.dataclass
class Relay:
    """Passes bytes on to a peer, except on connections that it cuts."""

    target: int
    cut_hello: frozenset[int] = frozenset()
    """Numbers of connections that end when their first bytes have come."""
    cut_request: frozenset[int] = frozenset()
    """Those that end when bytes come after the handshake: the peer would not resume after all."""
    accepted: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            hello = await reader.read(65_536)
            if number in self.cut_hello:
                writer.transport.abort()
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            with contextlib.closing(back):
                back.write(hello)
                ways = [asyncio.create_task(self._pass(there, writer))]
                ways.append(asyncio.create_task(self._pass(reader, back, number)))
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = 0
    ) -> None:
        while data := await reader.read(65_536):
            if number in self.cut_request:
                return
            writer.write(data)


@asynccontextmanager
async def through(relay: Relay, peer: ScriptedPeer) -> AsyncIterator[Requester]:
    """A client that reaches the peer through the relay."""
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    uri = f"beepish+tls://127.0.0.1:{port}"
    registry = Registry()
    registry.apply(added=(dataclasses.replace(peer.service(), uri=uri, port=port),))
    try:
        async with Requester(registry, ONCE) as requester:
            yield requester
    finally:
        server.close()
        await server.wait_closed()
        await peer.cut()


async def lose_connections(requester: Requester, peer: ScriptedPeer) -> None:
    for connection in list(peer.connections):
        connection.close()
    await until(lambda: not requester.instances()[0].connections)


async def test_a_handshake_that_fails_with_a_session_is_done_again_without() -> None:
    async with ScriptedPeer() as peer:
        relay = Relay(peer.port, cut_hello=frozenset({2}))
        async with through(relay, peer) as requester:
            await ask(requester)
            await lose_connections(requester, peer)
            assert await ask(requester) == b"[1]"
            assert not requester.stats.connect_failures
            assert requester.stats.resumed == 0
            assert relay.accepted == 3


async def test_a_session_that_a_connection_died_of_is_not_offered_again() -> None:
    async with ScriptedPeer() as peer:
        relay = Relay(peer.port, cut_request=frozenset({2}))
        async with through(relay, peer) as requester:
            await ask(requester)
            await lose_connections(requester, peer)
            answers: list[bytes] = []
            async with asyncio.timeout(10):
                while not answers:  # the second connection may die before the request or after
                    with contextlib.suppress(ScampError):
                        answers.append(await ask(requester))
            assert relay.accepted == 3
            assert requester.stats.resumed <= 1


# -- the store --------------------------------------------------------------------------


@pytest.fixture
async def session() -> ssl.SSLSession:
    """A real one: they cannot be made by hand."""
    identity = make_identity()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    context = server_context(identity.certificate, identity.key)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context())
        writer.write(b"hello\n")
        await reader.readline()
        found = resumable_session(writer.get_extra_info("ssl_object"))
        writer.close()
        await writer.wait_closed()
    assert found is not None
    return found


def peer_number(number: int) -> Peer:
    return (f"10.0.0.1:{number}", "AB:CD")


async def test_a_flood_of_services_leaves_a_bounded_number_of_sessions(
    session: ssl.SSLSession,
) -> None:
    store = SessionStore()
    for number in range(2 * MAX_SESSIONS):
        store.keep(peer_number(number), session, 0.0, resumed=False)
        assert store.get(peer_number(0), 0.0) is session  # used all the time
    assert len(store) == MAX_SESSIONS
    assert store.get(peer_number(1), 0.0) is None
    assert store.get(peer_number(2 * MAX_SESSIONS - 1), 0.0) is session


async def test_from_time_to_time_the_key_is_proven_anew(session: ssl.SSLSession) -> None:
    store, peer = SessionStore(), peer_number(0)
    store.keep(peer, session, 100.0, resumed=False)
    store.keep(peer, session, 100.0 + SESSION_AGE / 2, resumed=True)  # no new proof
    assert store.get(peer, 100.0 + SESSION_AGE - 1) is session
    assert store.get(peer, 100.0 + SESSION_AGE) is None
    assert len(store) == 0


async def test_a_session_of_unknown_age_is_not_kept(session: ssl.SSLSession) -> None:
    store, peer = SessionStore(), peer_number(0)
    store.keep(peer, session, 0.0, resumed=False)
    store.drop(peer)
    store.keep(peer, session, 1.0, resumed=True)
    assert store.get(peer, 1.0) is None
