"""A machine that vanishes: no FIN, no RST, every packet into nothing.

A network namespace of its own is that machine. It takes root and iproute2 to make one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from scamp.client import ClientOptions
from scamp.testing import Mesh, Script, ScriptedPeer, make_identity
from scamp.testing.scripts import echo, silent

NEAR: Final = "198.51.100.1"
FAR: Final = "198.51.100.2"

QUICK: Final = ClientOptions(
    tcp_keepalive_idle=1, tcp_keepalive_interval=1, tcp_user_timeout=1.0, connect_timeout=1.0
)
_CLONE_NEWNET: Final = 0x40000000


class Far:
    """The other machine."""

    def __init__(self, name: str, veth: str) -> None:
        self.name = name
        self.veth = veth

    def up(self) -> None:
        """Bring it up, next to this one."""
        ip("netns", "add", self.name)
        ip("link", "add", self.veth, "type", "veth", "peer", "name", "far0", "netns", self.name)
        ip("addr", "add", f"{NEAR}/30", "dev", self.veth)
        ip("link", "set", self.veth, "up")
        ip("-n", self.name, "addr", "add", f"{FAR}/30", "dev", "far0")
        ip("-n", self.name, "link", "set", "far0", "up")

    def vanish(self) -> None:
        """Nothing comes from it any more, and what is sent to it is dropped."""
        ip("-n", self.name, "route", "add", "blackhole", f"{NEAR}/32")

    def listening(self) -> socket.socket:
        """A socket that is bound there."""
        with ThreadPoolExecutor(1) as thread:  # the namespace is a thread's
            return thread.submit(self._listening).result()

    def _listening(self) -> socket.socket:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.name).open() as there:
            if libc.setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        sock = socket.socket()
        sock.bind((FAR, 0))
        return sock

    def down(self) -> None:
        """Take it away."""
        ip("link", "del", self.veth, check=False)
        ip("netns", "del", self.name, check=False)


def ip(*arguments: str, check: bool = True) -> None:
    """Run ``ip``. Raises CalledProcessError."""
    command = shutil.which("ip") or "ip"
    subprocess.run([command, *arguments], check=check, capture_output=True, timeout=10)


@pytest.fixture
def far() -> Iterator[Far]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("takes root and iproute2")
    made = Far(f"scamp-{os.getpid()}", f"scamp{os.getpid()}"[:15])
    try:
        made.up()
    except (OSError, subprocess.SubprocessError) as exc:
        made.down()
        pytest.skip(f"no network namespace can be made here: {exc}")
    try:
        yield made
    finally:
        made.down()


async def test_a_read_that_a_dead_machine_has_goes_to_another(far: Far) -> None:
    """Nothing waits to be acknowledged: the probes find it, long before the deadline."""
    async with machines(far, silent, QUICK) as (mesh, dead, other):
        asked = asyncio.create_task(mesh.requester.request("Test.echo", b"[1]", timeout=60))
        await dead.until(lambda: dead.requests == 1)
        far.vanish()
        reply = await asked
        assert await reply.read_all() == b"[1]"
        assert (reply.attempts, other.requests) == (2, 1)


async def test_so_does_one_that_is_sent_into_nothing(far: Far) -> None:
    """It is never acknowledged: that alone ends the connection, though probes are off."""
    options = replace(QUICK, tcp_keepalive_idle=0)
    async with machines(far, echo, options) as (mesh, dead, other):
        await (await mesh.requester.request("Test.echo", b"[0]")).read_all()
        assert dead.requests == 1
        far.vanish()
        reply = await mesh.requester.request("Test.echo", b"[1]", timeout=60)
        assert await reply.read_all() == b"[1]"
        assert (reply.attempts, other.requests) == (2, 1)


@asynccontextmanager
async def machines(
    far: Far, script: Script, options: ClientOptions
) -> AsyncIterator[tuple[Mesh, ScriptedPeer, ScriptedPeer]]:
    """The one that dies, with nearly all the weight, and another."""
    dead = ScriptedPeer(script, flags="noauth,read", weight=10**6)
    other = ScriptedPeer(echo, flags="noauth,read", identity=make_identity(1))
    async with Mesh(other, options=options) as mesh:
        await dead.listen(far.listening())
        try:
            mesh.announce(dead)
            yield mesh, dead, other
        finally:
            await dead.stop()
