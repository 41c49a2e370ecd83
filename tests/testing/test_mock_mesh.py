"""The mock mesh, used as the users of this package use it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from scamp.client import ClientOptions, Requester
from scamp.config import ScampConf
from scamp.discovery import CacheFollower, Registry
from scamp.errors import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    LocalProtocolError,
    NoUsableInstance,
    ReplyFailed,
    ReplyTimeout,
    ServiceError,
    UnknownAction,
)
from scamp.testing import MockCall, MockMesh, UnexpectedCall, dial, make_ticket, until
from scamp.testing.calls import Recorder
from scamp.wire import ReplyHeader, RequestHeader

ONCE = ClientOptions(retries=0)


@pytest.fixture
async def mesh() -> AsyncIterator[MockMesh]:
    async with MockMesh(options=ONCE) as made:
        yield made


# -- answers ----------------------------------------------------------------------------


async def test_an_action_answers_and_what_it_received_is_kept(mesh: MockMesh) -> None:
    mesh.action("Product.Sku.fetch~2", flags="read,t30", envelopes=("json", "x"), returns={"id": 7})
    ticket = make_ticket(user_id=3)
    reply = await mesh.call(
        "product.sku.FETCH~2", {"sku": "a"}, ticket=ticket, client_id=9, envelope="x"
    )
    assert reply == {"id": 7}
    (call,) = mesh.calls("Product.Sku.fetch")
    assert (call.action, call.version, call.envelope) == ("Product.Sku.fetch", 2, "x")
    assert (call.body, call.json, call.ticket) == (b'{"sku":"a"}', {"sku": "a"}, ticket)
    assert (call.client_id, call.service, call.instance) == (9, "mock", 0)
    assert ticket not in repr(call)
    assert mesh.calls() == [call]
    assert mesh.unexpected == []


@pytest.mark.parametrize(
    ("returns", "body"),
    [(b"\x00raw", b"\x00raw"), (None, b"null"), ([1, "x"], b'[1,"x"]'), ({}, b"{}"), (b"", b"")],
)
async def test_bytes_go_as_they_are_and_all_else_as_json(
    mesh: MockMesh, returns: object, body: bytes
) -> None:
    mesh.action("A.b", returns=returns)
    async with await mesh.requester.request("A.b") as reply:
        assert await reply.read_all() == body


async def test_without_an_answer_the_reply_is_an_empty_object(mesh: MockMesh) -> None:
    mesh.action("A.b")
    assert await mesh.call("A.b") == {}


async def test_a_service_error_is_what_the_caller_gets(mesh: MockMesh) -> None:
    mesh.action("A.b", raises=ServiceError("no_stock", "none left", {"sku": "a"}))
    for _ in range(2):
        with pytest.raises(ServiceError, match="no_stock: none left") as caught:
            await mesh.call("A.b")
        assert caught.value.data == {"sku": "a"}


async def test_any_other_error_is_internal_as_with_real_services(mesh: MockMesh) -> None:
    mesh.action("A.b", raises=KeyError("secret"))
    with pytest.raises(ServiceError, match="internal") as caught:
        await mesh.call("A.b")
    assert "secret" not in str(caught.value)


async def test_a_handler_may_be_a_function_a_coroutine_or_a_stream(mesh: MockMesh) -> None:
    async def double(call: MockCall) -> object:
        await asyncio.sleep(0)
        return call.json["n"] * 2

    async def pieces(call: MockCall) -> AsyncIterator[bytes]:
        for piece in (b"[1,", call.body, b"]"):
            yield piece

    mesh.action("A.plain", handler=lambda call: call.json["n"] + 1)
    mesh.action("A.coroutine", handler=double)
    mesh.action("A.stream", handler=pieces)
    assert await mesh.call("A.plain", {"n": 1}) == 2
    assert await mesh.call("A.coroutine", {"n": 4}) == 8
    assert await mesh.call("A.stream", [2]) == [1, [2]]


async def test_never_is_the_callers_timeout(mesh: MockMesh) -> None:
    mesh.action("A.b", never=True)
    with pytest.raises(ReplyTimeout):
        await mesh.call("A.b", timeout=0.05)
    assert len(mesh.calls("A.b")) == 1


async def test_a_delay_is_before_the_answer(mesh: MockMesh) -> None:
    mesh.action("A.slow", delay=30, returns=1)
    mesh.action("A.b", delay=0.01, returns=2)
    assert await mesh.call("A.b") == 2
    with pytest.raises(ReplyTimeout):
        await mesh.call("A.slow", timeout=0.05)


@pytest.mark.parametrize("first", [b"", b'{"half":'])
async def test_a_reply_that_breaks_off(mesh: MockMesh, first: bytes) -> None:
    mesh.action("A.b", txerr="out of paper", returns=first)
    with pytest.raises(ReplyFailed, match="out of paper"):
        await mesh.call("A.b")


async def test_a_lost_connection_costs_only_who_was_on_it(mesh: MockMesh) -> None:
    mesh.action("A.b", lose_connection=True)
    mesh.action("A.other", returns=1)
    with pytest.raises(ConnectionLost) as caught:
        await mesh.call("A.b")
    assert caught.value.written
    assert await mesh.call("A.other") == 1


async def test_once_queues_answers_before_the_usual_one(mesh: MockMesh) -> None:
    mock = mesh.action("A.b", returns=1).once(raises=ServiceError("busy")).once(returns=2)
    with pytest.raises(ServiceError, match="busy"):
        await mesh.call("A.b")
    assert [await mesh.call("A.b") for _ in range(3)] == [2, 1, 1]
    mock.then(returns=3)
    assert await mesh.call("A.b") == 3


@pytest.mark.parametrize(
    "answer",
    [
        {"never": True, "txerr": "x"},
        {"raises": ServiceError("x"), "handler": lambda call: None},
        {"txerr": ""},
        {"txerr": "0"},
    ],
)
async def test_contradictions_are_told_where_they_are_written(
    mesh: MockMesh, answer: dict[str, object]
) -> None:
    with pytest.raises(ConfigError):
        mesh.action("A.b", **answer)  # type: ignore[arg-type]


async def test_an_action_registered_again_answers_anew(mesh: MockMesh) -> None:
    mesh.action("A.b", returns=1)
    assert await mesh.call("A.b") == 1
    mesh.action("a.B", flags="noauth", returns=2)
    assert await mesh.call("A.b") == 2
    (offer,) = mesh.registry.find("main", "A.b")
    assert (offer.action.spelling, offer.action.noauth) == ("a.B", True)


# -- what nobody registered -------------------------------------------------------------


async def test_what_is_not_announced_is_unknown_and_noted(mesh: MockMesh) -> None:
    with pytest.raises(UnknownAction):
        await mesh.call("A.b~3")
    assert mesh.unexpected == [UnexpectedCall("main:A.b", 3, "no service announces it")]
    mesh.forget_calls()
    assert mesh.unexpected == []


async def test_a_mock_answers_for_a_strange_action_as_services_do(mesh: MockMesh) -> None:
    mesh.action("A.b", returns=1)
    (service,) = mesh.registry.services()
    peer = await dial(service.host, service.port, fingerprint=service.fingerprint)
    for header, code in (
        (RequestHeader("A.c", 1), "not_found"),
        (RequestHeader("A.b", 2, version=2), "not_found"),
        (RequestHeader("A.b", 3, envelope="extdirect"), "bad_request"),
    ):
        reply = (await peer.call(header)).header
        assert isinstance(reply, ReplyHeader)
        assert (reply.request_id, reply.error_code) == (header.request_id, code)
    await peer.close()
    assert [(one.action, one.version) for one in mesh.unexpected] == [
        ("A.c", 1),
        ("A.b", 2),
        ("A.b", 1),
    ]
    assert mesh.calls() == []


async def test_calls_of_an_action_that_was_never_registered_are_a_mistake(mesh: MockMesh) -> None:
    mesh.action("A.b")
    assert mesh.calls("A.b") == mesh.calls("main:a.B~1") == []
    for wrong in ("A.c", "A.b~2", "web:A.b"):
        with pytest.raises(UnknownAction):
            mesh.calls(wrong)


# -- tickets ----------------------------------------------------------------------------


async def test_tickets_are_checked_when_asked_for() -> None:
    async with MockMesh(require_tickets=True) as mesh:
        mesh.action("A.b", returns=1)
        mesh.action("A.open", flags="noauth", returns=2)
        assert await mesh.call("A.open") == 2
        assert await mesh.call("A.b", ticket=make_ticket()) == 1
        for ticket in (None, "1,2,3", make_ticket(expires_in=-1), make_ticket(signer=1)):
            with pytest.raises(ServiceError):
                await mesh.call("A.b", ticket=ticket)
        assert len(mesh.calls("A.b")) == 1
        assert b"PUBLIC KEY" in mesh.ticket_key_file.read_bytes()


# -- services and instances -------------------------------------------------------------


async def test_sectors_side_by_side(mesh: MockMesh) -> None:
    mesh.action("A.b", returns="main")
    mesh.action("web:A.c", returns="web")
    other = await mesh.service("web", sector="web")
    other.action("A.b", returns="other")
    assert await mesh.call("A.b") == "main"
    assert await mesh.call("web:A.c") == "web"
    assert await mesh.call("web:A.b") == "other"
    with pytest.raises(UnknownAction):
        await mesh.call("A.c")
    with pytest.raises(ConfigError, match="make a service of its own for web"):
        mesh.action("web:A.b")
    assert [call.service for call in mesh.calls("A.b")] == ["mock", "web"]
    assert [call.service for call in mesh.calls("web:A.b")] == ["web"]


async def test_instances_share_their_actions_and_are_told_apart(mesh: MockMesh) -> None:
    shop = await mesh.service("shop", instances=3)
    shop.action("Shop.buy", returns=1)
    while {call.instance for call in mesh.calls()} != {0, 1, 2}:
        assert await mesh.call("Shop.buy") == 1
    assert len({service.key for service in mesh.registry.services()}) == 4


async def test_an_instance_is_killed_and_brought_back(mesh: MockMesh) -> None:
    shop = await mesh.service("shop")
    shop.action("Shop.buy", returns=1)
    (instance,) = shop.instances
    assert await mesh.call("Shop.buy") == 1
    before, address = mesh.registry.find("main", "Shop.buy"), instance.address

    await instance.kill()
    assert not instance.running
    assert mesh.registry.find("main", "Shop.buy") == before
    with pytest.raises((ConnectFailed, ConnectionLost, NoUsableInstance)):
        await mesh.call("Shop.buy")

    await instance.start()
    assert (instance.running, instance.address) == (True, address)
    (after,) = mesh.registry.find("main", "Shop.buy")
    assert after.service.identity != before[0].service.identity
    assert await mesh.call("Shop.buy") == 1


async def test_killing_cuts_what_is_in_flight(mesh: MockMesh) -> None:
    shop = await mesh.service("shop")
    shop.action("Shop.buy", never=True)
    waiting = asyncio.create_task(mesh.call("Shop.buy"))
    await mesh.called("Shop.buy")
    await shop.instances[0].kill(forget=True)
    with pytest.raises(ConnectionLost):
        await waiting
    assert mesh.registry.find("main", "Shop.buy") == ()


async def test_leaving_lets_requests_end(mesh: MockMesh) -> None:
    go_on = asyncio.Event()

    async def handler(call: MockCall) -> object:
        await go_on.wait()
        return 1

    shop = await mesh.service("shop")
    shop.action("Shop.buy", handler=handler)
    waiting = asyncio.create_task(mesh.call("Shop.buy"))
    await mesh.called("Shop.buy")
    leaving = asyncio.create_task(shop.instances[0].leave(grace=10))
    await asyncio.sleep(0)
    assert mesh.registry.find("main", "Shop.buy") == ()
    go_on.set()
    assert await waiting == 1
    await leaving


# -- discovery --------------------------------------------------------------------------


async def test_the_files_are_what_another_process_needs(mesh: MockMesh) -> None:
    mesh.action("A.b", returns={"id": 7})
    code = (
        "import asyncio, sys, scamp\n"
        "from scamp.config import ScampConf\n"
        "async def main():\n"
        "    conf = ScampConf.load(sys.argv[1])\n"
        "    registry = scamp.Registry()\n"
        "    follower = scamp.CacheFollower(conf.discovery_cache_path, registry,\n"
        "                                   max_age=conf.discovery_cache_max_age)\n"
        "    await follower.start()\n"
        "    async with scamp.Requester(registry) as requester:\n"
        "        async with await requester.request('A.b', b'[5]') as reply:\n"
        "            print((await reply.read_all()).decode())\n"
        "    await follower.stop()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(mesh.config_file), stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert (process.returncode, output) == (0, b'{"id":7}\n')
    assert [call.json for call in mesh.calls("A.b")] == [[5]]


async def test_the_cache_file_follows_every_change(mesh: MockMesh) -> None:
    registry = Registry()
    follower = CacheFollower(mesh.cache_file, registry)
    shop = await mesh.service("shop", instances=2)
    shop.action("Shop.buy")
    await follower.refresh()
    assert len(registry.find("main", "Shop.buy")) == 2
    await shop.instances[0].leave()
    await follower.refresh()
    assert len(registry.find("main", "Shop.buy")) == 1
    mesh.action("Late.comer")
    await follower.refresh()
    assert len(registry.find("main", "Late.comer")) == 1
    assert not follower.status.rejected
    await follower.stop()


async def test_the_configuration_stays_on_this_machine(mesh: MockMesh) -> None:
    conf = ScampConf.load(mesh.config_file)
    assert conf.discovery_cache_path == mesh.cache_file
    assert conf.service_addresses() == conf.discovery_addresses() == ("127.0.0.1",)
    assert conf.multicast_port != 5555
    assert conf.warnings == []


async def test_files_go_with_the_mesh_unless_a_folder_is_given(tmp_path: Path) -> None:
    async with MockMesh() as mesh:
        folder = mesh.cache_file.parent
        assert mesh.config_file.parent == folder
    assert not folder.exists()
    async with MockMesh(folder=tmp_path) as mesh:
        assert mesh.cache_file.parent == tmp_path
    assert (tmp_path / "discovery").exists()


# -- what is kept -----------------------------------------------------------------------


async def test_calls_made_behind_ones_back_are_waited_for(mesh: MockMesh) -> None:
    mesh.action("A.b")
    calling = [asyncio.create_task(mesh.call("A.b", number)) for number in (1, 2)]
    assert {call.json for call in await mesh.called("A.b", times=2)} == {1, 2}
    await asyncio.gather(*calling)
    with pytest.raises(TimeoutError):
        await mesh.called("A.b", times=3, timeout=0.01)


async def test_what_was_called_instead_is_told(mesh: MockMesh) -> None:
    mesh.action("A.one")
    mesh.action("A.two")
    await mesh.call("A.one")
    with pytest.raises(UnknownAction):
        await mesh.call("A.three")
    with pytest.raises(TimeoutError) as caught:
        await mesh.called("A.two", times=2, timeout=0.01)
    assert str(caught.value) == (
        "A.two was called 0 times and not 2 within 0.01 s; "
        "all calls: A.one: 1, main:A.three (no service announces it): 1"
    )


def unmet(call: MockCall) -> None:
    assert call.json == {"wanted": True}, "not what was wanted"


def given_up(call: MockCall) -> None:
    pytest.fail("not what was wanted")


@pytest.mark.parametrize("handler", [unmet, given_up])
async def test_an_assertion_in_a_handler_fails_the_test_though_the_caller_bears_it(
    handler: Callable[[MockCall], None],
) -> None:
    async def bear(finally_raise: Exception | None) -> None:
        async with MockMesh(options=ONCE) as mesh:
            mesh.action("A.b", handler=handler)
            with pytest.raises(ServiceError, match="internal"):
                await mesh.call("A.b")
            if finally_raise is not None:
                raise finally_raise

    failure = pytest.fail.Exception if handler is given_up else AssertionError
    with pytest.raises(failure, match="not what was wanted"):
        await bear(None)
    with pytest.raises(KeyError) as caught:
        await bear(KeyError("the test's own"))
    assert "not what was wanted" in caught.value.__notes__[0]


def test_only_so_many_calls_are_remembered() -> None:
    recorder = Recorder(max_calls=10, max_bytes=1000)
    for number in range(100):
        header = RequestHeader("A.b", number + 1)
        recorder.add(MockCall("A.b", "main", header, b"%d" % number, "mock", 0, ""))
        recorder.unexpected.append(UnexpectedCall("A.b", number, ""))
    assert [call.body for call in recorder.calls()] == [b"%d" % n for n in range(90, 100)]
    assert (recorder.forgotten, len(recorder.unexpected)) == (90, 10)
    recorder.add(MockCall("A.b", "main", RequestHeader("A.b", 1), bytes(999), "mock", 0, ""))
    assert [len(call.body) for call in recorder.calls()] == [999]
    recorder.clear()
    assert recorder.calls() == []


# -- beginning and end ------------------------------------------------------------------


async def test_actions_may_be_registered_before_the_mesh_is_up() -> None:
    mesh = MockMesh()
    mesh.action("A.b", returns=1)
    with pytest.raises(RuntimeError):
        _ = mesh.requester
    with pytest.raises(RuntimeError):
        await mesh.service("shop")
    async with mesh:
        assert await mesh.call("A.b") == 1
    with pytest.raises(RuntimeError):
        async with mesh:
            pass


async def test_a_client_with_options_of_its_own(mesh: MockMesh) -> None:
    mesh.action("A.b", returns=orjson.dumps(1))
    async with Requester(mesh.registry) as requester, await requester.request("A.b") as reply:
        assert await reply.json() == 1


# -- subscriptions ----------------------------------------------------------------------


async def test_a_mock_publishes_over_its_restart_elsewhere(mesh: MockMesh) -> None:
    service = await mesh.service("prices", instances=2)
    service.publish("price", "apple", 3)
    first, second = service.instances
    await second.kill(forget=True)
    async with mesh.requester.subscribe("prices", ["price"]) as prices:
        assert prices.value("price", "apple") == 3
        assert first.subscribers == 1
        await prices.notify({"seen": True})
        await until(lambda: list(service.notices) == [{"seen": True}])
        before = first.address
        await first.kill()
        service.publish("price", "apple", None)
        service.publish("price", "pear", 4)
        await until(lambda: not prices.ready)
        await first.start(elsewhere=True)
        assert first.address != before
        await prices.wait_ready()
        assert prices.address == first.address
        assert prices.snapshot() == {"price": {"pear": 4}}
    assert service.notices


async def test_what_cannot_be_published_is_told_also_while_nothing_runs(mesh: MockMesh) -> None:
    service = await mesh.service("prices")
    await service.instances[0].kill()
    with pytest.raises(LocalProtocolError):
        service.publish("price", "apple", object())
    service.publish("price", "apple", 1)
    await service.instances[0].start()
    async with mesh.requester.subscribe("prices", ["price"]) as prices:
        assert prices.snapshot() == {"price": {"apple": 1}}


def test_a_mesh_of_another_loop_says_so() -> None:
    async def make() -> MockMesh:
        return await MockMesh().__aenter__()

    with asyncio.Runner() as own, asyncio.Runner() as other:
        mesh = own.run(make())
        try:
            with pytest.raises(RuntimeError, match="loop_scope"):
                other.run(mesh.call("A.b"))
        finally:
            own.run(mesh.__aexit__(None, None, None))
