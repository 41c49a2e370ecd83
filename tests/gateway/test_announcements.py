"""What is announced and must not be believed, as seen through the gateway and its metrics.

For both sources: none of it enters the index, none costs another record, each is counted under its
reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from forging import EVIL, Bad, bad_records, sign, signed
from multicast import LOOPBACK, free_group, needs_multicast
from prometheus_client.parser import text_string_to_metric_families

from gateway.lifecycle import Gateway, running
from scamp import limits
from scamp.discovery import MulticastGroup, MulticastSender, encode_packet
from scamp.discovery.cachefile import SEPARATOR
from scamp.testing import ScriptedPeer, make_identity, until
from stand import Stand, eventually, stand

REJECTED = "scamp_gateway_discovery_records_rejected"


@dataclass
class Scene:
    """A gateway with two good services, and one that nobody is to call."""

    mesh: Stand
    neighbour: ScriptedPeer
    stranger: ScriptedPeer
    gateway: Gateway
    http: aiohttp.ClientSession

    async def metrics(self) -> dict[str, dict[str, float]]:
        """Samples by name, and by the value of their first label."""
        async with self.http.get(f"{self.gateway.admin.url}/metrics") as answer:
            text = await answer.text()
        found: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                label = next(iter(sample.labels.values()), "")
                found.setdefault(sample.name, {})[label] = sample.value
        return found

    async def rejected(self) -> dict[str, float]:
        return (await self.metrics()).get(REJECTED, {})

    async def status(self, action: str) -> int:
        async with self.http.get(f"{self.gateway.public.url}/api/{action}") as answer:
            return answer.status

    async def has_rejected(self, reasons: dict[str, float]) -> bool:
        return await self.rejected() == reasons

    async def serves(self) -> bool:
        """Both of the good ones."""
        good = [await self.status(one) for one in ("Test.Gate.open", "Other.echo")]
        return good == [200, 200]

    async def is_fresh(self) -> bool:
        """What is not announced is told to be nowhere."""
        return await self.status("Nobody.offers") == 404

    async def check(self, after: str) -> None:
        """The good ones are called, where they were; nobody else is."""
        assert await self.status("Test.Gate.open") == 200, after
        assert await self.status("Other.echo") == 200, after
        for action in ("Evil.Act.echo", "Evil.echo"):
            assert await self.status(action) == 404, after
        names = {service.name for service in self.gateway.parts.registry.services()}
        assert names <= {"stand", "peer", "evil"}, after
        assert not [one for one in self.gateway.parts.registry.actions() if "vil" in repr(one)]
        assert (self.stranger.accepted, self.stranger.bytes_received) == (0, 0), after


@asynccontextmanager
async def scene(folder: Path, group: MulticastGroup | None = None) -> AsyncIterator[Scene]:
    """By the cache file, or by `group`."""
    settings: dict[str, object] = {}
    if group is not None:
        settings = {
            "discovery_source": "multicast",
            "discovery_cache": None,
            "multicast_address": group.address,
            "multicast_port": group.port,
            "multicast_interfaces": (LOOPBACK,),
        }
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        mesh = await enter(stand(folder))
        neighbour = ScriptedPeer(
            actions=("Other.echo",), flags="noauth,read", identity=make_identity(4)
        )
        await enter(neighbour)
        stranger = await enter(ScriptedPeer(identity=make_identity(EVIL)))
        mesh.authorized.write_text(
            f"{mesh.authorized.read_text()}{make_identity(4).fingerprint} Other.echo\n"
        )
        gateway = await enter(running(mesh.loaded(**settings)))
        http = await enter(aiohttp.ClientSession())
        yield Scene(mesh, neighbour, stranger, gateway, http)


def of_stand(scene: Scene) -> tuple[bytes, bytes]:
    """The known service's record, and one from some time before."""
    service = scene.mesh.service
    return service.announcement(), service.announcement(now=time.time() - 600)


def reasons_of(bad: list[Bad]) -> dict[str, float]:
    return dict(Counter(one.reason for one in bad))


async def follow(here: Scene, records: list[bytes]) -> None:
    """Write a version of the file, and wait until the gateway has looked at it."""
    status = here.gateway.parts.follower.status
    looks = status.loads + status.failed_loads
    fresh = here.mesh.cache.with_suffix(".new")
    fresh.write_bytes(b"".join(SEPARATOR + raw for raw in records))
    fresh.replace(here.mesh.cache)
    await until(lambda: _looks(here) > looks)


def _looks(here: Scene) -> int:
    status = here.gateway.parts.follower.status
    return status.loads + status.failed_loads


async def test_nothing_bad_in_the_file_is_believed_or_costs_another(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        good, older = of_stand(here)
        other = here.neighbour.announcement()
        await follow(here, [good, other])
        assert await here.rejected() == {}
        await here.check("without any")
        bad = bad_records(here.stranger.port, good, older)
        raws = [one.raw for one in bad]
        await follow(here, [*raws[:20], good, *raws[20:40], other, *raws[40:]])
        told = here.gateway.parts.follower.status.rejected_records
        parsed = [(one.name, one.reason) for one in bad if one.reason != "replay"]
        found = [reason for _, reason, _ in told if reason != "replay"]
        assert [(name, reason) for (name, _), reason in zip(parsed, found, strict=True)] == parsed
        assert await here.rejected() == reasons_of(bad)
        await here.check("among all")


async def test_a_bad_record_alone_displaces_no_good_one(tmp_path: Path) -> None:
    """Those that are about the known service, without the good one: it stays as it was."""
    async with scene(tmp_path) as here:
        good, older = of_stand(here)
        other = here.neighbour.announcement()
        await follow(here, [good, other])
        bads = {one.name: one for one in bad_records(here.stranger.port, good, older)}
        for name in ("forged with another key", "changed behind the signature", "replayed"):
            bad = bads[name]
            await follow(here, [bad.raw, other])
            assert await here.rejected() == {bad.reason: 1}, bad.name
            metrics = await here.metrics()
            kept = float(bad.reason != "replay")
            assert metrics["scamp_gateway_discovery_records_kept"][""] == kept, bad.name
            await here.check(bad.name)


async def test_any_byte_that_is_changed_is_seen(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        good, _ = of_stand(here)
        other = here.neighbour.announcement()
        await follow(here, [good, other])
        rng = random.Random(5)  # noqa: S311 - to be repeatable
        mutants = {mutated(rng, raw) for raw in (good, other) for _ in range(120)}
        await follow(here, [good, *mutants, other])
        rejected = await here.rejected()
        assert sum(rejected.values()) == len(mutants)
        assert set(rejected) <= {"signature", "malformed", "certificate", "version", "limit"}
        await here.check("among mutants")


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """Some bytes of the signed text other than they were."""
    text, rest = raw.split(b"\n\n", 1)
    changed = bytearray(text)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed))
        changed[at] = (changed[at] + rng.randrange(1, 256)) % 256
    again = bytes(changed)
    return raw[:-9] if again == text or SEPARATOR in again else again + b"\n\n" + rest


@pytest.mark.parametrize("content", [b"", b"no cache", b"\n%%%\n", b"\n%%%\nx\n%%%\ny"])
async def test_a_file_without_anything_good_leaves_all_in_force(
    content: bytes, tmp_path: Path
) -> None:
    async with scene(tmp_path) as here:
        good, _ = of_stand(here)
        await follow(here, [good, here.neighbour.announcement()])
        here.mesh.cache.with_suffix(".new").write_bytes(content)
        here.mesh.cache.with_suffix(".new").replace(here.mesh.cache)
        await until(lambda: here.gateway.parts.follower.status.failed_loads)
        metrics = await here.metrics()
        assert metrics["scamp_gateway_discovery_failed_loads_total"][""] >= 1
        assert metrics["scamp_gateway_discovery_records_accepted"][""] == 2
        await here.check("no cache")


async def test_a_file_that_is_too_large_leaves_all_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as here:
        good, _ = of_stand(here)
        other = here.neighbour.announcement()
        await follow(here, [good, other])
        monkeypatch.setattr(limits, "MAX_CACHE_FILE", 3 * len(good))
        await follow(here, [good, other, bytes(3 * len(good))])
        assert (await here.metrics())["scamp_gateway_discovery_failed_loads_total"][""] == 1
        await here.check("too large")


async def test_a_record_that_is_too_large_costs_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        good, _ = of_stand(here)
        await follow(
            here, [signed(1, x="y" * limits.MAX_ANNOUNCEMENT), good, here.neighbour.announcement()]
        )
        assert await here.rejected() == {"limit": 1}
        await here.check("too large")


async def test_whom_nobody_authorized_is_in_no_index(tmp_path: Path) -> None:
    """Well signed, and as the known service: but with a key that the file does not name."""
    async with scene(tmp_path) as here:
        good, _ = of_stand(here)
        moved = json.loads(good.split(b"\n\n", 1)[0])
        moved[5] = f"beepish+tls://127.0.0.1:{here.stranger.port}"
        own = signed(here.stranger.port)
        await follow(
            here,
            [sign(json.dumps(moved).encode()), good, own, here.neighbour.announcement()],
        )
        metrics = await here.metrics()
        assert metrics["scamp_gateway_discovery_actions_unauthorized"][""] == 5
        for _ in range(8):
            await here.check("unauthorized")


# -- heard on the network -----------------------------------------------------------------


@needs_multicast
async def test_nothing_bad_that_is_heard_is_believed_or_costs_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LISTEN_FIRST", 0.2)
    group = free_group()
    async with scene(tmp_path, group) as here:
        sender = MulticastSender(group)
        try:
            good, older = of_stand(here)
            other = here.neighbour.announcement()
            for raw in (good, other):
                sender.send(encode_packet(raw))
            await eventually(lambda: here.serves())
            bad = bad_records(here.stranger.port, good, older)
            for one in bad:
                sender.send(encode_packet(one.raw))
                await asyncio.sleep(0)
            own = signed(here.stranger.port)
            sender.send(encode_packet(own))
            for raw, reason in ((b"R", "malformed"), (b"Dx\x9c", "malformed")):
                sender.send(raw)
                bad.append(Bad(repr(raw), reason, raw))
            expected = reasons_of(bad)
            with contextlib.suppress(TimeoutError):
                await eventually(lambda: here.has_rejected(expected), timeout=15)
            assert await here.rejected() == expected
            metrics = await here.metrics()
            assert metrics["scamp_gateway_discovery_actions_unauthorized"][""] == 1
            for raw in (here.mesh.service.announcement(), here.neighbour.announcement()):
                sender.send(encode_packet(raw))
            await eventually(here.is_fresh)  # on a busy machine they had been silent for too long
            await here.check("heard")
        finally:
            sender.close()


@needs_multicast
async def test_who_is_not_heard_any_more_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired: its interval is over twice, while others are heard."""
    monkeypatch.setattr(limits, "LISTEN_FIRST", 0.2)
    group = free_group()
    async with scene(tmp_path, group) as here:
        sender = MulticastSender(group)
        short = json.loads(here.neighbour.announcement().split(b"\n\n", 1)[0])
        short[4] = 1000
        try:
            sender.send(encode_packet(sign(json.dumps(short).encode(), key=4)))
            sender.send(encode_packet(here.mesh.service.announcement()))
            await eventually(lambda: here.serves())

            async def gone() -> bool:
                sender.send(encode_packet(here.mesh.service.announcement()))
                return await here.status("Other.echo") == 404

            await eventually(gone)
            assert await here.status("Test.Gate.open") == 200
        finally:
            sender.close()
