"""What is sent again, and what must never be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from scamp.client import Call, ClientOptions, Deadline
from scamp.client import health as health_module
from scamp.errors import (
    ConnectFailed,
    ConnectionLost,
    DispatchFailed,
    ReplyFailed,
    ReplyTimeout,
    ScampError,
    ServiceError,
)
from scamp.server import Request, Service
from scamp.testing import (
    ECHOING,
    GO,
    AtHeader,
    Manners,
    Mesh,
    PeerRequest,
    Script,
    ScriptedPeer,
    make_identity,
    until,
)
from scamp.testing.scripts import (
    begun,
    cut_midway,
    dispatch_failure,
    echo,
    failing,
    first,
    hang_up,
    silent,
    txerr,
    when,
)

FREE = ClientOptions(retries=2, retry_minimum=100)
READ, WRITE = "noauth,read", "noauth,update"


async def ask(mesh: Mesh, body: bytes = b"{}", timeout: float = 10.0) -> bytes:
    reply = await mesh.requester.request("Test.echo", body, timeout=timeout)
    return await reply.read_all()


def two(script: Script, flags: str, manners: Manners = ECHOING) -> tuple[ScriptedPeer, ...]:
    """Two instances with one script between them."""
    return tuple(
        ScriptedPeer(script, flags=flags, manners=manners, identity=make_identity(number))
        for number in range(2)
    )


@pytest.mark.parametrize("manners", [ECHOING, GO])
@pytest.mark.parametrize("fault", [hang_up, txerr("no")])
async def test_an_action_that_reads_is_tried_again(fault: Script, manners: Manners) -> None:
    peers = two(first(1, fault), READ, manners)
    async with Mesh(*peers, options=FREE) as mesh:
        assert await ask(mesh, b"x") == b"x"
        assert sum(peer.executed[b"x"] for peer in peers) == 2
        assert all(peer.executed[b"x"] == 1 for peer in peers)  # the second time elsewhere


@pytest.mark.parametrize("manners", [ECHOING, GO])
@pytest.mark.parametrize(
    ("fault", "error"),
    [(hang_up, ConnectionLost), (txerr("no"), ReplyFailed), (cut_midway(), ConnectionLost)],
)
async def test_an_action_that_writes_is_never_executed_twice(
    fault: Script,
    error: type[ScampError],
    manners: Manners,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)  # so that all are tried
    peers = two(fault, WRITE, manners)
    async with Mesh(*peers, options=FREE) as mesh:
        for number in range(10):
            with pytest.raises(error):
                await ask(mesh, b"%d" % number)
        assert mesh.requester.stats.retries == {}
    executed = peers[0].executed + peers[1].executed
    assert set(executed.values()) == {1}


async def test_half_an_answer_is_not_tried_again() -> None:
    """The caller has seen the first half."""
    go_on = asyncio.Event()

    async def half(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(b"half")
        await go_on.wait()
        reply.fail("no")

    peers = two(half, READ)
    async with Mesh(*peers, options=FREE) as mesh:
        async with await mesh.requester.request("Test.echo") as reply:
            assert await reply.read() == b"half"
            go_on.set()
            with pytest.raises(ReplyFailed):
                await reply.read_all()
        assert sum(peer.requests for peer in peers) == 1


@pytest.mark.parametrize("flags", [READ, WRITE])
async def test_what_reached_no_service_is_sent_elsewhere(flags: str) -> None:
    peers = two(first(1, dispatch_failure), flags)
    async with Mesh(*peers, options=FREE) as mesh:
        assert await ask(mesh, b"x") == b"x"
        assert mesh.requester.stats.retries == {"dispatch_failure": 1}
        assert mesh.views()[0].state == "up"


async def test_what_reaches_no_service_anywhere() -> None:
    peers = two(dispatch_failure, WRITE)
    async with Mesh(*peers, options=FREE) as mesh:
        with pytest.raises(DispatchFailed) as caught:
            await ask(mesh, b"x")
        assert caught.value.message == "no worker"
        assert sum(peer.requests for peer in peers) == 3
        assert mesh.in_flight == 0


async def test_the_services_own_error_is_an_answer() -> None:
    peers = two(failing("out_of_stock", "none left", {"sku": 1}), READ)
    async with Mesh(*peers, options=FREE) as mesh:
        with pytest.raises(ServiceError) as caught:
            await ask(mesh)
        error = caught.value
        assert (error.code, error.message, error.data) == ("out_of_stock", "none left", {"sku": 1})
        assert sum(peer.requests for peer in peers) == 1
        assert mesh.views()[0].state == "up"


@pytest.mark.parametrize("fields", [{"error": "broken"}, {"error_code": "broken"}])
async def test_either_error_or_error_code_means_failure(fields: dict[str, str]) -> None:
    async def fail(request: PeerRequest) -> None:
        await request.reply(b"null", **fields)

    async with Mesh(ScriptedPeer(fail), options=FREE) as mesh:
        with pytest.raises(ServiceError, match="broken"):
            await ask(mesh)


async def test_a_time_out_is_not_tried_again() -> None:
    peers = two(silent, READ)
    async with Mesh(*peers, options=FREE) as mesh:
        with pytest.raises(ReplyTimeout):
            await ask(mesh, timeout=0.05)
        assert sum(peer.requests for peer in peers) == 1


async def test_no_more_than_so_many_retries() -> None:
    peers = two(hang_up, READ)
    async with Mesh(*peers, options=ClientOptions(retries=1, retry_minimum=100)) as mesh:
        with pytest.raises(ConnectionLost):
            await ask(mesh)
        assert sum(peer.requests for peer in peers) == 2


async def test_the_budget_forbids_a_storm() -> None:
    peers = two(txerr("no"), READ)
    options = ClientOptions(retries=2, retry_minimum=3, retry_budget=0.1)
    async with Mesh(*peers, options=options) as mesh:
        for _ in range(20):
            with pytest.raises(ReplyFailed):
                await ask(mesh)
        assert mesh.requester.stats.retries == {"txerr": 3}
        assert mesh.requester.stats.retries_denied > 0
        assert mesh.requester.retries_left == 0


async def test_a_body_that_streams_is_not_sent_again_once_it_was_touched() -> None:
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        taken += 1
        yield b"piece"

    peers = two(hang_up, READ)
    async with Mesh(*peers, options=FREE) as mesh:
        with pytest.raises(ConnectionLost):
            await mesh.requester.request("Test.echo", pieces())
        assert taken == 1
        assert sum(peer.requests for peer in peers) == 1


@pytest.mark.parametrize("fault", [dispatch_failure, hang_up])
async def test_a_body_whose_first_piece_was_waited_for_is_not_sent_again(fault: Script) -> None:
    """Giving up the wait ends a generator: what is left of it would pass for the whole body."""
    ended = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
            yield b"never"
        finally:
            ended.set()

    async def once_whole(request: PeerRequest) -> None:
        await request.ended.wait()
        await echo(request)

    peer = ScriptedPeer(AtHeader(first(1, fault, once_whole)), flags=READ)
    async with Mesh(peer, options=FREE) as mesh:
        with pytest.raises((DispatchFailed, ConnectionLost)):
            await mesh.requester.request("Test.echo", pieces())
        async with asyncio.timeout(5):
            await ended.wait()
        assert peer.requests == 0
        await mesh.settled()


@pytest.mark.parametrize(
    "error", [ConnectFailed("other:1", "refused"), ConnectionLost("other:1", "x", written=False)]
)
async def test_a_body_that_fails_as_a_connection_would_is_not_sent_again(error: Exception) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        raise error
        yield b"never"

    peer = ScriptedPeer(echo, flags=READ)
    async with Mesh(peer, options=FREE) as mesh:
        with pytest.raises(type(error)):
            await mesh.requester.request("Test.echo", pieces())
        assert peer.requests == 0


async def test_a_body_that_fails_while_the_reply_comes_ends_the_exchange() -> None:
    go_on = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await go_on.wait()
        raise ConnectionLost("other:1", "the source's own", written=True)

    async with Mesh(ScriptedPeer(AtHeader(begun(b"piece", asyncio.Event())))) as mesh:
        reply = await mesh.requester.request("Test.echo", pieces())
        assert await reply.read() == b"piece"
        go_on.set()
        with pytest.raises(ConnectionLost):
            await reply.read(5.0)
        await mesh.settled()


async def test_a_body_that_streams_is_sent_when_the_first_instance_could_not_be_reached() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    peers = two(echo, WRITE)
    peers[0].weight = 1000  # nearly always the first
    async with Mesh(*peers, options=FREE) as mesh:
        peers[0].stop_listening()
        reply = await mesh.requester.request("Test.echo", pieces())
        assert await reply.read_all() == b"onetwo"


async def test_a_caller_may_say_that_its_request_is_safe() -> None:
    peers = two(first(1, hang_up), WRITE)
    async with Mesh(*peers, options=FREE) as mesh:
        call = Call(
            offers=mesh.registry.find("main", "Test.echo"),
            body=b"x",
            deadline=Deadline.after(5),
            retry_safe=True,
        )
        reply = await mesh.requester.send(call)
        assert await reply.read_all() == b"x"
        assert reply.attempts == 2


async def test_all_attempts_share_one_deadline() -> None:
    """A retry gets what is left of the time, not as much again."""
    peers = two(first(1, hang_up, silent), READ)
    async with Mesh(*peers, options=FREE) as mesh:
        with pytest.raises(ReplyTimeout) as caught:
            await ask(mesh, timeout=0.2)
        assert caught.value.seconds == 0.2
        assert sum(peer.requests for peer in peers) == 2


async def test_a_service_of_ours_executes_a_write_once_when_connections_die() -> None:
    """The real server on the other side: killed in the middle, again and again."""
    executed: Counter[bytes] = Counter()
    identity = make_identity()
    service = Service("shop", key=identity.key, certificate=identity.certificate)

    @service.action("Test.echo", flags="noauth,create")
    async def handle(request: Request) -> bytes:
        body = await request.read_all()
        executed[body] += 1
        if len(executed) % 3 == 0:
            for connection in list(service._traffic.connections):
                assert connection.channel is not None
                connection.channel.abort("killed by the test")
        return body

    await service.start(port=0)
    failed = 0
    async with Mesh(service, options=ClientOptions(retry_minimum=1000)) as mesh:
        for number in range(30):
            try:
                assert await ask(mesh, b"%d" % number) == b"%d" % number
            except ScampError:
                failed += 1
    await service.stop(0)
    assert failed >= 1
    assert set(executed.values()) == {1}


async def test_an_answer_before_the_request_was_whole_is_an_answer() -> None:
    """A service may refuse an upload at its HEADER; that is no lost connection."""
    peer = ScriptedPeer(AtHeader(failing("too_large")), flags=WRITE)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.Event().wait()

    async with Mesh(peer, options=FREE) as mesh:
        with pytest.raises(ServiceError, match="too_large"):
            await mesh.requester.request("Test.echo", pieces())
        await mesh.settled()
        assert mesh.requester.stats.retries == {}


# -- what waited in vain ----------------------------------------------------------------


@pytest.mark.parametrize("came", [False, True])
async def test_what_waits_for_an_instance_that_leaves_goes_on_elsewhere_and_is_no_retry(
    came: bool,
) -> None:
    """However many they are: nothing of them was sent, so no budget is for them."""
    go = asyncio.Event()
    old, new = ScriptedPeer(when(go)), ScriptedPeer(echo, identity=make_identity(1))
    options = ClientOptions(max_connections=1, max_streams=1, retries=0, retry_minimum=0)
    async with new, Mesh(old, options=options) as mesh:
        held = asyncio.create_task(ask(mesh, b"held"))
        await old.until(lambda: old.requests == 1)
        waiting = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(100)]
        await until(lambda: sum(view.waiting for view in mesh.views()) == 100)
        if came:
            mesh.announce(new)
        mesh.remove(old)
        if not came:
            for task in waiting:
                with pytest.raises(ConnectionLost, match="before anything was sent"):
                    await task
        else:
            assert await asyncio.gather(*waiting) == [b"%d" % number for number in range(100)]
            assert new.requests == 100
        go.set()
        assert await held == b"held"
        assert old.requests == 1
        assert mesh.requester.stats.retries == {}
        assert mesh.requester.stats.retries_denied == 0


async def test_a_retry_may_go_to_what_has_come_since() -> None:
    """All that was announced when the request began has gone meanwhile."""
    old = ScriptedPeer(silent, flags=READ)
    new = ScriptedPeer(echo, identity=make_identity(1), flags=READ)
    async with new, Mesh(old, options=FREE) as mesh:
        request = asyncio.create_task(ask(mesh, b"once"))
        await old.until(lambda: old.requests == 1)
        mesh.announce(new)
        mesh.remove(old)
        await old.stop()
        assert await request == b"once"
        assert (old.requests, new.requests) == (1, 1)


async def test_what_is_pinned_to_an_instance_goes_nowhere_else() -> None:
    go = asyncio.Event()
    old, new = ScriptedPeer(when(go)), ScriptedPeer(echo, identity=make_identity(1))
    options = ClientOptions(max_connections=1, max_streams=1)
    async with Mesh(old, new, options=options) as mesh:
        requests = [
            asyncio.create_task(
                mesh.requester.request("Test.echo", b"%d" % number, service=old.service().identity)
            )
            for number in range(2)
        ]
        await until(lambda: sum(view.waiting for view in mesh.views()) == 1)
        mesh.remove(old)
        with pytest.raises(ConnectionLost, match="no longer announced"):
            await requests[1]
        go.set()
        assert await (await requests[0]).read_all() == b"0"
        assert new.requests == 0


async def test_what_came_since_and_asks_more_of_callers_gets_nothing_that_waited() -> None:
    """Who decided that the caller may call decided it for what was announced then."""
    go = asyncio.Event()
    old = ScriptedPeer(when(go))
    new = ScriptedPeer(echo, identity=make_identity(1), flags="update")
    options = ClientOptions(max_connections=1, max_streams=1)
    async with new, Mesh(old, options=options) as mesh:
        held = asyncio.create_task(ask(mesh, b"held"))
        await old.until(lambda: old.requests == 1)
        waiting = asyncio.create_task(ask(mesh, b"waits"))
        await until(lambda: sum(view.waiting for view in mesh.views()) == 1)
        mesh.announce(new)
        mesh.remove(old)
        with pytest.raises(ConnectionLost):
            await waiting
        assert new.requests == 0
        go.set()
        assert await held == b"held"
