"""A service as a process of its own, for tests of leaving: ``leaving.py CONFIG KEY CERT``.

``Test.Leave.hold`` is answered when the service has been told to stop, ``Test.Leave.quick`` at
once; both with the service's process id. Neither is safe to send twice.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from scamp.config import ScampConf
from scamp.server import Request, Service


def make(config: Path, key: Path, certificate: Path) -> Service:
    service = Service(
        "leaver",
        key=key.read_bytes(),
        certificate=certificate.read_bytes(),
        interval=0.5,
        config=ScampConf.load(config),
    )
    told = asyncio.Event()
    service.watch(told.set)

    @service.action("Test.Leave.hold", flags="noauth")
    async def hold(request: Request) -> int:
        while not service.stopping:
            told.clear()
            await told.wait()
        return os.getpid()

    @service.action("Test.Leave.quick", flags="noauth")
    async def quick(request: Request) -> int:
        return os.getpid()

    return service


def main() -> None:
    """Serve until told to stop; everything as it is by default, only sooner."""
    service = make(*map(Path, sys.argv[1:4]))
    asyncio.run(service.run(linger=3.0, farewells=3))


if __name__ == "__main__":
    main()
