"""The pages for readers: what they show is what the code does."""

from __future__ import annotations

import ast
import base64
import dataclasses
import importlib
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from built import build, built_site
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from pages import ROOT, Page

import scamp.errors
from gateway import sources
from scamp import ClientOptions, ScampError, Service, keys
from scamp.config import ScampConf
from scamp.discovery import (
    Announcement,
    AuthorizedServices,
    Registry,
    parse_announcement,
    split_records,
)
from scamp.states import MACHINES
from scamp.testing import make_identity
from scamp.tickets import parse_ticket
from scamp.wire import (
    DataReceived,
    MessageEnded,
    MessageFailed,
    MessageStarted,
    ProtocolBroken,
    Role,
    WindowOpened,
    WireConnection,
)

PROTOCOL: Final = Page("docs/protocol.md")


# -- protocol: what goes over the wire --------------------------------------------------


def turns(block: str) -> Iterator[tuple[str, bytes]]:
    """Who sends what, one after the other."""
    said: list[tuple[str, str]] = []
    for line in block.splitlines():
        side, text = line[0], line[2:].replace(r"\r\n", "\r\n")
        if said and said[-1][0] == side:
            said[-1] = (side, said[-1][1] + text)
        else:
            said.append((side, text))
    for side, text in said:
        yield side, text.encode()


@pytest.mark.parametrize("block", PROTOCOL.blocks("wire"))
def test_what_goes_over_the_wire_is_what_we_send_and_understand(block: str) -> None:
    """Each side is told to send what the other understood, and sends the same bytes."""
    sides = {"C": WireConnection(Role.CLIENT), "S": WireConnection(Role.SERVER)}
    complete = 0
    for side, sent in turns(block):
        sender, receiver = sides[side], sides["S" if side == "C" else "C"]
        for event in receiver.receive(sent):
            assert not isinstance(event, ProtocolBroken), event
            if isinstance(event, MessageStarted):
                assert sender.open_message(event.header) == event.msgno
            elif isinstance(event, DataReceived):
                sender.send_data(event.msgno, event.data)
                receiver.consumed(event.msgno, len(event.data))
            elif isinstance(event, MessageEnded):
                sender.end_message(event.msgno)
                complete += 1
            elif isinstance(event, MessageFailed):
                sender.fail_message(event.msgno, event.text)
                complete += 1
            else:
                assert isinstance(event, WindowOpened)
        assert sender.data_to_send() == sent
    assert complete >= 1
    assert all(side.at_boundary for side in sides.values())


def announced(text: str) -> Announcement:
    identity = make_identity()
    key = keys.load_private_key(identity.key)
    signature = key.sign(text.encode(), PKCS1v15(), SHA256())
    raw = b"\n\n".join((text.encode(), identity.certificate.strip(), base64.encodebytes(signature)))
    return parse_announcement(raw)


@pytest.mark.parametrize(
    ("text", "index"),
    list(zip(PROTOCOL.blocks("json announcement"), PROTOCOL.blocks("text index"), strict=True)),
)
def test_announcements_stand_in_the_index_as_the_page_says(text: str, index: str) -> None:
    registry = Registry()
    service = announced(text.strip())
    registry.apply(added=(service,))
    for entry in index.split():
        sector, _, rest = entry.partition(":")
        action, _, version = rest.rpartition(".v")
        assert registry.find(sector, action, int(version)), entry
    plain = [entry for entry in index.split() if "._" not in entry]
    assert len(plain) == len(list(service.actions))
    aliases = {word for action in service.actions for word in action.crud}
    assert len(index.split()) - len(plain) == len(aliases)


def test_a_cache_file_is_cut_where_the_page_says() -> None:
    (shown,) = PROTOCOL.blocks("text cache")
    records = split_records(shown.encode())
    assert [json.loads(record.split(b"\n", 1)[0])[0] for record in records] == [3, 3]


def test_authorized_services_allows_what_the_page_says() -> None:
    (shown,) = PROTOCOL.blocks("text authorized")
    allowed = AuthorizedServices.parse(shown)
    assert allowed.problems == ()
    prints = {line[:5]: line.split()[0] for line in shown.splitlines()[1:]}
    rows = re.findall(
        r"^\| `(\S{5}):…` \| `(\w+):(\S+)` \| (may(?: not)?)\b", PROTOCOL.text, re.MULTILINE
    )
    assert len(rows) == 8
    for begin, sector, action, may in rows:
        assert allowed.permits(prints[begin], sector, action) == (may == "may"), action


def test_the_ticket_says_what_the_page_says() -> None:
    (shown,) = PROTOCOL.blocks("text ticket")
    ticket = parse_ticket(shown.strip())
    assert (ticket.user_id, ticket.client_id) == (4711, 12)
    assert (ticket.validity_start, ticket.validity_length) == (1767225600, 43200)
    assert ticket.privileges == {1, 17, 230}


def test_the_configuration_is_read_as_the_page_says() -> None:
    (shown,) = PROTOCOL.blocks("ini")
    conf = ScampConf.parse(shown)
    assert conf.warnings == []
    assert conf.service_addresses({"eth0": ["10.2.0.17"]}) == ("10.2.0.17",)
    assert str(conf.key_path("prices")) == "/etc/scamp/services/prices.key"
    assert str(conf.discovery_cache_path) == "/var/run/scamp/cache"


def test_the_defaults_are_those_that_the_page_lists() -> None:
    none = ScampConf({})
    listed = dict(
        re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `?([^|`]*?)`? \|", PROTOCOL.text, re.MULTILINE)
    )
    found = {
        "discovery.cache_path": none.discovery_cache_path,
        "discovery.cache_max_age": none.discovery_cache_max_age,
        "discovery.multicast_address": none.multicast_group,
        "discovery.port": none.multicast_port,
        "beepish.first_port": none.first_port,
        "beepish.last_port": none.last_port,
        "beepish.bind_tries": none.bind_tries,
        "beepish.client_timeout": none.client_timeout,
        "beepish.server_timeout": none.server_timeout,
        "rpc.timeout": none.rpc_timeout,
        "flow.max_inflight": none.max_inflight,
    }
    for key, value in found.items():
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        assert listed[key] == shown, key


# -- services and clients: tables -------------------------------------------------------


def rows(page: Page, heading: str) -> dict[str, str]:
    """The second column of the table under a heading, by each name in the first."""
    part = page.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for line in part.splitlines():
        if line.startswith("| `"):
            names, second = line.split("|")[1:3]
            found |= dict.fromkeys(re.findall(r"`(\w+)`", names), second.strip().strip("`"))
    return found


def test_every_error_code_of_a_service_is_listed() -> None:
    used: set[str] = set()
    for path in (ROOT / "scamp" / "server").glob("*.py"):
        text = path.read_text()
        used |= set(re.findall(r'ServiceError\(\s*"([a-z_]+)"', text))
        used |= set(re.findall(r'\b(?:error_)?code\s*=\s*"([a-z_]+)"', text))
    assert set(rows(Page("docs/services.md"), "What callers get as errors")) == used


def test_every_setting_of_a_service_is_listed_with_its_default() -> None:
    listed = rows(Page("docs/services.md"), "What can be set")
    for function in (Service.__init__, Service.action):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in ("self", "name", "spelling"):
                continue
            assert name in listed, name
            if isinstance(parameter.default, bool | int | float) and name != "max_body":
                assert listed[name] == str(parameter.default), name


def test_every_option_of_a_client_is_listed_with_its_default() -> None:
    listed = rows(Page("docs/clients.md"), "What can be set")
    known = {field.name: field.default for field in dataclasses.fields(ClientOptions)}
    assert listed.keys() == known.keys()
    for name, default in known.items():
        if name != "resume_tls":  # where it is on depends on the version of Python
            assert listed[name] == str(default), name


def test_what_the_tables_call_errors_are_errors() -> None:
    for name in rows(Page("docs/clients.md"), "Errors"):
        assert issubclass(getattr(scamp.errors, name), ScampError)


# -- reference: docstrings --------------------------------------------------------------

PUBLIC: Final = (
    "scamp",
    *(f"scamp.{name}" for name in ("authz", "client", "config", "discovery", "errors", "keys")),
    *(f"scamp.{name}" for name in ("limits", "logs", "server", "testing", "tickets")),
    *(f"scamp.{name}" for name in ("transport", "wire")),
)
"""What the reference shows."""


def public_names(module: ModuleType) -> Iterator[tuple[str, object]]:
    """What ``__all__`` lists, else what is defined there."""
    listed = getattr(module, "__all__", None)
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if name in listed if listed is not None else own and not name.startswith("_"):
            yield f"{module.__name__}.{name}", value


def undocumented(name: str, value: object) -> Iterator[str]:
    """The name, and those below it, that have no docstring and inherit none."""
    if inspect.isclass(value) and value.__module__.startswith("scamp"):
        doc = value.__dict__.get("__doc__") or ""
        if not doc or doc.startswith(f"{value.__name__}("):
            yield name  # dataclasses make one of their fields
        for member, below in vars(value).items():
            if member.startswith("_"):
                continue
            if inspect.isroutine(below) or isinstance(below, property | classmethod | staticmethod):
                attribute = inspect.getattr_static(value, member)
                if not inspect.getdoc(attribute) and not inspect.getdoc(getattr(value, member)):
                    yield f"{name}.{member}"
    elif inspect.isfunction(value) and not inspect.getdoc(value):
        yield name


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    found = [one for public in public_names(module) for one in undocumented(*public)]
    assert found == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_constant_says_what_it_is(name: str) -> None:
    """A string below it, or for its kind in one place."""
    file = importlib.import_module(name).__file__
    assert file is not None
    body = ast.parse(Path(file).read_text()).body
    plain = {"KIB", "MIB"}
    for node, after in pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id.startswith("_") or node.target.id in plain | {"log"}:
                continue
            assert isinstance(after, ast.Expr), f"{name}.{node.target.id} does not say what it is"


def test_the_reference_shows_every_public_module() -> None:
    shown = {
        module
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for module in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    }
    assert shown == {name for name in PUBLIC if name != "scamp"}


# -- the site ---------------------------------------------------------------------------


def test_the_site_has_every_page() -> None:
    listed = re.findall(
        r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == there


@pytest.fixture(scope="module")
def site() -> Path:
    return built_site()


@pytest.mark.timeout(180)
def test_the_site_can_be_built_without_a_warning(site: Path) -> None:
    """Links, anchors, the reference: what is missing anywhere is a warning, and ends it."""
    page = (site / "reference" / "server.html").read_text()
    assert 'id="scamp.server.Service.start"' in page


def test_a_link_that_leads_nowhere_ends_the_building(tmp_path: Path) -> None:
    """With --quiet warnings do not count for --strict."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[away](index.md#nowhere)\n")
    settings = (ROOT / "mkdocs.yml").read_text()
    validation = re.search(r"^validation:\n(?:  .*\n)+", settings, re.MULTILINE)
    assert validation is not None
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation[0]}")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr


@pytest.mark.timeout(180)
def test_state_machines_are_tables_on_the_site(site: Path) -> None:
    """Each step of each machine, and nothing that a browser would have to draw."""
    page = (site / "states.html").read_text()
    assert "mermaid" not in page
    assert page.count('<table class="machine">') == len(MACHINES)
    steps = {(before, after) for one in MACHINES for (before, _), after in one.table.items()}
    assert len(re.findall(r"→ <code>|<em>stays</em>", page)) == len(steps)


LOADS: Final = re.compile(
    r"<(?:script|img|iframe|source|audio|video|object|embed)\b[^>]*\b(?:src|data)=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|next|prev))[^>]*\bhref=[\"']?(?:https?:)?//"
    r"|url\([\"']?(?:https?:)?//|@import"
)
"""What a browser fetches by itself, from elsewhere."""


@pytest.mark.timeout(180)
def test_nothing_on_the_site_comes_from_elsewhere(site: Path) -> None:
    """A link that is followed by hand may lead anywhere; what is loaded lies beside the page."""
    assert LOADS.search('<script src="https://unpkg.com/mermaid"></script>')
    seen = 0
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css", ".svg", ".js"):
            seen += 1
            text = path.read_text()
            assert not LOADS.search(text), path
            assert "unpkg.com" not in text, path
    assert seen > 40


@pytest.mark.timeout(180)
def test_the_site_says_which_version_it_is_of(site: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'<span class="version">{version}</span>' in (site / "index.html").read_text()
    for page in site.rglob("*.html"):
        assert f"scamp-gateway {version}" in page.read_text(), page


# -- the gateway: what is to be copied --------------------------------------------------

COPIED: Final = (
    "docs/auth.md",
    "docs/load-balancers.md",
    "docs/migration.md",
    "docs/rate-limits.md",
    "docs/web-apps.md",
)


@pytest.mark.parametrize(
    "block",
    [block for path in COPIED for block in Page(path).blocks("toml") if "[[" not in block],
)
def test_settings_that_are_shown_can_be_loaded(block: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(block)
    sources.load(config=path)
