"""Processes that are replaced one after another under load: nobody's request fails.

A: gateways behind HAProxy, which follows ``/readyz``; B: instances of a service behind a gateway;
C: a gateway that the next one takes over from, with another number of workers, with its clients
connected to it directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from fronted import Wire
from scamp import keys
from scamp.discovery import write_cache
from scamp.errors import ScampError
from soaking import Options, Outcome

HERE: Final = Path(__file__).resolve().parent

CLIENTS: Final = 24
THINKING: Final = 0.03
"""Seconds at most between an answer and the next request of a client."""

LARGEST: Final = 20_000
"""Bytes of padding in a request at most."""

PATIENCE: Final = 30.0
"""Seconds until something that does not come counts as missing."""

MAX_TOLD: Final = 20
"""Failures of one part that are told; all are counted."""

SHORT: Final = 3
FULL: Final = 100
"""Rounds of each part."""

_TICK: Final = 0.05


class Load:
    """Clients that keep their connections and retry nothing."""

    def __init__(self, host: str, port: int, outcome: Outcome, part: str, seed: int) -> None:
        self._address = (host, port)
        self._outcome = outcome
        self._part = part
        self._random = random.Random(seed)  # noqa: S311 - for load, repeatable
        self._numbers = itertools.count(1)
        self._over = False
        self.answered: Counter[int] = Counter()
        """Answers by the process of the service that gave it."""
        self.changed: set[int] = set()
        """Changes that were answered."""
        self.answers = 0
        self._failures = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Load until the end of the block; then the requests under way are waited for."""
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        try:
            yield self
        finally:
            self._over = True
            results = await asyncio.gather(*clients, return_exceptions=True)
            self._outcome.counts[f"{self._part}_requests"] += self.answers
            for one in results:
                if isinstance(one, BaseException):
                    self._failed(f"a client ended: {one!r}")

    async def more(self, count: int = 5 * CLIENTS) -> None:
        """Wait for so many more answers. Raises TimeoutError."""
        wanted = self.answers + count
        await wait_for(lambda: self.answers >= wanted)

    async def _client(self) -> None:
        while not self._over:
            wire = Wire(*await asyncio.open_connection(*self._address))
            try:
                await self._use(wire)
            finally:
                await wire.close()

    async def _use(self, wire: Wire) -> None:
        """Ask until the server ends the connection, which it may while nothing is asked."""
        while not self._over:
            await asyncio.sleep(self._random.random() * THINKING)
            if wire.reader.at_eof():
                return
            number = next(self._numbers)
            try:
                async with asyncio.timeout(PATIENCE):
                    kept = await self._ask(wire, number)
            except (OSError, EOFError, TimeoutError, ValueError, KeyError) as exc:
                self._failed(f"request {number}: {exc!r}")
                return
            if not kept:
                return

    async def _ask(self, wire: Wire, number: int) -> bool:
        reads = number % 2 == 0
        padding = "x" * self._random.randrange(LARGEST)
        body = orjson.dumps({"n": number, "x": padding})
        wire.send("POST", f"/api/Roll.{'read' if reads else 'change'}", body=body)
        answer = await wire.answer()
        told = orjson.loads(answer.body)
        if answer.status != 200 or not answer.whole:
            self._failed(f"request {number}: {answer.status} {told.get('code')}")
        elif told["got"] != {"n": number, "x": padding}:
            self._outcome.counts["wrong"] += 1
            self._outcome.require(False, f"{self._part}: request {number} got another's answer")
        else:
            self.answers += 1
            self.answered[told["pid"]] += 1
            if not reads:
                self.changed.add(number)
        return answer.headers.get("Connection", "").lower() != "close"

    def _failed(self, what: str) -> None:
        self._outcome.counts["failed"] += 1
        self._failures += 1
        self._outcome.require(self._failures > MAX_TOLD, f"{self._part}: {what}")


async def wait_for(done: Callable[[], object]) -> None:
    """Until `done` says yes. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not done():  # noqa: ASYNC110 - files and processes have no event
            await asyncio.sleep(_TICK / 5)


class Instance:
    """One process of a service, and the file that has its record."""

    def __init__(self, process: asyncio.subprocess.Process, record: Path) -> None:
        self.process = process
        self.record = record


class Mesh:
    """Instances of a service, and the cache file that has their records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.authorized = folder / "authorized"
        self.instances: list[Instance] = []
        self._number = itertools.count()
        self._written: list[bytes] = []
        key, certificate = keys.generate("roll", now=datetime.now(UTC))
        (folder / "service.key").write_bytes(key)
        (folder / "service.crt").write_bytes(certificate)
        self.authorized.write_text(f"{keys.fingerprint(certificate)} main:ALL\n")

    @contextlib.asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[Mesh]:
        """`count` instances, for the block."""
        keeper = asyncio.create_task(self._keep())
        try:
            for _ in range(count):
                await self.add()
            yield self
        finally:
            for one in self.instances:
                await end(one.process)
            keeper.cancel()
            await asyncio.wait({keeper})

    async def add(self) -> Instance:
        """One more, once the cache file has it."""
        record = self.folder / f"record-{next(self._number)}"
        with (self.folder / "service.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, HERE / "rolling_service.py", self.folder, record),
                stderr=log,
                cwd=HERE.parents[1],
            )
        one = Instance(process, record)
        self.instances.append(one)
        await wait_for(lambda: one.record.exists() or process.returncode is not None)
        await wait_for(lambda: one.record.read_bytes() in self._written)
        return one

    async def remove(self, one: Instance) -> int:
        """Tell it to stop; its exit status."""
        self.instances.remove(one)
        status = await end(one.process)
        one.record.unlink(missing_ok=True)
        return status

    def changes(self) -> Counter[int]:
        """How often each change was made. The files are gone after that."""
        made: Counter[int] = Counter()
        for path in self.folder.glob("changes-*"):
            made.update(map(int, path.read_text().split()))
            path.unlink()
        return made

    async def _keep(self) -> None:
        while True:
            records = [path.read_bytes() for path in sorted(self.folder.glob("record-*"))
                       if path.suffix != ".new"]  # fmt: skip
            if records != self._written:
                write_cache(self.cache, records)
                self._written = records
            await asyncio.sleep(_TICK)


class Gateway:
    """One process of a gateway."""

    def __init__(self, process: asyncio.subprocess.Process, said: str) -> None:
        self.process = process
        words = said.split()
        self.public, self.admin = words[2], words[4]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.public.removeprefix("http://").rpartition(":")
        return host, int(port)


async def gateway(mesh: Mesh, *arguments: object, bind: str = "127.0.0.1:0",
                  admin: str = "127.0.0.1:0") -> Gateway:  # fmt: skip
    """One more that serves."""
    command = (
        *(Path(sys.executable).with_name("scamp-gateway"), "run"),
        *("--bind", bind, "--admin-bind", admin, "--auth-mode", "forward"),
        *("--discovery-cache", mesh.cache, "--authorized-services", mesh.authorized),
        *("--discovery-poll-interval", "0.05", "--access-log", "off", *arguments),
    )
    with (mesh.folder / "gateway.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            said = (await process.stdout.readline()).decode()
        return Gateway(process, said)
    except BaseException:
        await end(process)
        raise


async def end(process: asyncio.subprocess.Process) -> int:
    """SIGTERM; its exit status, -9 when it does not go."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(PATIENCE):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


def settle(outcome: Outcome, part: str, load: Load, mesh: Mesh) -> None:
    """What was answered was done, and nothing was done twice."""
    made = mesh.changes()
    twice = sum(count > 1 for count in made.values())
    outcome.require(not twice, f"{part}: {twice} changes were made more than once")
    missing = len(load.changed - set(made))
    outcome.require(not missing, f"{part}: {missing} changes were answered and not made")


# -- A ----------------------------------------------------------------------------------

CONFIGURATION: Final = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout check 5s
frontend public
    bind fd@{public}
    default_backend gateways
frontend stats
    bind fd@{stats}
    stats enable
    stats uri /
backend gateways
    balance roundrobin
    http-reuse always
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 100ms fastinter 100ms fall 1 rise 1
{servers}
"""

DRAIN_DELAY: Final = "1.0"
"""Ten times what HAProxy needs to see that a gateway leaves."""


@contextlib.contextmanager
def reserved(count: int) -> Iterator[list[int]]:
    """Free ports that nobody is given by chance: bound here, not listening."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        yield ports


class HAProxy:
    """In front of gateways on fixed ports."""

    def __init__(self, folder: Path, public: socket.socket, stats: socket.socket) -> None:
        self._folder = folder
        self._sockets = (public, stats)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._sockets[0].getsockname()
        return host, port

    @contextlib.asynccontextmanager
    async def running(self, program: str, ports: list[tuple[int, int]]) -> AsyncIterator[None]:
        """For the block; `ports` are those of each gateway, public and admin."""
        public, stats = (sock.fileno() for sock in self._sockets)
        servers = [
            f"    server gateway{number} 127.0.0.1:{one} port {admin}"
            for number, (one, admin) in enumerate(ports)
        ]
        path = self._folder / "haproxy.cfg"
        path.write_text(
            CONFIGURATION.format(public=public, stats=stats, servers="\n".join(servers))
        )
        with (self._folder / "haproxy.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(program, "-db", "-f", path), pass_fds=(public, stats), stdout=log, stderr=log
            )
        try:
            yield
        finally:
            await end(process)

    async def until_up(self, number: int) -> None:
        """Until HAProxy sends requests to that gateway. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            while not await self._is_up(f"gateway{number}"):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(_TICK)

    async def _is_up(self, name: str) -> bool:
        wire = Wire(*await asyncio.open_connection(*self._sockets[1].getsockname()))
        try:
            wire.send("GET", "/;csv", [("Connection", "close")])
            lines = (await wire.answer("GET")).body.decode().splitlines()
        finally:
            await wire.close()
        head = lines[0].removeprefix("# ").split(",")
        rows = [dict(zip(head, line.split(","), strict=False)) for line in lines[1:]]
        return any(row.get("svname") == name and row.get("status") == "UP" for row in rows)


async def replace_gateways(options: Options, outcome: Outcome, rounds: int, program: str) -> None:
    """Two gateways behind HAProxy, restarted in turn."""
    mesh = Mesh(part_folder(options, "gateways"))
    arguments = ("--drain-delay", DRAIN_DELAY)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(mesh.running(1))
        free = stack.enter_context(reserved(4))
        ports = [(free[0], free[1]), (free[2], free[3])]
        up: dict[int, Gateway] = {}

        async def start(number: int) -> None:
            public, admin = ports[number]
            up[number] = await gateway(
                mesh, *arguments, bind=f"127.0.0.1:{public}", admin=f"127.0.0.1:{admin}"
            )

        async def end_all() -> None:
            for one in up.values():
                await end(one.process)

        stack.push_async_callback(end_all)
        for number in range(len(ports)):
            await start(number)
        sockets = [stack.enter_context(listening()) for _ in range(2)]
        proxy = HAProxy(mesh.folder, *sockets)
        await stack.enter_async_context(proxy.running(program, ports))
        for number in range(len(ports)):
            await proxy.until_up(number)
        load = Load(*proxy.address, outcome, "gateways", options.seed)
        async with load.running():
            await load.more()
            for turn in range(rounds):
                number = turn % len(ports)
                status = await end(up[number].process)
                outcome.require(status == 0, f"gateways: exit status {status}")
                await start(number)
                await proxy.until_up(number)
                await load.more()
                outcome.counts["gateway_restarts"] += 1
    settle(outcome, "gateways", load, mesh)


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket to be inherited."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        yield sock


# -- B and C ----------------------------------------------------------------------------


async def replace_instances(options: Options, outcome: Outcome, rounds: int) -> None:
    """Two instances of a service behind a gateway, restarted in turn."""
    mesh = Mesh(part_folder(options, "services"))
    async with mesh.running(2):
        front = await gateway(mesh, "--drain-delay", "0")
        try:
            load = Load(*front.address, outcome, "services", options.seed)
            async with load.running():
                await load.more()
                for _ in range(rounds):
                    status = await mesh.remove(mesh.instances[0])
                    outcome.require(status == 0, f"services: exit status {status}")
                    new = await mesh.add()
                    await wait_for(lambda: load.answered[new.process.pid])  # noqa: B023
                    outcome.counts["service_restarts"] += 1
        finally:
            await end(front.process)
    settle(outcome, "services", load, mesh)


WORKERS: Final = (2, 3, 1)
"""Of one gateway after the other, after a first that has one."""


async def take_over(options: Options, outcome: Outcome, rounds: int) -> None:
    """One gateway after another, each taking its sockets over from the last."""
    mesh = Mesh(part_folder(options, "takeovers"))
    arguments = ("--takeover-socket", mesh.folder / "takeover")
    async with mesh.running(1):
        front = await gateway(mesh, *arguments)
        try:
            load = Load(*front.address, outcome, "takeovers", options.seed)
            async with load.running():
                await load.more()
                for count in itertools.islice(itertools.cycle(WORKERS), rounds):
                    old = front
                    front = await gateway(mesh, *arguments, "--workers", count)
                    outcome.require(front.address == old.address, "takeovers: another address")
                    async with asyncio.timeout(PATIENCE):
                        status = await old.process.wait()
                    outcome.require(status == 0, f"takeovers: exit status {status}")
                    await load.more()
                    outcome.counts["takeovers"] += 1
        finally:
            await end(front.process)
    settle(outcome, "takeovers", load, mesh)


def part_folder(options: Options, part: str) -> Path:
    folder = options.folder / part
    folder.mkdir(mode=0o700)
    return folder


async def rolling(options: Options) -> Outcome:
    """All three. A is left out, and told, where there is no HAProxy."""
    outcome = Outcome()
    outcome.counts.update(gateway_restarts=0, service_restarts=0, takeovers=0, failed=0, wrong=0)
    rounds = FULL if options.full else SHORT
    began = time.monotonic()
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    try:
        if program is None:
            outcome.require(not options.full, "gateways: needs haproxy")
        elif options.full:
            await replace_gateways(options, outcome, rounds, program)
        await replace_instances(options, outcome, rounds)
        await take_over(options, outcome, rounds)
    except (OSError, TimeoutError, ScampError) as exc:
        outcome.require(False, f"it could not go on: {exc!r}")
    outcome.counts["seconds"] = round(time.monotonic() - began)
    return outcome
