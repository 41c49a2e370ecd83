"""The ``scamp-gateway`` command."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from gateway import logs, sources
from gateway.commands.options import Refused, SettingsCommand, load, settings_options
from gateway.commands.tables import plural
from gateway.reference import configuration_reference
from gateway.sources import Loaded
from gateway.workers.shares import require_gunicorn
from scamp.cli.lazy import Later, LazyGroup
from scamp.errors import ConfigError

SIGNAL_HELP: Final = """\
\b
Signals:
  SIGTERM  drain and stop; a second one: stop now
  SIGINT   the same without the drain delay
  SIGHUP   look at all followed files at once, open the access log anew

\b
Exit codes:
  0  stopped as told
  2  wrong usage, bad settings, or something that it cannot start without
"""

CHECK_HELP: Final = """\
\b
Exit codes:
  0  a gateway would serve with it
  1  it would not, or not as meant: see the lines that begin with FAIL
  2  wrong usage
"""


PORT: Final = click.IntRange(0, 65535)


@click.group(
    "scamp-gateway",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="scamp-gateway", prog_name="scamp-gateway")
def main() -> None:
    """HTTP in front of a mesh of SCAMP services."""


@main.command(cls=SettingsCommand, epilog=SIGNAL_HELP)
@settings_options
def run(config: Path | None, **flags: Any) -> None:
    """Serve until told to stop. One line on stdout says when, and where."""
    loaded = load(config, flags)
    settings = loaded.settings
    try:
        settings.require_complete()
    except ConfigError as exc:
        raise Refused(str(exc)) from exc
    logs.configure(settings.log_level, settings.log_format, levels=settings.log_levels)
    serve = _serve_alone if settings.workers == 1 else _serve_with_workers
    try:
        code = serve(loaded)
    except (ConfigError, OSError) as exc:
        raise Refused(f"{exc}{_hint(exc)}") from exc
    sys.exit(code)


def _hint(exc: BaseException | None) -> str:
    while exc is not None and not isinstance(exc, OSError):
        exc = exc.__cause__
    if exc is None or exc.errno != errno.EADDRINUSE:
        return ""
    return "; `ss -ltnp` tells who has it, and from a gateway takeover_socket takes it over"


def _serve_alone(loaded: Loaded) -> int:
    from gateway.lifecycle import run  # the commands that only look do without
    from gateway.takeover import acquire

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(run(loaded, ready=_announce, acquired=acquire(loaded.settings)))


def _serve_with_workers(loaded: Loaded) -> int:
    require_gunicorn()  # before anything is taken from another process
    from gateway.workers.master import run_workers

    return run_workers(loaded, ready=_announce, loop_factory=_loop_factory())


def _announce(public: str, admin: str) -> None:
    click.echo(f"scamp-gateway ready: {public} admin {admin}")
    sys.stdout.flush()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@main.command(cls=SettingsCommand, epilog=CHECK_HELP)
@settings_options
def check(config: Path | None, **flags: Any) -> None:
    """Try the whole configuration offline.

    Nothing is started, bound or connected to.
    """
    from gateway.checks import examine

    try:
        loaded = sources.load(flags, config=config)
    except ConfigError as exc:
        for line in str(exc).splitlines():
            click.echo(f"FAIL  settings: {line}")
        sys.exit(1)
    findings = examine(loaded)
    for finding in findings:
        click.echo(str(finding))
    bad = sum(finding.level == "FAIL" for finding in findings)
    odd = sum(finding.level == "warn" for finding in findings)
    fine = f"no problems, {plural(odd, 'warning')}" if odd else "all good"
    click.echo(plural(bad, "problem") if bad else fine)
    sys.exit(1 if bad else 0)


@main.command("config", cls=SettingsCommand)
@click.option("--reference", is_flag=True, help="Print the page docs/configuration.md instead.")
@settings_options
def show_config(reference: bool, config: Path | None, **flags: Any) -> None:
    """Show every setting in force, and where it came from. Secrets are left out."""
    if reference:
        click.echo(configuration_reference(), nl=False)
        return
    loaded = load(config, flags)
    shown = loaded.settings.model_dump(mode="json")
    width = max(map(len, shown))
    for name, value in shown.items():
        click.echo(f"{name:<{width}}  {value!s}  ({loaded.origins.get(name, 'default')})")


@main.command()
@click.option(
    "--port", type=PORT, default=8080, show_default=True, help="Public port; 0: any free one."
)
@click.option(
    "--admin-port", type=PORT, default=9090, show_default=True, help="Admin port; 0: any free one."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address of both; 0.0.0.0 in a container.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where keys, tickets and data go. Default: a new directory, removed at the end.",
)
@click.option("--quiet-services", is_flag=True, help="Do not show what the services log.")
@click.option(
    "--tracing-endpoint", metavar="URL", help="Send traces there, to a collector or to Jaeger."
)
@click.option(
    "--mesh",
    metavar="HOST",
    help="Services only, on every interface, for a gateway that finds them at HOST.",
)
def demo(
    port: int,
    admin_port: int,
    host: str,
    folder: Path | None,
    quiet_services: bool,
    tracing_endpoint: str | None,
    mesh: str | None,
) -> None:
    """Bring up a small mesh with a gateway in front.

    The services are real ones, as processes of their own. Prints what to try on them. Ctrl-C
    ends all of it.
    """
    from gateway.demo.supervisor import run_demo

    logs.configure("warning", "text")
    with asyncio.Runner() as runner:
        demo_run = run_demo(
            host=host,
            port=port,
            admin_port=admin_port,
            folder=folder,
            quiet=quiet_services,
            tracing=tracing_endpoint,
            mesh=mesh,
        )
        try:
            code = runner.run(demo_run)
        except ConfigError as exc:
            raise Refused(str(exc)) from exc
    sys.exit(code)


main.add_command(
    Later("openapi", "Write the OpenAPI document, offline.", "gateway.commands.openapi:openapi")
)
main.add_command(
    Later("routes", "Show every URL and where it leads.", "gateway.commands.routes:routes")
)
main.add_command(
    Later("metrics", "Show every metric that there can be.", "gateway.commands.metrics:metrics")
)
main.add_command(
    Later("audit", "Find what is open, wrong or weak, offline.", "gateway.commands.audit:audit")
)


if __name__ == "__main__":
    main()
