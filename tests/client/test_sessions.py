"""TLS sessions: a further connection resumes the one before, and proves no less by it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager

import pytest

from scamp.client import ClientOptions, Requester, dialing
from scamp.client import health as health_module
from scamp.client.dialing import Dialer
from scamp.client.sessions import Peer, SessionStore
from scamp.discovery import Registry
from scamp.errors import FingerprintMismatch, ScampError
from scamp.limits import MAX_SESSIONS, SESSION_AGE
from scamp.testing import GO, Mesh, ScriptedPeer, TestPeer, make_identity, until
from scamp.testing.events import Publisher
from scamp.transport import (
    SESSIONS_LEAK,
    channel,
    client_context,
    offering,
    peer_fingerprint,
    resumable_session,
    server_context,
)
from scamp.wire import RequestHeader

RESUMING = ClientOptions(resume_tls=True)  # also where it is off by default
ONCE = ClientOptions(retries=0, resume_tls=True)

VERSIONS = [
    pytest.param(ssl.TLSVersion.TLSv1_2, id="TLS 1.2"),
    pytest.param(ssl.TLSVersion.TLSv1_3, id="TLS 1.3"),
]


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


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_further_connection_resumes_the_session(version: ssl.TLSVersion) -> None:
    peer = ScriptedPeer()
    async with Mesh(peer, options=RESUMING) as mesh:
        mesh.requester._dialer._context.maximum_version = version
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


async def test_another_certificate_at_the_same_address_is_refused_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It may have been dialled already, in the background: then it is tried again at once.
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
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


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_fingerprint_is_compared_on_resumed_connections_too(
    version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service does not show its certificate again then: it is that of the session.

    Here the session has come under the fingerprint of another service, which never happens, and
    the service resumes it.
    """
    resumed: list[bool] = []

    def spy(tls: ssl.SSLObject | None) -> str:
        assert tls is not None
        assert tls.version() == version.name.replace("_", ".")
        resumed.append(bool(tls.session_reused))
        return peer_fingerprint(tls)

    monkeypatch.setattr(channel, "peer_fingerprint", spy)
    wrong = make_identity(1).fingerprint
    async with ScriptedPeer() as peer:
        context, store = client_context(), SessionStore()
        context.maximum_version = version
        dialer = Dialer(context, timeout=10.0, sessions=store)
        right = (peer.host, peer.port, make_identity().fingerprint)
        end = TestPeer()
        await dialer.dial(*right, end, idle_limit=0.0)
        await (await end.call(RequestHeader("Test.echo", 7))).read_all(100)
        dialer.keep(end.channel)
        await end.close()

        now = asyncio.get_running_loop().time()
        session = store.get((peer.address, right[2]), now)
        assert session is not None
        store.keep((peer.address, wrong), session, now, resumed=False)
        before = peer.bytes_received
        with pytest.raises(FingerprintMismatch) as caught:
            await dialer.dial(peer.host, peer.port, wrong, TestPeer(), idle_limit=0.0)
        assert resumed == [False, True]
        assert (caught.value.expected, caught.value.actual) == (wrong, right[2])
        await peer.until(lambda: not peer.connections)
        assert peer.bytes_received == before
        assert store.get((peer.address, wrong), now) is None

        again = TestPeer()
        await dialer.dial(*right, again, idle_limit=0.0)
        assert resumed == [False, True, True]
        await again.close()


async def test_a_session_is_offered_to_nobody_but_the_one_it_is_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offers: list[bool] = []

    def spy(session: ssl.SSLSession | None) -> AbstractContextManager[None]:
        offers.append(session is not None)
        return offering(session)

    monkeypatch.setattr(dialing, "offering", spy)
    first, elsewhere = ScriptedPeer(), ScriptedPeer()
    other = ScriptedPeer(identity=make_identity(1))
    async with Mesh(first, options=ONCE) as mesh:
        await ask(mesh.requester)
        await reconnect(mesh, first)
        assert offers == [False, True]

        async with elsewhere:  # with the same certificate at another address
            mesh.remove(first)
            mesh.announce(elsewhere)
            await ask(mesh.requester)
            assert offers == [False, True, False]
            mesh.remove(elsewhere)

        await first.stop()
        other.port = first.port
        async with other:  # with another certificate at the same address
            mesh.announce(other)
            await ask(mesh.requester)
            assert offers == [False, True, False, False]
            mesh.remove(other)


async def test_a_subscription_that_is_made_again_resumes_too() -> None:
    peer = ScriptedPeer(Publisher({"a": {"k": 1}}))
    async with (
        Mesh(peer, options=RESUMING) as mesh,
        mesh.requester.subscribe("peer", ["a"]) as values,
    ):
        for count in range(1, 4):
            assert (values.stats.connects, values.stats.resumed) == (count, count - 1)
            await peer.cut()
            await until(lambda: not values.ready)
            await values.wait_ready()
        await peer.stop()
        await until(lambda: values.stats.failures > 0)
        await peer.listen()  # with a new context, as after a restart
        await values.wait_ready()
        assert (values.stats.connects, values.stats.resumed) == (5, 3)


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
