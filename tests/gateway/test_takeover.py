"""One process takes the sockets over from another: no request is lost, whatever happens midway."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import lifecycle, successors, takeover
from gateway.activation import adopt
from gateway.lifecycle import Gateway, run
from gateway.listener import Sockets, open_sockets
from gateway.setting_types import Address
from gateway.settings import Settings
from gateway.signals import Triggers
from gateway.successors import Held, Successors
from gateway.takeover import Predecessor, acquire
from scamp.errors import ConfigError
from scamp.testing import until
from stand import Stand, stand


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sessions of these tests keep connections that nobody uses."""
    monkeypatch.setattr(lifecycle, "LINGER", 0.2)


class Process:
    """A gateway under `run`, as the command does it; the sockets are acquired in a thread."""

    def __init__(self, mesh: Stand, **settings: Any) -> None:
        self.triggers = Triggers()
        self.urls: tuple[str, str] = ("", "")
        self.up = asyncio.Event()
        self._loaded = mesh.loaded(takeover_socket=mesh.folder / "takeover", **settings)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> int:
        acquired = await asyncio.to_thread(acquire, self._loaded.settings)
        return await run(self._loaded, ready=self._ready, triggers=self.triggers, acquired=acquired)

    def _ready(self, *urls: str) -> None:
        self.urls = (urls[0], urls[1])
        self.up.set()

    async def serving(self) -> None:
        """Wait for that; raises what kept it from it."""
        waiting = asyncio.create_task(self.up.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.task.done():
            self.task.result()

    async def end(self) -> None:
        self.triggers.terminate()
        self.triggers.terminate()
        await asyncio.wait({self.task})


@asynccontextmanager
async def process(mesh: Stand, **settings: Any) -> AsyncIterator[Process]:
    one = Process(mesh, **settings)
    try:
        await one.serving()
        yield one
    finally:
        await one.end()


async def status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as answer:
        await answer.read()
        return answer.status


async def test_one_after_another_takes_over_and_requests_under_way_are_finished(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(process(mesh, drain_delay=1000))
        for _ in range(3):
            request = asyncio.create_task(status(http, f"{old.urls[0]}/api/Test.Gate.wait"))
            await until(lambda: mesh.waiting == 1)
            new = await stack.enter_async_context(process(mesh, drain_delay=1000))
            assert new.urls == old.urls
            assert await status(http, f"{new.urls[1]}/readyz") == 200
            assert await status(http, f"{new.urls[0]}/api/Test.Gate.open") == 200
            assert not old.task.done()
            mesh.gate.set()
            assert await request == 200
            assert await old.task == 0, "without the drain delay"
            assert (mesh.folder / "takeover").is_socket()
            mesh.gate.clear()
            old = new
    assert not (mesh.folder / "takeover").exists()
    assert [path.name for path in mesh.folder.glob("takeover*")] == []


async def test_clients_that_never_rest_notice_nothing(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(process(mesh))
        public, admin = old.urls
        seen: list[int] = []
        done = asyncio.Event()

        async def keep_asking(url: str) -> None:
            while not done.is_set():
                seen.append(await status(http, url))

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(keep_asking(f"{public}/api/Test.Gate.open"))
            group.create_task(keep_asking(f"{admin}/readyz"))
            for _ in range(3):
                asked = len(seen)
                await until(lambda: len(seen) > asked + 20)  # noqa: B023
                new = await stack.enter_async_context(process(mesh))
                assert await old.task == 0
                old = new
            done.set()
        assert set(seen) == {200}


async def test_what_is_not_ready_does_not_take_over(
    mesh: Stand, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "READY_LIMIT", 0.2)
    async with process(mesh) as old:
        with pytest.raises(ConfigError, match=r"not ready within 0\.2 s, the old process goes on"):
            async with process(mesh, discovery_cache=mesh.folder / "none"):
                pass
        assert await status(http, f"{old.urls[0]}/api/Test.Gate.open") == 200
        async with process(mesh) as new:
            assert await old.task == 0
            assert await status(http, f"{new.urls[0]}/api/Test.Gate.open") == 200


async def test_what_dies_before_it_serves_does_not_take_over(
    mesh: Stand, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with process(mesh) as old:
        half = await asyncio.to_thread(acquire, old._loaded.settings)
        with pytest.raises(ConfigError, match="another process is about to take over"):
            await asyncio.to_thread(acquire, old._loaded.settings)
        half.close()
        await until(lambda: "does not take over, going on" in caplog.text)
        assert await status(http, f"{old.urls[0]}/api/Test.Gate.open") == 200
        async with process(mesh):
            assert await old.task == 0


async def test_the_old_process_may_die_at_any_time(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with process(mesh) as old:
        acquired = await asyncio.to_thread(acquire, old._loaded.settings)
        urls = old.urls
        old.task.cancel()
        await asyncio.wait({old.task})
        assert (mesh.folder / "takeover").is_socket(), "it is the new one's already"
        triggers, up = Triggers(), asyncio.Event()
        new = asyncio.create_task(
            run(old._loaded, ready=lambda *_: up.set(), triggers=triggers, acquired=acquired)
        )
        try:
            await up.wait()
            assert await status(http, f"{urls[0]}/api/Test.Gate.open") == 200
            async with process(mesh):
                assert await new == 0
        finally:
            triggers.terminate()
            await asyncio.wait({new})


async def test_told_to_stop_while_another_is_about_to_take_over(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with process(mesh) as old:
        acquired = await asyncio.to_thread(acquire, old._loaded.settings)
        old.triggers.terminate()
        assert await old.task == 0
        asked = asyncio.create_task(status(http, f"{old.urls[0]}/api/Test.Gate.open"))
        triggers, up = Triggers(), asyncio.Event()
        new = asyncio.create_task(
            run(old._loaded, ready=lambda *_: up.set(), triggers=triggers, acquired=acquired)
        )
        assert await asked == 200, "it waited in the queue that both share"
        await up.wait()
        triggers.terminate()
        assert await new == 0


async def test_a_new_process_that_is_told_to_stop_leaves_the_old_one_serving(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with process(mesh) as old:
        acquired = await asyncio.to_thread(acquire, old._loaded.settings)
        triggers = Triggers()
        triggers.terminate()
        assert await run(
            old._loaded, ready=lambda *_: None, triggers=triggers, acquired=acquired
        ) == 0  # fmt: skip
        assert await status(http, f"{old.urls[0]}/api/Test.Gate.open") == 200
        assert not old.task.done()


async def test_told_to_stop_when_it_serves_already_it_leaves_the_old_one_serving(
    mesh: Stand, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process(mesh) as old:
        acquired = await asyncio.to_thread(acquire, old._loaded.settings)
        triggers = Triggers()
        replace = Gateway._replace

        async def told_meanwhile(gateway: Gateway, predecessor: Predecessor) -> None:
            triggers.terminate()
            await replace(gateway, predecessor)

        monkeypatch.setattr(Gateway, "_replace", told_meanwhile)
        loaded = mesh.loaded(takeover_socket=mesh.folder / "takeover", drain_delay=1000)
        assert await run(loaded, ready=lambda *_: None, triggers=triggers, acquired=acquired) == 0
        assert await status(http, f"{old.urls[0]}/api/Test.Gate.open") == 200
        assert await status(http, f"{old.urls[1]}/readyz") == 200
        assert not old.task.done()


async def test_an_old_process_that_waited_too_long_goes_on(
    mesh: Stand,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(successors, "START_LIMIT", 0.1)
    async with process(mesh) as old:
        acquired = await asyncio.to_thread(acquire, old._loaded.settings)
        await until(lambda: "did not start within 0.1 s: going on" in caplog.text)
        with pytest.raises(ConfigError, match=r"goes on: it did not wait for more than 0\.1 s"):
            await run(old._loaded, ready=lambda *_: None, triggers=Triggers(),
                      acquired=acquired)  # fmt: skip
        assert await status(http, f"{old.urls[0]}/api/Test.Gate.open") == 200


async def test_addresses_that_differ_are_opened_and_the_old_drains_with_its_delay(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with process(mesh, drain_delay=1000) as old:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        async with process(mesh, bind=f"127.0.0.1:{port}") as new:
            assert new.urls == (f"http://127.0.0.1:{port}", old.urls[1])
            assert await status(http, f"{old.urls[0]}/api/Test.Gate.open") == 200
            assert not old.task.done()
            old.triggers.terminate()
            assert await old.task == 0


async def test_the_address_may_be_given_with_the_port_that_was_found(mesh: Stand) -> None:
    async with process(mesh) as old:
        where = old.urls[0].removeprefix("http://")
        async with process(mesh, bind=where) as new:
            assert new.urls == old.urls


# -- the path ---------------------------------------------------------------------------


def settings_with(path: Path, bind: str = "127.0.0.1:0") -> Settings:
    return Settings(bind=bind, admin_bind="127.0.0.1:0", takeover_socket=path)


@contextlib.contextmanager
def listening_at(path: Path, kind: int = socket.SOCK_SEQPACKET) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock


def test_a_process_that_hangs_does_not_keep_others_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(takeover, "ANSWER_LIMIT", 0.05)
    path = tmp_path / "takeover"
    with listening_at(path), socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = acquire(settings_with(path))
        assert found.predecessor is None
        found.close()
        assert f"the gateway at {path} does not answer" in caplog.text
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{where}: Address.*takeover does not answer"):
            acquire(settings_with(path, where))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"rubbish", "Expecting value"),
        (b"[]", "no object"),
        (b"[" * 4000, "too deep"),
        (b"x" * 5000, "too long"),
        (b'{"takeover": 2}', "version 2, not 1"),
        (b'{"takeover": 1, "public": -1}', "too many sockets"),
        (b'{"takeover": 1, "public": 4097}', "too many sockets"),
        (b'{"takeover": 1, "public": []}', "int"),
        (b'{"takeover": 1, "pid": Infinity}', "infinity"),
        (b'{"error": "no"}', "says: no"),
    ],
)
async def test_a_bad_answer_is_told(tmp_path: Path, answer: bytes, reason: str) -> None:
    path = tmp_path / "takeover"
    with listening_at(path) as post:
        asking = asyncio.create_task(asyncio.to_thread(acquire, settings_with(path)))
        connection = await asyncio.to_thread(post.accept)
        with connection[0]:
            connection[0].send(answer)
            with pytest.raises(ConfigError, match=f"cannot take over at {path}: .*{reason}"):
                await asking


@pytest.mark.parametrize(
    ("counts", "passed", "reason"),
    [
        ({"public": 1, "admin": 1}, 2, "fewer sockets"),
        ({"public": 1, "admin": 1}, 5, "more sockets"),
        ({"public": 1}, -1, "no listening TCP socket"),
        ({"public": 1}, 2, "something else for the path's socket"),
    ],
)
async def test_other_sockets_than_said_are_refused_and_closed(
    tmp_path: Path, counts: dict[str, int], passed: int, reason: str
) -> None:
    path = tmp_path / "takeover"
    before = set(os.listdir("/proc/self/fd"))
    with listening_at(path) as post, contextlib.ExitStack() as stack:
        asking = asyncio.create_task(asyncio.to_thread(acquire, settings_with(path)))
        connection, _ = await asyncio.to_thread(post.accept)
        stack.enter_context(connection)
        some = [stack.enter_context(socket.socket()) for _ in range(abs(passed))]
        if passed > 0:
            for sock in some:
                sock.listen()
        else:
            some.append(post)
        connection.send(takeover.pack({"takeover": 1, "pid": 1, **counts}))
        socket.send_fds(connection, [b"{}"], [sock.fileno() for sock in some])
        with contextlib.suppress(BrokenPipeError):  # it has had enough already
            connection.send(b"{}")
        with pytest.raises(ConfigError, match=reason):
            await asking
    assert not open_sockets_since(before)


def open_sockets_since(before: set[str]) -> list[str]:
    """Of this process."""
    found = []
    for number in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [one for one in found if one.startswith("socket:")]


def test_what_is_no_socket_is_closed_too(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ConfigError, match="is no socket"):
        adopt(descriptor, "public")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


async def test_who_dies_before_it_has_passed_anything_is_nobody(tmp_path: Path) -> None:
    path = tmp_path / "takeover"
    with listening_at(path) as post:
        asking = asyncio.create_task(asyncio.to_thread(acquire, settings_with(path)))
        connection, _ = await asyncio.to_thread(post.accept)
        connection.close()
        found = await asking
        assert found.predecessor is None
        found.close()


def test_another_users_process_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "takeover"
    monkeypatch.setattr(takeover, "trusted", lambda uid: False)
    with listening_at(path), pytest.raises(ConfigError, match="neither ours nor root"):
        acquire(settings_with(path))


def test_only_the_same_user_and_root_are_trusted() -> None:
    assert takeover.trusted(os.geteuid())
    assert takeover.trusted(0)
    assert not takeover.trusted(os.geteuid() + 4711)


def test_unsafe_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    for path, reason in (
        ("file", "no socket"),
        ("file/x", "no directory"),
        ("none/x", "No such file"),
        ("open/x", "others can write"),
        ("sticky/x", "others can write"),
        ("x" * 200, "longer than"),
    ):
        with pytest.raises(ConfigError, match=reason):
            acquire(settings_with(tmp_path / path))
    with listening_at(tmp_path / "stream", socket.SOCK_STREAM), pytest.raises(ConfigError):
        acquire(settings_with(tmp_path / "stream"))


@asynccontextmanager
async def waiting_at(path: Path, sockets: Sockets) -> AsyncIterator[tuple[Successors, list[Any]]]:
    told: list[Any] = []
    held = {
        "public": Held(Address("127.0.0.1", 0), sockets.public),
        "admin": Held(Address("127.0.0.1", 0), sockets.admin),
    }
    one = Successors(path, held, told.append)
    one.start()
    try:
        yield one, told
    finally:
        await one.close()


@pytest.fixture
def sockets() -> Iterator[Callable[[int], Sockets]]:
    made: list[socket.socket] = []

    def make(count: int) -> Sockets:
        own = [sock for _ in range(count) for sock in open_sockets(Address("127.0.0.1", 0))]
        for sock in own:
            sock.listen()
        made.extend(own)
        return Sockets(own[: count - 1], own[count - 1 :])

    yield make
    for sock in made:
        sock.close()


async def test_a_stale_socket_is_replaced_and_rights_are_narrow(
    tmp_path: Path, sockets: Callable[[int], Sockets]
) -> None:
    path = tmp_path / "takeover"
    with listening_at(path):
        pass
    assert acquire_closed(path)
    async with waiting_at(path, sockets(2)):
        assert rights(path) == 0o600
    assert not path.exists()


def rights(path: Path) -> int:
    assert [one.name for one in path.parent.iterdir()] == [path.name], "nothing else is left there"
    return path.stat().st_mode & 0o777


def acquire_closed(path: Path) -> bool:
    found = acquire(settings_with(path))
    found.close()
    return found.predecessor is None


async def test_the_path_is_left_alone_when_it_is_anothers(
    tmp_path: Path, sockets: Callable[[int], Sockets]
) -> None:
    path = tmp_path / "takeover"
    async with waiting_at(path, sockets(2)), waiting_at(path, sockets(2)) as (other, _):
        other._stamp = None
    assert path.is_socket()


async def test_any_number_of_sockets_is_passed(
    tmp_path: Path, sockets: Callable[[int], Sockets]
) -> None:
    own = sockets(200)
    async with waiting_at(tmp_path / "takeover", own) as (_, told):
        found = await asyncio.to_thread(acquire, settings_with(tmp_path / "takeover"))
        try:
            assert names(found.sockets.public) == names(own.public)
            assert names(found.sockets.admin) == names(own.admin)
            assert not any(os.get_inheritable(s.fileno()) for s in found.sockets.public)
            assert found.predecessor is not None
            await asyncio.to_thread(found.predecessor.replace)
            assert told == [{"public", "admin"}]
        finally:
            found.close()


def names(sockets: list[socket.socket]) -> list[Any]:
    return [sock.getsockname() for sock in sockets]


async def test_strangers_at_the_path_keep_nobody_from_it(
    tmp_path: Path,
    sockets: Callable[[int], Sockets],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(successors, "REQUEST_LIMIT", 0.05)
    path = tmp_path / "takeover"
    async with waiting_at(path, sockets(2)) as (_, told):
        with contextlib.ExitStack() as stack:
            for sent in (None, b"rubbish", b"[]", b"x" * 5000, b'{"takeover": 2}', b""):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                sock.connect(str(path))
                if sent is not None:
                    sock.send(sent)
            found = await asyncio.to_thread(acquire, settings_with(path))
            assert found.predecessor is not None
            found.close()
        await until(lambda: "going on" in caplog.text)
        monkeypatch.setattr(successors, "trusted", lambda uid: False)
        assert await asyncio.to_thread(acquire_closed, path), "to a stranger nothing is passed"
        assert told == []
