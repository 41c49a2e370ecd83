"""The page ``/`` of the admin listener and its files, and ``/overview``, which it draws.

The page is a file without anything filled in, but for what is shown where scripts are off: a table,
as of now, and links.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson
from aiohttp import hdrs, web

from gateway.pagefiles import HEADERS, REVALIDATED, PageFile, page_files

SHARED: Final = frozenset(
    {"base.css", "dom.js", "icon.svg", "text.js", "theme-button.js", "theme.js", "tokens.css"}
)
"""Files of the explorer that are used here, too."""

_TABLE: Final = "<!-- table -->"
_LINKS: Final = "<!-- links -->"


class Shown(Protocol):
    """What there is to show."""

    async def overview(self, wanted: str) -> Mapping[str, Any]:
        """As `Overview.compose`."""
        ...


class ConsolePages:
    """Handlers, to be put behind whatever keeps strangers out. `links` are other pages by path,
    with what they are."""

    def __init__(self, shown: Shown, links: Mapping[str, str]) -> None:
        self._shown = shown
        found = dict(page_files("gateway.explorer", SHARED)) | dict(page_files("gateway.console"))
        self._index = found.pop("index.html").content.decode().replace(_LINKS, _items(links))
        self._files: Mapping[str, PageFile] = found

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/", self.index),
            web.get("/page/{name}", self.file),
            web.get("/overview", self.overview),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """The page."""
        table = _rows(await self._shown.overview(""))
        return web.Response(
            text=self._index.replace(_TABLE, table),
            content_type="text/html",
            charset="utf-8",
            headers=dict(HEADERS),
        )

    async def file(self, request: web.Request) -> web.Response:
        """One of its files, or 304 to whoever has it."""
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        headers = dict((*HEADERS, REVALIDATED, (hdrs.ETAG, found.etag)))
        known = request.if_none_match or ()
        if any(one.value in ("*", found.etag.strip('"')) for one in known):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = found.type
        return web.Response(body=found.content, headers=headers)

    async def overview(self, request: web.Request) -> web.Response:
        """Everything that the page shows; ``?filter=`` has rows with a text in them."""
        found = await self._shown.overview(request.query.get("filter", ""))
        body = await asyncio.to_thread(orjson.dumps, found, option=orjson.OPT_APPEND_NEWLINE)
        return web.Response(body=body, content_type="application/json")


def _items(links: Mapping[str, str]) -> str:
    return "".join(
        f'<li><a href=".{path}">{path}</a> <span>{html.escape(what)}</span></li>\n'
        for path, what in links.items()
    )


def _rows(found: Mapping[str, Any]) -> str:
    discovery, instances = found["discovery"], found["instances"]
    age = discovery["age"]
    rows = {
        "state": found["gateway"]["state"],
        "requests under way": f"{found['gauges']['in_flight']:g}",
        "services": found["services"]["total"],
        "records refused": found["rejected"]["total"],
        "discovery age": "never loaded" if age is None else f"{age:.0f} s",
        "discovery": discovery["last_error"] or ("stale" if discovery["stale"] else "good"),
        "instances": instances["total"],
        "instances out": instances["states"]["out"],
        "connections": f"{found['gauges']['connections']:g}",
    }
    return "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>\n"
        for name, value in rows.items()
    )
