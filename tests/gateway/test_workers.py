"""Several workers: real processes on one port, seen as one gateway."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import aiohttp
import psutil
import pytest

from crew import Crew, arguments, crew, environment
from scamp.testing import until
from stand import OTHER_TICKET_KEY, Stand, eventually, stand

REQUESTS = (
    'scamp_gateway_requests_total{action="Test.Gate.open~1",method="GET",source="service",'
    'status_class="2xx"}'
)
OPEN = "/api/Test.Gate.open"
WAIT = "/api/Test.Gate.wait"

pytestmark = pytest.mark.one_loop


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A connection for each request, so that both workers get some."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


async def status(http: aiohttp.ClientSession, url: str, **headers: str) -> int:
    async with http.get(url, headers=headers) as answer:
        await answer.read()
        return answer.status


async def ended(processes: list[psutil.Process]) -> None:
    await until(
        lambda: all(
            not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in processes
        ),
        timeout=20,
    )


# -- as one gateway ---------------------------------------------------------------------


async def test_two_workers_are_one_gateway(
    mesh: Stand, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    lines = tmp_path / "access.log"
    async with crew(mesh, "--access-log", str(lines)) as gateway:
        assert len(gateway.workers()) == 2
        answers = await asyncio.gather(
            *(status(http, f"{gateway.public}{OPEN}") for _ in range(60))
        )
        assert answers == [200] * 60
        samples = await gateway.metrics(http)
        assert samples[REQUESTS] == 60
        assert samples['scamp_gateway_workers{state="answering"}'] == 2
        assert samples["scamp_gateway_requests_in_flight"] == 0
        duration = 'scamp_gateway_request_duration_seconds_bucket{action="Test.Gate.open~1",'
        assert samples[duration + 'le="+Inf"}'] == 60
        assert [value for name, value in samples.items() if "build_info" in name] == [1]
        await promtool_has_nothing_to_say(http, gateway)
        async with http.get(f"{gateway.admin}/connections") as answer:
            instances = (await answer.json())["instances"]
            assert {one["worker"] for one in instances} == {1, 2}
        async with http.get(f"{gateway.admin}/readyz?verbose") as answer:
            assert (await answer.text()).startswith("[+] workers: 2 of 2 answer\n[+] index: 1")
        async with http.get(f"{gateway.admin}/config") as answer:
            shown = await answer.json()
            assert shown["max_in_flight"]["value"] == 5000, "as it was given, not one's share"
        for page in ("/", "/services", "/actions", "/livez"):
            assert await status(http, f"{gateway.admin}{page}") == 200
        mode = next(gateway.runtime.glob("scamp-gateway-*")).stat().st_mode
        assert mode & 0o777 == 0o700
        gateway.signal(signal.SIGTERM)
        assert await gateway.process.wait() == 0
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(told) == 60
    assert {one["worker"] for one in told} == {1, 2}
    assert not list(gateway.runtime.iterdir()), "nothing is left behind"


async def promtool_has_nothing_to_say(http: aiohttp.ClientSession, gateway: Crew) -> None:
    if (promtool := shutil.which("promtool")) is None:
        return
    async with http.get(f"{gateway.admin}/metrics") as answer:
        text = await answer.read()
    check = await asyncio.create_subprocess_exec(
        *(promtool, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await check.communicate(text)
    assert (check.returncode, said) == (0, b"")


async def test_hup_makes_every_worker_look_and_replaces_none(
    mesh: Stand, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    lines = tmp_path / "access.log"
    slow = ("--discovery-poll-interval", "60")  # nobody would look by himself
    async with crew(mesh, "--access-log", str(lines), "--auth-mode", "verify", *slow) as gateway:
        before = gateway.workers()
        lines.rename(tmp_path / "old.log")
        mesh.use_ticket_key(OTHER_TICKET_KEY)
        gateway.signal(signal.SIGHUP)
        taken = 'scamp_gateway_reloads_total{result="ok",what="ticket_keys"}'

        async def both() -> bool:
            return (await gateway.metrics(http)).get(taken) == 2

        await eventually(both)
        ticket = mesh.ticket(key=OTHER_TICKET_KEY)
        url = f"{gateway.public}/api/Test.Gate.guarded"
        asked = [status(http, url, **ticket) for _ in range(24)]
        assert await asyncio.gather(*asked) == [200] * 24
        await until(lambda: lines.exists() and len(lines.read_bytes().splitlines()) == 24)
        assert gateway.workers() == before


# -- a worker that dies -----------------------------------------------------------------


async def test_connections_in_the_queue_of_a_worker_that_is_killed_get_their_answer(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with crew(mesh) as gateway:
        assert await status(http, f"{gateway.public}{OPEN}") == 200
        counted = (await gateway.metrics(http))[REQUESTS]
        victim = gateway.workers()[0]
        victim.suspend()  # what comes for it now stays in its queue
        await until(lambda: victim.status() == psutil.STATUS_STOPPED)
        asked = [asyncio.create_task(status(http, f"{gateway.public}{OPEN}")) for _ in range(40)]
        # All have connected, the other's are answered, and some wait for the one that stands still.
        await until(lambda: sum(one.done() for one in asked) == 40 - queued(gateway) < 40)
        victim.kill()
        assert await asyncio.gather(*asked) == [200] * 40
        await gateway.all_ready(http)
        assert victim not in gateway.workers()
        samples = await gateway.metrics(http)
        assert samples[REQUESTS] == counted + 40, "what the dead one had counted still counts"
        assert samples['scamp_gateway_worker_ends_total{cause="died"}'] == 1
        master = psutil.Process(gateway.workers()[0].ppid())
        assert samples["process_start_time_seconds"] == pytest.approx(master.create_time(), abs=0.1)


def queued(gateway: Crew) -> int:
    """Connections that no worker has accepted: the kernel tells their number for sockets that
    listen, in place of bytes received."""
    port = f":{int(gateway.public.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        int(row[4].rpartition(":")[2], 16)
        for row in rows
        if row[1].endswith(port) and row[3] == "0A"
    )


async def test_a_worker_that_stands_still_is_replaced(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with crew(mesh, "--worker-timeout", "3") as gateway:
        victim = gateway.workers()[1]
        victim.suspend()
        async with http.get(f"{gateway.admin}/readyz") as answer:
            text = await answer.text()
            assert (answer.status, text.splitlines()[0]) == (
                *(503, "[-] workers: 1 of 2 answer, not 2"),
            )
        await ended([victim])
        await gateway.all_ready(http)
        samples = await gateway.metrics(http)
        assert samples['scamp_gateway_worker_ends_total{cause="hung"}'] == 1
        assert await status(http, f"{gateway.public}{OPEN}") == 200


async def test_nobody_outlives_a_master_that_is_killed(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with crew(mesh) as gateway:
        workers = gateway.workers()
        asked = [asyncio.create_task(status(http, f"{gateway.public}{WAIT}")) for _ in range(6)]
        await until(lambda: mesh.waiting == 6)
        gateway.signal(signal.SIGKILL)
        port = int(gateway.public.rpartition(":")[2])
        await eventually(lambda: refuses(port))
        mesh.gate.set()
        assert await asyncio.gather(*asked) == [200] * 6, "what was under way is finished"
        await ended(workers)
        assert not list(gateway.runtime.iterdir())
        assert await gateway.process.wait() == -signal.SIGKILL


# -- stopping ---------------------------------------------------------------------------


async def refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return True
    writer.close()
    return False


async def test_a_signal_to_the_whole_group_drains_all_workers(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    """Each worker gets the signal, and the order, and that is not twice."""
    async with crew(mesh, "--drain-delay", "1") as gateway:
        workers = gateway.workers()
        asked = [asyncio.create_task(status(http, f"{gateway.public}{WAIT}")) for _ in range(12)]
        await until(lambda: mesh.waiting == 12)
        os.killpg(gateway.process.pid, signal.SIGTERM)

        async def unready() -> bool:
            return await status(http, f"{gateway.admin}/readyz") == 503

        await eventually(unready)
        async with http.get(f"{gateway.public}{OPEN}") as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
        port = int(gateway.public.rpartition(":")[2])
        await eventually(lambda: refuses(port))
        assert not any(one.done() for one in asked)
        mesh.gate.set()
        assert await asyncio.gather(*asked) == [200] * 12
        assert await gateway.process.wait() == 0
        await ended(workers)


async def test_a_second_signal_ends_every_wait(mesh: Stand, http: aiohttp.ClientSession) -> None:
    async with crew(mesh, "--drain-delay", "100", "--drain-limit", "100") as gateway:
        asked = [asyncio.create_task(status(http, f"{gateway.public}{WAIT}")) for _ in range(4)]
        await until(lambda: mesh.waiting == 4)
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: is_unready(http, gateway))
        gateway.signal(signal.SIGTERM)
        assert await asyncio.gather(*asked) == [503] * 4
        assert await gateway.process.wait() == 0


async def is_unready(http: aiohttp.ClientSession, gateway: Crew) -> bool:
    return await status(http, f"{gateway.admin}/readyz") == 503


# -- not starting -----------------------------------------------------------------------


async def run_to_the_end(mesh: Stand, *flags: str) -> subprocess.CompletedProcess[str]:
    env, _ = environment(mesh)
    return await asyncio.to_thread(
        subprocess.run,
        arguments(mesh, *flags),
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def complaint(done: subprocess.CompletedProcess[str]) -> tuple[int, str, list[str]]:
    lines = [line for line in done.stderr.splitlines() if line.startswith("scamp-gateway: ")]
    return done.returncode, done.stdout, lines


async def test_what_one_worker_cannot_start_with_several_cannot_either(mesh: Stand) -> None:
    routes = mesh.folder / "routes.toml"
    routes.write_text("[[routes]]\nmethod = 'GET'\n\n[[routes]]\nmethod = 7\n")
    flags = ("--routes", str(routes))
    one, two = await asyncio.gather(
        run_to_the_end(mesh, *flags, "--workers", "1"), run_to_the_end(mesh, *flags)
    )
    assert complaint(one) == complaint(two)
    assert two.returncode == 2
    assert "routes.toml" in two.stderr
    assert two.stderr.count("Booting worker") <= 2, "nobody is started again"
    assert not list(environment(mesh)[1].iterdir())


# -- one gateway after another ----------------------------------------------------------


class Manager:
    """What gateways tell systemd."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._said: list[str] = []

    def said(self) -> list[str]:
        """All of it up to now, without times."""
        with suppress(BlockingIOError):
            while True:
                self._said.append(self._sock.recv(1000).decode().partition("\nMONO")[0])
        return self._said


@contextmanager
def service_manager(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """For gateways that are started meanwhile."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        yield Manager(sock)


def ready(gateway: Crew) -> str:
    return f"READY=1\nMAINPID={gateway.process.pid}"


async def test_any_number_of_workers_takes_over_from_any_other(
    mesh: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that keep their connections, and those that do not, notice nothing; readiness, too.
    What is under way is finished, and only masters tell the service manager."""
    path = tmp_path / "run" / "takeover"
    flags = ("--takeover-socket", str(path), "--drain-delay", "1000")
    seen: Counter[tuple[str, int]] = Counter()
    done = asyncio.Event()

    async def keep_asking(page: str, kept: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not kept)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not done.is_set():
                seen[page, await status(session, page)] += 1

    async with AsyncExitStack() as stack:
        manager = stack.enter_context(service_manager(tmp_path, monkeypatch))
        old = await stack.enter_async_context(crew(mesh, *flags, "--workers", "1"))
        pages = [f"{old.public}{OPEN}", f"{old.admin}/readyz"]
        said = [ready(old)]
        assert manager.said() == said
        http = await stack.enter_async_context(aiohttp.ClientSession())
        tasks = [asyncio.create_task(keep_asking(p, k)) for p in pages for k in (True, False, True)]
        for count in (3, 2, 1):
            asked = [asyncio.create_task(status(http, f"{old.public}{WAIT}")) for _ in range(6)]
            await until(lambda: mesh.waiting == 6)
            new = await stack.enter_async_context(crew(mesh, *flags, "--workers", str(count)))
            assert (new.public, new.admin) == (old.public, old.admin)
            assert len(new.workers()) == (count if count > 1 else 0)
            before = seen.copy()
            await until(lambda: all(seen[p, 200] > before[p, 200] for p in pages))  # noqa: B023
            assert old.process.returncode is None
            mesh.gate.set()
            assert await asyncio.gather(*asked) == [200] * 6
            assert await old.process.wait() == 0, "without the drain delay"
            mesh.gate.clear()
            said.append(ready(new))
            assert manager.said() == said, "nobody else, and not that the service stops"
            assert path.is_socket()
            old = new
        done.set()
        await asyncio.gather(*tasks)
        assert {key[1] for key in seen} == {200}, seen


async def test_killed_workers_of_either_side_do_not_keep_one_from_taking_over(
    mesh: Stand, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "takeover"
    flags = ("--takeover-socket", str(path))
    missing = tmp_path / "cache-to-come"
    async with AsyncExitStack() as stack:
        manager = stack.enter_context(service_manager(tmp_path, monkeypatch))
        old = await stack.enter_async_context(crew(mesh, *flags))
        url = f"{old.public}{OPEN}"
        log = tmp_path / "crew.log"
        later = crew(mesh, *flags, "--discovery-cache", str(missing))
        starting = asyncio.create_task(stack.enter_async_context(later))
        await until(lambda: "is about to take over: public, admin" in log.read_text())
        us = psutil.Process()
        [master] = [one for one in us.children() if one.pid != old.process.pid]
        await until(lambda: len(master.children()) == 2)
        for victim in (old.workers()[0], master.children()[1]):
            victim.kill()
            await ended([victim])
        await until(lambda: len(master.children()) == 2 and len(old.workers()) == 2)
        await old.all_ready(http)
        assert [await status(http, url) for _ in range(20)] == [200] * 20
        assert not starting.done(), "it has no index yet"
        old.signal(signal.SIGHUP)
        await until(lambda: manager.said() == [ready(old), "RELOADING=1", ready(old)])
        shutil.copyfile(mesh.cache, missing)
        new = await starting
        assert await old.process.wait() == 0
        assert [await status(http, url) for _ in range(20)] == [200] * 20
        new.signal(signal.SIGTERM)
        assert await new.process.wait() == 0
        assert manager.said()[3:] == [ready(new), "STOPPING=1"]
    assert not path.exists()
