"""Where everything of a demo lies, and how it gets there: keys, tickets, discovery files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scamp import keys
from scamp.discovery import write_cache
from scamp.tickets import issue_ticket

TICKET_HOURS: Final = 24

ROUTES: Final = """\
# URLs of the demo's own; change them while it runs.

[[resources]]
path = "/v1/skus"
namespace = "Product.Sku"
id = "code"
list = "list"
read = "fetch"

[[routes]]
method = "PUT"
path = "/v1/skus/{code}/price"
action = "Product.Price.set"
body = "price"
summary = "Set the price of an article, in cents"
"""
_TOUCH_INTERVAL: Final = 10.0


class Folder:
    """The names of all files in a demo's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ticket_key = path / "ticket_verify_public_key.pem"
        self.cache = path / "discovery"
        self.authorized = path / "authorized_services"
        self.routes = path / "routes.toml"
        self.database = path / "shop.sqlite"
        self.access_log = path / "access.log"

    def key(self, name: str) -> Path:
        """A service's private key."""
        return self.path / f"{name}.key"

    def certificate(self, name: str) -> Path:
        """A service's certificate."""
        return self.path / f"{name}.crt"

    def record(self, name: str) -> Path:
        """A service's signed announcement, written by itself."""
        return self.path / f"{name}.announcement"

    def ticket(self, user: str) -> Path:
        """A user's ticket."""
        return self.path / f"{user}.ticket"

    def header(self, user: str) -> Path:
        """The same as an HTTP header, for ``curl -H @FILE``: the same line in every shell, and the
        ticket is in no process list."""
        return self.path / f"{user}.header"

    def prepare(
        self, services: Mapping[str, str], users: Mapping[str, tuple[int, Iterable[int]]]
    ) -> None:
        """Make keys, certificates, tickets and authorized_services anew; blocks for a second.
        Routes that are there already stay.

        `services` gives what each may offer, as in authorized_services; `users` gives an id and
        privileges.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in (self.database, self.cache, *map(self.record, services)):
            old.unlink(missing_ok=True)
        now = datetime.now(UTC)
        with ThreadPoolExecutor(2) as pool:  # making RSA keys leaves the interpreter lock
            made = pool.map(lambda name: keys.generate(name, now=now), (*services, "tickets"))
            pairs = dict(zip((*services, "tickets"), made, strict=True))
        signer = pairs.pop("tickets")[0]
        lines = []
        for name, (private, certificate) in pairs.items():
            _write_secret(self.key(name), private)
            self.certificate(name).write_bytes(certificate)
            lines.append(f"{keys.fingerprint(certificate)} {services[name]}  # {name}\n")
        self.authorized.write_text("".join(lines))
        if not self.routes.exists():  # they are there to be changed
            self.routes.write_text(ROUTES)
        self.ticket_key.write_bytes(keys.public_key_pem(signer))
        for user, (number, privileges) in users.items():
            ticket = issue_ticket(
                keys.load_private_key(signer),
                user_id=number,
                client_id=1,
                privileges=privileges,
                start=int(time.time()),
                length=TICKET_HOURS * 3600,
            )
            _write_secret(self.ticket(user), ticket.encode())
            _write_secret(self.header(user), f"Authorization: Bearer {ticket}\n".encode())


def _write_secret(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


class CacheWriter:
    """Composes the discovery cache from the records of the services that run."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._written: list[bytes] | None = None
        self._touched = 0.0

    def update(self, running: Iterable[str]) -> int:
        """Write the file if a record changed, else touch it from time to time; blocks shortly.

        Returns how many of the services have a record.
        """
        records = []
        for name in running:
            try:
                records.append(self._folder.record(name).read_bytes())
            except FileNotFoundError:
                continue  # it has not announced itself yet
        if records != self._written:
            write_cache(self._folder.cache, records)
            self._written, self._touched = records, time.monotonic()
        elif time.monotonic() - self._touched > _TOUCH_INTERVAL:
            os.utime(self._folder.cache)
            self._touched = time.monotonic()
        return len(records)
