"""What a ticket costs: none, the same each time, ten in turn, and one that was not seen before.

With ten in turn no request has the head of the one before it on its connection, of which the
gateway makes use; the tickets themselves are known.
"""

from __future__ import annotations

from itertools import chain

from benchmarks.figures import Figure, Options
from benchmarks.sides import cpu, how, measured, rates, times
from benchmarks.stand import BODY, stand
from scamp.limits import TICKET_CACHE


def measure(options: Options) -> Figure:
    """Ratios are to the bare echo, as everywhere, and the rows say what is sent to the gateway."""
    with stand(options) as here:
        behind = here.mesh()
        front = here.gateway(behind)
        tickets = tuple(behind.tickets(options.tickets))
        sides = [
            here.side("no ticket", front, action="Bench.open", headers=()),
            here.side("same ticket", front),
            here.side("ten in turn", front, headers=(), tickets=tickets[:10]),
            here.side("another ticket each time", front, headers=(), tickets=tickets),
            here.side("web.Application", here.bare()),
        ]
        measured(sides, options.pairs, options.seconds)
        *ours, beside = cpu(sides)
        return Figure(
            "ticket",
            f"CPU per request, JSON echo of {len(BODY)} bytes, without and with a ticket, "
            + how(sides[0], options.clients, options.pairs, options.seconds),
            [*ours, beside, *chain(*(times(one, beside) for one in ours)), *rates(sides)],
            [_forgotten(options.tickets)],
        )


def _forgotten(count: int) -> str:
    if count <= TICKET_CACHE:
        return f"{count:,} tickets are fewer than are remembered: they were checked once each."
    return (
        f"Another ticket each time: {count:,} of them in turn. The gateway remembers "
        f"{TICKET_CACHE:,}, the last used, and so checks the signature of every one."
    )
