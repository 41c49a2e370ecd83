"""What looks like a Redis to redis-py, and does what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Pretender:
    """Looks like a Redis to redis-py. `mood` says what comes back for our script: ``admit``,
    ``refuse``, ``hang``, ``error``, ``rubbish``, ``forget`` (once: the script is unknown)."""

    def __init__(self) -> None:
        self.mood = "admit"
        self.scripts = 0
        """Evaluations asked for, without those that look whether it is there."""
        self.loads = 0
        self.connections = 0
        self.asked = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://someone:hunter2@127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._server is not None:
            await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                count = int((await reader.readline())[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2].decode())
                writer.write(await self._answer(words))
        except (ValueError, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, words: list[str]) -> bytes:
        if words[0] == "SCRIPT" and self.mood not in ("hang", "error"):
            self.loads += 1
            return b"$3\r\nsha\r\n"
        if words[0] not in ("EVALSHA", "SCRIPT"):
            return b"+OK\r\n"
        if words[0] == "EVALSHA" and not words[3].endswith(":look"):
            self.scripts += 1
            self.asked.set()
        keys = int(words[2]) if words[0] == "EVALSHA" else 0
        rates = words[3 + keys :]
        if self.mood == "hang":
            await asyncio.get_running_loop().create_future()
        if self.mood == "error":
            return b"-READONLY You can't write against a read only replica.\r\n"
        if self.mood == "rubbish":
            return b"HTTP/1.1 400 Bad Request\r\n\r\n"
        if self.mood == "forget":
            self.mood = "admit"
            return b"-NOSCRIPT No matching script.\r\n"
        at = 0 if self.mood == "admit" else 2  # one token is missing, or all are
        levels = [rates[3 * n + at].encode() for n in range(keys)]
        body = b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in levels)
        return b"*%d\r\n:%d\r\n%s" % (keys + 1, self.mood == "admit", body)


@asynccontextmanager
async def pretending() -> AsyncIterator[Pretender]:
    pretender = Pretender()
    await pretender.start()
    try:
        yield pretender
    finally:
        await pretender.stop()
