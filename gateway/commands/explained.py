"""What becomes of one request, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.commands.entries import entry_dict, flags_of, methods_of, seconds
from gateway.commands.tables import columns, one_line, wrapped
from gateway.explain import Explanation
from gateway.surface import Entry


def explained_dict(found: Explanation) -> dict[str, Any]:
    """For machines."""
    return {
        "method": found.method,
        "path": found.path,
        "status": found.status,
        "code": found.code or None,
        "detail": found.says or None,
        "taken_by": None if found.entry is None else entry_dict(found.entry),
        "parameters": found.values,
        "members": found.members,
        "body": found.body or None,
        "considered": [
            {
                "methods": list(one.route.all_methods),
                "url": one.route.template,
                "origin": one.route.origin,
                "why": one.why,
            }
            for one in found.considered
        ],
    }


def explained(found: Explanation) -> Iterator[str]:
    """For people."""
    yield one_line(f"{found.method} {found.path}")
    if found.status is not None:
        yield from wrapped(f"{found.status} {found.code}: {found.says}", "    ", "  answer   ")
    if found.entry is not None:
        yield from _taker(found.entry)
    for name, value in found.values.items():
        yield one_line(f"  {{{name}}} = {json.dumps(value, ensure_ascii=False)}")
    if found.members is not None:
        text = json.dumps(found.members, ensure_ascii=False)
        yield from wrapped(text, "           ", "  members  ")
    if found.body:
        yield f"  body     {found.body}"
    if found.considered:
        yield "others:"
        rows = [
            (
                f"  {' '.join(one.route.methods)}",
                one.route.template,
                one.route.origin.rpartition("/")[2],
                one.why,
            )
            for one in found.considered
        ]
        yield from columns(("", "", "", ""), rows)[1:]


def _taker(entry: Entry) -> Iterator[str]:
    where = f" ({''.join(entry.origin)})" if entry.route is not None else ""
    yield one_line(f"  taken by {methods_of(entry)} {entry.url}{where}")
    if entry.action is None:
        if entry.access is not None:
            yield one_line(f"  who      {entry.access}")
        return
    alias = f", which {entry.target} means" if entry.kind == "alias" else ""
    flags = f" [{','.join(flags_of(entry))}]" if flags_of(entry) else ""
    yield one_line(f"  action   {entry.action.label}{flags}{alias}, on {entry.instances}")
    if entry.access is not None:
        why = " (the privilege table does not list it)" if entry.access.kind == "nobody" else ""
        yield one_line(f"  who      {entry.access}{why}")
    retry = "sent again where that is safe" if entry.retry else "not sent again once it was written"
    yield f"  time     {seconds(entry.timeout)}; {retry}"
    if entry.rate:
        yield f"  rate     {entry.rate} for each caller"
