"""CPU per small request: the gateway with everything on, beside bare aiohttp echoes and nginx."""

from __future__ import annotations

from benchmarks.figures import Figure, Options
from benchmarks.sides import cpu, how, measured, parts, times
from benchmarks.stand import BODY, WITHOUT_NGINX, stand


def measure(options: Options) -> Figure:
    """The ratio that counts is the one to ``web.Application``."""
    with stand(options) as here:
        behind = here.given_mesh()
        front = here.gateway(behind)
        sides = [
            here.side("scamp-gateway", front, action=options.action, behind=behind.services),
            here.side("web.Application", here.bare()),
            here.side("web.Server", here.bare("server")),
        ]
        if (proxy := here.nginx()) is not None:
            sides.append(here.side("nginx", proxy, behind=proxy.behind))
        measured(sides, options.pairs, options.seconds)
        used = cpu(sides)
        return Figure(
            "small",
            f"CPU per request, JSON echo of {len(BODY)} bytes, "
            + how(sides[0], options.clients, options.pairs, options.seconds),
            [*used, *times(*used), *parts(sides)],
            [] if proxy is not None else [WITHOUT_NGINX],
        )
