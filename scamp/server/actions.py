"""The actions of a service: what a handler is registered under, and finding it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from scamp.discovery import Action
from scamp.errors import ConfigError, ServiceError
from scamp.limits import MAX_NAME
from scamp.server.typed import UNKNOWN, Handler, HandlerInfo
from scamp.wire import RequestHeader

_SPELLING: Final = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+")
_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class ServedAction:
    """An announced action and what answers it. `timeout` is in seconds, flag or default."""

    action: Action
    handler: Handler
    timeout: float
    info: HandlerInfo = UNKNOWN


class ActionTable:
    """The actions of one service, found without case by name and version."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, int], ServedAction] = {}

    def __len__(self) -> int:
        return len(self._served)

    def __iter__(self) -> Iterator[ServedAction]:
        """In the order of registration."""
        return iter(self._served.values())

    def add(
        self,
        action: Action,
        handler: Handler,
        default_timeout: float,
        info: HandlerInfo = UNKNOWN,
    ) -> None:
        """Register one. Raises ConfigError when the name and version are taken."""
        key = (action.spelling.lower(), action.version)
        if key in self._served:
            raise ConfigError(f"{action.spelling} version {action.version} is registered twice")
        timeout = action.timeout or default_timeout
        self._served[key] = ServedAction(action, handler, timeout, info)

    def find(self, header: RequestHeader) -> ServedAction:
        """What a request asks for.

        Raises ServiceError ``not_found`` for an unknown action or version, ``bad_request`` for an
        envelope that the action does not take.
        """
        served = self._served.get((header.action.lower(), header.version))
        if served is None:
            name = header.action[:MAX_NAME]
            raise ServiceError("not_found", f"no action {name!r} version {header.version} here")
        offered = served.action.envelopes
        if header.envelope not in offered:
            raise ServiceError(
                "bad_request",
                f"{served.action.spelling} does not take envelope {header.envelope[:MAX_NAME]!r}; "
                f"it takes {', '.join(offered)}",
            )
        return served

    def announced(self) -> tuple[Action, ...]:
        """What goes into the announcement, in the order of registration."""
        return tuple(served.action for served in self)


def words(given: str | Iterable[str]) -> tuple[str, ...]:
    """Flags or envelopes as a programmer writes them: one by one, or as text with commas."""
    listed = given.split(",") if isinstance(given, str) else given
    return tuple(word.strip() for word in listed if word.strip())


def make_action(
    sector: str, spelling: str, version: int, flags: str | Iterable[str], envelopes: Iterable[str]
) -> Action:
    """An action from what a programmer wrote; `flags` and `envelopes` may be comma-separated.

    Raises ConfigError when a part cannot be announced: all implementations must be able to read it.
    """
    if not _SPELLING.fullmatch(spelling) or len(spelling) > MAX_NAME:
        raise ConfigError(f"{spelling!r} is not an action's name, such as 'Product.Sku.fetch'")
    if type(version) is not int or not 1 <= version < 2**31:  # a bool is none either
        raise ConfigError(f"{spelling}: version {version!r} is not a whole number from 1")
    cleaned, offered = words(flags), words(envelopes)
    for word in (*cleaned, *offered, sector):
        if not _WORD.fullmatch(word):
            raise ConfigError(f"{spelling}: {word!r} cannot be a flag, an envelope or a sector")
    if not offered:
        raise ConfigError(f"{spelling}: without an envelope nobody can call it")
    namespace, _, name = spelling.rpartition(".")
    return Action(sector, namespace, name, version, cleaned, offered)
