"""``docs/configuration.md``, made from the settings themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.settings import ENV_PREFIX, Settings
from gateway.sources import flag_of

_GROUPS: Final = {
    "bind": "Listeners",
    "scamp_conf": "The mesh",
    "max_in_flight_per_action": "Overload and balancing",
    "tcp_keepalive_idle": "Dead peers and broken replies",
    "auth_mode": "Tickets and privileges",
    "request_timeout": "Requests",
    "max_connections": "Clients",
    "ticket_cookie": "Browsers",
    "rate_limit_user": "Rate limits",
    "events_open": "Live events",
    "openapi": "Descriptions",
    "tracing": "Traces",
    "workers": "The process",
    "log_level": "Logs",
    "drain_delay": "Stopping",
}
"""Heading by the first field below it."""

_INTRODUCTION: Final = f"""\
# Configuration

<!-- Made by `scamp-gateway config --reference` from gateway/settings.py. Do not edit. -->

Each setting can come from four places; the first that has it counts:

1. a flag of `scamp-gateway run`, such as `--admin-bind`,
2. an environment variable, `{ENV_PREFIX}` and the name in capitals: `{ENV_PREFIX}ADMIN_BIND`.
   Lists are separated by commas; an empty variable counts as not set,
3. the TOML file that `--config` or `{ENV_PREFIX}CONFIG` names: `admin_bind = "127.0.0.1:9090"`.
   Lists are TOML arrays. `discovery.source = "cache"`, or `source` in a table `[discovery]`, is
   `discovery_source` too,
4. the default.

Between file and default stands the mesh's own `scamp.conf`, where there is one: its
`discovery.cache_path`, `discovery.cache_max_age`, `discovery.multicast_address`, `discovery.port`,
`discovery.address` (else `bus.address`), `bus.authorized_services`, `rpc.timeout` and
`beepish.client_timeout` serve for what none of the others set. With `--discovery-cache` given, no
`scamp.conf` is needed.

A name that does not exist is an error, in the file and in the environment. (Variables that
Kubernetes makes for a Service called `scamp-gateway` are let be.) Relative paths start at the
working directory. `scamp-gateway config` shows what is in force and where it came from;
`scamp-gateway check` tries it, without starting anything. Secrets have a twin ending in `_file`
that names a file to read them from.

Files are followed while the gateway runs: the discovery cache, `authorized_services`, ticket keys,
the privilege table, the routes file, the TLS files. One that cannot be used leaves the last good
one in force; that is logged with the reason and counted. `SIGHUP` looks at all of them at once and
opens the access log anew. Settings themselves are read at the start only.

Limits are those of one process; with several workers those marked "for all workers together" are
divided among them ([operations](operations.md#several-workers)).
"""

_SHARED: Final = " For all workers together."


def configuration_reference() -> str:
    """The whole page, Markdown, ending in a newline."""
    return _INTRODUCTION + "".join(_sections()) + _CLOSING


def headings() -> Mapping[str, str]:
    """The heading of each setting."""
    found, heading = {}, ""
    for name in Settings.model_fields:
        heading = found[name] = _GROUPS.get(name, heading)
    return found


def write_reference(path: Path) -> None:
    """Put the page where it is kept."""
    path.write_text(configuration_reference(), encoding="utf-8")


def _sections() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name in _GROUPS:
            yield f"\n## {_GROUPS[name]}\n\n| setting | flag | default | unit | meaning |\n"
            yield "|---|---|---|---|---|\n"
        extra: dict[str, Any] = (
            field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        )
        flag = flag_of(name)
        repeat = isinstance(field.default, tuple)
        shown = f"`--{flag}`{' (repeat)' if repeat else ''}" if flag else ""
        if field.annotation is bool:
            shown = f"`--{flag}`, `--no-{flag}`"
        unit = str(extra.get("unit", "")).replace("|", "\\|")
        yield (
            f"| `{name}` | {shown} | {_default(field.default, str(extra.get('unset', '')))} "
            f"| {unit} | {field.description}{_SHARED if extra.get('shared') else ''} |\n"
        )


def _default(value: object, unset: str) -> str:
    if value is None:
        return unset
    if value is True or value is False:
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value) or "none"
    if isinstance(value, dict):
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


_CLOSING: Final = """
`error_status`, `media_types` and `log_levels` are tables; in the environment they are JSON, and
`log_levels` may be `gateway.auth=debug,scamp.client=error` there. A table counts as a whole: that
of the environment takes the place of the file's.

```toml
bind = ":8080"
ticket_keys = ["/etc/scamp/auth/ticket_verify_public_key.pem"]

[error_status]
out_of_stock = 409

[media_types]
"text/csv" = "csv"

[log_levels]
"gateway.auth" = "debug"
```
"""
