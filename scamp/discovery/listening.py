"""Listening to a multicast group: the shell that has a socket, a clock and a worker thread.

What comes in waits in an `Intake`; in rounds, a worker thread verifies it and keeps a `LiveIndex`.
Who listens takes one round after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from scamp import limits
from scamp.discovery.intake import Intake, Packet
from scamp.discovery.live import Heard, Kind, LiveIndex
from scamp.discovery.multicast import (
    MulticastGroup,
    decode_packet,
    open_receiver,
    open_receiver_anyway,
)
from scamp.discovery.pace import Pace
from scamp.discovery.worker import Worker
from scamp.errors import AnnouncementError, ConfigError

logger: logging.Logger = logging.getLogger("scamp.discovery")

MAX_WAIT: Final = 1.0
"""Longest pause between two rounds, in seconds."""

PAUSE: Final = 0.5
"""Pause after a round that failed, in seconds."""

_SPACING: Final = 0.05
"""Shortest one: what comes meanwhile makes one round, whose cost is mostly that of any."""

_BATCH: Final = 64
"""Datagrams that are read before others on the event loop have their turn."""

_LAST_BATCHES: Final = 16
"""How many of them are read of a socket that another one takes over from: some milliseconds' work,
and what a mesh of 5,000 services sends in a second."""

_BREATH: Final = 0.005
"""Seconds for which a flood is then left to the kernel."""

Rejection = tuple[str, str, str]  # claimed identity or "?", reason, detail


@dataclass(frozen=True, slots=True)
class Round:
    """What one round gave. `dropped`: packets that were lost because too many came at once.
    `verified` counts the signatures that were checked, `cpu` the worker's seconds."""

    heard: tuple[Heard, ...] = ()
    refused: tuple[Rejection, ...] = ()
    dropped: int = 0
    verified: int = 0
    cpu: float = 0.0


@dataclass(slots=True)
class _Work:
    """What a round gave so far. `costs`: seconds for each packet that was looked at."""

    dropped: int
    heard: list[tuple[Heard, str]] = field(default_factory=list)  # and from where
    gone: tuple[Heard, ...] = ()
    refused: list[Rejection] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    verified: int = 0
    cpu: float = 0.0

    def round(self) -> Round:
        heard = (*(one for one, _ in self.heard), *self.gone)
        return Round(heard, tuple(self.refused), self.dropped, self.verified, self.cpu)


class Listening:
    """The group's announcements, round by round.

    `index` belongs to the worker thread: look at it there, by `in_worker`. Methods belong to the
    loop that `start` runs on.

    An interface that loses its address takes our membership with it, and what comes back is
    another as far as the system is concerned; nobody tells. So every `limits.REJOIN` seconds we
    join anew, beside the old socket, which sends nothing and loses nothing. When nothing was
    heard for `limits.SILENCE` we leave first, so that switches are told once more.
    """

    def __init__(self, group: MulticastGroup, index: LiveIndex) -> None:
        self.group = group
        self.index = index
        self.heard_at: float | None = None
        """When the last good announcement came, in seconds since 1970."""
        self._intake = Intake()
        self._arrived = asyncio.Event()
        self._socket: socket.socket | None = None
        self._worker = Worker("scamp-listening")
        self._breath: asyncio.TimerHandle | None = None
        self._dropped = 0
        self._unexpected = ""
        self._last_round = 0.0
        self._last_sound = 0.0
        self._joined = 0.0
        self._missing: str | None = None
        self._silence: str | None = None

    def start(self) -> None:
        """Begin to listen. Raises `ConfigError` when the group cannot be joined, `RuntimeError`
        when already started."""
        if self._socket is not None:
            raise RuntimeError("already started")
        self._last_sound = self._joined = asyncio.get_running_loop().time()
        self._attach(open_receiver(self.group))

    @property
    def problem(self) -> str | None:
        """What is wrong with an interface, or that nothing is heard; None when all is well."""
        return self._missing or self._silence

    async def stop(self) -> None:
        """Close the socket and end the thread, behind what it still does. May be called twice."""
        self._detach()
        await self._worker.stop()

    async def next_round(self, timeout: float = MAX_WAIT) -> Round:
        """Wait for announcements, or until one expires, or for `timeout` seconds; then look.

        A round ends after `limits.ROUND_CPU` seconds of CPU; what is left waits for the next.
        When it is cancelled, what the round gave is lost: stop afterwards.
        """
        loop = asyncio.get_running_loop()
        if not len(self._intake):
            self._arrived.clear()
            wait = min(timeout, MAX_WAIT, max(0.0, self.index.next_expiry - loop.time()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._arrived.wait()
        await asyncio.sleep(max(0.0, self._last_round + _SPACING - loop.time()))
        now = self._last_round = loop.time()
        dropped = self._intake.dropped - self._dropped
        self._dropped += dropped
        taken = self._intake.take(now)
        work = _Work(dropped)
        try:
            await self.in_worker(self._look_at, taken, now, time.time(), work)
        finally:
            self._intake.looked_at(taken, work.costs, now)
        self._recognise(work)
        found = work.round()
        self._mind_silence(found, loop.time())
        self._mind_membership(loop.time())
        return found

    def _recognise(self, work: _Work) -> None:
        for one, source in work.heard:
            key = one.service.key
            if one.kind in (Kind.LEFT, Kind.AWAY):
                self._intake.forget(key)
            elif one.kind is Kind.REPEATED and self._intake.recognises(key):
                continue  # anybody can repeat it, from anywhere
            elif self.index.is_trusted(key[0]):
                self._intake.recognise(key, source)
        for silent in work.gone:
            self._intake.forget(silent.service.key)

    async def in_worker(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run something in the worker thread, after what it does now."""
        return await self._worker.run(work, *args)

    # -- in the worker ------------------------------------------------------------------

    def _look_at(self, packets: list[Packet], now: float, wall: float, work: _Work) -> None:
        verified, spent = self.index.verified, time.thread_time()
        until = spent + limits.ROUND_CPU
        pause = Pace()
        for packet in packets:
            pause()
            began = spent
            try:
                found = self.index.hear(decode_packet(packet.data), now, wall)
                work.heard.append((found, packet.source))
            except AnnouncementError as exc:
                work.refused.append((packet.identity or "?", exc.reason, exc.detail))
            except Exception as exc:  # ours, and no reason to lose what others say
                work.refused.append((packet.identity or "?", "unexpected", repr(exc)))
                self._tell_unexpected(exc)
            spent = time.thread_time()
            work.costs.append(spent - began)
            work.cpu += spent - began
            if spent > until:
                break
        work.gone = self.index.expire(now)
        work.verified = self.index.verified - verified

    def _tell_unexpected(self, exc: Exception) -> None:
        text = repr(exc)
        if text != self._unexpected:
            self._unexpected = text
            logger.error("an announcement failed us", exc_info=exc)

    # -- the socket ---------------------------------------------------------------------

    def _attach(self, sock: socket.socket) -> None:
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read)

    def _detach(self) -> None:
        sock, self._socket = self._socket, None
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _read(self) -> None:
        if self._socket is None:  # pragma: no cover - the loop was about to call
            return
        if self._read_some(self._socket):
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            self._breath = loop.call_later(_BREATH, self._breathed)

    def _read_some(self, sock: socket.socket) -> bool:
        """Whether there may be more."""
        self._arrived.set()
        for _ in range(_BATCH):
            try:
                data, address = sock.recvfrom(limits.MAX_DATAGRAM + 1)
            except BlockingIOError:
                break
            except OSError as exc:
                logger.warning("%s: %s", self.group, exc.strerror or exc)
                break
            self._intake.put(data, address[0])
        else:
            return True
        return False

    def _breathed(self) -> None:
        self._breath = None
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _mind_silence(self, found: Round, now: float) -> None:
        if any(one.kind is not Kind.EXPIRED for one in found.heard):
            self._last_sound = now
            self.heard_at = time.time()
            self._silence = None
        elif now - self._last_sound > limits.SILENCE:
            self._last_sound = now
            self._silence = f"nothing is heard on {self.group}"
            self._detach()
            self._joined = -math.inf

    def _mind_membership(self, now: float) -> None:
        if now - self._joined < limits.REJOIN:
            return
        self._joined = now
        try:
            fresh, problems = open_receiver_anyway(self.group)
        except ConfigError as exc:
            self._missing = str(exc)
            return
        self._missing = "; ".join(problems) or None
        if self._socket is not None:
            for _ in range(_LAST_BATCHES):
                if not self._read_some(self._socket):
                    break
        self._detach()
        self._attach(fresh)
