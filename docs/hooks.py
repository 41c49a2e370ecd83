"""What the site needs beyond mkdocs."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """``[default: now] [x>=0]`` in the help of a command is no link."""
    return re.sub(r"\] \[(?=[^\]]*[<>]=?)", r"] \\[", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings mark a block of code with ``::``; the block below is one without it."""
    html = re.sub(r"<p>::</p>\n?", "", html)
    html = re.sub(r"::(</p>\n?<(?:pre|div))", r":\1", html)
    return re.sub(r"(?<=<td><code>)[a-z_]+(?=</code>)", _breakable, html)


def _breakable(name: re.Match[str]) -> str:
    """Names in tables break between words; ``site.css`` keeps them from breaking elsewhere."""
    return name[0].replace("_", "_<wbr>")
