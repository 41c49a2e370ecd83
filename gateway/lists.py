"""The long lists of the admin listener: services and actions in force, as JSON in pieces.

100,000 actions are 28 MB. As one piece of JSON they kept every request waiting for 130 ms, so a
thread writes some at a time: `service_pieces` and `action_pieces` are for `asyncio.to_thread`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

import orjson
from aiohttp import web

from gateway.strangers import Trust
from scamp.discovery import Announcement, Offer
from scamp.discovery.model import count_actions
from scamp.discovery.pace import STRIDE, Pace, let_go, paced_sort
from scamp.logs import redact


def listed(name: str, pieces: deque[bytes], rest: Mapping[str, Any]) -> web.Response:
    """An object with a list, sent piece by piece, and with the `rest`."""

    async def body() -> AsyncIterator[bytes]:
        yield b'{"%b": [\n' % name.encode()
        while pieces:
            yield pieces.popleft()
        yield b"\n]" + b"".join(
            b',\n"%b": %b' % (key.encode(), _text(value).encode()) for key, value in rest.items()
        )
        yield b"}\n"

    return web.Response(body=body(), content_type="application/json")


def service_pieces(services: Iterable[Announcement]) -> deque[bytes]:
    """Of ``/services``, in no particular order."""
    pause = Pace()
    texts = []
    for service in services:
        pause()
        texts.append(_text(_service(service)))
    return _pieces(texts, pause)


def _service(service: Announcement) -> dict[str, Any]:
    return {
        "name": redact(service.name),
        "identity": redact(service.identity),
        "fingerprint": service.fingerprint,
        "sector": service.sector,
        "uri": service.uri,
        "weight": service.weight,
        "interval": service.interval,
        "envelopes": service.envelopes,
        "actions": count_actions(service),
        "timestamp": service.timestamp,
    }


def action_pieces(
    every: Iterable[tuple[Offer, ...]], exposed: Callable[[str], bool]
) -> deque[bytes]:
    """Of ``/actions``, in order."""
    trust, pause = Trust(), Pace()
    found = []
    for offers in every:
        pause()
        one = _action(offers, exposed, trust)
        found.append((str(one["action"]), _text(one)))
    in_order = paced_sort(found, itemgetter(0), pause)
    found.clear()
    texts = [text for _, text in in_order]
    let_go(in_order, pause)
    return _pieces(texts, pause)


def _action(
    offers: tuple[Offer, ...], exposed: Callable[[str], bool], trust: Trust
) -> dict[str, Any]:
    action = offers[0].action
    return {
        "action": f"{action.sector}:{action.spelling}~{action.version}",
        "exposed": exposed(action.sector) and bool(trust.reachable(offers)),
        "flags": action.flags,
        "envelopes": action.envelopes,
        "timeout": action.timeout,
        "instances": [redact(offer.service.identity) for offer in offers],
    }


def _text(content: Any) -> str:
    # Of orjson's bytes each keeps the 4 KiB in which it was written.
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()


def _pieces(texts: list[str], pause: Callable[[], None]) -> deque[bytes]:
    """The inside of a JSON list, of which `texts` are the items and are used up."""
    pieces: deque[bytes] = deque()
    for start in range(0, len(texts), STRIDE):
        pause()
        text = ",\n".join(texts[start : start + STRIDE])
        pieces.append((",\n" + text if start else text).encode())
    let_go(texts, pause)
    return pieces
