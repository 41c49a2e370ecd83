"""Load: so many keep-alive clients, each sending its next request when the last was answered.

`wrk` makes it where it is installed, else the small generator here, in a process of its own::

    python -m benchmarks.load URL --clients 64 --body '{}' --header 'Authorization: Bearer …'

which prints a line when it is connected, and for each number of seconds that it reads from stdin a
JSON line with what happened. Every answer is compared with the body that was sent.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import click
import uvloop

from benchmarks.processes import Process, ProcessFailedError, module, started


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `failures` are answers that were not an echo, and connections that broke."""

    requests: int
    failures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: a POST of `body`, which is to come back."""

    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class ClientLoad(Protocol):
    """A generator that is aimed at one target."""

    name: str

    def run(self, seconds: float) -> Outcome:
        """Load the target for `seconds`, and say how it went when the last answer is here."""


@contextmanager
def aimed(target: Target, clients: int, generator: str, folder: Path) -> Iterator[ClientLoad]:
    """A generator for the block: ``wrk``, ``python``, or the former if it is there (``auto``)."""
    if generator == "wrk" or (generator == "auto" and shutil.which("wrk")):
        yield WrkLoad(target, clients, folder)
        return
    options = [part for name, value in target.headers for part in ("--header", f"{name}: {value}")]
    command = module("benchmarks.load", target.url, "--clients", str(clients), *options)
    with ExitStack() as stack:
        log = folder / f"load-{urlsplit(target.url).port}.log"
        process = stack.enter_context(started([*command, "--body", target.body.decode()], log))
        yield PythonLoad(process, log)


class PythonLoad:
    """The generator of this module, at the other end of a pipe."""

    name = "benchmarks.load"

    def __init__(self, process: Process, log: Path) -> None:
        self._popen = process.popen
        self._log = log

    def run(self, seconds: float) -> Outcome:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(f"{seconds}\n".encode())
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        if not line:
            raise ProcessFailedError(self._log.read_text(errors="replace")[-2000:])
        return Outcome(**json.loads(line))


class WrkLoad:
    """``wrk`` with one thread. It does not compare bodies: bad statuses and broken connections
    are its failures."""

    def __init__(self, target: Target, clients: int, folder: Path) -> None:
        self.name = _wrk_version()
        self._script = folder / f"wrk-{urlsplit(target.url).port}.lua"
        lines = ['wrk.method = "POST"', f"wrk.body = {json.dumps(target.body.decode())}"]
        headers = (("Content-Type", "application/json"), *target.headers)
        lines += [f"wrk.headers[{json.dumps(n)}] = {json.dumps(v)}" for n, v in headers]
        self._script.write_text("\n".join(lines) + "\n")
        self._command = ["wrk", "-t1", f"-c{clients}", "-s", str(self._script), target.url]

    def run(self, seconds: float) -> Outcome:
        command = [*self._command, f"-d{max(1, round(seconds))}s"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return read_wrk(text)


def read_wrk(text: str) -> Outcome:
    """What wrk printed."""
    total = re.search(r"(\d+) requests in ([\d.]+)(m?s|m)", text)
    if total is None:
        raise ValueError(f"this is not what wrk prints: {text[:500]!r}")
    unit = {"ms": 0.001, "s": 1.0, "m": 60.0}[total[3]]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: (.*)", text)
    failures = int(bad[1]) if bad else 0
    failures += sum(map(int, re.findall(r"\d+", broken[1]))) if broken else 0
    return Outcome(int(total[1]), failures, float(total[2]) * unit)


def _wrk_version() -> str:
    found = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True)
    words = (found.stdout + found.stderr).split()
    return " ".join(words[:2])


# -- the generator itself ---------------------------------------------------------------


class _Run:
    """What all clients of one run share."""

    def __init__(self, wire: bytes, expected: bytes) -> None:
        self.wire = wire
        self.expected = expected
        self.requests = 0
        self.failures = 0
        self.busy = 0
        self.going = False
        self.idle = asyncio.Event()

    def answered(self, *, right: bool) -> None:
        self.requests += 1
        self.failures += not right

    def released(self) -> None:
        self.busy -= 1
        if not self.busy:
            self.idle.set()


class _Client(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._waiting = False

    @property
    def connected(self) -> bool:
        return self._transport is not None

    async def connect(self, host: str, port: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, host, port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own

    def begin(self) -> None:
        self._run.busy += 1
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self._waiting = True
        self._transport.write(self._run.wire)

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        answer = read_answer(data)
        if answer is None:
            self._held = data
            return
        self._held = b""
        self._waiting = False
        status, body = answer
        self._run.answered(right=status == 200 and body == self._run.expected)
        if self._run.going:
            self._ask()
        else:
            self._run.released()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._held = b""
        if self._waiting:
            self._waiting = False
            self._run.failures += 1
            self._run.released()


def read_answer(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of the HTTP answer that is all of `data`; None while it is not complete."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head, body = data[:head_end].lower(), data[head_end + 4 :]
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        line_end = head.find(b"\r\n", at + 2)
        size = int(head[at + 17 : line_end if line_end >= 0 else None])
        return None if len(body) < size else (int(head[9:12]), body)
    if not body.endswith(b"0\r\n\r\n"):
        return None
    return int(head[9:12]), _without_chunks(body)


def _without_chunks(body: bytes) -> bytes:
    whole, at = b"", 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end].partition(b";")[0], 16)
        if not size:
            return whole
        whole += body[line_end + 2 : line_end + 2 + size]
        at = line_end + 2 + size + 2


def request_bytes(target: Target) -> bytes:
    """The request as it goes over the wire."""
    parts = urlsplit(target.url)
    headers = (
        ("Host", parts.netloc),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(target.body))),
        *target.headers,
    )
    lines = [f"POST {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + target.body


async def _serve(target: Target, clients: int) -> None:
    parts = urlsplit(target.url)
    run = _Run(request_bytes(target), target.body)
    pool = [_Client(run) for _ in range(clients)]
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for client in pool:
            if not client.connected:
                await client.connect(parts.hostname or "", parts.port or 80)
        print(json.dumps(asdict(await _load(run, pool, float(line)))), flush=True)


async def _load(run: _Run, pool: Sequence[_Client], seconds: float) -> Outcome:
    run.requests = run.failures = 0
    run.going = True
    run.idle.clear()
    began = time.monotonic()
    for client in pool:
        client.begin()
    await asyncio.wait((asyncio.ensure_future(run.idle.wait()),), timeout=seconds)
    run.going = False
    await run.idle.wait()
    return Outcome(run.requests, run.failures, time.monotonic() - began)


@click.command()
@click.argument("url")
@click.option("--clients", default=64, show_default=True)
@click.option("--body", default="{}", show_default=True)
@click.option("--header", "headers", multiple=True, help="NAME: VALUE; repeat for several.")
def main(url: str, clients: int, body: str, headers: Sequence[str]) -> None:
    """Load URL with POST requests whose answer is to be the body that was sent."""
    pairs: list[Any] = [tuple(header.split(": ", 1)) for header in headers]
    target = Target(url, body.encode(), tuple(pairs))
    uvloop.run(_serve(target, clients))


if __name__ == "__main__":
    main()
