"""What pages call by name exists: settings, metrics, errors, options of commands, messages."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Final

import click
import pytest
from click.core import Context
from pages import ROOT, Page
from said import metrics, says, sentences, words

from gateway.audit import codes as audit_codes
from gateway.catalogue import CATALOGUE
from gateway.cli import main as gateway_main
from gateway.settings import ENV_PREFIX, Settings
from scamp.cli.lazy import loaded
from scamp.cli.main import main as scamp_main

PAGES: Final = sorted(
    str(path.relative_to(ROOT))
    for path in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "deploy").rglob("*")]
    if path.suffix in (".md", ".yml", ".yaml", ".json", ".conf", ".cfg", ".toml", ".service")
    and path.name != "CHANGELOG.md"  # it tells of what was, too
)
DOCS: Final = [page for page in PAGES if page.startswith("docs/")]
TROUBLE: Final = Page("docs/troubleshooting.md")
CODES: Final = {kind.code: kind for kind in CATALOGUE.values()}
INLINE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def prose(text: str) -> str:
    """Without blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def inline(text: str) -> Iterator[str]:
    return (found[1] for found in INLINE.finditer(prose(text)))


# -- metrics ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_metric_that_is_named_exists(page: str) -> None:
    """What a recording rule makes of one has colons in its name: others look at those."""
    series = r"(?<![\w:])scamp_gateway_[a-z_]*[a-z](?![\w]|:[a-z]|\.py)"
    assert set(re.findall(series, Page(page).text)) - metrics() == set()


def test_a_metric_that_does_not_exist_is_noticed() -> None:
    assert "scamp_gateway_requests_total" in metrics()
    assert "scamp_gateway_request_duration_seconds_bucket" in metrics()
    assert "scamp_gateway_wishes_total" not in metrics()


def test_every_metric_is_in_the_reference() -> None:
    page = ROOT / "docs" / "metrics.md"
    if not page.exists():
        pytest.skip("there is no page of metrics yet")
    text = page.read_text()
    bare = {re.sub("_(bucket|count|sum)$", "", name) for name in metrics()}
    assert {name for name in bare if f"`{name}`" not in text} == set()


# -- settings ---------------------------------------------------------------------------


def test_every_setting_is_in_the_reference() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|", Page("docs/configuration.md").text, re.MULTILINE)
    assert sorted(rows) == sorted(Settings.model_fields)


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_that_is_named_exists(page: str) -> None:
    named = set(re.findall(rf"\b{ENV_PREFIX}([A-Z_]+)\b", Page(page).text))
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}
    by_kubernetes = {"PORT", "SERVICE_HOST", "SERVICE_PORT"}
    assert named - known - by_kubernetes == set()


@pytest.mark.parametrize("page", DOCS)
def test_what_looks_like_a_name_of_ours_is_one(page: str) -> None:
    """`like_this` is a setting, a code, a label's value or a name in the code."""
    looks = {text for text in inline(Page(page).text) if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", text)}
    assert {one for one in looks - words() - FOREIGN if not METRIC.match(one)} == set()


METRIC: Final = re.compile(r"(scamp_gateway|process|python)_")
FOREIGN: Final = frozenset(
    {
        # nginx' and asyncio's
        "client_max_body_size", "fail_timeout", "max_fails", "non_idempotent", "proxy_buffering",
        "proxy_read_timeout", "proxy_next_upstream", "proxy_ssl_trusted_certificate", "reuse_port",
        *re.findall(r"[a-z]+(?:_[a-z]+)+", Page("deploy/nginx/scamp-gateway.conf").text),
    }
)  # fmt: skip


@pytest.mark.parametrize("page", DOCS)
def test_what_is_set_in_an_example_is_a_setting(page: str) -> None:
    text = Page(page).text
    for block in re.findall(r"^( *)```toml\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        body = re.sub(rf"^{block[0]}", "", block[1], flags=re.MULTILINE)
        if "[[" in body or "{ page" in body:  # of the routes file, which others look at
            continue
        assert set(tomllib.loads(body)) - set(Settings.model_fields) == set(), body


VALUE: Final = r"(\d[\d,]*(?:\.\d+)?) ?(ms|s|%|MiB|KiB|bytes/s)?"
UNITS: Final = {"ms": 1e-3, "%": 1e-2, "KiB": 2**10, "MiB": 2**20}
OF_THE_LIBRARY: Final = {"docs/services.md", "docs/clients.md", "docs/errors.md"}
"""These have options by the same names."""


def defaults(page: str) -> Iterator[tuple[str, float]]:
    """What a page says: `setting` (75 s), and the rows of tables."""
    text = Page(page).text
    for pattern in (rf"`([a-z_]+)` \({VALUE}", rf"^\|(?: [^|]* \|)? `([a-z_]+)` \| {VALUE}"):
        for name, number, unit in re.findall(pattern, text, re.MULTILINE):
            if name in Settings.model_fields:
                yield name, float(number.replace(",", "")) * UNITS.get(unit, 1)


@pytest.mark.parametrize("page", [page for page in DOCS if page not in OF_THE_LIBRARY])
def test_defaults_are_those_that_a_page_gives(page: str) -> None:
    for name, said in defaults(page):
        default = Settings.model_fields[name].default
        if default is not None:  # else it follows from another setting
            assert float(default) == pytest.approx(said), name


def test_pages_give_many_defaults() -> None:
    assert sum(len(list(defaults(page))) for page in DOCS if page not in OF_THE_LIBRARY) > 40


# -- errors -----------------------------------------------------------------------------


def test_every_error_is_in_the_reference() -> None:
    rows = re.findall(r"^\| \d+ \| `([a-z_]+)` \|", Page("docs/errors.md").text, re.MULTILINE)
    assert sorted(rows) == sorted(CODES)


@pytest.mark.parametrize("page", [*DOCS, "README.md"])
def test_errors_have_the_status_that_a_page_gives_them(page: str) -> None:
    """Like 503 `saturated`, 503 [`saturated`](errors.md), and the rows of tables."""
    text = Page(page).text
    pairs = re.findall(r"\b([45]\d\d) \[?`([a-z_]+)`", text)
    pairs += re.findall(r"^\| ([45]\d\d) \| `([a-z_]+)` \|(?! \d)", text, re.MULTILINE)
    for status, code in pairs:
        if code in CODES and code != "service_error":
            assert CODES[code].status == int(status), code
        else:
            assert code in words(), code


def test_every_error_that_the_gateway_makes_has_a_symptom() -> None:
    """Those of a careless request, and those that say all there is to say, are errors.md's."""
    plain = {
        "malformed_request", "bad_query", "bad_header", "bad_framing", "bad_body",
        "unsupported_encoding", "expectation_failed", "tickets_differ", "too_many_values",
    }  # fmt: skip
    named = set(inline(TROUBLE.text))
    assert set(CODES) - plain - named == set()
    assert plain & named == set()


# -- commands ---------------------------------------------------------------------------

COMMANDS: Final[dict[str, click.Command]] = {"scamp": scamp_main, "scamp-gateway": gateway_main}


def commands(text: str) -> Iterator[str]:
    for block in re.findall(
        r"^ *```(?:sh|console|shell)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE
    ):
        joined = block.replace("\\\n", " ")
        for line in re.split(r"\n|&&|\| |\$\(", joined):
            bare = re.sub(r"^\s*(\$ |\.venv/bin/)?", "", line.partition("  #")[0])
            if bare.split(" ")[0] in COMMANDS:
                yield bare
    yield from (text for text in inline(text) if text.split(" ")[0] in COMMANDS and " " in text)


def options_of(line: str) -> tuple[set[str], set[str]]:
    """The options on a line, and those that its command has."""
    try:
        program, *rest = shlex.split(line, comments=True)
    except ValueError:  # a quote goes on in the next line
        program, *rest = line.split()
    command = COMMANDS[program]
    given: set[str] = set()
    known: set[str] = {"--help", "--version", "-h"}
    while True:
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
        step = next((word for word in rest if not word.startswith("-")), None)
        if not isinstance(command, click.Group) or step is None:
            break
        found = command.get_command(Context(command), step)
        if found is None:
            assert not re.fullmatch(r"[a-z]+", step), f"{line}: there is no command {step}"
            break
        place = rest.index(step)
        given |= {word for word in rest[:place] if word.startswith("-")}
        command, rest = loaded(found), rest[place + 1 :]
    given |= {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    return given, known


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith(".md")])
def test_commands_have_the_options_that_are_shown(page: str) -> None:
    for line in commands(Page(page).text):
        given, known = options_of(line)
        assert given - known == set(), line


def test_a_command_that_does_not_exist_is_noticed() -> None:
    given, known = options_of("scamp-gateway run --config x --biind :1")
    assert given - known == {"--biind"}
    with pytest.raises(AssertionError, match="there is no command"):
        options_of("scamp lisst services")


# -- messages ---------------------------------------------------------------------------


def symptoms() -> list[tuple[str, str]]:
    """Each heading with what is below it."""
    parts = re.split(r"^### ", TROUBLE.text, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def test_there_are_symptoms_enough_and_each_says_what_to_do() -> None:
    assert len(symptoms()) >= 25
    for heading, below in symptoms():
        assert re.search(r"\*\*(Why|Do|Look):\*\*", below), heading


ELSEWHERE: Final = re.compile(
    r"(scamp|scamp-gateway|ss|ls|date|curl|openssl|ulimit|dmesg) |.* = |Authorization: "
    r"|credentials: |GET /|proxy_buffering off|-H |/|[A-Z][A-Za-z]+=|curl -[dN]$|curl --json$"
)
"""Commands, settings with a value, headers, paths: no message."""


def messages() -> list[str]:
    return [text for text in inline(TROUBLE.text) if " " in text and not ELSEWHERE.match(text)]


@pytest.mark.parametrize("message", messages())
def test_every_message_that_is_quoted_is_in_the_code(message: str) -> None:
    assert says(message), message


def test_messages_are_quoted_and_a_wrong_one_is_noticed() -> None:
    assert len(messages()) >= 25
    assert len(sentences()) > 1000
    assert not says("no ticket key: bring one")


def test_the_audit_has_every_code() -> None:
    shown = set(re.findall(r"^### ([a-z_]+)$", Page("docs/audit.md").text, re.MULTILINE))
    assert shown == set(audit_codes.CODES)
