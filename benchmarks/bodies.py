"""CPU for bodies of 1 KiB to 1 MiB, which go up and come back."""

from __future__ import annotations

from typing import Final

from benchmarks.figures import Figure, Options, Series
from benchmarks.processes import Serving
from benchmarks.sides import Side, cpu, how, measured, times
from benchmarks.stand import WITHOUT_NGINX, stand
from scamp.limits import KIB, MIB

SIZES: Final = {
    "1 KiB": KIB,
    "16 KiB": 16 * KIB,
    "64 KiB": 64 * KIB,
    "256 KiB": 256 * KIB,
    "1 MiB": MIB,
}
ROUNDS: Final = 3
"""At most, and half as long as a run is elsewhere: there are many sizes."""

CLIENTS: Final = 16
"""At most: bodies of so many are enough to keep everyone busy."""


def measure(options: Options) -> Figure:
    """Each size by itself, one after the other."""
    clients, seconds = min(CLIENTS, options.clients), options.seconds / 2
    rounds = min(ROUNDS, options.pairs)
    series: list[Series] = []
    with stand(options) as here:
        behind = here.mesh()
        servers: dict[str, Serving] = {
            "scamp-gateway": here.gateway(behind),
            "web.Application": here.bare(),
        }
        if (proxy := here.nginx()) is not None:
            servers["nginx"] = proxy
        for label, size in SIZES.items():
            body = b'{"text":"%b"}' % (b"x" * (size - len(b'{"text":""}')))
            sides = [
                here.side(name, server, body=body, clients=clients)
                for name, server in servers.items()
            ]
            measured(sides, rounds, seconds)
            used = cpu(sides, f"{label}: ")
            series += [*used, *times(*used, case=f"{label}: ")]
            if size >= MIB / 4:
                series += [_for_a_mebibyte(label, size, side) for side in sides]
        return Figure(
            "bodies",
            "CPU per request, JSON echo of 1 KiB to 1 MiB, for each size "
            + how(sides[0], clients, rounds, seconds),
            series,
            [] if proxy is not None else [WITHOUT_NGINX],
        )


def _for_a_mebibyte(label: str, size: int, side: Side) -> Series:
    """One that went up and came back."""
    return side.series(
        f"{label}: CPU per MiB",
        "ms",
        lambda one: one.cpu / (one.requests * size / MIB) * 1000,
        digits=2,
    )
