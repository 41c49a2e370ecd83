"""The privilege table asked for over the mesh."""

from __future__ import annotations

import pytest

from scamp.authz import AuthzSource
from scamp.client import authz_fetcher
from scamp.errors import AuthzTableUnavailable, UnknownAction
from scamp.server import Request, Service
from scamp.testing import Mesh, make_identity


async def test_the_table_comes_from_the_auth_service() -> None:
    identity = make_identity()
    auth = Service("auth", key=identity.key, certificate=identity.certificate)
    asked: list[tuple[object, str | None]] = []

    @auth.action("Auth.getAuthzTable", flags="noauth")
    async def table(request: Request) -> object:
        asked.append((await request.json(), request.ticket_text))
        return {"shop.buy": [1], "_NAMES": [None, "buyer"]}

    await auth.start(port=0)
    async with Mesh(auth) as mesh:
        source = AuthzSource(authz_fetcher(mesh.requester))
        found = await source.get()
        await source.close()
    await auth.stop()
    assert found.required("Shop.buy") == frozenset({1})
    assert asked == [({}, None)]


async def test_without_an_auth_service_there_is_no_table() -> None:
    async with Mesh() as mesh:
        fetch = authz_fetcher(mesh.requester, timeout=1.0)
        with pytest.raises(UnknownAction):
            await fetch()
        source = AuthzSource(fetch)
        with pytest.raises(AuthzTableUnavailable, match="no service announces"):
            await source.get()
