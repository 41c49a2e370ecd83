"""``docs/audit.md``, made from the codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.audit.codes import CODES, Code

_INTRODUCTION: Final = """\
# What an audit finds

<!-- Made from gateway/audit/codes.py; a test holds the two together. -->

`scamp-gateway audit` reads what a gateway would run with, and says what is open, wrong or weak. It
works offline: on the discovery cache file, the routes file, `authorized_services`, the privilege
table and the settings. Nothing is started, connected to or asked.

```
scamp-gateway audit --config gateway.toml
scamp-gateway audit --config gateway.toml --fail-on medium --json
scamp-gateway audit --config gateway.toml --ignore open_read --ignore 'open_write:Session.*'
```

It takes the options of `scamp-gateway run`, environment and settings file included, and these:

| option | meaning |
|---|---|
| `--fail-on high\\|medium\\|low\\|never` | The least that ends with status 1. [default: high] |
| `--ignore CODE[:SUBJECT]` | Leave findings out; `*` in a subject stands for anything. (repeat) |
| `--json` | Findings, counts and notes for machines. |

The exit status is 0 when nothing is at or above `--fail-on`, 1 when something is, and 2 for wrong
usage and for files that cannot be used. What was to be ignored and was not found is told on
standard error, so that the list can be kept short.

Without `authz_table` the privileges are not known, as the Auth service is not asked: nothing is
said about them then, but that. To look at the table in force, save what `Auth.getAuthzTable`
returns to a file and give `--authz-table FILE`.

Codes keep their meaning. Findings are about what is reachable over HTTP; what services offer only
within the mesh is not looked at.
"""


def audit_markdown() -> str:
    """The whole page, ending in a newline."""
    return _INTRODUCTION + "".join(_sections())


def _sections() -> Iterator[str]:
    yield "\n| code | severity | what it is |\n|---|---|---|\n"
    for code in CODES.values():
        yield f"| [`{code.word}`](#{code.word}) | {code.severity} | {code.title} |\n"
    group = ""
    for code in CODES.values():
        if code.group != group:
            group = code.group
            yield f"\n## {group}\n"
        yield from _entry(code)


def _entry(code: Code) -> Iterator[str]:
    yield f"\n### {code.word}\n\n"
    yield f"**{code.severity}**: {code.title}. Its subject is {code.subject}.\n\n"
    yield f"{code.meaning}\n\n"
    yield f"*What to do:* {code.remedy}\n"
