"""``scamp watch``: announcements and what they do to the index, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import click

from scamp import limits
from scamp.cli.common import FILE, one_line
from scamp.cli.completion import complete_sector
from scamp.cli.eventlines import as_json, as_text, gap
from scamp.cli.events import ANNOUNCEMENT, INDEX, Event, Watcher
from scamp.cli.filters import Chosen
from scamp.cli.index import load_authorized
from scamp.cli.lines import Lines
from scamp.cli.network import config_option, find_conf, find_group, group_options
from scamp.discovery import (
    AuthorizedServices,
    CacheFollower,
    Change,
    DiscoverySource,
    Observer,
    Registry,
)
from scamp.discovery.listening import Rejection, Round

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_LOOKS: Final = 0.25
"""Seconds between looks at a cache file."""

_STATUS: Final = 1.0
"""Seconds between looks at how the source is doing."""

_ONLY: Final = {"announcements": ANNOUNCEMENT, "index": INDEX}


@click.command("watch")
@config_option
@click.option(
    "--cache",
    type=FILE,
    help="Follow this discovery cache file, in place of multicast.",
)
@group_options
@click.option(
    "--authorized-services",
    type=FILE,
    help="Who may offer what. What it does not permit is marked in announcements and is not in the "
    "index. [default: bus.authorized_services of the configuration]",
)
@click.option(
    "--sector",
    shell_complete=complete_sector,
    help="Only services and actions of this sector; nothing that is refused.",
)
@click.option("--name", metavar="GLOB", help="Only services whose name fits, such as 'shop*'.")
@click.option(
    "--action",
    metavar="GLOB",
    help="Only services with actions that fit, such as 'Product.*', and of those only these "
    "actions; nothing that is refused.",
)
@click.option("--only", type=click.Choice(tuple(_ONLY)), help="Only one of both.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also announcements that say nothing new: renewed, repeated, away (leaving, and known to "
    "have left), and every one that is refused again.",
)
@click.option("--json", "as_objects", is_flag=True, help="Print a JSON object in each line.")
@click.option(
    "--once",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Watch for so long, and end.",
)
def watch(
    config: Path | None,
    cache: Path | None,
    group: str | None,
    port: int | None,
    interfaces: tuple[str, ...],
    authorized_services: Path | None,
    sector: str | None,
    name: str | None,
    action: str | None,
    only: str | None,
    everything: bool,
    as_objects: bool,
    once: float | None,
) -> None:
    """Show announcements and changes of the index as they happen.

    Listens to multicast, or follows a discovery cache file with --cache, and prints a line for each
    event, with the time in UTC. What is there at the beginning is told as new.

    \b
    Announcements, which only multicast has, but for records of a file that are refused:
      new       by a service that was not known
      changed   it says something else than before; the line says what
      left      it takes itself back
      expired   nothing was heard of it for 2.1 of its intervals
      refused   and why; the same again is told once in a minute
      lost      so many packets were not looked at, because too many came

    \b
    The index, which is what clients and gateways find:
      came      a service is there, with so many actions
      changed   address, weight, sector, interval or envelopes differ, or actions were added,
                removed or altered (flags, envelopes)
      went      it is gone; of its actions are told those that nobody offers now

    Lists of actions are cut short, but not with --json. There each line is an object with "time",
    "about" ("announcement" or "index"), "event" (the words above) and "identity"; of services also
    "name", "fingerprint", "sector", "uri", "weight", "interval", "envelopes", "timestamp" and
    "actions" (how many). Where there are any, "changes" has [before, now] of each field, and
    "added", "removed", "altered", "unoffered" and "not_permitted" have actions; "reason" and
    "detail" tell why something is refused, and "count" how much was lost. "about" is "output" where
    lines were lost because they were not read fast enough.

    Stays until it is told to stop by Ctrl-C or SIGTERM. That nothing is heard, or that the file
    cannot be read or its writer has died, is told on stderr.

    \b
    Examples:
      scamp watch
      scamp watch --interface if:lo --name 'shop*' --all
      scamp watch --cache trial.cache --only index --once 60
      scamp watch --json --action 'Product.*'
    """
    if cache is not None and (group is not None or port is not None or interfaces):
        raise click.UsageError("--cache goes without --group, --port and --interface")
    conf = find_conf(config)
    authorized = authorized_services or conf.authorized_services
    if authorized is not None:
        load_authorized(authorized)  # or nothing would ever be in the index, and not a word why
    registry = Registry()
    watcher = Watcher(registry, Chosen(sector, name, action), repeats=everything)
    show = _Show(watcher, None if only is None else _ONLY[only], as_objects=as_objects)
    registry.subscribe(show.take_change)
    source: DiscoverySource
    if cache is not None:
        said = f"following {cache}"
        source = follower = CacheFollower(
            cache,
            registry,
            authorized_path=authorized,
            max_age=conf.discovery_cache_max_age,
            poll_interval=_LOOKS,
            on_load=lambda _: show.take_refused(follower.status.rejected_records),
        )
    else:
        where = find_group(conf, group, port, interfaces)
        said = f"listening to {where}"
        source = observer = Observer(
            where,
            registry,
            authorized_path=authorized,
            max_age=conf.discovery_cache_max_age,
            on_round=lambda heard: show.take_round(heard, observer.authorized),
        )
    with contextlib.suppress(KeyboardInterrupt):  # before the loop takes signals, or after
        asyncio.run(_run(source, show, once, said))


async def _run(source: DiscoverySource, show: _Show, once: float | None, said: str) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    lines = show.open(over.set)

    def end() -> None:
        lines.close()
        over.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, end)
    status: asyncio.Task[None] | None = None
    try:
        await source.start()
        click.echo(said, err=True)
        status = asyncio.create_task(_tell_status(source))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(once):
                await over.wait()
        await source.stop()
        await lines.drain()  # which a signal cuts short
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        if status is not None:
            status.cancel()
            await asyncio.wait((status,))
        await source.stop()
        lines.close()
    if lines.error is not None:
        raise lines.error


async def _tell_status(source: DiscoverySource) -> None:
    """Say on stderr what is wrong with the source, when it changes."""
    told: str | None = None
    while True:
        status = source.status
        problem = status.last_error
        if problem is None and status.stale:
            problem = "nothing was heard or written for long: it may be us, or the writer has died"
        if problem != told:
            click.echo(f"note: {one_line(problem or 'all is well again')}", err=True)
            told = problem
        await asyncio.sleep(_STATUS)


class _Show:
    """Prints events as they come from the source."""

    def __init__(self, watcher: Watcher, only: str | None, *, as_objects: bool) -> None:
        self._watcher = watcher
        self._only = only
        self._as_objects = as_objects
        self._lines: Lines | None = None

    def open(self, on_error: Callable[[], None]) -> Lines:
        """Begin to print; from within the loop."""
        self._lines = Lines(sys.stdout, limits.MAX_WATCHED_OUTPUT, self._gap, on_error)
        return self._lines

    def take_round(self, heard: Round, authorized: AuthorizedServices | None) -> None:
        """Announcements."""
        self._print(self._watcher.heard(heard, authorized, time.monotonic()))

    def take_refused(self, records: Iterable[Rejection]) -> None:
        """What is refused of a file."""
        self._print(self._watcher.refused_records(records))

    def take_change(self, change: Change) -> None:
        """A change of the index."""
        self._print(self._watcher.changed(change))

    def _print(self, events: Iterable[Event]) -> None:
        form = as_json if self._as_objects else as_text
        for event in events:
            if self._lines is not None and self._only in (None, event.about):
                self._lines.write(form(event, time.time()))

    def _gap(self, count: int) -> str:
        return gap(count, time.time(), as_object=self._as_objects)
