"""What the site needs beyond mkdocs."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
_MERMAID: Final = re.compile(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_STEP: Final = re.compile(r"(\S+) --> (\S+?)(?:: (.+))?$")
_OUTSIDE: Final = re.compile(r"https://unpkg\.com/[^\"'`]*")


def on_config(config: Any) -> Any:
    """The version is at the foot of each page, and on the first one."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None  # noqa: S101 - the build ends without one
    config.copyright = f"scamp-gateway {found[1]}, MIT licensed"
    config.extra["release"] = found[1]
    return config


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """``[default: now] [x>=0]`` in the help of a command is no link.

    Diagrams of states become tables: what would draw them in a browser comes from an outside host.
    """
    markdown = re.sub(r"\] \[(?=[^\]]*[<>]=?)", r"] \\[", markdown)
    markdown = markdown.replace("{{ version }}", config.extra["release"])
    return _MERMAID.sub(lambda found: _machine(found[1]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings mark a block of code with ``::``; the block below is one without it."""
    html = re.sub(r"<p>::</p>\n?", "", html)
    html = re.sub(r"::(</p>\n?<(?:pre|div))", r":\1", html)
    html = re.sub(r"<table>.*?</table>", _stackable, html, flags=re.DOTALL)
    return re.sub(r"(?<=<code>)[a-z]+(?:_[a-z0-9]+)+(?=</code></td>)", _breakable, html)


def on_post_build(config: Any) -> None:
    """The theme's script knows where to get what no page here needs, from an outside host."""
    for script in Path(config.site_dir).glob("assets/javascripts/*.js"):
        script.write_text(_OUTSIDE.sub("", script.read_text()))


def _breakable(name: re.Match[str]) -> str:
    """Names in tables break between words; ``site.css`` keeps them from breaking elsewhere."""
    return name[0].replace("_", "_<wbr>")


def _stackable(table: re.Match[str]) -> str:
    """On a phone the cells of a row with four or more stand below each other, see ``site.css``; so
    each says what it is."""
    heads = [re.sub("<.*?>", "", head) for head in re.findall(r"<th\b.*?>(.*?)</th>", table[0])]
    if len(heads) < 4:
        return table[0]

    def labelled(row: re.Match[str]) -> str:
        labels = iter(heads)
        return re.sub("<td(?=[ >])", lambda _: f'<td data-label="{next(labels, "")}"', row[0])

    rows = re.sub(r"<tr>.*?</tr>", labelled, table[0], flags=re.DOTALL)
    return rows.replace("<table>", "<table data-stacked>", 1)


def _machine(drawn: str) -> str:
    """A row for each state: what can happen in it, and what it becomes then."""
    steps: dict[str, list[tuple[str, str]]] = {}
    first, over = "", set()
    for line in filter(None, map(str.strip, drawn.splitlines())):
        found = _STEP.match(line)
        assert found is not None, line  # noqa: S101 - the build ends
        before, after, events = found.groups()
        if before == "[*]":
            first = after
        elif after == "[*]":
            over.add(before)
        else:
            steps.setdefault(before, []).append((after, events.replace("<br/>", ", ")))
    rows = []
    for state in dict.fromkeys((first, *steps, *over)):
        note = "begins here" if state == first else "over" if state in over else ""
        cells = "".join(
            f"<li><span>{escape(events)}</span> {_arrow(state, after)}</li>"
            for after, events in steps.get(state, [])
        )
        rows.append(
            f"<tr><th><code>{state}</code><small>{note}</small></th><td><ul>{cells}</ul></td></tr>"
        )
    return f'<table class="machine"><tbody>{"".join(rows)}</tbody></table>'


def _arrow(state: str, after: str) -> str:
    return "<em>stays</em>" if after == state else f"→ <code>{after}</code>"
