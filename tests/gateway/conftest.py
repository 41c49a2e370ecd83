"""Tickets and the keys that sign them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from scamp.tickets import issue_ticket


@pytest.fixture(scope="session")
def ticket_key() -> rsa.RSAPrivateKey:
    """The Auth service's key."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def make_ticket(ticket_key: rsa.RSAPrivateKey) -> Callable[..., str]:
    """``make_ticket(privileges, start=-60, length=3600)``: signed, times from now."""

    def make(
        privileges: tuple[int, ...] = (), *, start: int = -60, length: int = 3600, user: int = 7
    ) -> str:
        return issue_ticket(
            ticket_key,
            user_id=user,
            client_id=42,
            privileges=privileges,
            start=int(time.time()) + start,
            length=length,
        )

    return make
