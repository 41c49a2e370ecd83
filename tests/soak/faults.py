"""Three instances, many clients, and each second something that goes wrong.

Nobody is given a wrong answer or a part that looks whole; no `read` fails whose body is held, but
by a cut of a long reply; nothing else is executed twice, or although it was said not to have been
sent; and what fails, fails as the documentation says.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp

from benchmarks.mesh import Gateway, gateway
from scamp.limits import MIB
from soaking import Options, Outcome
from tests.soak.faulty_clients import Clients, Tally
from tests.soak.faulty_mesh import FaultyMesh
from tests.soak.faulty_service import ACTIONS

INSTANCES: Final = 3
CLIENTS: Final = 64
FEW_CLIENTS: Final = 16
EVERY: Final = 1.0
"""Seconds between two faults."""
SETTLING: Final = 20.0
"""Seconds within which all is well again after the last fault."""
GROWTH: Final = 64 * MIB
"""Bytes by which memory may ever be above the start: 1 MiB for each client. A request has up to
half of that in buffers for bodies both ways, and may have a connection to a service for itself."""
WELL: Final = 100
"""Requests that all must succeed then."""

_SAMPLE: Final = re.compile(r"^scamp_gateway_(\w+)(\{.*\})? (\S+)$", re.MULTILINE)


async def faults(options: Options, kind: str) -> Outcome:
    """The scenario; `kind` is that of the instances."""
    outcome = Outcome()
    rng = random.Random(options.seed)  # noqa: S311 - to be repeatable
    folder = options.folder
    for left in ("cache", "executed"):  # by a run before, in a folder that is kept
        (folder / left).unlink(missing_ok=True)
    arguments = ("--discovery-poll-interval", "0.5", "--discovery-max-age", "3600")
    with gateway(
        folder,
        cache=folder / "cache",
        authorized=folder / "authorized_services",
        actions=tuple(ACTIONS),
        arguments=arguments,
    ) as running:
        async with FaultyMesh(folder, kind, INSTANCES, rng) as mesh:
            await _until_it_serves(running)
            number = CLIENTS if options.full else FEW_CLIENTS
            clients = Clients(running.url, dict([running.authorization]), number, rng)
            before, descriptors = running.process.forget_peak(), _descriptors(running)
            task = asyncio.create_task(clients.run())
            rounds = int(options.minutes * 60 / EVERY)
            for _ in range(rounds if options.full or kind == "echoing" else rounds // 2):
                await asyncio.sleep(EVERY)
                mesh.fault()
            await mesh.heal()
            clients.stopping = True
            await task
            outcome.counts.update(clients.tally.counts)
            outcome.wrong += clients.tally.wrong
            _count_executed(folder / "executed", clients.tally, outcome)
            await _look_afterwards(running, outcome)
        peak, limit = running.process.peak(), before + GROWTH
        outcome.counts["memory_before_mib"] = before // MIB
        outcome.counts["memory_peak_mib"] = peak // MIB
        outcome.counts["memory_after_mib"] = running.process.resident() // MIB
        outcome.require(
            peak <= limit, f"{peak // MIB} MiB were resident, {limit // MIB} at most may be"
        )
        await _until_closed(running, descriptors, outcome)
        outcome.counts.update({f"fault_{name}": count for name, count in mesh.faults.items()})
        _look_at_log(folder / "gateway.log", outcome)
    return outcome


def _count_executed(path: Path, tally: Tally, outcome: Outcome) -> None:
    """Compare what was told with what the services did."""
    executed: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        name, how = line.split()
        executed[name] += 1
        outcome.require(how == "whole", f"write {name} was executed with a part of its body")
    twice = [name for name, count in executed.items() if count > 1]
    never = tally.done - executed.keys()
    against = tally.not_sent & executed.keys()
    outcome.counts["executed"] = len(executed)
    outcome.counts["executed_twice"] = len(twice)
    outcome.require(not twice, f"executed more than once: {twice[:20]}")
    outcome.require(not never, f"answered and not executed: {sorted(never)[:20]}")
    outcome.require(not against, f"executed and told not to have been: {sorted(against)[:20]}")


async def _until_it_serves(running: Gateway) -> None:
    """The discovery file has been read."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(SETTLING):
        while (await _samples(session, running)).get("discovery_services", 0) < INSTANCES:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _look_afterwards(running: Gateway, outcome: Outcome) -> None:
    """Whether all is as before: healthy, nothing in flight, no table grown."""
    clients = Clients(running.url, dict([running.authorization]), 4, random.Random(0))  # noqa: S311
    task = asyncio.create_task(clients.run())
    async with asyncio.timeout(60):
        while clients.tally.counts["requests"] < WELL:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
        clients.stopping = True
        await task
    good = sum(count for name, count in clients.tally.counts.items() if name.startswith("ok_"))
    outcome.counts["afterwards_ok"] = good
    outcome.counts["afterwards_failed"] = clients.tally.counts["requests"] - good
    outcome.require(good == clients.tally.counts["requests"], f"afterwards: {clients.tally.counts}")
    settled = await _settled(running)
    outcome.require(settled is None, f"not settled after {SETTLING:g} s: {settled}")


async def _settled(running: Gateway) -> str | None:
    """None as soon as nothing is in flight and every instance is up; else what is not so."""
    wrong = ""
    async with aiohttp.ClientSession() as session:
        for _ in range(int(SETTLING / 0.2)):
            async with session.get(f"{running.admin}/readyz") as response:
                ready = response.status
            samples = await _samples(session, running)
            wrong = _not_settled(ready, samples)
            if not wrong:
                return None
            await asyncio.sleep(0.2)
    return wrong


def _not_settled(ready: int, samples: dict[str, float]) -> str:
    wanted = {
        "requests_in_flight": 0,
        'instances{state="up"}': INSTANCES,
        'instances{state="out"}': 0,
        "discovery_services": INSTANCES,
    }
    found = {name: samples.get(name) for name in wanted}
    if ready == 200 and found == wanted:
        return ""
    return f"readyz {ready}, {found}"


async def _samples(session: aiohttp.ClientSession, running: Gateway) -> dict[str, float]:
    """Every sample of the gateway's metrics, without the prefix of their names."""
    async with session.get(f"{running.admin}/metrics") as response:
        text = await response.text()
    return {name + labels: float(value) for name, labels, value in _SAMPLE.findall(text)}


def _descriptors(running: Gateway) -> int:
    return sum(one.num_fds() for one in running.process.tree())


async def _until_closed(running: Gateway, before: int, outcome: Outcome) -> None:
    """Clients and services have gone, and the gateway's sockets with them."""
    for _ in range(int(SETTLING / 0.1)):
        if _descriptors(running) <= before:
            break
        await asyncio.sleep(0.1)
    outcome.counts["descriptors_before"] = before
    outcome.counts["descriptors_after"] = after = _descriptors(running)
    outcome.require(after <= before, f"{after} descriptors are open, {before} before")


def _look_at_log(path: Path, outcome: Outcome) -> None:
    """No error but the one that uvloop sometimes tells of when it writes to what was just reset."""
    outcome.counts["uvloop_errors"] = 0
    for line in path.read_text(errors="replace").splitlines():
        told = json.loads(line)
        if told["level"] not in ("ERROR", "CRITICAL"):
            continue
        noise = told["logger"] == "asyncio" and "the handler is closed" in told["exc_info"]
        outcome.counts["uvloop_errors"] += noise
        outcome.require(noise, f"in the gateway's log: {line[:500]}")


echoing = partial(faults, kind="echoing")
renumbering = partial(faults, kind="renumbering")
