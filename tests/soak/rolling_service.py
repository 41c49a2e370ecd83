"""A service for the rolling soak, as a process: ``rolling_service.py FOLDER RECORD``.

``Roll.read`` and ``Roll.change`` say who answers, and give back what they got. What was changed is
noted in FOLDER/changes-PID, a line for each time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson
import uvloop

from scamp.server import Request, Service

INTERVAL = 0.3
"""Seconds between records, and that it is still there after it said that it leaves."""


def make(folder: Path) -> Service:
    service = Service(
        "roll",
        key=(folder / "service.key").read_bytes(),
        certificate=(folder / "service.crt").read_bytes(),
        interval=INTERVAL,
    )
    pid = os.getpid()
    changes = os.open(folder / f"changes-{pid}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def answer(body: bytes) -> bytes:
        return b'{"pid":%d,"got":%s}' % (pid, body)

    @service.action("Roll.read", flags="noauth,read")
    async def read(request: Request) -> bytes:
        return answer(await request.read_all())

    @service.action("Roll.change", flags="noauth")
    async def change(request: Request) -> bytes:
        body = await request.read_all()
        os.write(changes, b"%d\n" % orjson.loads(body)["n"])
        await asyncio.sleep(0.002)
        return answer(body)

    return service


def main() -> None:
    """Serve until told to stop."""
    folder, record = map(Path, sys.argv[1:3])
    uvloop.run(make(folder).run("127.0.0.1", 0, announce_file=record))


if __name__ == "__main__":
    main()
