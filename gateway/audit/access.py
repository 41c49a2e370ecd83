"""Who may call what: without a ticket, without a privilege, or not at all."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

from gateway.actions import Announced
from gateway.audit import codes
from gateway.audit.model import Audited, Finding
from gateway.events.topic import PREFIX, Topic
from gateway.surface import Access, Entry

_MAX_GUESSES: Final = 200
"""Names that are compared with others for a likely spelling; it takes the product of both."""


def reached(audited: Audited) -> Iterator[Entry]:
    """One entry for each action that can be called, by its own name where it has one."""
    seen = set()
    for entry in (*audited.view.actions, *audited.view.routes):
        if entry.action is not None and not entry.problem and entry.action.label not in seen:
            seen.add(entry.action.label)
            yield entry


def is_builtin(action: Announced) -> bool:
    """Whether it is one that every service has, and may have."""
    return action.spelling.lower().startswith("_meta.")


def subject_of(entry: Entry) -> str:
    """``METHOD,METHOD /path``; HEAD goes with GET."""
    return f"{','.join(method for method in entry.methods if method != 'HEAD')} {entry.url}"


def open_actions(audited: Audited) -> Iterator[Finding]:
    """Actions that are ``noauth``, and routes that make them so."""
    open_by_name = set()
    for entry in (*audited.view.actions, *audited.view.routes):
        action, route = entry.action, entry.route
        if action is None or entry.problem:
            continue
        if action.noauth and (route is None or route.ticket is not True):
            if action.label not in open_by_name:
                open_by_name.add(action.label)
                code = codes.OPEN_READ if action.read else codes.OPEN_WRITE
                flags = ",".join(sorted(action.flags))
                yield Finding(
                    code, action.label, f"{subject_of(entry)} takes no ticket; flags: {flags}."
                )
        elif route is not None and route.ticket is False:
            code = codes.ROUTE_OPENS_READ if action.read else codes.ROUTE_OPENS_WRITE
            says = f"{route.origin}: {action.label} wants a ticket, and this route none."
            yield Finding(code, subject_of(entry), says)


def open_events(audited: Audited) -> Iterator[Finding]:
    """Services whose events take no ticket."""
    for name in dict.fromkeys(audited.settings.events_open):
        says = f"GET {PREFIX}{name} takes no ticket: events_open names it."
        yield Finding(codes.OPEN_EVENTS, name, says)


def mode(audited: Audited) -> Iterator[Finding]:
    """What the setting ``auth_mode`` leaves out."""
    given = audited.settings.effective_auth_mode
    if given == "forward":
        says = "auth_mode is forward: no ticket is verified, and none is needed."
        yield Finding(codes.AUTH_FORWARD, "auth_mode", says)
    elif given == "verify":
        says = "auth_mode is verify: signature and time are checked, privileges are not."
        yield Finding(codes.AUTH_VERIFY, "auth_mode", says)


def privileges(audited: Audited) -> Iterator[Finding]:
    """The privilege table against what is announced; nothing when it is not known."""
    table = audited.mesh.authz
    if table is None or audited.settings.effective_auth_mode != "enforce":
        return
    left_over = _not_announced(audited)
    unconfigured = []
    for entry in reached(audited):
        action = entry.action
        if action is None or action.noauth or is_builtin(action):
            continue
        required = table.required(action.spelling)
        if required is None:
            unconfigured.append(action)
        elif not required:
            code = codes.ANY_TICKET_READ if action.read else codes.ANY_TICKET_WRITE
            says = "It is listed with no privileges: every valid ticket suffices."
            yield Finding(code, action.label, says)
    for entry in audited.view.own:
        if entry.access == Access("ticket") and table.required(entry.target) is not None:
            says = "It is listed with no privileges: every valid ticket suffices."
            yield Finding(codes.ANY_TICKET_READ, entry.target, says)
    guesses = left_over if max(len(left_over), len(unconfigured)) <= _MAX_GUESSES else []
    for action in unconfigured:
        close = difflib.get_close_matches(action.spelling.lower(), guesses, 1, 0.8)
        hint = f" Is it {close[0]}, which is listed and which nobody announces?" if close else ""
        says = f"The table does not list {action.spelling}.{hint}"
        yield Finding(codes.UNCONFIGURED, action.label, says)
    for name in left_over:
        says = "The table lists it, and no service announces it."
        yield Finding(codes.NOT_ANNOUNCED, name, says)


def _not_announced(audited: Audited) -> list[str]:
    table = audited.mesh.authz
    assert table is not None  # noqa: S101 - asked for by those who have one
    left = set(table.actions())
    for offers in audited.mesh.registry.actions():
        left.discard(offers[0].action.spelling.lower())
    for service in audited.mesh.registry.services():
        left.discard(Topic("main", service.name, ()).spelling.lower())
    return sorted(left)
