"""A crowd: requests that are held by slow actions, idle clients, and many instances, all at once.

What it costs in memory and descriptors, step by step, and that nothing of it is left afterwards.
`docs/capacity.md` has its figures.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.http1 import Target, read_answer, request_bytes
from benchmarks.mesh import Gateway, gateway
from benchmarks.processes import Process, module, started
from scamp import keys
from scamp.discovery import Action, AnnouncementSpec, build_announcement, write_cache
from scamp.limits import MIB
from soaking import Options, Outcome
from tests.soak.crowd_services import ACTIONS

UPSTREAM_IDLE: Final = 2.0
"""Seconds after which the gateway closes an idle connection to a service."""

DIALS: Final = 64
"""Clients that connect at once: what the kernel queues for the gateway is no part of this."""

PATIENCE: Final = 100.0
"""Seconds in which anything that is waited for has to come."""

SETTLING: Final = 25.0
"""Seconds in which memory may still be on its way back."""

DESCRIPTORS: Final = 40
"""Those of the gateway itself: listeners, files, the event loop, libraries."""

ENCRYPTED: Final = 2000
"""Idle clients that speak TLS."""

GROWTH: Final = 0.10
"""By how much memory may be above the start when all is over."""

MALLOC: Final = {"PYTHONMALLOC": "malloc"}
SHIPPED: Final = {
    **MALLOC,
    "LD_PRELOAD": "libjemalloc.so.2",
    "MALLOC_CONF": "background_thread:true,dirty_decay_ms:1000",
}
"""The environment in the image and in the systemd unit. Where there is no jemalloc the loader only
says so."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the crowd is."""

    instances: int
    idle: int
    held: int


WALKERS: Final = 64
"""Clients that bring every instance into use."""

FULL: Final = Size(instances=500, idle=5000, held=2000)
SHORT: Final = Size(instances=40, idle=400, held=200)


@dataclass(frozen=True, slots=True)
class Level:
    """What the gateway had taken at one step."""

    resident: int
    descriptors: int
    upstream: int
    """Connections to services."""
    blocks: int
    """Pieces of memory that Python has given to objects; 0 where the C library does that."""


async def eventually(condition: Callable[[], Awaitable[bool]], patience: float = PATIENCE) -> bool:
    """Wait until it holds; False when it does not within `patience` seconds."""
    end = time.monotonic() + patience
    while not await condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.1)
    return True


class Visitor(asyncio.Protocol):
    """One client's connection: a request at a time, and the answer to it."""

    __slots__ = ("_answer", "_held", "gone", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self._held = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = read_answer(self._held + data)
        self._held = self._held + data if answer is None else b""
        if answer is not None and self._answer is not None:
            self._answer.set_result(answer)
            self._answer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if self._answer is not None:
            self._answer.set_result((0, b""))

    def ask(self, wire: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; status 0 when the connection ends instead of an answer."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(wire)
        return self._answer

    def leave(self) -> None:
        """Close."""
        if self.transport is not None:
            self.transport.close()


class Services:
    """The process of `crowd_services`."""

    def __init__(self, process: Process) -> None:
        self._popen = process.popen

    async def say(self, word: str = "") -> dict[str, int]:
        """Tell it something; what it has."""
        return await asyncio.to_thread(self._say, word)

    def _say(self, word: str) -> dict[str, int]:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(f"{word}\n".encode())
        self._popen.stdin.flush()
        told: dict[str, int] = json.loads(self._popen.stdout.readline())
        return told


class Stage:
    """A gateway, services behind it, and the clients in front of it."""

    def __init__(self, front: Gateway, services: Services) -> None:
        self.front = front
        self.services = services
        self.thorough = False
        """Memory is waited for, also where it need not come back: the figure is told."""
        self.levels: dict[str, Level] = {}
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._wires = {
            action: request_bytes(
                Target(f"{front.url}/api/{action}", b'{"hello":1}', (front.authorization,))
            )
            for action in ACTIONS
        }

    async def visit(self, count: int) -> list[Visitor]:
        """So many connections."""
        parts = urlsplit(self.front.url)
        context = self._tls if parts.scheme == "https" else None
        gate = asyncio.Semaphore(DIALS)

        async def connect() -> Visitor:
            async with gate:
                _, visitor = await asyncio.get_running_loop().create_connection(
                    Visitor, parts.hostname or "", parts.port or 0, ssl=context
                )
                return visitor

        return await asyncio.gather(*(connect() for _ in range(count)))

    async def ask(self, visitors: Iterable[Visitor], action: str = "Crowd.echo") -> Counter[int]:
        """A request from each, DIALS at a time; how often which status came."""
        gate = asyncio.Semaphore(DIALS)

        async def one(visitor: Visitor) -> int:
            async with gate:
                return (await visitor.ask(self._wires[action]))[0]

        return Counter(await asyncio.gather(*map(one, visitors)))

    def hold(self, visitors: Iterable[Visitor]) -> list[asyncio.Future[tuple[int, bytes]]]:
        """A request from each to the slow action, all at once."""
        return [visitor.ask(self._wires["Crowd.hold"]) for visitor in visitors]

    async def metrics(self) -> dict[str, float]:
        """Every sample of the gateway, summed over its labels."""
        found: defaultdict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families((await self._get("/metrics")).decode()):
            for sample in family.samples:
                found[sample.name.removeprefix("scamp_gateway_")] += sample.value
        return found

    async def instances(self) -> list[dict[str, Any]]:
        """What `/connections` shows."""
        found: list[dict[str, Any]] = json.loads(await self._get("/connections"))["instances"]
        return found

    async def _get(self, path: str) -> bytes:
        def get() -> bytes:
            with urllib.request.urlopen(  # noqa: S310 - our own
                self.front.admin + path, timeout=30
            ) as answer:
                body: bytes = answer.read()
                return body

        return await asyncio.to_thread(get)

    async def until(self, **wanted: int) -> bool:
        """Wait until the metrics have these values; False when they never do."""

        async def so() -> bool:
            now = await self.metrics()
            return all(now[name] == value for name, value in wanted.items())

        return await eventually(so)

    async def measure(self, name: str) -> Level:
        """Note what the gateway has taken by now."""
        now, process = await self.metrics(), self.front.process
        level = Level(
            process.resident(),
            process.descriptors(),
            int(now["connections"]),
            int(now["allocated_blocks"]),
        )
        self.levels[name] = level
        return level


@contextmanager
def stage(
    folder: Path, instances: int, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Stage]:
    """Services and a gateway for the block."""
    key, certificate = keys.generate("crowd", now=datetime.now(UTC))
    mesh = folder / "mesh"
    mesh.mkdir(parents=True)
    (mesh / "service.key").write_bytes(key)
    (mesh / "service.crt").write_bytes(certificate)
    (mesh / "authorized_services").write_text(f"{keys.fingerprint(certificate)} main:ALL\n")
    command = module("tests.soak.crowd_services", mesh, str(instances))
    with (
        started(command, folder / "services.log") as services,
        gateway(
            folder,
            cache=mesh / "cache",
            authorized=mesh / "authorized_services",
            actions=ACTIONS,
            arguments=(
                *("--upstream-idle-timeout", str(UPSTREAM_IDLE)),
                *("--max-connections-per-address", "0"),  # all clients here have the same
                # Nobody is to be refused because services and clients share a few slow cores.
                *("--queue-target", "0", "--max-loop-lag", "0"),
                *arguments,
            ),
            environment=environment,
        ) as front,
    ):
        yield Stage(front, Services(services))


def in_use(level: Level) -> int:
    """What is to come back where Python keeps memory for itself: pieces that are in use."""
    return level.blocks


def resident(level: Level) -> int:
    """What is to come back where the C library has all of it: bytes that are resident."""
    return level.resident


async def crowd(options: Options) -> Outcome:
    """The scenario: in a bare environment, where pieces of memory have to come back, and in that of
    the image and the systemd unit, where resident memory has to."""
    size, outcome = FULL if options.full else SHORT, Outcome()
    with stage(options.folder / "bare", size.instances) as scene:
        scene.thorough = options.full
        await _come_and_go(scene, size, outcome, in_use, wait_for_idle=options.full)
        _tell(scene, size, outcome)
        if options.full:
            await _second(scene, size, outcome)
    await _come_back(options, "shipped", SHIPPED, outcome)
    if options.full:
        await _come_back(options, "malloc", MALLOC, outcome)
        await _encrypted(options.folder / "tls", outcome)
        _unused(options.folder, outcome)
    return outcome


async def _come_and_go(
    scene: Stage,
    size: Size,
    outcome: Outcome,
    measure: Callable[[Level], int],
    *,
    wait_for_idle: bool,
) -> None:
    """The crowd comes, is served, and goes; every step is measured."""
    await _warm_up(scene, size.instances)
    await scene.measure("start")
    walkers = await scene.visit(WALKERS)
    for _ in range(max(1, 4 * size.instances // WALKERS)):
        await scene.ask(walkers)
    await scene.measure("mesh")
    idle = await scene.visit(size.idle)
    statuses = await scene.ask(idle)
    outcome.require(statuses == {200: size.idle}, f"answers before idling: {statuses}")
    await scene.measure("idle")
    busy = await scene.visit(size.held)
    waiting = scene.hold(busy)

    async def all_held() -> bool:
        return (await scene.services.say())["held"] == size.held

    outcome.require(await eventually(all_held), f"not all of {size.held} requests came to services")
    in_flight = (await scene.metrics())["requests_in_flight"]
    outcome.require(in_flight == size.held, f"{in_flight:g} in flight of {size.held}")
    full = await scene.measure("held")
    expected = len(walkers) + len(idle) + len(busy) + full.upstream + DESCRIPTORS
    outcome.require(
        full.descriptors <= expected, f"{full.descriptors} descriptors, not {expected} at most"
    )
    await scene.services.say("release")
    answers = await asyncio.gather(*waiting)
    statuses = Counter(status for status, _ in answers)
    outcome.require(statuses == {200: size.held}, f"answers to those held: {statuses}")
    everybody = [*walkers, *idle, *busy]
    if not wait_for_idle:
        for visitor in everybody:
            visitor.leave()

    async def all_gone() -> bool:
        return all(visitor.gone for visitor in everybody)

    outcome.require(await eventually(all_gone), "idle connections of clients stay open")
    await _nothing_left(scene, outcome, measure)


async def _second(scene: Stage, size: Size, outcome: Outcome) -> None:
    """What the first crowd left serves the next one: it takes no more."""
    first = scene.levels["held"].resident
    await _come_and_go(scene, size, outcome, in_use, wait_for_idle=False)
    second = scene.levels["held"].resident
    outcome.counts["second_held_mib"] = second // MIB
    outcome.counts["second_after_mib"] = scene.levels["after"].resident // MIB
    outcome.require(
        second <= first * (1 + GROWTH),
        f"a second crowd took {second // MIB} MiB, the first {first // MIB}",
    )


async def _come_back(
    options: Options, name: str, environment: Mapping[str, str], outcome: Outcome
) -> None:
    """The crowd with allocators that give everything back."""
    size = FULL if options.full else SHORT
    with stage(options.folder / name, size.instances, environment=environment) as scene:
        await _come_and_go(scene, size, outcome, resident, wait_for_idle=False)
        outcome.counts[f"{name}_jemalloc"] = _has_jemalloc(scene.front.process)
        for step in ("start", "held", "after"):
            outcome.counts[f"{name}_{step}_mib"] = scene.levels[step].resident // MIB


def _has_jemalloc(process: Process) -> bool:
    return "libjemalloc" in Path(f"/proc/{process.popen.pid}/maps").read_text()


async def _warm_up(scene: Stage, instances: int) -> None:
    """Every way that is used later, every instance too, by few clients that are gone again."""
    few = await scene.visit(10)
    await scene.ask(few)
    await scene.measure("ready")
    for _ in range(instances):
        await scene.ask(few)
    await scene.measure("used")
    waiting = scene.hold(few)
    await scene.services.say("release")
    await asyncio.gather(*waiting)
    await scene.services.say("hold")
    for visitor in few:
        visitor.leave()
    await scene.until(connections=0)


async def _nothing_left(scene: Stage, outcome: Outcome, measure: Callable[[Level], int]) -> None:
    """Every table is empty, and memory and descriptors are as before."""
    empty = await scene.until(requests_in_flight=0, requests_waiting=0, connections=0)
    outcome.require(empty, f"not empty: {await scene.metrics()}")
    left = [
        one
        for one in await scene.instances()
        if one["in_flight"] or one["waiting"] or one["connections"] or one["state"] != "up"
    ]
    outcome.require(not left, f"{len(left)} instances have something left: {left[:3]}")
    start = scene.levels["start"]
    limit = measure(start) * (1 + GROWTH)

    async def settled() -> bool:
        # Without asking the gateway: each answer touches pages that have just been given back.
        return scene.front.process.resident() <= start.resident * (1 + GROWTH)

    if measure is resident or scene.thorough:
        await eventually(settled, SETTLING)
    after = await scene.measure("after")
    outcome.require(
        measure(after) <= limit and after.descriptors <= start.descriptors,
        f"before: {start}, afterwards: {after}",
    )


def _tell(scene: Stage, size: Size, outcome: Outcome) -> None:
    """Levels in MiB, and what one of each kind costs in bytes."""
    levels, counts = scene.levels, outcome.counts
    for name, level in levels.items():
        counts[f"{name}_mib"] = level.resident // MIB
        counts[f"{name}_fds"] = level.descriptors
    counts["upstream"] = levels["held"].upstream
    ready, used, mesh, idle, held = (
        levels[name] for name in ("ready", "used", "mesh", "idle", "held")
    )
    each = (used.resident - ready.resident) // (used.upstream - ready.upstream)
    counts["bytes_per_upstream"] = each
    counts["bytes_per_idle_client"] = _each(mesh, idle, size.idle, each)
    counts["bytes_per_request"] = _each(idle, held, size.held, each)


def _each(before: Level, after: Level, count: int, upstream: int) -> int:
    """Bytes for each of `count`, without the connections to services that came with them."""
    grown = after.resident - before.resident
    return (grown - (after.upstream - before.upstream) * upstream) // count


async def _encrypted(folder: Path, outcome: Outcome) -> None:
    """What an idle client costs that speaks TLS."""
    mesh = folder / "mesh"  # any certificate will do
    files = ("--tls-certificate", mesh / "service.crt", "--tls-key", mesh / "service.key")
    with stage(folder, 4, *map(str, files)) as scene:
        await scene.ask(await scene.visit(WALKERS))
        await scene.measure("mesh")
        visitors = await scene.visit(ENCRYPTED)
        statuses = await scene.ask(visitors)
        outcome.require(statuses == {200: ENCRYPTED}, f"answers over TLS: {statuses}")
        await scene.measure("idle")
        levels = scene.levels
        outcome.counts["bytes_per_idle_tls_client"] = _each(
            levels["mesh"], levels["idle"], ENCRYPTED, outcome.counts["bytes_per_upstream"]
        )


def _unused(folder: Path, outcome: Outcome) -> None:
    """What the index costs: instances that nobody calls, and their actions."""
    one, many, large = (
        _indexed(folder / f"index-{instances}-{actions}", instances, actions)
        for instances, actions in ((1, 1), (500, 1), (500, 200))
    )
    outcome.counts["bytes_per_known_instance"] = (many - one) // 499
    outcome.counts["bytes_per_1000_actions"] = (large - many) * 1000 // (500 * 199)


def _indexed(folder: Path, instances: int, actions: int) -> int:
    """Resident memory of a gateway that has just read so much."""
    folder.mkdir(parents=True)
    pem, certificate = keys.generate("index", now=datetime.now(UTC))
    key = keys.load_private_key(pem)
    offered = tuple(
        Action("main", "Index.Of", f"action{number}", 1, ("read",), ("json",))
        for number in range(actions)
    )
    records = [
        build_announcement(
            AnnouncementSpec(
                identity=f"index:{number:024d}",
                sector="main",
                uri=f"beepish+tls://127.0.0.1:{1024 + number}",
                envelopes=("json",),
                actions=offered,
                weight=1,
                interval=5.0,
            ),
            key,
            certificate,
            timestamp=time.time(),
        )
        for number in range(instances)
    ]
    write_cache(folder / "cache", records)
    (folder / "authorized_services").write_text(f"{keys.fingerprint(certificate)} main:ALL\n")
    with gateway(
        folder, cache=folder / "cache", authorized=folder / "authorized_services"
    ) as front:
        return front.process.resident()
