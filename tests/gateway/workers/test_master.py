"""The master without processes: what it makes of what workers say, and of a full machine."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.activation import Notifier
from gateway.listener import Sockets
from gateway.settings import Settings
from gateway.sources import Loaded
from gateway.takeover import Acquired, Predecessor, pack, unpack
from gateway.workers import worker as messages
from gateway.workers.ledger import Ledger
from gateway.workers.master import Application, Master
from gateway.workers.team import Team
from gateway.workers.worker import GatewayWorker, Shared


@pytest.fixture
def said() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def master(tmp_path: Path, said: list[tuple[str, str]]) -> Iterator[Master]:
    with made(tmp_path, said) as one:
        yield one


@contextmanager
def made(
    folder: Path, said: list[tuple[str, str]], predecessor: Predecessor | None = None
) -> Iterator[Master]:
    loaded, ledger = Loaded(Settings(workers=2, takeover_socket=folder / "post")), Ledger(folder)

    def team(index: int, birth: int) -> Team:
        raise NotImplementedError

    with socket.socket() as admin:
        admin.bind(("127.0.0.1", 0))
        sockets = Sockets([], [admin])
        shared = Shared(loaded, sockets, folder, None, team)
        acquired = Acquired(sockets, predecessor)
        one = Master(
            Application(shared), ledger, lambda *urls: said.append(urls), acquired, Notifier({})
        )
        yield one
        one._abandon()


def fill(master: Master, index: int, birth: int) -> socket.socket:
    """Put a worker into a place; the worker's end of the channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    slot = master.slots[index]
    one = SimpleNamespace(
        master_end=ours, channel=theirs, slot=slot, began=0.0, age=birth, aborted=False
    )
    slot.worker = worker = cast(GatewayWorker, one)
    master.watch(ours, lambda: master._hear(worker))
    return theirs


READY = b"\0".join([messages.READY, b"http://a", b"http://b"])


def test_it_is_told_once_that_all_are_ready(
    master: Master, said: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(fill(master, 0, 1)) as one, closing(fill(master, 1, 2)) as two:
        one.send(READY)
        master.wait_for_signals(0)
        assert said == []
        two.send(READY)
        master.wait_for_signals(0)
        assert said == [("http://a", "http://b")]
        master.handle_hup()
        assert one.recv(100) == two.recv(100) == messages.RELOAD
        worker = master.slots[0].worker
        assert worker is not None
        master.lost(worker)
    with closing(fill(master, 0, 3)) as three:
        three.send(READY)
        master.wait_for_signals(0)
        three.send(messages.BAD_SETTINGS + b"\0the key is bad")
        master.wait_for_signals(0)
    assert len(said) == 1
    assert "worker 1 cannot serve: the key is bad" in caplog.text
    assert master.bad_settings is None, "the others go on"


@pytest.mark.parametrize(
    ("what", "status", "bad_settings"),
    [(messages.BAD_SETTINGS, 2, "the key\nis bad"), (messages.FAILED, 1, None)],
)
def test_what_the_first_workers_cannot_do_ends_it(
    master: Master, what: bytes, status: int, bad_settings: str | None
) -> None:
    with closing(fill(master, 0, 1)) as one, closing(fill(master, 1, 2)) as two:
        one.send(what + b"\0the key\nis bad")
        with pytest.raises(SystemExit) as caught:
            master.wait_for_signals(0)
        assert caught.value.code == status
        assert two.recv(100) == messages.INTERRUPT
    assert master.bad_settings == bad_settings


def test_a_machine_on_which_nothing_can_be_started_is_tried_again(
    master: Master, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(master, "spawn_worker", no_fork)
    with caplog.at_level(logging.ERROR):
        master.spawn_workers()
        master.spawn_workers()
    assert caplog.text.count("cannot be started") == 2, "once for each place"
    assert all(slot.due > 0 for slot in master.slots)


# -- taking over ------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[tuple[socket.socket, Predecessor]]:
    """The gateway that is to be replaced: its end of the connection, and ours."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with theirs, ours:
        yield theirs, Predecessor(ours)


def test_another_gateway_is_told_once_when_all_workers_serve(
    tmp_path: Path, said: list[tuple[str, str]], other: tuple[socket.socket, Predecessor]
) -> None:
    theirs, predecessor = other
    theirs.send(pack({"leaving": True}))
    with (
        made(tmp_path, said, predecessor) as master,
        closing(fill(master, 0, 1)) as one,
        closing(fill(master, 1, 2)) as two,
    ):
        one.send(messages.SERVING)
        two.send(messages.SERVING)
        master._hear(worker_at(master, 0))
        master.lost(worker_at(master, 0))
        master.wait_for_signals(0)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        with closing(fill(master, 0, 3)) as three:
            three.send(messages.SERVING)
            master.SIG_QUEUE.put(signal.SIGTERM)
            assert master.wait_for_signals(0) == [signal.SIGTERM]
            with pytest.raises(BlockingIOError):
                theirs.recv(100)  # we leave: it goes on
            master.wait_for_signals(0)
            assert unpack(theirs.recv(100)) == {"serving": True}
            assert two.recv(100) == three.recv(100) == messages.ALONE
            assert not master.app.shared.replaces, "the next workers need not wait"
            for worker in two, three:
                worker.send(READY)
            master.wait_for_signals(0)
            assert said == [("http://a", "http://b")]


def worker_at(master: Master, index: int) -> GatewayWorker:
    worker = master.slots[index].worker
    assert worker is not None
    return worker


def test_when_the_other_gateway_goes_on_we_leave(
    tmp_path: Path, said: list[tuple[str, str]], other: tuple[socket.socket, Predecessor]
) -> None:
    theirs, predecessor = other
    theirs.send(pack({"error": "enough"}))
    with made(tmp_path, said, predecessor) as master:
        with closing(fill(master, 0, 1)) as one, closing(fill(master, 1, 2)) as two:
            one.send(messages.SERVING)
            two.send(messages.SERVING)
            with pytest.raises(SystemExit):
                master.wait_for_signals(0)
            assert one.recv(100) == messages.INTERRUPT
        assert master.bad_settings == "process 0 goes on: enough"


def test_what_a_master_does_later_is_done_in_order_unless_called_off(master: Master) -> None:
    done: list[int] = []
    master.later(0.002, lambda: done.append(2))
    master.later(0.001, lambda: done.append(1))
    call_off = master.later(0.001, lambda: done.append(3))
    call_off()
    call_off()
    while len(done) < 2:
        master.wait_for_signals(1)
    assert done == [1, 2]


def test_a_worker_keeps_nothing_open_that_is_between_two_gateways(
    tmp_path: Path, said: list[tuple[str, str]], other: tuple[socket.socket, Predecessor]
) -> None:
    theirs, predecessor = other
    with made(tmp_path, said, predecessor) as master:
        with closing(fill(master, 0, 1)) as one, closing(fill(master, 1, 2)) as two:
            for worker in one, two:
                worker.send(READY)
            master.wait_for_signals(0)
            master._abandon()
        assert theirs.recv(100) == b""
        late = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with late, pytest.raises(ConnectionRefusedError):
            late.connect(str(tmp_path / "post"))
    assert (tmp_path / "post").is_socket(), "it is the master's to remove"
