"""A mesh for one test: mock services, services under test, and a client, over real TLS.

A client under test, with the services that it calls::

    async def test_prices_are_added_up() -> None:
        async with MockMesh() as mesh:
            mesh.action("Product.Price.fetch", flags="read", returns={"price": 7})
            assert await total(mesh.requester, ["a", "b"]) == 14
            assert [call.json["sku"] for call in mesh.calls("Product.Price.fetch")] == ["a", "b"]
            assert mesh.unexpected == []

A service under test::

    async def test_unknown_product() -> None:
        async with ServiceHarness(make_service()) as harness:
            with pytest.raises(ServiceError, match="not_found"):
                await harness.call("Product.Sku.fetch", {"sku": "none"}, ticket=make_ticket())
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, Unpack

import orjson

from scamp.client import ClientOptions, Requester
from scamp.discovery import Registry
from scamp.errors import ReplyFailed, UnknownAction
from scamp.limits import MIB
from scamp.server import Service
from scamp.testing.calls import CallFilter, MockCall, Recorder, UnexpectedCall
from scamp.testing.directory import Directory, WatchedRegistry
from scamp.testing.fault_proxy import Proxied
from scamp.testing.identity import make_identity
from scamp.testing.mock_service import MockInstance, MockService
from scamp.testing.mocks import AnswerFields, MockAction
from scamp.testing.tickets import make_authz_table, ticket_public_key

_KEYS: Final = 9_100  # numbers of the identities of mock services
_MAX_KEYS: Final = 32

MAX_REPLY: Final = 64 * MIB
"""Largest reply that `MockMesh.call` reads."""


class MockMesh:
    """Mock services and services under test, found by a client and through a discovery cache file.

    Use it with ``async with``; at the end everything is closed, and what is still in flight is cut.
    An assertion that failed in a handler is raised then, too. `options` are those of the client.
    `require_tickets` has mock actions that are not flagged ``noauth`` refuse callers without a
    ticket of `make_ticket`, as a real service would. `folder` (there already, and left behind)
    holds the files; by default a temporary one that is removed.

    Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        options: ClientOptions | None = None,
        require_tickets: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._options = options
        self._require_tickets = require_tickets
        self._own_folder = folder is None
        self._folder = folder
        self._recorder = Recorder()
        self._registry = WatchedRegistry(self._recorder)
        self._stack = AsyncExitStack()
        self._directory: Directory | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requester: Requester | None = None
        self._services: list[MockService] = []
        self._default = self._make_service("mock")

    # -- what answers -------------------------------------------------------------------

    def action(
        self,
        action: str,
        *,
        flags: str | Iterable[str] = "",
        envelopes: Iterable[str] | None = None,
        **answer: Unpack[AnswerFields],
    ) -> MockAction:
        """Have ``[SECTOR:]Namespace.name[~VERSION]`` answer, from now on, as told.

        `flags` are comma-separated, such as ``"read,t30"``. The answer is one of: ``returns``
        (bytes as they are, an async iterator of bytes, all else as JSON; default ``{}``),
        ``raises`` (a `ServiceError`), ``handler`` (a function, coroutine or not, that is given the
        `MockCall` and returns or raises), ``never`` (no reply), ``txerr`` (a text: the reply breaks
        off) or ``lose_connection``; ``delay`` (seconds) goes before any. What is returned can
        change that later: see `MockAction.once` and `MockAction.then`.

        Registered again it answers anew. Works before and after the mesh is entered, and is
        announced at once. Raises ConfigError for what cannot be announced, ValueError for what is
        no action.
        """
        return self._default.action(action, flags=flags, envelopes=envelopes, **answer)

    async def service(
        self,
        name: str,
        *,
        sector: str = "main",
        instances: int = 1,
        envelopes: Iterable[str] = ("json",),
        weight: float = 1,
    ) -> MockService:
        """One more mock service, with a key of its own, on as many `instances` (100 at most).

        Each instance can be killed and brought back: ``service.instances[0].kill()``. Raises
        RuntimeError before the mesh is entered.
        """
        self._entered()
        service = self._make_service(
            name, sector=sector, instances=instances, envelopes=envelopes, weight=weight
        )
        await self._start(service)
        return service

    async def serve(self, service: Service, *, grace: float = 0.0) -> Service:
        """Add a real service: started on a free port if it was not, announced, stopped at the end.

        At the end requests in flight have `grace` seconds. Raises ConfigError as `Service.start`,
        RuntimeError before the mesh is entered.
        """
        directory = self._entered()
        if not service.uri:
            await service.start("127.0.0.1", 0)
            self._stack.push_async_callback(service.stop, grace)
        directory.put({service: service.announcement()})
        return service

    def authz_table(
        self, required: dict[str, Iterable[int]], names: dict[int, str] | None = None
    ) -> MockAction:
        """Be the Auth service: answer ``Auth.getAuthzTable`` with these privileges by action."""
        table = make_authz_table(required, names)
        return self.action("Auth.getAuthzTable", flags="noauth", returns=table)

    # -- the client's side --------------------------------------------------------------

    @property
    def requester(self) -> Requester:
        """A client that finds everything here. Raises RuntimeError before the mesh is entered."""
        self._entered()
        assert self._requester is not None  # noqa: S101 - made together with the directory
        return self._requester

    @property
    def registry(self) -> Registry:
        """The index of everything here, for a client with options of its own."""
        return self._registry

    @property
    def cache_file(self) -> Path:
        """The discovery cache file: always as things are, for code in other processes."""
        return self._entered().cache_file

    @property
    def config_file(self) -> Path:
        """A ``scamp.conf`` that names the cache file and stays on this machine."""
        return self._entered().config_file

    @property
    def ticket_key_file(self) -> Path:
        """The public key that checks the tickets of `make_ticket`."""
        return self._entered().cache_file.with_name("ticket_verify_public_key.pem")

    async def call(
        self,
        action: str,
        body: object = None,
        *,
        ticket: str | None = None,
        client_id: int | None = None,
        envelope: str = "json",
        timeout: float | None = None,
    ) -> Any:
        """Call an action and decode its reply; None for an empty one.

        `body` is bytes, sent as they are, or anything that JSON can hold; None is ``{}``. `timeout`
        in seconds. Raises ServiceError, ReplyFailed also for what is not JSON, and what
        `Requester.request` raises. For bodies that stream use `requester`.
        """
        raw = body if isinstance(body, bytes) else orjson.dumps({} if body is None else body)
        reply = await self.requester.request(
            action,
            raw,
            ticket=ticket,
            client_id=client_id,
            envelope=envelope,
            timeout=timeout,
        )
        async with reply:
            content = await reply.read_all(MAX_REPLY)
        if not content.strip():
            return None
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as exc:
            raise ReplyFailed(f"the reply is not JSON: {exc}") from exc

    # -- what was received --------------------------------------------------------------

    def calls(self, action: str | None = None) -> list[MockCall]:
        """What mock actions received, oldest first: all, or that for one action.

        `action` is ``[SECTOR:]Namespace.name[~VERSION]``; without sector or version those of every
        one count. The newest 10,000 are remembered. Raises UnknownAction for an action that was
        never registered: with a slip of the pen, "nobody called it" would always be true.
        """
        return self._recorder.calls(None if action is None else self._filter(action))

    async def called(self, action: str, times: int = 1, timeout: float = 10.0) -> list[MockCall]:
        """Wait until the action was called so often; its calls.

        For calls that are made behind the test's back. Raises TimeoutError after `timeout` seconds,
        with what was called instead; UnknownAction as `calls`. Safe to cancel.
        """
        wanted = self._filter(action)
        try:
            await self._recorder.until(lambda: len(self._recorder.calls(wanted)) >= times, timeout)
        except TimeoutError:
            raise TimeoutError(self._not_called(action, wanted, times, timeout)) from None
        return self._recorder.calls(wanted)

    def _not_called(self, action: str, wanted: CallFilter, times: int, timeout: float) -> str:
        found = len(self._recorder.calls(wanted))
        others = Counter(call.action for call in self._recorder.calls())
        others.update(f"{one.action} ({one.reason})" for one in self._recorder.unexpected)
        listed = ", ".join(f"{name}: {count}" for name, count in others.items()) or "nothing"
        return (
            f"{action} was called {found} times and not {times} within {timeout:g} s; "
            f"all calls: {listed}"
        )

    @property
    def unexpected(self) -> list[UnexpectedCall]:
        """What was asked for in vain: sent to a mock that does not have it (in this version, with
        this envelope), or looked up by `requester` and announced by nobody."""
        return list(self._recorder.unexpected)

    def forget_calls(self) -> None:
        """Begin anew with `calls` and `unexpected`."""
        self._recorder.clear()

    def _filter(self, action: str) -> CallFilter:
        wanted = CallFilter.parse(action)
        if not any(service.has(wanted) for service in self._services):
            raise UnknownAction(action)
        return wanted

    # -- discovery ----------------------------------------------------------------------

    def announce(self, services: Iterable[MockInstance | Service | Proxied]) -> None:
        """Take in what these announce now; needed only when a real service has changed, or is to
        be found behind a `FaultProxy`."""
        if self._directory is not None:
            self._directory.put({one: one.announcement() for one in services})

    def forget(self, service: MockInstance | Service) -> None:
        """Take a service out of discovery; it goes on to listen."""
        if self._directory is not None:
            self._directory.drop(service)

    # -- beginning and end --------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._directory is not None:
            raise RuntimeError("a mesh is entered once")
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        failures = self._recorder.failures
        if error is None and failures:
            raise failures[0]
        if error is not None:
            for failure in failures:
                error.add_note(f"in the handler of a mock action: {failure}")

    async def _open(self) -> None:
        folder = self._folder or Path(tempfile.mkdtemp(prefix="scamp-mesh-"))
        if self._own_folder:
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self._loop = asyncio.get_running_loop()
        self._directory = Directory(folder, self._registry)
        self._directory.open()
        self._stack.callback(self._directory.close)
        self.ticket_key_file.write_bytes(ticket_public_key())
        await self._start(self._default)
        # Last in, first out: clients leave before the services do.
        self._requester = await self._stack.enter_async_context(
            Requester(self._registry, self._options)
        )

    async def _start(self, service: MockService) -> None:
        for instance in service.instances:
            self._stack.push_async_callback(instance.kill)
            await instance.start()

    def _make_service(self, name: str, **settings: Any) -> MockService:
        made = MockService(
            name,
            recorder=self._recorder,
            announcer=self,
            identity=make_identity(_KEYS + len(self._services) % _MAX_KEYS),
            require_tickets=self._require_tickets,
            **settings,
        )
        self._services.append(made)
        return made

    def _entered(self) -> Directory:
        if self._directory is None:
            raise RuntimeError("use 'async with' first: the mesh is not up")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # outside of one much can be asked all the same
            return self._directory
        if loop is not self._loop:
            raise RuntimeError(
                "the mesh belongs to another event loop; with pytest-asyncio, give the fixture and "
                "the test the same loop_scope"
            )
        return self._directory


class ServiceHarness(MockMesh):
    """A mesh around one service under test.

    `service` is a `scamp.server.Service` that was not started, or a function that makes one: it is
    given this mesh, whose `requester` is what the service calls others with. Those others are mock
    actions, as in every `MockMesh`.
    """

    def __init__(
        self,
        service: Service | Callable[[MockMesh], Service],
        *,
        grace: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._under_test = service
        self._grace = grace
        self._made: Service | None = None

    @property
    def tested(self) -> Service:
        """The service under test. Raises RuntimeError before the mesh is entered."""
        if self._made is None:
            raise RuntimeError("use 'async with' first: the service does not run")
        return self._made

    async def _open(self) -> None:
        await super()._open()
        made = self._under_test if isinstance(self._under_test, Service) else self._under_test(self)
        self._made = await self.serve(made, grace=self._grace)
