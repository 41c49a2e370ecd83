"""One worker process: a gateway that takes its orders from the master and not from signals.

A signal to the whole process group or control group (Ctrl-C, systemd's default) reaches master and
workers both. Were the master to pass it on as a signal, each would get it twice, and a second one
means: now.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gunicorn.workers.base import Worker

from gateway.activation import Notifier
from gateway.lifecycle import run
from gateway.listener import Sockets
from gateway.signals import Triggers
from gateway.sources import Loaded
from gateway.workers.shares import share
from gateway.workers.team import Team
from scamp import logs
from scamp.errors import ConfigError

if TYPE_CHECKING:
    from gateway.workers.master import Application, Slot

log = logging.getLogger("gateway.workers")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

TERMINATE: Final = b"terminate"
INTERRUPT: Final = b"interrupt"
RELOAD: Final = b"reload"
ALONE: Final = b"alone"
"""Who was to be replaced knows."""
REPLACED: Final = b"replaced"
"""Another gateway serves; followed by the listeners that it has from us."""

SERVING: Final = b"serving"
"""As the one that is to be replaced does, too."""
READY: Final = b"ready"
BAD_SETTINGS: Final = b"bad settings"
FAILED: Final = b"failed"
RELOADED: Final = b"reloaded"

MAX_MESSAGE: Final = 1 << 16
"""Bytes of a message either way. The longest is a routes file's list of mistakes, cut off there."""

_HEARTBEAT: Final = 0.5
_LEAVING: Final = 20.0
"""Seconds beyond delay and limit of draining that leaving may take."""


class Orders(Triggers):
    """Triggers that the master pulls. When it is gone the worker leaves, without a delay: nobody
    would replace it, and somebody waits for the port."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self._channel = channel
        self.orphaned = False
        """Whether the master is gone."""
        self.alone = asyncio.Event()
        """Nobody has to be replaced any more."""

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Pulled by orders until the block ends, and by no signal."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._channel.fileno())

    def _read(self) -> None:
        try:
            order = self._channel.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            order = b""
        order, *rest = order.split(b"\0")
        if order == RELOAD:
            self.reload.set()
        elif order == ALONE:
            self.alone.set()
        elif order == REPLACED:
            self.replace(frozenset(name.decode() for name in rest))
        elif order == TERMINATE:
            self.terminate()
        elif order == INTERRUPT:
            self.interrupt()
        elif not order:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            log.error("the master is gone; leaving")
            self.orphaned = True
            self.interrupt()


class Beside:
    """The `lifecycle.Trial` of a worker: the master tells the other process, once all serve."""

    def __init__(self, orders: Orders, tell: Callable[[bytes], None]) -> None:
        self._orders = orders
        self._tell = tell

    @property
    def over(self) -> bool:
        """Whether the other process knows."""
        return self._orders.alone.is_set()

    async def until_over(self) -> None:
        """Tell that we serve, and wait until the other process knows."""
        self._tell(SERVING)
        await self._orders.alone.wait()


class Relay(Notifier):
    """Tells the master, and only that files were looked at: the rest it knows."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        super().__init__({})
        self._tell = tell

    def ready(self) -> None:
        """Files were looked at, in the beginning or once more."""
        self._tell(RELOADED)


@dataclass(slots=True)
class Shared:
    """What the master made for all workers. `birth` numbers processes, `index` places."""

    loaded: Loaded
    sockets: Sockets
    directory: Path
    """For what they have in files."""
    loop_factory: LoopFactory | None
    team: Callable[[int, int], Team]
    """By index and birth."""
    replaces: bool = False
    """There is a process that is to be replaced, and does not know of us yet."""


class GatewayWorker(Worker):
    """gunicorn makes it in the master, forks, and calls `init_process` in the child."""

    app: Application

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.slot: Slot = self.app.filling
        self.began = time.monotonic()
        self.master_end, self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.master_end.setblocking(False)
        self.channel.setblocking(False)

    def init_process(self) -> None:
        """Everything that the process does. Does not return."""
        self.booted = True  # an exit is ours to explain
        signal.set_wakeup_fd(-1)
        self.app.abandon()
        self.master_end.close()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        faulthandler.enable()  # tells where we hang, when the master sends SIGABRT
        logs.bind_more(worker=self.slot.index + 1)
        shared = self.app.shared
        settings = shared.loaded.settings
        leash = (self.channel.fileno(), settings.drain_limit + _LEAVING)
        threading.Thread(target=_leash, args=leash, name="leash", daemon=True).start()
        sys.exit(self._serve(shared))

    def _serve(self, shared: Shared) -> int:
        mine = shared.sockets.part(self.slot.index, shared.loaded.settings.workers)
        for sock in shared.sockets.public:
            if sock not in mine.public:
                sock.close()
        try:
            with asyncio.Runner(loop_factory=shared.loop_factory) as runner:
                return runner.run(self._run(shared, mine))
        except ConfigError as exc:
            self._tell(BAD_SETTINGS, str(exc))
        except Exception as exc:
            log.exception("worker failed")
            self._tell(FAILED, str(exc) or type(exc).__name__)
        return 1

    async def _run(self, shared: Shared, sockets: Sockets) -> int:
        beating = asyncio.create_task(self._beat())
        orders = Orders(self.channel)
        team = shared.team(self.slot.index, self.age)
        try:
            return await run(
                share(shared.loaded),
                ready=lambda *urls: self._tell(READY, *urls),
                triggers=orders,
                sockets=sockets,
                team=team,
                trial=Beside(orders, self._tell) if shared.replaces else None,
                notifier=Relay(self._tell),
            )
        finally:
            beating.cancel()
            if orders.orphaned:
                team.ledger.remove()

    async def _beat(self) -> None:
        while True:
            self.notify()
            await asyncio.sleep(_HEARTBEAT)

    def _tell(self, what: bytes, *texts: str) -> None:
        message = b"\0".join([what, *(text.encode() for text in texts)])
        with suppress(OSError):  # the master is gone: there is a leash for that
            self.channel.send(message[: MAX_MESSAGE - 1])


def _leash(channel: int, limit: float) -> None:
    """End the process `limit` seconds after the master died, whatever its loop is doing."""
    poll = select.poll()
    poll.register(channel, 0)  # tells of a hang-up only
    poll.poll()
    time.sleep(limit)
    os._exit(1)
