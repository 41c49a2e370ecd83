"""What to announce, as a file in TOML or JSON or as options say it."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scamp import limits
from scamp.cli.address import parse_address, show_address
from scamp.cli.common import read_file
from scamp.discovery import Action, AnnouncementSpec, new_identity
from scamp.errors import ConfigError
from scamp.server.actions import make_action

MAX_SPEC_FILE: Final = limits.MIB
"""A specification larger than this is not read; real services have some hundred actions."""

_SHORT: Final = re.compile(
    r"(?:(?P<sector>[^:~=]+):)?(?P<name>[^:~=]+)(?:~(?P<version>[0-9]{1,9}))?(?:=(?P<flags>[^=]*))?"
)
_KEYS: Final = (
    "name",
    "identity",
    "sector",
    "address",
    "envelopes",
    "weight",
    "interval",
    "actions",
)
_ACTION_KEYS: Final = ("name", "version", "flags", "sector", "envelopes")


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service as a user describes it. What is None was not said."""

    name: str | None = None
    identity: str | None = None
    sector: str | None = None
    address: str | None = None
    envelopes: tuple[str, ...] = ()
    weight: int | float | None = None
    interval: float | None = None
    actions: tuple[Mapping[str, Any], ...] = ()

    def announced(self) -> AnnouncementSpec:
        """The whole, with defaults for what was not said.

        Raises `ConfigError` for what cannot be announced: no address, no action, a bad name.
        """
        if self.address is None:
            raise ConfigError("where is the service? Give its address, HOST:PORT")
        if not self.actions and self.weight != 0:
            raise ConfigError("a service without actions is of no use: name at least one")
        try:
            uri = f"beepish+tls://{show_address(*parse_address(self.address))}"
        except ValueError as exc:
            raise ConfigError(f"address: {exc}") from exc
        sector = self.sector or "main"
        envelopes = self.envelopes or ("json",)
        return AnnouncementSpec(
            identity=self.identity or new_identity(self.name or "service"),
            sector=sector,
            weight=1 if self.weight is None else self.weight,
            interval=5.0 if self.interval is None else self.interval,
            uri=uri,
            envelopes=envelopes,
            actions=tuple(_action(entry, sector, envelopes) for entry in self.actions),
        )


def parse_action_text(text: str) -> dict[str, Any]:
    """``[SECTOR:]Namespace.name[~VERSION][=FLAG,FLAG]``. Raises ValueError."""
    match = _SHORT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not an action: expected [SECTOR:]Namespace.name[~VERSION][=FLAG,FLAG]"
        )
    entry: dict[str, Any] = {"name": match["name"]}
    if match["sector"]:
        entry["sector"] = match["sector"]
    if match["version"]:
        entry["version"] = int(match["version"])
    if match["flags"]:
        entry["flags"] = match["flags"]
    return entry


def read_spec(path: Path) -> ServiceSpec:
    """Read a specification: JSON when it begins with ``{``, else TOML.

    Raises `ConfigError`, naming the file, when it cannot be read or says what makes no sense.
    """
    content = read_file(path, MAX_SPEC_FILE)
    try:
        text = content.decode("utf-8")
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        return _spec(found)
    except (ValueError, ConfigError, RecursionError) as exc:  # json, tomllib and unicode too
        raise ConfigError(f"{path}: {exc}") from exc


def _spec(found: Mapping[str, Any]) -> ServiceSpec:
    _known(found, _KEYS, "a service")
    actions = found.get("actions", [])
    if not isinstance(actions, list):
        raise ConfigError("actions is not a list")
    return ServiceSpec(
        name=_text(found, "name"),
        identity=_text(found, "identity"),
        sector=_text(found, "sector"),
        address=_text(found, "address"),
        envelopes=_words(found, "envelopes"),
        weight=_number(found, "weight"),
        interval=_number(found, "interval"),
        actions=tuple(_entry(one) for one in actions),
    )


def _entry(one: object) -> Mapping[str, Any]:
    if isinstance(one, str):
        return parse_action_text(one)
    if not isinstance(one, dict):
        raise ConfigError(f"actions holds {one!r}, which is neither a text nor a table")
    _known(one, _ACTION_KEYS, "an action")
    if _text(one, "name") is None:
        raise ValueError("an action has no name")
    _text(one, "sector")
    _words(one, "envelopes")
    version = one.get("version", 1)
    if isinstance(version, bool) or not isinstance(version, int):
        raise ConfigError(f"version {version!r} is not a whole number")
    if not isinstance(one.get("flags", ""), str):
        _words(one, "flags")
    return one


def _action(entry: Mapping[str, Any], sector: str, envelopes: Iterable[str]) -> Action:
    return make_action(
        entry.get("sector") or sector,
        entry["name"],
        entry.get("version", 1),
        entry.get("flags", ""),
        entry.get("envelopes") or envelopes,
    )


def _known(found: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    for key in found:
        if key not in keys:
            raise ValueError(f"{key!r} is nothing that {what} has; there are {', '.join(keys)}")


def _text(found: Mapping[str, Any], key: str) -> str | None:
    value = found.get(key)
    if value is None or (isinstance(value, str) and value):
        return value
    raise ValueError(f"{key} is {value!r}, not a text")


def _words(found: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = found.get(key, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{key} is {value!r}, not a list of texts")
    return tuple(value)


def _number(found: Mapping[str, Any], key: str) -> int | float | None:
    value = found.get(key)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise ValueError(f"{key} is {value!r}, not a number")
