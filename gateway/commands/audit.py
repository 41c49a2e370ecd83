"""``scamp-gateway audit``: what is open, wrong or weak."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import click

from gateway.audit.codes import SEVERITIES
from gateway.audit.model import Audited, Finding, Ignored, Result
from gateway.audit.run import audit as run_audit
from gateway.audit.run import audited
from gateway.commands.options import Refused, SettingsCommand, load, settings_options
from gateway.commands.tables import one_line, plural, wrapped
from scamp.errors import ScampError

HELP: Final = """\
\b
Examples:
  scamp-gateway audit --config gateway.toml
  scamp-gateway audit --config gateway.toml --fail-on medium --json
  scamp-gateway audit --config gateway.toml --ignore 'open_write:Session.*'

\b
Exit codes:
  0  nothing at or above --fail-on
  1  findings
  2  wrong usage, or a file that cannot be used
"""

_SHOWN: Final = 10
"""Findings of one code that are shown as text; JSON has all."""


@click.command(cls=SettingsCommand, epilog=HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a stable order.")
@click.option(
    "--fail-on",
    type=click.Choice([*SEVERITIES, "never"]),
    default="high",
    show_default=True,
    help="Least severity that ends with status 1.",
)
@click.option(
    "--ignore",
    metavar="CODE[:SUBJECT]",
    multiple=True,
    help="Leave findings out; * in a subject stands for anything. (repeatable)",
)
@settings_options
def audit(
    *, as_json: bool, fail_on: str, ignore: tuple[str, ...], config: Path | None, **flags: Any
) -> None:
    """Find what is open, wrong or weak in a gateway's settings, routes and mesh.

    Offline, from the discovery cache file and the others that a gateway is given. The options are
    those of a gateway.
    """
    try:
        ignored = [Ignored.parse(text) for text in ignore]
    except ValueError as exc:
        raise Refused(f"--ignore: {exc}") from exc
    try:
        given = audited(load(config, flags))
        result = run_audit(given, ignored)
    except (ScampError, OSError) as exc:
        raise Refused(str(exc)) from exc
    failed = result.reaches(fail_on)
    if as_json:
        click.echo(json.dumps(as_dict(given, result, failed=failed), indent=2))
    else:
        click.echo("\n".join(lines_of(given, result)))
    for one in result.unused:
        click.echo(f"scamp-gateway: --ignore {one_line(str(one))}: no such finding", err=True)
    sys.exit(1 if failed else 0)


def as_dict(given: Audited, result: Result, *, failed: bool) -> dict[str, Any]:
    """All of it for machines."""
    return {
        "failed": failed,
        "counts": {severity: result.count(severity) for severity in SEVERITIES},
        "ignored": result.ignored,
        "looked_at": _looked_at(given),
        "notes": list(notes(given)),
        "findings": [finding.as_dict() for finding in result.findings],
    }


def lines_of(given: Audited, result: Result) -> Iterator[str]:
    """By severity and code, with what to do; the last line sums up."""
    for severity, same in groupby(result.findings, key=lambda one: one.code.severity):
        yield severity.upper()
        by_code = sorted(same, key=lambda one: one.code.word)
        for _, some in groupby(by_code, key=lambda one: one.code.word):
            yield from _of_code(list(some))
        yield ""
    for note in notes(given):
        yield from wrapped(note, "  ", "note: ")
    yield _summary(given, result)


def _of_code(findings: list[Finding]) -> Iterator[str]:
    code = findings[0].code
    count = f" ({len(findings)})" if len(findings) > 1 else ""
    yield f"  {code.word}{count}: {code.title}"
    for finding in findings[:_SHOWN]:
        yield from wrapped(f"{finding.subject}: {finding.says}", "        ", "    - ")
    if len(findings) > _SHOWN:
        yield f"    - and {len(findings) - _SHOWN} more; --json has all"
    yield from wrapped(code.remedy, "       ", "    => ")


def notes(given: Audited) -> Iterator[str]:
    """What the audit could not look at, or should not be relied on for."""
    enforced = given.settings.effective_auth_mode == "enforce"
    if enforced and given.mesh.authz is None:
        yield (
            "privileges are not known: no authz_table is given, and the Auth service is not asked"
        )
    if given.mesh.age > given.settings.discovery_max_age:
        yield f"the discovery cache is {given.mesh.age:.0f} s old: this may be a mesh of the past"
    if given.mesh.rejected:
        records = plural(given.mesh.rejected, "record")
        yield f"{records} of the discovery cache refused; scamp-gateway check says why"


def _looked_at(given: Audited) -> dict[str, int]:
    return {
        "services": len(given.mesh.registry.services()),
        "actions": len(given.view.actions),
        "routes": len(given.view.routes),
    }


def _summary(given: Audited, result: Result) -> str:
    counts = ", ".join(f"{result.count(severity)} {severity}" for severity in SEVERITIES)
    ignored = f" ({result.ignored} ignored)" if result.ignored else ""
    looked_at = ", ".join(plural(count, what[:-1]) for what, count in _looked_at(given).items())
    return f"{plural(len(result.findings), 'finding')}: {counts}{ignored}; {looked_at}"
