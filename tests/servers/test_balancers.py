"""nginx and HAProxy with the files of deploy/, in front of two gateways."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import orjson
import psutil
import pytest
from eventstream import Browser

from balanced import STRANGER, Balanced, Proxy, balanced, wait_until
from balanced_service import PIECE
from fronted import Answer, Wire

pytestmark = [pytest.mark.timeout(120), pytest.mark.one_loop]

LARGE: Final = 1024
"""Pieces of 64 KiB that make 64 MiB."""

GROWTH: Final = 24 << 20
"""Bytes that a process may need for 64 MiB that pass it."""

VERSIONS: Final = {"nginx": b"2", "haproxy": b"1.1"}
"""What one who would like HTTP/2 gets. HAProxy's file says why not."""

CLIENTS: Final = 6
"""Of each proxy, while gateways are replaced."""


@pytest.fixture(scope="module")
def stand(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balanced]:
    folder = tmp_path_factory.mktemp("balanced")
    with balanced(folder, tool("nginx"), tool("haproxy")) as found:
        yield found


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest, stand: Balanced) -> Proxy:
    return stand.proxies[request.param]


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Wire]:
    wire = await proxy.connect()
    try:
        yield wire
    finally:
        await wire.close()


def test_the_program_takes_its_file_without_a_warning(proxy: Proxy) -> None:
    done = subprocess.run(proxy.check, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).lower()
    assert done.returncode == 0, said
    assert "warn" not in said
    assert "alert" not in said


# -- bodies, both ways ------------------------------------------------------------------


async def test_an_answer_arrives_while_the_service_is_still_sending(
    stand: Balanced, proxy: Proxy
) -> None:
    gate = f"pieces-{proxy.name}"
    async with connected(proxy) as wire:
        wire.send("POST", "/api/Show.pieces", body=orjson.dumps({"gate": gate}))
        status, _ = await wire.head()
        assert status == 200
        assert await wire.chunk() == b'["first",'
        await stand.directly("pass", {"gate": gate})
        assert await wire.chunk() == b'"last"]'
        assert await wire.chunk() == b""


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_the_service_has_the_beginning_before_the_client_sends_the_end(
    stand: Balanced, proxy: Proxy, method: str, chunked: bool
) -> None:
    gate = f"upload-{proxy.name}-{method}-{chunked}"
    first, last = f"gate={gate}\n".encode() + PIECE * 3, PIECE
    whole = first + last

    def framed(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data) if chunked else data

    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(whole)))
    async with connected(proxy) as wire:
        wire.send(method, "/api/Show.upload", [framing])
        wire.writer.write(framed(first))
        await wire.writer.drain()
        await stand.directly("reached", {"gate": gate})
        await stand.directly("pass", {"gate": gate})
        wire.writer.write(framed(last) + (b"0\r\n\r\n" if chunked else b""))
        answer = await wire.answer()
    assert answer.status == 200, answer.body
    assert answer.json() == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}


async def test_large_bodies_are_kept_nowhere(stand: Balanced, proxy: Proxy) -> None:
    assert proxy.process is not None
    top = psutil.Process(proxy.process.pid)
    processes = [gateway.process for gateway in stand.gateways]
    for process in processes:
        assert process is not None
    before = [process.forget_peak() for process in processes if process is not None]
    mine = {one: one.memory_info().rss for one in (top, *top.children())}
    digest = hashlib.sha256()
    for _ in range(LARGE):
        digest.update(PIECE)
    async with connected(proxy) as wire:
        wire.send("POST", "/api/Show.upload", [("Content-Length", str(LARGE * len(PIECE)))])
        for _ in range(LARGE):
            wire.writer.write(PIECE)
            await wire.writer.drain()
        answer = await wire.answer()
        assert answer.json() == {"bytes": LARGE * len(PIECE), "sha256": digest.hexdigest()}

        wire.send("POST", "/api/Show.download", body=orjson.dumps({"pieces": LARGE}))
        assert (await wire.head())[0] == 200
        got = hashlib.sha256()
        while piece := await wire.chunk():
            got.update(piece)
        assert got.digest() == digest.digest()
    for process, peak in zip(processes, before, strict=True):
        assert process is not None
        assert process.peak() - peak < GROWTH
    for one, resident in mine.items():
        assert one.memory_info().rss - resident < GROWTH
    if proxy.name == "nginx":
        assert proxy.written() == []
        assert "temporary file" not in (proxy.folder / "error.log").read_text()


async def test_one_who_would_like_http_2_is_served(
    proxy: Proxy, stand: Balanced, tool: Callable[[str], str]
) -> None:
    """With a PUT, which nginx sends around once."""
    body = stand.folder / "body"
    body.write_bytes(PIECE * 64)
    answered = await curl(tool("curl"), proxy, "/api/Show.upload", "-T", str(body))
    said, _ = await answered.communicate()
    assert answered.returncode == 0
    told, version = said.splitlines()
    assert version == VERSIONS[proxy.name]
    assert orjson.loads(told)["sha256"] == hashlib.sha256(PIECE * 64).hexdigest()


async def curl(
    program: str, proxy: Proxy, target: str, *options: str
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(program, "--silent", "--no-buffer", "--http2", "--write-out", "\n%{http_version}"),
        *("--cacert", str(proxy.folder.parent / "fullchain.pem"), *options),
        f"https://127.0.0.1:{proxy.port}{target}",
        stdout=asyncio.subprocess.PIPE,
    )


async def test_an_answer_that_broke_off_does_not_look_whole(stand: Balanced, proxy: Proxy) -> None:
    gate = f"breaks-{proxy.name}"
    async with connected(proxy) as wire:
        wire.send("POST", "/api/Show.breaks", body=orjson.dumps({"gate": gate}))
        assert (await wire.head())[0] == 200
        assert await wire.chunk() == b'["first",'
        await stand.directly("pass", {"gate": gate})
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await wire.chunk()


async def test_nor_does_it_to_one_who_would_like_http_2(
    stand: Balanced, proxy: Proxy, tool: Callable[[str], str]
) -> None:
    gate = f"breaks-2-{proxy.name}"
    asked = await curl(tool("curl"), proxy, f"/api/Show.breaks?gate={gate}")
    assert asked.stdout is not None
    assert await asked.stdout.readexactly(9) == b'["first",'
    await stand.directly("pass", {"gate": gate})
    assert await asked.stdout.read() == b"\n" + VERSIONS[proxy.name]
    assert await asked.wait() != 0


async def test_one_who_leaves_is_given_up(stand: Balanced, proxy: Proxy) -> None:
    mark, gate = f"left-{proxy.name}", f"leave-{proxy.name}"
    async with connected(proxy) as wire:
        body = orjson.dumps({"n": mark, "gate": gate})
        wire.send("POST", "/api/Show.change", [("X-Request-ID", mark)], body)
        await stand.directly("reached", {"gate": gate})
        wire.writer.transport.abort()
    line = await stand.line(mark)
    assert (line["status"], line["cause"]) == (499, "client_left")


# -- events -----------------------------------------------------------------------------


async def follow(proxy: Proxy, headers: tuple[tuple[str, str], ...] = ()) -> Browser:
    wire = await proxy.connect()
    wire.send("GET", "/api/events/show?code=price", headers)
    return Browser(wire, *await wire.head())


async def test_events_arrive_as_they_are_published(stand: Balanced, proxy: Proxy) -> None:
    browser = await follow(proxy, (("X-Request-ID", f"events-{proxy.name}"),))
    try:
        assert browser.headers["Content-Type"].startswith("text/event-stream")
        await browser.take(1)
        following = asyncio.create_task(browser.next(60))
        async with asyncio.timeout(30):
            while browser.comments < 2:  # noqa: ASYNC110 - heartbeats
                await asyncio.sleep(0.01)
        assert not following.done()
        await stand.directly("price", {"key": "pear", "value": proxy.name})
        event = await following
        assert event is not None
        assert event.data == {"code": "price", "key": "pear", "value": proxy.name}
    finally:
        await browser.close()
    assert (await stand.line(f"events-{proxy.name}"))["cause"] == "client_left"


async def test_a_browser_that_comes_back_goes_on_where_it_was(
    stand: Balanced, proxy: Proxy
) -> None:
    """If it comes to the same gateway; the other one tells everything anew."""
    browser = await follow(proxy)
    await browser.take(1)
    await stand.directly("price", {"key": "plum", "value": f"1-{proxy.name}"})
    await browser.until({"price": {**browser.values["price"], "plum": f"1-{proxy.name}"}})
    last = browser.last_id
    await browser.close()
    await stand.directly("price", {"key": "plum", "value": f"2-{proxy.name}"})
    names = []
    for _ in range(10):
        again = await follow(proxy, (("Last-Event-ID", last),))
        try:
            event = await again.next()
            assert event is not None
            names.append(event.name)
            values = event.data["codes"]["price"] if event.name == "snapshot" else {}
            assert values.get("plum", event.data.get("value")) == f"2-{proxy.name}"
        finally:
            await again.close()
        if event.name == "change":
            break
    assert "change" in names


# -- heads ------------------------------------------------------------------------------


REFUSED: Final = [
    ("GET", "/nowhere", {}, 404),
    ("HEAD", "/nowhere", {}, 404),
    ("GET", "/api/Show.nothing", {}, 404),
    ("GET", "/api/Show.hello/", {}, 404),
    ("GET", "/api/%2e%2e/Show.hello", {}, 400),
    ("GET", "/api/Show.hello%2F", {}, 400),
    ("DELETE", "/api/Show.hello", {}, 405),
    ("GET", "/api/Show.fetch", {}, 401),
    ("GET", "/api/Show.fetch", {"Authorization": "Bearer rubbish"}, 401),
    ("GET", "/api/Show.fails", {}, 409),
    ("POST", "/api/Show.hello", {"Content-Type": "text/odd"}, 415),
    ("OPTIONS", "/api/Show.hello", {}, 204),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/docs", {}, 200),
    ("HEAD", "/api/Show.hello?a=%2F&a=b", {}, 200),
]

OF_A_HOP: Final = {"connection", "keep-alive", "date", "server", "strict-transport-security"}


@pytest.mark.parametrize(("method", "target", "headers", "status"), REFUSED)
async def test_what_the_gateway_answers_passes_as_it_is(
    stand: Balanced,
    proxy: Proxy,
    method: str,
    target: str,
    headers: dict[str, str],
    status: int,
) -> None:
    given = (("X-Request-ID", "the-same"), *headers.items())
    body = b"{}" if method == "POST" else None
    passed = await proxy.ask(method, target, body, given)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", stand.gateways[0].public))
    try:
        wire.send(method, target, given, body)
        direct = await wire.answer(method)
    finally:
        await wire.close()
    assert (passed.status, direct.status) == (status, status)
    assert fields(passed) == fields(direct)
    if target != "/openapi.json":  # in which addresses are those that were asked
        assert passed.body == direct.body
    assert "max-age" in passed.headers["Strict-Transport-Security"]


def fields(answer: Answer) -> list[tuple[str, str]]:
    names = {"content-length", "etag"}  # of a body that tells addresses
    odd = names if answer.headers.get("ETag") else set()
    return sorted(
        (name.lower(), value)
        for name, value in answer.headers.items()
        if name.lower() not in OF_A_HOP | odd
    )


async def test_a_field_that_is_too_long_is_the_gateways_to_refuse(proxy: Proxy) -> None:
    answer = await proxy.ask("GET", "/api/Show.hello", None, (("X-Long", "x" * (13 << 10)),))
    assert answer.status == 431
    assert answer.json()["code"] == "header_too_large"


async def test_one_who_asks_too_often_is_told_when_to_come_again(proxy: Proxy) -> None:
    answers = [await proxy.ask("GET", "/seldom") for _ in range(5)]
    (*_, last) = answers
    assert last.status == 429
    assert int(last.headers["Retry-After"]) > 0
    assert last.json()["code"] == "rate_limited"


async def test_a_refusal_reaches_one_who_is_still_sending(proxy: Proxy) -> None:
    async with connected(proxy) as wire:
        wire.send("POST", "/api/Show.fetch", [("Content-Length", str(128 * len(PIECE)))])
        answering = asyncio.create_task(wire.answer())
        with suppress(ConnectionError):
            for _ in range(128):
                if answering.done():
                    break
                wire.writer.write(PIECE)
                await wire.writer.drain()
        answer = await answering
    assert answer.status == 401
    assert answer.json()["code"] == "ticket_missing"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_ticket_of_eight_kibibytes_passes(stand: Balanced, proxy: Proxy) -> None:
    ticket = stand.ticket(1760)
    assert 7_500 < len(ticket) <= 8_192
    more = [(f"X-More-{number}", "m" * 1000) for number in range(4)]
    given = (("Authorization", f"Bearer {ticket}"), ("Cookie", "c" * 3000), *more)
    for method in ("GET", "POST"):
        answer = await proxy.ask(method, "/api/Show.fetch", None, given)
        assert answer.status == 200, answer.body
        assert answer.json() == {"ticket": ticket}


async def test_the_callers_address_is_believed_from_the_proxy_alone(
    stand: Balanced, proxy: Proxy
) -> None:
    forged = ("X-Forwarded-For", "192.0.2.66")
    for method in ("GET", "POST", "DELETE"):
        mark = f"whose-{proxy.name}-{method}"
        await proxy.ask(method, "/api/Show.hello", None, (forged, ("X-Request-ID", mark)))
        assert (await stand.line(mark))["client"] == STRANGER
    mark = f"direct-{proxy.name}"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", stand.gateways[0].public, local_addr=(STRANGER, 0)
    )
    wire = Wire(reader, writer)
    try:
        wire.send("GET", "/api/Show.hello", [forged, ("X-Request-ID", mark)])
        await wire.answer()
    finally:
        await wire.close()
    assert (await stand.line(mark))["client"] == STRANGER


async def test_callers_do_not_say_what_the_method_is(proxy: Proxy) -> None:
    """nginx tells itself, on the way around that PUT and DELETE take."""
    for method, action, said in (("PUT", "change", "DELETE"), ("DELETE", "remove", "PUT")):
        forged = (("X-SCAMP-Real-Method", said),)
        body = {"n": f"forged-{proxy.name}"} if method == "PUT" else None
        answer = await proxy.ask(method, f"/api/Show.{action}?n=forged", body, forged)
        assert answer.status == 200, answer.body


async def test_a_request_has_one_id_everywhere(stand: Balanced, proxy: Proxy) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    traced = ("traceparent", f"00-{trace}-b7ad6b7169203331-01")
    for given in ((), (("X-Request-ID", 'no"good'),), (("X-Request-ID", f"mine-{proxy.name}"),)):
        answer = await proxy.ask("GET", "/api/Show.hello", None, (traced, *given))
        (told,) = answer.headers.getall("X-Request-ID")
        assert (told == f"mine-{proxy.name}") == ("mine" in str(given))
        assert trace in answer.json()["trace"]
        assert (await stand.line(told))["trace_id"] == trace
        wait_until(lambda: told in proxy.said())  # noqa: B023 - at once


@pytest.mark.parametrize(
    "given",
    [
        ('good, b"ad x',),
        ("good", 'b"ad x'),
        ('b"ad x', "b,ad"),
        ("1,7,9,1700000,60,abcdefghijklmnop",),
        ("1%2C7%2C9%2C1700000%2C60%2Cabcdefghijklmnop",),
    ],
)
async def test_an_id_that_is_none_is_told_nowhere(
    stand: Balanced, proxy: Proxy, given: tuple[str, ...]
) -> None:
    """A space or a quote would forge lines of logs and fields of documents, a ticket be a secret
    in both."""
    answer = await proxy.ask(
        "GET", "/api/Show.hello", None, tuple(("X-Request-ID", one) for one in given)
    )
    (told,) = answer.headers.getall("X-Request-ID")
    assert told == "good" or re.fullmatch("[0-9a-f-]{32,36}", told)
    await stand.line(told)
    wait_until(lambda: told in proxy.said())
    assert not any(one in proxy.said() for one in ("ad x", "b,ad", "abcdefghijklmnop"))


@pytest.mark.parametrize("text", ["good", "a-b_c.d~e:f/g+h=i$j&k'l(m)[n]", "!" * 128])
async def test_an_id_that_is_one_is_taken(proxy: Proxy, text: str) -> None:
    answer = await proxy.ask("GET", "/api/Show.hello", None, (("X-Request-ID", text),))
    assert answer.headers.getall("X-Request-ID") == [text]


async def test_without_tls_nothing_is_served(proxy: Proxy) -> None:
    wire = Wire(*await asyncio.open_connection("127.0.0.1", proxy.plain))
    try:
        wire.send("POST", "/api/Show.hello?a=b", body=b"{}")
        answer = await wire.answer()
    finally:
        await wire.close()
    assert answer.status == 308
    assert answer.headers["Location"] == "https://test/api/Show.hello?a=b"


# -- gateways that leave ----------------------------------------------------------------


class Load:
    """Clients of one proxy that keep their connections and retry nothing."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._numbers = itertools.count()
        self.over = False
        self.answers = 0
        self.failures: list[str] = []
        self.changes: list[str] = []
        """Numbers of those that were answered."""

    async def client(self) -> None:
        while not self.over:
            async with connected(self._proxy) as wire:
                while not self.over and await self._ask(wire):  # noqa: ASYNC110 - a pause
                    await asyncio.sleep(0.01)

    async def _ask(self, wire: Wire) -> bool:
        number = next(self._numbers)
        n = f"{self._proxy.name}-{number}"
        method, action = (
            ("GET", "hello"),
            ("POST", "change"),
            ("PUT", "change"),
            ("DELETE", "remove"),
        )[number % 4]
        try:
            async with asyncio.timeout(30):
                if method in ("GET", "DELETE"):
                    wire.send(method, f"/api/Show.{action}?n={n}")
                else:
                    wire.send(method, f"/api/Show.{action}", body=orjson.dumps({"n": n}))
                answer = await wire.answer(method)
        except (OSError, EOFError, TimeoutError) as exc:
            self.failures.append(f"{method} {n}: {exc!r}")
            return False
        if answer.status != 200 or not answer.whole:
            self.failures.append(f"{method} {n}: {answer.status} {answer.body!r}")
            return False
        self.answers += 1
        if action != "hello":
            self.changes.append(n)
        return answer.headers.get("Connection", "").lower() != "close"

    async def more(self, count: int = 60) -> None:
        wanted = self.answers + count
        async with asyncio.timeout(30):
            while self.answers < wanted and not self.failures:  # noqa: ASYNC110 - counts
                await asyncio.sleep(0.01)


@asynccontextmanager
async def load_on(stand: Balanced) -> AsyncIterator[list[Load]]:
    """On both proxies for the block; then none has failed, and no change was made twice."""
    loads = [Load(proxy) for proxy in stand.proxies.values()]
    async with asyncio.TaskGroup() as group:
        for load in loads:
            for _ in range(CLIENTS):
                group.create_task(load.client())
        try:
            yield loads
        finally:
            for load in loads:
                load.over = True
    made = (await stand.directly("made", {})).json()
    for load in loads:
        assert load.failures == []
        assert {made[n] for n in load.changes} == {1}


async def test_no_request_fails_while_a_gateway_is_replaced(stand: Balanced) -> None:
    gateway = stand.gateways[0]
    async with load_on(stand) as loads, asyncio.TaskGroup() as group:
        for load in loads:
            await load.more()
        long = {
            gate: group.create_task(proxy.ask("POST", "/api/Show.pieces", {"gate": gate}))
            for proxy in stand.proxies.values()
            for gate in (f"long-{one}-{proxy.name}" for one in range(4))
        }
        for gate in long:
            await stand.directly("reached", {"gate": gate})
        leaving = asyncio.create_task(asyncio.to_thread(gateway.terminate))
        await asyncio.to_thread(wait_until, lambda: refuses(gateway.public))
        assert not leaving.done(), "answers are under way there"
        for gate, asked in long.items():
            await stand.directly("pass", {"gate": gate})
            answer = await asked
            assert (answer.body, answer.whole) == (b'["first","last"]', True)
        assert await leaving == 0
        for load in loads:
            await load.more()
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(wait_until, lambda: stand.up(0))
        for load in loads:
            await load.more()


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


async def test_a_gateway_that_is_killed_takes_only_its_own_along(
    stand: Balanced, proxy: Proxy
) -> None:
    """And nothing that changes something is sent to the other one."""
    lost, left = stand.gateways
    names = [f"kill-{proxy.name}-{number}" for number in range(9)]
    asked: list[asyncio.Task[Answer]] = []
    for number, name in enumerate(names):
        if number % 3 == 0:
            work = proxy.ask("DELETE", f"/api/Show.remove?n={name}&gate={name}")
        else:
            method = ("POST", "PUT")[number % 3 - 1]
            work = proxy.ask(method, "/api/Show.change", {"n": name, "gate": name})
        asked.append(asyncio.create_task(work))
    for name in names:
        await stand.directly("reached", {"gate": name})
    await asyncio.to_thread(lost.kill)
    later = [await proxy.ask("POST", "/api/Show.hello", {}) for _ in range(10)]
    for name in names:
        await stand.directly("pass", {"gate": name})
    answers = await asyncio.gather(*asked)
    made = (await stand.directly("made", {})).json()

    assert {answer.status for answer in later} == {200}
    assert {made[name] for name in names} == {1}
    failed = [answer for answer in answers if answer.status != 200]
    assert 0 < len(failed) < len(answers)
    for answer in failed:
        told = answer.json()
        assert (answer.status, told["status"], told["type"]) == (502, 502, "about:blank")
        assert told["instance"] == answer.headers["X-Request-ID"]
        assert answer.headers["Content-Type"] == "application/problem+json"

    await asyncio.to_thread(left.kill)
    answer = await proxy.ask("PUT", "/api/Show.hello", {}, (("X-Request-ID", "nobody"),))
    assert answer.status == (502 if proxy.name == "nginx" else 503)
    told = answer.json()
    assert (told["status"], told["instance"]) == (answer.status, "nobody")
    for number, gateway in enumerate(stand.gateways):
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(wait_until, lambda: stand.up(number))  # noqa: B023
