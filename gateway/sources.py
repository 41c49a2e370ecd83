"""Where settings come from: flags over environment over TOML file over scamp.conf over defaults.

Each source is asked by itself and the origin of every value is kept, so that a value that is no
good is reported with the flag, the variable, or the file and line where it stands.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from gateway.settings import ENV_PREFIX, Settings
from scamp.config import ScampConf
from scamp.errors import ConfigError

CONFIG_VARIABLE: Final = f"{ENV_PREFIX}CONFIG"
"""Names the TOML file, as ``--config`` does."""

MAX_FILE: Final = 1 << 20
"""A configuration file larger than this is not read."""

MAX_SECRET: Final = 4096
"""A passphrase file larger than this is not read."""

# Kubernetes sets variables for every Service: one called scamp-gateway makes SCAMP_GATEWAY_PORT
# and more in each container of the namespace. They are not ours.
_KUBERNETES: Final = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT: Final = re.compile(r"(tcp|udp|sctp)://")
_TABLES: Final = ("error_status", "log_levels")
_FIELD: Final = re.compile(r'field "(\w+)"')
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each came from: `origins` by field; a default has no entry."""

    settings: Settings
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def configuration(loaded: Loaded) -> dict[str, Any]:
    """Every setting with value and origin, as JSON has it; secrets left out."""
    shown = loaded.settings.model_dump(mode="json")
    return {
        name: {"value": value, "origin": loaded.origins.get(name, "default")}
        for name, value in shown.items()
    }


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Put all sources together.

    `flags` holds values by field name; None means not given. `config` is the TOML file, by
    default the one that ``SCAMP_GATEWAY_CONFIG`` names. `environ` is where scamp.conf's own
    variables are looked up; settings are read from the process's environment. Raises
    `ConfigError`, one problem per line, each with its place.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []

    def add(name: str, value: Any, origin: str) -> None:
        if name not in values:
            values[name], origins[name] = value, origin

    for name, value in (flags or {}).items():
        if value is not None and value != ():
            add(name, value, f"--{flag_of(name)}")
    for name, value in _environment(problems).items():
        add(name, value, f"{ENV_PREFIX}{name.upper()}")
    if config is None and os.environ.get(CONFIG_VARIABLE):
        config = Path(os.environ[CONFIG_VARIABLE])
    if config is not None:
        for name, (value, line) in _toml(config, problems).items():
            add(name, value, f"{config}:{line}" if line else str(config))
    warnings: list[str] = []
    conf = _scamp_conf(values, environ, warnings)
    if conf is not None:
        for name, (value, origin) in _from_scamp_conf(conf).items():
            add(name, value, origin)
        warnings.extend(conf.warnings)
    _read_secrets(values, origins)
    return Loaded(_checked(values, origins, problems), origins, tuple(warnings))


def _checked(
    values: Mapping[str, Any], origins: Mapping[str, str], problems: Sequence[str]
) -> Settings:
    """Raises `ConfigError` with `problems` and with what is wrong with values."""
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        raise ConfigError("\n".join([*problems, *_explain(exc, origins)])) from exc
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def flag_of(name: str) -> str:
    """The flag of a field without its dashes; empty when it has none."""
    extra = Settings.model_fields[name].json_schema_extra
    flag = extra.get("flag") if isinstance(extra, dict) else None
    return name.replace("_", "-") if flag is None else str(flag)


def suggest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` when something like `name` is known, else nothing."""
    close = difflib.get_close_matches(name.replace("-", "_").lower(), list(known), 1, 0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


# -- environment ------------------------------------------------------------------------


def _environment(problems: list[str]) -> dict[str, Any]:
    """What is set there. Names that mean nothing go to `problems`."""
    for variable, value in os.environ.items():
        if not variable.upper().startswith(ENV_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = variable[len(ENV_PREFIX) :].lower()
        if name not in Settings.model_fields and not _by_kubernetes(name.upper(), value):
            known = [f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields]
            close = difflib.get_close_matches(variable.upper(), known, 1, 0.7)
            hint = f" (did you mean {close[0]}?)" if close else ""
            problems.append(f"{variable}: there is no such setting{hint}")
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as exc:
        field = _FIELD.search(str(exc))
        variable = f"{ENV_PREFIX}{field[1].upper() if field else '*'}"
        raise ConfigError(
            f'{variable}: not JSON; a table is written as JSON there, {{"name": value}}'
        ) from exc


def _by_kubernetes(name: str, value: str) -> bool:
    if _KUBERNETES.fullmatch(name):
        return True
    return name.rpartition("_")[2] == "PORT" and _KUBERNETES_PORT.match(value) is not None


# -- TOML -------------------------------------------------------------------------------


def _toml(path: Path, problems: list[str]) -> dict[str, tuple[Any, int]]:
    """What is set there, with the line. Keys that mean nothing go to `problems`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ConfigError(f"{path}: larger than {MAX_FILE} bytes")
        text = content.decode()
        parsed = tomllib.loads(text)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8, at byte {exc.start}") from exc
    except tomllib.TOMLDecodeError as exc:
        place = _TOML_PLACE.search(str(exc))
        line = place[1] if place and place[1] else len(text.splitlines())
        raise ConfigError(f"{path}:{line}: {_TOML_PLACE.sub('', str(exc))}") from exc
    except ValueError as exc:  # Python does not read numbers of thousands of digits
        raise ConfigError(f"{path}: a number has too many digits") from exc
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    values: dict[str, tuple[Any, int]] = {}
    for key, name, value in _named(parsed):
        line = _line_of(text, key.partition(".")[0])
        if name not in Settings.model_fields:
            hint = suggest(name, Settings.model_fields)
            problems.append(f"{path}:{line}: there is no setting {key!r}{hint}")
        elif name in values:
            problems.append(f"{path}:{line}: {name!r} is set twice")
        else:
            values[name] = (value, line)
    return values


def _named(parsed: Mapping[str, Any]) -> Iterable[tuple[str, str, Any]]:
    """Each key as it is written, the setting that it means, and its value: ``discovery.source``, or
    ``source`` in a table ``[discovery]``, means ``discovery_source``."""
    for key, value in parsed.items():
        if isinstance(value, dict) and value and key not in Settings.model_fields:
            for inner, one in value.items():
                yield f"{key}.{inner}", f"{key}_{inner}", one
        else:
            yield key, key, value


def _line_of(text: str, key: str) -> int:
    """Where a top-level key or table stands, from 1; 0 when that cannot be told."""
    name = rf"[\"']?{re.escape(key)}[\"']?"
    opening = re.compile(rf"\s*(?:{name}\s*[=.]|\[\[?\s*{name}\s*[\].])")
    return next((n for n, line in enumerate(text.split("\n"), 1) if opening.match(line)), 0)


# -- scamp.conf -------------------------------------------------------------------------


def _scamp_conf(
    values: Mapping[str, Any], environ: Mapping[str, str], warnings: list[str]
) -> ScampConf | None:
    given = values.get("scamp_conf")
    if given is not None:
        return ScampConf.load(given)
    found = ScampConf.find(environ)
    if found is None:
        return None
    try:
        return ScampConf.load(found)
    except ConfigError as exc:
        if "discovery_cache" not in values:
            raise
        warnings.append(f"{exc}; going on without, as a discovery cache is given")
        return None


def _from_scamp_conf(conf: ScampConf) -> dict[str, tuple[Any, str]]:
    interfaces = "discovery.address" if conf.get("discovery.address") else "bus.address"
    taken: dict[str, tuple[Any, str]] = {
        "discovery_cache": (conf.discovery_cache_path, f"{conf.path} (discovery.cache_path)")
    }
    for name, key, value in (
        ("discovery_max_age", "discovery.cache_max_age", conf.discovery_cache_max_age),
        ("multicast_address", "discovery.multicast_address", conf.multicast_group),
        ("multicast_port", "discovery.port", conf.multicast_port),
        ("multicast_interfaces", interfaces, conf.get(interfaces)),
        ("authorized_services", "bus.authorized_services", conf.authorized_services),
        ("request_timeout", "rpc.timeout", conf.rpc_timeout),
        ("upstream_idle_timeout", "beepish.client_timeout", conf.client_timeout),
    ):
        if conf.get(key) is not None:
            taken[name] = (value, f"{conf.path} ({key})")
    if conf.path is not None:
        taken["scamp_conf"] = (conf.path, "found")
    return taken


# -- secrets and errors -----------------------------------------------------------------


def _read_secrets(values: dict[str, Any], origins: dict[str, str]) -> None:
    for name in [name for name in values if f"{name}_file" in values]:
        both = f"{origins[name]} and {origins[f'{name}_file']}"
        raise ConfigError(f"{name} is set twice, by {both}; choose one")
    for name in [name for name in Settings.model_fields if f"{name}_file" in values]:
        path = Path(values[f"{name}_file"])
        try:
            with path.open("rb") as file:
                secret = file.read(MAX_SECRET + 1)
            if len(secret) > MAX_SECRET:
                raise ConfigError(f"{path}: larger than {MAX_SECRET} bytes")
            values[name] = secret.decode().rstrip("\r\n")
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not UTF-8") from None
        origins[name] = origins[f"{name}_file"]


def _explain(exc: ValidationError, origins: Mapping[str, str]) -> Iterable[str]:
    for error in exc.errors(include_url=False, include_context=False, include_input=True):
        message = error["msg"].removeprefix("Value error, ")
        if not error["loc"]:
            yield message
            continue
        name = str(error["loc"][0])
        inner = [str(part) for part in error["loc"][1:] if isinstance(part, str)]
        setting = ".".join([name, *inner[:1]]) if name in _TABLES else name
        secret = f"{name}_file" in Settings.model_fields
        shown = "" if secret else f" {error['input']!r}"[:100]
        yield f"{origins.get(name, 'default')}: {setting}{shown}: {message}"
