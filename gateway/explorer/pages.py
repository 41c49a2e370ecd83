"""The explorer's files, as the public listener serves them: what is in ``page`` beside this module.

They are read once. Nothing in them is filled in by the server: what the page shows it fetches, as
any other client would, so it needs no secrets and may be seen by everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway import catalogue
from gateway.endpoints import send_tagged
from gateway.exchange import Exchange
from gateway.pagefiles import HEADERS, REVALIDATED, PageFile, page_file, page_files
from gateway.problems import Problem

PREFIX: Final = "/docs/"
"""Where the files are."""

_PAGES: Final = (PREFIX, f"{PREFIX}events")
"""Addresses of views. All are one page, which looks at its address."""


class Explorer:
    """The `Endpoint` for ``/docs`` and all below it."""

    route: Final = "/docs/{file}"
    methods: Final = ("GET", "HEAD")

    def __init__(self) -> None:
        self._files = _load()

    async def serve(self, exchange: Exchange, path: str, query: str) -> None:
        """Send a file, or 304 when the caller has it. Raises Problem (unknown_path)."""
        found = self._files.get(path)
        if found is None:
            raise Problem(catalogue.UNKNOWN_PATH, "The explorer has no such file.")
        fields = (REVALIDATED, *HEADERS)
        await send_tagged(exchange, found.type, found.content, found.etag, fields)


def _load() -> Mapping[str, PageFile]:
    """Every file by its path. Blocks for some milliseconds."""
    loaded = {PREFIX + name: file for name, file in page_files("gateway.explorer").items()}
    index = loaded.pop(PREFIX + "index.html")
    loaded |= dict.fromkeys(_PAGES, index)
    # References are relative, so that it works below any prefix that a proxy adds; without the
    # slash at the end they start one level higher.
    above = index.content.replace(b'="./', b'="docs/')
    return {**loaded, PREFIX.rstrip("/"): page_file(above, index.type)}
