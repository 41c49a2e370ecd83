"""What to try on a running demo: ``curl`` lines, each below a comment that says what it gives.

The lines hold for any shell: single quotes, no expansion, tickets read by curl itself.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from gateway.demo.folder import Folder
from gateway.demo.services import EXPORT_SIZE, PRICE_CODE, SHOP, SLOW_SECONDS

EVENTS: Final = f"/api/events/{SHOP}?code={PRICE_CODE}"


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `says` is what the answer is or has; it begins with the status."""

    status: int
    says: str
    path: str
    user: str | None = None
    method: str = "GET"
    body: Any = None
    headers: tuple[str, ...] = ()
    show: str = ""
    """``headers``: print the answer's header too; ``size``: print how much came instead of it."""
    admin: bool = False
    seconds: int = 0
    """Of an answer without an end: how long to look at it; curl then says that it timed out."""


def steps() -> Iterator[Step]:
    """The tour, in an order in which each step finds what it needs."""
    lamp = {"code": "LAMP-1", "name": "Brass lamp", "price": 4900}
    sku, fetch = "/api/Product.Sku", "/api/Product.Sku.fetch?code=LAMP-1"
    yield Step(200, "an action that is open to everybody (noauth)", f"{sku}.ping")
    yield Step(200, "reading: bob may", f"{sku}.list", "bob")
    yield Step(200, "creating: alice may", f"{sku}.create", "alice", "POST", lamp)
    yield Step(200, "the created one, perhaps from the other instance", fetch, "bob")
    yield Step(409, "creating it again: conflict", f"{sku}.create", "alice", "POST", lamp)
    yield Step(401, "no ticket, see WWW-Authenticate", fetch, show="headers")
    yield Step(
        *(403, "bob's ticket lacks the privilege sku_create", f"{sku}.create", "bob", "POST", lamp)
    )
    yield Step(
        *(403, "setting a price takes price_set, which bob lacks", "/api/Product.Price.set", "bob"),
        *("PUT", {"code": "LAMP-1", "price": 4500}),
    )
    yield Step(
        *(200, "alice has price_set", "/api/Product.Price.set", "alice"),
        *("PUT", {"code": "LAMP-1", "price": 4500}),
    )
    yield Step(
        *(200, "updating its name", f"{sku}.update", "alice", "PATCH"),
        {"code": "LAMP-1", "name": "Bright lamp"},
    )
    yield Step(200, "the same by a URL of one's own, see routes.toml", "/v1/skus/LAMP-1", "bob")
    yield Step(
        *(200, "the price as the whole body, by a route", "/v1/skus/LAMP-1/price", "alice"),
        *("PUT", 4200),
    )
    yield Step(
        *(200, "prices, live: a snapshot, then every change; 2 s of it", EVENTS, "bob"), seconds=2
    )
    yield Step(401, "live events need a ticket too", EVENTS)
    yield Step(404, "no service announces this action", f"{sku}.paint", "alice")
    yield Step(404, "the service's own not_found", f"{sku}.fetch?code=NONE", "alice")
    yield Step(
        *(405, "GET on an action that does not read, see Allow", f"{sku}.create", "alice"),
        show="headers",
    )
    yield Step(
        200, f"a streamed download, {EXPORT_SIZE} bytes", f"{sku}.export", "bob", show="size"
    )
    yield Step(
        *(504, f"the action takes {SLOW_SECONDS:g} s, the caller waits 1", f"{sku}.slow", "bob"),
        headers=("X-SCAMP-Timeout: 1",),
    )
    yield Step(500, "the service's own error, printer_on_fire", f"{sku}.broken", "bob")
    yield Step(200, "destroying it", "/v1/skus/LAMP-1", "alice", "DELETE")
    yield Step(
        *(404, "it is gone", f"{sku}.destroy", "alice", "DELETE", {"code": "LAMP-1"}),
    )
    yield Step(200, "ready, and why", "/readyz?verbose", admin=True)
    yield Step(200, "metrics for Prometheus", "/metrics", admin=True)


def curl(step: Step, folder: Folder, public: str, admin: str) -> str:
    """The command line; it prints the status last, in a line of its own."""
    words = ["curl", "-sS"]
    if step.show == "headers":
        words.append("-i")
    if step.show == "size":
        words += ["-o", "/dev/null", "-w", "%{size_download} bytes\\n%{http_code}\\n"]
    else:
        words += ["-w", "\\n%{http_code}\\n"]
    if step.seconds:
        words += ["-N", "--max-time", str(step.seconds)]
    if step.method != "GET":
        words += ["-X", step.method]
    if step.user is not None:
        words += ["-H", f"@{folder.header(step.user)}"]
    for header in step.headers:
        words += ["-H", header]
    if step.body is not None:
        words += ["-H", "Content-Type: application/json", "-d", json.dumps(step.body)]
    words.append((admin if step.admin else public) + step.path)
    return shlex.join(words)


def script(folder: Folder, public: str, admin: str) -> str:
    """All of it, as printed."""
    return "\n".join(
        f"# {step.status}: {step.says}\n{curl(step, folder, public, admin)}\n" for step in steps()
    )
