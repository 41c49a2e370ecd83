"""One client that means harm: ``python -m tests.soak.attacker URL TICKET``.

Reads one order a line on standard input, ``ATTACK NUMBER SECONDS``, and answers each with one line
of JSON: what it did and what it was told.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import uvloop

PER_ADDRESS: Final = 500
_BATCH: Final = 32
_OPENING: Final = 200
_HEAD: Final = b"POST /api/Bench.echo HTTP/1.1\r\nHost: gateway\r\n"


class Attacker:
    """Connections from 127.0.1.1, and when they are many from 127.0.1.2 and so on."""

    def __init__(self, url: str, ticket: str) -> None:
        where = urlsplit(url)
        self.host, self.port = str(where.hostname), int(where.port or 80)
        self.ticket = ticket
        self.counts: Counter[str] = Counter()
        self._opening = asyncio.Semaphore(_OPENING)

    async def open(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Connection `number`; None when it could not be had."""
        address = f"127.0.1.{1 + number // PER_ADDRESS}"
        async with self._opening:
            try:
                found = await asyncio.wait_for(
                    asyncio.open_connection(self.host, self.port, local_addr=(address, 0)), 10
                )
            except (OSError, TimeoutError):
                self.counts["not_connected"] += 1
                return None
        self.counts["connected"] += 1
        return found

    async def slowly(self, number: int, seconds: float, head: bytes, piece: bytes) -> None:
        """`number` connections that send `head` and then `piece` once a second, for `seconds`;
        one that ends is opened again."""
        end = asyncio.get_running_loop().time() + seconds

        async def one(index: int) -> None:
            while (left := end - asyncio.get_running_loop().time()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._trickle(index, head, piece)

        await asyncio.gather(*map(one, range(number)))

    async def _trickle(self, index: int, head: bytes, piece: bytes) -> None:
        found = await self.open(index)
        if found is None:
            await asyncio.sleep(1)
            return
        reader, writer = found
        told = asyncio.create_task(reader.read(64))
        try:
            writer.write(head)
            while not told.done():
                await asyncio.wait({told}, timeout=1)
                writer.write(piece)
            self.note(told.result())
        except OSError:
            self.counts["ended"] += 1
        finally:
            told.cancel()
            writer.close()

    def note(self, answer: bytes) -> None:
        """Count the status in the beginning of an answer."""
        self.counts[answer[9:12].decode() if answer.startswith(b"HTTP/1.") else "ended"] += 1

    # -- attacks ------------------------------------------------------------------------

    async def slowloris(self, number: int, seconds: float) -> None:
        await self.slowly(number, seconds, _HEAD, b"X-A: b\r\n")

    async def slow_body(self, number: int, seconds: float) -> None:
        ticket = f"X-SCAMP-Ticket: {self.ticket}\r\nContent-Length: 1000000\r\n\r\n"
        await self.slowly(number, seconds, _HEAD + ticket.encode(), b"x")

    async def huge_headers(self, number: int, seconds: float) -> None:
        fields = [b"X-%d: %s\r\n" % (index, b"a" * 8000) for index in range(90)]

        async def one(index: int) -> None:
            found = await self.open(index % PER_ADDRESS)
            if found is None:
                return
            reader, writer = found
            with suppress(OSError):
                writer.write(_HEAD)
                for field in fields:
                    writer.write(field)
                    await writer.drain()
            with suppress(OSError, TimeoutError):
                self.note(await asyncio.wait_for(reader.read(64), 10))
            writer.close()

        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(50)
            for index in range(number):
                await slots.acquire()
                group.create_task(one(index)).add_done_callback(lambda _: slots.release())

    async def connections(self, number: int, seconds: float) -> None:
        """All kept open, and nothing sent."""
        opened = await asyncio.gather(*map(self.open, range(number)))
        await asyncio.sleep(seconds)
        for found in opened:
            if found is not None:
                found[1].close()

    async def one_address(self, number: int, seconds: float) -> None:
        """As many from a single address."""
        opened = await asyncio.gather(*(self.open(0) for _ in range(number)))
        await asyncio.sleep(seconds)
        for found in opened:
            if found is None:
                continue
            reader, writer = found
            with suppress(OSError, TimeoutError):
                self.note(await asyncio.wait_for(reader.read(64), 0.001))
            writer.close()

    async def distinct(self, number: int, seconds: float) -> None:
        """`number` requests, each with a URL and a ticket that there was never before."""
        numbers = itertools.count()

        async def one() -> None:
            found = await self.open(0)
            while found is not None and next(numbers) * _BATCH < number:
                reader, writer = found
                try:
                    writer.write(b"".join(self._strange() for _ in range(_BATCH)))
                    for _ in range(_BATCH):
                        head = await reader.readuntil(b"\r\n\r\n")
                        self.note(head)
                        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                        await reader.readexactly(int(length))
                except (OSError, EOFError):
                    self.counts["ended"] += 1
                    writer.close()
                    found = await self.open(0)
            if found is not None:
                found[1].close()

        await asyncio.gather(*(one() for _ in range(8)))

    def _strange(self) -> bytes:
        some = f"{random.getrandbits(96):x}"
        signed, _, signature = self.ticket.rpartition(",")
        user = signed.split(",")
        user[1] = str(random.getrandbits(40))
        forged = f"{','.join(user)},{signature}"
        url, ticket = random.choice(  # noqa: S311
            (
                (f"/api/Bench.echo?x={some}", forged),
                (f"/api/Bench.echo~1?{some}={some}", some),
                (f"/api/Bench.{some}", self.ticket),
                (f"/api/{some}:Bench.echo", forged),
                (f"/{some}/{some}", some),
                (f"/api/events/{some}?code={some}", forged),
                (f"http://{some}.example/api/Bench.echo", forged),
            )
        )
        fields = {
            "Host": "gateway" if url.startswith("/") else f"{some}.example",
            "X-SCAMP-Ticket": ticket,
            "X-Request-ID": some,
            "Origin": f"https://{some}.example",
            "X-Forwarded-For": f"2001:db8:{some[:4]}:{some[4:8]}::1",
            "Accept-Encoding": f"x-{some}",
            "Content-Type": f"application/vnd.scamp.{some}",
            "traceparent": f"00-{some:0>32}-{some[:16]:0>16}-01",
            "Content-Length": "0",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {url} HTTP/1.1\r\n{head}\r\n".encode()


async def main(url: str, ticket: str) -> None:
    """Take orders until there are no more."""
    print("ready", flush=True)  # noqa: T201 - how it tells
    loop = asyncio.get_running_loop()
    while order := await loop.run_in_executor(None, sys.stdin.readline):
        name, number, seconds = order.split()
        attacker = Attacker(url, ticket)
        attack: Callable[[int, float], Awaitable[None]] = getattr(attacker, name)
        await attack(int(number), float(seconds))
        print(json.dumps(attacker.counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
