"""Mock services: one table of actions, answered by one or more instances."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final, Protocol, TypedDict, Unpack

from scamp.client import parse_action
from scamp.errors import ConfigError
from scamp.server import Service
from scamp.server.actions import make_action
from scamp.server.subscriptions import Board
from scamp.testing.calls import MAX_CALLS, CallFilter, Recorder
from scamp.testing.identity import TestIdentity
from scamp.testing.mocks import AnswerFields, MockAction, MockTable
from scamp.testing.tickets import make_verifier
from scamp.tickets import TicketVerifier

MAX_INSTANCES: Final = 100
"""Instances of one mock service; each has a listening socket."""


class ServiceSettings(TypedDict):
    """What every instance of a mock service is made with."""

    key: bytes
    certificate: bytes
    sector: str
    envelopes: tuple[str, ...]
    weight: float
    ticket_verifier: TicketVerifier | None
    require_tickets: bool


class _Instance(Service):
    """A service whose actions may change, and whose connections can be cut."""

    def use(self, table: MockTable) -> None:
        self._traffic.actions = table

    def cut(self, peer: str | None) -> None:
        for connection in list(self._traffic.connections):
            channel = connection.channel
            if channel is not None and peer in (None, channel.address):
                channel.abort("cut by the test")


class MockInstance:
    """One instance of a mock service: a listening socket with an identity of its own.

    Brought back after `kill` or `leave`, it is at the same address, unless told otherwise, with a
    new identity, as a service that was started again.
    """

    def __init__(self, service: MockService, number: int) -> None:
        self.number = number
        """Counted from 0 within the service."""
        self._mock = service
        self._table = MockTable(service.recorder)
        self._service: _Instance | None = None
        self._address: tuple[str, int] = ("127.0.0.1", 0)

    @property
    def address(self) -> str:
        """HOST:PORT, also while the instance is down."""
        return f"{self._address[0]}:{self._address[1]}"

    @property
    def running(self) -> bool:
        """True while it listens."""
        return self._service is not None

    @property
    def calls(self) -> int:
        """Requests that this instance began since it was last started."""
        return self._service.requests if self._service is not None else 0

    @property
    def service_name(self) -> str:
        """Of the mock service."""
        return self._mock.name

    def announcement(self) -> bytes:
        """Its signed record. Raises ConfigError while it is down."""
        if self._service is None:
            raise ConfigError("the instance is down")
        return self._service.announcement()

    @property
    def subscribers(self) -> int:
        """Connections with a subscription."""
        return self._service.subscribers if self._service is not None else 0

    def publish(self, code: str, key: str, value: object) -> None:
        """Tell subscribers of a value; called by the mock service."""
        if self._service is not None:
            self._service.publish(code, key, value)

    def serve(self, mock: MockAction) -> None:
        """Answer an action from now on; called by the mock service."""
        self._table.replace(mock.action, partial(mock.serve, self))

    def cut(self, peer: str | None = None) -> None:
        """Cut the connection of the caller at `peer` (HOST:PORT), or all of them."""
        if self._service is not None:
            self._service.cut(peer)

    async def start(self, *, elsewhere: bool = False) -> None:
        """Listen and be announced; nothing happens when it is running already.

        After `kill` or `leave` at the same port as before, or `elsewhere`.
        """
        if self._service is not None:
            return
        service = _Instance(self._mock.name, **self._mock.settings)
        service.use(self._table)
        for (code, key), value in self._mock.published.items():
            service.publish(code, key, value)
        service.on_notify(self._mock.notified)
        self._address = await service.start("127.0.0.1", 0 if elsewhere else self._address[1])
        self._service = service
        self._mock.announcer.announce([self])

    async def kill(self, *, forget: bool = False) -> None:
        """End as a process that is killed: every connection cut, the port closed.

        Discovery goes on to name it, as after a real crash; `forget` takes the record out.
        """
        service, self._service = self._service, None
        if forget:
            self._mock.announcer.forget(self)
        if service is not None:
            service.cut(None)
            await service.stop(grace=0)

    async def leave(self, grace: float = 1.0) -> None:
        """End in good order: out of discovery first; requests in flight have `grace` seconds."""
        self._mock.announcer.forget(self)
        service, self._service = self._service, None
        if service is not None:
            await service.stop(grace=grace)


class Announcer(Protocol):
    """Where instances are made known."""

    def announce(self, instances: Iterable[MockInstance]) -> None:
        """They have started, or announce something else."""

    def forget(self, instance: MockInstance) -> None:
        """It has gone; nothing happens when it was not known."""


class MockService:
    """A service whose actions answer as told; made by `MockMesh.service`."""

    def __init__(
        self,
        name: str,
        *,
        recorder: Recorder,
        announcer: Announcer,
        identity: TestIdentity,
        sector: str = "main",
        instances: int = 1,
        envelopes: Iterable[str] = ("json",),
        weight: float = 1,
        require_tickets: bool = False,
    ) -> None:
        if not 1 <= instances <= MAX_INSTANCES:
            raise ConfigError(f"a mock service has 1 to {MAX_INSTANCES} instances")
        self.name = name
        self.sector = sector
        self.recorder = recorder
        self.settings: Final = ServiceSettings(
            key=identity.key,
            certificate=identity.certificate,
            sector=sector,
            envelopes=tuple(envelopes),
            weight=weight,
            ticket_verifier=make_verifier() if require_tickets else None,
            require_tickets=require_tickets,
        )
        """Of each instance."""
        self.announcer = announcer
        self.instances: tuple[MockInstance, ...] = tuple(
            MockInstance(self, number) for number in range(instances)
        )
        self._registered: dict[tuple[str, int], MockAction] = {}
        self.published: dict[tuple[str, str], object] = {}
        """What `publish` was told, by code and key."""
        self.notices: deque[object] = deque(maxlen=MAX_CALLS)
        """What subscribers told by ``notify``, oldest first; the newest 10,000."""

    def action(
        self,
        action: str,
        *,
        flags: str | Iterable[str] = "",
        envelopes: Iterable[str] | None = None,
        **answer: Unpack[AnswerFields],
    ) -> MockAction:
        """Register ``[SECTOR:]Namespace.name[~VERSION]``, or say anew how it answers.

        The sector is the service's if left out. All else as in `MockMesh.action`.
        """
        sector, spelling, version = parse_action(action)
        sector = sector if ":" in action else self.sector
        offered = self.settings["envelopes"] if envelopes is None else envelopes
        key = (spelling.lower(), version)
        before = self._registered.get(key)
        if before is not None and before.action.sector != sector:
            raise ConfigError(
                f"{spelling} version {version} is there for sector {before.action.sector}, and a "
                f"request does not name its sector: make a service of its own for {sector}"
            )
        made = make_action(sector, spelling, version, flags, offered)
        mock = self._registered[key] = MockAction(made, self.recorder, **answer)
        for instance in self.instances:
            instance.serve(mock)
        self.announcer.announce(one for one in self.instances if one.running)
        return mock

    def publish(self, code: str, key: str, value: object) -> None:
        """Make `value` the current one under `code` and `key`, on all instances; None deletes.

        An instance that is down has the values of then when it is brought back. Raises
        LocalProtocolError as `Service.publish`.
        """
        Board().publish(code, key, value)  # also when no instance runs a mistake is told here
        for instance in self.instances:
            instance.publish(code, key, value)
        if value is None:
            self.published.pop((code, key), None)
        else:
            self.published[code, key] = value

    def notified(self, peer: str, data: object) -> None:
        """A subscriber has told something; called by the instances."""
        self.notices.append(data)

    def has(self, wanted: CallFilter) -> bool:
        """Whether such an action was registered here."""
        registered = (mock.action for mock in self._registered.values())
        return any(wanted.fits(one.sector, one.spelling, one.version) for one in registered)
