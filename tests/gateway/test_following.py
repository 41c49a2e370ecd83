"""Files that are followed: read while somebody writes them, and what is told of a bad one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.following import MAX_REASONS, QUIET_ROUNDS, FollowedRoutes, FollowedTable, Following
from gateway.routes.model import RouteTable
from scamp.authz import AuthzSource
from scamp.errors import ConfigError

ROUTE = '[[routes]]\nmethod = "GET"\npath = "/v1/x"\naction = "A.b"\n'


@pytest.mark.parametrize("mistakes", [1, 3, MAX_REASONS, MAX_REASONS + 7])
async def test_each_mistake_is_a_record_of_its_own(
    mistakes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(ROUTE)
    used: list[RouteTable] = []
    results: list[tuple[str, str | None]] = []
    following = Following(
        [FollowedRoutes(path, used.append)], lambda name, error: results.append((name, error))
    )
    path.write_text(ROUTE.replace("A.b", "A") * mistakes)
    await following.look()
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == (
        f"routes not reloaded, the last good one stays: {path}:4: "
        "'A' is not [SECTOR:]Namespace.name[~VERSION]"
    )
    assert len(told) == min(mistakes, MAX_REASONS + 1)
    assert (f"{mistakes - MAX_REASONS} more mistakes" in told[-1]) == (mistakes > MAX_REASONS)
    ((name, error),) = results
    assert name == "routes"
    assert error is not None
    assert f"{path}:4: 'A' is not" in error
    assert used == []


ONE = '[[routes]]\nmethod = "GET"\npath = "/one"\naction = "Test.one"\n'
TWO = ONE + ONE.replace("one", "two")


async def test_a_routes_file_that_is_written_in_place_is_taken_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(TWO)
    used: list[RouteTable] = []
    followed = FollowedRoutes(path, used.append, quiet=0.3)
    path.write_text("")  # as an editor does, before it writes
    looking = asyncio.create_task(followed.look(force=False))
    for text in (ONE, TWO):
        await asyncio.sleep(0)
        path.write_text(text)
    assert await looking
    assert [len(table.routes) for table in used] == [2]
    assert not await followed.look(force=False)
    assert await followed.look(force=True)


async def test_a_routes_file_that_never_rests_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(ONE)
    used: list[RouteTable] = []
    followed = FollowedRoutes(path, used.append, quiet=0)
    rounds = 0

    async def write() -> None:
        nonlocal rounds
        while not used:
            rounds += 1
            path.write_text(ONE + "#" * rounds)
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    assert await followed.look(force=False)
    await writing
    assert rounds >= QUIET_ROUNDS


async def test_a_bad_routes_file_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(ONE)
    followed = FollowedRoutes(path, lambda table: None, quiet=0)
    path.write_text(f"{ONE}x")
    with pytest.raises(ConfigError, match=r"routes\.toml:5"):
        await followed.look(force=False)
    assert not await followed.look(force=False)


async def test_a_table_that_was_refused_is_told_good_when_it_was_fetched_since() -> None:
    """Nobody asks for another reload then: the alert would go on for ever."""
    away = True
    results: list[tuple[str, bool]] = []

    async def fetch() -> bytes:
        if away:
            raise ConfigError("the Auth service is away")
        return b"{}"

    source = AuthzSource(fetch)
    following = Following(
        [FollowedTable(source, None)], lambda name, why: results.append((name, why is None))
    )
    await following.look()
    assert results == []
    await following.look(force=True)
    await following.look()
    assert results == [("authz_table", False)]
    away = False
    await source.refresh()
    await following.look()
    await following.look()
    assert results == [("authz_table", False), ("authz_table", True)]
