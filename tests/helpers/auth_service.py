"""An Auth service as a process of its own, which can be stopped, killed and held.

It answers with what stands in a file just then: ``!`` in front is an error, anything else the body.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
from pathlib import Path
from typing import Final

from scamp.errors import ServiceError
from scamp.server import Request, Service
from scamp.testing import make_identity

NUMBER: Final = 6
"""Of its identity, see `make_identity`."""


class AuthProcess:
    """Starts as often as need be, each time at another port. Whoever starts it ends it: `kill`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answer = folder / "answer"
        identity = make_identity(NUMBER)  # of this process: others make others
        (folder / "auth.key").write_bytes(identity.key)
        (folder / "auth.crt").write_bytes(identity.certificate)
        self._process: asyncio.subprocess.Process | None = None
        self.record = b""
        """Its announcement."""

    @property
    def fingerprint(self) -> str:
        """Of its certificate."""
        return make_identity(NUMBER).fingerprint

    def answers(self, body: bytes) -> None:
        """From now on."""
        fresh = self._answer.with_suffix(".new")
        fresh.write_bytes(body)
        fresh.replace(self._answer)

    async def start(self) -> None:
        """Until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, str(self._folder)),
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert self._process.stdout is not None
        self.record = base64.b64decode(await self._process.stdout.readline())
        assert self.record

    def hold(self) -> None:
        """It is there and does nothing."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `hold`."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> None:
        """In good order."""
        self._send(signal.SIGTERM)
        await self._ended()

    async def kill(self) -> None:
        """At once. Does no harm when it is not there."""
        if self._process is not None:
            self._process.kill()
            await self._ended()

    async def _ended(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        await process.communicate()


def _service(folder: Path) -> Service:
    key, certificate = ((folder / name).read_bytes() for name in ("auth.key", "auth.crt"))
    service = Service("auth", key=key, certificate=certificate)

    @service.action("Auth.getAuthzTable", flags="noauth,read")
    async def table(request: Request) -> object:
        body = await asyncio.to_thread((folder / "answer").read_bytes)
        if body.startswith(b"!"):
            raise ServiceError("internal", body[1:].decode())
        return body

    return service


async def _serve(service: Service) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await service.start(port=0)
    sys.stdout.write(base64.b64encode(service.announcement()).decode() + "\n")
    sys.stdout.flush()
    await ended.wait()
    await service.stop(grace=1)


if __name__ == "__main__":
    asyncio.run(_serve(_service(Path(sys.argv[1]))))
