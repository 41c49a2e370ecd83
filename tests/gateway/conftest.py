"""Tickets and the keys that sign them; an environment without settings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fronted import Fronted
from gateway.settings import ENV_PREFIX
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


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the developer's environment nor a scamp.conf of this machine takes part."""
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) or name in ("SCAMP", "SCAMP_CONFIG"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("scamp.config.SEARCHED", ())


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with a fast path and once without: nobody may be able to tell."""
    monkeypatch.setattr(Fronted, "fast_by_default", request.param)
