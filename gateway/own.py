"""What a gateway serves besides actions, for lists of what is reachable."""

from __future__ import annotations

from gateway.settings import Settings
from gateway.surface import Access, Entry
from gateway.whoami import WhoAmI


def own_entries(settings: Settings) -> tuple[Entry, ...]:
    """The endpoints of a gateway with these settings."""
    ticket = Access("service" if settings.effective_auth_mode == "forward" else "ticket")
    return (Entry("gateway", WhoAmI.methods, WhoAmI.route, ticket),)
