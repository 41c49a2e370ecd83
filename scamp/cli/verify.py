"""``scamp verify``: every record of a discovery cache file, accepted or refused and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from scamp import limits
from scamp.cli.common import FILE, Exit, read_file, standard_input, table
from scamp.cli.index import load_authorized
from scamp.discovery import (
    Action,
    Announcement,
    AuthorizedServices,
    parse_announcement,
    split_records,
)
from scamp.discovery.announcement import identity_hint, is_cut
from scamp.errors import AnnouncementError, ConfigError

GOOD: Final = "good"
OLDER: Final = "older"
REFUSED: Final = "refused"

_NAMED: Final = 3
"""Actions that are not permitted are named up to this many, in the table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one record. `number` counts the records of the file from 1.

    `service` is None when the record is refused; `identity` is then what the record seems to
    be about. `reason` is one of `AnnouncementError`'s words, ``replay`` for an older record
    of a service that has a newer one in the same file, or empty.
    """

    number: int
    status: str
    identity: str
    service: Announcement | None
    reason: str = ""
    detail: str = ""
    not_permitted: tuple[str, ...] = ()


def examine(data: bytes, authorized: AuthorizedServices | None) -> list[Finding]:
    """Look at every record of a cache file's content. Raises nothing."""
    records = split_records(data)
    parsed = [_parse(record) for record in records]
    newest: dict[tuple[str, str], float] = {}
    for service in parsed:
        if isinstance(service, Announcement):
            newest[service.key] = max(service.timestamp, newest.get(service.key, 0.0))
    findings = []
    for number, (record, found) in enumerate(zip(records, parsed, strict=True), 1):
        if isinstance(found, AnnouncementError):
            detail = found.detail
            if number == len(records) and is_cut(record):
                detail += " (the last record: the file seems to be cut off)"
            hint = identity_hint(record) or "?"
            findings.append(Finding(number, REFUSED, hint, None, found.reason, detail))
            continue
        banned = _not_permitted(found, authorized)
        if found.timestamp < newest[found.key]:
            detail = "a newer one stands in the same file, and counts"
            old = Finding(number, OLDER, found.identity, found, "replay", detail, banned)
            findings.append(old)
        else:
            findings.append(Finding(number, GOOD, found.identity, found, not_permitted=banned))
    return findings


@click.command("verify")
@click.argument("file", metavar="FILE|-")
@click.option(
    "--authorized-services",
    type=FILE,
    help="Also tell what this file does not permit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, with every detail.")
def verify(file: str, authorized_services: Path | None, as_json: bool) -> None:
    """Check the records of a discovery cache file.

    Prints a line for each record of FILE ('-' is standard input): whether it is accepted, and if
    not, why. 'good' records have a good signature and can be used; 'older' ones too, but a newer
    one of the same service counts in their place; 'refused' ones are used by nobody, and never cost
    another record. What --authorized-services does not permit is told beside.

    Exits with 0 when no record is refused, with 1 when any is, with 2 when the file as a whole is
    none that holds records. How old the file is does not matter here.

    \b
    Examples:
      scamp verify /tmp/scamp_discovery_cache
      scamp verify trial.cache --authorized-services /etc/scamp/authorized_services
      scamp announce --action Shop.buy --address 10.0.0.5:30100 --key shop.key | scamp verify -
    """
    data = _read(file)
    authorized = None if authorized_services is None else load_authorized(authorized_services)
    for problem in authorized.problems if authorized is not None else ():
        click.echo(f"note: skipped: {problem}", err=True)
    findings = examine(data, authorized)
    if data.strip() and not findings:
        raise ConfigError(f"{file}: not a discovery cache file: no record behind a line '%%%'")
    if as_json:
        click.echo(json.dumps([_facts(finding) for finding in findings], indent=2))
    else:
        header = ("NO", "STATUS", "SERVICE", "SECTOR", "ADDRESS", "ACTIONS", "REASON")
        click.echo(table([_row(finding) for finding in findings], header))
    refused = sum(finding.status == REFUSED for finding in findings)
    noun = "record" if len(findings) == 1 else "records"
    click.echo(f"{len(findings)} {noun}, {refused} refused", err=True)
    if refused:
        raise SystemExit(Exit.FAILED)


def _read(file: str) -> bytes:
    if file != "-":
        return read_file(Path(file), limits.MAX_CACHE_FILE)
    content = standard_input().buffer.read(limits.MAX_CACHE_FILE + 1)
    if len(content) > limits.MAX_CACHE_FILE:
        raise ConfigError(f"standard input: more than {limits.MAX_CACHE_FILE} bytes")
    return content


def _parse(record: bytes) -> Announcement | AnnouncementError:
    try:
        return parse_announcement(record)
    except AnnouncementError as exc:
        return exc


def _not_permitted(service: Announcement, authorized: AuthorizedServices | None) -> tuple[str, ...]:
    if authorized is None:
        return ()
    return tuple(
        _full(action)
        for action in service.actions
        if not authorized.permits(service.fingerprint, action.sector, action.spelling)
    )


def _full(action: Action) -> str:
    return f"{action.sector}:{action.spelling}~{action.version}"


def _row(finding: Finding) -> Sequence[str]:
    reasons = [f"{finding.reason}: {finding.detail}"] if finding.reason else []
    if banned := finding.not_permitted:
        named = ", ".join(banned[:_NAMED]) + (", …" if len(banned) > _NAMED else "")
        reasons.append(f"{len(banned)} not permitted: {named}")
    service = finding.service
    if service is None:
        place = ("", "", "")
    else:
        if service.weight == 0:
            reasons.append("leaving: weight 0")
        host = f"[{service.host}]" if ":" in service.host else service.host
        place = (service.sector, f"{host}:{service.port}", str(len(service.actions)))
    return (str(finding.number), finding.status, finding.identity, *place, "; ".join(reasons))


def _facts(finding: Finding) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "number": finding.number,
        "status": finding.status,
        "identity": finding.identity,
        "reason": finding.reason or None,
        "detail": finding.detail or None,
    }
    service = finding.service
    if service is not None:
        facts |= {
            "name": service.name,
            "fingerprint": service.fingerprint,
            "sector": service.sector,
            "uri": service.uri,
            "weight": service.weight,
            "interval": service.interval,
            "timestamp": service.timestamp,
            "actions": [_full(action) for action in service.actions],
            "not_permitted": list(finding.not_permitted),
        }
    return facts
