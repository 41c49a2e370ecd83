"""Many instances of one service in one process, half of which number their replies themselves.

``python -m tests.soak.crowd_services FOLDER INSTANCES`` finds key and certificate in FOLDER, writes
the discovery cache there and prints ``ready``. ``Crowd.echo`` answers at once, ``Crowd.hold`` when
``release`` was read from stdin, until ``hold`` is. Each line that is read is answered by how many
requests are held and how many connections are open, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Final

import uvloop

from scamp import keys
from scamp.discovery import AnnouncementSpec, build_announcement, write_cache
from scamp.testing import ECHOING, GO, PeerConnection, PeerRequest, ScriptedPeer, TestIdentity
from scamp.testing.scripts import echo
from scamp.transport import server_context

ACTIONS: Final = ("Crowd.echo", "Crowd.hold")


class Gate:
    """Holds requests until it is opened."""

    def __init__(self) -> None:
        self.held = 0
        self.opened = asyncio.Event()

    async def hold(self, request: PeerRequest) -> None:
        """A script: the request's body, when the gate opens."""
        self.held += 1
        try:
            await self.opened.wait()
        finally:
            self.held -= 1
        await echo(request)


async def listen(peer: ScriptedPeer, context: ssl.SSLContext) -> asyncio.Server:
    """As `ScriptedPeer.listen`, but with the key read once for all of them."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: PeerConnection(peer), peer.host, 0, ssl=context)
    peer.port = server.sockets[0].getsockname()[1]
    return server


async def serve(folder: Path, instances: int) -> None:
    certificate = (folder / "service.crt").read_bytes()
    pem = (folder / "service.key").read_bytes()
    identity = TestIdentity(pem, certificate, keys.fingerprint(certificate))
    context, key, gate = server_context(certificate, pem), keys.load_private_key(pem), Gate()
    scripts = {"Crowd.echo": echo, "Crowd.hold": gate.hold}
    peers = [
        ScriptedPeer(
            scripts,
            manners=GO if number % 2 else ECHOING,
            actions=ACTIONS,
            flags="t600",
            name="crowd",
            identity=identity,
        )
        for number in range(instances)
    ]
    servers = [await listen(peer, context) for peer in peers]
    records = [
        build_announcement(
            AnnouncementSpec(
                identity=peer.identity,
                sector=peer.sector,
                uri=f"beepish+tls://{peer.address}",
                envelopes=peer.envelopes,
                actions=peer.actions,
                weight=1,
                interval=5.0,
            ),
            key,
            certificate,
            timestamp=time.time(),
        )
        for peer in peers
    ]
    write_cache(folder / "cache", records)
    print("ready", flush=True)  # noqa: T201 - what the other process waits for
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line.strip() == "release":
            gate.opened.set()
        elif line.strip() == "hold":
            gate.opened.clear()
        told = {"held": gate.held, "connections": sum(len(peer.connections) for peer in peers)}
        print(json.dumps(told), flush=True)  # noqa: T201
    for server in servers:
        server.close()
    for peer in peers:
        await peer.stop()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
