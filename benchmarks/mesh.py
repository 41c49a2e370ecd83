"""A mesh for a benchmark: keys, tickets, services, and gateways in front of them."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.http1 import bearer
from benchmarks.processes import Process, module, started
from scamp import keys
from scamp.discovery import (
    Action,
    AnnouncementSpec,
    build_announcement,
    new_identity,
    split_records,
    write_cache,
)
from scamp.tickets import issue_ticket

PRIVILEGES: Final = (3, 5, 8)
ACTIONS: Final = ("echo", "download", "upload", "slowupload", "wait", "hold")
ROUTES: Final = """
[[routes]]
method = "PUT"
path = "/raw"
action = "Bench.upload"
envelope = "blob"
consumes = "image/*"

[[routes]]
method = "POST"
path = "/raw"
action = "Bench.download"
produces = "image/png"
"""
SILENT_ACTIONS: Final = 20
"""Of each service that is announced and not there."""

_DAY: Final = 86_400
_READY: Final = re.compile(r"ready: (\S+) admin (\S+)")


@dataclass(frozen=True, slots=True)
class Gateway:
    """One that serves. `url` and `admin` are without a slash at the end."""

    process: Process
    url: str
    admin: str
    ticket: str

    @property
    def authorization(self) -> tuple[str, str]:
        return bearer(self.ticket)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (self.authorization,)


@dataclass(frozen=True, slots=True)
class Mesh:
    """Files and services for gateways: `cache` and `authorized` are the discovery files."""

    folder: Path
    cache: Path
    authorized: Path | None
    services: tuple[Process, ...]
    ticket: str

    @contextmanager
    def gateway(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Iterator[Gateway]:
        """One with everything on, for the block. `arguments` go to ``scamp-gateway run`` as well,
        and `environment` on top of ours."""
        folder, authorized = self.folder, self.authorized
        command: list[str | Path] = [
            Path(sys.executable).with_name("scamp-gateway"),
            *("run", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"),
            *("--discovery-cache", self.cache, "--discovery-max-age", str(_DAY)),
            *(("--authorized-services", authorized) if authorized else ()),
            *("--ticket-key", folder / "tickets.pub", "--authz-table", folder / "authz.json"),
            *("--auth-mode", "enforce", "--access-log", folder / "access.log"),
            *("--drain-delay", "0", "--routes", folder / "routes.toml"),
            *arguments,
        ]
        with started(command, folder / "gateway.log", environment) as process:
            found = _READY.search(process.said)
            if found is None:
                raise ValueError(f"no addresses in {process.said!r}")
            yield Gateway(process, found[1].rstrip("/"), found[2].rstrip("/"), self.ticket)

    def tickets(self, count: int) -> Iterator[str]:
        """So many, all different. Takes half a millisecond each."""
        return _tickets(self.folder, count)


@contextmanager
def gateway(
    folder: Path,
    *,
    cache: Path | None = None,
    authorized: Path | None = None,
    actions: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """A mesh with a gateway, for the block. The parameters are those of `mesh` and of its."""
    with (
        mesh(folder, cache=cache, authorized=authorized, actions=actions) as behind,
        behind.gateway(*arguments, environment=environment) as front,
    ):
        yield front


@contextmanager
def mesh(
    folder: Path,
    *,
    services: int = 1,
    silent: int = 0,
    cache: Path | None = None,
    authorized: Path | None = None,
    actions: tuple[str, ...] = (),
) -> Iterator[Mesh]:
    """All that a gateway needs, for the block: `services` in processes of their own, and in the
    cache as many that are `silent`: announced, but not there.

    `cache` and `authorized` are the discovery files of services that run already, if no service is
    to be started; `actions` are those of theirs that tickets are to permit.
    """
    _prepare(folder, actions)
    (ticket,) = _tickets(folder, 1)
    if cache is not None:
        yield Mesh(folder, cache, authorized, (), ticket)
        return
    with ExitStack() as stack:
        running, records = [], list(_silent(folder, silent))
        for number in range(services):
            own = f"cache{number}"
            command = module("benchmarks.service", folder, own)
            running.append(stack.enter_context(started(command, folder / f"service{number}.log")))
            records += split_records((folder / own).read_bytes())
        write_cache(folder / "cache", records)
        yield Mesh(folder, folder / "cache", folder / "authorized_services", tuple(running), ticket)


def _prepare(folder: Path, actions: Iterable[str]) -> None:
    """Write keys and tables into `folder`."""
    now = datetime.now(UTC)
    key, certificate = keys.generate("bench", now=now)
    (folder / "service.key").write_bytes(key)
    (folder / "service.crt").write_bytes(certificate)
    (folder / "authorized_services").write_text(f"{keys.fingerprint(certificate)} main:ALL\n")
    (folder / "routes.toml").write_text(ROUTES)
    private, _ = keys.generate("auth", now=now)
    (folder / "tickets.key").write_bytes(private)
    (folder / "tickets.pub").write_bytes(keys.public_key_pem(private))
    own = (f"bench.{name}" for name in ACTIONS)
    table: dict[str, list[int]] = {name.lower(): list(PRIVILEGES[:2]) for name in (*own, *actions)}
    (folder / "authz.json").write_text(json.dumps(table))


def _tickets(folder: Path, count: int) -> Iterator[str]:
    """Tickets that permit all of it for a day, each for another user."""
    key = keys.load_private_key((folder / "tickets.key").read_bytes())
    start = int(time.time())
    for number in range(count):
        yield issue_ticket(
            key,
            user_id=1001 + number,
            client_id=42,
            privileges=PRIVILEGES,
            start=start,
            length=_DAY,
        )


def _silent(folder: Path, count: int) -> Iterator[bytes]:
    """Announcements of services that are not there."""
    key = keys.load_private_key((folder / "service.key").read_bytes())
    certificate = (folder / "service.crt").read_bytes()
    for number in range(count):
        actions = (
            Action("main", f"Silent{number}", f"action{one}", 1) for one in range(SILENT_ACTIONS)
        )
        spec = AnnouncementSpec(
            identity=new_identity(f"silent{number}"),
            sector="main",
            weight=1,
            interval=5.0,
            uri=f"beepish+tls://127.0.0.1:{10000 + number}",
            envelopes=("json",),
            actions=tuple(actions),
        )
        yield build_announcement(spec, key, certificate, timestamp=time.time())
