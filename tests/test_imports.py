"""The import rules of docs/architecture.md, held by reading the code rather than running it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]

LAYERS: Final[dict[str, int]] = {
    "scamp.errors": 0,
    "scamp.limits": 0,
    "scamp.logs": 1,
    "scamp.wire": 1,
    "scamp.keys": 2,
    "scamp.config": 3,
    "scamp.tickets": 3,
    "scamp.authz": 4,
    "scamp.discovery": 4,
    "scamp.transport": 5,
    "scamp.client": 6,
    "scamp.server": 6,
    "scamp.states": 7,
    "scamp.testing": 7,
    "scamp.cli": 8,
    "scamp": 9,  # scamp/__init__.py, which only gathers names
    "gateway": 10,
}
"""What a part may import lies below it, or in itself. Parts on one level know nothing of each
other."""

_IMPORTS: Final = (ast.Import, ast.ImportFrom)

FORBIDDEN: Final[dict[str, frozenset[str]]] = {
    "scamp": frozenset({"aiohttp", "opentelemetry", "prometheus_client", "gateway"}),
    "scamp.wire": frozenset(
        {"asyncio", "datetime", "os", "random", "select", "socket", "ssl", "threading", "time"}
    ),
    "scamp.errors": frozenset({"asyncio", "socket", "ssl", "time"}),
    "scamp.limits": frozenset({"asyncio", "socket", "ssl", "time"}),
}
"""Modules, and all below them, that a part never imports, wherever in the part."""

LOOPLESS: Final = frozenset(
    f"gateway.{name}"
    for name in (
        *("actions", "catalogue", "context", "credentials", "explain", "loggers", "problems"),
        "setting_types",
        *("settings", "shedding", "sources", "strangers", "surface", "translate", "unpacking"),
        *("events.topic", "events.values", "openapi.components", "openapi.defaults"),
        *("openapi.document", "openapi.operations", "openapi.options", "openapi.own"),
        *("openapi.responses", "openapi.routed", "openapi.schemas", "openapi.sections"),
        *("openapi.sight", "ratelimit.buckets", "ratelimit.rate", "ratelimit.url"),
        *("routes.compose", "routes.entries", "routes.explain", "routes.leads", "routes.load"),
        *("routes.match", "routes.model", "routes.places", "routes.template"),
        *("tracing.options", "workers.shares"),
    )
)
"""Modules of the gateway that decide and do not serve: they import each other and scamp, and none
of `LOOP`."""

LOOP: Final = frozenset(
    {"aiohttp", "asyncio", "click", "prometheus_client", "redis", "socket", "ssl", "threading"}
)


def imported(source: str, module: str, *, package: bool) -> Iterator[tuple[str, int]]:
    """What the source of `module` imports, as absolute names with their lines.

    ``from a import b`` gives ``a.b``, be b a module or not. Imports within functions and those for
    type checkers count like all others.
    """
    parents = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            for name in node.names:
                yield ".".join([*base, name.name]), node.lineno


def part_of(name: str) -> str | None:
    """The longest entry of LAYERS that `name` is or lies in; None for modules of others.

    A module directly in scamp is nobody's part until it has an entry.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        found = ".".join(parts[:length])
        if found in LAYERS:
            return found
    return None


def broken_rules(source: str, module: str, *, package: bool = False) -> list[str]:
    """One line for each import in the source of `module` that the rules forbid."""
    own = part_of(module)
    if own is None:
        return [f"{module} has no layer"]
    found = []
    for name, line in imported(source, module, package=package):
        part = part_of(name)
        if part is not None and part != own and LAYERS[part] >= LAYERS[own]:
            found.append(f"{module}:{line} imports {name}, which is not below {own}")
        for where, names in FORBIDDEN.items():
            inside = f"{module}.".startswith(f"{where}.")
            if inside and any(f"{name}.".startswith(f"{one}.") for one in names):
                found.append(f"{module}:{line} imports {name}: not in {where}")
    return list(dict.fromkeys(found))


def needs_a_loop(source: str, module: str) -> list[str]:
    """One line for each import in the source of a module of `LOOPLESS` that it must do without."""
    found = []
    for name, line in imported(source, module, package=False):
        top = name.partition(".")[0]
        known = {name, name.rpartition(".")[0]}
        if top in LOOP or (top == "gateway" and name != "gateway" and not known & LOOPLESS):
            found.append(f"{module}:{line} imports {name}")
    return found


@lru_cache
def modules() -> dict[str, tuple[Path, bool]]:
    """Every module of both packages: its file, and whether it is a package."""
    found = {}
    for top in ("scamp", "gateway"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            package = parts[-1] == "__init__"
            found[".".join(parts[:-1] if package else parts)] = (path, package)
    return found


def test_nothing_imports_upwards_or_what_it_must_do_without() -> None:
    found = []
    for module, (path, package) in modules().items():
        found += broken_rules(path.read_text(), module, package=package)
    assert not found, "\n" + "\n".join(found)


def test_every_module_of_scamp_has_a_layer() -> None:
    found = {name for name in modules() if name != "scamp" and part_of(name) == "scamp"}
    assert not found, "give them a place in docs/architecture.md and in LAYERS"
    assert set(LAYERS) == {part_of(name) for name in modules()}, "LAYERS names what is gone"


def test_what_decides_in_the_gateway_knows_nothing_of_what_serves() -> None:
    assert set(modules()) >= LOOPLESS, "LOOPLESS names what is gone"
    found = []
    for module in sorted(LOOPLESS):
        path, _ = modules()[module]
        found += needs_a_loop(path.read_text(), module)
    assert not found, "\n" + "\n".join(found)


def test_nothing_but_tracing_knows_opentelemetry_and_nobody_loads_it_unasked() -> None:
    traced = {
        module
        for module, (path, package) in modules().items()
        for name, _ in imported(path.read_text(), module, package=package)
        if name.startswith("opentelemetry")
    }
    assert traced == {"gateway.tracing.export", "gateway.tracing.spans"}
    code = "import sys, gateway.lifecycle, gateway.checks; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_a_gateway_is_put_together_by_is_at_the_top() -> None:
    top = {"gateway.assembly", "gateway.factory", "gateway.state"}
    users: dict[str, set[str]] = {name: set() for name in (*top, "gateway.lifecycle")}
    for module, (path, package) in modules().items():
        for name, _ in imported(path.read_text(), module, package=package):
            for one in users.keys() & {name, name.rpartition(".")[0]}:
                users[one].add(module)
    assert users.pop("gateway.lifecycle") == {"gateway.cli", "gateway.workers.worker"}
    assert set().union(*users.values()) == {"gateway.assembly", "gateway.lifecycle"}


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        ("from aiohttp import hdrs", True),
        ("if TYPE_CHECKING:\n    import asyncio", True),
        ("from gateway.exchange import Exchange", True),
        ("from gateway import auth", True),
        ("from gateway import catalogue\nfrom gateway.actions import Announced", False),
        ("import re\nfrom scamp.client import Call\nfrom multidict import istr", False),
    ],
)
def test_the_rule_on_what_decides_catches_what_it_should(source: str, broken: bool) -> None:
    assert bool(needs_a_loop(source, "gateway.translate")) is broken


def test_no_module_needs_itself() -> None:
    """No circles within a package, among what is imported when a module is.

    Imports within functions may be. Names taken from a package, not from a module of it, are the
    business of the layers.
    """
    files = {name: path for name, (path, package) in modules().items() if not package}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        top = [n for n in ast.parse(path.read_text()).body if isinstance(n, _IMPORTS)]
        names = imported(ast.unparse(ast.Module(list(top), [])), module, package=False)
        both = {one for name, _ in names for one in (name, name.rpartition(".")[0])}
        graph[module] = both & set(files)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


@pytest.mark.parametrize(
    "package", ["scamp", "scamp.cli.main", "scamp.testing", "scamp.wire", "scamp.discovery"]
)
def test_scamp_runs_without_what_belongs_to_the_gateway(package: str) -> None:
    """By way of others neither: the whole of what is loaded counts."""
    code = (
        f"import sys, {package}; "
        "print(*sorted({'aiohttp', 'prometheus_client', 'gateway', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scamp.client.pool", "import aiohttp.web"),
        ("scamp.client.pool", "from prometheus_client import Counter"),
        ("scamp.client.pool", "def f():\n    from gateway import app"),
        ("scamp.client.pool", "import scamp.server"),
        ("scamp.client.pool", "from scamp import server"),
        ("scamp.client.pool", "from ..server import service"),
        ("scamp.server.service", "if TYPE_CHECKING:\n    from scamp.client import Call"),
        ("scamp.transport.channel", "from scamp.client.pool import InstancePool"),
        ("scamp.discovery.registry", "from scamp.transport import Channel"),
        ("scamp.wire.packets", "import asyncio"),
        ("scamp.wire.packets", "from time import monotonic"),
        ("scamp.wire.packets", "import ssl as tls"),
        ("scamp.wire.packets", "from scamp import discovery"),
        ("scamp.wire.packets", "from scamp import ScampError"),
        ("scamp.cli.main", "import scamp"),
        ("scamp.errors", "from scamp import wire"),
        ("scamp.limits", "from scamp.errors import ScampError"),
        ("scamp.errors", "from .limits import MIB"),
        ("elsewhere", ""),
    ],
)
def test_the_rules_catch(module: str, source: str) -> None:
    assert broken_rules(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gateway.app", "import aiohttp\nfrom scamp.client import Requester"),
        ("scamp.cli.main", "from scamp import limits\nfrom scamp.client import Requester"),
        ("scamp.client.pool", "import asyncio\nfrom scamp.client.traits import Traits"),
        ("scamp.client.pool", "from .traits import Traits\nfrom ..transport import Channel"),
        ("scamp.wire.connection", "from collections import deque\nfrom scamp import limits"),
        ("scamp.wire.connection", "import timeit_like, socketserver_like"),
    ],
)
def test_the_rules_allow(module: str, source: str) -> None:
    assert broken_rules(source, module) == []
