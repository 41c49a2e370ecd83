"""``scamp cache``: keep the discovery cache file as services announce themselves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from pathlib import Path
from typing import Final

import click

from scamp.cli.common import FILE, check_place, one_line
from scamp.cli.network import config_option, find_conf, find_group, group_options
from scamp.discovery import AuthorizedServices
from scamp.discovery.listening import Round
from scamp.discovery.live import Heard, Kind
from scamp.discovery.manager import RENEW_INTERVAL, CacheManager
from scamp.discovery.model import count_actions, permitted
from scamp.discovery.refusals import WINDOW, Refusals

log: logging.Logger = logging.getLogger("scamp.cache")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_SHOWN: Final = 5


@click.command("cache")
@config_option
@click.option(
    "--cache",
    type=FILE,
    help="File to write. [default: discovery.cache_path of the configuration, "
    "else /tmp/scamp_discovery_cache]",
)
@group_options
@click.option(
    "--authorized-services",
    type=FILE,
    help="Tell in the log which actions this file does not permit, and leave those whom it does "
    "not name a tenth of the room. The cache file is not filtered: its readers decide. "
    "[default: bus.authorized_services of the configuration]",
)
@click.option(
    "--renew-interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1, max=60),
    default=RENEW_INTERVAL,
    show_default=True,
    help="Pause between writings when nothing is new but the time of announcements.",
)
@click.option(
    "--once",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Listen for so long, and end.",
)
def cache(
    config: Path | None,
    cache: Path | None,
    group: str | None,
    port: int | None,
    interfaces: tuple[str, ...],
    authorized_services: Path | None,
    renew_interval: float,
    once: float | None,
) -> None:
    """Keep the discovery cache file as services announce themselves by multicast.

    One such process runs on each machine; clients there read the file. Services that are new,
    changed or leave get into it at once. What a file that is not too old holds is kept until its
    services have had time to announce themselves again.

    Stays until it is told to stop by Ctrl-C or SIGTERM, and leaves the file.

    \b
    Examples:
      scamp -v cache
      scamp cache --cache trial.cache --interface if:lo --once 10
    """
    conf = find_conf(config)
    path = cache or conf.discovery_cache_path
    check_place(path)
    where = find_group(conf, group, port, interfaces)
    teller = _Teller()
    manager = CacheManager(
        where,
        path,
        max_age=conf.discovery_cache_max_age,
        renew_interval=renew_interval,
        authorized_path=authorized_services or conf.authorized_services,
        on_round=lambda heard: teller.tell(heard, manager.authorized),
    )
    asyncio.run(_keep(manager, once, f"writing {path} from {where}"))


async def _keep(manager: CacheManager, once: float | None, said: str) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, told.set)
    try:
        await manager.start()
        click.echo(said, err=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(once):
                await told.wait()
        await manager.stop()
        log.info("stopped; the file holds %d services", manager.services)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        await manager.stop()


class _Teller:
    """Logs what a manager hears: services as they come, change and go, refusals now and then."""

    def __init__(self) -> None:
        self._refusals = Refusals()
        self._told = 0.0

    def tell(self, heard: Round, authorized: AuthorizedServices | None) -> None:
        """One round."""
        for one in heard.heard:
            if one.kind in (Kind.NEW, Kind.CHANGED):
                self._tell_service(one, authorized)
            elif one.kind is Kind.LEFT:
                log.info("%s has left", one.service.identity)
            elif one.kind is Kind.EXPIRED:
                log.warning("%s fell silent", one.service.identity)
        now = time.monotonic()
        for identity, reason, detail in heard.refused:
            log.debug("refused: %s: %s: %s", identity, reason, detail)
            self._refusals.add((identity, reason, detail), now)
        self._refusals.lost(heard.dropped, now)
        if (heard.refused or heard.dropped) and now - self._told > WINDOW:
            self._told = now
            counts = dict(self._refusals.counts(now))
            log.warning("refused: %s; among them %s", counts, self._refusals.shown(now)[:_SHOWN])

    def _tell_service(self, one: Heard, authorized: AuthorizedServices | None) -> None:
        service = one.service
        log.info(
            "%s %s: %s at %s:%d with %d actions",
            "new" if one.kind is Kind.NEW else "changed",
            service.identity,
            service.sector,
            service.host,
            service.port,
            count_actions(service),
        )
        if authorized is None:
            return
        allowed, left_out = permitted(service, authorized.permits)
        if not left_out:
            return
        names = {(action.sector, action.spelling) for action in service.actions}
        names -= {(action.sector, action.spelling) for action in allowed.actions}
        shown = ", ".join(one_line(f"{sector}:{name}") for sector, name in sorted(names)[:_SHOWN])
        log.warning(
            "%s (%s) is not authorized for %d of its actions: %s%s",
            service.identity,
            service.fingerprint,
            left_out,
            shown,
            " …" if len(names) > _SHOWN else "",
        )
