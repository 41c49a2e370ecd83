"""Tickets and privileges for tests: signed with a key that everybody who has this package has.

::

    ticket = make_ticket(user_id=7, privileges=[1, 2])
    service = Service("shop", key=…, certificate=…, ticket_verifier=make_verifier())
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

import orjson

from scamp import keys
from scamp.testing.identity import make_identity
from scamp.tickets import TicketVerifier, issue_ticket

TICKET_KEY: Final = 9_001
"""The number of the identity whose key signs tickets (`make_identity`)."""


def make_ticket(
    *,
    user_id: int = 1,
    client_id: int = 1,
    privileges: Iterable[int] = (),
    expires_in: int = 3600,
    starts_in: int = -60,
    now: float | None = None,
    signer: int = TICKET_KEY,
) -> str:
    """A ticket that `make_verifier` accepts, from `starts_in` to `expires_in` seconds from now.

    A negative `expires_in` gives one that has expired, a large `starts_in` one that is not valid
    yet, another `signer` (a number for `make_identity`) one that is signed by a stranger. `now` is
    in seconds since 1970, by default the clock. Raises TicketMalformed for numbers that no ticket
    can hold, ValueError when it would end before it begins.
    """
    at = int(time.time() if now is None else now)
    if expires_in <= starts_in:
        starts_in = expires_in - 3600 if expires_in <= 0 else starts_in
    if expires_in <= starts_in:
        raise ValueError("the ticket would end before it begins")
    return issue_ticket(
        keys.load_private_key(make_identity(signer).key),
        user_id=user_id,
        client_id=client_id,
        privileges=privileges,
        start=at + starts_in,
        length=expires_in - starts_in,
    )


def ticket_public_key() -> bytes:
    """The public key that checks what `make_ticket` signs, as PEM: the content of a key file."""
    return keys.public_key_pem(make_identity(TICKET_KEY).key)


def make_verifier() -> TicketVerifier:
    """A verifier that accepts what `make_ticket` signs, and nothing else."""
    return TicketVerifier([keys.load_public_key(ticket_public_key())])


def make_authz_table(
    required: Mapping[str, Iterable[int]], names: Mapping[int, str] | None = None
) -> bytes:
    """The privilege table as the Auth service returns it: for `AuthzTable.parse`, or a file.

    `required` gives the privileges by action (``Namespace.name``), `names` the name of each.
    """
    listed: list[str | None] = [None] * (max(names, default=0) + 1 if names else 1)
    for number, name in (names or {}).items():
        listed[number] = name
    table: dict[str, object] = {a.lower(): sorted(set(needed)) for a, needed in required.items()}
    return orjson.dumps({**table, "_NAMES": listed})
