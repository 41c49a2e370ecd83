"""A mesh for a benchmark: keys, tickets, a service and the gateway in front of it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.processes import Process, module, started
from scamp import keys
from scamp.tickets import issue_ticket

PRIVILEGES: Final = (3, 5, 8)
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
        return ("Authorization", f"Bearer {self.ticket}")


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
    """A gateway with everything on, for the block, and unless `cache` is given a service behind it.

    `cache` and `authorized` are the discovery files of services that run already; `actions` are
    those of theirs that tickets are to permit. `arguments` go to ``scamp-gateway run`` as well, and
    `environment` on top of ours.
    """
    ticket = _prepare(folder, actions)
    with ExitStack() as stack:
        if cache is None:
            stack.enter_context(
                started(module("benchmarks.service", folder), folder / "service.log")
            )
            cache, authorized = folder / "cache", folder / "authorized_services"
        command: list[str | Path] = [
            Path(sys.executable).with_name("scamp-gateway"),
            *("run", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"),
            *("--discovery-cache", cache, "--discovery-max-age", str(_DAY)),
            *(("--authorized-services", authorized) if authorized else ()),
            *("--ticket-key", folder / "tickets.pub", "--authz-table", folder / "authz.json"),
            *("--auth-mode", "enforce", "--access-log", folder / "access.log"),
            *("--drain-delay", "0", "--routes", folder / "routes.toml"),
            *arguments,
        ]
        process = stack.enter_context(started(command, folder / "gateway.log", environment))
        found = _READY.search(process.said)
        if found is None:
            raise ValueError(f"no addresses in {process.said!r}")
        yield Gateway(process, found[1].rstrip("/"), found[2].rstrip("/"), ticket)


def _prepare(folder: Path, actions: tuple[str, ...]) -> str:
    """Write keys and tables into `folder`; return a ticket that permits all of it for a day."""
    now = datetime.now(UTC)
    key, certificate = keys.generate("bench", now=now)
    (folder / "service.key").write_bytes(key)
    (folder / "service.crt").write_bytes(certificate)
    (folder / "authorized_services").write_text(f"{keys.fingerprint(certificate)} main:ALL\n")
    (folder / "routes.toml").write_text(ROUTES)
    private, _ = keys.generate("auth", now=now)
    (folder / "tickets.pub").write_bytes(keys.public_key_pem(private))
    own = ("bench.echo", "bench.download", "bench.upload", "bench.slowupload")
    table: dict[str, list[int]] = {name.lower(): list(PRIVILEGES[:2]) for name in (*own, *actions)}
    (folder / "authz.json").write_text(json.dumps(table))
    return issue_ticket(
        keys.load_private_key(private),
        user_id=1001,
        client_id=42,
        privileges=PRIVILEGES,
        start=int(time.time()),
        length=_DAY,
    )
