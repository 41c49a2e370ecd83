"""What the site needs beyond mkdocs: docstrings mark a block of code with ``::``."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Take the mark away; the block below it is one without it."""
    html = re.sub(r"<p>::</p>\n?", "", html)
    return re.sub(r"::(</p>\n?<(?:pre|div))", r":\1", html)
