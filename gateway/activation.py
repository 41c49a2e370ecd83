"""What systemd gives a service and wants to hear from it: sd_listen_fds(3) and sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final

from scamp.errors import ConfigError

FIRST: Final = 3
"""Descriptor of the first socket that is passed."""

MAX_PASSED: Final = 4096
"""Sockets that are taken; far more than listeners have."""

NAMES: Final = ("public", "admin")

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


def passed_sockets(
    environment: MutableMapping[str, str] | None = None, *, first: int | None = None
) -> dict[str, list[socket.socket]]:
    """The listening sockets that systemd passed to this process, by listener.

    The variables are removed, so that no child takes them for its own. Sockets for another process
    are not touched. Raises `ConfigError` for those that no listener can have.
    """
    environment = os.environ if environment is None else environment
    first = FIRST if first is None else first
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    count = environment.pop("LISTEN_FDS", "")
    if environment.pop("LISTEN_PID", "") != str(os.getpid()) or not count:
        return {}
    if not (count.isascii() and count.isdigit()) or not int(count) <= MAX_PASSED:
        raise ConfigError(f"LISTEN_FDS: {count[:20]!r} is no number of sockets")
    if len(names) != int(count) or not set(names) <= set(NAMES):
        raise ConfigError(
            f"systemd passes {count} sockets, called {', '.join(names) or 'nothing'}: each "
            "needs FileDescriptorName=public or FileDescriptorName=admin"
        )
    found: dict[str, list[socket.socket]] = {}
    for number, name in enumerate(names):
        found.setdefault(name, []).append(adopt(first + number, name))
    return found


def adopt(descriptor: int, name: str) -> socket.socket:
    """The listening socket that another process passed; closed, with `ConfigError`, when it is
    something else. No child inherits it."""
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        with suppress(OSError):
            os.close(descriptor)
        raise ConfigError(f"descriptor {descriptor} ({name}) is no socket: {exc.strerror}") from exc
    if sock.family not in _FAMILIES or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise ConfigError(f"descriptor {descriptor} ({name}) is no listening TCP socket")
    sock.setblocking(False)
    return sock


class Notifier:
    """Tells the service manager how it is; does nothing where there is none."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Takes its variables out of `environment`: what children say is not what we say."""
        environment = os.environ if environment is None else environment
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self.pause = _pause(environment.pop("WATCHDOG_USEC", ""))
        """Seconds between two calls of `alive` at most; None when nobody waits for them."""
        # Not looked at: a process that takes over is watched in place of the one that was started.
        environment.pop("WATCHDOG_PID", None)
        self._due = 0.0

    def ready(self) -> None:
        """Requests are answered; also after `reloading`. A process that took over is the one to
        watch from now on."""
        self._say({"READY": "1", "MAINPID": str(os.getpid())})

    def reloading(self) -> None:
        """Files are looked at; `ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say({"RELOADING": "1", "MONOTONIC_USEC": str(now)})

    def stopping(self) -> None:
        """It drains."""
        self._say({"STOPPING": "1"})

    def alive(self) -> None:
        """It does not hang. May be called as often as one likes."""
        if self.pause is not None and (now := time.monotonic()) >= self._due:
            self._due = now + self.pause / 2
            self._say({"WATCHDOG": "1"})

    def _say(self, state: Mapping[str, str]) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        text = "\n".join(f"{name}={value}" for name, value in state.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), address)


def _pause(microseconds: str) -> float | None:
    """Half of the watchdog's patience (sd_watchdog_enabled(3))."""
    if not (microseconds.isascii() and microseconds.isdigit() and int(microseconds)):
        return None
    return int(microseconds) / 2_000_000
