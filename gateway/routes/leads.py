"""What a route makes of the action that it leads to. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gateway.actions import Announced, resolve
from gateway.routes.model import Route, RouteTable
from scamp.discovery import Registry


def as_routed(action: Announced, route: Route) -> Announced:
    """The action as the route has it."""
    noauth = action.noauth if route.ticket is None else not route.ticket
    return replace(
        action,
        timeout=route.timeout or action.timeout,
        noauth=noauth,
        privileges=not (route.ticket and action.noauth),
    )


def why_nowhere(route: Route, action: Announced | None) -> str:
    """Why a route cannot be called though it stands in the file; empty when it can."""
    if action is None:
        return f"no service announces {route.target}"
    if "GET" in route.methods and not action.runs("GET"):
        return f"GET needs an action flagged read, and {action.label} is not"
    return ""


def lost(
    registry: Registry, table: RouteTable, default_timeout: float
) -> Iterator[tuple[Route, str]]:
    """Routes that lead nowhere, and why. Those of resources may lack what is not named."""
    for route in table.routes:
        action = resolve(registry, route.target, default_timeout)
        reason = why_nowhere(route, action)
        if reason and (action is not None or route.expected):
            yield route, reason
