"""One instance of the service under faults, in a process of its own.

``python -m tests.soak.faulty_service FOLDER URI KIND`` finds its key and the tickets' public key in
FOLDER and announces URI. It prints one line of JSON when it serves: its port and its record. KIND
is ``echoing`` for a `Service` of ours or ``renumbering`` for a peer that numbers its replies
itself. It ends when stdin does.

Whoever executes ``Soak.write`` says so in FOLDER/executed before it answers: one line for each with
the request's id, in one write, which survives a ``kill -9``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from scamp.discovery import Action
from scamp.keys import fingerprint, load_public_key
from scamp.limits import MIB
from scamp.server import Request, Service
from scamp.testing import GO, PeerRequest, ScriptedPeer, TestIdentity
from scamp.tickets import TicketVerifier

PIECE: Final = 50_000
"""Of long replies: they come in several, with pauses between them."""

ACTIONS: Final = {"Soak.read": "read", "Soak.write": "update"}
MAX_BODY: Final = 2 * MIB


def make_body(name: str, size: int, reply: int) -> bytes:
    """A request's body of about `size` bytes that nobody else sends, to be answered with `reply`
    bytes."""
    head = f"{name} {size} {reply}\n".encode()
    return head + hashlib.shake_128(head).digest(max(0, size - len(head)))


def answer_to(body: bytes) -> bytes:
    """What such a body has to be answered with: no other body gives the same."""
    reply = int(body.partition(b"\n")[0].split()[2])
    return hashlib.shake_128(body).digest(reply)


class Work:
    """What both kinds of instance do."""

    def __init__(self, folder: Path) -> None:
        self._executed = os.open(folder / "executed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._rng = random.Random()  # noqa: S311 - only how long things take

    async def do(self, action: str, body: bytes) -> bytes:
        """Work on a request for a while, and say what the answer is."""
        if action == "Soak.write":
            head = body.partition(b"\n")[0].split()
            whole = len(head) == 3 and len(body) == max(int(head[1]), body.index(b"\n") + 1)
            note = b"%b %b\n" % (head[0], b"whole" if whole else b"cut")
            os.write(self._executed, note)
        slow = self._rng.random() < 0.05
        await asyncio.sleep(self._rng.uniform(0, 1.0 if slow else 0.02))
        return answer_to(body)

    async def pieces(self, answer: bytes) -> AsyncIterator[bytes]:
        """A long answer, bit by bit."""
        for start in range(0, len(answer), PIECE):
            yield answer[start : start + PIECE]
            await asyncio.sleep(self._rng.uniform(0, 0.005))


def make_service(folder: Path, work: Work) -> Service:
    service = Service(
        "soak",
        key=(folder / "service.key").read_bytes(),
        certificate=(folder / "service.crt").read_bytes(),
        ticket_verifier=TicketVerifier([load_public_key((folder / "tickets.pub").read_bytes())]),
    )

    async def act(request: Request) -> AsyncIterator[bytes] | bytes:
        answer = await work.do(request.action.spelling, await request.read_all(MAX_BODY))
        return answer if len(answer) <= PIECE else work.pieces(answer)

    for action, flags in ACTIONS.items():
        service.action(action, flags=f"{flags},t30")(act)
    return service


def make_peer(folder: Path, work: Work) -> ScriptedPeer:
    async def act(request: PeerRequest) -> None:
        await request.reply(await work.do(request.header["action"], bytes(request.body)))

    certificate = (folder / "service.crt").read_bytes()
    keys = TestIdentity(
        (folder / "service.key").read_bytes(), certificate, fingerprint(certificate)
    )
    peer = ScriptedPeer(act, manners=GO, identity=keys)
    peer.actions = tuple(
        Action("main", "Soak", spelling.partition(".")[2], 1, (flags, "t30"), ("json",))
        for spelling, flags in ACTIONS.items()
    )
    return peer


async def serve(folder: Path, uri: str, kind: str) -> None:
    work = Work(folder)
    if kind == "renumbering":
        peer = make_peer(folder, work)
        await peer.listen()
        port, record = peer.port, peer.announcement(uri=uri)
    else:
        service = make_service(folder, work)
        _, port = await service.start(port=0)
        record = service.announcement(uri=uri)
    told = {"port": port, "record": base64.b64encode(record).decode()}
    print(json.dumps(told), flush=True)  # noqa: T201 - read by who started us
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
